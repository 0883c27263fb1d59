"""Sources of recommendations: one scale for all, and nothing said where nothing is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.catalog.crowd import Past
from penchant_pipelines.interests import Evidence, InterestSettings, InterestView, ProfileView, Trend
from penchant_pipelines.interests.drift import DriftReport
from penchant_pipelines.interests.horizons import HORIZONS
from penchant_pipelines.model import MICROS_PER_DAY, Action, Item, Steering
from penchant_pipelines.recommend import sources
from penchant_pipelines.recommend.ranking import Taste, soft_maximum
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.recommend.sources import FRESH, INTERESTS, NAMED, NEW, SEQUENCE, SOURCES, Asker, Sources

D, ITEMS, SPACE = 6, 300, 1
DAY = MICROS_PER_DAY
NOW = 20_000 * DAY
ANN, BOB, STRANGER = 1, 2, 9
Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
law = settings(max_examples=40, deadline=None)


def directions(seed: int, count: int) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, D))
    units: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return units


def like(item: int, days_ago: int = 1, action: Action | None = Action.LIKE) -> Evidence:
    vector = directions(item, 1)[0]
    return Evidence("s", NOW - days_ago * DAY, vector, action, item_id=f"i{item:03}")


def filled(listens: bool = True) -> Catalog:
    """Items with words, hidden ones among them; what Ann, Bob and others did; a post about item 7."""
    found = Catalog({SPACE: D}, InterestSettings())
    for number, vector in enumerate(directions(0, ITEMS)):
        item = Item(f"i{number:03}", create_time=NOW - number * DAY, hidden=number % 10 == 9)
        found.upsert(item, "en", {SPACE: vector}, [f"w{number % 7}", f"x{number % 11}"])
    if listens:
        found.listen(SPACE)
    for liked in (1, 2, 3):
        found.witness(ANN, like(liked, liked), SPACE)
    for liked in (2, 3, 4, 5):
        found.witness(BOB, like(liked, 2 * liked), SPACE)
    for user in range(10, 30):
        found.witness(user, like(user * 3, user), SPACE)
    found.witness(BOB, like(7, 3, None), SPACE)
    return found


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Only read."""
    return filled()


def taste(ahead: bool = True, terms: tuple[dict[str, float], dict[str, float]] = ({}, {})) -> Taste:
    """One who likes two things, with all that sources read."""
    liked = tuple(
        InterestView(f"i{n}", 0.5, 0.5, Trend.STEADY, 1, 0, 0, Steering(), vector, terms[n], mass=1.0, sign=1)
        for n, vector in enumerate(directions(77, 2))
    )
    past = directions(78, len(HORIZONS))
    view = ProfileView(NOW, liked, DriftReport(False, 0.0, None, True, 0), directions(80, 1)[0], 2.0, (), past)
    return Taste.of(view, D, directions(79, 3) if ahead else None)


def by(catalog: Catalog) -> Sources:
    return Sources(catalog, SPACE, RecommendSettings(), str.split)


def line(scores: Floats, name: str) -> Floats:
    found: Floats = scores[SOURCES.index(name)]
    return found


def standing(raw: Floats, catalog: Catalog, rows: NDArray[np.intp]) -> Floats:
    """Deviations from the mean of what is visible, of raw scores of the whole catalogue."""
    usual = raw[catalog.visible[: len(raw)]]
    found: Floats = (raw[rows] - usual.mean()) / usual.std()
    return found


def test_names_are_told_apart_and_in_the_order_of_the_scores(catalog: Catalog) -> None:
    assert len(set(SOURCES)) == len(SOURCES) == 3 + 4 * len(HORIZONS) + 2 * 4 + 2
    assert {INTERESTS, FRESH, SEQUENCE, NEW, "text_last1", "said_365d", "words_30d", "alike_items_last3"} < set(SOURCES)
    assert {"alike_users_ever", "popular_7d", "popular_ever"} < set(SOURCES)
    rows = np.arange(20)
    found = by(catalog).scores(Asker(ANN, taste(), NOW), rows)
    assert found.shape == (len(SOURCES), 20)
    vectors, past = catalog.vectors[SPACE][:ITEMS].astype(np.float64), taste().horizons
    assert past is not None
    for place, horizon in enumerate(HORIZONS):
        expected = standing(vectors @ past[place], catalog, rows)
        np.testing.assert_allclose(line(found, f"text_{horizon}"), expected, atol=1e-4)
    sums = catalog.voices[SPACE].sums[:ITEMS]
    heard = sums / np.linalg.norm(sums, axis=1, keepdims=True) @ past[1]
    np.testing.assert_allclose(line(found, "said_last3"), standing(heard, catalog, rows), atol=1e-4)
    ahead = (vectors @ taste().ahead.T).max(axis=1)
    np.testing.assert_allclose(line(found, SEQUENCE), standing(ahead, catalog, rows), atol=1e-4)
    now = taste().fresh
    assert now is not None
    np.testing.assert_allclose(line(found, FRESH), standing(vectors @ now, catalog, rows), atol=1e-4)
    soft, _ = soft_maximum(catalog.vectors[SPACE][:ITEMS] @ taste().centroids.T, taste().shares, 0.05)
    np.testing.assert_allclose(line(found, INTERESTS), standing(soft, catalog, rows), atol=1e-4)
    age = np.arange(ITEMS, dtype=np.float64)
    np.testing.assert_allclose(line(found, NEW), standing(np.exp2(-age / 30), catalog, rows), atol=1e-6)
    own, long = catalog.crowd.own(ANN, NOW), Past(past[-1], catalog.texts(SPACE))
    for name, raw in (
        ("words_30d", catalog.words.alike(own, ITEMS)[3]),
        ("alike_items_last1", catalog.crowd.alike_items(own, ITEMS, catalog.texts(SPACE))[0]),
        ("alike_users_30d", catalog.crowd.alike_users(ANN, own, ITEMS, NOW, past=long)[1]),
        ("popular_ever", catalog.crowd.popularity.of_all(ITEMS, NOW)[3]),
    ):
        assert raw.any()
        np.testing.assert_allclose(line(found, name), standing(raw, catalog, rows), atol=1e-6)


