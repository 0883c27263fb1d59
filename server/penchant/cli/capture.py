"""`capture`: signals from a file, or one post from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from penchant.cli.ids import SignalIds
from penchant.cli.intake import Sent, Summary, send_file
from penchant.cli.options import DEFAULT_SERVER, INPUT_FILE, Commands, Json, Server, connect
from penchant.cli.output import drift_words, interest_name, print_json, print_line
from penchant.client import Client
from penchant.v1.signal_pb2 import Signal


def register(app: Commands) -> None:
    """Add the command."""
    app.command()(capture)


def capture(
    file: Annotated[Path | None, INPUT_FILE] = None,
    user: Annotated[str | None, typer.Option("--user", help="Who wrote the text.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="One post, in place of a file.")] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Capture signals: a file of them, or one post with --user and --text. Exit code 1 if any was refused.

    A line without an id gets one made from its content, and a line that repeats
    another of the file one of its own: the same file sent again is captured once.
    Two files that hold the same line must tell them apart by id or time.
    """
    with connect(server) as client:
        if file is not None and user is None and text is None:
            summary = capture_file(client, file)
            raise typer.Exit(summary.show(as_json=as_json, with_duplicates=True))
        if file is None and user is not None and text is not None:
            capture_post(client, user, text, as_json)
            return
    raise typer.BadParameter("give either FILE, or both --user and --text")


def capture_post(client: Client, user: str, text: str, as_json: bool) -> None:
    """Capture one post and show what it changed."""
    response = client.capture(user_id=user, text=text)
    if as_json:
        print_json(response)
        return
    changed = ", ".join(f"{interest_name(i)} ({i.weight:+.2f})" for i in response.changed)
    print_line("captured", response.signal_id, changed, drift_words(response.drift))


def capture_file(client: Client, file: Path) -> Summary:
    """Capture all signals of a file."""

    def send(signals: Iterable[Signal]) -> Iterator[Sent]:
        for result in client.capture_many(map(SignalIds(), signals)):
            yield Sent(result.signal.id, result.error, result.response is not None and result.response.duplicate)

    return send_file(file, Signal, send, "capturing", "captured")
