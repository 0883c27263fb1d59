"""Traditional to simplified Chinese, character for character."""

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
def _converter() -> OpenCC:
    return OpenCC("t2s")


def to_simplified(text: str) -> str:
    """Return `text` in simplified characters; it keeps its length, so positions stay valid."""
    if _traditional().isdisjoint(text):
        return text
    with _lock:
        converter = _converter()
    converted: str = converter.convert(text)
    return converted
