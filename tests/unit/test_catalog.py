from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_records import DIMENSIONS, NOW, axis
from numpy.typing import NDArray

from penchant_pipelines.catalog import POPULARITY_HALF_LIFE_DAYS, Catalog
from penchant_pipelines.catalog.crowd import Own
from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY, Action, Item
from penchant_pipelines.record.commit import Touched

DAY = MICROS_PER_DAY


def catalog() -> Catalog:
    return Catalog({1: DIMENSIONS}, InterestSettings())


def like(item_id: str, time: int = NOW, action: Action = Action.LIKE) -> list[Touched]:
    return [(item_id, 1, Evidence("s", time, axis(0), action, item_id=item_id), {})]


def popularity(found: Catalog, as_of: int = NOW) -> dict[str, float]:
    return {name: float(found.popularity([entry.row], as_of)[0]) for name, entry in found.entries.items()}


def test_texts_are_of_the_rows_that_items_have_taken_and_of_no_room_behind_them() -> None:
    found = catalog()
    for place in range(3):
        found.upsert(Item(f"{place}"), "en", {1: axis(place)})
    found.delete(["1"])

    alone = found.texts(1)
    found.listen(1)
    heard = found.texts(1)

    for vectors in (alone.vectors, alone.said, heard.vectors, heard.said):
        assert vectors.tolist() == [axis(0).tolist(), np.zeros(DIMENSIONS).tolist(), axis(2).tolist()]


def test_items_are_added_replaced_and_deleted() -> None:
    found = catalog()
    found.upsert(Item("a", create_time=5), "en", {1: axis(0)})
    found.upsert(Item("b", hidden=True), "zh", {1: axis(1)})
    found.take(like("a"))
    before = found.version
    found.upsert(Item("a", title="new", create_time=6), "en", {1: axis(2)})
    assert found.version > before
    assert len(found) == 2
    row = found.entries["a"].row
    np.testing.assert_array_equal(found.vectors[1][row], axis(2))
    assert (found.created[row], found.visible[row], found.id_at(row)) == (6, True, "a")
    assert not found.visible[found.entries["b"].row]
    assert popularity(found)["a"] == 1
    found.delete(["a"])
    found.delete(["absent"])
    assert not found.visible[row]
    assert len(found) == 1
    found.upsert(Item("c"), "en", {1: axis(3)})
    assert found.entries["c"].row == row
    assert popularity(found)["c"] == 0


def test_an_item_is_in_the_categories_that_it_has_now() -> None:
    found = catalog()
    found.upsert(Item("a", categories=("Tea", "Green Tea")), "en", {1: axis(0)})
    found.upsert(Item("b", categories=("tea",)), "en", {1: axis(1)})
    a, b = (found.entries[name].row for name in "ab")
    assert (found.of_category("TEA"), found.of_category("green tea")) == ({a, b}, {a})
    found.upsert(Item("a", categories=("Coffee",)), "en", {1: axis(0)})
    assert (found.of_category("tea"), found.of_category("green tea"), found.of_category("coffee")) == ({b}, set(), {a})
    found.delete(["a"])
    assert found.of_category("coffee") == set()
    found.upsert(Item("c", categories=("摄影",)), "zh", {1: axis(0)})
    assert found.of_category("攝影") == {found.entries["c"].row}


def test_the_place_of_an_item_that_went_holds_nothing_of_it() -> None:
    found = Catalog({1: DIMENSIONS, 2: DIMENSIONS}, InterestSettings())
    found.upsert(Item("a"), "en", {1: axis(0), 2: axis(1)})
    row = found.entries["a"].row
    found.delete(["a"])
    # The other space is being built, and lacks the new one as yet.
    found.upsert(Item("b"), "en", {1: axis(2)})
    assert found.entries["b"].row == row
    assert [found.vectors[space][row].tolist() for space in (1, 2)] == [axis(2).tolist(), [0] * DIMENSIONS]


def test_it_grows_past_its_first_size() -> None:
    found = catalog()
    for number in range(2500):
        found.upsert(Item(f"i{number}", create_time=number + 1), "en", {1: axis(number)})
    assert len(found) == 2500
    assert found.visible.sum() == 2500
    for number in (0, 1023, 1024, 2047, 2048, 2499):
        row = found.entries[f"i{number}"].row
        assert found.created[row] == number + 1
        np.testing.assert_array_equal(found.vectors[1][row], axis(number))


