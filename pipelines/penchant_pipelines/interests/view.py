"""A profile as it reads at a moment: weights, trends, confidence, drift; the signals behind an interest."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines import drift
from penchant_pipelines.drift import DriftReport
from penchant_pipelines.interests.blend import Blender, Event
from penchant_pipelines.interests.evidence import Evidence, Vector, weighing
from penchant_pipelines.interests.state import FOREVER, SHORT, Interest, Profile, decay, total_mass
from penchant_pipelines.model import MICROS_PER_DAY, Steering

BIAS_FACTOR = 4.0
"""A full steer multiplies or divides an interest's mass by this."""
SUPPORT_HALF = 3.0
"""Independent days of support at which confidence reaches half of the agreement."""
NEW_HALF_LIVES = 3.0
"""An interest is new for this many short half-lives after its first signal."""


class Trend(enum.IntEnum):
    """Where an interest is heading; the numbers are those of the contract's `Trend`."""

    NEW = 1
    RISING = 2
    STEADY = 3
    FADING = 4


@dataclass(frozen=True, slots=True)
class InterestView:
    """An interest as of a moment. `vector` is a (d,) float32 unit vector."""

    id: str
    weight: float
    confidence: float
    trend: Trend
    signal_count: int
    first: int
    last: int
    steering: Steering
    vector: Vector = field(repr=False)
    terms: dict[str, float] = field(repr=False)
    mass: float = 0.0
    sign: int = 1


@dataclass(frozen=True, slots=True)
class ProfileView:
    """A profile as of a moment, strongest interests first, what the user wants less of last."""

    as_of: int
    interests: tuple[InterestView, ...]
    drift: DriftReport
    fresh: Vector | None = field(repr=False)
    """(d,) unit vector of the short horizon, or of the newest signals so far as drift is likely; None while empty."""
    support: float
    """Decayed mass of all signals: how much is known about the user."""
    languages: tuple[str, ...]
    """Languages of the user's signals, most used first."""
    horizons: NDArray[np.float32] | None = field(default=None, repr=False)
    """(h, d) unit vectors: the liked past as one vector under each of `HORIZON_DAYS`; None while there is none."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """A signal's share of an interest's mass; over all of an interest's contributions they sum to 1."""

    signal_id: str
    item_id: str
    time: int
    share: float


def view(profile: Profile, as_of: int, blender: Blender) -> ProfileView:
    """Read a profile at a time (µs) not before its last event."""
    masses = [_mass(interest, as_of, blender) for interest in profile.interests]
    liked = sum(m for m, i in zip(masses, profile.interests, strict=True) if i.sign > 0)
    every = sum(masses)
    since = min((interest.first for interest in profile.interests), default=as_of)
    views = [
        _interest_view(interest, mass, (liked if interest.sign > 0 else every) or 1.0, since, as_of, blender)
        for interest, mass in zip(profile.interests, masses, strict=True)
    ]
    views.sort(key=lambda v: (v.sign < 0, -abs(v.weight), v.id))
    distance = blender.horizon_distance(profile)
    fresh_fade, long_fade = decay(as_of - profile.updated, np.array([blender.lives[SHORT], blender.long_life]))
    recent = round(profile.fresh_count * float(fresh_fade))
    return ProfileView(
        as_of=as_of,
        interests=tuple(views),
        drift=drift.report(profile.drift, distance, recent, blender.settings.drift),
        fresh=_fresh(profile, blender),
        support=profile.support * float(long_fade),
        languages=tuple(sorted(profile.languages, key=lambda name: (-profile.languages[name], name))),
        horizons=_directions(profile.horizons),
    )


