"""All commands, gathered under one name."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from penchant.cli import (
    adapters,
    backup,
    call,
    capture,
    catalog,
    doctor,
    embed,
    evaluate,
    finetune,
    jobs,
    mix,
    recommend,
    server,
    users,
)
from penchant.cli.errors import CommandGroup
from penchant.cli.options import Commands

app: Commands = Commands(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Live, explainable interests from what people write and do.",
)
for module in (
    server,
    capture,
    catalog,
    users,
    recommend,
    mix,
    adapters,
    jobs,
    backup,
    call,
    embed,
    finetune,
    evaluate,
    doctor,
):
    module.register(app)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penchant {version('penchant')}")
        raise typer.Exit


@app.callback()
def _before_any(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What holds for every command."""