def test_over_all_visible_items_the_mean_is_0_and_the_deviation_1(catalog: Catalog) -> None:
    rows = np.flatnonzero(catalog.visible)
    found = by(catalog).scores(Asker(ANN, taste(), NOW), rows)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-5)
    # Whoever took to items is known by these, not by words of their own.
    np.testing.assert_allclose(found.std(axis=1), np.array(SOURCES) != NAMED, atol=1e-5)


def test_what_was_begun_answers_by_what_there_was_in_any_thread() -> None:
    catalog = filled()
    asker = Asker(ANN, taste(), NOW)
    expected = by(catalog).by_row(asker)
    ask = by(catalog).begin(asker)
    for number in range(ITEMS):
        item = Item(f"new{number}", create_time=NOW)
        catalog.upsert(item, "en", {SPACE: directions(number, 1)[0]}, ["w1", "x1"])
        catalog.witness(ANN, Evidence("s", NOW, None, Action.LIKE, item_id=item.id), SPACE)
    # Their vectors alone may be seen as they are by then.
    kept = {row: catalog.vectors[SPACE][row].copy() for row in (1, 2, 3)}
    catalog.delete(["i001", "i002"])
    catalog.upsert(Item("i003", create_time=NOW), "en", {}, ["w3"])
    for row, vector in kept.items():
        catalog.vectors[SPACE][row] = vector
    with ThreadPoolExecutor(1) as threads:
        np.testing.assert_array_equal(threads.submit(ask).result(), expected)
    assert (by(catalog).by_row(asker)[:, :ITEMS] != expected).any()


def test_of_one_who_took_to_no_item_people_alike_the_crowd_and_the_date_speak_by_row(catalog: Catalog) -> None:
    by_row = by(catalog).by_row(Asker(STRANGER, taste(), NOW))
    names = SOURCES[-len(by_row) :]
    speaking = {name for name, said in zip(names, by_row, strict=True) if said.any()}
    crowd = {f"{kind}_{life}" for kind in ("alike_users", "popular") for life in ("7d", "30d", "365d", "ever")}
    assert speaking == {*crowd, NEW}


def test_of_one_who_took_to_no_item_the_words_of_each_interest_speak(catalog: Catalog) -> None:
    own = taste(terms=({"w1 x2": 3.0, "unheard": 1.0}, {"w4": 0.5}))
    rows = np.flatnonzero(catalog.visible)
    found = by(catalog).scores(Asker(STRANGER, own, NOW), rows)
    named = catalog.words.naming([{"w1": 1.0, "x2": 1.0}, {"w4": 1.0}], ITEMS).max(axis=0)
    np.testing.assert_allclose(line(found, NAMED), standing(named, catalog, rows), atol=1e-6)
    # Who took to items is known by the words of these instead, and seen as a writer by the former.
    asker = Asker(ANN, own, NOW)
    taken = by(catalog).scores(asker, rows)
    np.testing.assert_array_equal(taken, by(catalog).scores(Asker(ANN, taste(), NOW), rows))
    written = by(catalog).as_writer(asker, rows, taken)
    np.testing.assert_allclose(line(written, NAMED), line(found, NAMED), atol=1e-6)
    for horizon in HORIZONS:
        assert not line(written, f"words_{horizon}").any()
        assert not line(written, f"alike_items_{horizon}").any()


def test_sources_that_have_nothing_to_go_by_say_0() -> None:
    bare = Catalog({SPACE: D}, InterestSettings())
    for number, vector in enumerate(directions(0, 40)):
        bare.upsert(Item(f"i{number:03}"), "en", {SPACE: vector})
    plain = replace(taste(ahead=False), horizons=None)
    found = by(bare).scores(Asker(ANN, plain, NOW), np.arange(40))
    assert {name for name, said in zip(SOURCES, found, strict=True) if said.any()} == {INTERESTS, FRESH}


