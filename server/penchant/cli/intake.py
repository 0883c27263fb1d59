"""Files of signals or items on their way to the server: reading, stopping on Ctrl-C, counting refusals."""

from __future__ import annotations

import json
import signal
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from penchant import jsonl
from penchant.cli.errors import INTERRUPTED, describe
from penchant.cli.output import plain, print_line, progress, stderr, write_line
from penchant.exceptions import InvalidInputError, PenchantError

M = TypeVar("M", bound=Message)

_LISTED = 20


class Stop:
    """Ctrl-C as a wish: reading ends, what is under way is finished. A second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.wished = False
        # Waiting for a line that may never come can't be left by a wish.
        self.reading = False

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Listen to Ctrl-C in here."""
        before = signal.signal(signal.SIGINT, self._wish)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _wish(self, *_: object) -> None:
        self.wished = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.reading:
            raise KeyboardInterrupt


@dataclass(slots=True)
class Summary:
    """How many lines were taken, had been captured before, or were refused."""

    taken_word: str
    taken: int = 0
    duplicates: int = 0
    refused: int = 0
    interrupted: bool = False
    error: PenchantError | None = None
    refusals: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, line: int, error: PenchantError, key: str = "") -> None:
        """Count a refused line, and keep the first ones to be listed."""
        self.refused += 1
        if len(self.refusals) < _LISTED:
            violations = error.violations if isinstance(error, InvalidInputError) else ()
            self.refusals.append(
                {
                    "line": line,
                    "id": key,
                    "field": violations[0].field if violations else "",
                    "reason": error.reason or error.code.name,
                    "message": describe(error),
                }
            )

    def show(self, *, as_json: bool, with_duplicates: bool) -> int:
        """Print the counts on stdout, for people the first refusals on stderr. Returns the exit code."""
        counts = {self.taken_word: self.taken, "duplicates": self.duplicates, "refused": self.refused}
        self.refusals.sort(key=lambda refusal: int(refusal["line"]))
        if not with_duplicates:
            del counts["duplicates"]
        if as_json:
            summary = {
                **counts,
                "interrupted": self.interrupted,
                "error": describe(self.error) if self.error else "",
                "refusals": self.refusals,
            }
            write_line(json.dumps(summary, ensure_ascii=False))
        else:
            self._show_to_people(counts)
        return INTERRUPTED if self.interrupted else 1 if self.refused or self.error else 0

    def _show_to_people(self, counts: dict[str, int]) -> None:
        for refusal in self.refusals:
            line = f"line {refusal['line']}: {refusal['message']}"
            stderr.print(plain(line), markup=False, highlight=False, soft_wrap=True)
        if self.refused > len(self.refusals):
            stderr.print(f"… and {self.refused - len(self.refusals)} more", highlight=False)
        if self.error:
            stderr.print(f"error: {plain(describe(self.error))}", markup=False, highlight=False, soft_wrap=True)
        if self.interrupted:
            stderr.print("interrupted")
        print_line(", ".join(f"{count} {word}" for word, count in counts.items()))


class Sent(NamedTuple):
    """What became of a message that was sent."""

    id: str
    error: PenchantError | None
    duplicate: bool = False


def send_file(
    file: Path, kind: type[M], send: Callable[[Iterable[M]], Iterator[Sent]], doing: str, done: str
) -> Summary:
    """Send all messages of a file, a few batches at once. Ctrl-C ends it after those under way.

    `send` tells of each in order; where it fails midway, the summary has what it told before.
    """
    stop, summary = Stop(), Summary(done)
    with jsonl.open_source(file) as source, progress(doing, source.size) as moved, stop.on_interrupt():
        intake = Intake(source, kind, summary, stop, moved)
        try:
            for position, sent in enumerate(send(intake)):
                if sent.error is not None:
                    summary.refuse(intake.numbers[position], sent.error, sent.id)
                elif sent.duplicate:
                    summary.duplicates += 1
                else:
                    summary.taken += 1
        except PenchantError as error:
            summary.error = error
    summary.interrupted = stop.wished
    return summary


class Intake(Generic[M]):
    """The readable messages of a source, in order; `numbers[i]` is the line of the i-th.

    Lines that can't be read are counted in `summary`. Iterating ends early once `stop` is wished.
    """

    def __init__(
        self, source: jsonl.Source, kind: type[M], summary: Summary, stop: Stop, moved: Callable[[int], None]
    ) -> None:
        self.numbers = array("q")
        self._lines = jsonl.read_messages(source, kind)
        self._source = source
        self._summary = summary
        self._stop = stop
        self._moved = moved

    def __iter__(self) -> Iterator[M]:
        while (line := self._next_line()) is not None:
            if isinstance(line.content, InvalidInputError):
                self._summary.refuse(line.number, line.content)
                continue
            self.numbers.append(line.number)
            if len(self.numbers) % 64 == 0:
                self._moved(self._source.position)
            yield line.content

    def _next_line(self) -> jsonl.Line[M] | None:
        if self._stop.wished:
            return None
        self._stop.reading = True
        try:
            return next(self._lines, None)
        except KeyboardInterrupt:
            return None
        finally:
            self._stop.reading = False
