"""Candidates: every source brings its share of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import Connection

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.index import ExactStore
from penchant_pipelines.index.relay import Relay
from penchant_pipelines.interests import (
    Blender,
    Calibration,
    InterestSettings,
    InterestView,
    ProfileView,
    Recipe,
    Trend,
)
from penchant_pipelines.interests.drift import DriftReport
from penchant_pipelines.model import Item, Steering
from penchant_pipelines.recommend.candidates import INDEX_LAG, OVERSAMPLE, Candidates
from penchant_pipelines.recommend.filters import Filter
from penchant_pipelines.recommend.ranking import Floats, Taste
from penchant_pipelines.record import Record, Writer
from penchant_pipelines.record.ledger import Ledger

D = 8
ITEMS = 1000
LIMIT = 20
EVERYTHING = Filter.parse("")
# The catalogue is only read.
law = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def axis(index: int) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.eye(D, dtype=np.float32)[index]
    return row


@pytest.fixture
def catalog() -> Catalog:
    found = Catalog({1: D}, InterestSettings())
    rows = np.random.default_rng(0).normal(size=(ITEMS, D))
    for number, row in enumerate(rows / np.linalg.norm(rows, axis=1, keepdims=True)):
        found.upsert(Item(f"i{number}"), "en", {1: row.astype(np.float32)})
    return found


def nothing_is_written(_connection: Connection) -> Ledger:
    raise AssertionError


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    """Has no index yet."""
    record = Record(tmp_path)
    writer: Writer[Ledger] = Writer(record.engine, nothing_is_written)
    try:
        blender = Blender(Recipe(InterestSettings(), Calibration(0.5, np.zeros(D, np.float32)), "space"))
        yield Relay(record, writer, ExactStore(), 1, blender, lambda: None)
    finally:
        await writer.close()
        record.close()


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as found:
        yield found


class Meanwhile(Executor):
    """Runs what it is given only after something else has happened, as it may while a thread is at work."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens = happens

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._happens()
        found: Future[Any] = Future()
        found.set_result(fn(*args, **kwargs))
        return found


@pytest.fixture
def candidates(catalog: Catalog, relay: Relay, threads: Executor) -> Candidates:
    """Searches exactly: the index is not up yet."""
    return Candidates(catalog, 1, relay, 0.3, threads)


@pytest.fixture
def indexed(catalog: Catalog, relay: Relay, threads: Executor) -> Candidates:
    """Searches an index that lags far behind: it holds two items."""
    relay.live = ExactStore().open("generation", D)
    relay.live.items.upsert([catalog.id_at(row) for row in (0, 1)], catalog.vectors[1][:2])
    return Candidates(catalog, 1, relay, 0.3, threads)


def taste(ahead: list[NDArray[np.float32]], latest: list[NDArray[np.float32]] | None = None) -> Taste:
    liked = InterestView("i", 1.0, 0.5, Trend.STEADY, 1, 0, 0, Steering(), axis(0), {}, mass=1.0, sign=1)
    late = (np.stack(latest), np.ones(len(latest))) if latest else None
    view = ProfileView(0, (liked,), DriftReport(False, 0.0, None, True, 0), None, 1.0, (), latest=late)
    return Taste.of(view, D, np.stack(ahead) if ahead else None)


def nearest(catalog: Catalog, target: NDArray[np.float32], count: int) -> set[int]:
    return set(np.argsort(-(catalog.vectors[1][:ITEMS] @ target))[:count].tolist())


@pytest.mark.parametrize(
    ("ahead", "each"), [([], 0), ([1], 6), ([1, 2], 3), ([1, 2, 3, 4, 5, 6], 2)], ids=["none", "one", "two", "six"]
)
async def test_what_is_expected_next_brings_its_quota(
    catalog: Catalog, candidates: Candidates, ahead: list[int], each: int
) -> None:
    found, degraded = await candidates.find(taste([axis(i) for i in ahead]), None, LIMIT, set(), EVERYTHING, "")
    expected = nearest(catalog, axis(0), OVERSAMPLE * LIMIT)
    expected.update(*(nearest(catalog, axis(i), OVERSAMPLE * each) for i in ahead))
    assert set(found.tolist()) == expected
    assert degraded == [INDEX_LAG]


