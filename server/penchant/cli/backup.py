"""`backup`: a copy of a server's data that it can be started from; the server may run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from penchant.cli.files import Config, Data, read_settings
from penchant.cli.options import Commands, Json
from penchant.cli.output import print_line, write_line


def register(app: Commands) -> None:
    """Add the command."""
    app.command()(backup)


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the copy.")],
    data: Data = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Copy the record and the adapters into a new folder, while the server runs or not.

    The copy is of one moment, and nobody who writes waits for it. The index is
    not in it: a server that is started on the copy builds it anew.
    """
    # Here, not above: it takes seconds to load.
    from penchant_pipelines.record.backup import back_up

    source = read_settings(config, data=data).data
    found = back_up(source, target)
    if as_json:
        write_line(json.dumps({"record_bytes": found.record_bytes, "adapters": found.adapters}, ensure_ascii=False))
        return
    adapters = f"adapters {', '.join(found.adapters)}" if found.adapters else "no adapters"
    print_line(f"record ({found.record_bytes:,} bytes) and {adapters} of {source} are in {target}")
    print_line(f"to restore: put a copy of {target} where no data folder is, and start `penchant serve --data` on it")
