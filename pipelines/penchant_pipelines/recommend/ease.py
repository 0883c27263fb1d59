"""EASE: what else the users of an item took to, as a linear autoencoder in closed form (Steck 2019).

The original inverts a matrix with a row an item; by the Woodbury identity one with a row a user gives the same numbers.
So a thousand users are enough to learn from, and items may be as many as they like.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]

RIDGE = 1000.0
"""λ of the paper: how much the weights are held towards 0."""
MOST_USERS = 1000
"""Users that are learnt from: those who favoured most."""
_CHUNK = 4096


class Ease:
    """Weights between all items of a matrix (users, items) of ones, as products that are never written out."""

    def __init__(self, favours: sparse.csr_array, ridge: float = RIDGE, most_users: int = MOST_USERS) -> None:
        counts = np.diff(favours.indptr)
        chosen = np.sort(np.argsort(-counts, kind="stable")[:most_users])
        self._favours = favours[chosen]
        overlap = (self._favours @ self._favours.T).toarray()
        self._inverse = np.linalg.inv(overlap + ridge * np.eye(len(chosen)))
        by_item = sparse.csr_array(self._favours.T)
        self._diagonal = np.ones(by_item.shape[0])
        for start in range(0, by_item.shape[0], _CHUNK):
            part = by_item[start : start + _CHUNK]
            self._diagonal[start : start + _CHUNK] -= part.multiply(part @ self._inverse).sum(axis=1)

    @property
    def size(self) -> int:
        """Count the items."""
        return int(self._favours.shape[1])

    def without(self, items: NDArray[np.int64]) -> Ease:
        """The same where nothing goes with these items, as long as it is not learnt anew from what is left."""
        found = copy.copy(self)
        found._favours = self._favours.copy()
        found._favours.data[np.isin(found._favours.indices, items)] = 0.0
        found._favours.eliminate_zeros()
        found._diagonal = self._diagonal.copy()
        found._diagonal[items[items < self.size]] = 1.0
        return found

    def scores(self, own: Floats) -> Floats:
        """How much each item goes with what users hold of all, (n, items) ≥ 0: (n, items)."""
        held = own - (self._favours.T @ (self._inverse @ (self._favours @ own.T))).T
        found: Floats = own - held / self._diagonal
        return found
