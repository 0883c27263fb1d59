"""`doctor` and `info`: is everything in order, and what is running."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import grpc
import typer

from penchant._channel import SERVER_VARIABLE, address, channel_options
from penchant.cli.errors import describe
from penchant.cli.files import Config, Data, read_settings
from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, connect
from penchant.cli.output import plain, print_json, print_line, stdout, write_line
from penchant.exceptions import PenchantError, from_rpc_error
from penchant_pipelines.errors import PenchantError as DomainError

if TYPE_CHECKING:
    from penchant.settings import Settings

_MIN_PYTHON = (3, 11)
_MIN_FREE_BYTES = 1 << 30
# Writes that the index may be behind before somebody should look.
_MAX_LAG = 10_000
_HEALTH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `ok` is False where something is broken."""

    check: str
    ok: bool
    detail: str


def register(app: Commands) -> None:
    """Add the commands."""
    app.command()(doctor)
    app.command()(info)


def doctor(
    data: Data = None,
    config: Config = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="HOST:PORT",
            envvar=SERVER_VARIABLE,
            help="The server to call, if not where its settings say.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine, the encoder, the data folder and the server. Exit code 1 if something is broken."""
    settings: Settings | None = None

    def read() -> tuple[bool, str]:
        nonlocal settings
        settings = read_settings(config, data=data)
        return True, f"from {config or 'no file'} and the environment"

    def checks() -> Iterator[tuple[str, Callable[[], tuple[bool, str]]]]:
        yield from (("python", _python), ("packages", _packages), ("device", _device), ("settings", read))
        if settings is not None:
            yield "encoder weights", partial(_weights, settings)
            yield "data folder", partial(_data_folder, settings)
            yield "record", partial(_record, settings)
        if target := server or (settings and settings.listen):
            yield "server health", partial(_health, target)
            yield "server index", partial(_index, target)

    findings = []
    for name, check in checks():
        findings.append(finding := _run(name, check))
        if as_json:
            write_line(json.dumps(asdict(finding), ensure_ascii=False))
        else:
            mark = "[green]ok    [/]" if finding.ok else "[red]broken[/]"
            stdout.print(mark, end="  ")
            stdout.print(f"{name}: {plain(finding.detail)}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _run(name: str, check: Callable[[], tuple[bool, str]]) -> Finding:
    try:
        return Finding(name, *check())
    except PenchantError as error:
        return Finding(name, False, describe(error))
    except (DomainError, ImportError, OSError, ValueError) as error:
        return Finding(name, False, str(error))


def _python() -> tuple[bool, str]:
    return sys.version_info >= _MIN_PYTHON, f"{platform.python_version()} on {platform.platform()}"


def _packages() -> tuple[bool, str]:
    missing = [name for name in _required() if not _installed(name)]
    return not missing, f"missing: {', '.join(missing)}" if missing else "all installed"


def _required() -> Iterator[str]:
    """Names of the packages that this one can't do without."""
    for requirement in metadata.requires("penchant") or []:
        if "extra ==" not in requirement and (name := re.match(r"[\w.-]+", requirement)):
            yield name[0]


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _device() -> tuple[bool, str]:
    import torch

    if torch.cuda.is_available():
        return True, f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda}), torch {torch.__version__}"
    return True, f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _weights(settings: Settings) -> tuple[bool, str]:
    from penchant_pipelines.encoder.adapter import check_adapter
    from penchant_pipelines.encoder.sentence import BILINGUAL, embedded_model

    model, adapter = settings.encoder.model, settings.encoder.adapter
    if adapter is not None:
        check_adapter(adapter)
    settings.encoder.adapter_folder(settings.data)  # as a start does, it refuses one that is not there
    if model:
        # A model of the operator's own has no hash to compare with.
        return True, f"{model} (configured)"
    check_adapter(BILINGUAL)
    return True, f"unaltered, in {embedded_model()} and {BILINGUAL}"


def _data_folder(settings: Settings) -> tuple[bool, str]:
    data = settings.data
    if "data" in settings.model_fields_set and not data.is_dir():
        return False, f"there is no folder {data}; name the one that the server was started with, or start it"
    # The server makes the folder; until then the nearest one above it tells how much room there is.
    existing = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.is_dir())
    if not os.access(existing, os.W_OK):
        return False, f"{existing} can't be written by this account, or is on a read-only disk"
    free = shutil.disk_usage(existing).free
    room = f"{free / (1 << 30):.1f} GiB free for {data}"
    if not data.is_dir():
        room += ", which is not there yet: a server started here makes it"
    return free >= _MIN_FREE_BYTES, room if free >= _MIN_FREE_BYTES else f"{room}; 1 GiB is little"


def _record(settings: Settings) -> tuple[bool, str]:
    from penchant_pipelines.record.record import FILE, is_damage, is_gone, reading_uri

    path = settings.data / FILE
    if is_gone(settings.data):
        return False, f"{path} is missing or empty, and there was one: put a backup of it into an empty folder"
    if not path.is_file():
        return True, "none yet"
    try:
        with closing(sqlite3.connect(reading_uri(path), uri=True)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            return False, f"{path} can't be read: {error}"
        found = str(error)
    return (
        found == "ok",
        "sound" if found == "ok" else f"{path} is damaged ({found}): put a backup of it into an empty folder",
    )


def _health(server: str) -> tuple[bool, str]:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    target = address(server)
    # What is wrong now is asked for, not what would be right a moment later.
    options = [*channel_options(target), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return status == "SERVING", f"{server} is {status}"


def _index(server: str) -> tuple[bool, str]:
    # Tells at once that nobody answers, which a client tries for a while.
    _health(server)
    with connect(server) as client:
        answer = client.server_info()
    if not answer.index_up:
        away = "it is being built, or can't be: the server's log says why (index.not_rebuilt)"
        return False, f"version {answer.version}, exact search answers in place of the index; {away}"
    state = f"version {answer.version}, {answer.index_lag} writes behind the record"
    return answer.index_lag <= _MAX_LAG, state


def info(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Show the server's version, encoder, limits and counts."""
    with connect(server) as client:
        answer = client.server_info()
    if as_json:
        print_json(answer)
        return
    for field in answer.DESCRIPTOR.fields:
        print_line(f"{field.name.replace('_', ' ')}:", str(getattr(answer, field.name)))