async def test_each_of_the_latest_texts_brings_some_where_no_horizon_does(
    catalog: Catalog, candidates: Candidates
) -> None:
    whose = taste([], latest=[axis(1), axis(2)])
    found, _ = await candidates.find(whose, None, LIMIT, set(), EVERYTHING, "")
    expected = nearest(catalog, axis(0), OVERSAMPLE * LIMIT)
    # Of their shares, 1 and .8, and that of all interests, 1.
    for index, share in ((1, 1 / 2.8), (2, 0.8 / 2.8)):
        expected |= nearest(catalog, axis(index), OVERSAMPLE * round(LIMIT * share))
    assert set(found.tolist()) == expected
    by_row = np.zeros((1, catalog.size))
    mixed, _ = await candidates.find(whose, None, LIMIT, set(), EVERYTHING, "", by_row)
    assert set(mixed.tolist()) == nearest(catalog, axis(0), OVERSAMPLE * LIMIT)


async def test_what_is_left_out_or_filtered_is_not_brought_in(catalog: Catalog, candidates: Candidates) -> None:
    foremost = catalog.id_at(next(iter(nearest(catalog, axis(1), 1))))
    found, _ = await candidates.find(taste([axis(1)]), None, LIMIT, {foremost}, EVERYTHING, "")
    assert catalog.entries[foremost].row not in found
    nothing, degraded = await candidates.find(
        taste([axis(1)]), None, LIMIT, set(), Filter.parse('category = "film"'), 'category = "film"'
    )
    assert len(nothing) == 0
    assert degraded == []


async def test_hidden_items_that_were_seen_do_not_stand_for_visible_ones(catalog: Catalog, indexed: Candidates) -> None:
    for row in range(500):
        catalog.upsert(replace(catalog.entries[f"i{row}"].item, hidden=True), "en", {1: axis(0)})
    seen = {f"i{row}" for row in range(499)}
    found, _ = await indexed.find(taste([]), None, LIMIT, seen, EVERYTHING, "")
    assert len(found) == OVERSAMPLE * LIMIT


async def test_what_is_seen_takes_no_places_of_what_lies_behind_it(
    catalog: Catalog, relay: Relay, threads: Executor
) -> None:
    relay.live = ExactStore().open("generation", D)
    relay.live.items.upsert([catalog.id_at(row) for row in range(ITEMS)], catalog.vectors[1][:ITEMS])
    indexed = Candidates(catalog, 1, relay, 0.3, threads)
    seen = {f"i{row}" for row in nearest(catalog, axis(0), 300)}
    # Of what is expected next there is enough to fill an answer by itself.
    found, degraded = await indexed.find(taste([-axis(0)]), None, LIMIT, seen, EVERYTHING, "")
    behind = nearest(catalog, axis(0), 300 + OVERSAMPLE * LIMIT) - nearest(catalog, axis(0), 300)
    assert set(found.tolist()) == behind | nearest(catalog, -axis(0), OVERSAMPLE * 6)
    assert degraded == []


async def test_what_is_deleted_or_changed_while_a_thread_chooses_is_left_out(catalog: Catalog, relay: Relay) -> None:
    order = np.argsort(-(catalog.vectors[1][:ITEMS] @ axis(0))).tolist()
    deleted, hidden, changed, *others = order[: OVERSAMPLE * LIMIT]

    def happens() -> None:
        catalog.delete([f"i{deleted}"])
        catalog.upsert(Item("another"), "en", {1: axis(0)})
        catalog.upsert(Item(f"i{hidden}", hidden=True), "en", {1: axis(0)})
        catalog.upsert(Item(f"i{changed}", categories=("film",)), "en", {1: -axis(0)})
        for number in range(ITEMS):
            catalog.upsert(Item(f"new{number}"), "en", {1: axis(0)})

    found, _ = await Candidates(catalog, 1, relay, 0.3, Meanwhile(happens)).find(
        taste([]), None, LIMIT, set(), EVERYTHING, ""
    )
    assert catalog.entries["another"].row == deleted
    assert not {deleted, hidden, changed} & set(found.tolist())
    # They were looked at as they are by then, and are left out all the same.
    assert set(others) < set(found.tolist())


