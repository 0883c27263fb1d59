"""Candidates: every source brings its share of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Connection

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.drift import DriftReport
from penchant_pipelines.index import ExactStore
from penchant_pipelines.index.relay import Relay
from penchant_pipelines.interests import InterestSettings, InterestView, ProfileView, Trend
from penchant_pipelines.model import Item, Steering
from penchant_pipelines.recommend.candidates import INDEX_LAG, OVERSAMPLE, Candidates
from penchant_pipelines.recommend.filters import Filter
from penchant_pipelines.recommend.ranking import Taste
from penchant_pipelines.record import Record, Writer
from penchant_pipelines.record.ledger import Ledger

D = 8
ITEMS = 1000
LIMIT = 20
EVERYTHING = Filter.parse("")


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
async def candidates(catalog: Catalog, tmp_path: Path) -> AsyncIterator[Candidates]:
    """Searches exactly: the index is not up yet."""
    record = Record(tmp_path)
    writer: Writer[Ledger] = Writer(record.engine, nothing_is_written)
    try:
        yield Candidates(catalog, 1, Relay(record, writer, ExactStore(), 1, D, lambda: None), 0.3)
    finally:
        await writer.close()
        record.close()


def taste(ahead: list[NDArray[np.float32]]) -> Taste:
    liked = InterestView("i", 1.0, 0.5, Trend.STEADY, 1, 0, 0, Steering(), axis(0), {}, mass=1.0, sign=1)
    view = ProfileView(0, (liked,), DriftReport(False, 0.0, None, True, 0), None, 1.0, ())
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


async def test_what_is_left_out_or_filtered_is_not_brought_in(catalog: Catalog, candidates: Candidates) -> None:
    foremost = catalog.id_at(next(iter(nearest(catalog, axis(1), 1))))
    found, _ = await candidates.find(taste([axis(1)]), None, LIMIT, {foremost}, EVERYTHING, "")
    assert catalog.entries[foremost].row not in found
    nothing, degraded = await candidates.find(
        taste([axis(1)]), None, LIMIT, set(), Filter.parse('category = "film"'), 'category = "film"'
    )
    assert len(nothing) == 0
    assert degraded == []
