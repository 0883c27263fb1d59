"""Words that items have in common: weighed as bm25s weighs them, and kept up with as items change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.catalog.crowd import Own
from penchant_pipelines.catalog.words import Words
from penchant_pipelines.interests.horizons import HORIZONS

Floats = NDArray[np.float64]
law = settings(max_examples=60, deadline=None)
catalogs = st.dictionaries(st.integers(0, 12), st.lists(st.sampled_from("abcdefg"), max_size=6), max_size=10)


def own(*rows: int) -> Own:
    """These rows, each favoured as much as it is high, and fading from line to line."""
    masses = np.array([[1.0 / (1 + line * place) for place in range(len(rows))] for line in range(len(HORIZONS))])
    return Own(np.array(rows, dtype=np.int64), masses.reshape(len(HORIZONS), len(rows)))


def words(catalog: Mapping[int, Sequence[str]]) -> Words:
    found = Words()
    for row, said in catalog.items():
        found.put(row, said)
    return found


def weighed(catalog: Mapping[int, Sequence[str]], whose: Own, size: int) -> Floats:
    """The same products, all worked out anew and densely."""
    found = np.zeros((len(whose.masses), size))
    if not any(catalog.values()):
        return found
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75, dtype="float64")
    index.index([list(said) for said in catalog.values()], show_progress=False)
    known = sorted({word for said in catalog.values() for word in said})
    weights = np.stack([index.get_scores([word]) for word in known], axis=1)
    lines = dict(zip(catalog, weights, strict=True))
    for line, masses in enumerate(whose.masses):
        mine = sum((m * lines[row] for m, row in zip(masses, whose.rows, strict=True) if row in lines), 0 * weights[0])
        for row in lines:
            if row < size:
                found[line, row] = lines[row] @ mine
    return found


@law
@given(catalogs, st.lists(st.integers(0, 20), unique=True, max_size=4), st.integers(1, 20))
def test_they_weigh_what_they_weigh_to_bm25s(catalog: dict[int, list[str]], rows: list[int], size: int) -> None:
    whose = own(*sorted(rows))
    found = words(catalog).alike(whose, size)
    np.testing.assert_allclose(found, weighed(catalog, whose, size), atol=1e-9)


@law
@given(catalogs, catalogs, st.sets(st.integers(0, 12)))
def test_what_was_dropped_and_put_before_the_first_weighing_is_weighed_as_it_is(
    first: dict[int, list[str]], second: dict[int, list[str]], gone: set[int]
) -> None:
    found = words(first)
    for row in gone:
        found.drop(row)
    for row, said in second.items():
        found.put(row, said)
    held = {row: said for row, said in first.items() if row not in gone} | second
    whose = own(0, 3)
    np.testing.assert_allclose(found.alike(whose, 13), weighed(held, whose, 13), atol=1e-9)


CATALOG = {0: ["space", "war"], 1: ["space", "love"], 2: ["garden", "love"], 3: ["cooking"]}


def test_a_new_item_is_known_by_words_that_others_have() -> None:
    found = words(CATALOG)
    assert found.alike(own(0), 4)[0, 1] > 0
    found.put(7, ["war", "novelty"])
    likes = found.alike(own(0), 8)[0]
    assert likes[7] > 0
    assert not likes[4:7].any()
    assert found.alike(own(7), 8)[0, 0] > 0


def test_a_changed_item_is_known_by_its_new_words_alone() -> None:
    found = words(CATALOG)
    found.alike(own(0), 4)
    found.put(1, ["cooking"])
    likes = found.alike(own(3), 4)[0]
    assert likes[1] == pytest.approx(likes[3])
    assert likes[1] > 0
    assert found.alike(own(0), 4)[0, 1] == 0
    found.put(1, [])
    assert not found.alike(own(0), 4)[:, 1].any()
    assert not found.alike(own(1), 4).any()


def test_a_dropped_item_is_nobodys_and_its_row_may_be_had_again() -> None:
    found = words(CATALOG)
    found.alike(own(0), 4)
    found.drop(1)
    found.drop(99)
    assert np.flatnonzero(found.alike(own(0), 4)[0]).tolist() == [0]
    assert not found.alike(own(1), 4).any()
    found.put(1, ["garden"])
    assert found.alike(own(2), 4)[0, 1] > 0
    found.put(2, ["war"])
    found.drop(2)
    assert found.alike(own(0), 4)[0, 2] == 0


def test_words_that_come_an_item_at_a_time_are_known_in_the_end() -> None:
    found, catalog = Words(), {}
    for row in range(200):
        catalog[row] = [f"pair{row // 2}", "all"]
        found.put(row, catalog[row])
        found.alike(own(0), row + 1)
    likes = found.alike(own(100), 200)[0]
    expected = weighed(catalog, own(100), 200)[0]
    assert likes[101] == pytest.approx(expected[101], rel=0.2)
    assert likes[101] > 2 * likes[50]


def test_nothing_is_alike_without_words() -> None:
    for found in (Words(), words({0: [], 5: []})):
        likes = found.alike(own(0, 5), 6)
        assert likes.shape == (len(HORIZONS), 6)
        assert not likes.any()
        assert not found.alike(own(), 6).any()
    emptied = words(CATALOG)
    emptied.alike(own(0), 4)
    for row in CATALOG:
        emptied.drop(row)
    assert not emptied.alike(own(0), 4).any()
    emptied.put(0, ["space"])
    emptied.put(1, ["space"])
    likes = emptied.alike(own(0), 4)[0]
    assert likes[0] == pytest.approx(likes[1])
    assert np.flatnonzero(likes).tolist() == [0, 1]


def test_one_without_favours_is_told_nothing() -> None:
    assert not words(CATALOG).alike(own(), 4).any()
    assert not words(CATALOG).alike(own(50), 4).any()


def test_a_copy_goes_its_own_way() -> None:
    found = words(CATALOG)
    before = found.alike(own(0), 4)
    copied = found.copy()
    np.testing.assert_allclose(copied.alike(own(0), 4), before, atol=1e-12)
    copied.put(3, ["space"])
    copied.drop(1)
    assert copied.alike(own(0), 4)[0, 3] > 0
    np.testing.assert_array_equal(found.alike(own(0), 4), before)
    np.testing.assert_allclose(found.copy().alike(own(0), 4), before, atol=1e-12)
    found.put(2, ["war"])
    assert copied.alike(own(0), 4)[0, 2] == 0


@law
@given(catalogs, st.lists(st.dictionaries(st.sampled_from("abcxy"), st.floats(0, 1), max_size=3), max_size=3))
def test_items_are_named_by_the_words_that_are_asked_for(
    catalog: dict[int, list[str]], asked: list[dict[str, float]]
) -> None:
    found = words(catalog).naming(asked, 13)
    assert found.shape == (len(asked), 13)
    if not any(catalog.values()):
        assert not found.any()
        return
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75, dtype="float64")
    index.index([list(said) for said in catalog.values()], show_progress=False)
    known = {word for said in catalog.values() for word in said}
    count = len(catalog)
    rarest = min(sum(word in said for said in catalog.values()) for word in known)
    most = np.log1p((count - rarest + 0.5) / (rarest + 0.5))
    expected = np.zeros_like(found)
    for line, each in enumerate(asked):
        for word, weight in each.items():
            if word in known:
                expected[line, list(catalog)] += weight * index.get_scores([word]) / most
    np.testing.assert_allclose(found, expected, atol=1e-9)
