"""The user as one vector, made of the same text vectors that the engine has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from penchant_pipelines.catalog.products import products
from penchant_pipelines.evaluation.log import Past, Rows
from penchant_pipelines.evaluation.methods import Floats, Scorer
from penchant_pipelines.evaluation.protocol import Question
from penchant_pipelines.model import MICROS_PER_DAY

HALF_LIVES = (2, 7, 30, 90, 365)
"""Days; grids of all methods that read text and fade are this one."""
LENGTHS = (3, 10, 30, 100, 300)


def faded(past: Past, places: Rows, present: int, half_lives: Sequence[float] = HALF_LIVES) -> Floats:
    """Masses of some signals under each half-life: (half-lives, n)."""
    age = (present - past.times[places]) / MICROS_PER_DAY
    # The newest counts whole: after a long pause all would be as good as nothing otherwise.
    age = age - (age.min() if len(age) else 0.0)
    masses: Floats = past.weights[places] * 2.0 ** (-age / np.array(half_lives, dtype=np.float64)[:, None])
    return masses


class _Weighted(Scorer):
    """Cosines of items with a weighted mean of the vectors of what the user liked."""

    def score(self, past: Past, question: Question) -> Floats:
        """Compare the mean with every item."""
        liked = past.liked(question.user)
        means = self.masses(past, liked, question.present) @ past.vectors[liked]
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        cosines: Floats = products(past.catalogue.vectors, means.astype(np.float32)).astype(np.float64)
        return cosines

    @abstractmethod
    def masses(self, past: Past, liked: Rows, present: int) -> Floats:
        """Weigh the user's n signals in favour for each setting: (s, n)."""


class LastPost(_Weighted):
    """Nearest neighbours of the last thing that the user wrote or liked."""

    name = "last-post"

    def masses(self, past: Past, liked: Rows, present: int) -> Floats:
        """Give the last signal all the weight."""
        return np.eye(1, len(liked), len(liked) - 1) if len(liked) else np.zeros((1, 0))


class MeanOfLast(_Weighted):
    """The mean of the last N."""

    name = "mean-of-last"
    settings = tuple(f"N={length}" for length in LENGTHS)

    def masses(self, past: Past, liked: Rows, present: int) -> Floats:
        """Weigh the last N alike."""
        from_end = np.arange(len(liked), 0, -1)
        return (from_end[None] <= np.array(LENGTHS)[:, None]).astype(np.float64)


class Ewma(_Weighted):
    """A single vector that fades exponentially with time."""

    name = "ewma"
    settings = tuple(f"half_life_days={days}" for days in HALF_LIVES)

    def masses(self, past: Past, liked: Rows, present: int) -> Floats:
        """Weigh by mass and age."""
        return faded(past, liked, present)
