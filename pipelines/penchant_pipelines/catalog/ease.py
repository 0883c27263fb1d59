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

from penchant_pipelines.catalog.products import products

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
        self._text_weight = text_weight
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
        across, among = (self._inverse[rows, users:].astype(np.float32) for rows in (slice(users), slice(users, None)))
        self._diagonal = np.ones(self.size)
        for part, takers, texts in self._parts(vectors):
            shared = 2.0 * (takers @ across) + texts @ among
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
        people, texts = self._pulls(own, vectors)
        rest = own - (self._favours.T @ people).T
        rest[:, : len(vectors)] -= self._meant(texts, vectors) * self._scales[: len(vectors)]
        found: Floats = own - rest / self._diagonal
        return found

    def strange(self, vectors: Vectors) -> NDArray[np.intp]:
        """Rows of items (rows, d) that have a vector now and had none when this was learnt, or were not there."""
        unread = np.ones(len(vectors), dtype=bool)
        unread[: self.size] = self._scales[: len(vectors)] == 0
        rows = np.flatnonzero(unread)
        return rows[vectors[rows].any(axis=1)]

    def scores_of_others(self, own: Floats, others: Vectors, vectors: Vectors | None = None) -> Floats:
        """How much items that were not learnt from go with what users hold, by their vectors (m, d): (n, m).

        What each would score had it been learnt from as an item that nobody favoured, the mean left as it is
        (Sherman & Morrison 1950); 0 for zeros.
        """
        if not len(self._mean):
            return np.zeros((len(own), len(others)))
        lengths = np.linalg.norm(others - self._mean, axis=1)
        scales = np.where(others.any(axis=1), self._text_weight / np.maximum(lengths, 1e-3), 0.0)
        found: Floats = self._meant(self._pulls(own, self._there(vectors))[1], others) * scales
        return found

    def _pulls(self, own: Floats, vectors: Vectors) -> tuple[Floats, Floats]:
        """How much each user learnt from, and each dimension, speaks for what it took to: (users, n), (d, n)."""
        held = np.flatnonzero(own[:, : len(vectors)].any(axis=0))
        masses = own[:, held] * self._scales[held]
        texts = masses @ vectors[held] - masses.sum(axis=1, keepdims=True) * self._mean
        inner = self._inverse @ np.vstack([self._favours @ own.T, texts.T])
        people, texts = np.split(inner, [len(inner) - len(self._mean)])
        return people, texts

    def _meant(self, pulls: Floats, vectors: Vectors) -> Floats:
        """Products of vectors (m, d), less the mean, with what dimensions say (d, n): (n, m)."""
        found: Floats = products(vectors, pulls.T.astype(np.float32)) - (self._mean @ pulls)[:, None]
        return found

    def _there(self, vectors: Vectors | None) -> Vectors:
        return np.zeros((0, 0), dtype=np.float32) if vectors is None else vectors[: self.size]

    def _parts(self, vectors: Vectors) -> Iterator[tuple[slice, sparse.csr_array, Vectors]]:
        """The matrix by items, some at a time: who favoured them, and their vectors as they count.

        In float32: sums over all items are taken in float64, and the ridge is far above what the rest loses.
        """
        by_item = sparse.csr_array(self._favours.T)
        for start in range(0, self.size, _CHUNK):
            part = slice(start, min(start + _CHUNK, self.size))
            texts = np.zeros((part.stop - start, len(self._mean)), dtype=np.float32)
            here = vectors[part]
            scales = self._scales[start : start + len(here), None].astype(np.float32)
            texts[: len(here)] = (here - self._mean.astype(np.float32)) * scales
            yield part, by_item[part].astype(np.float32), texts
