"""Items as people speak of them: an item's vector, enriched by favourable posts, of everybody the first."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.catalog.products import products

Vectors = NDArray[np.float32]


AUDIBLE = 1e-4
"""Change of a coordinate that is more than rounding."""


class Voices:
    """Enriched vectors in one embedding space, by row of the catalogue. Belongs to one event loop."""

    def __init__(self, rows: int, dimensions: int) -> None:
        """Make room for items, none of which has a vector yet: `reset` gives them theirs."""
        self.sums = np.zeros((rows, dimensions), dtype=np.float32)
        """(rows, d) float32: the item's own vector and those of the posts, summed."""
        self.lengths = np.zeros(rows, dtype=np.float32)
        self._speakers: dict[int, set[int]] = {}
        """Keys of the users who are heard, by row."""

    @classmethod
    def of(cls, vectors: Vectors) -> Voices:
        """Items with their own vectors (rows, d) alone; a second or more for 200,000 of them."""
        found = cls(*vectors.shape)
        found.reset(np.arange(len(vectors)), vectors)
        return found

    def hear(self, row: int, users: Set[int], vector: Vectors) -> bool:
        """Take in what users said of an item, the sum (d,) of a post each.

        False, and nothing is taken in, if one of them was heard before.
        """
        speakers = self._speakers.setdefault(row, set())
        if new := speakers.isdisjoint(users):
            speakers |= users
            self.add(row, vector)
        return new

    def add(self, row: int, vector: Vectors) -> None:
        """Take in by how much an item's own vector (d,) changed."""
        self.sums[row] += vector
        self.lengths[row] = np.linalg.norm(self.sums[row])

    def reset(self, rows: NDArray[np.int64], vectors: Vectors) -> None:
        """Leave items with their own vectors (n, d) alone."""
        self.sums[rows] = vectors
        self.lengths[rows] = np.linalg.norm(vectors, axis=1)
        for row in rows.tolist():
            self._speakers.pop(row, None)

    def grow(self) -> None:
        """Make room for as many rows again."""
        self.sums = np.concatenate([self.sums, np.zeros_like(self.sums)])
        self.lengths = np.concatenate([self.lengths, np.zeros_like(self.lengths)])

    def heard(self, rows: NDArray[np.intp], own: Vectors) -> NDArray[np.bool_]:
        """Which items (n,), whose own vectors are `own` (n, d), somebody has written about."""
        told: NDArray[np.bool_] = np.abs(self.sums[rows] - own).max(axis=1, initial=0.0) > AUDIBLE
        return told

    def cosines(self, targets: Vectors, rows: NDArray[np.intp] | slice) -> NDArray[np.float64]:
        """Cosines of targets (t, d) with items: (t, n)."""
        found: NDArray[np.float64] = products(self.sums[rows], targets) / np.maximum(self.lengths[rows], 1e-9)
        return found
