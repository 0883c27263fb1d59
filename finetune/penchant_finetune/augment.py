"""Synthetic pairs, as options: noise in the segmentation of an anchor, and crops of long texts.

The third option, adversarially generated embeddings, happens while training: see `adversarial.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from penchant_finetune.pairs import Pairs

Augmentation = Literal["segmentation", "crops", "embeddings"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

NOISE = 0.15
"""Share of word boundaries that are moved."""
SHARE = 0.5
"""Synthetic pairs of one kind, as a share of the real ones."""
LEAST_WORDS = 8
"""Words that a text needs for two crops of it to say something."""


def augment(
    pairs: Pairs,
    kinds: Sequence[Augmentation],
    texts: Sequence[str],
    segment: Callable[[str], list[str]],
    text_row: Callable[[str], int],
    seed: int,
) -> Pairs:
    """Add synthetic pairs after the real ones. `segment` cuts a text into words, `text_row` numbers a new text."""
    rng = np.random.default_rng(seed)
    parts = [pairs]
    if "segmentation" in kinds:
        rows = rng.permutation(len(pairs))[: round(SHARE * len(pairs))]
        noisy = [text_row(disturb(segment(texts[pairs.anchors[row]]), rng)) for row in rows]
        part = pairs.take(rows)
        parts.append(Pairs(np.array(noisy, dtype=np.int64), part.positives, part.negatives, part.users, part.kinds))
    if "crops" in kinds:
        words = {int(row): segment(texts[row]) for row in np.unique([pairs.anchors, pairs.positives])}
        long = np.flatnonzero([len(words[int(row)]) >= LEAST_WORDS for row in pairs.positives])
        rows = rng.permutation(long)[: round(SHARE * len(pairs))]
        crops = [[text_row(crop(words[int(pairs.positives[row])], rng)) for _ in range(2)] for row in rows]
        table = np.array(crops, dtype=np.int64).reshape(-1, 2)
        none = np.full(len(rows), -1, dtype=np.int64)
        parts.append(Pairs(table[:, 0], table[:, 1], none, pairs.users[rows], pairs.kinds[rows]))
    columns = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("anchors", "positives", "negatives", "users", "kinds")
    ]
    return Pairs(*columns)


def disturb(words: Sequence[str], rng: np.random.Generator) -> str:
    """Write words with some boundaries lost and some put inside a word, as a bad segmenter would."""
    written = ""
    for word in words:
        glued = rng.random() < NOISE
        if len(word) > 1 and rng.random() < NOISE:
            cut = int(rng.integers(1, len(word)))
            word = f"{word[:cut]} {word[cut:]}"
        written += word if glued or not written else f" {word}"
    return written


def crop(words: Sequence[str], rng: np.random.Generator) -> str:
    """Take a random run of between a third and two thirds of the words (Izacard et al. 2022, independent cropping)."""
    length = int(rng.integers(-(-len(words) // 3), 2 * len(words) // 3 + 1))
    start = int(rng.integers(0, len(words) - length + 1))
    return " ".join(words[start : start + length])
