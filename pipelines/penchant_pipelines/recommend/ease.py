"""EASE: what else the users of an item took to, as a linear autoencoder in closed form (Steck 2019).

Items' vectors stand beside the users, as its authors put item features there (Collective EASE: Jeunen, Van Balen &
Goethals 2020): each of their dimensions is one more user, who took to every item by so much. So items that few people
share go together if what they are goes together among those that many share.

The original inverts a matrix with a row an item; by the Woodbury identity one with a row a user gives the same numbers.
So a thousand users are enough to learn from, and items may be as many as they like.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

RIDGE = 1000.0
"""λ of the paper: how much the weights are held towards 0."""
TEXT_WEIGHT = 3.0
"""α of the other paper: length of an item's vector, where a favour counts 1."""
MOST_USERS = 1000
"""Users that are learnt from: those who favoured most."""
_CHUNK = 4096


class Ease:
    """Weights between all items of a matrix (users, items) of ones, as products that are never written out.

    `vectors` (rows, d) of the items, whose common mean is left out of account; zeros, or rows that are missing, stand
    for items without one.
    """

    def __init__(
        self,
        favours: sparse.csr_array,
        vectors: Vectors | None = None,
        ridge: float = RIDGE,
        most_users: int = MOST_USERS,
        text_weight: float = TEXT_WEIGHT,
    ) -> None:
        counts = np.diff(favours.indptr)
        chosen = np.sort(np.argsort(-counts, kind="stable")[:most_users])
        self._favours = favours[chosen]
        vectors = self._there(vectors)
        lengths = np.einsum("ij,ij->i", vectors, vectors).astype(np.float64)
        known = lengths > 0
        self._mean = vectors.sum(axis=0, dtype=np.float64) / max(int(known.sum()), 1)
        apart = lengths - 2.0 * (vectors @ self._mean.astype(np.float32)) + self._mean @ self._mean
        self._scales = np.zeros(self.size)
        """(items,) what a vector less the mean is multiplied by."""
        self._scales[: len(vectors)] = np.where(known, text_weight / np.sqrt(np.maximum(apart, 1e-6)), 0.0)
        users, dimensions = len(chosen), len(self._mean)
        overlap = np.zeros((users + dimensions, users + dimensions))
        overlap[:users, :users] = (self._favours @ self._favours.T).toarray()
        for _, takers, texts in self._parts(vectors):
            overlap[:users, users:] += takers.T @ texts
            overlap[users:, users:] += texts.T @ texts
        overlap[users:, :users] = overlap[:users, users:].T
        self._inverse = np.linalg.inv(overlap + ridge * np.eye(len(overlap)))
        self._diagonal = np.ones(self.size)
        for part, takers, texts in self._parts(vectors):
            shared = 2.0 * (takers @ self._inverse[:users, users:]) + texts @ self._inverse[users:, users:]
            self._diagonal[part] -= takers.multiply(takers @ self._inverse[:users, :users]).sum(axis=1)
            self._diagonal[part] -= np.einsum("ij,ij->i", shared, texts)

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
        found._diagonal, found._scales = self._diagonal.copy(), self._scales.copy()
        found._diagonal[items[items < self.size]] = 1.0
        found._scales[items[items < self.size]] = 0.0
        return found

    def scores(self, own: Floats, vectors: Vectors | None = None) -> Floats:
        """How much each item goes with what users hold of all, (n, items) ≥ 0: (n, items). `vectors` as learnt from."""
        vectors = self._there(vectors)
        held = np.flatnonzero(own[:, : len(vectors)].any(axis=0))
        masses = own[:, held] * self._scales[held]
        texts = masses @ vectors[held] - masses.sum(axis=1, keepdims=True) * self._mean
        inner = self._inverse @ np.vstack([self._favours @ own.T, texts.T])
        users = len(inner) - len(self._mean)
        rest = own - (self._favours.T @ inner[:users]).T
        meant = (vectors @ inner[users:].astype(np.float32)).T - (self._mean @ inner[users:])[:, None]
        rest[:, : len(vectors)] -= meant * self._scales[: len(vectors)]
        found: Floats = own - rest / self._diagonal
        return found

    def _there(self, vectors: Vectors | None) -> Vectors:
        return np.zeros((0, 0), dtype=np.float32) if vectors is None else vectors[: self.size]

    def _parts(self, vectors: Vectors) -> Iterator[tuple[slice, sparse.csr_array, Floats]]:
        """The matrix by items, some at a time: who favoured them, and their vectors as they count."""
        by_item = sparse.csr_array(self._favours.T)
        for start in range(0, self.size, _CHUNK):
            part = slice(start, min(start + _CHUNK, self.size))
            texts = np.zeros((part.stop - start, len(self._mean)))
            here = vectors[part]
            texts[: len(here)] = (here - self._mean) * self._scales[start : start + len(here), None]
            yield part, by_item[part], texts
