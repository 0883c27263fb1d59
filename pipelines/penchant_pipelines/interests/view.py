"""A profile as it reads at a moment: weights, trends, confidence, drift; the signals behind an interest."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests import drift, pace
from penchant_pipelines.interests.blend import Blender, Event, Trace
from penchant_pipelines.interests.calibration import Calibration
from penchant_pipelines.interests.drift import DriftReport
from penchant_pipelines.interests.evidence import Evidence, Vector, weighing
from penchant_pipelines.interests.state import FOREVER, SHORT, Interest, Profile, decay, total_mass
from penchant_pipelines.model import MICROS_PER_DAY, Steering

BIAS_FACTOR = 4.0
"""A full steer multiplies or divides an interest's mass by this."""
SUPPORT_HALF = 3.0
"""Independent days of support at which confidence reaches half of the agreement."""
LONG_SILENCE = 5.0
"""A silence so many times the usual one is a farewell."""
LATEST = 5
"""Distinct texts of late that are told one by one."""
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
    against: float = 0.0
    """0…1: how much of what is near to it the user does not want; of a mute all."""
    topics: dict[str, Vector] = field(default_factory=dict, repr=False)
    """Topics by which the user spoke of it, (d,) each."""
    recurrent: frozenset[str] = field(default=frozenset(), repr=False)
    """Terms that more than one text spoke of."""
    called: str = field(default="", repr=False)
    """What the user called it where the user's word opened it: one of the terms; else empty."""


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
    """(h, d) unit vectors: the liked past as one vector under each of `HORIZONS`; None while there is none."""
    latest: tuple[NDArray[np.float32], NDArray[np.float64]] | None = field(default=None, repr=False)
    """The newest distinct texts that the user liked, newest first: (n, d) unit vectors and (n,) masses; None: none."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """A signal's share of an interest's mass; over all of an interest's contributions they sum to 1."""

    signal_id: str
    item_id: str
    time: int
    share: float
    topics: tuple[str, ...] = ()
    """What the user asked for more of (of a dislike: less), where the share is of the user's own word."""


def view(profile: Profile, as_of: int, blender: Blender) -> ProfileView:
    """Read a profile at a time (µs) not before its last event."""
    masses = [_mass(profile, interest, as_of, blender) for interest in profile.interests]
    liked = sum(m for m, i in zip(masses, profile.interests, strict=True) if i.sign > 0)
    every = sum(masses)
    since = min((interest.first for interest in profile.interests), default=as_of)
    views = [
        _interest_view(profile, interest, mass, (liked if interest.sign > 0 else every) or 1.0, since, as_of, blender)
        for interest, mass in zip(profile.interests, masses, strict=True)
    ]
    views = _with_noes(views, blender.calibration)
    views.sort(key=lambda v: (v.sign < 0, -abs(v.weight), v.id))
    distance = blender.horizon_distance(profile)
    fresh_fade, long_fade = decay(as_of - profile.updated, np.array([blender.lives[SHORT], blender.long_life]))
    recent = round(profile.fresh_count * float(fresh_fade))
    return ProfileView(
        as_of=as_of,
        interests=tuple(views),
        drift=drift.report(profile.drift, distance, recent, blender.settings.drift),
        fresh=_fresh(profile),
        support=profile.support * float(long_fade),
        languages=tuple(sorted(profile.languages, key=lambda name: (-profile.languages[name], name))),
        horizons=_directions(profile.past),
        latest=profile.repeats.liked(LATEST),
    )


def _with_noes(views: Sequence[InterestView], calibration: Calibration) -> list[InterestView]:
    """Tell how much each interest speaks against what is near to it.

    A dislike by its mass, up to that of one whole dislike, and by its share of all that was said of the same; what the
    user wants less of by the bias.
    """
    liked = [v for v in views if v.sign > 0 and v.mass > 0]
    disliked = [v for v in views if v.sign < 0 and v.mass > 0]
    near = np.zeros(len(disliked))
    if liked and disliked:
        cosines = calibration.cosines(matrix(liked), matrix(disliked))
        near = np.array([v.mass for v in liked]) @ (cosines >= calibration.similarity)
    noes = {
        v.id: min(v.mass, 1.0) * v.mass / (v.mass + float(beside)) for v, beside in zip(disliked, near, strict=True)
    }
    noes |= {v.id: -v.steering.bias for v in views if v.sign > 0 and v.steering.bias < 0}
    noes |= {v.id: 1.0 for v in views if v.steering.muted}
    return [replace(v, against=noes[v.id]) if v.id in noes else v for v in views]


