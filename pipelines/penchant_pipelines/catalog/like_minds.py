"""Like minds: people who took to what somebody writes about, whether or not they have an item in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from penchant_pipelines.catalog.products import products

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

_APART = 1e-6
"""Length, and its square, from which a vector has a direction."""


class LikeMinds:
    """What each user of a matrix (users, items) of ones took to, as one vector.

    `vectors` (rows, d) of the items, of any length; zeros, or rows that are missing, stand for items without one.
    """

    def __init__(self, favours: sparse.csr_array, vectors: Vectors) -> None:
        lengths = np.zeros(favours.shape[1], dtype=np.float32)
        known = vectors[: favours.shape[1]]
        lengths[: len(known)] = np.sqrt(np.einsum("ij,ij->i", known, known))
        # The items' lengths go into the sparse matrix: a copy of all vectors of a large catalogue takes longer to make.
        scales = np.where(lengths > _APART, 1 / np.maximum(lengths, _APART), np.float32(0)).astype(np.float32)
        inside = favours.indices < len(known)
        items, shape = favours.indices[inside], (favours.shape[0], len(known))
        indptr = np.append(0, np.cumsum(inside))[favours.indptr]
        sums: Vectors = sparse.csr_array((scales[items], items, indptr), shape=shape) @ known
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        self._there = lengths > _APART
        self._held = sums / np.maximum(lengths, _APART)[:, None]
        self._held[~self._there] = 0.0
        self._total = self._held.sum(axis=0)

    def cosines(self, past: Vectors, user: int | None = None) -> Floats:
        """Cosines of a unit vector (d,) with users, in the order of the matrix, as seen from their middle: (users,).

        `user` is the place of the one whose past it is, who is no part of that middle. 0 where nothing is known.
        """
        count, total = int(self._there.sum()), self._total
        if user is not None and self._there[user]:
            count, total = count - 1, total - self._held[user]
        middle = total / np.float32(max(count, 1))
        mine = past - middle
        near, common = products(self._held, np.stack([mine, middle])).astype(np.float64)
        apart = 1.0 - 2.0 * common + float(middle @ middle)
        found = (near - float(middle @ mine)) / np.sqrt(np.maximum(apart * float(mine @ mine), _APART))
        return np.where(self._there & (apart > _APART), found, 0.0)
