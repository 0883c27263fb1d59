"""Drift: whether a user still writes about what the record says they care for.

Each positive signal has a surprise r = 1 − max cos(signal, established interests) before it is blended in.
An interest is established once some signals have passed since it opened: one that the change itself has
just opened would swallow the surprise after a signal or two. Three detectors vote, two must agree:
- CUSUM on the surprise, standardised by the user's own past (Page 1954; k and h in standard deviations);
- a window test: the mean surprise of the newest few against the past (the two-window idea of ADWIN,
  Bifet & Gavaldà 2007, at one fixed cut, which bounds the state to a handful of numbers);
- the horizons: cosine distance between what is fresh (short half-life) and the long record.
Interests are never deleted by drift; the short horizon is trusted more for a while.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
from pydantic import Field

from penchant_pipelines.settings import Section


class DriftSettings(Section):
    """When a change of interests is called drift."""

    min_signals: int = Field(default=8, ge=3, description="Surprises that must have been seen before anything is said.")
    settle_signals: int = Field(
        default=12, ge=1, description="Signals after its opening from which an interest counts as established."
    )
    slack: float = Field(default=0.5, ge=0, description="CUSUM's k: surprise below this many deviations is ordinary.")
    threshold: float = Field(default=5.0, gt=0, description="CUSUM's h: summed deviations at which it votes.")
    window: int = Field(default=6, ge=2, le=64, description="Newest signals that the window test looks at.")
    window_deviations: float = Field(
        default=2.5, gt=0, description="Deviations of the window's mean at which it votes."
    )
    horizon_distance: float = Field(
        default=0.35, gt=0, le=2, description="Distance of fresh and long horizon at which it votes."
    )
    trust_signals: int = Field(default=10, ge=1, description="Signals for which an alarm lasts after the last vote.")


class DriftState(msgspec.Struct):
    """What the detector remembers of a user: a few numbers and the newest surprises."""

    count: int = 0
    mean: float = 0.0
    square: float = 0.0
    """Sum of squared deviations from the mean (Welford)."""
    cusum: float = 0.0
    onset: int | None = None
    """Event time (µs) at which the CUSUM last left zero."""
    recent: list[float] = []
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


def observe(state: DriftState, surprise: float, time: int, horizon_distance: float, settings: DriftSettings) -> None:
    """Take in one surprise (0…2) at an event time (µs). The distance is between the horizons before the blend."""
    enough = state.count >= settings.min_signals
    deviation = _deviation(state)
    if enough:
        z = (surprise - state.mean) / deviation
        state.cusum = max(0.0, state.cusum + min(z, 4.0) - settings.slack)
        if state.cusum == 0.0:
            state.onset = None
        elif state.onset is None:
            state.onset = time
    state.recent.append(surprise)
    if len(state.recent) > settings.window:
        # The baseline learns a surprise only once it has left the window: a change must not vouch for itself.
        _learn(state, state.recent.pop(0))
    if enough and _votes(state, deviation, horizon_distance, settings) >= 2:
        if state.remaining == 0:
            state.since = state.onset if state.onset is not None else time
        state.remaining = settings.trust_signals
        # Start over against a baseline that may now move: the same change is not told twice.
        state.cusum = min(state.cusum, settings.threshold)
    elif state.remaining:
        state.remaining -= 1
        if state.remaining == 0:
            state.since = None
            state.cusum = 0.0
            state.onset = None


def _votes(state: DriftState, deviation: float, horizon_distance: float, settings: DriftSettings) -> int:
    full = len(state.recent) == settings.window
    shift = (sum(state.recent) / len(state.recent) - state.mean) / (deviation / math.sqrt(len(state.recent)))
    return (
        (state.cusum >= settings.threshold)
        + (full and shift >= settings.window_deviations)
        + (horizon_distance >= settings.horizon_distance)
    )


def _deviation(state: DriftState) -> float:
    """Standard deviation of the user's surprise, kept off zero so that a monotonous past is no trap."""
    if state.count < 2:
        return 0.1
    return max(math.sqrt(state.square / (state.count - 1)), 0.05)


def _learn(state: DriftState, surprise: float) -> None:
    state.count += 1
    delta = surprise - state.mean
    state.mean += delta / state.count
    state.square += delta * (surprise - state.mean)


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
    )
