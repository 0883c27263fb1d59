"""Blending signals into interests, in (time, id) order; and replay, which is the same from the start.

A signal joins the nearest interest of its sign if their cosine reaches θ, else it opens one. Above K
interests the two whose union costs least by Ward's criterion merge (Ward 1963; as in PinnerSage, Pal et al. 2020).
What repeats itself counts once (`repeats.py`), and no day more than a usual one (`Profile.begin`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests import drift
from penchant_pipelines.interests.calibration import Calibration
from penchant_pipelines.interests.evidence import STEERING, Evidence, SteeringEvent, Vector, weighing
from penchant_pipelines.interests.horizons import HORIZONS, faded
from penchant_pipelines.interests.settings import InterestSettings
from penchant_pipelines.interests.state import (
    FOREVER,
    SHORT,
    Interest,
    Profile,
    Topic,
    decay,
    half_lives,
    total_mass,
)
from penchant_pipelines.interests.terms import are_named, gather, is_same, recurring
from penchant_pipelines.model import MICROS_PER_DAY, Action, Steering

MAX_TERMS = 40
OPENING_CLOSENESS = 1 / 3
STEERED_MASS = 1.0
"""Mass of a full steer (bias ±1): as much as one post, but it never fades."""

LEAST_PAST = 1e-6
"""Length that a faded past keeps at least, for its direction's sake."""

SURE = 1 / 3
"""How far from θ to 1 the cosine of a topic with an interest must be for the one to mean the other."""

FORMAT = 15
"""Of stored profiles, and of all that goes into them besides the settings: a change makes them anew."""

Event = Evidence | SteeringEvent


@dataclass(slots=True)
class Trace:
    """What became of each signal in a replay."""

    taken: list[tuple[Evidence, str, float]] = field(default_factory=list)
    """Evidence, id of the interest that took it, mass as if its day counted whole."""
    merged: dict[str, str] = field(default_factory=dict)
    """Ids of interests that went into others, to those of the latter."""
    day_shares: dict[int, float] = field(default_factory=dict)
    """What share of a day's mass counts, by day since 1970."""
    said: list[tuple[str, str]] = field(default_factory=list)
    """Ids of the user's words, and of the interests that they were put on."""

    def last_of(self, interest_id: str) -> str:
        """The interest that one is in at the end: itself, unless it went into another."""
        while interest_id in self.merged:
            interest_id = self.merged[interest_id]
        return interest_id


@dataclass(frozen=True)
class Recipe:
    """All that a profile depends on besides its events."""

    settings: InterestSettings
    calibration: Calibration
    space_id: str

    @functools.cached_property
    def digest(self) -> str:
        """Changes whenever stored profiles must be made anew."""
        similarity, middle = self.calibration.similarity, self.calibration.middle.tobytes().hex()
        parts = (FORMAT, HORIZONS, self.space_id, similarity, middle, self.settings.model_dump_json())
        return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:16]


