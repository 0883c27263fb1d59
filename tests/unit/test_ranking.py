from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.interests import Calibration, InterestView, ProfileView, Trend
from penchant_pipelines.interests.drift import DriftReport
from penchant_pipelines.model import MICROS_PER_DAY, Steering
from penchant_pipelines.recommend.ranking import (
    LATEST_FADE,
    Scored,
    Taste,
    Vectors,
    by_place,
    diversify,
    is_muted,
    quotas,
    score,
)
from penchant_pipelines.recommend.settings import RecommendSettings

DIMENSIONS = 4
NOW = 20_000 * MICROS_PER_DAY
law = settings(max_examples=60, deadline=None)


def axis(index: int) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.eye(DIMENSIONS, dtype=np.float32)[index]
    return row


def towards(first: int, second: int, cosine: float) -> NDArray[np.float32]:
    row: NDArray[np.float32] = (cosine * axis(first) + np.sqrt(1 - cosine**2) * axis(second)).astype(np.float32)
    return row


def interest(index: int, weight: float, sign: int = 1, muted: bool = False, signals: int = 1) -> InterestView:
    mass = 0.0 if muted else abs(weight)
    steering = Steering(muted=muted)
    against = 1.0 if muted else mass if sign < 0 else 0.0
    return InterestView(
        f"i{index}",
        weight,
        0.5,
        Trend.STEADY,
        signals,
        0,
        0,
        steering,
        axis(index),
        {},
        mass=mass,
        sign=sign,
        against=against,
    )


def taste(
    *interests: InterestView,
    support: float = 1e9,
    fresh: NDArray[np.float32] | None = None,
    trust: float = 0.0,
    ahead: Vectors | None = None,
    latest: list[tuple[NDArray[np.float32], float]] | None = None,
) -> Taste:
    """`latest`: texts, newest first, each with its mass."""
    report = DriftReport(trust == 1, 0.0, None, True, 0, trust)
    late = (np.stack([text for text, _ in latest]), np.array([mass for _, mass in latest])) if latest else None
    return Taste.of(ProfileView(NOW, interests, report, fresh, support, (), latest=late), DIMENSIONS, ahead)


STRANGER = Taste.of(None, DIMENSIONS)


def rate(
    whose: Taste,
    vectors: list[NDArray[np.float32]],
    query: NDArray[np.float32] | None = None,
    ages: list[float] | None = None,
    popularity: list[float] | None = None,
    named: list[list[float]] | None = None,
    **changes: Any,
) -> Scored:
    """Score items; ages in days. Recency, popularity and words count nothing unless given."""
    created = [0] * len(vectors) if ages is None else [NOW - int(age * MICROS_PER_DAY) for age in ages]
    crowd = np.zeros(len(vectors)) if popularity is None else np.array(popularity)
    rules = RecommendSettings(**changes)
    said = None if named is None else np.array(named)
    return score(whose, np.stack(vectors), query, np.array(created), crowd, NOW, rules, said)


def test_one_interest_scores_by_its_cosine() -> None:
    found = rate(taste(interest(0, 1.0)), [axis(0), towards(0, 1, 0.5), axis(1), -axis(0)])
    np.testing.assert_allclose(found.scores, [1, 0.5, 0, -1], atol=1e-6)
    assert found.interest.tolist() == [0, 0, 0, 0]


def test_what_has_an_interests_own_words_is_nearer_and_told_as_that_ones() -> None:
    whose, items = taste(interest(0, 0.5), interest(1, 0.5)), [axis(0), axis(0), axis(2)]
    plain = rate(whose, items)
    found = rate(whose, items, named=[[0.0, 0.0, 0.0], [0.0, 0.5, 1.0]], words_weight=0.4)
    np.testing.assert_allclose(found.scores - plain.scores, [0, 0.2, 0.4], atol=1e-6)
    # A word in common is no proof where another interest is plainly nearer.
    assert found.interest.tolist() == [0, 0, 1]
    assert rate(whose, items, named=[[1.0] * 3] * 2, words_weight=0.0).scores.tolist() == plain.scores.tolist()


def test_query_words_have_a_share_in_what_speaks_for_an_item() -> None:
    items = [axis(0), axis(1), towards(0, 1, 0.6), -axis(0)]
    found = rate(taste(interest(0, 1.0)), items, query=axis(1), query_weight=0.6)
    np.testing.assert_allclose(found.own, [1, 0, 0.24 / (0.24 + 0.48), 0], atol=1e-6)
    assert rate(taste(interest(0, 1.0)), items).own.tolist() == [1, 1, 1, 1]


