"""Chances: what is told happens as often as it is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from penchant_pipelines.recommend.chance import Chance, fit
from penchant_pipelines.recommend.mix import CHANCES, Lesson, Mix, chance
from penchant_pipelines.recommend.sources import INTERESTS, SOURCES

PLACE = SOURCES.index(INTERESTS)


def test_the_curve_that_made_the_examples_is_found() -> None:
    dice = np.random.default_rng(0)
    scores = dice.normal(size=40_000)
    taken = dice.random(40_000) < expit(-3 + 1.5 * np.arcsinh(scores))
    found = fit(scores, taken)
    assert found.base == pytest.approx(-3, abs=0.1)
    assert found.slope == pytest.approx(1.5, abs=0.1)


def test_what_speaks_for_nothing_tells_the_usual_share() -> None:
    scores = np.arange(1000.0)
    taken = np.zeros(1000, dtype=bool)
    taken[:50] = True  # the lowest: a slope below 0 would say that a worse score is better
    found = fit(scores, taken)
    assert found.slope == 0
    np.testing.assert_allclose(found.of(scores), 0.05, atol=0.005)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=40))
def test_chances_grow_with_scores_and_are_never_certain(examples: list[tuple[float, bool]]) -> None:
    scores, taken = (np.array(column) for column in zip(*examples, strict=True))
    found = fit(scores, taken.astype(bool))
    ladder = found.of(np.linspace(-20, 20, 9))
    assert np.isfinite(ladder).all()
    assert (np.diff(ladder) >= 0).all()


def lessons(count: int, rise: float) -> list[Lesson]:
    """Days of many users, who take to an item by a chance that rises with what the interests say."""
    dice = np.random.default_rng(1)
    found = []
    for number in range(count):
        scores = np.zeros((len(SOURCES), 200), dtype=np.float32)
        scores[PLACE] = dice.normal(size=200)
        taken = dice.random(200) < expit(-4 + rise * scores[PLACE])
        found.append(Lesson(number % 40, scores, taken, written=scores))
    return found


def test_of_what_is_told_a_chance_as_much_is_taken_to() -> None:
    mix = Mix.of({INTERESTS: 1.0})
    curve = chance(lessons(300, 1.2))
    assert isinstance(curve, Chance)
    told, came = [], []
    for lesson in lessons(300, 1.2)[::-1]:
        said = mix.scores(lesson.scores.astype(np.float64))
        best = np.argsort(-said)[:CHANCES]
        told.append(curve.of(said[best]))
        came.append(lesson.taken[best])
    likely = np.concatenate(told) > 0.05
    assert np.concatenate(told).mean() == pytest.approx(np.concatenate(came).mean(), rel=0.1)
    assert np.concatenate(told)[likely].mean() == pytest.approx(np.concatenate(came)[likely].mean(), rel=0.15)


def test_what_stands_out_by_far_is_not_told_more_than_comes() -> None:
    """The odds double with each doubling of the score, as they do of real lists: e^score would be near certain."""
    dice = np.random.default_rng(2)
    scores = np.exp(dice.normal(0, 1.2, size=40_000))
    odds = 0.02 * scores
    taken = dice.random(40_000) < odds / (1 + odds)
    best = scores > np.quantile(scores, 0.99)
    told = fit(scores, taken).of(scores)
    assert told[best].mean() == pytest.approx(taken[best].mean(), rel=0.2)


def test_where_nothing_was_taken_to_no_chance_is_told() -> None:
    silence = np.zeros((len(SOURCES), 5), np.float32)
    nothing = [Lesson(1, silence, np.zeros(5, dtype=bool), written=silence)]
    assert chance(nothing) is None


def test_who_asks_for_more_of_something_is_told_no_chance() -> None:
    assert Mix.of({INTERESTS: 1.0}, Chance(-3.0, 1.0)).steered().chance is None
