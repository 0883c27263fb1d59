"""Sources of evidence for a recommendation: each scores the items in its own way, all on one scale.

A source says by how many standard deviations an item stands out of the catalogue. So sources of any kind can be
summed, and one that has nothing to say about a user says 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.catalog.crowd import NO_FAVOURS, Past
from penchant_pipelines.catalog.popularity import HALF_LIVES_DAYS
from penchant_pipelines.catalog.products import GATHERED_SHARE, products
from penchant_pipelines.interests.horizons import HORIZONS
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.recommend.naming import weighed_words
from penchant_pipelines.recommend.ranking import Taste, Vectors, soft_maximum
from penchant_pipelines.recommend.settings import RecommendSettings

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_LIVES = ["ever" if days == np.inf else f"{days:g}d" for days in HALF_LIVES_DAYS]
INTERESTS, FRESH, SEQUENCE, NEW, SAID, NAMED = "interests", "fresh", "sequence", "new", "said", "named"
_BY_ROW_PARTS = (
    [f"words_{horizon}" for horizon in HORIZONS],
    [f"alike_items_{horizon}" for horizon in HORIZONS],
    [f"alike_users_{life}" for life in _LIVES],
    [f"popular_{life}" for life in _LIVES],
    [NEW],
    [NAMED],
)
_BY_ROW = tuple(name for part in _BY_ROW_PARTS for name in part)
_BY_VECTOR = (
    INTERESTS,
    FRESH,
    SEQUENCE,
    *(f"text_{horizon}" for horizon in HORIZONS),
    *(f"{SAID}_{horizon}" for horizon in HORIZONS),
)
SOURCES = _BY_VECTOR + _BY_ROW
"""Names, in the order of every array of scores and weights.

`interests`: the soft maximum over interests; `fresh`: what the user is at right now; `sequence`: what the adapter's
sequence model expects next; `text`: the user's fading past as one vector, by each horizon; `said`: the same against an
item enriched by what others wrote about it; `words`: by BM25; `alike_items`: what goes with the user's own, by who
favoured both and by what the items are; `alike_users`: favoured by people who favoured the same, or
what the user's past is about; `popular`; `new`: how recent the item is; `named`: what has words of the interests, asked
for who has favoured no item, since of others these are the items' own.
"""
_OF_FAVOURS = np.isin(SOURCES, _BY_ROW_PARTS[0] + _BY_ROW_PARTS[1])
_OF_PEOPLE = np.isin(SOURCES, _BY_ROW_PARTS[2])
REFERENCE = 2048
"""Items by which the scale of a source that reads vectors is taken: evenly spaced ones."""


EVERY_SOURCE = np.ones(len(SOURCES), dtype=bool)


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom items are scored for, and when (µs). `user` is a key of the record; the taste is not empty."""

    user: int
    taste: Taste
    as_of: int
    heeded: NDArray[np.bool_] = field(default_factory=lambda: EVERY_SOURCE)
    """(s,) which sources are asked: one that weighs nothing need not answer."""


