"""Drift: whether a user still writes about what the record says they care for.

A change of interests shifts the mean of the signals' vectors. Two statistics look for it, and their sum alarms:
- CUSUM on how far each signal lies from the mean of those before, standardised by the user's own past (Page 1954):
  it sees at once that what comes is foreign;
- a multivariate EWMA of the deviations from that mean (Lowry et al. 1992), as a U-statistic: only what deviations have
  in common counts, so that it sees that what comes is foreign *in one direction*. One odd signal has nothing in common.
Both count signals, not days: of the days between two signals a change says nothing. An alarm starts them over against
what is new. Interests are never deleted by drift; the newest signals are trusted more for a while.
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

LAG = 6
"""Signals after which one counts as ordinary: a change must not vouch for itself."""
LEAST = 4
"""Signals whose mean can be deviated from."""
RESTART = 10
"""Signals that the mean counts for after an alarm: what comes next moves it fast."""
KEPT = 0.7
"""Share of the way to what is new that the mean stays behind at an alarm: a false one must not cost what is known."""
MOST_DEVIATIONS = 4.0
"""One signal is not told from another by more: the oddest text is still one."""
NEWEST = 0.2
"""Weight of the newest signal in what the newest ones are about."""
PRIOR_SIGNALS = 20
"""How many signals the two priors below are worth against the user's own."""
PRIOR_DEVIATION = 0.08
"""Usual standard deviation of the cosine between a signal and the mean of the user's others."""
PRIOR_SPREAD = 0.0925
"""Usual root mean square of the product of two signals' deviations from the mean."""


class DriftSettings(Section):
    """When a change of interests is called drift."""

    min_signals: int = Field(default=20, ge=15, description="Signals that must have been seen before anything is said.")
    slack: float = Field(default=0.5, ge=0, description="CUSUM's k: surprise below this many deviations is ordinary.")
    newest_share: float = Field(
        default=0.15, gt=0, lt=1, description="Share of the newest signal in what the recent ones have in common."
    )
    shift_weight: float = Field(
        default=2.0, ge=0, description="Weight of what recent signals have in common, against that of surprise."
    )
    threshold: float = Field(default=8.3, gt=0, description="Sum of both, in deviations, at which drift is told.")
    memory_signals: int = Field(
        default=200, ge=20, description="Signals that the mean reaches back, so that slow change passes for none."
    )
    trust_signals: int = Field(default=20, ge=1, description="Signals for which an alarm stands.")


class DriftState(msgspec.Struct):
    """What the detector remembers of a user."""

    count: int = 0
    """Signals seen."""
    mean: Vector | None = None
    """(d,) mean of the signals before."""
    held: int = 0
    """Signals that the mean is made of."""
    recent: Vector | None = None
    """(d,) decayed sum of deviations from the mean."""
    alone: float = 0.0
    """What |recent|² would be if the deviations had nothing in common."""
    now: Vector | None = None
    """(d,) what the newest signals are about: their mean, each weighing less than the next."""
    run: int = 0
    """Deviations in `recent`."""
    pending: list[tuple[float, float]] = []
    """Surprise and squared shared deviation of the newest signals, which the baseline has not learnt yet."""
    learnt: int = 0
    surprise: float = 0.0
    """Mean surprise."""
    square: float = 0.0
    """Sum of squared deviations from it (Welford)."""
    spread: float = 0.0
    """Sum of squared shared deviations."""
    cusum: float = 0.0
    evidence: float = 0.0
    """What speaks for drift, in deviations."""
    onset: int | None = None
    """Event time (µs) at which the CUSUM last left zero."""
    since: int | None = None
    """Onset of the change that is being told, None where there is none."""
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