def _directions(sums: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    if sums is None:
        return None
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    units: NDArray[np.float32] = sums / np.maximum(lengths, np.float32(1e-12))
    return units


def _fresh(profile: Profile) -> Vector | None:
    """What the user is at: the short horizon, and the newest signals so far as they are trusted to lead."""
    trust = drift.trust(profile.drift)
    horizons = profile.horizons()
    short, newest = _unit(horizons[0] if horizons else None), _unit(drift.newest(profile.drift))
    if short is None or newest is None:
        return short
    return _unit(np.float32(1 - trust) * short + np.float32(trust) * newest)


def _unit(vector: Vector | None) -> Vector | None:
    norm = 0.0 if vector is None else float(np.linalg.norm(vector))
    return None if vector is None or norm <= 1e-12 else np.asarray(vector / np.float32(norm), dtype=np.float32)


def _interest_view(
    profile: Profile, interest: Interest, mass: float, whole: float, since: int, as_of: int, blender: Blender
) -> InterestView:
    return replace(
        unweighed_view(interest),
        weight=interest.sign * mass / whole,
        confidence=confidence(interest),
        trend=trend(profile, interest, since, as_of, blender),
        mass=mass,
    )


def unweighed_view(interest: Interest) -> InterestView:
    """Read what an interest is whatever it weighs; by itself, as one that is in no profile any more, nothing."""
    return InterestView(
        id=interest.id,
        weight=0.0,
        confidence=0.0,
        trend=Trend.FADING,
        signal_count=interest.signal_count,
        first=interest.first,
        last=interest.last,
        steering=interest.steering or Steering(),
        vector=interest.centroid,
        terms=_all_terms(interest),
        sign=interest.sign,
        topics={name: topic.vector for name, topic in interest.topics.items()},
        recurrent=frozenset(interest.recurrent),
        called=next(iter(interest.steered_terms), ""),
    )


def best_terms(interest: Interest, limit: int = 5) -> tuple[str, ...]:
    """Terms of an interest, those with most support first."""
    terms = _all_terms(interest)
    return tuple(sorted(terms, key=lambda term: (-terms[term], term))[:limit])


def _all_terms(interest: Interest) -> dict[str, float]:
    terms = dict(interest.terms)
    for term, support in interest.steered_terms.items():
        terms[term] = terms.get(term, 0.0) + support
    return terms


def _mass(profile: Profile, interest: Interest, as_of: int, blender: Blender) -> float:
    """Mass at a time with the user's word applied: muted is nothing, pinned never fades."""
    steering = interest.steering or Steering()
    if steering.muted:
        return 0.0
    held = profile.mass_of(interest)
    if steering.pinned:
        mass = float(held[FOREVER])
    else:
        mass = total_mass(held * decay(as_of - interest.updated, blender.lives), blender.settings.floor)
    return float((mass * belief(interest) + interest.steered_mass) * BIAS_FACTOR ** (steering.bias * interest.sign))


def belief(interest: Interest) -> float:
    """0…1: what an interest's signals count, half with one text or one day, and half of the rest with each more."""
    # A no is the user's explicit word, and costs little if it was a slip.
    if interest.sign < 0:
        return 1.0
    return float(1.0 - 0.5 ** min(interest.text_count, interest.day_count))


def confidence(interest: Interest) -> float:
    """0…1: distinct texts and days of support, times how well the signals agree with the centre."""
    if interest.signal_count == 0:
        return 1.0 if interest.steering is not None else 0.0
    # Several texts of one day are not independent; they count with their square root.
    support = math.sqrt(interest.day_count * interest.text_count)
    agreement = max(0.0, interest.agreement / interest.signal_count)
    return min(1.0, math.sqrt(agreement) * support / (support + SUPPORT_HALF))


def trend(profile: Profile, interest: Interest, since: int, as_of: int, blender: Blender) -> Trend:
    """Compare an interest's share of signals, and their rate at the short horizon, with those before.

    `since` (µs) is when the user's first signal came. A silence that is long for the interest is a farewell, too.
    """
    short_life = float(blender.lives[SHORT])
    age = max(as_of - since, 1)
    if as_of - interest.first <= NEW_HALF_LIVES * short_life:
        return Trend.NEW
    masses = profile.mass_of(interest)
    faded = masses * decay(as_of - interest.updated, blender.lives)
    # A window that began with the user has seen only 1 − 2^(−age/h) of its full length.
    windows = blender.lives[:FOREVER] * (1 - np.exp2(-age / blender.lives[:FOREVER]))
    rates = faded[:FOREVER] / windows
    short_rate, long_rate = float(rates[-1]), float(rates[:-1].sum())
    # One signal or day more than usual is chance: of a monthly habit, each would look like a rise.
    signal = float(masses[FOREVER]) / max(interest.signal_count, 1)
    day = profile.pace.clock / (profile.days + 1)
    chance = max(signal, day) / float(windows[-1])
    heading = pace.heading(interest.pace, profile.pace)
    usual_gap = (interest.last - interest.first) / max(interest.signal_count - 1, 1)
    silent = as_of - interest.last > max(2 * short_life, LONG_SILENCE * usual_gap)
    # Shares stand still while the user is away.
    if not silent and (heading > 0 or short_rate > 1.5 * long_rate + chance):
        return Trend.RISING
    # A share falls, too, while the user only does more of something else.
    if (heading < 0 or silent) and short_rate <= 0.5 * long_rate:
        return Trend.FADING
    return Trend.STEADY


def explain(events: Sequence[Event], blender: Blender, as_of: int) -> tuple[Profile, dict[str, list[Contribution]]]:
    """Replay with a trace: the profile, and for each interest the signals that made it.

    Shares follow each signal's decayed weight and are sorted, greatest first. Mass that the user's own word
    put in is a contribution with an empty signal id.
    """
    trace = Trace()
    profile = blender.replay(events, trace)
    grouped: dict[str, list[tuple[Evidence, float]]] = {interest.id: [] for interest in profile.interests}
    for evidence, interest_id, mass in trace.taken:
        grouped[trace.last_of(interest_id)].append((evidence, mass * trace.day_shares[evidence.time // MICROS_PER_DAY]))
    contributions = {
        interest.id: list(_shares(interest, grouped[interest.id], blender, as_of)) for interest in profile.interests
    }
    return profile, contributions


def _shares(
    interest: Interest, entries: Sequence[tuple[Evidence, float]], blender: Blender, as_of: int
) -> Iterable[Contribution]:
    floor = 0.0 if not (interest.steering and interest.steering.pinned) else 1.0
    floor = max(floor, blender.settings.floor)
    believed = belief(interest)
    masses = [(e, believed * mass * _kept(e, floor, blender, as_of)) for e, mass in entries]
    whole = sum(mass for _, mass in masses) + interest.steered_mass
    found = [Contribution(e.id, e.item_id, e.time, mass / whole if whole else 0.0) for e, mass in masses]
    if interest.steered_mass:
        topics = tuple(name for name, topic in interest.topics.items() if topic.more == (interest.sign > 0))
        found.append(Contribution("", "", interest.steered_time, interest.steered_mass / whole, topics))
    return sorted(found, key=lambda c: (-c.share, c.signal_id))


def _kept(evidence: Evidence, floor: float, blender: Blender, as_of: int) -> float:
    """Share of a signal's mass that time has left."""
    rule = weighing(evidence, blender.settings)
    fade: float = 2.0 ** (-max(as_of - evidence.time, 0) / (rule.half_life_days * MICROS_PER_DAY))
    return (1 - floor) * fade + floor


def matrix(interests: Sequence[InterestView]) -> NDArray[np.float32]:
    """Stack vectors: (k, d) float32."""
    return np.stack([interest.vector for interest in interests])
