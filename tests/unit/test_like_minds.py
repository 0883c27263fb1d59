"""Like minds: people are found by what they took to, against the same worked out densely."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from penchant_pipelines.catalog.crowd import MINDS_SHARE, Crowd, Past, Texts
from penchant_pipelines.catalog.like_minds import LikeMinds
from penchant_pipelines.model import MICROS_PER_DAY

DAY, SPACE = MICROS_PER_DAY, 1
USERS, ITEMS, D = 7, 6, 4
TEA, RAIL = np.eye(2, dtype=np.float32)
law = settings(max_examples=100, deadline=None)


def texts(*vectors: NDArray[np.float32]) -> Texts:
    held = np.stack(vectors)
    return Texts(SPACE, held, 3 * held)


def dense(
    favours: NDArray[np.float64], vectors: NDArray[np.float64], past: NDArray[np.float64], user: int | None
) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    held = favours @ np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    there = np.linalg.norm(held, axis=1) > 1e-5
    held[there] /= np.linalg.norm(held[there], axis=1, keepdims=True)
    others = there & (np.arange(USERS) != (USERS if user is None else user))
    middle = held[others].mean(axis=0) if others.any() else np.zeros(D)
    apart, mine = held - middle, past - middle
    found = apart @ mine / np.maximum(np.linalg.norm(apart, axis=1) * np.linalg.norm(mine), 1e-12)
    return np.where(there & (np.linalg.norm(apart, axis=1) > 1.1e-3), found, 0.0)


@given(st.integers(0, 10_000), st.integers(0, ITEMS), st.floats(0.1, 0.6), st.none() | st.integers(0, USERS - 1))
@law
def test_people_are_compared_by_the_mean_of_what_they_took_to(
    seed: int, rows: int, share: float, user: int | None
) -> None:
    dice = np.random.default_rng(seed)
    favours = (dice.random((USERS, ITEMS)) < share).astype(np.float64)
    vectors = dice.normal(size=(ITEMS, D)) * dice.uniform(0.5, 4, size=(ITEMS, 1))
    vectors[dice.random(ITEMS) < 0.2] = 0
    past = dice.normal(size=D)
    past /= np.linalg.norm(past)
    minds = LikeMinds(sparse.csr_array(favours), vectors[:rows].astype(np.float32))
    found = minds.cosines(past.astype(np.float32), user)
    vectors[rows:] = 0
    np.testing.assert_allclose(found, dense(favours, vectors, past, user), atol=2e-3)


@pytest.fixture
def crowd() -> Crowd:
    """Many who took to tea (0, 1), two who took to rails (2, 3), one of them to item 4 as well."""
    found = Crowd()
    found.add([(user, user % 2, DAY, 1.0) for user in range(100, 118)])
    found.add([(1, 0, DAY, 1.0), (2, 1, DAY, 1.0), (3, 2, DAY, 1.0), (4, 3, DAY, 1.0), (4, 4, 2 * DAY, 1.0)])
    return found


CATALOG = texts(TEA, TEA, RAIL, RAIL, RAIL)


def told(
    found: Crowd, user: int, past: NDArray[np.float32], as_of: int, of: Texts, own: bool = False
) -> NDArray[np.float64]:
    """What a user is told by half-life who has written of this, and, unless `own`, is not known to favour anything."""
    favoured = found.own(user, as_of) if own else found.own(0, as_of)
    return found.alike_users(user, favoured, ITEMS, as_of, past=Past(past, of))


def test_who_only_writes_is_told_what_people_took_to_who_took_to_such_things(crowd: Crowd) -> None:
    ever = told(crowd, 9, RAIL, 2 * DAY, CATALOG)[-1]
    assert ever[[2, 3, 4]].all()
    assert not ever[[0, 1, 5]].any()
    # A tenth of the people, no more.
    crowd.add([(user, 2, DAY, 1.0) for user in range(200, 260)])
    assert told(crowd, 9, RAIL, 2 * DAY, CATALOG)[-1][2] <= 9 * MINDS_SHARE
    week = told(crowd, 9, RAIL, 9 * DAY, CATALOG)[0]
    np.testing.assert_allclose(week[4] / week[3], 2 ** (1 / 7))


def test_nobody_is_told_of_what_they_took_to_themselves(crowd: Crowd) -> None:
    assert not told(crowd, 3, RAIL, DAY, CATALOG)[-1][2]
    assert told(crowd, 4, RAIL, DAY, CATALOG)[-1][2]


def test_who_favoured_the_same_is_nearer_still(crowd: Crowd) -> None:
    crowd.add([(9, 3, DAY, 1.0)])
    as_mind = told(crowd, 9, RAIL, 2 * DAY, CATALOG)[-1]
    both = told(crowd, 9, RAIL, 2 * DAY, CATALOG, own=True)[-1]
    np.testing.assert_allclose(both[2], as_mind[2])
    np.testing.assert_allclose(both[4], as_mind[4] + np.sqrt(1 / 2))
    assert as_mind[4] <= MINDS_SHARE


def test_what_like_minds_take_to_counts_at_once(crowd: Crowd) -> None:
    before = told(crowd, 9, RAIL, 2 * DAY, CATALOG)[-1]
    crowd.add([(3, 5, 2 * DAY, 1.0)])
    after = told(crowd, 9, RAIL, 2 * DAY, CATALOG)[-1]
    assert not before[5]
    np.testing.assert_allclose(after[5], before[2])


def test_what_was_erased_is_told_to_nobody(crowd: Crowd) -> None:
    told(crowd, 9, RAIL, 2 * DAY, CATALOG)
    crowd.clear(np.array([3, 4]), erased=True)
    ever = told(crowd, 9, RAIL, 2 * DAY, CATALOG)[-1]
    assert np.flatnonzero(ever).tolist() == [2]
    assert crowd.is_due(SPACE)
    crowd.finish(crowd.begin(CATALOG)())
    assert np.flatnonzero(told(crowd, 9, RAIL, 2 * DAY, CATALOG)[-1]).tolist() == [2]


def test_what_was_said_of_an_item_tells_what_its_people_are_like() -> None:
    found = Crowd()
    found.add([(1, 0, DAY, 1.0), (2, 1, DAY, 1.0)])
    bland = np.stack([TEA, TEA])
    spoken = Texts(SPACE, bland, np.stack([TEA, TEA + 4 * RAIL]))
    assert np.flatnonzero(told(found, 9, RAIL, DAY, spoken)[-1]).tolist() == [1]


def test_nobody_has_taken_to_anything() -> None:
    assert not told(Crowd(), 9, RAIL, DAY, CATALOG).any()
    alone = Crowd()
    alone.add([(9, 0, DAY, 1.0)])
    assert not told(alone, 9, TEA, DAY, CATALOG).any()
