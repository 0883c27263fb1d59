"""The mix of sources: what it learns, whom it listens to, and that its arithmetic is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.mixes import is_surely_worse
from penchant_pipelines.recommend import mix
from penchant_pipelines.recommend.chance import Chance
from penchant_pipelines.recommend.mix import (
    COMMON_WEIGHT,
    FAMILIES,
    LEAST_TEXT,
    SHRINKAGE,
    Lesson,
    Mix,
    learn,
    learn_both,
    quality,
)
from penchant_pipelines.recommend.sources import INTERESTS, SOURCES

S = len(SOURCES)
TELLING, MISLEADING = 3, 8
Floats = NDArray[np.float64]
law = settings(max_examples=30, deadline=None)


def lesson(seed: int, user: int = 1, items: int = 30, taken: int = 2, **leanings: float) -> Lesson:
    """Noise from all sources but those named (by place, as `s3`), which rate what is taken to so much higher."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(S, items))
    chosen = np.zeros(items, dtype=bool)
    chosen[random.choice(items, taken, replace=False)] = True
    for name, lift in leanings.items():
        scores[int(name[1:]), chosen] += lift
    return Lesson(user, scores.astype(np.float32), chosen, written=scores.astype(np.float32))


def loss(weights: Floats, lessons: Sequence[Lesson]) -> float:
    """What `learn` makes least, written plainly: every user counts alike."""
    users = [one.user for one in lessons]
    total = 0.0
    for one in lessons:
        sums = weights @ one.scores.astype(np.float64)
        surprise = -np.log(np.exp(sums[one.taken]).sum() / np.exp(sums).sum())
        total += surprise / users.count(one.user)
    apart = (weights - COMMON_WEIGHT) / COMMON_WEIGHT
    families = [apart[[mix._family(source) == family for source in SOURCES]] for family in FAMILIES]
    pull = sum(own.mean() ** 2 + ((own - own.mean()) ** 2).sum() for own in families)
    return float(total + SHRINKAGE * pull)


def test_a_source_that_always_tells_is_found_and_noise_is_not() -> None:
    lessons = [lesson(seed, seed % 20, s3=3.0, s8=-3.0) for seed in range(200)]
    found = learn(lessons).weights
    family = [mix._family(source) == mix._family(SOURCES[TELLING]) for source in SOURCES]
    assert np.argmax(found) == TELLING
    assert found[TELLING] > 4 * found[np.invert(family)].max()
    assert found[MISLEADING] == 0
    assert next(iter(Mix(found).named())) == SOURCES[TELLING]
    before, after = (quality(lessons, whose).mean() for whose in (learn([]), Mix(found)))
    assert before < 0.3
    assert after > 0.7


def test_text_still_tells_apart_what_nobody_has_touched_where_the_crowd_decides_all() -> None:
    text, alike = (np.array([name.startswith(kind) for name in SOURCES]) for kind in ("text_", "alike_"))
    lessons = [lesson(seed, seed % 20) for seed in range(200)]
    for one in lessons:
        one.scores[np.ix_(text, one.taken)] -= 3.0
        one.scores[np.ix_(alike, one.taken)] += 1.0
    found = learn(lessons)
    assert found.weights[text] == pytest.approx(LEAST_TEXT)
    assert found.weights[alike].min() > 100 * LEAST_TEXT
    # Ten items that the crowd knows, some better than others, then three that it does not.
    standings = np.zeros((S, 13))
    standings[np.ix_(alike, np.arange(13))] = [*range(10, 0, -1), -1, -1, -1]
    standings[np.ix_(text, np.arange(13))] = [0, 3, 0, 3, 0, 3, 0, 3, 0, 3, 1, 3, 2]
    assert np.argsort(-found.scores(standings)).tolist() == [*range(10), 11, 12, 10]


def test_what_no_source_knows_of_makes_light_of_none() -> None:
    lessons = [lesson(seed, seed % 100, items=100, taken=1, s3=6.0) for seed in range(300)]
    for number, one in enumerate(lessons):
        if number % 4:
            one.scores[:, one.taken] = -3.0
    found = learn(lessons).weights
    assert np.argmax(found) == TELLING
    assert found[TELLING] > COMMON_WEIGHT
    # A quarter can be known, and is; what else was taken to on the same days takes nothing from that.
    assert quality(lessons, Mix(found)).mean() > 0.2
    known = [one for number, one in enumerate(lessons) if not number % 4]
    more = [
        Lesson(
            one.user,
            np.hstack([one.scores, np.full((S, 5), -3.0, np.float32)]),
            np.append(one.taken, [True] * 5),
            np.hstack([one.written, np.full((S, 5), -3.0, np.float32)]),
        )
        for one in known
    ]
    assert learn(more).weights == pytest.approx(learn(known).weights)
    assert more[0].winnable().scores.shape == known[0].scores.shape


