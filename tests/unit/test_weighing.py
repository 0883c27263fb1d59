from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import Action
from penchant_pipelines.text import TextPipeline, TextSettings

SETTINGS = InterestSettings()
TEXT = TextPipeline(TextSettings())
VECTOR = np.ones(1, dtype=np.float32)
LIKED = [action for action in Action if action is not Action.UNDO and SETTINGS.actions[action.name.lower()].weight > 0]
DISLIKED = [action for action in Action if action is not Action.UNDO and action not in LIKED]
SCALED = [Action.VIEW, Action.DWELL]


def weight(action: Action | None = None, settings: InterestSettings = SETTINGS, **evidence: Any) -> float:
    return weighing(Evidence("s", 0, VECTOR, action, **evidence), settings).weight


@pytest.mark.parametrize(
    ("rating", "expected"),
    [(None, 1.0), (1.0, 1.0), (-0.25, 0.0), (-1.0, -1.0), (0.375, 0.5), (-0.625, -0.5)],
)
def test_a_rating_scales_and_signs_a_post(rating: float | None, expected: float) -> None:
    assert weight(rating=rating) == pytest.approx(expected)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-0.99, 0.99))
def test_ratings_are_monotone_around_the_neutral_one(one: float, two: float, neutral: float) -> None:
    settings = InterestSettings(neutral_rating=neutral)
    low, high = sorted((one, two))
    assert -1 <= weight(settings=settings, rating=low) <= weight(settings=settings, rating=high) <= 1
    assert (weight(settings=settings, rating=one) < 0) == (one < neutral)


@pytest.mark.parametrize("text", ["lol", "im so tired", "happy birthday!", "早安", "今天天气真好", "What a day 😂"])
def test_a_post_that_names_nothing_is_no_evidence_unless_it_is_about_an_item(text: str) -> None:
    document = TEXT.read(text)
    said: dict[str, Any] = {"terms": document.terms, "language": document.language}
    assert weight(**said) == 0
    assert weight(**said, rating=-1.0) == 0
    assert weight(**said, item_id="i") == 1


@pytest.mark.parametrize(
    "text",
    [
        "Tea!",
        "猫",
        "狗向着我跑了过来",
        "Kendrick",
        "#same",
        "#“完美的日子”#",
        "Привет",
        "Ты где",
        "好き",
        "ねこ",
        "안녕하세요",
        "Ramen",
    ],
)
def test_a_short_post_that_names_something_counts(text: str) -> None:
    document = TEXT.read(text)
    assert weight(terms=document.terms, language=document.language) == 1


@pytest.mark.parametrize(("seconds", "share"), [(0.0, 0.0), (30.0, 0.5), (90.0, 0.75), (1e300, 1.0), (-5.0, 0.0)])
def test_dwelling_saturates(seconds: float, share: float) -> None:
    assert weight(Action.DWELL, value=seconds) == pytest.approx(0.6 * share)


@pytest.mark.parametrize(("value", "share"), [(-1.0, 0.0), (0.0, 0.0), (0.4, 0.4), (1.0, 1.0), (7.0, 1.0)])
def test_a_view_counts_by_the_share_that_was_watched(value: float, share: float) -> None:
    assert weight(Action.VIEW, value=value) == pytest.approx(0.1 * share)


@given(st.sampled_from([action for action in LIKED if action not in SCALED]), st.floats(-10, 10))
def test_a_rating_that_comes_with_an_action_signs_it(action: Action, value: float) -> None:
    found, whole = weight(action, value=value), weight(action)
    assert abs(found) <= whole
    assert (found < 0) == (value < SETTINGS.neutral_rating)


@given(st.sampled_from(DISLIKED), st.none() | st.floats(-10, 10))
def test_no_value_turns_a_dislike_into_a_like(action: Action, value: float | None) -> None:
    assert SETTINGS.actions[action.name.lower()].weight <= weight(action, value=value) <= 0


def test_every_action_but_undo_has_a_weight_and_a_half_life() -> None:
    assert set(SETTINGS.actions) == {action.name.lower() for action in Action} - {"undo"}
    strength = [weight(action) for action in (Action.PURCHASE, Action.LIKE, Action.CLICK, Action.VIEW)]
    assert strength == sorted(strength, reverse=True)
    half_life = weighing(Evidence("s", 0, VECTOR, Action.PURCHASE), SETTINGS).half_life_days
    assert half_life == 180


def test_changing_one_action_keeps_the_others() -> None:
    changed = InterestSettings.model_validate({"actions": {"like": {"weight": 3}}, "post": {"half_life_days": 7}})
    assert weight(Action.LIKE, changed) == 3
    assert changed.actions["like"].half_life_days == SETTINGS.actions["like"].half_life_days
    assert {name: rule for name, rule in changed.actions.items() if name != "like"} == {
        name: rule for name, rule in SETTINGS.actions.items() if name != "like"
    }
    assert (changed.post.weight, changed.post.half_life_days) == (1, 7)
    with pytest.raises(ValidationError, match="no action 'hug'"):
        InterestSettings.model_validate({"actions": {"hug": {"weight": 1, "half_life_days": 1}}})