async def test_where_most_is_left_out_no_index_is_asked(catalog: Catalog, candidates: Candidates) -> None:
    order = np.argsort(-(catalog.vectors[1][:ITEMS] @ axis(0))).tolist()
    seen = {f"i{row}" for row in order[: ITEMS // 2 + 1]}
    found, degraded = await candidates.find(taste([]), None, LIMIT, seen, EVERYTHING, "")
    assert set(found.tolist()) == set(order[len(seen) : len(seen) + OVERSAMPLE * LIMIT])
    assert degraded == []


async def test_what_is_deleted_or_changed_while_a_filter_looks_is_not_found(
    catalog: Catalog, candidates: Candidates
) -> None:
    for name in ("gone", "changed", "kept"):
        catalog.upsert(Item(name, categories=("film",)), "en", {1: axis(0)})
    looking, done = threading.Event(), threading.Event()

    class Slow(Filter):
        def matches(self, item: Item) -> bool:
            if item.id == "kept":
                looking.set()
                assert done.wait(10)
            return super().matches(item)

    slow = Slow.parse('categories:"film"')
    search = asyncio.create_task(candidates.matching(slow, "slow", set()))
    await asyncio.to_thread(looking.wait, 10)
    row = catalog.entries["gone"].row
    catalog.delete(["gone"])
    catalog.upsert(Item("changed", categories=("book",)), "en", {1: axis(0)})
    catalog.upsert(Item("new", hidden=True), "en", {1: axis(0)})
    assert catalog.entries["new"].row == row
    done.set()
    kept = [catalog.entries["kept"].row]
    assert (await search).tolist() == kept
    assert (await candidates.matching(slow, "slow", set())).tolist() == kept


async def test_of_a_filter_that_is_asked_again_only_what_has_changed_is_looked_at(
    catalog: Catalog, candidates: Candidates
) -> None:
    looked_at: list[str] = []

    class Noted(Filter):
        def matches(self, item: Item) -> bool:
            looked_at.append(item.id)
            return super().matches(item)

    noted, dice = Noted.parse('category = "film"'), np.random.default_rng(0)
    for _ in range(60):
        changed: set[str] = set()
        for number in dice.integers(0, ITEMS + 50, size=dice.integers(0, 6)).tolist():
            name = f"i{number}"
            changed.add(name)
            if dice.random() < 0.3:
                catalog.delete([name])
            else:
                kinds = ("film",) if dice.random() < 0.5 else ()
                catalog.upsert(Item(name, categories=kinds, hidden=bool(dice.random() < 0.2)), "en", {1: axis(0)})
        first = not looked_at
        looked_at.clear()
        found = await candidates.matching(noted, "noted", set())
        entries = catalog.entries.values()
        expected = sorted(e.row for e in entries if e.item.categories == ("film",) and not e.item.hidden)
        assert found.tolist() == expected
        assert first or set(looked_at) <= changed


def learnt(*lines: dict[int, float], size: int = ITEMS) -> Floats:
    """What sources make of the catalogue: a line each, 0 but for the rows named."""
    found = np.zeros((len(lines), size))
    for line, named in zip(found, lines, strict=True):
        line[list(named)] = list(named.values())
    return found


def with_horizons(*horizons: NDArray[np.float32]) -> Taste:
    return replace(taste([]), horizons=np.stack(horizons))


async def found_by(candidates: Candidates, whose: Taste, by_row: Floats | None, **changes: Any) -> set[int]:
    asked = {"query": None, "limit": LIMIT, "left_out": set(), "condition": EVERYTHING, "expression": ""} | changes
    found, _ = await candidates.find(whose, by_row=by_row, **asked)
    assert found.dtype == np.intp
    assert len(set(found.tolist())) == len(found)
    return set(found.tolist())


async def test_each_source_brings_its_best(catalog: Catalog, candidates: Candidates) -> None:
    many = {row: 1.0 + row for row in range(500, 600)}
    alone = await found_by(candidates, taste([]), None)
    joined = await found_by(candidates, taste([]), learnt({3: 0.1, 4: 5.0}, many, {}))
    foremost = set(range(600 - OVERSAMPLE * LIMIT, 600))
    assert joined == alone | {3, 4} | foremost


@law
@given(st.lists(st.dictionaries(st.integers(0, ITEMS - 1), st.sampled_from([0.0, 0.5, 1.0]), max_size=6), max_size=3))
async def test_what_scores_0_brings_nothing(
    catalog: Catalog, candidates: Candidates, lines: list[dict[int, float]]
) -> None:
    alone = await found_by(candidates, taste([]), None)
    joined = await found_by(candidates, taste([]), learnt(*lines))
    assert joined == alone | {row for line in lines for row, score in line.items() if score}


async def test_each_horizon_brings_its_nearest_where_a_mix_ranks(catalog: Catalog, candidates: Candidates) -> None:
    whose = with_horizons(axis(1), axis(2))
    liked = nearest(catalog, axis(0), OVERSAMPLE * LIMIT)
    assert await found_by(candidates, whose, None) == liked
    joined = await found_by(candidates, whose, learnt())
    assert joined == liked.union(*(nearest(catalog, axis(i), OVERSAMPLE * LIMIT) for i in (1, 2)))


async def test_what_a_source_brings_passes_the_filter_and_is_not_left_out(
    catalog: Catalog, candidates: Candidates
) -> None:
    for row in (1, 2, 3):
        catalog.upsert(Item(f"i{row}", categories=("film",)), "en", {})
    catalog.upsert(Item("i4", hidden=True), "en", {})
    by_row = learnt(dict.fromkeys((1, 2, 4, 5), 1.0))
    open_to_all = await found_by(candidates, taste([]), by_row, left_out={"i1", "absent"})
    assert open_to_all >= {2, 5}
    assert not open_to_all & {1, 4}
    films = 'category = "film"'
    narrow = {"condition": Filter.parse(films), "expression": films, "left_out": {"i1"}}
    assert await found_by(candidates, taste([]), by_row, **narrow) == {2, 3}


async def test_items_that_came_since_the_sources_were_asked_do_no_harm(
    catalog: Catalog, candidates: Candidates
) -> None:
    by_row = learnt({7: 1.0})
    catalog.upsert(Item("new"), "en", {1: axis(0)})
    found = await found_by(candidates, taste([]), by_row)
    assert found >= {7, catalog.entries["new"].row}


async def test_what_a_source_brings_is_kept_where_the_index_finds_too_few(
    catalog: Catalog, indexed: Candidates
) -> None:
    opposite = int(np.argmin(catalog.vectors[1][:ITEMS] @ axis(0)))
    found = await found_by(indexed, taste([]), learnt({opposite: 1.0}))
    assert found == nearest(catalog, axis(0), OVERSAMPLE * LIMIT) | {opposite}


@pytest.mark.parametrize("limit", [LIMIT, 60, 100])
async def test_a_page_is_filled_whatever_interests_have_in_common(
    catalog: Catalog, indexed: Candidates, limit: int
) -> None:
    for row in range(60):
        catalog.upsert(Item(f"i{row}", categories=("film",)), "en", {})
    many = replace(taste([]), centroids=np.stack([axis(0)] * 12), shares=np.full(12, 1 / 12), ids=("",) * 12)
    films = 'category = "film"'
    narrow = {"condition": Filter.parse(films), "expression": films, "limit": limit}
    assert len(await found_by(indexed, many, None, **narrow)) >= min(limit, 60)
    assert len(await found_by(indexed, many, None, limit=limit)) >= limit
