"""The crowd: sums and sparse products against the same worked out densely."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from penchant_pipelines.catalog.crowd import NEIGHBOURS, Crowd, Texts
from penchant_pipelines.catalog.ease import RIDGE, TEXT_WEIGHT, Ease
from penchant_pipelines.catalog.popularity import HALF_LIVES_DAYS
from penchant_pipelines.interests import horizons
from penchant_pipelines.interests.horizons import HORIZONS
from penchant_pipelines.model import MICROS_PER_DAY

DAY = MICROS_PER_DAY
NOTHING = np.zeros((0, 0), dtype=np.float32)
PLAIN = Texts(0, NOTHING, NOTHING)
"""Nothing is known of what items are."""
USERS, ITEMS = 6, 8
LIVES = np.array(HALF_LIVES_DAYS)
Floats = NDArray[np.float64]
law = settings(max_examples=100, deadline=None)


class Favour(NamedTuple):
    user: int
    row: int
    time: int
    mass: float


favour = st.builds(
    Favour,
    st.integers(1, USERS),
    st.integers(0, ITEMS - 1),
    # Within a week, or decades apart; late ones among them, as they come in no order.
    st.integers(0, 7 * DAY) | st.integers(0, 30_000 * DAY),
    st.floats(0.05, 3),
)
favours = st.lists(favour, max_size=30)


def liked(user: int, row: int, time: int) -> Favour:
    return Favour(user, row, time, 1.0)


def crowd(told: Sequence[Favour]) -> Crowd:
    found = Crowd()
    for one in told:
        found.add([one])
    return found


def newest(told: Sequence[Favour]) -> int:
    return max((one.time for one in told), default=0)


def faded(told: Sequence[Favour], as_of: int, size: int = ITEMS) -> Floats:
    """Popularity as a plain sum over users, each by the greatest favour and the latest time: (4, size)."""
    found = np.zeros((len(LIVES), size))
    for user, row in sorted({(one.user, one.row) for one in told}):
        theirs = [one for one in told if (one.user, one.row) == (user, row)]
        mass, time = max(one.mass for one in theirs), max(one.time for one in theirs)
        found[:, row] += mass * np.exp2(-(as_of - time) / DAY / LIVES)
    return found


def latest(told: Sequence[Favour], user: int) -> dict[int, int]:
    """Time of the user's latest favour by row, in order of row."""
    found: dict[int, int] = {}
    for one in told:
        if one.user == user:
            found[one.row] = max(found.get(one.row, one.time), one.time)
    return dict(sorted(found.items()))


def binary(told: Sequence[Favour]) -> Floats:
    """Who favoured what: (users, items)."""
    found = np.zeros((USERS + 1, ITEMS))
    for one in told:
        found[one.user, one.row] = 1.0
    return found


def cosines(rows: Floats, others: Floats) -> Floats:
    lengths = np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(others, axis=1))
    found: Floats = rows @ others.T / np.maximum(lengths, 1e-12)
    return found


@law
@given(favours, st.integers(0, 4000 * DAY))
def test_popularity_is_the_plain_sum_whatever_the_order_of_arrival(told: list[Favour], later: int) -> None:
    as_of = newest(told) + later
    found = crowd(told).popularity.of_all(ITEMS, as_of)
    np.testing.assert_allclose(found, faded(told, as_of), rtol=1e-9, atol=1e-280)


@law
@given(favours, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 4000 * DAY))
def test_it_is_the_same_whether_favours_come_alone_or_at_once(told: list[Favour], cuts: list[int], later: int) -> None:
    found = Crowd()
    edges = sorted([0, len(told), *(min(cut, len(told)) for cut in cuts)])
    for begin, end in itertools.pairwise(edges):
        found.add(told[begin:end])
    as_of = newest(told) + later
    np.testing.assert_allclose(found.popularity.of_all(ITEMS, as_of), faded(told, as_of), rtol=1e-9, atol=1e-280)
    for user in range(1, USERS + 1):
        one, other = found.own(user, as_of), crowd(told).own(user, as_of)
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.masses, other.masses)


