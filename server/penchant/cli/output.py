"""What people and machines get to see: tables and JSON on stdout, progress and errors on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from penchant import jsonl
from penchant.v1.interest_service_pb2 import Drift, Interest, Steering, Trend

# Into a file or a pipe, a table takes the room it needs: an id that is cut can't be copied.
stdout = Console(width=None if sys.stdout.isatty() else 1_000_000)
stderr = Console(stderr=True)

# What users wrote must not steer the terminal that it is shown on.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return text for one line of a terminal: every control character becomes a space."""
    return _CONTROL.sub(" ", text)


def print_json(message: Message, *, defaults: bool = True) -> None:
    """Print a message as one line of proto3 JSON."""
    write_line(jsonl.to_json(message, defaults=defaults))


def write_line(line: str) -> None:
    """Print a line as it is, at once: whoever reads it may act on it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def print_line(*parts: str) -> None:
    """Print a line for people, its parts two spaces apart."""
    stdout.print(Text("  ".join(plain(part) for part in parts if part)), soft_wrap=True)


_NARROW = ("id", "time", "created", "last", "item", "user")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows as a table, numbers to the right; `empty` is said where there are none."""
    cells = list(rows)
    if not cells:
        print_line(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, cell in zip(columns, cells[0], strict=True):
        table.add_column(
            column, justify="right" if isinstance(cell, int | float) else "left", no_wrap=column in _NARROW
        )
    for row in cells:
        table.add_row(*(Text(_cell(cell)) for cell in row))
    stdout.print(table)


def print_details(rows: Iterable[tuple[str, str]]) -> None:
    """Print names with their texts, indented; a long text goes on below its beginning."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in rows:
        table.add_row(Text(plain(name)), Text(plain(text)))
    if table.row_count:
        stdout.print(Padding(table, (0, 0, 0, 5), expand=False))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, 3) + 0.0:.3f}"  # there is no −0
    if isinstance(value, Timestamp):
        return when(value)
    return plain(str(value))


def when(time: Timestamp) -> str:
    """Write a time in UTC to the minute; empty where unset."""
    return f"{time.ToDatetime():%Y-%m-%d %H:%M}" if time.ByteSize() else ""


def interest_name(interest: Interest) -> str:
    """Name an interest: its label, else its keywords, else its id."""
    return interest.label or " ".join(interest.keywords[:3]) or interest.id


def interest_row(interest: Interest) -> tuple[object, ...]:
    """Return a row for `INTEREST_COLUMNS`."""
    return (
        interest.id,
        interest_name(interest),
        interest.weight,
        interest.confidence,
        Trend.Name(interest.trend).removeprefix("TREND_").lower() if interest.trend else "",
        interest.signal_count,
        interest.last_time,
        steering_words(interest.steering),
    )


INTEREST_COLUMNS = ("id", "interest", "weight", "confidence", "trend", "signals", "last", "steered")


def steering_words(steering: Steering) -> str:
    """Say how the user steers an interest; empty where not at all."""
    words = [word for word, on in (("muted", steering.muted), ("pinned", steering.pinned)) if on]
    return ", ".join([*words, *([f"bias {steering.bias:+g}"] if steering.bias else [])])


def drift_words(drift: Drift) -> str:
    """Say whether recent signals left the long record, and since when; the magnitude does not decide it."""
    if not drift.enough_evidence:
        return "drift: too few signals to judge"
    if not drift.detected:
        return "drift: none"
    return f"drift: yes, since {when(drift.since)}"


@contextmanager
def progress(description: str, total: int | None, *, counted: bool = False) -> Iterator[Any]:
    """Show a bar on stderr while it is a terminal. Yields a function that sets how much is done, and of how much.

    `total` is in bytes, or in pieces where `counted`; None where it can't be known.
    """
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn()]
    columns.append(MofNCompleteColumn() if counted else TextColumn("{task.percentage:>3.0f} %"))
    bar = Progress(*columns, TimeRemainingColumn(), console=stderr, transient=True, disable=not stderr.is_terminal)
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda done, text=description, total=total: bar.update(
            task, completed=done, description=text, total=total
        )
