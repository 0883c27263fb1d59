"""Settings, items and signals for commands that work in this process, without a server; and files that are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from google.protobuf.message import Message

from penchant import jsonl
from penchant.cli.errors import describe
from penchant.cli.output import plain, progress, stderr
from penchant.exceptions import InvalidInputError

# The domain takes seconds to load.
if TYPE_CHECKING:
    from penchant.settings import Settings
    from penchant_pipelines.model import Item, Signal

M = TypeVar("M", bound=Message)
T = TypeVar("T")

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the server, such as encoder.model=…; repeatable."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", exists=True, dir_okay=False, help="The server's settings, TOML."),
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="The server's data folder, if not that of its settings.")
]


def read_settings(config: Path | None, assignments: list[str] | None = None, data: str | None = None) -> Settings:
    """Load the server's settings from a file, KEY=VALUE assignments, and a data folder of its own."""
    from penchant.settings import load_settings

    overrides = read_assignments(assignments)
    if data is not None:
        overrides["data"] = data
    return load_settings(config=config, overrides=overrides)


def read_assignments(assignments: list[str] | None) -> dict[str, str]:
    """Settings by key from KEY=VALUE."""
    overrides: dict[str, str] = {}
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--set")
        # A prompt may end in a space.
        overrides[key.strip()] = value.lstrip()
    return overrides


@contextmanager
def whole_file(output: Path) -> Iterator[Path]:
    """Yield where to write what shall stand at `output` once it is whole: beside it.

    What is no file, as /dev/stdout, is written to as it comes: nothing may take its place.
    """
    if output.exists() and not output.is_file():
        yield output
        return
    target = output.resolve()  # a link stays one
    unfinished = target.with_name(target.name + ".part")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


class Refusals:
    """Lines that the server would refuse: counted, the first ones told on stderr."""

    _LISTED = 5

    def __init__(self) -> None:
        self.count = 0

    def add(self, file: Path, line: int, why: str) -> None:
        """Count a line."""
        self.tell(f"{file.name} line {line}: {why}")

    def tell(self, why: str) -> None:
        """Count what is known by another name than its line."""
        self.count += 1
        if self.count <= self._LISTED:
            stderr.print(plain(f"left out: {why}"), markup=False, highlight=False, soft_wrap=True)


Refuse = Callable[[Path, int, str], object]
"""What to do with a line that the server would refuse: its file, its number, and why."""


def read_files(
    items: Path, signals: Path, settings: Settings, refused: Refuse
) -> tuple[Iterator[Item], Iterator[Signal]]:
    """Read items and signals as they are asked for; lines that the server would refuse go to `refused` instead.

    Lines without an id get the one that `items import` and `capture` give them.
    """
    from penchant import convert
    from penchant.cli.ids import SignalIds, identified
    from penchant.v1 import catalog_service_pb2, signal_pb2
    from penchant.validation import Limits, Validator
    from penchant_pipelines.errors import InvalidInput
    from penchant_pipelines.model import Behavior
    from penchant_pipelines.reader import check_value
    from penchant_pipelines.record.rows import digest

    contents: dict[str, bytes] = {}

    def to_signal(message: signal_pb2.Signal) -> Signal:
        signal = convert.to_signal(message)
        if isinstance(signal.evidence, Behavior):
            check_value(signal.evidence)
        if contents.setdefault(signal.id, content := digest(signal)) != content:
            raise InvalidInput.at("id", f"{signal.id!r} was given to another signal before; ids are of one signal each")
        return signal

    limits = settings.limits
    check = Validator(Limits(limits.text_bytes, limits.batch_size)).check
    return (
        _messages(items, catalog_service_pb2.Item, identified, convert.to_item, check, refused),
        _messages(signals, signal_pb2.Signal, SignalIds(), to_signal, check, refused),
    )


def _messages(
    file: Path,
    kind: type[M],
    identify: Callable[[M], M],
    read: Callable[[M], T],
    check: Callable[[M], None],
    refused: Refuse,
) -> Iterator[T]:
    from penchant_pipelines.errors import InvalidInput

    with jsonl.open_source(file) as source, progress(f"reading {file.name}", source.size) as moved:
        for line in jsonl.read_messages(source, kind):
            if isinstance(line.content, InvalidInputError):
                refused(file, line.number, describe(line.content))
                continue
            message = identify(line.content)
            try:
                check(message)
                made = read(message)
            except InvalidInput as error:
                refused(file, line.number, error.message)
                continue
            yield made
            moved(source.position)
