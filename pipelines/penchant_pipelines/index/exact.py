"""Exact search in memory: the oracle for the approximate index, and what answers while that one is away."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from penchant_pipelines.highest import highest
from penchant_pipelines.index.base import (
    DECIMALS,
    Generation,
    Hit,
    IndexUnavailable,
    Vectors,
    check_limit,
    check_name,
    ranked,
    unique_rows,
    unit_rows,
)


class ExactIndex:
    """Every vector compared, by one matrix product. See VectorIndex."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._lock = threading.Lock()
        self._rows: Vectors = np.empty((0, dimensions), np.float32)  # the first len(_ids) are in use
        self._ids: list[str] = []
        self._position: dict[str, int] = {}

    def upsert(self, ids: Sequence[str], vectors: Vectors) -> None:
        """See VectorIndex."""
        unique, rows = unique_rows(ids, vectors, self._dimensions)
        with self._lock:
            self._reserve(len(self._ids) + len(unique))
            for id_ in unique:
                if id_ not in self._position:
                    self._position[id_] = len(self._ids)
                    self._ids.append(id_)
            self._rows[[self._position[id_] for id_ in unique]] = rows

    def delete(self, ids: Sequence[str]) -> None:
        """See VectorIndex."""
        with self._lock:
            for id_ in ids:
                hole = self._position.pop(id_, None)
                if hole is None:
                    continue
                last = self._ids.pop()
                if last != id_:
                    self._rows[hole] = self._rows[len(self._ids)]
                    self._ids[hole] = last
                    self._position[last] = hole

    def query(self, vectors: Vectors, limit: int) -> list[list[Hit]]:
        """See VectorIndex."""
        check_limit(limit)
        queries = unit_rows(vectors, self._dimensions)
        with self._lock:
            # The other way round takes half as long again.
            similarities = np.round((self._rows[: len(self._ids)] @ queries.T).T, DECIMALS)
            return [self._best(row, limit) for row in similarities]

    def count(self) -> int:
        """See VectorIndex."""
        return len(self._ids)

    def _reserve(self, count: int) -> None:
        if count > len(self._rows):
            grown: Vectors = np.empty((max(count, 2 * len(self._rows)), self._dimensions), np.float32)
            grown[: len(self._ids)] = self._rows[: len(self._ids)]
            self._rows = grown

    def _best(self, similarities: Vectors, limit: int) -> list[Hit]:
        # all that tie with the last one stay in, so that ties are broken by id there too
        threshold = similarities[highest(similarities, limit)].min(initial=np.inf)
        found = np.flatnonzero(similarities >= threshold)
        return ranked([self._ids[i] for i in found], similarities[found].tolist())[:limit]


class ExactStore:
    """Generations that live as long as the process. See IndexStore."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generations: dict[str, tuple[Generation, int]] = {}
        self._closed = False
        self.recipe = ""

    def open(self, name: str, dimensions: int) -> Generation:
        """See IndexStore."""
        check_name(name)
        with self._lock:
            if self._closed:
                raise IndexUnavailable("the store is closed")
            fresh = Generation(name, ExactIndex(dimensions), ExactIndex(dimensions)), dimensions
            generation, held = self._generations.setdefault(name, fresh)
            if held != dimensions:
                raise IndexUnavailable(f"generation {name} holds {held} dimensions, not {dimensions}")
            return generation

    def drop(self, name: str) -> None:
        """See IndexStore."""
        check_name(name)
        with self._lock:
            self._generations.pop(name, None)

    def names(self) -> list[str]:
        """See IndexStore."""
        with self._lock:
            return sorted(self._generations)

    def close(self) -> None:
        """See IndexStore."""
        with self._lock:
            self._closed = True
            self._generations.clear()
