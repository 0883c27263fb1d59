"""Settings of ranking."""

from __future__ import annotations

from pydantic import Field

from penchant_pipelines.settings import Section


class RecommendSettings(Section):
    """How interests rank: by cosines, with these weights. A live mix has its own for what is fresh, new or popular."""

    temperature: float = Field(
        default=0.05, gt=0, description="How sharply the interest nearest to an item outweighs the others."
    )
    fresh_weight: float = Field(default=0.3, ge=0, le=1, description="Share of the short horizon in the score.")
    drift_fresh_weight: float = Field(
        default=1.0, ge=0, le=1, description="That share while drift is told; in between while evidence for it gathers."
    )
    sequence_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of what the adapter's sequence model expects next, among candidates and, while no mix is "
        "live, in the score; a mix learns what it is worth. 0: it is not asked.",
    )
    dislike_weight: float = Field(
        default=0.5,
        ge=0,
        description="Penalty for nearness to what the user wants less of, in cosines; under a mix in its standard "
        "deviations.",
    )
    words_weight: float = Field(
        default=0.4,
        ge=0,
        description="Weight of what an item's words have in common with an interest's, in cosines: about 1 where "
        "a word is in no other item. A mix has a weight of its own for them, of who took to nothing yet.",
    )
    recency_weight: float = Field(default=0.1, ge=0, description="Bonus of a brand-new item.")
    recency_half_life_days: float = Field(default=30.0, gt=0, description="Days in which that bonus halves.")
    popularity_weight: float = Field(
        default=-0.05,
        ge=-1,
        le=1,
        description="Weight of popularity for a known user; below 0, crowding is damped.",
    )
    cold_support: float = Field(
        default=3.0,
        ge=0,
        description="Mass of signals at which the weight of popularity is half-way from that for a new user, 0.2, to "
        "popularity_weight.",
    )
    diversity: float = Field(default=0.05, ge=0, le=1, description="Diversity where Recommend names none.")
    exploration: float = Field(default=0.0, ge=0, le=1, description="Exploration where a request names none.")
    learn_mixes: bool = Field(
        default=True, description="Learn how to mix the sources unasked, whenever the record has grown by half."
    )
    query_weight: float = Field(default=0.6, ge=0, le=1, description="Share of a request's query words in the score.")
