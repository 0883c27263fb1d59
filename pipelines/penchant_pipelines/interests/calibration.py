"""θ for an embedding space: the cosine from which a text is called of an interest.

Cosines mean something else in every space, so θ is measured on a small reference set of posts by topic:
the level that only one in twenty texts reaches towards the centre of a topic that is not its own, on the
mean of the languages that the encoder reads. One that it can't read has no say: all its texts get the same
high cosine, which would push θ out of reach for the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.encoder import Vectors

FALSE_JOIN_RATE = 0.05
READABLE = 0.8
"""Least separation of a language that counts, as a share of the best language's."""


class Reference(NamedTuple):
    """One post of the reference set."""

    topic: str
    language: str
    text: str


def reference_texts() -> list[Reference]:
    """The reference set: 20 topics, five posts each in English and in Chinese."""
    lines = resources.files(__package__).joinpath("calibration.jsonl").read_text("utf-8").splitlines()
    return [Reference(**json.loads(line)) for line in lines]


def calibrate(encode: Callable[[Sequence[str]], Vectors]) -> float:
    """Measure θ for an encoder; encodes 200 short texts."""
    texts = reference_texts()
    vectors = encode([reference.text for reference in texts])
    levels: list[tuple[float, float]] = []
    for language in sorted({reference.language for reference in texts}):
        rows = [row for row, reference in enumerate(texts) if reference.language == language]
        own, others = _cosines(vectors[rows], [texts[row].topic for row in rows])
        levels.append((_auc(own, others), float(np.quantile(others, 1 - FALSE_JOIN_RATE))))
    # A language that the encoder can't read has no say; between those that it reads the level is a compromise.
    best = max(separation for separation, _ in levels)
    read = [level for separation, level in levels if separation >= READABLE * best]
    return round(float(np.mean(read)), 4)


def _cosines(vectors: Vectors, topics: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines of each text to its own topic's other texts' centre, and to all other topics' centres."""
    names = np.array(topics)
    own: list[float] = []
    others: list[float] = []
    for row, vector in enumerate(vectors):
        for topic in sorted(set(topics)):
            members = names == topic
            members[row] = False
            centre = vectors[members].mean(axis=0)
            cosine = float(vector @ centre / np.linalg.norm(centre))
            (own if topic == names[row] else others).append(cosine)
    return np.array(own), np.array(others)


def _auc(own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Chance that a text is nearer to its own topic than another text is to a strange one."""
    return float((own[:, None] > others[None, :]).mean())