def test_a_crowd_is_many_people_and_not_one_who_comes_often() -> None:
    often = [Favour(1, 0, DAY + minute, 0.2) for minute in range(60)]
    many = [Favour(user, 1, DAY, 1.0) for user in range(2, 14)]
    found = crowd([*often, *many]).popularity.of_all(2, DAY)[-1]
    np.testing.assert_allclose(found, [0.2, 12.0], rtol=1e-6)


def test_popularity_holds_from_decade_to_decade() -> None:
    told = [liked(1, day % 3, day * DAY) for day in range(0, 20_000, 50)]
    found = crowd(told)
    late = liked(2, 1, 19_000 * DAY)
    found.add([late])
    as_of = 20_000 * DAY
    np.testing.assert_allclose(found.popularity.of_all(ITEMS, as_of), faded([*told, late], as_of), rtol=1e-9)


def test_a_time_before_all_favours_asks_for_no_number_beyond_all_bounds() -> None:
    found = crowd([liked(1, 0, 30_000 * DAY)]).popularity.of_all(2, 0)
    assert np.isfinite(found).all()
    assert (found[:, 0] > 0).all()
    assert not found[:, 1].any()


@law
@given(favours, st.sets(st.integers(0, ITEMS + 3)), favours)
def test_clearing_forgets_exactly_these_items(told: list[Favour], gone: set[int], more: list[Favour]) -> None:
    found = crowd(told)
    found.own(1, newest(told))  # what is read before must not be remembered
    found.clear(np.array(sorted(gone), dtype=np.int64))
    kept = [one for one in told if one.row not in gone]
    anew = crowd(kept)
    found.finish(found.begin(PLAIN)())
    for user in range(1, USERS + 1):
        likes, expected = (it.alike_items(it.own(user, newest(told)), ITEMS, PLAIN) for it in (found, anew))
        np.testing.assert_allclose(likes, expected, rtol=1e-9, atol=1e-12)
    for one in more:
        found.add([one])
    kept += more
    as_of = newest([*told, *more])
    assert len(found) == len(kept)
    np.testing.assert_allclose(found.popularity.of_all(ITEMS, as_of), faded(kept, as_of), rtol=1e-9, atol=1e-280)
    for user in range(1, USERS + 1):
        assert found.own(user, as_of).rows.tolist() == list(latest(kept, user))


@law
@given(favours, favours, st.sets(st.integers(0, ITEMS + 3)), favours, st.booleans())
def test_what_is_forgotten_while_it_is_gathered_does_not_come_back(
    told: list[Favour], before: list[Favour], gone: set[int], more: list[Favour], known: bool
) -> None:
    found = crowd(told)
    if known:
        found.finish(found.begin(PLAIN)())
    for one in before:
        found.add([one])
    gather = found.begin(PLAIN)
    found.clear(np.array(sorted(gone), dtype=np.int64), erased=True)
    kept = [one for one in (*told, *before) if one.row not in gone]
    if known and kept:
        # Meanwhile one is answered from what there was, and of what was forgotten nothing is told.
        left = sorted({one.row for one in kept})
        own = found.own(1, newest(told))
        assert own.rows.tolist() == list(latest(kept, 1))
        others = np.delete(np.arange(ITEMS), left)
        assert not found.alike_items(own, ITEMS, PLAIN)[:, others].any()
        assert not found.alike_users(1, own, ITEMS, newest(told))[:, others].any()
    for one in more:
        found.add([one])
    found.finish(gather())
    kept += more
    as_of = newest([*told, *before, *more])
    anew = crowd(kept)
    for user in range(1, USERS + 1):
        own, expected = found.own(user, as_of), anew.own(user, as_of)
        assert own.rows.tolist() == expected.rows.tolist()
        if not more:
            like, alike = (it.alike_users(user, expected, ITEMS, as_of) for it in (found, anew))
            np.testing.assert_allclose(like, alike, rtol=1e-9, atol=1e-12)
    # Not later, when enough else has come in.
    assert found.is_due(0)
    found.finish(found.begin(PLAIN)())
    own = found.own(1, as_of)
    like, alike = (it.alike_items(own, ITEMS, PLAIN) for it in (found, anew))
    np.testing.assert_allclose(like, alike, rtol=1e-9, atol=1e-12)