def test_a_source_that_said_nothing_in_any_lesson_weighs_nothing() -> None:
    lessons = [lesson(seed, seed % 20, s3=1.0) for seed in range(60)]
    silent = [SOURCES.index("sequence"), SOURCES.index("new")]
    text = SOURCES.index(next(name for name in SOURCES if name.startswith("text_")))
    for one in lessons:
        one.scores[[*silent, text]] = 0.0
    found = learn(lessons).weights
    assert found[silent].tolist() == [0.0, 0.0]
    assert found[text] == LEAST_TEXT
    # Where it spoke once, it is held towards what all weigh before anything is learnt.
    lessons[0].scores[silent[0], :3] = 0.1
    assert learn(lessons).weights[silent[0]] == pytest.approx(COMMON_WEIGHT, rel=0.1)


@law
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_no_small_change_makes_the_weights_better(seed: int, count: int) -> None:
    lessons = [lesson(seed + number, number % 3, taken=1 + number % 4, s3=1.0, s8=-1.0) for number in range(count)]
    found = learn(lessons).weights
    assert (found >= 0).all()
    least = loss(found, lessons)
    for moved in 0.003 * np.vstack([np.eye(S), -np.eye(S)]):
        assert loss(np.maximum(found + moved, 0), lessons) >= least - 1e-5
    assert loss(np.full(S, COMMON_WEIGHT), lessons) >= least - 1e-6


