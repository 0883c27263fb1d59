"""How sure a figure is: bootstrap, mostly over users, and correction for many comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
DRAWS = 5000
FEWEST_USERS = 10
"""Below which nothing is more than chance: a few, resampled, tell only of themselves, one alone is always sure."""
_AT_ONCE = 100
"""Draws that are summed at once: as numbers that can be, they take eight times the room."""


def resamples(count: int, seed: int, draws: int = DRAWS) -> Iterator[Floats]:
    """How often each of `count` was drawn, (count,), in each of some draws with replacement."""
    dice = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(dice.integers(count, size=count), minlength=count).astype(np.float64)


def middle(estimates: Floats, count: int) -> tuple[float, float]:
    """The 95 % interval by an estimate's values on resamples of `count`, NaN of fewer than two.

    Percentiles (Efron & Tibshirani 1993), so much further out as few resampled vary too little: by n against n − 1, and
    Student's t against the normal ("expanded percentiles", Hesterberg 2015).
    """
    if count < 2:
        return float("nan"), float("nan")
    tail = special.ndtr(np.sqrt(count / (count - 1)) * special.stdtrit(count - 1, 0.025))
    low, high = np.quantile(estimates, (tail, 1 - tail))
    return float(low), float(high)


def _p(estimates: Floats, count: int) -> float:
    """How likely an estimate is as far from 0 on either side though there is nothing: below .05 where `middle` says so.

    1 of fewer than two.
    """
    if count < 2:
        return 1.0
    beyond = min((estimates <= 0).sum(), (estimates >= 0).sum())
    tail = special.ndtri(min((beyond + 1) / (len(estimates) + 1), 0.5))
    return float(2 * special.stdtr(count - 1, np.sqrt((count - 1) / count) * tail))


class Bootstrap:
    """Resamples the same users for everything that is asked, so that differences are paired (Efron & Tibshirani 1993).

    Users, not queries: those of one user are not independent. Holds a byte a draw and user.
    """

    def __init__(self, users: int, seed: int = 0, draws: int = DRAWS) -> None:
        # Nobody is drawn 256 times among so many that it could be.
        self._times = np.empty((draws, users), dtype=np.uint8)
        for row, times in zip(self._times, resamples(users, seed, draws), strict=True):
            row[:] = times

    def interval(self, values: Floats) -> tuple[float, float, float]:
        """Mean of (users,) values and its 95 % interval; NaN values are left out. NaN where none is left."""
        means = self._means(values)
        if means is None:
            return (float("nan"),) * 3
        return float(np.nanmean(values)), *middle(means, _known(values))

    def difference(self, ours: Floats, theirs: Floats) -> tuple[float, float, float, float]:
        """Mean of ours − theirs, its 95 % interval, and p, two-sided, that there is none."""
        gain = ours - theirs
        means = self._means(gain)
        if means is None:
            return (float("nan"),) * 4
        count = _known(gain)
        return float(np.nanmean(gain)), *middle(means, count), _p(means, count)

    def ratio(self, numerators: Floats, denominators: Floats) -> tuple[float, float, float]:
        """Sum over users of one by that of the other, both (users,), and its 95 % interval; NaN where that is 0/0."""
        whole = float(denominators.sum())
        sums, wholes = self._sums(numerators, denominators)
        if not whole or not (wholes > 0).any():
            return (float("nan"),) * 3
        ratios = sums[wholes > 0] / wholes[wholes > 0]
        return float(numerators.sum() / whole), *middle(ratios, int((denominators > 0).sum()))

    def _means(self, values: Floats) -> Floats | None:
        known = ~np.isnan(values)
        if not known.any():
            return None
        counts, sums = self._sums(known.astype(np.float64), np.where(known, values, 0.0))
        means: Floats = sums[counts > 0] / counts[counts > 0]
        return means

    def _sums(self, *columns: Floats) -> Floats:
        """Sums of columns, (users,) each, over every draw: (columns, draws)."""
        values = np.stack(columns, axis=1)
        parts = range(0, len(self._times), _AT_ONCE)
        return np.concatenate([self._times[start : start + _AT_ONCE].astype(np.float64) @ values for start in parts]).T


def _known(values: Floats) -> int:
    return int((~np.isnan(values)).sum())


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values for their number (Holm 1979); NaN stays and does not count."""
    told = {name: p for name, p in p_values.items() if not np.isnan(p)}
    corrected, highest = dict(p_values), 0.0
    for rank, name in enumerate(sorted(told, key=lambda key: (told[key], key))):
        highest = max(highest, min(1.0, (len(told) - rank) * told[name]))
        corrected[name] = highest
    return corrected


def by_user(values: Floats, users: NDArray[np.int64], count: int) -> Floats:
    """Mean of each user's values, (count,), NaN ones left out; NaN for users without any."""
    known = ~np.isnan(values)
    sums = np.bincount(users[known], values[known], minlength=count)
    numbers = np.bincount(users[known], minlength=count)
    means: Floats = np.divide(sums, numbers, out=np.full(count, np.nan), where=numbers > 0)
    return means
