"""Tiny logs that evaluation is tested with: who wins is known beforehand."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.evaluation.log import Log, read_log
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Signal
from penchant_pipelines.text import TextPipeline, TextSettings

START = 19_000 * MICROS_PER_DAY


def bag_of_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of 64 numbers: each word adds a random direction of its own."""
    rows = []
    for text in texts:
        seeds = [zlib.crc32(word.encode()) for word in text.lower().split()] or [0]
        rows.append(np.sum([np.random.default_rng(seed).normal(size=64) for seed in seeds], axis=0))
    vectors = np.array(rows, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def like(user: str, day: float, item: str, value: float | None = None, action: Action = Action.LIKE) -> Signal:
    """A signal of a user on a day, which is counted from 0."""
    time = START + int(day * MICROS_PER_DAY)
    return Signal(f"{user}-{time}-{item}-{action}", user, Behavior(item, action, value), time)


def read(items: Iterable[Item], signals: Iterable[Signal], seed: int = 0) -> Log:
    """Read a log with such vectors."""
    return read_log(items, signals, TextPipeline(TextSettings()), bag_of_words, seed)
