"""`serve`, its `settings`, and `demo`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from penchant.cli.files import Config, read_assignments
from penchant.cli.options import Commands
from penchant.cli.output import write_line


def register(app: Commands) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(settings)
    app.command()(demo)


def serve(
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Folder that holds all that is kept.")
    ] = None,
    listen: Annotated[str | None, typer.Option("--listen", metavar="HOST:PORT", help="Address to listen on.")] = None,
    config: Config = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as encoder.device=cpu; repeatable."),
    ] = None,
) -> None:
    """Run the server until it is told to stop (Ctrl-C, SIGTERM)."""
    overrides = read_assignments(assignments)
    if data is not None:
        overrides["data"] = data
    if listen is not None:
        overrides["listen"] = listen

    # Nothing is half written until it serves, and who is stopped by the signal itself has not failed.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Here, not above: the server's libraries take seconds to load, and no other command needs them.
    from penchant.app import run
    from penchant.settings import load_settings

    raise typer.Exit(run(load_settings(config=config, overrides=overrides)))


def settings() -> None:
    """Print every setting with its default and its meaning: a TOML file to start from."""
    from penchant.settings import document

    write_line(document().rstrip())


def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", file_okay=False, help="Folder that holds all that is kept."),
    ] = None,
) -> None:
    """Start a server of its own, play a small story in two languages through it, and show what comes out."""
    from penchant.demo.play import run_demo

    raise typer.Exit(run_demo(data))
