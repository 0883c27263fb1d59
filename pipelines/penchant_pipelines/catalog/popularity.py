"""How many take to which item: fading sums in which everybody counts once for an item, however often they say so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.catalog.takers import Floats, Ints, Pairs, Takers
from penchant_pipelines.model import MICROS_PER_DAY

HALF_LIVES_DAYS = (7.0, 30.0, 365.0, np.inf)
"""Under which what everybody does is looked at; the last forgets nothing."""
EVERY = slice(None)
_LIVES = np.array(HALF_LIVES_DAYS) * MICROS_PER_DAY
_REBASE_HALF_LIVES = 200.0


class Popularity:
    """Masses of favours by the items' rows. A user's counts by the greatest of theirs, as of the latest."""

    def __init__(self) -> None:
        self.landmark = 0
        """Time (µs) that the sums are kept for."""
        self._sums = np.zeros((1024, len(_LIVES)))
        self._takers = Takers()

    def take(self, users: Ints, rows: Ints, masses: Floats, times: Ints) -> None:
        """Count favours (n,), at least one: numbers of users, items' rows, masses above 0, event times (µs)."""
        while rows.max() >= len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        if not len(self._takers):
            self.landmark = int(times[0])
        self._rebase(int(times.max()))
        before, now = self._takers.take(users, rows, masses, times)
        np.add.at(self._sums, now.rows, self._grown(now) - self._grown(before))

    def drop(self, rows: Ints) -> None:
        """Forget all favours of the items in these rows."""
        self._sums[rows[rows < len(self._sums)]] = 0.0
        self._takers.drop(rows)

    def of_all(self, size: int, as_of: int, lives: NDArray[np.int64] | slice = EVERY) -> Floats:
        """Masses as of a time (µs) under half-lives, by their places: (l, size) by row."""
        held = self._sums[:size, lives].T * self._left(as_of)[lives][:, None]
        return np.pad(held, ((0, 0), (0, size - held.shape[1])))

    def of(self, rows: NDArray[np.intp], life: int, as_of: int) -> Floats:
        """Masses of some items (n,) as of a time (µs) under one half-life, by its place: (n,)."""
        found = np.zeros(len(rows))
        known = rows < len(self._sums)
        found[known] = self._sums[rows[known], life] * self._left(as_of)[life]
        return found

    def _left(self, as_of: int) -> Floats:
        """What is left of the sums at a time, by half-life: (l,).

        A time before the landmark counts as the landmark: one signal dated far ahead must not raise all beyond bounds.
        """
        found: Floats = np.exp2(-max(as_of - self.landmark, 0) / _LIVES)
        return found

    def _grown(self, pairs: Pairs) -> Floats:
        """Masses (n, l) as of the landmark."""
        found: Floats = pairs.masses[:, None] * np.exp2((pairs.times - self.landmark)[:, None] / _LIVES)
        return found

    def _rebase(self, time: int) -> None:
        """Move the landmark along: 2^(Δ/h) over decades at a half-life of days overflows a double."""
        if time - self.landmark > _REBASE_HALF_LIVES * _LIVES.min():
            self._sums *= np.exp2(-(time - self.landmark) / _LIVES)
            self.landmark = time
