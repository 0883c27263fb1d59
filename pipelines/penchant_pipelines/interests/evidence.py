"""A captured signal as the blend sees it, and what it weighs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests.settings import InterestSettings
from penchant_pipelines.model import Action, Post, Signal, Steering
from penchant_pipelines.text.keywords import is_beginning

Vector = NDArray[np.float32]
WELL_KNOWN = ("zh", "en", "und")
"""Languages whose every word is looked up; in others what names something may be taken for no word."""
STEERING = "steering-"
"""What ids of steering events begin with."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One captured signal, without its text.

    `vector` is None while its item is unknown; `action` is None for posts.
    """

    id: str
    time: int
    vector: Vector | None
    action: Action | None = None
    value: float | None = None
    rating: float | None = None
    item_id: str = ""
    terms: tuple[str, ...] = ()
    language: str = "und"

    @classmethod
    def of(
        cls, signal: Signal, time: int, vector: Vector | None, terms: tuple[str, ...] = (), language: str = "und"
    ) -> Evidence:
        """A signal of this event time (µs), with what was read of its text."""
        told = signal.evidence
        if isinstance(told, Post):
            action, value, rating = None, None, told.verdict
        else:
            action, value, rating = told.action, told.value, None
        return cls(signal.id, time, vector, action, value, rating, told.item_id, terms, language)


@dataclass(frozen=True, slots=True)
class SteeringEvent:
    """The user's own word at a moment, about an interest or a topic; see `Blender.meant`.

    `terms` of a topic are the topic as it was written, then those that name it; of an interest its best at that moment.
    `sign` is that of the interest, 0 where it is not known.
    """

    id: str
    time: int
    vector: Vector
    steering: Steering
    topic: str = ""
    terms: tuple[str, ...] = ()
    interest_id: str = ""
    sign: int = 0


class Weight(NamedTuple):
    """What one signal counts, below 0 where the user wants less of it, and how long."""

    weight: float
    half_life_days: float


def weighing(evidence: Evidence, settings: InterestSettings) -> Weight:
    """Signed mass and half-life of a signal: kind, then rating or value; nothing for a post that names nothing."""
    if evidence.action is None:
        rule = settings.post
        if _names_nothing(evidence):
            return Weight(0.0, rule.half_life_days)
        factor = 1.0 if evidence.rating is None else _signed(evidence.rating, settings.neutral_rating)
    else:
        rule = settings.actions[evidence.action.name.lower()]
        factor = _strength(evidence.action, evidence.value, rule.weight, settings)
    return Weight(rule.weight * factor, rule.half_life_days)


def _names_nothing(post: Evidence) -> bool:
    """Whether no word of a post tells what it is about, nor an item does: "lol", "早安", "what a day"."""
    unnamed = bool(post.terms) and all(map(is_beginning, post.terms))
    return unnamed and not post.item_id and post.language in WELL_KNOWN


def _signed(rating: float, neutral: float) -> float:
    """Rating −1…1 → −1…1, zero at `neutral`, linear on both sides."""
    return (rating - neutral) / (1 - neutral if rating >= neutral else 1 + neutral)


def _strength(action: Action, value: float | None, weight: float, settings: InterestSettings) -> float:
    if value is None:
        return 1.0
    if action is Action.DWELL:
        return max(value, 0.0) / (max(value, 0.0) + settings.dwell_half_seconds)
    if action is Action.VIEW:
        return max(0.0, min(value, 1.0))
    if weight < 0:
        return min(abs(value), 1.0)
    return _signed(max(-1.0, min(value, 1.0)), settings.neutral_rating)
