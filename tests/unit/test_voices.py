from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.catalog.voices import Voices

D, ROWS = 5, 6
Vectors = NDArray[np.float32]
law = settings(max_examples=60, deadline=None)


def directions(seed: int, count: int) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, D))
    units: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return units


def cosines(targets: Vectors, sums: Vectors) -> NDArray[np.float32]:
    found: NDArray[np.float32] = targets @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T
    return found


@law
@given(st.integers(0, 1000), st.lists(st.integers(0, ROWS - 1), max_size=12))
def test_an_item_is_the_sum_of_itself_and_what_was_said(seed: int, told: list[int]) -> None:
    items, posts, targets = directions(seed, ROWS), directions(seed + 1, len(told)), directions(seed + 2, 3)
    found = Voices.of(items)
    sums = items.copy()
    for row, post in zip(told, posts, strict=True):
        found.add(row, post)
        sums[row] += post
    np.testing.assert_allclose(found.sums, sums, atol=1e-6)
    np.testing.assert_allclose(found.cosines(targets, slice(None)), cosines(targets, sums), atol=1e-5)
    some = np.array([4, 1, 4])
    np.testing.assert_allclose(found.cosines(targets, some), cosines(targets, sums)[:, some], atol=1e-5)


def test_the_items_own_vectors_stay_as_they_are() -> None:
    items = directions(0, ROWS)
    found = Voices.of(items)
    found.add(1, directions(1, 1)[0])
    np.testing.assert_array_equal(items, directions(0, ROWS))


def test_after_a_reset_an_item_is_itself_alone() -> None:
    items, target = directions(0, ROWS), directions(1, 1)
    found = Voices.of(items)
    for row in (1, 2):
        found.add(row, directions(2, 1)[0])
    kept = found.sums[2].copy()
    rows = np.array([1, 4])
    new = directions(3, 2)
    found.reset(rows, new)
    np.testing.assert_allclose(found.cosines(target, rows), target @ new.T, atol=1e-6)
    np.testing.assert_array_equal(found.sums[2], kept)
    found.reset(np.zeros(0, dtype=np.int64), new[:0])
    np.testing.assert_array_equal(found.sums[2], kept)


def test_grown_rows_are_nobody_until_something_is_said() -> None:
    items, target = directions(0, ROWS), directions(1, 1)
    found = Voices.of(items)
    found.grow()
    assert found.sums.shape == (2 * ROWS, D)
    assert not found.cosines(target, slice(ROWS, None)).any()
    np.testing.assert_allclose(found.cosines(target, slice(0, ROWS)), target @ items.T, atol=1e-6)
    found.add(ROWS + 2, target[0])
    np.testing.assert_allclose(found.cosines(target, np.array([ROWS + 2])), [[1]], atol=1e-6)
