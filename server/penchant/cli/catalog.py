"""`items`: the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from penchant.cli.ids import identified
from penchant.cli.intake import Sent, send_file
from penchant.cli.options import DEFAULT_SERVER, INPUT_FILE, Commands, Json, Server, connect
from penchant.cli.output import print_json, print_line, print_table, write_line
from penchant.v1.catalog_service_pb2 import Item

items = typer.Typer(no_args_is_help=True, help="The catalogue: import, list and delete items.")


def register(app: Commands) -> None:
    """Add the commands."""
    app.add_typer(items, name="items")


@items.command("import")
def import_items(
    file: Annotated[Path, INPUT_FILE],
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Put items into the catalogue, new or changed. Exit code 1 if any was refused.

    A line without an id gets one made from its content, the same at every import.
    """
    with connect(server) as client:

        def send(found: Iterable[Item]) -> Iterator[Sent]:
            for result in client.upsert_many(map(identified, found)):
                yield Sent(result.item.id, result.error)

        summary = send_file(file, Item, send, "importing", "imported")
    raise typer.Exit(summary.show(as_json=as_json, with_duplicates=False))


@items.command("list")
def list_items(
    filter_: Annotated[
        str, typer.Option("--filter", metavar="EXPRESSION", help='AIP-160, such as category = "film".')
    ] = "",
    limit: Annotated[int, typer.Option("-n", min=0, help="Most items to list; 0 for all.")] = 50,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """List items of the catalogue."""
    with connect(server) as client:
        found = islice(client.items(filter_), limit or None)
        if as_json:
            for item in found:
                # Without defaults, so that a line is what `items import` takes, and no longer than it was.
                print_json(item, defaults=False)
            return
        print_table(
            ("id", "title", "categories", "created", "hidden"),
            ((i.id, i.title or i.text[:60], ", ".join(i.categories), i.create_time, "yes" * i.hidden) for i in found),
            empty="no items",
        )


@items.command("delete")
def delete_items(
    item_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the items to delete.")],
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Delete items from the catalogue; what users did with them stays in their interests."""
    with connect(server) as client:
        count = client.delete_items(item_ids)
    if as_json:
        write_line(f'{{"deleted_count": {count}}}')
    else:
        print_line(f"{count} deleted")