def test_two_interests_by_hand() -> None:
    found = rate(taste(interest(0, 0.75), interest(1, 0.25)), [axis(0), axis(1), axis(2)], temperature=0.5)
    by_hand = [
        0.5 * np.log(0.75 * np.exp(2) + 0.25),
        0.5 * np.log(0.75 + 0.25 * np.exp(2)),
        0.0,
    ]
    np.testing.assert_allclose(found.scores, by_hand, atol=1e-6)
    assert found.interest.tolist()[:2] == [0, 1]


@law
@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=3),
    st.integers(0, 2),
    st.floats(-0.9, 0.8),
    st.floats(0.01, 0.1),
)
def test_nearer_to_an_interest_is_never_worse(weights: list[float], at: int, cosine: float, step: float) -> None:
    whose = taste(*(interest(index, weight) for index, weight in enumerate(weights)))
    at = at % len(weights)
    # The rest of the vector lies along the last axis, which no interest has.
    found = rate(whose, [towards(at, 3, cosine), towards(at, 3, cosine + step)])
    assert found.scores[1] >= found.scores[0] - 1e-6
    assert found.scores[1] > found.scores[0] or cosine < 0


def test_what_is_near_a_dislike_or_a_mute_loses() -> None:
    items = [towards(0, 1, 0.8), towards(0, 2, 0.8), towards(0, 3, 0.8)]
    plain = rate(taste(interest(0, 1.0)), items).scores
    wary = rate(taste(interest(0, 1.0), interest(1, -0.5, sign=-1), interest(2, 0.0, muted=True)), items).scores
    np.testing.assert_allclose(plain - wary, [0.5 * 0.5 * 0.6, 0.5 * 0.6, 0], atol=1e-6)
    away = rate(taste(interest(0, 1.0), interest(1, -0.5, sign=-1)), [-axis(1)]).scores
    assert away == pytest.approx(rate(taste(interest(0, 1.0)), [-axis(1)]).scores)


def test_a_new_item_gets_a_bonus_that_halves() -> None:
    items = [axis(0)] * 3
    found = rate(taste(interest(0, 1.0)), items, ages=[0, 30, 60], recency_weight=0.1).scores - 1
    np.testing.assert_allclose(found, [0.1, 0.05, 0.025], atol=1e-6)
    unknown = rate(taste(interest(0, 1.0)), items[:1]).scores
    assert unknown == pytest.approx([1])
    announced = rate(taste(interest(0, 1.0)), items[:1], ages=[-400]).scores
    assert announced == pytest.approx([1.1])


def test_strangers_get_what_is_popular_and_the_known_what_is_theirs() -> None:
    items = [axis(0), axis(1)]
    cold = rate(STRANGER, items, popularity=[1, 100])
    assert cold.scores[1] > cold.scores[0]
    assert cold.interest.tolist() == [-1, -1]
    warm = rate(taste(interest(0, 1.0)), items, popularity=[1, 100])
    assert warm.scores[0] > warm.scores[1]
    pull = [
        np.diff(rate(taste(interest(2, 1.0), support=support), items, popularity=[1, 100]).scores)[0]
        for support in (0.0, 3.0, 300.0)
    ]
    assert pull == sorted(pull, reverse=True)
    assert pull[0] > 0 > pull[2]


def test_of_whom_little_is_known_their_taste_comes_first_and_then_what_is_popular() -> None:
    found = rate(taste(interest(0, 1.0), support=0.0), [axis(0), axis(1)], popularity=[0, 100])
    assert found.scores == pytest.approx([1, 0.2], abs=1e-6)


def test_fresh_taste_leads_the_more_the_likelier_drift_is() -> None:
    items = [axis(0), axis(1)]
    scores = [
        rate(taste(interest(0, 1.0), fresh=axis(1), trust=trust), items, drift_fresh_weight=0.9).scores
        for trust in (0.0, 0.5, 1.0)
    ]
    np.testing.assert_allclose(scores, [[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]], atol=1e-6)


