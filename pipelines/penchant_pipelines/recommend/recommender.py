"""Recommend and re-rank: candidates, score, diversity, and the reasons for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.interests import Calibration
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.profiles import Profiles, Stored
from penchant_pipelines.recommend.candidates import Candidates, Rows
from penchant_pipelines.recommend.filters import Filter, FilterError
from penchant_pipelines.recommend.mix import Mix, own_share, shares
from penchant_pipelines.recommend.ranking import (
    Scored,
    Taste,
    Vectors,
    affinity,
    by_place,
    diversify,
    is_muted,
    score,
)
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.recommend.sources import Asker, Sources

T = TypeVar("T")

LEAST_OWN_SHARE = 0.2
"""What the user's own must have of all that spoke for an item, to be told as a reason."""
LEAST_SOUGHT = 20
"""Places that candidates are sought for at least: the best by all that counts need not be the nearest."""
LOOKED_AT = 8
"""How many times as many items are looked at first as are to be explored, and each time that there were too few."""
COLD_USER = "cold_user"
EMPTY_CATALOG = "empty_catalog"


@dataclass(frozen=True, slots=True)
class Query:
    """What to recommend. `vector` is that of the request's query words, if any."""

    limit: int
    filter: str = ""
    excluded: frozenset[str] = frozenset()
    include_seen: bool = False
    diversity: float | None = None
    exploration: float | None = None
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """One place of a ranking."""

    item_id: str
    score: float
    interest_id: str
    """The interest that brought it in; empty where none did."""
    vector: NDArray[np.float32]
    own_share: float = 1.0
    """What the user's own signals have of all that spoke for it: the rest was others' doing, how new it is, or asked
    for."""
    sources: tuple[tuple[str, float], ...] = ()
    """Which sources spoke for it and by what share; see `mix.shares`. Empty without a mix."""
    chance: float | None = None
    """How likely the user takes to it on the next day they take to anything new, 0…1, where the live mix knows."""
    candidate: int | None = None
    """Position among the caller's candidates, where they gave some."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """An answer, and why it is less than it could be."""

    places: tuple[Ranked, ...]
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the caller's own candidates; `vector` where the catalogue doesn't hold it."""

    item_id: str
    prior: float
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The caller's own candidates, and how to order them. `vector` is that of the request's query words, if any."""

    candidates: Sequence[Candidate]
    limit: int
    prior_weight: float = 0.0
    diversity: float = 0.0
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class _Mixed:
    """A mix with what it is asked for; `by_row` (r, rows), of the catalogue as of `version`: see `Sources`."""

    mix: Mix
    asker: Asker
    by_row: NDArray[np.float64]
    version: int


@dataclass(frozen=True, slots=True)
class _Named:
    """How well words of each liked interest name items of the catalogue as of `version`: (k, rows).

    By the share of the user's signals that are about no item: of others the words are the items', and who likes one
    John need not like the next.
    """

    by_row: NDArray[np.float64]
    version: int


@dataclass(frozen=True, slots=True)
class Visit:
    """A user at a time (µs): what every list that is made for them then starts from. `stored` None: a stranger."""

    stored: Stored | None
    taste: Taste
    as_of: int
    mixed: _Mixed | None
    """None where no mix is live, or nothing is known that the user likes."""
    named: _Named | None
    """None where a mix is live, or nothing is known that the user likes."""


class Recommender:
    """Turns interests into ranked items, in one embedding space."""

    def __init__(
        self,
        catalog: Catalog,
        space: int,
        candidates: Candidates,
        profiles: Profiles,
        calibration: Calibration,
        settings: RecommendSettings,
        mix: Callable[[], Mix | None],
        words_of: Callable[[str], Sequence[str]],
        threads: Executor,
    ) -> None:
        """`words_of` cuts terms into words as items are cut; `threads`: for what goes over the whole catalogue."""
        self._catalog = catalog
        self._space = space
        self._candidates = candidates
        self._profiles = profiles
        self._calibration = calibration
        self._settings = settings
        self._mix = mix
        self._sources = Sources(catalog, space, settings, words_of)
        self._threads = threads

    async def visit(self, stored: Stored | None, as_of: int, ahead: Vectors | None = None) -> Visit:
        """Look at a user (None: a stranger) at a time (µs).

        `ahead` (m, d): where a sequence model expects the user's next signals.
        """
        taste = Taste.of(stored.view if stored else None, self._catalog.vectors[self._space].shape[1], ahead)
        mixed = await self._mixed(stored, taste, as_of)
        return Visit(stored, taste, as_of, mixed, None if mixed else await self._named(stored, taste))

    async def recommend(self, visit: Visit, query: Query) -> Ranking:
        """Rank the catalogue. Raises InvalidInput for a filter that can't be read."""
        stored, taste, as_of = visit.stored, visit.taste, visit.as_of
        try:
            condition = Filter.parse(query.filter)
        except FilterError as error:
            raise InvalidInput.at("filter", str(error)) from error
        left_out = set(query.excluded)
        if stored is not None and not query.include_seen:
            left_out |= await asyncio.to_thread(self._profiles.seen, stored.key)
        # Before candidates are cut to a number, lest the muted ones take the others' places.
        left_out |= await self._muted_ids(taste)
        reasons: list[str] = [] if len(self._catalog) else [EMPTY_CATALOG]
        if taste.is_empty and query.vector is None:
            rows = await self._candidates.matching(condition, query.filter, left_out)
            reasons.append(COLD_USER)
        else:
            rows, degraded = await self._candidates.find(
                taste,
                query.vector,
                max(query.limit, LEAST_SOUGHT),
                left_out,
                condition,
                query.filter,
                None if visit.mixed is None else visit.mixed.by_row,
                None if visit.named is None else visit.named.by_row,
            )
            reasons += degraded
            if taste.is_empty:
                reasons.append(COLD_USER)
        exploration = self._settings.exploration if query.exploration is None else query.exploration
        diversity = self._settings.diversity if query.diversity is None else query.diversity
        explored, version = round(exploration * query.limit), self._catalog.version
        everything = rows[:0]
        if explored:
            everything = await self._candidates.matching(condition, query.filter, left_out)
            rows = rows[self._catalog.changed[rows] <= version]
        # From here on nothing is waited for: what is listed is there, and as it was asked for.
        language = stored.view.languages[0] if stored and stored.view.languages else ""
        rows = self._pool(taste, rows, query, language)
        places = self._rank(visit, rows, query, diversity)
        if explored:
            seed = f"{as_of // MICROS_PER_DAY}|{stored.key if stored else ''}"
            places = self._explore(taste, places, everything, explored, query.limit, seed)
        return Ranking(tuple(places[: query.limit]), tuple(reasons))

    def rerank(self, visit: Visit, shortlist: Shortlist) -> tuple[Ranking, tuple[str, ...]]:
        """Rank the caller's candidates; second value: ids neither in the catalogue nor given with text."""
        taste, as_of, mixed = visit.taste, visit.as_of, visit.mixed
        candidates, query = shortlist.candidates, shortlist.vector
        positions = [
            position
            for position, c in enumerate(candidates)
            if c.vector is not None or c.item_id in self._catalog.entries
        ]
        known = [candidates[position] for position in positions]
        missing = tuple(c.item_id for c in candidates if c.vector is None and c.item_id not in self._catalog.entries)
        reasons = (COLD_USER,) if taste.is_empty else ()
        if not known:
            return Ranking((), reasons), missing
        rows = [self._catalog.entries[c.item_id].row if c.vector is None else -1 for c in known]
        vectors = np.stack(
            [
                self._catalog.vectors[self._space][row] if c.vector is None else c.vector
                for c, row in zip(known, rows, strict=True)
            ]
        )
        held = np.array(rows) >= 0
        parts: NDArray[np.float64] | None = None
        if mixed is None:
            created = np.where(held, self._catalog.created[rows], 0)
            popularity = np.where(held, self._catalog.popularity(rows, as_of), 0.0)
            named = self._named_of(visit, np.array(rows, dtype=np.intp), query)
            scored = score(taste, vectors, query, created, popularity, as_of, self._settings, named)
        else:
            # What the catalogue doesn't hold comes last, as sources answer.
            held_first = np.argsort(~held, kind="stable")
            mixed_up, parts = self._mixed_score(mixed, np.array(rows, dtype=np.intp)[held], vectors[held_first], query)
            back = np.argsort(held_first, kind="stable")
            scored = Scored(mixed_up.scores[back], mixed_up.interest[back], mixed_up.own[back])
            parts = parts[:, back]
        scored = self._asked_for(taste, vectors, scored, query)
        chances = _chances(mixed, scored, query)
        # What scores as good as alike is alike; priors are the caller's own numbers.
        own, prior = _scaled(scored.scores, 1e-12), _scaled(np.array([c.prior for c in known]), 0.0)
        blended = (1 - shortlist.prior_weight) * own + shortlist.prior_weight * prior
        muted = self._muted(taste, np.array(rows, dtype=np.intp), vectors)
        blended = np.where(muted, blended - 1.0, blended)
        order: list[int] = []
        for part in (np.flatnonzero(~muted), np.flatnonzero(muted)):
            left = shortlist.limit - len(order)
            order += [int(part[row]) for row in diversify(blended[part], vectors[part], left, shortlist.diversity)]
        ids = [known[row].item_id for row in order]
        places = _places(order, ids, blended, taste, scored, vectors, parts, chances)
        told = tuple(replace(place, candidate=positions[row]) for place, row in zip(places, order, strict=True))
        return Ranking(told, reasons), missing

    def _pool(self, taste: Taste, rows: Rows, query: Query, language: str) -> Rows:
        """Drop what is muted; a stranger chooses among the most popular in the language first."""
        if taste.is_empty and query.vector is None:
            popular = self._catalog.most_popular(4 * query.limit, language, within=rows)
            rows = np.array([self._catalog.entries[item_id].row for item_id in popular], dtype=np.intp)
        return rows[~self._muted(taste, rows, self._catalog.vectors[self._space][rows])]

    async def _muted_ids(self, taste: Taste) -> set[str]:
        """Items of the catalogue that the user has muted, but for what changes meanwhile."""
        if not len(taste.muted):
            return set()
        catalog, version = self._catalog, self._catalog.version
        # Of all rows, since gathering the visible ones would cost more than they do.
        vectors = catalog.vectors[self._space][: catalog.size]
        muted = await self._in_thread(lambda: is_muted(taste, vectors, self._calibration))
        muted[self._unwanted(taste, len(muted))] = True
        known = catalog.visible[: len(muted)] & (catalog.changed[: len(muted)] <= version)
        return {catalog.id_at(int(row)) for row in np.flatnonzero(muted & known)}

    def _muted(self, taste: Taste, rows: Rows, vectors: Vectors) -> NDArray[np.bool_]:
        """Which items the user has muted: (n,), by row, −1 for foreign ones, and by vector (n, d)."""
        unwanted = self._unwanted(taste, self._catalog.size)
        found: NDArray[np.bool_] = is_muted(taste, vectors, self._calibration) | np.isin(rows, unwanted)
        return found

    def _unwanted(self, taste: Taste, size: int) -> list[int]:
        """Rows, of the first `size`, of items in a category that the user wants none of."""
        named: set[int] = set().union(*(self._catalog.of_category(name) for name in taste.unwanted))
        return [row for row in named if row < size]

    async def _mixed(self, stored: Stored | None, taste: Taste, as_of: int) -> _Mixed | None:
        """What the live mix needs, if there is one and the user is no stranger."""
        mix = self._mix()
        if mix is None or stored is None or taste.is_empty:
            return None
        if not len(self._catalog.crowd.own(stored.key, as_of).rows):
            mix = mix.for_writers()
        mix = mix.steered() if taste.steered else mix
        asker = Asker(stored.key, taste, as_of, mix.weights > 0)
        version, ask = self._catalog.version, self._sources.begin(asker)
        return _Mixed(mix, asker, await self._in_thread(ask), version)

    async def _named(self, stored: Stored | None, taste: Taste) -> _Named | None:
        """Ask which items the words of liked interests name, so far as they are the user's own and not of items."""
        if stored is None or taste.is_empty or not self._settings.words_weight:
            return None
        version, naming = self._catalog.version, self._sources.begin_naming(taste)

        def ask() -> NDArray[np.float64]:
            written = self._profiles.written_share(stored.key)
            return written * naming() if written else np.zeros((len(taste.ids), 0))

        return _Named(await self._in_thread(ask), version)

    def _named_of(self, visit: Visit, rows: Rows, query: NDArray[np.float32] | None) -> NDArray[np.float64] | None:
        """How well the user's words name items, (k, n) by row, −1 for what the catalogue does not hold.

        None where a query asks for something else than what the user writes of.
        """
        if visit.named is None or query is not None:
            return None
        by_row = visit.named.by_row
        found = np.zeros((len(by_row), len(rows)))
        # Another item may have come into a row since.
        known = (rows >= 0) & (rows < by_row.shape[1]) & (self._catalog.changed[rows] <= visit.named.version)
        found[:, known] = by_row[:, rows[known]]
        return found

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _mixed_score(
        self, mixed: _Mixed, rows: Rows, vectors: Vectors, query: NDArray[np.float32] | None
    ) -> tuple[Scored, NDArray[np.float64]]:
        """Score by the mix: rows of the catalogue, then foreign items; `vectors` (n, d) of all, in this order.

        Query words and what the user wants less of count as in `score`. Second value: parts of the scores (f, n), as
        `shares` takes them.
        """
        taste, settings = mixed.asker.taste, self._settings
        foreign = vectors[len(rows) :]
        standings = self._sources.scores(mixed.asker, rows, foreign, mixed.by_row, mixed.version)
        parts = mixed.mix.parts(standings, self._sources.silent(rows, len(vectors) - len(rows)))
        if query is not None:
            asked = self._sources.standing(lambda each: np.asarray(each @ query, dtype=np.float64), vectors)
            parts = np.vstack([(1 - settings.query_weight) * parts, settings.query_weight * asked])
        total = parts.sum(axis=0)
        if len(taste.avoided):
            # A deviation tells nothing of how much there is to say against anything at all.
            weight = settings.dislike_weight * float(taste.against.max())
            total = total - weight * np.maximum(self._sources.standing(taste.objection, vectors), 0.0)
        return Scored(total, affinity(taste, vectors, settings)[1], own_share(parts)), parts

    def _asked_for(self, taste: Taste, vectors: Vectors, scored: Scored, query: NDArray[np.float32] | None) -> Scored:
        """Leave the user out of what was asked for and is about nothing that they care for."""
        if query is None or taste.is_empty:
            return scored
        nearest = self._calibration.cosines(vectors, taste.centroids).max(axis=1)
        return replace(scored, own=np.where(nearest >= self._calibration.similarity, scored.own, 0.0))

    def _rank(self, visit: Visit, rows: Rows, query: Query, diversity: float) -> list[Ranked]:
        if not len(rows):
            return []
        taste, as_of, mixed = visit.taste, visit.as_of, visit.mixed
        # Rows in order of id: equal scores then rank the same whatever the history of the catalogue.
        rows = np.array(sorted(rows, key=lambda row: self._catalog.id_at(int(row))), dtype=np.intp)
        catalog = self._catalog
        vectors = catalog.vectors[self._space][rows]
        parts: NDArray[np.float64] | None = None
        if mixed is None:
            popularity = catalog.popularity(rows, as_of)
            named = self._named_of(visit, rows, query.vector)
            created = catalog.created[rows]
            scored = score(taste, vectors, query.vector, created, popularity, as_of, self._settings, named)
        else:
            scored, parts = self._mixed_score(mixed, rows, vectors, query.vector)
        scored = self._asked_for(taste, vectors, scored, query.vector)
        # A mix may put one item far ahead of all: places tell better what variety may cost.
        worth = scored.scores if mixed is None else by_place(scored.scores)
        order = diversify(worth, vectors, query.limit, diversity)
        chances = _chances(mixed, scored, query.vector)
        ids = [catalog.id_at(int(rows[row])) for row in order]
        return _places(order, ids, scored.scores.round(6), taste, scored, vectors, parts, chances)

    def _explore(
        self, taste: Taste, places: list[Ranked], rows: Rows, explored: int, limit: int, seed: str
    ) -> list[Ranked]:
        """Give evenly spread places to items beyond the known tastes, drawn by a seed that holds a day."""
        kept = places[: max(limit - explored, 0)]
        taken = [self._catalog.entries[place.item_id].row for place in kept]
        vectors = self._catalog.vectors[self._space]
        drawn = [
            Ranked(self._catalog.id_at(int(row)), 0.0, "", vectors[row])
            for row in self._drawn(taste, rows[~np.isin(rows, taken)], explored, seed)
        ]
        for number, place in enumerate(drawn):
            position = min(len(kept), round((number + 1) * limit / (len(drawn) + 1)))
            neighbour = kept[position - 1].score if 0 < position <= len(kept) else 0.0
            kept.insert(position, replace(place, score=neighbour))
        return kept + [place for place in places if place.item_id not in {k.item_id for k in kept}]

    def _drawn(self, taste: Taste, rows: Rows, count: int, seed: str) -> Rows:
        """Draw up to so many of these rows that lie beyond the known tastes."""
        if not len(rows):
            return rows
        # Each item draws its own number: a new item doesn't reshuffle the others.
        numbers = self._catalog.shuffled(rows, seed)
        looked_at = LOOKED_AT * count
        while True:
            # Most lie beyond: as a rule a few tell enough.
            first = np.argpartition(numbers, min(looked_at, len(rows)) - 1)[:looked_at]
            first = first[np.lexsort((rows[first], numbers[first]))]
            vectors = self._catalog.vectors[self._space][rows[first]]
            beyond = ~self._muted(taste, rows[first], vectors)
            for known in (taste.centroids, taste.avoided):
                nearest = self._calibration.cosines(vectors, known).max(axis=1, initial=-1)
                beyond &= nearest < self._calibration.similarity
            if beyond.sum() >= count or looked_at >= len(rows):
                found: Rows = rows[first[beyond][:count]]
                return found
            looked_at *= LOOKED_AT


