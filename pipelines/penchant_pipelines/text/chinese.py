"""Traditional and simplified Chinese, each from the other."""

from __future__ import annotations

import functools
import threading
from importlib import resources

from opencc import OpenCC

_lock = threading.Lock()


@functools.cache
def _traditional() -> frozenset[str]:
    table = resources.files("opencc").joinpath("dictionary", "TSCharacters.txt").read_text(encoding="utf-8")
    pairs = (line.split("\t") for line in table.splitlines())
    return frozenset(key for key, value in pairs if value.split(" ")[0] != key)


@functools.cache
def _converter(direction: str) -> OpenCC:
    return OpenCC(direction)


def to_simplified(text: str) -> str:
    """Return `text` in simplified characters; it keeps its length, so positions stay valid."""
    return text if _traditional().isdisjoint(text) else _convert("t2s", text)


def to_traditional(text: str) -> str:
    """Return `text` in traditional characters."""
    return _convert("s2t", text)


def _convert(direction: str, text: str) -> str:
    with _lock:
        converter = _converter(direction)
    converted: str = converter.convert(text)
    return converted