def test_the_latest_texts_stand_beside_the_interests() -> None:
    items = [axis(0), axis(1), axis(2), axis(3)]
    latest = [(axis(1), 2.0), (axis(2), 1.0), (axis(0), 0.1)]
    found = rate(taste(interest(0, 1.0), interest(3, 1.0), latest=latest), items, temperature=0.5)
    e = np.exp(2)
    # A text counts as much as all interests together, the one before it less, and a glance little.
    shares = {0: 0.5 * e + 0.5, 3: 0.5 * e + 0.5, 1: 1.0, 2: 1.0}
    late = {
        0: 1 + LATEST_FADE + 0.1 * LATEST_FADE**2 * e,
        1: e + LATEST_FADE + 0.1 * LATEST_FADE**2,
        2: 1 + LATEST_FADE * e + 0.1 * LATEST_FADE**2,
        3: 1 + LATEST_FADE + 0.1 * LATEST_FADE**2,
    }
    by_hand = [0.5 * np.log(shares[index] + late[index]) for index in range(4)]
    np.testing.assert_allclose(found.scores, by_hand, atol=1e-6)


def test_a_first_text_on_something_new_brings_some_of_it() -> None:
    old = [towards(0, 3, cosine) for cosine in (0.8, 0.75, 0.7)]
    new = [towards(1, 3, cosine) for cosine in (0.8, 0.75, 0.7)]
    interests = interest(0, 0.95), interest(1, 0.05)
    before, after = (
        rate(taste(*interests, fresh=axis(0), latest=[(axis(of), 1.0) for of in order]), old + new)
        for order in ([0, 0, 0], [1, 0, 0])
    )
    assert set(np.argsort(-before.scores)[:3].tolist()) == {0, 1, 2}
    assert set(np.argsort(-after.scores)[:4].tolist()) > {0, 3}
    # It is told as what the text is about, however little that weighs so far.
    assert after.interest.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("word", [Steering(bias=1), Steering(bias=-1), Steering(pinned=True)])
def test_what_the_user_said_outweighs_drift(word: Steering) -> None:
    steered = replace(interest(0, 0.5), steering=word)
    items = [axis(0), axis(1), axis(2)]
    late = [(axis(2), 1.0)]
    drifting = rate(taste(steered, interest(1, 0.5), fresh=axis(2), trust=1.0, latest=late), items)
    calm = rate(taste(steered, interest(1, 0.5), fresh=axis(2)), items)
    np.testing.assert_array_equal(drifting.scores, calm.scores)
    unspoken = rate(taste(interest(0, 0.5), interest(1, 0.5), fresh=axis(2), trust=1.0), items)
    assert np.argmax(unspoken.scores) == 2
    # What is muted is kept away as it is: the rest may follow the change.
    muted = interest(3, 0.5, muted=True)
    assert taste(muted, interest(1, 1.0), fresh=axis(2), trust=1.0).trust == 1.0


def test_what_is_expected_next_shares_the_score_by_the_nearest() -> None:
    items = [axis(0), axis(1), axis(2), axis(3)]
    ahead = np.stack([axis(1), axis(2)])
    found = rate(taste(interest(0, 1.0), ahead=ahead), items, sequence_share=0.25)
    np.testing.assert_allclose(found.scores, [0.75, 0.25, 0.25, 0], atol=1e-6)
    assert found.interest.tolist() == [0, 0, 0, 0]
    # Who likes nothing yet gets no more of what was disliked.
    averse = taste(interest(0, -1.0, sign=-1), ahead=ahead)
    assert rate(averse, items).scores.tolist() == rate(taste(interest(0, -1.0, sign=-1)), items).scores.tolist()


