"""What the demo plays: the catalogue and half a year of signals, moved so that they end an hour ago."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from penchant import jsonl
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.signal_pb2 import Signal

M = TypeVar("M", bound=Message)

_FOLDER = Path(__file__).parent
_CHANGES = {"oliver": datetime(2026, 6, 5, tzinfo=UTC), "lin": datetime(2026, 6, 8, tzinfo=UTC)}


@dataclass(frozen=True, slots=True)
class Story:
    """Items, and signals in order of time; `changes` says whose interests change, and when (UTC)."""

    items: tuple[Item, ...]
    signals: tuple[Signal, ...]
    changes: dict[str, datetime]

    @property
    def turn(self) -> datetime:
        """When the first change begins: until then everybody is as ever."""
        return min(self.changes.values())

    @property
    def users(self) -> list[str]:
        """All users, by name."""
        return sorted({signal.user_id for signal in self.signals})

    def count_since_change(self, user_id: str, until: datetime) -> int:
        """Count a changed user's signals from the change on, up to and including a time."""
        first = self.changes[user_id]
        return sum(s.user_id == user_id and first <= time_of(s) <= until for s in self.signals)


def load_story(now: datetime) -> Story:
    """Read the story and move it in time, so that its newest signal is an hour before `now`."""
    items, signals = tuple(_read("items.jsonl", Item)), tuple(_read("signals.jsonl", Signal))
    shift = now - timedelta(hours=1) - time_of(signals[-1])
    for signal in signals:
        signal.time.FromDatetime(time_of(signal) + shift)
    for item in items:
        item.create_time.FromDatetime(item.create_time.ToDatetime(UTC) + shift)
    return Story(items, signals, {user_id: time + shift for user_id, time in _CHANGES.items()})


def time_of(signal: Signal) -> datetime:
    """When the signal happened, in UTC."""
    return signal.time.ToDatetime(UTC)


def _read(name: str, kind: type[M]) -> Iterator[M]:
    with (_FOLDER / name).open(encoding="utf-8") as file:
        for line in file:
            yield jsonl.parse_message(line, kind)
