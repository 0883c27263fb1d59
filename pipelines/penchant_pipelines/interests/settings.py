"""Settings of interests: how much a signal weighs, how fast it fades, when an interest opens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from penchant_pipelines.interests.drift import DriftSettings
from penchant_pipelines.model import Action
from penchant_pipelines.settings import Section


class Weighing(Section):
    """How much one kind of signal counts and how long."""

    weight: float = Field(ge=-10, le=10, description="Mass of one signal; below 0: the user wants less of it.")
    half_life_days: float = Field(gt=0, le=36_500, description="Days of event time in which it loses half its mass.")


def _default_actions() -> dict[str, Weighing]:
    table = {
        Action.VIEW: (0.1, 30),
        Action.CLICK: (0.3, 60),
        Action.DWELL: (0.6, 60),
        Action.LIKE: (1.0, 90),
        Action.SAVE: (1.0, 90),
        Action.SHARE: (1.0, 90),
        Action.FOLLOW: (1.2, 180),
        Action.PURCHASE: (1.5, 180),
        Action.SKIP: (-0.1, 30),
        Action.HIDE: (-0.6, 90),
        Action.DISLIKE: (-1.0, 180),
        Action.NOT_INTERESTED: (-0.8, 90),
        Action.REPORT: (-1.0, 180),
    }
    return {
        action.name.lower(): Weighing(weight=weight, half_life_days=days) for action, (weight, days) in table.items()
    }


def _default_post() -> Weighing:
    return Weighing(weight=1.0, half_life_days=90)


class InterestSettings(Section):
    """How signals become interests."""

    max_interests: int = Field(
        default=20,
        ge=2,
        le=200,
        description="Most interests of a user; beyond, the two merge that lose least by it, by mass and distance.",
    )
    similarity: float | None = Field(
        default=None,
        gt=-1,
        lt=1,
        description="Cosine from which a signal joins an interest, as seen from the middle of the embedding space. "
        "Unset: calibrated for the space.",
    )
    short_half_life_days: float = Field(
        default=5.0, gt=0, le=36_500, description="Half-life of the short horizon: what the user is at right now."
    )
    floor: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="Share of a signal's mass that never fades, so that old tastes stay findable.",
    )
    post: Weighing = Field(default_factory=_default_post, description="What a post, comment, review or search counts.")
    actions: dict[str, Weighing] = Field(
        default_factory=_default_actions, description="What each action counts, by its lower-case name."
    )
    neutral_rating: float = Field(
        default=-0.25,
        gt=-1,
        lt=1,
        description="Rating that speaks neither for nor against; below, a signal counts negative.",
    )
    dwell_half_seconds: float = Field(
        default=30.0, gt=0, description="Seconds dwelt that count half of a very long stay."
    )
    drift: DriftSettings = Field(
        default_factory=DriftSettings, description="When a change of interests is called drift."
    )

    @field_validator("post", mode="before")
    @classmethod
    def _complete_post(cls, given: Any) -> Any:
        """Fill in what is left out."""
        return _completed(given, _default_post())

    @field_validator("actions", mode="before")
    @classmethod
    def _complete_actions(cls, given: Any) -> Any:
        """Fill in what is left out: whoever changes one action means to keep the others."""
        if not isinstance(given, Mapping):
            return given
        defaults = _default_actions()
        unknown = sorted(given.keys() - defaults.keys())
        if unknown:
            raise ValueError(f"there is no action {unknown[0]!r}; choose from {', '.join(defaults)}")
        return {name: _completed(given.get(name, rule), rule) for name, rule in defaults.items()}


def _completed(given: Any, default: Weighing) -> Any:
    return {**default.model_dump(), **given} if isinstance(given, Mapping) else given
