"""Settings of interests: how much a signal weighs, how fast it fades, when an interest opens."""

from __future__ import annotations

from pydantic import BaseModel, Field

from penchant_pipelines.drift import DriftSettings
from penchant_pipelines.model import Action


class Weighing(BaseModel):
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


class InterestSettings(BaseModel):
    """How signals become interests."""

    max_interests: int = Field(default=20, ge=2, le=200, description="Most interests of a user; beyond, the two nearest merge.")
    similarity: float | None = Field(
        default=None,
        gt=-1,
        lt=1,
        description="Cosine from which a signal joins an interest. Unset: calibrated for the embedding space.",
    )
    short_half_life_days: float = Field(
        default=5.0, gt=0, description="Half-life of the short horizon: what the user is at right now."
    )
    floor: float = Field(
        default=0.02, ge=0, lt=1, description="Share of a signal's mass that never fades, so that old tastes stay findable."
    )
    post: Weighing = Field(
        default=Weighing(weight=1.0, half_life_days=90), description="What a post, comment, review or search counts."
    )
    actions: dict[str, Weighing] = Field(
        default_factory=_default_actions, description="What each action counts, by its lower-case name."
    )
    neutral_rating: float = Field(
        default=-0.25, gt=-1, lt=1, description="Rating that speaks neither for nor against; below, a signal counts negative."
    )
    dwell_half_seconds: float = Field(default=30.0, gt=0, description="Seconds dwelt that count half of a very long stay.")
    drift: DriftSettings = Field(default_factory=DriftSettings, description="When a change of interests is called drift.")
