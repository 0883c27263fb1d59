"""What items have in common by name: their words, weighed by BM25 (Robertson & Zaragoza 2009)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from penchant_pipelines.catalog.crowd import LENIENCE, Floats, Own

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import CountVectorizer

MOST_WORDS = 50_000
SATURATION, BY_LENGTH = 1.5, 0.75
"""BM25's k₁ and b: how soon a word that is repeated adds no more, and how far a long text must repeat it for that."""
_PENDING_SHARE, _PENDING = 0.02, 32
"""Items that may change before all are weighed anew: a share of all, and some more."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """How words are weighed, from the items that there were."""

    counter: CountVectorizer
    rarity: Floats
    """(w,) of the words that `counter` knows."""
    usual_length: float
    """Of an item, in such words."""

    def weigh(self, counts: sparse.csr_array) -> sparse.csr_array:
        """Weights of the words of items, a line each, (n, w), from how often each has a word, alike."""
        weights = counts.astype(np.float64)
        lengths = np.repeat(weights.sum(axis=1), np.diff(weights.indptr))
        enough = SATURATION * (1 - BY_LENGTH + BY_LENGTH * lengths / self.usual_length)
        weights.data *= self.rarity[weights.indices] / (weights.data + enough)
        return weights


@dataclass(slots=True)
class _Weighed:
    """The words of items as vectors: a line each, in the order in which they were weighed."""

    scale: _Scale
    lines: sparse.csr_array
    place: NDArray[np.int64]
    """(rows,) line of each row of the catalogue, −1 for none."""


class Words:
    """The words of the items, by row of the catalogue. Belongs to one event loop, as the catalogue does."""

    def __init__(self) -> None:
        self._words: dict[int, Sequence[str]] = {}
        self._changed: set[int] = set()
        self._since = 0
        """Items that changed since all were weighed, besides those that wait in `_changed`."""
        self._weighed: _Weighed | None = None
        self._touched: set[int] | None = None
        """What changed since `begin`, until `finish`."""

    def copy(self) -> Words:
        """Make one with the same words, for another thread."""
        found = Words()
        found._words = dict(self._words)
        return found

    def still(self) -> Words:
        """Make one that stays as all is now and can be asked in any thread."""
        found, weighed = Words(), self._current()
        if weighed is not None:
            # Lines are never changed in place, places are.
            found._weighed = replace(weighed, place=weighed.place.copy())
        return found

    def put(self, row: int, words: Sequence[str]) -> None:
        """Set the words of an item."""
        self._words[row] = words
        self._changed.add(row)
        if self._touched is not None:
            self._touched.add(row)

    def drop(self, row: int) -> None:
        """Forget an item."""
        self._words.pop(row, None)
        self._changed.discard(row)
        self._take_out(row)
        if self._touched is not None:
            self._touched.add(row)

    def alike(self, own: Own, size: int) -> Floats:
        """Products of items with the faded sum of the user's own: (h, size) by row, 0 where there are no words."""
        weighed = self._current()
        found = np.zeros((len(own.masses), size))
        if weighed is None:
            return found
        place = weighed.place
        lines = np.where(own.rows < len(place), place[own.rows % max(len(place), 1)], -1)
        sums = (sparse.csr_array(own.masses[:, lines >= 0]) @ weighed.lines[lines[lines >= 0]]).toarray()
        rows = np.flatnonzero(place[:size] >= 0)
        found[:, rows] = (weighed.lines @ sums.T).T[:, place[rows]]
        return found

    def naming(self, asked: Sequence[Mapping[str, float]], size: int) -> Floats:
        """How well items' words answer to words of some weight 0…1: (k, size) by row, for k that are asked at once.

        1 is what a word says that one item alone has, said in it without end.
        """
        weighed = self._current()
        found = np.zeros((len(asked), size))
        if weighed is None:
            return found
        known = weighed.scale.counter.vocabulary_
        told = [
            (line, known[word], weight)
            for line, each in enumerate(asked)
            for word, weight in each.items()
            if word in known
        ]
        if not told:
            return found
        lines, columns, weights = zip(*told, strict=True)
        wanted = sparse.csr_array((weights, (lines, columns)), shape=(len(asked), len(known)))
        rows = np.flatnonzero(weighed.place[:size] >= 0)
        products = (weighed.lines @ wanted.T).toarray().T
        found[:, rows] = products[:, weighed.place[rows]] / weighed.scale.rarity.max()
        return found

    @property
    def is_ready(self) -> bool:
        """There are weights to answer from, be they of some time ago."""
        return self._weighed is not None

    @property
    def is_due(self) -> bool:
        """So much has changed that all should be weighed anew."""
        return self._is_late(1.0)

    def begin(self) -> Callable[[], _Weighed | None]:
        """Begin to weigh all anew: what is returned does it, in any thread, for `finish`; till then the old holds."""
        words, self._touched = dict(self._words), set()
        return lambda: _weigh(words)

    def finish(self, weighed: _Weighed | None) -> None:
        """Take up new weights; what changed since `begin` is weighed by them. None: leave all as it was."""
        touched, self._touched = self._touched or set(), None
        if weighed is not None:
            self._take(weighed)
            for row in touched:
                if row in self._words:
                    self._changed.add(row)
                else:
                    self._take_out(row)

    def _current(self) -> _Weighed | None:
        """Weigh what has changed: by the frequencies at hand, or all anew where much has and nobody is at it."""
        if self._weighed is None or (self._is_late(LENIENCE) and self._touched is None):
            weighed = _weigh(self._words)
            if weighed is None:
                return None
            self._take(weighed)
        weighed = self._weighed
        if self._changed and weighed is not None:
            rows = sorted(self._changed)
            counts = weighed.scale.counter.transform([self._words[row] for row in rows])
            new = weighed.scale.weigh(sparse.csr_array(counts))
            room = max(rows[-1] + 1 - len(weighed.place), 0)
            weighed.place = np.append(weighed.place, np.full(room, -1, dtype=np.int64))
            weighed.place[rows] = weighed.lines.shape[0] + np.arange(len(rows))
            weighed.lines = sparse.csr_array(sparse.vstack([weighed.lines, new]))
            self._since += len(rows)
            self._changed.clear()
        return weighed

    def _is_late(self, lenience: float) -> bool:
        changed = self._since + len(self._changed)
        return self._weighed is None or changed > lenience * (_PENDING + _PENDING_SHARE * len(self._words))

    def _take(self, weighed: _Weighed) -> None:
        self._weighed = weighed
        self._since = 0
        self._changed.clear()

    def _take_out(self, row: int) -> None:
        place = np.empty(0, dtype=np.int64) if self._weighed is None else self._weighed.place
        if row < len(place) and place[row] >= 0:
            place[row] = -1
            self._since += 1


def _weigh(words: Mapping[int, Sequence[str]]) -> _Weighed | None:
    if not any(words.values()):
        return None
    # Here, not above: it takes a second or two to import, and commands that never ask this would wait for it.
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=list, max_features=MOST_WORDS)
    counts = sparse.csr_array(counter.fit_transform(words.values()))
    items, holders = len(words), np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log1p((items - holders + 0.5) / (holders + 0.5))
    scale = _Scale(counter, rarity, counts.sum() / items)
    place = np.full(max(words) + 1, -1, dtype=np.int64)
    place[list(words)] = np.arange(items)
    return _Weighed(scale, scale.weigh(counts), place)
