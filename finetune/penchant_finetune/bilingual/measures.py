"""How well an encoder reads Chinese and English: the measures that the bilingual adapter is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy.stats import spearmanr

from penchant_finetune.bilingual.corpus import Graded, Held, Topical
from penchant_pipelines.encoder import Vectors
from penchant_pipelines.errors import InvalidInput

NEIGHBOURS = 10


class Encodes(Protocol):
    """An encoder, or a model in training."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts in order: (n, d) float32 unit rows."""


def similarity(encoder: Encodes, rows: Sequence[Graded]) -> float:
    """Spearman correlation of cosines with the grades."""
    left, right = encoder.encode([row.a for row in rows]), encoder.encode([row.b for row in rows])
    return float(spearmanr((left * right).sum(axis=1), [row.score for row in rows]).statistic)


def retrieval(encoder: Encodes, pairs: Sequence[tuple[str, str]]) -> float:
    """Share of Chinese texts whose nearest English text is their translation."""
    chinese, english = encoder.encode([zh for zh, _ in pairs]), encoder.encode([en for _, en in pairs])
    return float(((chinese @ english.T).argmax(axis=1) == np.arange(len(pairs))).mean())


def topic_accuracy(encoder: Encodes, labelled: Sequence[Topical], asked: Sequence[Topical]) -> float:
    """Accuracy of the majority among the 10 nearest labelled texts, the sum of cosines deciding ties."""
    known = encoder.encode([row.text for row in labelled])
    questions = encoder.encode([row.text for row in asked])
    names, codes = np.unique([row.topic for row in labelled], return_inverse=True)
    cosines = questions @ known.T
    nearest = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    votes = np.zeros((len(asked), len(names)))
    for column in nearest.T:
        # A vote counts 1; cosines, far below it, only part the equals.
        votes[np.arange(len(asked)), codes[column]] += 1 + 1e-3 * cosines[np.arange(len(asked)), column]
    return float((names[votes.argmax(axis=1)] == np.array([row.topic for row in asked])).mean())


def held_out(encoder: Encodes, part: Held) -> dict[str, float]:
    """The measures that need no topics."""
    return {
        "zh_sts": similarity(encoder, part.graded),
        "tatoeba_zh_en": retrieval(encoder, part.parallel),
        "titles_zh_en": retrieval(encoder, part.titles),
    }


def topical(
    encoder: Encodes, rows: Mapping[str, Sequence[Topical]], part: int, labelled: dict[str, int], asked: dict[str, int]
) -> dict[str, float]:
    """10-NN accuracy by set. Parts 0 and 1 ask different rows of the same labelled ones.

    Raises InvalidInput where a set has none to ask about.
    """
    figures = {}
    for name, topics in rows.items():
        first = labelled[name] + part * asked[name]
        if len(topics) <= first:
            raise InvalidInput.at(
                "data", f"holds {len(topics):,} texts of {name}; those after the first {first:,} are asked about"
            )
        figures[name] = topic_accuracy(encoder, topics[: labelled[name]], topics[first : first + asked[name]])
    return figures


def cosine(vectors: Vectors, others: Vectors) -> float:
    """Mean cosine of the same texts by two encoders, (n, d) each."""
    return float((vectors * others).sum(axis=1).mean())
