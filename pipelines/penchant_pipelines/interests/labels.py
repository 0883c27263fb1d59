"""Labels and keywords: the user's own words that lie nearest to an interest's centre."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests.view import InterestView

MAX_KEYWORDS = 6
CANDIDATES = 8
"""Best-supported words of an interest whose closeness is measured."""

Lookup = Callable[[str], NDArray[np.float32] | None]
"""A word's unit vector (d,), None where it isn't known yet."""


@dataclass(frozen=True, slots=True)
class Label:
    """How an interest is named."""

    label: str
    keywords: tuple[str, ...]


def candidates(interest: InterestView) -> list[str]:
    """Words that may name an interest, best supported first."""
    ranked = sorted(interest.terms.items(), key=lambda pair: (-pair[1], pair[0]))
    return [term for term, _ in ranked[:CANDIDATES]]


def name_interests(interests: Sequence[InterestView], lookup: Lookup) -> list[Label]:
    """Name the interests of one profile, strongest first; no two get the same label while there are words left."""
    taken: set[str] = set()
    labels = []
    for interest in interests:
        keywords = _ranked(interest, lookup)
        label = next((word for word in keywords if word.casefold() not in taken), keywords[0] if keywords else "")
        taken.add(label.casefold())
        ordered = [label, *(word for word in keywords if word != label)] if label else []
        labels.append(Label(label, tuple(ordered[:MAX_KEYWORDS])))
    return labels


def _ranked(interest: InterestView, lookup: Lookup) -> list[str]:
    words = candidates(interest)
    if not words:
        return []
    most = max(interest.terms[word] for word in words) or 1.0
    scores: dict[str, float] = {}
    for word in words:
        vector = lookup(word)
        closeness = float(vector @ interest.vector) if vector is not None else 0.0
        scores[word] = closeness + 0.5 * interest.terms[word] / most
    best: list[str] = []
    for word in sorted(words, key=lambda word: (-scores[word], word)):
        # "running" adds nothing next to "trail running".
        if not any(_within(word, other) or _within(other, word) for other in best):
            best.append(word)
    return best


def _within(word: str, other: str) -> bool:
    return word in other.split() or (not word.isascii() and word in other)