def _directions(sums: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    if sums is None:
        return None
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    units: NDArray[np.float32] = sums / np.maximum(lengths, np.float32(1e-12))
    return units


def _fresh(profile: Profile, blender: Blender) -> Vector | None:
    """What the user is at: the short horizon, and the newest signals so far as they are trusted to lead."""
    trust = drift.trust(profile.drift, blender.settings.drift)
    short, newest = _unit(profile.fresh), _unit(profile.drift.now)
    if short is None or newest is None:
        return short
    return _unit(np.float32(1 - trust) * short + np.float32(trust) * newest)


def _unit(vector: Vector | None) -> Vector | None:
    norm = 0.0 if vector is None else float(np.linalg.norm(vector))
    return None if vector is None or norm <= 1e-12 else np.asarray(vector / np.float32(norm), dtype=np.float32)


def _interest_view(
    interest: Interest, mass: float, whole: float, since: int, as_of: int, blender: Blender
) -> InterestView:
    return InterestView(
        id=interest.id,
        weight=interest.sign * mass / whole,
        confidence=confidence(interest),
        trend=trend(interest, since, as_of, blender),
        signal_count=interest.signal_count,
        first=interest.first,
        last=interest.last,
        steering=interest.steering or Steering(),
        vector=interest.centroid,
        terms=dict(interest.terms),
        mass=mass,
        sign=interest.sign,
    )


def _mass(interest: Interest, as_of: int, blender: Blender) -> float:
    """Mass at a time with the user's word applied: muted is nothing, pinned never fades."""
    steering = interest.steering or Steering()
    if steering.muted:
        return 0.0
    if steering.pinned:
        mass = float(interest.mass[FOREVER])
    else:
        faded = interest.mass * decay(as_of - interest.updated, blender.lives)
        mass = total_mass(faded, blender.settings.floor)
    return float((mass + interest.steered_mass) * BIAS_FACTOR ** (steering.bias * interest.sign))


def confidence(interest: Interest) -> float:
    """0…1: distinct days of support, times how well the signals agree with the centre."""
    if interest.signal_count == 0:
        return 1.0 if interest.steering is not None else 0.0
    # Several signals of one day are not independent; they count with their square root.
    support = math.sqrt(interest.day_count * interest.signal_count)
    agreement = max(0.0, interest.agreement / interest.signal_count)
    return min(1.0, math.sqrt(agreement) * support / (support + SUPPORT_HALF))


def trend(interest: Interest, since: int, as_of: int, blender: Blender) -> Trend:
    """Compare the rate of signals at the short horizon with that since the user's first signal (µs)."""
    short_life = float(blender.lives[SHORT])
    age = max(as_of - since, 1)
    if as_of - interest.first <= NEW_HALF_LIVES * short_life:
        return Trend.NEW
    faded = interest.mass * decay(as_of - interest.updated, blender.lives)
    # A window that began with the user has seen only 1 − 2^(−age/h) of its full length.
    windows = blender.lives[:FOREVER] * (1 - np.exp2(-age / blender.lives[:FOREVER]))
    rates = faded[:FOREVER] / windows
    short_rate, long_rate = float(rates[-1]), float(rates[:-1].sum())
    # One signal more than usual is chance: of a monthly habit, each would look like a rise.
    chance = float(interest.mass[FOREVER]) / max(interest.signal_count, 1) / float(windows[-1])
    if short_rate > 1.5 * long_rate + chance:
        return Trend.RISING
    quiet = as_of - interest.last
    if short_rate < 0.5 * long_rate and quiet > 2 * max(short_life, _usual_gap(interest)):
        return Trend.FADING
    return Trend.STEADY


def _usual_gap(interest: Interest) -> float:
    """Mean time between the interest's signals in µs: silence is measured against it."""
    return (interest.last - interest.first) / max(interest.signal_count - 1, 1)


def explain(events: Sequence[Event], blender: Blender, as_of: int) -> tuple[Profile, dict[str, list[Contribution]]]:
    """Replay with a trace: the profile, and for each interest the signals that made it.

    Shares follow each signal's decayed weight and are sorted, greatest first. Mass that the user's own word
    put in is a contribution with an empty signal id.
    """
    taken: dict[str, list[tuple[Evidence, float]]] = {}
    merged: dict[str, str] = {}

    def trace(evidence: Evidence, interest_id: str, weight: float) -> None:
        taken.setdefault(interest_id, []).append((evidence, weight))

    profile = blender.replay(events, trace, lambda kept, gone: merged.__setitem__(gone, kept))
    contributions: dict[str, list[Contribution]] = {interest.id: [] for interest in profile.interests}
    grouped: dict[str, list[tuple[Evidence, float]]] = {}
    for interest_id, entries in taken.items():
        final = interest_id
        while final in merged:
            final = merged[final]
        grouped.setdefault(final, []).extend(entries)
    for interest in profile.interests:
        contributions[interest.id] = list(_shares(interest, grouped.get(interest.id, []), blender, as_of))
    return profile, contributions


def _shares(
    interest: Interest, entries: Sequence[tuple[Evidence, float]], blender: Blender, as_of: int
) -> Iterable[Contribution]:
    floor = 0.0 if not (interest.steering and interest.steering.pinned) else 1.0
    floor = max(floor, blender.settings.floor)
    masses = [(evidence, _kept_mass(evidence, floor, blender, as_of)) for evidence, _ in entries]
    whole = sum(mass for _, mass in masses) + interest.steered_mass
    found = [Contribution(e.id, e.item_id, e.time, mass / whole if whole else 0.0) for e, mass in masses]
    if interest.steered_mass:
        found.append(Contribution("", "", interest.updated, interest.steered_mass / whole))
    return sorted(found, key=lambda c: (-c.share, c.signal_id))


def _kept_mass(evidence: Evidence, floor: float, blender: Blender, as_of: int) -> float:
    rule = weighing(evidence, blender.settings)
    fade: float = 2.0 ** (-max(as_of - evidence.time, 0) / (rule.half_life_days * MICROS_PER_DAY))
    return abs(rule.weight) * ((1 - floor) * fade + floor)


def matrix(interests: Sequence[InterestView]) -> NDArray[np.float32]:
    """Stack vectors: (k, d) float32."""
    return np.stack([interest.vector for interest in interests])
