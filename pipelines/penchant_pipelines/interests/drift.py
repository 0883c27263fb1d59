"""Drift: whether a user still writes about what the record says they care for.

The mean of the newest signals is compared with the mean of those before, and drift is told where both hold:
- they are apart by more than chance: the squared distance, in variances of a signal (Cohen's d², 1988);
- they point elsewhere: 1 − cosine, as seen from the middle of the space. Real people write a series on one thing and
  then another, longer and shorter texts: their means are never still. What stays is the direction, where it is still
  the same person writing.
A mean of few texts is long by what each shares with itself alone, which would hide either. All products are therefore
taken over pairs of different signals, as in a U-statistic (Hoeffding 1948): the cosine is then 1 where nothing changed,
however few signals the means hold. Nothing is learnt of a user but the two means.

Signals count, not days: of the days between two signals a change says nothing. Interests are never deleted by drift;
the newest signals are trusted more for a while.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from penchant_pipelines.settings import Section

Vector = NDArray[np.float32]

RESTART = 20
"""Signals that the mean counts for after an alarm: what comes next moves it fast."""
PAUSE = 10
"""Signals after an alarm without another: until then the newest ones are those that were told."""
WARINESS, SETTLED = 1.2, 40
"""How much more evidence another alarm takes while the mean is of few signals that came after one, and how many these
are: what is forgotten fast lets evidence ebb and gather anew where nothing changes."""
CAUTION = 0.5
"""Share by which a signal moves the mean less when an alarm is near: a change must not vouch for itself."""
LEAST_LENGTH = 0.06
"""Least squared length of a mean: over different signals alone it comes out near 0 where they have little in common."""
STIRRING = 0.25
"""Evidence from which a change may have begun."""
LEFT_BEHIND = 0.4
"""Share of the mean before that is taken out of what is newest where drift is told."""


class DriftSettings(Section):
    """When a change of interests is called drift."""

    min_signals: int = Field(default=20, ge=15, description="Signals that must have been seen before anything is said.")
    newest_share: float = Field(
        default=0.2, gt=0, lt=1, description="Share of the newest signal in what the newest ones are about."
    )
    distance: float = Field(
        default=0.05,
        gt=0,
        description="Squared distance of the newest signals' mean from the one before, in variances of a signal, at "
        "which drift is told.",
    )
    turn: float = Field(
        default=0.185,
        gt=0,
        le=2,
        description="1 − cosine between the two means, as seen from the middle of the space, that it takes besides.",
    )
    memory_signals: int = Field(
        default=200, ge=20, description="Signals that the mean reaches back, so that slow change passes for none."
    )
    trust_signals: int = Field(
        default=20,
        ge=1,
        description="Signals for which an alarm stands; it is renewed for as long as the change is plain.",
    )


class DriftState(msgspec.Struct):
    """What the detector remembers of a user.

    `alone` counts what signals share with themselves: Σ of the products of their weights in two means.
    """

    count: int = 0
    """Signals seen."""
    mean: Vector | None = None
    """(d,) mean of the signals before."""
    held: float = 0.0
    """Signals that the mean is made of."""
    mean_alone: float = 0.0
    """Part of |mean|² that is each signal with itself."""
    now: Vector | None = None
    """(d,) what the newest signals are about: their mean, each weighing less than the next."""
    now_alone: float = 0.0
    """The same of |now|²."""
    both_alone: float = 0.0
    """The same of now · mean."""
    evidence: float = 0.0
    """What speaks for drift: an alarm at 1."""
    onset: int | None = None
    """Event time (µs) at which the evidence last began to gather."""
    since: int | None = None
    """Onset of the change that was told last; None before the first."""
    remaining: int = 0
    """Signals for which the alarm still stands."""


class DriftReport(NamedTuple):
    """The answer for a caller; see the contract's `Drift`."""

    detected: bool
    magnitude: float
    since: int | None
    enough_evidence: bool
    recent_signal_count: int
    trust: float = 0.0
    """0…1, see `trust`."""


