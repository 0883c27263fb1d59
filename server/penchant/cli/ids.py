"""Ids of lines that bring none: made from their content, so that the same file always says the same."""

from __future__ import annotations

import hashlib
from collections import Counter

from google.protobuf.message import Message

from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.signal_pb2 import Signal


def identified(item: Item) -> Item:
    """Give an item without an id one from its content."""
    if not item.id:
        item.id = _content_id(item, "item", 16)
    return item


class SignalIds:
    """Gives the signals of a file that have no id one from their content, and from which occurrence of it they are."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, signal: Signal) -> Signal:
        """Give the next signal of the file its id."""
        if not signal.id:
            made = _content_id(signal, "signal", 32)
            self._seen[made] += 1
            signal.id = made if self._seen[made] == 1 else f"{made}-{self._seen[made]}"
        return signal


def _content_id(message: Message, kind: str, digits: int) -> str:
    content = message.SerializeToString(deterministic=True)
    return f"{kind}-{hashlib.sha256(content).hexdigest()[:digits]}"