def test_query_words_share_the_score() -> None:
    items = [axis(0), axis(1)]
    np.testing.assert_allclose(rate(taste(interest(0, 1.0)), items, query=axis(1)).scores, [0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(rate(STRANGER, items, query=axis(1)).scores, [0, 0.6], atol=1e-6)


def test_a_taste_splits_a_profile() -> None:
    whose = taste(interest(0, 0.6), interest(1, 0.2), interest(2, 0.0, muted=True), interest(3, -0.4, sign=-1))
    assert whose.ids == ("i0", "i1")
    np.testing.assert_allclose(whose.shares, [0.75, 0.25])
    assert len(whose.avoided) == 2
    assert len(whose.muted) == 1
    assert not whose.is_empty
    assert STRANGER.is_empty
    # What the user asked for in words counts as evidence at once.
    asked = taste(interest(0, 1.0, signals=0), support=0.0)
    assert asked.support == 1.0
    for word, more in ((Steering(pinned=True), True), (Steering(bias=0.2), True), (Steering(bias=-0.2), False)):
        assert taste(replace(interest(0, 1.0), steering=word)).steered is more


def test_only_items_of_a_muted_interest_are_muted() -> None:
    whose = taste(interest(0, 1.0), interest(1, 0.0, muted=True))
    items = np.stack([axis(1), towards(1, 2, 0.7), towards(1, 2, 0.4), towards(0, 1, 0.75), axis(0)])
    level = Calibration(0.5, np.zeros(len(axis(0)), np.float32))
    assert is_muted(whose, items, level).tolist() == [True, True, False, False, False]
    assert not is_muted(taste(interest(0, 1.0)), items, level).any()
    alone = taste(interest(1, 0.0, muted=True))
    assert is_muted(alone, items, level).tolist() == [True, True, False, True, False]


def test_of_a_muted_topic_all_that_is_plainly_about_it_is_muted() -> None:
    level = Calibration(0.2, np.zeros(DIMENSIONS, np.float32))
    items = np.stack([towards(0, 1, 0.9), towards(0, 1, 0.97), axis(0), axis(1)])
    assert [round(float(item @ axis(1)), 2) for item in items] == [0.44, 0.24, 0, 1]
    written = taste(interest(0, 1.0), interest(1, 0.0, muted=True))
    assert is_muted(written, items, level).tolist() == [False, False, False, True]
    named = taste(interest(0, 1.0), replace(interest(2, 0.0, muted=True), topics={"tea": axis(2), "jazz": axis(1)}))
    assert is_muted(named, items, level).tolist() == [True, False, False, True]


@st.composite
def pools(draw: st.DrawFn) -> tuple[NDArray[np.float64], Vectors]:
    count = draw(st.integers(0, 12))
    scores = np.array(draw(st.lists(st.sampled_from([-1.0, 0.0, 0.2, 0.21, 0.9]), min_size=count, max_size=count)))
    raw = np.random.default_rng(draw(st.integers(0, 9))).standard_normal((count, DIMENSIONS))
    return scores.astype(np.float64), (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


@law
@given(pools(), st.integers(0, 15), st.floats(0, 1))
def test_diversify_picks_each_row_once(pool: tuple[NDArray[np.float64], Vectors], limit: int, diversity: float) -> None:
    scores, vectors = pool
    chosen = diversify(scores, vectors, limit, diversity)
    assert len(chosen) == len(set(chosen)) == min(limit, len(scores))
    assert set(chosen) <= set(range(len(scores)))
    assert chosen == diversify(scores, vectors, limit, diversity)
    # A shorter list is the beginning of a longer one.
    assert chosen == diversify(scores, vectors, len(scores), diversity)[:limit]
    if chosen:
        assert scores[chosen[0]] == scores.max()


@law
@given(pools())
def test_without_diversity_scores_alone_decide(pool: tuple[NDArray[np.float64], Vectors]) -> None:
    scores, vectors = pool
    chosen = diversify(scores, vectors, len(scores), 0.0)
    assert chosen == sorted(range(len(scores)), key=lambda row: (-scores[row], row))


def test_full_diversity_spreads() -> None:
    vectors = np.stack([axis(0), towards(0, 1, 0.99), axis(1), axis(2), towards(2, 3, 0.9)])
    scores = np.array([0.9, 1.0, 0.3, 0.2, 0.1])
    assert diversify(scores, vectors, 2, 0.0) == [1, 0]
    # Row 3 is at right angles to what was chosen, row 2 nearly so; row 4 is as far, but scores less.
    assert diversify(scores, vectors, 3, 1.0) == [1, 3, 2]

    def crowding(diversity: float) -> float:
        chosen = vectors[diversify(scores, vectors, 3, diversity)]
        return float((chosen @ chosen.T)[np.triu_indices(3, 1)].max())

    assert crowding(1.0) < crowding(0.0)


def test_a_place_is_worth_half_ten_places_further_on() -> None:
    found = by_place(np.array([3.0, 900.0, 2.0, 1.0, 3.0]))
    np.testing.assert_allclose(found, 2.0 ** (-np.array([1, 0, 3, 4, 2]) / 10))
    assert len(by_place(np.zeros(0))) == 0


@pytest.mark.parametrize(
    ("shares", "total", "expected"),
    [([0.5, 0.3, 0.2], 20, [10, 6, 4]), ([0.98, 0.02], 10, [10, 2]), ([1.0], 1, [2]), ([], 10, [])],
)
def test_every_interest_brings_at_least_two_candidates(shares: list[float], total: int, expected: list[int]) -> None:
    assert quotas(np.array(shares), total) == expected
