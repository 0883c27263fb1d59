"""What any method must beat: chance, and what the crowd does."""

from __future__ import annotations

import numpy as np

from penchant_pipelines.evaluation.log import Past
from penchant_pipelines.evaluation.methods import Floats, Scorer
from penchant_pipelines.evaluation.protocol import Question
from penchant_pipelines.model import MICROS_PER_DAY


class Random(Scorer):
    """Chance."""

    name = "random"

    def score(self, past: Past, question: Question) -> Floats:
        """Draw a score for each item."""
        # A seed has no sign, and days before 1970 have one.
        dice = np.random.default_rng([self.seed, question.user, question.present // MICROS_PER_DAY % 2**32])
        return dice.random((1, len(past.catalogue)))


class Popularity(Scorer):
    """What most people took to, ever or within the last days."""

    def __init__(self, seed: int, days: int | None = None) -> None:
        super().__init__(seed)
        self.name = "popularity" if days is None else f"popularity-{days}d"
        self._days = days

    def score(self, past: Past, question: Question) -> Floats:
        """Count the signals in favour."""
        if self._days is None:
            return past.popularity[None]
        begin = np.searchsorted(past.times, question.present - self._days * MICROS_PER_DAY)
        taken = past.favours[np.searchsorted(past.favours, begin) :]
        return np.bincount(past.rows[taken], minlength=len(past.catalogue)).astype(np.float64)[None]
