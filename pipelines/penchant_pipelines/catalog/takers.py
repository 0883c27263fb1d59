"""Who took to which item: everybody once, however often they say so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_USER_BITS = 32
"""A pair's key is one number: the item's row above the user's number."""
_RECENT, _RECENT_SHARE = 4096, 1 / 64
"""Pairs that may wait before they are sorted in among all: so many, and a share of all."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Users and items: `keys` (n,) ascending, greatest `masses` (n,), 0 for none, and latest `times` (n,) in µs."""

    keys: Ints
    masses: Floats
    times: Ints

    @property
    def rows(self) -> Ints:
        """Rows of the items: (n,)."""
        return self.keys >> _USER_BITS

    def among(self, chosen: NDArray[np.bool_]) -> Pairs:
        """Some of them."""
        return Pairs(self.keys[chosen], self.masses[chosen], self.times[chosen])

    def places(self, keys: Ints) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Which of these keys (m,) are among them, and where those are."""
        places = np.searchsorted(self.keys, keys)
        here = places < len(self.keys)
        here[here] = self.keys[places[here]] == keys[here]
        return here, places[here]

    def with_new(self, others: Pairs) -> Pairs:
        """These and others, none of which is among them."""
        places = np.searchsorted(self.keys, others.keys)
        return Pairs(
            np.insert(self.keys, places, others.keys),
            np.insert(self.masses, places, others.masses),
            np.insert(self.times, places, others.times),
        )


_NONE = Pairs(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))


class Takers:
    """Pairs of a user and an item, 24 bytes each; the recent ones by themselves, so that few are moved for one more."""

    def __init__(self) -> None:
        self._all, self._recent = _NONE, _NONE

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self._all.keys) + len(self._recent.keys)

    def take(self, users: Ints, rows: Ints, masses: Floats, times: Ints) -> tuple[Pairs, Pairs]:
        """Take in favours (n,), masses above 0; tells the pairs they are of as they were and as they are, in one order.

        A pair is held by its greatest mass and its latest time, whatever the order in which favours come.
        """
        keys, places = np.unique(rows << _USER_BITS | users, return_inverse=True)
        now = Pairs(keys, np.zeros(len(keys)), np.full(len(keys), np.iinfo(np.int64).min))
        np.maximum.at(now.masses, places, masses)
        np.maximum.at(now.times, places, times)
        before = Pairs(keys, np.zeros(len(keys)), now.times.copy())
        new = np.ones(len(keys), dtype=bool)
        for held in (self._all, self._recent):
            here, places = held.places(keys)
            before.masses[here], before.times[here] = held.masses[places], held.times[places]
            for array, told in ((held.masses, now.masses), (held.times, now.times)):
                array[places] = told[here] = np.maximum(array[places], told[here])
            new[here] = False
        self._recent = self._recent.with_new(now.among(new))
        if len(self._recent.keys) > _RECENT + _RECENT_SHARE * len(self._all.keys):
            self._all, self._recent = self._all.with_new(self._recent), _NONE
        return before, now

    def drop(self, rows: Ints) -> None:
        """Forget who took to the items in these rows."""
        self._all, self._recent = (held.among(~np.isin(held.rows, rows)) for held in (self._all, self._recent))
