"""Candidates: from a taste to rows of the catalogue worth scoring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Executor

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.catalog.products import products_of
from penchant_pipelines.highest import highest
from penchant_pipelines.index.relay import Relay
from penchant_pipelines.recommend.filters import Filter
from penchant_pipelines.recommend.ranking import Floats, Taste, Vectors, quotas

Rows = NDArray[np.intp]
OVERSAMPLE = 4
"""Candidates fetched for each place in the answer: what re-ranking chooses from."""
MOST_HITS = 400
"""Hits asked of the index for one interest; past that, exact search is cheaper."""
MOST_LEFT_OUT = 0.5
"""Share of the catalogue that may be left out: of more, the index would mostly find what must not be listed."""
INDEX_LAG = "index_unavailable"


class Candidates:
    """Finds candidates through the index, or exactly: by a filter, where most is left out, or the index is away."""

    def __init__(self, catalog: Catalog, space: int, relay: Relay, sequence_share: float, threads: Executor) -> None:
        """`threads`: for what goes over the whole catalogue."""
        self._catalog = catalog
        self._space = space
        self._relay = relay
        self._sequence_share = sequence_share
        self._threads = threads
        self._filtered: LRUCache[str, tuple[int, NDArray[np.bool_]]] = LRUCache(maxsize=64)
        """Which rows pass a filter, and the version of the catalogue then."""

    async def find(
        self,
        taste: Taste,
        query: NDArray[np.float32] | None,
        limit: int,
        left_out: set[str],
        condition: Filter,
        expression: str,
        by_row: Floats | None = None,
        named: Floats | None = None,
    ) -> tuple[Rows, list[str]]:
        """Rows of visible items that pass the filter and aren't left out, and why the answer is degraded.

        With `by_row` (r, rows), what sources that read no vectors make of the catalogue, each of these brings its best
        too, and so does each horizon of the taste; without, each of the latest texts. `named` (k, rows), how well words
        of interests name items, brings the best of each in any case.
        """
        told = [each for each in (by_row, named) if each is not None]
        ahead = len(taste.ahead)
        horizons = taste.horizons if by_row is not None and taste.horizons is not None else taste.ahead[:0]
        latest, beside = taste.latest, taste.latest_shares
        if by_row is not None:
            latest, beside = latest[:0], beside[:0]
        asked = [] if query is None else [query[None, :]]
        targets = np.vstack([taste.centroids, taste.ahead, latest, horizons, *asked])
        shares = [taste.shares, np.full(ahead, self._sequence_share / max(ahead, 1)), beside / (1 + beside.sum())]
        places = quotas(np.concatenate(shares), limit)
        places += [limit] * (len(horizons) + (query is not None))

        def among(rows: Rows) -> Rows:
            return _joined(_nearest(self._vectors, targets, places, rows, limit), told, rows, limit)

        if not condition.is_empty or len(left_out) > MOST_LEFT_OUT * len(self._catalog):
            rows = await self.matching(condition, expression, left_out)
            return await self._chosen(lambda: among(rows)), []
        hits_wanted = min(MOST_HITS, OVERSAMPLE * max(places) + min(len(left_out), 100))
        found = await self._relay.query("items", targets, hits_wanted)
        free = self._free(left_out)
        allowed = np.flatnonzero(free)
        if found is None:
            return await self._chosen(lambda: among(allowed)), [INDEX_LAG]
        picked, short = self._pick([[hit.id for hit in hits] for hits in found], places, free, hits_wanted)

        def choose() -> Rows:
            rows = picked
            if short:
                # What is hidden, seen or muted took the places in the index of what lies behind it.
                quotas_left = [places[number] for number in short]
                rows = np.union1d(rows, _nearest(self._vectors, targets[short], quotas_left, allowed, limit))
            rows = _joined(rows, told, allowed, limit)
            return rows if len(rows) >= min(limit, len(allowed)) else among(allowed)

        return await self._chosen(choose), []

    async def matching(self, condition: Filter, expression: str, left_out: set[str]) -> Rows:
        """All visible rows that pass a filter."""
        if condition.is_empty:
            return np.flatnonzero(self._free(left_out))
        rows = await self._matching(condition, expression)
        return rows[self._free(left_out)[rows]]

    def _pick(
        self, found: Sequence[Sequence[str]], places: Sequence[int], free: NDArray[np.bool_], wanted: int
    ) -> tuple[Rows, list[int]]:
        """Rows of what was found for each target, and the targets of which the index may hold more than `wanted`."""
        picked: dict[int, None] = {}
        short = []
        for number, (ids, quota) in enumerate(zip(found, places, strict=True)):
            taken = 0
            for item_id in ids:
                entry = self._catalog.entries.get(item_id)
                if entry is None or not free[entry.row]:
                    continue
                picked[entry.row] = None
                taken += 1
                if taken == OVERSAMPLE * quota:
                    break
            if taken < OVERSAMPLE * quota and len(ids) == wanted:
                short.append(number)
        return np.array(sorted(picked), dtype=np.intp), short

    async def _chosen(self, choose: Callable[[], Rows]) -> Rows:
        """Rows as `choose` finds them in a thread; what was changed meanwhile is left out this once.

        A row may be another item's by then.
        """
        version = self._catalog.version
        rows = await asyncio.get_running_loop().run_in_executor(self._threads, choose)
        return rows[self._catalog.changed[rows] <= version]

    @property
    def _vectors(self) -> Vectors:
        return self._catalog.vectors[self._space][: self._catalog.size]

    def _free(self, left_out: Set[str]) -> NDArray[np.bool_]:
        """Which rows are visible and not left out."""
        free = self._catalog.visible.copy()
        free[[entry.row for entry in map(self._catalog.entries.get, left_out) if entry is not None]] = False
        return free

    async def _matching(self, condition: Filter, expression: str) -> Rows:
        """Visible rows that pass a filter: what has changed since it was last asked is looked at anew, in a thread."""
        catalog, version = self._catalog, self._catalog.version
        since, before = self._filtered.get(expression, (0, np.zeros(0, dtype=bool)))
        if since == version:
            return np.flatnonzero(before)
        stale = np.flatnonzero(catalog.changed[: catalog.size] > since)
        passed = np.zeros(catalog.size, dtype=bool)
        passed[: len(before)] = before
        passed[stale] = False

        def look() -> list[int]:
            there = ((row, catalog.item_at(row)) for row in stale.tolist())
            return [row for row, item in there if item is not None and not item.hidden and condition.matches(item)]

        passed[await asyncio.to_thread(look)] = True
        if version >= self._filtered.get(expression, (0, passed))[0]:
            self._filtered[expression] = version, passed
        rows = np.flatnonzero(passed)
        # What was changed meanwhile is left out this once.
        return rows[catalog.changed[rows] <= version]


def _nearest(vectors: Vectors, targets: Vectors, places: Sequence[int], rows: Rows, least: int) -> Rows:
    """What of these rows is nearest to each target, by its places; at least so many in all, where there are."""
    if not len(targets) or not len(rows):
        return rows
    cosines = products_of(vectors, rows, targets)
    picked: set[int] = set()
    for line, quota in zip(cosines, places, strict=True):
        picked.update(rows[highest(line, OVERSAMPLE * quota)].tolist())
    if len(picked) < min(least, len(rows)):
        # Several targets brought the same.
        order = np.argsort(-cosines.max(axis=0), kind="stable")
        picked.update(rows[order[:least]].tolist())
    return np.array(sorted(picked), dtype=np.intp)


def _joined(rows: Rows, told: Sequence[Floats], allowed: Rows, limit: int) -> Rows:
    """Add the best of each source, (r, all rows), among the allowed ones; what scores 0 is nobody's best."""
    picked, wanted = [rows], OVERSAMPLE * limit
    for by_row in told:
        # What came into the catalogue since the sources were asked is in none of them.
        free = np.zeros(by_row.shape[1], dtype=bool)
        free[allowed[allowed < len(free)]] = True
        for line in by_row:
            best = np.flatnonzero(free & (line > 0))
            picked.append(best[highest(line[best], wanted)])
    return np.unique(np.concatenate(picked)).astype(np.intp)