def _chances(mixed: _Mixed | None, scored: Scored, query: NDArray[np.float32] | None) -> NDArray[np.float64] | None:
    """Chances of what was scored; none where the score means something else than it did in the lessons."""
    curve = mixed.mix.chance if mixed is not None and query is None else None
    return None if curve is None else curve.of(scored.scores)


def _places(
    order: Sequence[int],
    ids: Sequence[str],
    scores: NDArray[np.float64],
    taste: Taste,
    scored: Scored,
    vectors: Vectors,
    parts: NDArray[np.float64] | None,
    chances: NDArray[np.float64] | None,
) -> list[Ranked]:
    """Tell who brought each item in, and what a mix knows of it: `ids` in this order, the rest by row."""
    places = []
    sources = [()] * len(order) if parts is None else shares(parts[:, order])
    for item_id, row, spoke in zip(ids, order, sources, strict=True):
        own = float(scored.own[row])
        own = own if own >= LEAST_OWN_SHARE else 0.0
        column = int(scored.interest[row])
        places.append(
            Ranked(
                item_id,
                float(scores[row]),
                taste.ids[column] if column >= 0 and own else "",
                vectors[row],
                own,
                spoke,
                None if chances is None else float(chances[row]),
            )
        )
    return places


def _scaled(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Scale to 0…1; all 0 where values differ by no more than `least` (a share of the greatest if that is above 1)."""
    # The greatest that there are leave room for their difference.
    values = values / max(float(np.abs(values).max()), 1.0)
    spread = values.max() - values.min()
    scaled: NDArray[np.float64] = (values - values.min()) / spread if spread > least else np.zeros(len(values))
    return scaled


__all__ = ["COLD_USER", "Candidate", "Query", "Ranked", "Ranking", "Recommender", "Vectors", "Visit"]