class Sources:
    """Scores items by every source, in one embedding space."""

    def __init__(
        self, catalog: Catalog, space: int, settings: RecommendSettings, words_of: Callable[[str], Sequence[str]]
    ) -> None:
        """`words_of` cuts terms into words as items are cut."""
        self._catalog = catalog
        self._space = space
        self._settings = settings
        self._words_of = words_of

    def scores(
        self,
        asker: Asker,
        rows: Rows,
        foreign: Vectors | None = None,
        by_row: Floats | None = None,
        version: int | None = None,
    ) -> Floats:
        """Deviations from the catalogue's mean: (s, n + f) in the order of `SOURCES`.

        `rows` (n,) of the catalogue; `foreign` (f, d) float32 vectors of items that it does not hold; `by_row` where
        it is at hand already, with the `version` of the catalogue that it was made of.
        """
        reference = self._catalog.spread(REFERENCE)
        strange = np.zeros((0, self._vectors.shape[1]), dtype=np.float32) if foreign is None else foreign
        compared = self._by_vector(asker.taste, np.concatenate([rows, reference]), strange)
        asked = np.r_[: len(rows), len(rows) + len(reference) : compared.shape[1]]
        near = _standing(compared[:, asked], compared[:, len(rows) : len(rows) + len(reference)])
        every = self.by_row(asker) if by_row is None else by_row
        visible = self._catalog.visible[: every.shape[1]]
        # Nothing is told of what changed since `by_row` was made, whose row may have been another item's, nor, but for
        # what its vector tells of what it goes with, of what the catalogue does not hold.
        told = np.zeros((len(every), len(rows) + len(strange)))
        changed = self._catalog.changed[rows]
        known = (rows < every.shape[1]) & (changed <= (self._catalog.version if version is None else version))
        told[:, np.flatnonzero(known)] = every[:, rows[known]]
        words, items, *_ = _heeded(asker)
        if len(strange) and len(items):
            own = self._catalog.crowd.own(asker.user, asker.as_of).under(items)
            alike = self._catalog.crowd.alike_strangers(own, strange, self._catalog.texts(self._space))
            told[len(words) : len(words) + len(items), len(rows) :] = alike
        found = np.zeros((len(SOURCES), told.shape[1]))
        found[: len(near)] = near
        found[len(near) + np.flatnonzero(asker.heeded[len(near) :])] = _standing(
            told, every if visible.all() else every[:, visible]
        )
        return found

    def by_row(self, asker: Asker) -> Floats:
        """Raw scores of the whole catalogue by those asked that read no vectors, in their order: (r, rows)."""
        return self.begin(asker)()

    def begin(self, asker: Asker) -> Callable[[], Floats]:
        """Begin `by_row`: what is returned does it, in any thread, by what there is now.

        An item whose vector changes meanwhile may be seen half as it was.
        """
        catalog, as_of = self._catalog, asker.as_of
        size, texts, past = catalog.size, catalog.texts(self._space), self._past(asker)
        words, items, users, popular, new, named = _heeded(asker)
        said, crowd = catalog.words.still(), catalog.crowd.still(texts)
        # Popularity moves its landmark in place; what is left of it is soon read.
        favoured = crowd.popularity.of_all(size, as_of, popular)
        created = catalog.created[:size].copy()

        def ask() -> Floats:
            own = crowd.own(asker.user, as_of)
            found = []
            if len(words):
                found.append(said.alike(own.under(words), size))
            if len(items):
                found.append(crowd.alike_items(own.under(items), size, texts))
            if len(users):
                found.append(crowd.alike_users(asker.user, own, size, as_of, users, past))
            if len(popular):
                found.append(favoured)
            if len(new):
                age = np.maximum(as_of - created, 0) / MICROS_PER_DAY
                found.append(np.where(created > 0, np.exp2(-age / self._settings.recency_half_life_days), 0.0)[None])
            if len(named):
                asked = () if len(own.rows) else self._words_asked(asker.taste)
                found.append(said.naming(asked, size).max(axis=0, initial=0.0)[None])
            return np.concatenate(found) if found else np.zeros((0, size))

        return ask

    def begin_naming(self, taste: Taste) -> Callable[[], Floats]:
        """Begin to ask how well the words of each liked interest name items: what is returned does it, in any thread.

        (k, rows), 0…1 as `Words.naming` tells it.
        """
        said, size = self._catalog.words.still(), self._catalog.size
        return lambda: said.naming(self._words_asked(taste), size)

    def _words_asked(self, taste: Taste) -> list[dict[str, float]]:
        return [weighed_words(terms, self._words_of) for terms in taste.terms]

    def as_writer(self, asker: Asker, rows: Rows, scores: Floats) -> Floats:
        """What scores (s, n) of rows by all sources would be had the user only written, and favoured nothing yet."""
        crowd, size = self._catalog.crowd, self._catalog.size
        alike = crowd.alike_users(asker.user, NO_FAVOURS, size, asker.as_of, past=self._past(asker))
        found = scores.copy()
        visible = self._catalog.visible[:size]
        named = self.begin_naming(asker.taste)().max(axis=0)[None]
        found[_OF_FAVOURS] = 0.0
        found[_OF_PEOPLE] = _standing(alike[:, rows], alike[:, visible])
        found[[SOURCES.index(NAMED)]] = _standing(named[:, rows], named[:, visible])
        return found

    def standing(self, nearness: Callable[[Vectors], Floats], vectors: Vectors) -> Floats:
        """Deviations of how near items (n, d) are to something from the catalogue's mean: (n,).

        `nearness` tells it of vectors (m, d): (m,).
        """
        reference = self._vectors[self._catalog.spread(REFERENCE)]
        found: Floats = _standing(nearness(vectors)[None], nearness(reference)[None])[0]
        return found

    def silent(self, rows: Rows, foreign: int) -> NDArray[np.bool_]:
        """Which items nobody has written about: (n + f,), `rows` (n,) of the catalogue and then `foreign` ones."""
        voices = self._catalog.voices.get(self._space)
        heard = np.zeros(len(rows), dtype=bool) if voices is None else voices.heard(rows, self._vectors[rows])
        return np.concatenate([~heard, np.ones(foreign, dtype=bool)])

    def _past(self, asker: Asker) -> Past | None:
        horizons = asker.taste.horizons
        return None if horizons is None else Past(horizons[-1], self._catalog.texts(self._space))

    @property
    def _vectors(self) -> Vectors:
        return self._catalog.vectors[self._space]

    def _by_vector(self, taste: Taste, rows: Rows, foreign: Vectors) -> Floats:
        """Raw scores of items in the catalogue, then of foreign ones, by the sources that read vectors."""
        found = np.zeros((len(_BY_VECTOR), len(rows) + len(foreign)))
        horizons = taste.horizons if taste.horizons is not None else taste.centroids[:0]
        fresh = taste.centroids[:0] if taste.fresh is None else taste.fresh[None]
        targets = np.vstack([taste.centroids, fresh, taste.ahead, horizons])
        whole = len(rows) > self._catalog.size * GATHERED_SHARE
        read, asked = (slice(0, self._catalog.size), rows) if whole else (rows, slice(None))
        cosines = np.hstack([products(self._vectors[read], targets)[:, asked], products(foreign, targets)])
        liked, now, ahead, past = np.split(cosines, np.cumsum([len(taste.centroids), len(fresh), len(taste.ahead)]))
        found[0] = soft_maximum(liked.T, taste.shares, self._settings.temperature)[0]
        if len(now):
            found[1] = now[0]
        if len(ahead):
            found[2] = ahead.max(axis=0)
        if len(past):
            count = len(past)
            found[3 : 3 + count] = found[3 + count :] = past
            voices = self._catalog.voices.get(self._space)
            if voices is not None:
                found[3 + count :, : len(rows)] = voices.cosines(horizons, read)[:, asked]
        return found


def _heeded(asker: Asker) -> list[Rows]:
    """Which sources are asked of each of `_BY_ROW_PARTS`, by their places in it."""
    cuts = np.cumsum([len(part) for part in _BY_ROW_PARTS])[:-1]
    return [np.flatnonzero(part) for part in np.split(asker.heeded[len(_BY_VECTOR) :], cuts)]


def _standing(scores: Floats, reference: Floats) -> Floats:
    """Standard deviations above the mean of a reference, 0 where that is all alike."""
    if not reference.shape[1]:
        return np.zeros_like(scores)
    mean = reference.mean(axis=1, keepdims=True)
    apart = reference - mean
    deviation = np.sqrt(np.einsum("ij,ij->i", apart, apart) / reference.shape[1])[:, None]
    standing: Floats = np.where(deviation > 1e-9, (scores - mean) / np.maximum(deviation, 1e-9), 0.0)
    return standing


__all__ = ["FRESH", "INTERESTS", "NAMED", "NEW", "SAID", "SEQUENCE", "SOURCES", "Asker", "Sources"]