def test_what_is_left_is_answered_from_at_once_when_an_item_is_forgotten() -> None:
    found = crowd([liked(user, row, DAY) for user in range(40) for row in range(3)])
    found.finish(found.begin(PLAIN)())
    found.clear(np.array([0]))
    assert (found.is_ready(0), found.is_due(0)) == (True, True)
    found.begin(PLAIN)  # somebody gathers it anew
    own = found.own(1, DAY)
    assert own.rows.tolist() == [1, 2]
    likes = found.alike_items(own, 3, PLAIN)[-1]
    assert likes[0] == 0
    assert (likes[1:] > 0).all()


@law
@given(favours, favours, st.sets(st.integers(0, ITEMS - 1)), st.data())
def test_counting_anew_while_it_is_gathered_or_not_leaves_what_stands(
    told: list[Favour], before: list[Favour], again: set[int], data: st.DataObject
) -> None:
    found = crowd(told)
    gather = found.begin(PLAIN)
    for one in before:
        found.add([one])
    counted = [one for one in (*told, *before) if one.row in again]
    standing = [one for one in counted if data.draw(st.booleans())]
    found.recount(np.array(sorted(again), dtype=np.int64), standing)
    kept = [*(one for one in (*told, *before) if one.row not in again), *standing]
    as_of = newest([*told, *before])
    for gathered in (None, gather()):
        np.testing.assert_allclose(found.popularity.of_all(ITEMS, as_of), faded(kept, as_of), rtol=1e-9, atol=1e-280)
        for user in range(1, USERS + 1):
            assert found.own(user, as_of).rows.tolist() == list(latest(kept, user))
        found.finish(gathered)
        gather = found.begin(PLAIN)
    assert len(found) == len(kept)


def test_what_is_taken_back_is_unlearnt_as_what_comes_in_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[int] = []

    class Counted(Ease):
        def __init__(self, *of: Any) -> None:
            learnt.append(1)
            super().__init__(*of)

    monkeypatch.setattr("penchant_pipelines.catalog.crowd.Ease", Counted)
    told = [liked(user, row, DAY) for user in range(100) for row in range(3)]
    found = crowd(told)

    def keep_up() -> int:
        learnt.clear()
        if found.is_due(0):
            found.finish(found.begin(PLAIN)())
        return len(learnt)

    def take_back() -> int:
        mine.pop()
        found.recount(np.array([0]), mine)
        return keep_up()

    mine = [one for one in told if one.row == 0]
    assert keep_up() == 1
    own = found.own(0, DAY)
    before = found.alike_items(own, 3, PLAIN)
    assert [take_back() for _ in range(20)] == [0] * 20
    # What goes with it is as it was learnt.
    np.testing.assert_array_equal(found.alike_items(own, 3, PLAIN), before)
    # Half as many again were given: nothing is made up for by the opposite.
    found.add([liked(200 + number, 1, DAY) for number in range(10)])
    assert keep_up() == 0
    assert sum(take_back() for _ in range(20)) == 1
    assert (found.alike_items(own, 3, PLAIN) != before).any()
    # What was erased is forgotten at once, be it that its user had taken it back.
    found.clear(np.array([0]), erased=True)
    found.recount(np.array([0]), mine)
    assert not found.alike_items(own, 3, PLAIN)[:, 0].any()
    assert keep_up() == 1


def test_an_item_that_goes_is_told_no_more_and_learnt_from_until_that_is_due() -> None:
    found = crowd([liked(user, row, DAY) for user in range(20) for row in range(100)])
    gather = found.begin(PLAIN)
    found.clear(np.array([0]))
    found.finish(gather())
    found.clear(np.array([1]))
    assert not found.is_due(0)
    likes = found.alike_items(found.own(1, DAY), 3, PLAIN)[-1]
    assert (likes[:2].tolist(), likes[2] > 0) == ([0, 0], True)
    found.clear(np.array([2, 3]))
    assert found.is_due(0)


