"""Like minds: people who took to what somebody writes about, whether or not they have an item in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from penchant_pipelines.catalog.products import products

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

_APART = 1e-6
"""Length from which a vector has a direction."""


class LikeMinds:
    """What each user of a matrix (users, items) of ones took to, as one vector, less what all have in common.

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
        held = _units(sparse.csr_array((scales[items], items, indptr), shape=shape) @ known)
        there = np.any(held, axis=1)
        self._middle: Vectors = held[there].mean(axis=0) if there.any() else np.zeros(held.shape[1], dtype=np.float32)
        self._apart = np.where(there[:, None], _units(held - self._middle), np.float32(0))

    def cosines(self, past: Vectors) -> Floats:
        """Cosines of a unit vector (d,) with users, in the order of the matrix, as seen from their middle: (users,).

        0 where nothing is known.
        """
        found: Floats = products(self._apart, _units(past[None] - self._middle))[0].astype(np.float64)
        return found


def _units(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    found: Vectors = np.where(lengths > _APART, vectors / np.maximum(lengths, _APART), np.float32(0))
    return found