def test_popularity_halves_and_counts_only_what_speaks_for_an_item() -> None:
    found = catalog()
    for name in ("a", "b"):
        found.upsert(Item(name), "en", {1: axis(0)})
    half_life = int(POPULARITY_HALF_LIFE_DAYS * DAY)
    found.take(like("a", NOW - half_life))
    found.take(like("b", NOW, Action.PURCHASE))
    for action in (Action.DISLIKE, Action.HIDE, Action.UNDO):
        found.take(like("b", NOW, action))
    found.take(like("absent"))
    assert popularity(found) == pytest.approx({"a": 0.5, "b": 1.5})
    assert popularity(found, NOW + half_life) == pytest.approx({"a": 0.25, "b": 0.75})


def test_the_most_popular_come_first_then_the_newest_and_the_own_language_before_all() -> None:
    found = catalog()
    for name, language, created in (("old", "en", 1), ("new", "en", 2), ("hit", "en", 1), ("片", "zh", 3)):
        found.upsert(Item(name, create_time=created), language, {1: axis(0)})
    found.upsert(Item("hidden", hidden=True), "en", {1: axis(0)})
    found.take(like("hit"))
    found.take(like("hidden"))
    assert found.most_popular(10) == ["hit", "片", "new", "old"]
    assert found.most_popular(2, "zh") == ["片", "hit"]
    within = np.array([found.entries[name].row for name in ("old", "hidden", "片")])
    assert found.most_popular(10, "en", within) == ["old", "片"]


@given(
    told=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["en", "zh"])), min_size=1, max_size=40
    ),
    limit=st.integers(1, 45),
    language=st.sampled_from(["", "en"]),
)
@settings(max_examples=80, deadline=None)
def test_so_many_come_first_as_would_if_all_were_ordered(
    told: list[tuple[int, int, str]], limit: int, language: str
) -> None:
    found = catalog()
    for number, (fans, created, written) in enumerate(told):
        found.upsert(Item(f"i{number}", create_time=created), written, {1: axis(0)})
        for fan in range(fans):
            found.crowd.add([(fan, number, NOW, 1.0)])

    def place(item_id: str) -> tuple[bool, int, int]:
        fans, created, written = told[int(item_id[1:])]
        return bool(language) and written != language, -fans, -created

    first = found.most_popular(limit, language)
    assert len(set(first)) == len(first) == min(limit, len(told))
    assert [place(item_id) for item_id in first] == sorted(place(f"i{n}") for n in range(len(told)))[:limit]
    # Of equals it is the same whatever came first: a restart reads the catalogue in another order.
    again = catalog()
    for number in reversed(range(len(told))):
        fans, created, written = told[number]
        again.upsert(Item(f"i{number}", create_time=created), written, {1: axis(0)})
        for fan in range(fans):
            again.crowd.add([(fan, again.entries[f"i{number}"].row, NOW, 1.0)])
    assert again.most_popular(limit, language) == first


def test_an_item_keeps_its_place_in_a_shuffle_whatever_else_comes_or_goes() -> None:
    one, other = catalog(), catalog()
    for number in range(400):
        one.upsert(Item(f"i{number}"), "en", {1: axis(0)})
    for number in range(399, -1, -2):
        other.upsert(Item(f"i{number}"), "en", {1: axis(0)})
    rows = np.array([other.entries[f"i{number}"].row for number in range(1, 400, 2)])
    mine = one.shuffled(np.arange(1, 400, 2), "today")
    np.testing.assert_array_equal(mine, other.shuffled(rows, "today"))
    orders = {tuple(np.argsort(one.shuffled(np.arange(400), f"day {day}"))[:10].tolist()) for day in range(20)}
    assert len(orders) == 20
    # Each is among the first 40 as often, by and large: 100 times in 1,000 days (σ 9.5).
    draws = [np.argsort(one.shuffled(np.arange(400), f"day {day}"))[:40] for day in range(1000)]
    often = np.bincount(np.concatenate(draws), minlength=400)
    assert (abs(often - 100) < 50).all()


def said(vector: NDArray[np.float32], item_id: str = "a", rating: float | None = None, user: int = 1) -> list[Touched]:
    evidence = Evidence("p", NOW, vector, rating=rating, item_id=item_id)
    return [(item_id, user, evidence, {1: vector})]


def voice(found: Catalog, item_id: str) -> list[float]:
    return [round(float(number), 5) for number in found.voices[1].sums[found.entries[item_id].row]]