class Blender:
    """Blends events into profiles by one recipe. Stateless between calls; profiles are changed in place."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.settings = recipe.settings
        self.calibration = recipe.calibration
        self.lives = half_lives(recipe.settings)
        self._columns = {float(life): column for column, life in enumerate(self.lives[:SHORT])}
        self.long_life = recipe.settings.post.half_life_days * MICROS_PER_DAY
        self._horizons = np.array([self.lives[SHORT], self.long_life])

    def replay(self, events: Iterable[Event], trace: Trace | None = None) -> Profile:
        """Make a profile from events sorted by (time, id). Undone actions leave no mark."""
        return self.resume(Profile(), standing(list(events)), trace)

    def resume(self, profile: Profile, events: Iterable[Event], trace: Trace | None = None) -> Profile:
        """Blend further events into a profile, sorted and later than all in it, of those that are `standing`."""
        for event in events:
            if isinstance(event, SteeringEvent):
                self.steer(profile, event, trace)
            else:
                self.add(profile, event, trace)
        return profile

    def add(self, profile: Profile, evidence: Evidence, trace: Trace | None = None) -> str | None:
        """Blend one signal, not earlier than any before. Returns the id of the interest that took it, if any."""
        if evidence.vector is None or evidence.action is Action.UNDO:
            return None
        rule = weighing(evidence, self.settings)
        if rule.weight == 0.0:
            return None
        sign = 1 if rule.weight > 0 else -1
        vector = evidence.vector
        self._advance(profile, evidence.time)
        mass, repeated = profile.repeats.take(vector, rule.weight, evidence.time, self.long_life)
        nearest, cosine = self.nearest(profile.interests, vector, sign)
        if sign > 0:
            if not repeated:
                drift.observe(profile.drift, vector, evidence.time, self.calibration.middle, self.settings.drift)
            profile.today = _added(profile.today, vector, mass)
            self._extend_past(profile, vector, mass, rule.weight, evidence.time)
        profile.day_mass += mass
        profile.fresh_count += 1
        profile.support += mass
        if evidence.language not in ("", "und"):
            profile.languages[evidence.language] = profile.languages.get(evidence.language, 0.0) + mass
        if nearest is None or (cosine < self.calibration.similarity and not repeated):
            # A caller's id may look like that of a steering event, which names what that opens.
            key = f"\x1f{evidence.id}" if evidence.id.startswith(STEERING) else evidence.id
            nearest, cosine = self._opened(key, sign, vector, evidence.time), 1.0
            profile.interests.append(nearest)
        nearest.text_count += not repeated
        if not repeated and (again := recurring(nearest.terms, evidence.terms)):
            nearest.recurrent = sorted(again.union(nearest.recurrent))
        # What a day brings beyond a usual one is no habit yet.
        counted = min(profile.day_mass, profile.usual_day) - min(profile.day_mass - mass, profile.usual_day)
        profile.pace.add(counted, profile.pace.clock + counted)
        nearest.pace.add(counted, profile.pace.clock)
        column = self._columns[rule.half_life_days * MICROS_PER_DAY]
        self._join(nearest, vector, mass, profile.day_share, column, cosine, evidence)
        taken_by = nearest.id
        if len(profile.interests) > self.settings.max_interests:
            kept, gone = self._merge_nearest(profile, trace)
            if taken_by == gone:
                taken_by = kept
        if trace is not None:
            trace.taken.append((evidence, taken_by, mass))
            trace.day_shares[evidence.time // MICROS_PER_DAY] = profile.day_share
        return taken_by

    def steer(self, profile: Profile, event: SteeringEvent, trace: Trace | None = None) -> Interest:
        """Put the user's word on the interest it means, else on a new one; returns that.

        Taken back, a word leaves nothing behind: what it alone had opened is not in the profile any more.
        """
        # No day begins with it: what signals tell of habits is as it was.
        steered = self.meant(profile, event)
        if event.steering == Steering():
            return self._take_back(profile, steered or self.opened_by(event))
        if steered is None:
            steered = self.opened_by(event)
            profile.interests.append(steered)
        if trace is not None:
            trace.said.append((event.id, steered.id))
        bias, pinned = event.steering.bias, event.steering.pinned
        if steered.signal_count == 0:
            steered.sign = _wanted(event)
        steered.steering, steered.steered_time = event.steering, event.time
        steered.steered_mass = STEERED_MASS * abs(bias) if bias * steered.sign > 0 else 0.0
        if pinned:
            steered.steered_mass = max(steered.steered_mass, STEERED_MASS)
        if event.topic:
            said = event.topic.strip()
            for other in list(profile.interests):
                # What was said of it before holds no more.
                left = {known: topic for known, topic in other.topics.items() if not is_same(known, said)}
                if other is not steered and other.topics and not left:
                    self._take_back(profile, other)
                other.topics = left
            steered.topics[said] = Topic(event.steering.for_more, event.vector)
        if len(profile.interests) > self.settings.max_interests:
            self._merge_nearest(profile, trace, newest=steered)
        return steered

    def meant(self, profile: Profile, event: SteeringEvent) -> Interest | None:
        """Find the interest that the user's word is about; None where it is about none that the profile has.

        A neighbour is near, too: a topic means an interest only if it names it, or lies well above θ.
        """
        # A like and a dislike of one thing lie in the same place: only the name tells them apart.
        named = profile.find(event.interest_id)
        if named is not None:
            return named
        written = profile.interests
        levels = [(written, self.calibration.similarity)]
        # What it was about may go by another name since, where earlier signals came late; a like stays a like.
        signs: tuple[int, ...] = (event.sign,)
        spoken_of = None
        if event.topic:
            said = event.topic.strip()
            spoken_of = next((i for i in profile.interests if any(is_same(known, said) for known in i.topics)), None)
            if spoken_of is not None and (spoken_of.sign > 0 or event.steering == Steering()):
                return spoken_of
            # Single words lie near each other whatever they mean.
            written = [interest for interest in profile.interests if interest.signal_count]
            words = event.terms[1:] or event.terms
            named_so = [interest for interest in written if are_named(interest.terms, interest.recurrent, said, words)]
            sure = self.calibration.similarity + SURE * (1 - self.calibration.similarity)
            levels = [(named_so, self.calibration.similarity), (written, sure)]
            # A short refusal lies nearest to a bare topic, but it is what the user likes that is to be more, less or
            # silent, also where less of it was asked for before; and more of it is not said of a dislike.
            signs = (1,) if event.steering.for_more or spoken_of is not None else (1, -1)
        for sign in signs:
            for interests, level in levels:
                nearest, cosine = self.nearest(interests, event.vector, sign)
                if nearest is not None and cosine >= level:
                    return nearest
        return None if spoken_of is not None and event.steering.for_more and _is_no(spoken_of) else spoken_of

    def opened_by(self, event: SteeringEvent) -> Interest:
        """Make the interest that the user's word opens where it is about none that there is.

        One that was named, and whose signals are gone, keeps its id.
        """
        opened = self._opened(event.id, _wanted(event), event.vector, event.time)
        opened.id = event.interest_id or opened.id
        opened.steered_terms = {term: 2.0 / (1 + rank) for rank, term in enumerate(event.terms)}
        return opened

    def _take_back(self, profile: Profile, steered: Interest) -> Interest:
        """Leave an interest as inferred from its signals; without any it goes."""
        steered.steering, steered.steered_time, steered.steered_mass, steered.topics = None, 0, 0.0, {}
        if steered.signal_count:
            steered.steered_terms = {}
        else:
            profile.interests = [interest for interest in profile.interests if interest is not steered]
        return steered

    def horizon_distance(self, profile: Profile) -> float:
        """Cosine distance between the fresh and the long horizon, 0…2; 0 while either is empty."""
        horizons = profile.horizons()
        if horizons is None:
            return 0.0
        fresh, long = horizons
        norms = float(np.linalg.norm(fresh)) * float(np.linalg.norm(long))
        return 1.0 - float(fresh @ long) / norms if norms > 1e-12 else 0.0

    def _advance(self, profile: Profile, time: int) -> None:
        """Let the horizons fade up to `time`; a new day begins there, if it does."""
        profile.begin(time // MICROS_PER_DAY)
        fresh, long = decay(time - profile.updated, self._horizons)
        if profile.fresh is not None and profile.long is not None:
            profile.fresh *= np.float32(fresh)
            profile.long *= np.float32(long)
        profile.fresh_count *= float(fresh)
        profile.support *= float(long)
        profile.languages = {name: mass * float(long) for name, mass in profile.languages.items()}
        profile.updated = max(profile.updated, time)

    def _extend_past(self, profile: Profile, vector: Vector, mass: float, weight: float, time: int) -> None:
        """Add a signal to the past, which fades from one liked signal to the next, not by the calendar.

        After a long pause all would be as good as nothing otherwise. What repeats itself is no signal more, so far as
        it adds nothing.
        """
        if profile.past is None:
            profile.past = np.zeros((len(HORIZONS), len(vector)), dtype=np.float32)
        elapsed = max(time - profile.past_until, 0) / MICROS_PER_DAY
        left = profile.past * faded(np.array([mass / weight]), np.array([elapsed])).astype(np.float32)
        # What nothing new replaces keeps its direction, however little is left of it.
        lengths = np.sqrt(np.einsum("hd,hd->h", left, left))[:, None]
        if lengths.min() < LEAST_PAST:
            left *= np.where((lengths > 0) & (lengths < LEAST_PAST), LEAST_PAST / np.maximum(lengths, 1e-38), 1.0)
        left += np.float32(mass) * vector
        profile.past = left
        profile.past_until = time

    def nearest(self, interests: Sequence[Interest], vector: Vector, sign: int) -> tuple[Interest | None, float]:
        """Find the interest of this sign (0: any) with the highest cosine."""
        fitting = [interest for interest in interests if sign in (0, interest.sign)]
        if not fitting:
            return None, 0.0
        centroids = np.concatenate([interest.centroid for interest in fitting]).reshape(len(fitting), -1)
        cosines = self.calibration.cosines(centroids, vector[None])[:, 0]
        best = int(np.argmax(cosines))
        return fitting[best], float(cosines[best])

    def _opened(self, key: str, sign: int, vector: Vector, time: int) -> Interest:
        return Interest(
            id="i-" + hashlib.sha256(key.encode()).hexdigest()[:12],
            sign=sign,
            centroid=vector.astype(np.float32),
            mass=np.zeros(len(self.lives)),
            updated=time,
            first=time,
            last=time,
            today=np.zeros(len(self.lives)),
        )

    def _join(
        self,
        interest: Interest,
        vector: Vector,
        mass: float,
        day_share: float,
        column: int,
        cosine: float,
        evidence: Evidence,
    ) -> None:
        fade = decay(evidence.time - interest.updated, self.lives)
        interest.mass *= fade
        interest.today *= fade
        held = total_mass(interest.mass + day_share * interest.today, self.settings.floor)
        interest.centroid = _unit(held * interest.centroid + day_share * mass * vector, interest.centroid)
        for place in (column, SHORT, FOREVER):
            interest.today[place] += mass
        day = evidence.time // MICROS_PER_DAY
        if interest.signal_count == 0 or day != interest.last // MICROS_PER_DAY:
            interest.day_count += 1
        interest.updated = interest.last = evidence.time
        interest.signal_count += 1
        interest.agreement += cosine
        if interest.signal_count == 1:
            interest.first = evidence.time
        # Terms of texts near the centre count more: closeness ranks them without a pass of the encoder.
        # The opening text is its own centre, which says nothing; it counts like one at the usual distance.
        closeness = OPENING_CLOSENESS if interest.signal_count == 1 else max(cosine, 0.05)
        told = day_share * mass * closeness
        gather(interest.terms, ((term, told / (1 + 0.25 * rank)) for rank, term in enumerate(evidence.terms)))
        if len(interest.terms) > MAX_TERMS:
            best = sorted(interest.terms.items(), key=lambda pair: (-pair[1], pair[0]))[: MAX_TERMS // 2]
            interest.terms = dict(best)
            interest.recurrent = [term for term in interest.recurrent if term in interest.terms]

    def _merge_nearest(self, profile: Profile, trace: Trace | None, newest: Interest | None = None) -> tuple[str, str]:
        """Merge the cheapest pair of one sign, sparing what the user steered. Returns (kept, gone).

        `newest` is what the user has just steered: it stays, whatever else must go.
        """
        interests = profile.interests
        newest_time = max(interest.updated for interest in interests)
        masses = np.array(
            [
                total_mass(profile.mass_of(i) * decay(newest_time - i.updated, self.lives), self.settings.floor)
                + i.steered_mass
                for i in interests
            ]
        )
        centroids = np.stack([interest.centroid for interest in interests])
        signs = np.array([interest.sign for interest in interests])
        steered = np.array([2 if i is newest else int(i.steering is not None) for i in interests])
        # Words weigh something even where there is no mass behind them: of mutes alone the nearest merge, too.
        weights = np.maximum(masses, STEERED_MASS * (steered > 0))
        cost: NDArray[np.float64] = (
            np.outer(weights, weights)
            / np.maximum(np.add.outer(weights, weights), 1e-12)
            * (2 - 2 * self.calibration.cosines(centroids, centroids))
        )
        # Touching one steered interest is better than losing the user's word on one of two; of more than two
        # interests some are of one sign, so a like and a dislike never merge.
        cost += 1e6 * (np.maximum.outer(steered, steered) > 0)
        cost += 1e9 * (np.minimum.outer(steered, steered) > 0)
        cost[np.not_equal.outer(signs, signs)] = np.inf
        cost[np.tril_indices(len(interests))] = np.inf
        first, second = divmod(int(np.argmin(cost)), len(interests))
        kept, gone = interests[first], interests[second]
        if (steered[second], masses[second]) > (steered[first], masses[first]):
            kept, gone = gone, kept
        self._absorb(kept, gone, profile.day_share)
        if trace is not None:
            trace.merged[gone.id] = kept.id
        profile.interests = [interest for interest in interests if interest is not gone]
        return kept.id, gone.id

    def _absorb(self, kept: Interest, gone: Interest, day_share: float) -> None:
        now = max(kept.updated, gone.updated)
        own, other = decay(now - kept.updated, self.lives), decay(now - gone.updated, self.lives)
        floor = self.settings.floor
        # Words name a direction even where there is no mass behind them, as with a muted topic.
        held = total_mass(own * (kept.mass + day_share * kept.today), floor)
        held += STEERED_MASS if kept.steering is not None else 0.0
        joined = total_mass(other * (gone.mass + day_share * gone.today), floor)
        kept.centroid = _unit(held * kept.centroid + joined * gone.centroid, kept.centroid)
        kept.mass = own * kept.mass + other * gone.mass
        kept.today = own * kept.today + other * gone.today
        kept.updated = now
        kept.day_count += gone.day_count - _common_days(kept, gone)
        kept.text_count += gone.text_count
        kept.first, kept.last = min(kept.first, gone.first), max(kept.last, gone.last)
        kept.signal_count += gone.signal_count
        kept.agreement += gone.agreement
        kept.pace.absorb(gone.pace)
        if kept.steering is not None and gone.steering is not None and kept.steering.muted and gone.steering.muted:
            kept.topics |= gone.topics
        kept.recurrent = sorted({*kept.recurrent, *gone.recurrent, *recurring(kept.terms, gone.terms)})
        gather(kept.terms, gone.terms.items())


def standing(events: Sequence[Event]) -> list[Event]:
    """Those that are neither taken back nor take back."""
    undone = undone_ids(events)
    return [
        event
        for event in events
        if isinstance(event, SteeringEvent) or not (event.action is Action.UNDO or event.id in undone)
    ]


def undone_ids(events: Iterable[Event]) -> set[str]:
    """Ids of the actions that an UNDO takes back."""
    return set(undo_times(events))


def undo_times(events: Iterable[Event]) -> dict[str, int]:
    """When an UNDO takes an action back, µs by its id: each undoes the latest one on its item still standing.

    Of one time it comes after all else: ids are often random, and clocks of a second's step are many.
    """
    standing: dict[str, list[str]] = {}
    undone: dict[str, int] = {}
    actions = (event for event in events if isinstance(event, Evidence) and event.action is not None)
    for event in sorted(actions, key=lambda event: (event.time, event.action is Action.UNDO)):
        stack = standing.setdefault(event.item_id, [])
        if event.action is not Action.UNDO:
            stack.append(event.id)
        elif stack:
            undone[stack.pop()] = event.time
    return undone


def _wanted(event: SteeringEvent) -> int:
    return -1 if event.steering.bias < 0 else 1


def _is_no(interest: Interest) -> bool:
    """Whether signals say that the user does not want it; what the user's word alone opened turns with the next."""
    return interest.sign < 0 and interest.signal_count > 0


def _common_days(one: Interest, other: Interest) -> int:
    """Most days that two interests can have in common: support must not grow by a merge."""
    overlap = min(one.last, other.last) // MICROS_PER_DAY - max(one.first, other.first) // MICROS_PER_DAY + 1
    return max(0, min(overlap, one.day_count, other.day_count))


def _added(total: Vector | None, vector: Vector, mass: float) -> Vector:
    return (vector * np.float32(mass)) if total is None else total + vector * np.float32(mass)


def _unit(vector: NDArray[np.floating], otherwise: Vector) -> Vector:
    """Scale to length 1; opposites that cancel out leave no direction to take."""
    norm = float(np.linalg.norm(vector))
    return np.asarray(vector / norm, dtype=np.float32) if norm > 1e-6 else otherwise
