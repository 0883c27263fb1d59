"""Options that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from penchant._channel import SERVER_VARIABLE
from penchant.client import Client
from penchant.jsonl import STDIN

Commands = typer.Typer

Server = Annotated[
    str,
    typer.Option("--server", metavar="HOST:PORT", envvar=SERVER_VARIABLE, help="The server to call."),
]
Json = Annotated[bool, typer.Option("--json", help="Print proto3 JSON, for machines.")]
INPUT_FILE = typer.Argument(
    metavar="FILE",
    callback=lambda file: _existing(file),
    help="JSON Lines (.jsonl, .jsonl.gz) or Parquet (.parquet); - for standard input.",
)
User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]

DEFAULT_SERVER = "127.0.0.1:50051"

# People wait longer for a command than a backend does for a call.
_TIMEOUT_SECONDS = 30.0


def connect(server: str, timeout: float | None = None) -> Client:
    """Open a client to `host:port`; `timeout` in seconds where a call of the command takes longer than most."""
    return Client(server, timeout=timeout or _TIMEOUT_SECONDS)


def _existing(file: Path | None) -> Path | None:
    if file is not None and file != STDIN and not file.exists():
        raise typer.BadParameter(f"{file} does not exist")
    if file is not None and file.is_dir():
        raise typer.BadParameter(f"{file} is a folder")
    return file


def parse_time(value: str) -> datetime:
    """Parse an ISO 8601 time or date; UTC where it has no offset. Wrong input is wrong usage."""
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a time such as 2026-01-31T12:00:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