def listening(*item_ids: str) -> Catalog:
    """A catalogue that listens, with nothing in the record."""
    found = catalog()
    for item_id in item_ids:
        found.upsert(Item(item_id), "en", {1: axis(0)})
    found.listen(1)
    return found


def test_only_posts_that_speak_for_an_item_are_heard() -> None:
    found = listening("a", "b")
    found.take(said(axis(1)))
    found.take(said(axis(2), rating=-1.0))
    found.take(like("a"))
    found.take(said(axis(3), "absent"))
    assert voice(found, "a") == [1, 1, 0, 0]
    assert voice(found, "b") == [1, 0, 0, 0]


def test_who_writes_often_of_an_item_is_heard_once() -> None:
    found = listening("a", "b")
    found.take(said(axis(1)) + said(axis(2), user=2))
    found.take(said(axis(3)) * 60)
    found.take(said(axis(3), "b") * 2)
    assert voice(found, "a") == [1, 1, 1, 0]
    assert voice(found, "b") == [1, 0, 0, 1]
    found.delete(["b"])
    found.upsert(Item("in its row"), "en", {1: axis(0)})
    found.take(said(axis(3), "in its row"))
    assert voice(found, "in its row") == [1, 0, 0, 1]


def test_a_new_vector_of_an_item_keeps_what_was_said_of_it() -> None:
    found = listening("a")
    found.take(said(axis(1)))
    found.upsert(Item("a"), "en", {1: axis(2)})
    assert voice(found, "a") == [0, 1, 1, 0]
    found.embed(1, "a", axis(3))
    assert voice(found, "a") == [0, 1, 0, 1]
    found.delete(["a"])
    found.upsert(Item("b"), "en", {1: axis(0)})
    assert voice(found, "b") == [1, 0, 0, 0]


def test_voices_grow_with_the_catalogue() -> None:
    found = listening("a")
    found.take(said(axis(1)))
    for number in range(1500):
        found.upsert(Item(f"i{number}"), "en", {1: axis(number)})
    found.take(said(axis(3), "i1498"))
    assert voice(found, "a") == [1, 1, 0, 0]
    assert voice(found, "i1498") == [0, 0, 1, 1]
    assert voice(found, "i1499") == [0, 0, 0, 1]


def test_a_replay_hears_all_anew_and_leaves_the_catalogue_alone() -> None:
    found = listening("a", "b")
    found.upsert(Item("hidden", hidden=True), "en", {1: axis(3)}, ["word"])
    found.upsert(Item("a"), "en", {}, ["word"])
    found.take(like("a"))
    found.take(said(axis(1)))
    again = found.unheard(1)
    again.listen(1)
    assert again.entries == found.entries
    assert popularity(again) == {"a": 0, "b": 0, "hidden": 0}
    assert voice(again, "a") == [1, 0, 0, 0]
    np.testing.assert_array_equal(again.visible, found.visible)
    likes = again.words.alike(Own(np.array([again.entries["a"].row]), np.ones((1, 1))), again.size)[0]
    assert likes[again.entries["hidden"].row] == pytest.approx(likes[again.entries["a"].row])
    assert likes.any()
    for item_id, user, evidence, _ in [*like("a"), *said(axis(1))]:
        again.witness(user, evidence, 1)
        assert item_id == "a"
    again.witness(7, Evidence("none", NOW, axis(2)), 1)
    assert popularity(again) == popularity(found)
    assert voice(again, "a") == voice(found, "a")
    again.witness(2, Evidence("more", NOW, axis(2), Action.LIKE, item_id="b"), 1)
    assert popularity(again)["b"] == 1
    assert popularity(found)["b"] == 0
    assert len(found.crowd.own(2, NOW).rows) == 0
    # Nor does it see what becomes of the items meanwhile.
    row = found.entries["a"].row
    found.upsert(Item("a", create_time=9, hidden=True), "en", {})
    assert (again.visible[row], again.created[row]) == (True, 0)


def test_a_spread_is_even_visible_and_never_stale() -> None:
    found = catalog()
    for number in range(100):
        found.upsert(Item(f"i{number:02}", hidden=number % 2 == 1), "en", {1: axis(number)})
    assert found.spread(50).tolist() == list(range(0, 100, 2))
    assert found.spread(1000).tolist() == list(range(0, 100, 2))
    few = found.spread(5)
    assert (few[0], few[-1], len(few)) == (0, 98, 5)
    assert np.ptp(np.diff(few)) <= 2
    found.delete(["i00"])
    assert found.spread(5)[0] == 2
    assert not len(catalog().spread(5))