def test_a_source_that_rates_all_alike_says_0_of_foreign_items_too() -> None:
    even = Catalog({SPACE: D}, InterestSettings())
    for number, vector in enumerate(directions(0, 40)):
        even.upsert(Item(f"i{number:03}"), "en", {SPACE: vector})
        even.witness(number, like(number), SPACE)
    found = by(even).scores(Asker(STRANGER, taste(), NOW), np.arange(40), directions(1, 1))
    for name in ("words_last1", "popular_7d", "popular_ever", NEW):
        assert not line(found, name).any()


def test_what_is_not_listened_to_reads_as_text() -> None:
    deaf = filled(listens=False)
    found = by(deaf).scores(Asker(ANN, taste(), NOW), np.arange(50))
    for horizon in HORIZONS:
        np.testing.assert_array_equal(line(found, f"said_{horizon}"), line(found, f"text_{horizon}"))


@law
@given(st.lists(st.integers(0, ITEMS - 1), max_size=250), st.integers(0, 6), st.sampled_from([2048, 40]))
def test_an_item_scores_the_same_alone_and_among_many(picked: list[int], strangers: int, reference: int) -> None:
    catalog, asker = filled(), Asker(ANN, taste(), NOW)
    rows, foreign = np.array(picked, dtype=np.intp), directions(5, strangers)
    with pytest.MonkeyPatch.context() as patch:
        # With few to compare with, few rows are gathered rather than picked out of all.
        patch.setattr(sources, "REFERENCE", reference)
        found = by(catalog).scores(asker, rows, foreign)
        every = by(catalog).scores(asker, np.arange(ITEMS))
    assert found.shape == (len(SOURCES), len(rows) + strangers)
    np.testing.assert_allclose(found[:, : len(rows)], every[:, rows], atol=1e-4)


def test_a_foreign_item_is_read_by_its_vector_and_what_that_goes_with_and_unknown_to_the_rest(catalog: Catalog) -> None:
    asker, silent = Asker(ANN, taste(), NOW), 8
    known = by(catalog).scores(asker, np.array([silent]))[:, 0]
    found = by(catalog).scores(asker, np.array([1, 2]), catalog.vectors[SPACE][[silent]])[:, 2]
    assert not catalog.crowd.popularity.of_all(ITEMS, NOW)[:, silent].any()
    for name, here, there in zip(SOURCES, known, found, strict=True):
        if name.startswith("alike_items"):
            # As one that was not learnt from: nearly the same.
            assert there == pytest.approx(here, abs=0.05), name
            assert there != 0
        elif not name.startswith(("words", NEW)):
            assert there == pytest.approx(here, abs=1e-4), name
    lowest = by(catalog).scores(asker, np.flatnonzero(catalog.visible)).min(axis=1)
    for horizon in HORIZONS:
        name = f"words_{horizon}"
        assert line(found, name) == pytest.approx(line(lowest, name))
    assert line(found, NEW) < line(lowest, NEW)


def test_scores_by_row_that_are_at_hand_are_used_even_where_items_came_in_since() -> None:
    catalog, asker = filled(), Asker(ANN, taste(), NOW)
    by_row = by(catalog).by_row(asker)
    assert by_row.shape == (len(SOURCES) - 3 - 2 * len(HORIZONS), ITEMS)
    rows = np.arange(10)
    np.testing.assert_array_equal(by(catalog).scores(asker, rows, by_row=by_row), by(catalog).scores(asker, rows))
    catalog.upsert(Item("late"), "en", {SPACE: directions(3, 1)[0]}, ["w1"])
    found = by(catalog).scores(asker, np.append(rows, catalog.entries["late"].row), by_row=by_row)
    assert np.isfinite(found).all()
    assert line(found, "words_last3")[-1] < line(found, "words_last3")[1]


def test_nothing_is_told_of_a_row_by_what_another_item_had_there() -> None:
    catalog, asker = filled(), Asker(ANN, taste(), NOW)
    version, by_row = catalog.version, by(catalog).by_row(asker)
    taken_over = int(np.argmax(by_row.sum(axis=0)))
    catalog.delete([catalog.id_at(taken_over)])
    for name in ("other", "late"):
        catalog.upsert(Item(name), "en", {SPACE: directions(3, 1)[0]})
    rows = np.array([catalog.entries[name].row for name in ("other", "late")])
    assert rows[0] == taken_over
    found = by(catalog).scores(asker, rows, by_row=by_row, version=version)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])


def test_a_catalogue_without_items_takes_foreign_ones() -> None:
    empty = Catalog({SPACE: D}, InterestSettings())
    found = by(empty).scores(Asker(ANN, taste(), NOW), np.zeros(0, dtype=np.intp), directions(0, 2))
    assert found.shape == (len(SOURCES), 2)
    assert not found.any()


def test_what_is_nearest_to_any_of_several_stands_out(catalog: Catalog) -> None:
    targets, vectors = directions(50, 2), catalog.vectors[SPACE][:ITEMS]

    def nearest(each: Vectors) -> Floats:
        found: Floats = (each @ targets.T).max(axis=1).astype(np.float64)
        return found

    rows = np.array([3, 9, 200])
    found = by(catalog).standing(nearest, vectors[rows])
    np.testing.assert_allclose(found, standing(nearest(vectors), catalog, rows), atol=1e-5)