@law
@given(favours, favours, st.integers(-20 * DAY, 20 * DAY))
def test_what_a_user_favoured_is_told_once_by_the_latest_time_pending_or_not(
    told: list[Favour], pending: list[Favour], later: int
) -> None:
    found = crowd(told)
    as_of = max(newest([*told, *pending]) + later, 0)
    found.own(1, as_of)
    for one in pending:
        found.add([one])
    for user in range(USERS + 2):
        expected = latest([*told, *pending], user)
        own = found.own(user, as_of)
        assert own.rows.tolist() == list(expected)
        ages = np.array([max(as_of - time, 0) / DAY for time in expected.values()])
        ages -= ages.min(initial=np.inf) if len(ages) else 0.0
        assert own.masses.shape == (len(HORIZONS), len(expected))
        newer = np.array([sum(other > time for other in expected.values()) for time in expected.values()], dtype=float)
        np.testing.assert_allclose(own.masses, horizons.faded(newer, ages), rtol=1e-9)


@law
@given(favours, st.integers(1, USERS), st.integers(0, 500 * DAY))
def test_what_goes_with_a_users_items_follows_from_who_favoured_both(told: list[Favour], user: int, later: int) -> None:
    found = crowd(told)
    own = found.own(user, newest(told) + later)
    held = binary(told)
    inverse = np.linalg.inv(held.T @ held + RIDGE * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    expected = own.masses @ weights[own.rows]
    np.testing.assert_allclose(found.alike_items(own, ITEMS, PLAIN), expected, rtol=1e-6, atol=1e-12)


@law
@given(favours, st.integers(1, USERS), st.integers(0, ITEMS), st.integers(0, 2**32 - 1))
def test_a_dimension_of_the_items_vectors_is_one_more_user(
    told: list[Favour], user: int, lacking: int, dice: int
) -> None:
    held = binary(told)
    vectors = np.random.default_rng(dice).normal(0.3, 1.0, (ITEMS, 3)).astype(np.float32)
    vectors[:lacking] = 0.0
    apart = vectors[lacking:] - vectors[lacking:].sum(axis=0) / max(ITEMS - lacking, 1)
    texts = np.zeros((ITEMS, 3))
    texts[lacking:] = TEXT_WEIGHT * apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-3)
    everybody = np.vstack([held, texts.T])
    inverse = np.linalg.inv(everybody.T @ everybody + RIDGE * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    found = crowd(told)
    own = found.own(user, newest(told))
    alike = found.alike_items(own, ITEMS, Texts(1, vectors, vectors))
    np.testing.assert_allclose(alike, own.masses @ weights[own.rows], rtol=1e-4, atol=1e-7)
    # Another space has its own.
    np.testing.assert_allclose(
        found.alike_items(own, ITEMS, PLAIN), crowd(told).alike_items(own, ITEMS, PLAIN), rtol=1e-9, atol=1e-12
    )


def test_what_nobody_has_touched_goes_with_what_it_resembles() -> None:
    found = crowd([liked(user, row, DAY) for user in range(1, 30) for row in (0, 1)])
    vectors = np.array([[1, 0], [0.6, 0.8], [1, 0.1], [-1, 0.2], [0, 0]], dtype=np.float32)
    likes = found.alike_items(found.own(1, DAY).under(np.array([0])), 5, Texts(1, vectors, vectors))[0]
    assert likes[2] > 0 > likes[3]
    assert likes[4] == 0


@law
@given(favours, st.integers(1, USERS), st.integers(0, 2**32 - 1))
def test_an_item_that_came_later_scores_what_it_would_had_it_been_there(
    told: list[Favour], user: int, dice: int
) -> None:
    vectors = np.random.default_rng(dice).normal(0.3, 1.0, (ITEMS + 1, 3)).astype(np.float32)
    # The mean stays where it was.
    vectors[ITEMS] += 2.0
    apart = vectors - vectors[:ITEMS].mean(axis=0)
    texts = TEXT_WEIGHT * apart / np.linalg.norm(apart, axis=1, keepdims=True)
    everybody = np.vstack([np.pad(binary(told), ((0, 0), (0, 1))), texts.T])
    inverse = np.linalg.inv(everybody.T @ everybody + RIDGE * np.eye(ITEMS + 1))
    expected = -inverse[:ITEMS, ITEMS] / inverse[ITEMS, ITEMS]
    ease = Ease(sparse.csr_array(binary(told)), vectors[:ITEMS])
    own = np.zeros((1, ITEMS))
    own[0, crowd(told).own(user, newest(told)).rows] = 1.0
    found = ease.scores_of_others(own, np.vstack([vectors[ITEMS:], np.zeros((1, 3), np.float32)]), vectors[:ITEMS])
    np.testing.assert_allclose(found, [[own[0] @ expected, 0.0]], rtol=1e-4, atol=1e-7)


def test_items_that_came_after_it_was_learnt_are_told_of_by_their_vectors() -> None:
    found = crowd([liked(1, 0, DAY), *(liked(user, row, DAY) for user in range(2, 30) for row in (0, 1))])
    vectors = np.zeros((1026, 2), dtype=np.float32)
    vectors[[0, 1]] = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    own, texts = found.own(1, DAY), Texts(1, vectors, vectors)
    assert not found.alike_items(own, 1026, texts)[:, 2:].any()
    # Within the rows that there was room for, and beyond.
    later = [2, 3, 1024, 1025]
    vectors[later] = np.array([[1, 0.1], [-1, 0.2]] * 2, dtype=np.float32)
    likes = found.alike_items(own, 1026, texts)
    assert (likes[:, [2, 1024]] > 0).all()
    assert (likes[:, [3, 1025]] < 0).all()
    np.testing.assert_allclose(found.alike_strangers(own, vectors[later], texts), likes[:, later])


def test_an_item_that_went_goes_with_nothing_and_its_row_is_free_for_another() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    ease = Ease(sparse.csr_array(np.array([[1.0, 1, 0], [0, 1, 1]])), vectors)
    own = np.array([[1.0, 1.0, 0.0]])
    before = ease.scores(own, vectors)
    left = ease.without(np.array([0, 7]))  # the other came after it was learnt
    assert left.scores(own, vectors)[0, 0] == 0
    assert left.scores(np.array([[1.0, 0.0, 0.0]]), vectors).tolist() == [[0, 0, 0]]
    assert (left.strange(vectors).tolist(), ease.strange(vectors).tolist()) == ([0], [])
    assert ease.scores(own, vectors).tolist() == before.tolist()


def test_it_is_the_same_in_however_many_parts_it_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(7)
    favours = sparse.csr_array((dice.random((20, ITEMS)) < 0.4).astype(np.float64))
    vectors = dice.normal(0.3, 1.0, (ITEMS, 3)).astype(np.float32)
    own = np.eye(ITEMS)
    whole = Ease(favours, vectors).scores(own, vectors)
    monkeypatch.setattr("penchant_pipelines.catalog.ease._CHUNK", 3)
    np.testing.assert_allclose(Ease(favours, vectors).scores(own, vectors), whole, rtol=1e-5, atol=1e-9)


def test_those_who_favoured_most_are_learnt_from() -> None:
    favours = sparse.csr_array(np.array([[1.0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 0]]))
    likes = Ease(favours, most_users=2).scores(np.array([[1.0, 0, 0, 0]]))[0]
    assert likes[1] > 0
    assert likes[3] == 0


@law
@given(favours, st.lists(st.integers(0, 29), max_size=5), st.integers(1, USERS), st.integers(0, 500 * DAY))
def test_similar_people_favour_alike(told: list[Favour], again: list[int], user: int, later: int) -> None:
    found = crowd(told)
    found.own(user, 0)
    # Whatever is done once more counts at once, and no more than once.
    repeated = [told[place]._replace(time=newest(told)) for place in again if place < len(told)]
    found.add(repeated)
    told = [*told, *repeated]
    as_of = newest(told) + later
    held = binary(told)
    likeness = cosines(held, held)[user]
    likeness[user] = 0.0
    expected = np.zeros((len(LIVES), ITEMS))
    for other in range(1, USERS + 1):
        for row, time in latest(told, other).items():
            expected[:, row] += likeness[other] * np.exp2(-(as_of - time) / DAY / LIVES)
    own = found.own(user, as_of)
    np.testing.assert_allclose(found.alike_users(user, own, ITEMS, as_of), expected, rtol=1e-9, atol=1e-12)


def test_only_the_most_similar_people_are_asked() -> None:
    told = [liked(0, 0, DAY)]
    told += [liked(user, row, DAY) for user in range(1, 121) for row in (0, 1)]
    told += [liked(user, row, DAY) for user in range(121, 161) for row in (0, 2, 3, 4)]
    found = crowd(told)
    ever = found.alike_users(0, found.own(0, DAY), 5, DAY)[-1]
    np.testing.assert_allclose(ever, [NEIGHBOURS / np.sqrt(2)] * 2 + [0] * 3)


def test_a_users_own_favours_count_at_once() -> None:
    found = crowd([liked(user, row, DAY) for user in (1, 2) for row in (0, 1)])
    assert not len(found.own(3, DAY).rows)  # all that is told so far is in the matrix now
    found.add([Favour(3, 0, 2 * DAY, 1.0)])
    own = found.own(3, 2 * DAY)
    assert found.alike_items(own, 3, PLAIN)[-1, 1] > 0
    np.testing.assert_allclose(found.alike_users(3, own, 3, DAY)[-1], [np.sqrt(2)] * 2 + [0])


def test_what_similar_people_favour_counts_at_once() -> None:
    found = crowd([liked(user, row, DAY) for user in (1, 2) for row in (0, 1)])
    own = found.own(1, DAY)
    found.add([Favour(2, 2, 2 * DAY, 1.0), Favour(3, 3, 2 * DAY, 1.0)])
    np.testing.assert_allclose(found.alike_users(1, own, 4, 2 * DAY)[-1], [1, 1, 1, 0])
    fresh = found.alike_users(1, own, 4, 9 * DAY)[0]
    assert fresh[2] == pytest.approx(0.5)


def test_many_favours_are_taken_into_the_matrix_by_themselves() -> None:
    found = crowd([liked(1, 0, DAY)])
    found.own(1, DAY)
    for user in range(2, 60):
        for row in (0, 1):
            found.add([Favour(user, row, DAY, 1.0)])
    assert found.alike_items(found.own(1, DAY), 2, PLAIN)[-1, 1] > 0
    assert found.alike_users(1, found.own(1, DAY), 2, DAY)[-1, 1] > 0


@pytest.mark.parametrize("row", [1023, 1024, 5000])
def test_rows_beyond_the_first_arrays(row: int) -> None:
    found = crowd([liked(user, 0, DAY) for user in (1, 2)])
    found.own(1, DAY)
    found.add([Favour(1, row, 2 * DAY, 2.0)])
    own = found.own(1, 2 * DAY)
    assert own.rows.tolist() == [0, row]
    assert found.alike_items(own, row + 10, PLAIN).shape == (len(HORIZONS), row + 10)
    assert found.alike_users(1, own, row + 10, 2 * DAY)[-1, 0] > 0
    np.testing.assert_allclose(found.popularity.of_all(row + 10, 2 * DAY)[-1, [0, row]], [2, 2])
    assert found.popularity.of_all(1, 2 * DAY).shape == (len(LIVES), 1)
    found.clear(np.array([row, 10 * row]))
    assert found.own(1, 2 * DAY).rows.tolist() == [0]


def test_more_favours_than_the_first_arrays_hold() -> None:
    told = [liked(number % 50, number % 7, number * DAY) for number in range(3000)]
    found = crowd(told)
    assert len(found) == 3000
    np.testing.assert_allclose(found.popularity.of_all(7, 3000 * DAY), faded(told, 3000 * DAY, 7), rtol=1e-9)
    assert found.own(8, 3000 * DAY).rows.tolist() == list(latest(told, 8))


def test_nobody_has_favoured_anything() -> None:
    found = Crowd()
    own = found.own(1, DAY)
    assert own.rows.shape == (0,)
    assert own.masses.shape == (len(HORIZONS), 0)
    for answer in (
        found.popularity.of_all(3, DAY),
        found.alike_users(1, own, 3, DAY),
        found.alike_items(own, 3, PLAIN),
    ):
        assert answer.shape[1] == 3
        assert not answer.any()


def test_a_user_without_favours_is_told_nothing() -> None:
    found = crowd([liked(1, 0, DAY), liked(1, 1, DAY)])
    own = found.own(9, DAY)
    assert not len(own.rows)
    assert not found.alike_items(own, 2, PLAIN).any()
    assert not found.alike_strangers(own, np.ones((2, 2), np.float32), PLAIN).any()
    assert not found.alike_users(9, own, 2, DAY).any()