def observe(state: DriftState, vector: Vector, time: int, middle: Vector, settings: DriftSettings) -> None:
    """Take in one positive signal, a (d,) unit vector, at an event time (µs). `middle` (d,) is that of the space."""
    state.remaining = max(0, state.remaining - 1)
    state.count += 1
    share = max(settings.newest_share, 1 / state.count)
    if state.now is None or state.mean is None:
        state.now, state.mean = vector.copy(), vector.copy()
        state.held = state.now_alone = state.mean_alone = state.both_alone = 1.0
        return
    state.now = state.now + np.float32(share) * (vector - state.now)
    state.now_alone = (1 - share) ** 2 * state.now_alone + share**2
    state.both_alone *= 1 - share
    if state.count > settings.min_signals:
        _judge(state, state.now, state.mean, time, middle, settings)
    weight = 1 - CAUTION * min(1.0, max(0.0, state.evidence))
    state.held = min(state.held + weight, settings.memory_signals)
    step = weight / state.held
    state.mean = state.mean + np.float32(step) * (vector - state.mean)
    state.mean_alone = (1 - step) ** 2 * state.mean_alone + step**2
    state.both_alone = (1 - step) * state.both_alone + step * share


def _judge(state: DriftState, now: Vector, mean: Vector, time: int, middle: Vector, settings: DriftSettings) -> None:
    """Compare the newest signals with those before; tell drift if it is time."""
    recent = _over_pairs(now, now, state.now_alone)
    before = _over_pairs(mean, mean, state.mean_alone)
    common = _over_pairs(now, mean, state.both_alone)
    distance = (recent - 2 * common + before) / max(1 - before, LEAST_LENGTH)
    length, shift, held = float(middle @ middle), float(middle @ now), float(middle @ mean)
    apart = common - shift - held + length
    lengths = max(recent - 2 * shift + length, LEAST_LENGTH), max(before - 2 * held + length, LEAST_LENGTH)
    turn = 1 - apart / math.sqrt(lengths[0] * lengths[1])
    told_before = state.since is not None and state.held < SETTLED
    state.evidence = min(distance / settings.distance, turn / settings.turn) / (WARINESS if told_before else 1.0)
    if state.evidence < STIRRING:
        state.onset = None
    elif state.onset is None:
        state.onset = time
    if state.evidence >= 1 and state.remaining <= max(0, settings.trust_signals - PAUSE):
        state.since = state.onset
        state.remaining = settings.trust_signals
        state.held = min(state.held, RESTART)


def _over_pairs(one: Vector, other: Vector, alone: float) -> float:
    """Product of two means of unit vectors over pairs of different ones."""
    return (float(one @ other) - alone) / (1 - alone)


def trust(state: DriftState) -> float:
    """How far what is newest should lead, 0…1: wholly while drift is told, and before in step with the evidence.

    The square root makes it lead early: that helps where a change is under way and costs nothing measurable elsewhere.
    """
    return 1.0 if state.remaining else math.sqrt(min(1.0, max(0.0, state.evidence)))


def newest(state: DriftState) -> Vector | None:
    """What the newest signals are about, (d,) of any length; None before the first.

    Their mean still holds what came before a change, half of it after three signals. As far as a change is likely, part
    of the mean before is taken out.
    """
    if state.now is None or state.mean is None:
        return None
    return state.now - np.float32(LEFT_BEHIND * trust(state)) * state.mean


def report(
    state: DriftState, horizon_distance: float, recent_signal_count: int, settings: DriftSettings
) -> DriftReport:
    """What to tell a caller. `horizon_distance` is a cosine distance, 0…2; the magnitude is cut to 0…1.

    Of whom nothing recent is known, nobody can say that they are changing: an alarm goes by signals, silence by days.
    """
    detected = state.remaining > 0 and recent_signal_count > 0
    return DriftReport(
        detected=detected,
        magnitude=min(1.0, max(0.0, horizon_distance)),
        since=state.since if detected else None,
        enough_evidence=state.count > settings.min_signals,
        recent_signal_count=recent_signal_count,
        trust=trust(state),
    )
