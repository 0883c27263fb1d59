"""`recommend` and `find-users`: from interests to items, and from items to interested users."""

from __future__ import annotations

from typing import Annotated

import typer

from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, User, connect
from penchant.cli.output import interest_name, print_json, print_line, print_table
from penchant.client import Client
from penchant.exceptions import NotFoundError
from penchant.v1.recommendation_service_pb2 import RecommendResponse

Count = Annotated[int, typer.Option("-n", min=1, help="How many at most.")]


def register(app: Commands) -> None:
    """Add the commands."""
    app.command()(recommend)
    app.command()(find_users)


def recommend(
    user: User,
    count: Count = 20,
    filter_: Annotated[
        str, typer.Option("--filter", metavar="EXPRESSION", help='AIP-160, such as category = "film".')
    ] = "",
    query: Annotated[str, typer.Option("--query", metavar="WORDS", help="Lean towards these this once.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Show sources and signals behind each item.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Rank items of the catalogue for a user."""
    with connect(server) as client:
        answer = client.recommend(user, page_size=count, filter=filter_, query=query, explain=explain)
        if as_json:
            print_json(answer)
        else:
            _show(client, user, answer, explain)


def _show(client: Client, user: str, answer: RecommendResponse, explain: bool) -> None:
    names: dict[str, str] = {}
    if any(r.interest_id for r in answer.recommendations):
        names = {interest.id: interest_name(interest) for interest in client.profile(user).interests}
    mixed = any(r.sources for r in answer.recommendations)
    told = any(r.HasField("chance") for r in answer.recommendations)
    columns = ["score", *["chance"] * told, "item", "title", *["sources"] * mixed, "from interest"]
    columns += ["because of"] * explain
    rows = []
    for r in answer.recommendations:
        chance = [f"{r.chance:.2%}" if r.HasField("chance") else ""] * told
        row = [r.score, *chance, r.item_id, _title(client, r.item_id)]
        if mixed:
            row.append(", ".join(f"{s.source} {s.share:.0%}" for s in r.sources))
        row.append(names.get(r.interest_id, r.interest_id))
        if explain:
            row.append("; ".join(f"{e.snippet or e.item_id} ({e.contribution:+.2f})" for e in r.evidence))
        rows.append(row)
    print_table(columns, rows, empty="nothing to recommend")
    for reason in answer.degraded:
        print_line(f"degraded: {reason}")


def _title(client: Client, item_id: str) -> str:
    try:
        item = client.item(item_id)
    except NotFoundError:
        # Deleted since it was recommended.
        return ""
    return item.title or item.text[:60]


def find_users(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What they should care about.")] = None,
    item_id: Annotated[str | None, typer.Option("--item", metavar="ID", help="An item, in place of a text.")] = None,
    count: Count = 20,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Find the users whose interests are closest to a text or an item."""
    if (text is None) == (item_id is None):
        raise typer.BadParameter("give either TEXT or --item")
    with connect(server) as client:
        matches = client.find_users(text=text, item_id=item_id, page_size=count)
    if as_json:
        for match in matches:
            print_json(match)
        return
    print_table(
        ("user", "interest", "similarity", "weight"),
        ((m.user_id, m.label or m.interest_id, m.similarity, m.weight) for m in matches),
        empty="nobody",
    )
