"""What items have in common by name: TF-IDF over the words of the catalogue (Spärck Jones 1972)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from penchant_pipelines.recommend.crowd import Floats, Own

MOST_WORDS = 50_000
_PENDING_SHARE, _PENDING = 0.02, 32
"""Items that may change before all are weighed anew: a share of all, and some more."""


class Words:
    """The words of the items, by row of the catalogue. Belongs to one event loop, as the catalogue does."""

    def __init__(self) -> None:
        self._words: dict[int, Sequence[str]] = {}
        self._changed: set[int] = set()
        self._since = 0
        """Items that changed since all were weighed, besides those that wait in `_changed`."""
        self._vectorizer: TfidfVectorizer | None = None
        self._weighed: sparse.csr_array | None = None
        self._place = np.full(0, -1, dtype=np.int64)
        """(rows,) line of `_weighed`, −1 for none."""

    def copy(self) -> Words:
        """Make one with the same words, for another thread."""
        found = Words()
        found._words = dict(self._words)
        return found

    def put(self, row: int, words: Sequence[str]) -> None:
        """Set the words of an item."""
        self._words[row] = words
        self._changed.add(row)

    def drop(self, row: int) -> None:
        """Forget an item."""
        self._words.pop(row, None)
        self._changed.discard(row)
        if row < len(self._place) and self._place[row] >= 0:
            self._place[row] = -1
            self._since += 1

    def alike(self, own: Own, size: int) -> Floats:
        """Cosines of items with the faded sum of the user's own: (h, size) by row, 0 where there are no words."""
        weighed = self._current()
        found = np.zeros((len(own.masses), size))
        if weighed is None:
            return found
        lines = np.where(own.rows < len(self._place), self._place[own.rows % max(len(self._place), 1)], -1)
        sums = (sparse.csr_array(own.masses[:, lines >= 0]) @ weighed[lines[lines >= 0]]).toarray()
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        rows = np.flatnonzero(self._place[:size] >= 0)
        found[:, rows] = (weighed @ sums.T).T[:, self._place[rows]]
        return found

    def _current(self) -> sparse.csr_array | None:
        """Weigh what has changed: by the frequencies at hand, or all anew where much has."""
        if self._since + len(self._changed) > _PENDING + _PENDING_SHARE * len(self._words):
            self._vectorizer = None
        if self._vectorizer is None:
            if not any(self._words.values()):
                return None
            self._vectorizer = TfidfVectorizer(analyzer=list, max_features=MOST_WORDS, sublinear_tf=True)
            self._weighed = sparse.csr_array(self._vectorizer.fit_transform(self._words.values()))
            self._place = np.full(max(self._words) + 1, -1, dtype=np.int64)
            self._place[list(self._words)] = np.arange(len(self._words))
            self._since = 0
        elif self._changed and self._weighed is not None:
            rows = sorted(self._changed)
            new = self._vectorizer.transform([self._words[row] for row in rows])
            room = max(rows[-1] + 1 - len(self._place), 0)
            self._place = np.append(self._place, np.full(room, -1, dtype=np.int64))
            self._place[rows] = self._weighed.shape[0] + np.arange(len(rows))
            self._weighed = sparse.csr_array(sparse.vstack([self._weighed, new]))
            self._since += len(rows)
        self._changed.clear()
        return self._weighed
