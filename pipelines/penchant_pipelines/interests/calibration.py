"""What cosines mean in an embedding space: its middle, and θ, the cosine from which a text is called of an interest.

Unrelated texts have something in common in every space, in some more than what tells them apart: all lie on one side.
How near two texts are by their subjects is therefore asked as seen from the middle of the space (Mu and Viswanath 2018,
"All-but-the-Top", take it out of the vectors themselves, which costs here some of what is told apart in ranking).

Both are measured on a small reference set of posts by topic, each language counting alike. The middle is their mean. θ
is the level that only one in twenty texts reaches towards the centre of a topic that is not its own. A language that
the encoder can't read has no say: all its texts lie in one place, which would push θ out of reach for the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.encoder import Vectors

FALSE_JOIN_RATE = 0.05
LEAST_APART = 0.01
"""Distance to the middle from which a direction counts: a text that lies in the middle itself is near to nothing."""
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


@dataclass(frozen=True, eq=False, slots=True)
class Calibration:
    """How cosines of a space read."""

    similarity: float
    """θ, a cosine as seen from the middle."""
    middle: NDArray[np.float32]
    """(d,) where texts of no subject in particular lie; shorter than 1."""

    def chosen(self, similarity: float | None) -> Calibration:
        """The same space with a θ that somebody chose; None: with that measured."""
        return self if similarity is None else replace(self, similarity=similarity)

    def cosines(self, ones: Vectors, others: Vectors) -> NDArray[np.float32]:
        """Cosines (n, m) of unit vectors (n, d) with others (m, d) as seen from the middle."""
        own, foreign, length = ones @ self.middle, others @ self.middle, self.middle @ self.middle
        products = ones @ others.T - own[:, None] - foreign[None, :] + length
        one, other = (np.maximum(1 + length - 2 * each, LEAST_APART**2) for each in (own, foreign))
        # By these, since `np.clip` and `np.outer` take longer to begin than a few vectors to multiply.
        cosines: NDArray[np.float32] = np.minimum(np.maximum(products / np.sqrt(one[:, None] * other), -1), 1)
        return cosines

    def seen(self, vectors: Vectors) -> Vectors:
        """Unit vectors (n, d) as seen from the middle, as unit vectors: their products are `cosines`."""
        apart = vectors - self.middle
        lengths = np.linalg.norm(apart, axis=1, keepdims=True)
        # What lies in the middle itself keeps a direction all the same, for an index that takes no other vectors.
        turned: Vectors = np.where(lengths > LEAST_APART, apart / np.maximum(lengths, LEAST_APART), vectors)
        return turned


def calibrate(encode: Callable[[Sequence[str]], Vectors]) -> Calibration:
    """Measure an encoder's space; encodes 200 short texts."""
    texts = reference_texts()
    vectors = encode([reference.text for reference in texts])
    read = _read(texts, vectors)
    middle = np.mean([vectors[rows].mean(axis=0) for rows in read], axis=0).astype(np.float32)
    seen = Calibration(0.0, middle).seen(vectors)
    # Between the languages that the encoder reads the level is a compromise.
    levels = [
        np.quantile(_cosines(seen[rows], [texts[row].topic for row in rows])[1], 1 - FALSE_JOIN_RATE) for rows in read
    ]
    return Calibration(round(float(np.mean(levels)), 4), middle)


def _read(texts: Sequence[Reference], vectors: Vectors) -> list[list[int]]:
    """Rows of each language that the encoder reads: where it tells topics apart about as well as in the best."""
    separations: list[tuple[float, list[int]]] = []
    for language in sorted({reference.language for reference in texts}):
        rows = [row for row, reference in enumerate(texts) if reference.language == language]
        seen = Calibration(0.0, vectors[rows].mean(axis=0)).seen(vectors[rows])
        separations.append((_auc(*_cosines(seen, [texts[row].topic for row in rows])), rows))
    best = max(separation for separation, _ in separations)
    return [rows for separation, rows in separations if separation >= READABLE * best]


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
            cosine = float(vector @ centre / max(float(np.linalg.norm(centre)), LEAST_APART))
            (own if topic == names[row] else others).append(cosine)
    return np.array(own), np.array(others)


def _auc(own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Chance that a text is nearer to its own topic than another text is to a strange one."""
    return float((own[:, None] > others[None, :]).mean())