def observe(state: DriftState, vector: Vector, time: int, settings: DriftSettings) -> None:
    """Take in one positive signal, a (d,) unit vector, at an event time (µs)."""
    if state.remaining:
        state.remaining -= 1
        if state.remaining == 0:
            state.since = None
    state.count += 1
    share = np.float32(NEWEST)
    state.now = vector.copy() if state.now is None else state.now + share * (vector - state.now)
    if state.mean is not None and state.held >= LEAST:
        state.evidence = _evidence(state, state.mean, vector, time, settings)
        if state.evidence >= settings.threshold:
            state.since = state.onset if state.onset is not None else time
            state.remaining = settings.trust_signals
            _start_over(state, settings)
    state.held = min(state.held + 1, settings.memory_signals)
    if state.mean is None:
        state.mean = vector.copy()
    else:
        state.mean = state.mean + (vector - state.mean) / np.float32(state.held)


def _evidence(state: DriftState, mean: Vector, vector: Vector, time: int, settings: DriftSettings) -> float:
    """Compare a signal with those before; how much speaks for drift, in deviations. 0 while there is too little."""
    deviation = vector - mean
    surprise = 1.0 - float(vector @ mean)
    kept = 1.0 - settings.newest_share
    shared = 0.0
    if state.recent is None:
        state.recent = deviation
    else:
        shared = float(deviation @ state.recent) ** 2 / _series(kept**2, state.run)
        state.recent = np.float32(kept) * state.recent + deviation
    state.alone = kept**2 * state.alone + float(deviation @ deviation)
    state.run += 1
    deviations = (surprise - state.surprise) / math.sqrt(
        (state.square + PRIOR_SIGNALS * PRIOR_DEVIATION**2) / (state.learnt + PRIOR_SIGNALS)
    )
    spread = math.sqrt((state.spread + PRIOR_SIGNALS * PRIOR_SPREAD**2) / (state.learnt + PRIOR_SIGNALS))
    ready = state.count > settings.min_signals
    if ready:
        state.cusum = max(0.0, state.cusum + min(deviations, MOST_DEVIATIONS) - settings.slack)
        if state.cusum == 0.0:
            state.onset = None
        elif state.onset is None:
            state.onset = time
    state.pending.append((surprise, shared))
    if len(state.pending) > LAG:
        _learn(state, *state.pending.pop(0))
    pairs = _series(kept**2, state.run) ** 2 - _series(kept**4, state.run)
    if not ready or pairs < 1e-9:
        return 0.0
    common = (float(state.recent @ state.recent) - state.alone) / math.sqrt(2 * pairs) / spread
    return state.cusum + settings.shift_weight * common


def _series(ratio: float, terms: int) -> float:
    """1 + ratio + ratio² + … of so many terms."""
    return (1 - ratio**terms) / (1 - ratio)


def _learn(state: DriftState, surprise: float, shared: float) -> None:
    state.learnt += 1
    delta = surprise - state.surprise
    state.surprise += delta / state.learnt
    state.square += delta * (surprise - state.surprise)
    state.spread += shared


def _start_over(state: DriftState, settings: DriftSettings) -> None:
    """Make what is new the baseline, so that the same change is not told twice."""
    if state.mean is not None and state.recent is not None:
        weights = _series(1.0 - settings.newest_share, state.run)
        state.mean = state.mean + np.float32((1 - KEPT) / weights) * state.recent
    state.held = min(state.held, RESTART)
    state.recent, state.alone, state.run = None, 0.0, 0
    state.pending, state.cusum, state.onset, state.evidence = [], 0.0, None, 0.0


def trust(state: DriftState, settings: DriftSettings) -> float:
    """How far what is newest should lead, 0…1: wholly while drift is told, and before in step with the evidence.

    The square root makes it lead early: that helps where a change is under way and costs nothing measurable elsewhere.
    """
    return 1.0 if state.remaining else math.sqrt(min(1.0, max(0.0, state.evidence / settings.threshold)))


def report(
    state: DriftState, horizon_distance: float, recent_signal_count: int, settings: DriftSettings
) -> DriftReport:
    """What to tell a caller. `horizon_distance` is a cosine distance, 0…2; the magnitude is cut to 0…1."""
    return DriftReport(
        detected=state.remaining > 0,
        magnitude=min(1.0, max(0.0, horizon_distance)),
        since=state.since if state.remaining > 0 else None,
        enough_evidence=state.count >= settings.min_signals,
        recent_signal_count=recent_signal_count,
        trust=trust(state, settings),
    )