def end_to_end(lessons: Sequence[Lesson]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Scores of what was taken to and of the rest, lesson by lesson, and how many these are."""
    parts = [one.scores[:, chosen] for one in lessons for chosen in (one.taken, ~one.taken)]
    return np.concatenate(parts, axis=1), np.array([part.shape[1] for part in parts])


@law
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0, 3))
def test_surprise_is_told_of_each_lesson_with_the_gradient_of_finite_differences(
    seed: int, taken: int, size: float
) -> None:
    days = [lesson(seed, items=12, taken=taken), lesson(seed + 1, items=7)]
    weights, shares = size * np.random.default_rng(seed).random(S), np.array([0.25, 3.0])
    scores, counts = end_to_end(days)
    exact: Any = scores.astype(np.float64)  # float32 is too coarse here
    value, gradient = mix._surprise(weights, exact, counts, shares)  # type: ignore[arg-type]
    odds = [np.exp(weights @ one.scores.astype(np.float64)) for one in days]
    first = [share[one.taken].sum() / share.sum() for share, one in zip(odds, days, strict=True)]
    assert value == pytest.approx(-shares @ np.log(first), abs=1e-9)
    step = 1e-6
    for place in range(S):
        moved = step * np.eye(S)[place]
        more, less = (mix._surprise(weights + sign * moved, exact, counts, shares)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((more - less) / (2 * step), abs=1e-5)


def test_sums_beyond_the_range_of_an_exponential_are_no_trouble() -> None:
    scores, counts = end_to_end([lesson(1, s3=3.0)])
    value, gradient = mix._surprise(np.full(S, 1e4, dtype=np.float32), scores, counts, np.ones(1))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@law
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_many_lessons_of_one_user_do_not_outweigh_the_others(seed: int, half: int) -> None:
    one, other = lesson(seed, 1, s3=2.0), lesson(seed + 1, 2, s8=2.0)
    even = learn([one] * half + [other] * half).weights
    crowded = learn([one] * (2 * half - 1) + [other]).weights
    np.testing.assert_allclose(crowded, even, atol=1e-3)


def test_the_order_of_lessons_leaves_no_mark() -> None:
    lessons = [lesson(seed, seed % 3, s3=1.0) for seed in range(12)]
    np.testing.assert_allclose(learn(lessons).weights, learn(lessons[::-1]).weights, atol=1e-3)


@pytest.mark.parametrize("taken", [None, 0, 30])
def test_lessons_that_tell_nothing_leave_the_common_weights(taken: int | None) -> None:
    lessons = [] if taken is None else [lesson(1, items=30, taken=taken)] * 50
    np.testing.assert_array_equal(learn(lessons).weights, np.full(S, COMMON_WEIGHT))


def test_a_short_log_moves_weights_little_and_a_long_one_much() -> None:
    few, many = (learn([lesson(seed, seed, s3=3.0) for seed in range(count)]).weights[TELLING] for count in (2, 200))
    assert COMMON_WEIGHT < few < 2 * COMMON_WEIGHT < many


def test_what_one_half_life_tells_is_believed_of_its_family() -> None:
    text = [SOURCES[place].startswith("text_") for place in range(S)]
    sisters, others = np.delete(text, TELLING), np.delete(~np.array(text), TELLING)
    found = np.mean(
        [learn([lesson(seed, seed, s3=3.0) for seed in range(start, start + 5)]).weights for start in range(0, 50, 5)],
        axis=0,
    )
    rest = np.delete(found, TELLING)
    assert found[TELLING] > rest[sisters].mean() > rest[others].mean()


def test_weights_are_read_and_told_by_name() -> None:
    told = {"popular_7d": 0.75, INTERESTS: 0.25}
    found = Mix.of(told | {"a former source": 3.0, "new": 0.0})
    assert found.weights.shape == (S,)
    assert found.named() == told
    assert list(found.named()) == ["popular_7d", INTERESTS]
    learnt = learn([lesson(seed, seed, s3=2.0) for seed in range(20)])
    np.testing.assert_allclose(Mix.of(learnt.named()).weights, learnt.weights, atol=1e-6)


def test_those_who_only_write_are_weighed_for_by_what_was_said_of_writing_alone() -> None:
    lessons = []
    for seed in range(200):
        known, written = lesson(seed, seed % 20, s3=3.0), lesson(seed, s8=3.0)
        lessons.append(Lesson(known.user, known.scores, known.taken, written.scores))
    both = learn_both(lessons)
    np.testing.assert_array_equal(both.weights, learn(lessons).weights)
    assert (int(np.argmax(both.weights)), int(np.argmax(both.for_writers().weights))) == (3, 8)
    again = Mix.of(both.named(), writers=both.for_writers().named()).for_writers()
    np.testing.assert_allclose(again.weights, both.for_writers().weights, atol=1e-6)


def test_a_mix_that_knows_nothing_of_writers_weighs_alike_for_all_and_tells_them_no_chances() -> None:
    found = Mix.of({INTERESTS: 1.0}, Chance(-3.0, 1.0))
    np.testing.assert_array_equal(found.for_writers().weights, found.weights)
    assert found.for_writers().chance is None


def test_scores_are_a_weighted_mean() -> None:
    standings = np.zeros((S, 2))
    standings[SOURCES.index(INTERESTS)] = [1, 3]
    standings[SOURCES.index("new")] = [5, -1]
    np.testing.assert_allclose(Mix.of({INTERESTS: 3, "new": 1}).scores(standings), [2, 2])
    np.testing.assert_allclose(Mix.of({INTERESTS: 30, "new": 10}).scores(standings), [2, 2])
    np.testing.assert_array_equal(Mix.of({}).scores(standings), [0, 0])


@law
@given(st.lists(st.floats(0, 5), min_size=S, max_size=S))
def test_steering_makes_interests_as_heavy_as_all_the_rest(weights: list[float]) -> None:
    plain = Mix(np.array(weights))
    steered = plain.steered().weights
    place = SOURCES.index(INTERESTS)
    rest = np.delete(plain.weights, place)
    np.testing.assert_array_equal(np.delete(steered, place), rest)
    assert steered[place] == pytest.approx(max(plain.weights[place], rest.sum()))
    assert plain.weights.tolist() == weights


def test_quality_is_the_gain_of_the_first_ten_places() -> None:
    scores = np.zeros((S, 30), dtype=np.float32)
    scores[TELLING] = -np.arange(30)

    def gain(*places: int) -> float:
        taken = np.zeros(30, dtype=bool)
        taken[list(places)] = True
        found = quality([Lesson(1, scores, taken, written=scores)], Mix(np.eye(S)[TELLING]))
        assert found.shape == (1,)
        return float(found[0])

    assert gain(0) == pytest.approx(1)
    assert gain(1) == pytest.approx(1 / np.log2(3))
    assert gain(10) == 0
    assert gain(0, 2) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert gain(*range(30)) == pytest.approx(1)


@pytest.mark.parametrize("users", [1, 3, 12])
def test_a_mix_is_surely_worse_only_where_users_or_the_days_of_few_agree(users: int) -> None:
    whose = np.arange(24) % users
    luck = np.random.default_rng(0).normal(0, 0.2, 24)
    assert (luck - 0.01).mean() < 0
    assert not is_surely_worse(luck - 0.01, np.zeros(24), whose)
    assert is_surely_worse(luck - 0.3, np.zeros(24), whose)
    assert not is_surely_worse(luck, luck, whose)
