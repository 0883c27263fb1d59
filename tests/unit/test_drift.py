"""Drift: told soon where interests change, not where they don't, and never on thin evidence."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.interests.drift import (
    RESTART,
    SETTLED,
    WARINESS,
    DriftReport,
    DriftSettings,
    DriftState,
    newest,
    observe,
    report,
)

DIMENSIONS = 64
RULES = DriftSettings()
NOWHERE = np.zeros(DIMENSIONS, np.float32)
"""The middle of a space whose unrelated texts have nothing in common."""
HOUR = 3_600_000_000
Vectors = NDArray[np.float32]
law = settings(max_examples=25, deadline=None)


def texts(topics: list[int], count: int, seed: int) -> Vectors:
    """Texts about topics in turn, as an encoder gives them: near .45 to the topic's centre, all over the place else."""
    dice = np.random.default_rng(seed)
    centres = np.eye(DIMENSIONS)[[topics[place % len(topics)] for place in range(count)]]
    noise = dice.standard_normal((count, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    rows = 0.5 * centres + noise
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def told(vectors: Vectors, times: list[int] | None = None, middle: Vectors = NOWHERE) -> list[DriftReport]:
    """What is told after each signal; one an hour unless `times` says otherwise."""
    state, found = DriftState(), []
    for place, vector in enumerate(vectors):
        observe(state, vector, times[place] if times else place * HOUR, middle, RULES)
        found.append(report(state, 0.2, 3, RULES))
    return found


@pytest.mark.parametrize("topics", [[0], [0, 1], [0, 1, 2]])
def test_who_keeps_to_their_topics_is_hardly_ever_accused(topics: list[int]) -> None:
    assert sum(alarms(texts(topics, 120, seed)) for seed in range(60)) <= 60 * 100 / 500


def series(count: int, seed: int, own: int = 0) -> Vectors:
    """Texts of one person who writes some in a row on one of five subjects, then on another."""
    dice = np.random.default_rng(seed)
    rows: list[NDArray[np.float64]] = []
    while len(rows) < count:
        centre = 0.7 * np.eye(DIMENSIONS)[own] + 0.35 * np.eye(DIMENSIONS)[own + 1 + dice.integers(5)]
        rows.extend(centre + dice.standard_normal(DIMENSIONS) / np.sqrt(DIMENSIONS) for _ in range(dice.integers(3, 9)))
    stream = np.stack(rows[:count])
    return np.asarray(stream / np.linalg.norm(stream, axis=1, keepdims=True), dtype=np.float32)


def alarms(vectors: Vectors) -> int:
    """Times that drift is told anew."""
    detected = [one.detected for one in told(vectors)]
    return sum(now and not before for before, now in pairwise(detected))


def test_a_series_of_posts_on_one_subject_is_no_drift() -> None:
    assert sum(alarms(series(120, seed)) for seed in range(40)) <= 40 * 100 / 500


def test_who_writes_in_series_is_told_to_have_changed() -> None:
    found = [told(np.concatenate([series(60, seed), series(20, seed + 1000, own=20)])) for seed in range(40)]
    assert sum(any(one.detected for one in reports[60:]) for reports in found) >= 38


def test_longer_texts_on_the_same_are_no_drift() -> None:
    """What says more about a subject lies farther out, in the same direction."""
    for seed in range(20):
        short, long = texts([0], 60, seed), 0.5 * texts([0], 40, seed + 1000) + 0.35 * np.eye(DIMENSIONS)[0]
        lengths = np.linalg.norm(long, axis=1, keepdims=True)
        assert alarms(np.concatenate([short, np.asarray(long / lengths, dtype=np.float32)])) == alarms(short)


def test_a_change_is_told_whatever_all_texts_have_in_common() -> None:
    common = np.eye(DIMENSIONS, dtype=np.float32)[60]

    def together(rows: Vectors) -> Vectors:
        joined = rows + 1.5 * common
        return np.asarray(joined / np.linalg.norm(joined, axis=1, keepdims=True), dtype=np.float32)

    middle = together(np.zeros((1, DIMENSIONS), np.float32))[0] * np.float32(1.5 / np.hypot(1, 1.5))
    noticed = {}
    for name, seen_from in (("the middle", middle), ("the origin", NOWHERE)):
        found = [
            told(together(np.concatenate([texts([0], 50, seed), texts([3], 20, seed + 1)])), middle=seen_from)
            for seed in range(20)
        ]
        noticed[name] = sum(any(one.detected for one in reports[50:]) for reports in found)
        assert sum(one.detected for reports in found for one in reports[:50]) <= 20
    assert noticed["the middle"] >= 19
    assert noticed["the origin"] < noticed["the middle"]


def test_who_fell_silent_is_not_said_to_be_changing() -> None:
    state = DriftState()
    for place, vector in enumerate(np.concatenate([texts([0], 60, 1), texts([3], 15, 2)])):
        observe(state, vector, place * HOUR, NOWHERE, RULES)
    lately, long_after = report(state, 0.2, 8, RULES), report(state, 0.2, 0, RULES)
    assert lately.detected
    assert lately.since is not None
    assert (long_after.detected, long_after.since) == (False, None)


def test_one_change_is_told_once() -> None:
    streams = [np.concatenate([texts([0], 50, seed), texts([3], 100, seed + 1000)]) for seed in range(40)]
    assert np.mean([alarms(stream) for stream in streams]) <= 1.3


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("change", [30, 90])
@pytest.mark.parametrize("after", [[3], [3, 4]])
def test_a_new_topic_is_told_soon_with_its_beginning(seed: int, change: int, after: list[int]) -> None:
    stream = np.concatenate([texts([0], change, seed), texts(after, 20, seed + 1)])
    found = told(stream)
    first = next(place for place in range(change, len(stream)) if found[place].detected)
    assert first < change + 15
    since = found[first].since
    assert since is not None
    assert (change - 10) * HOUR <= since <= first * HOUR


def test_a_change_is_dated_by_its_beginning_and_not_by_when_it_was_told() -> None:
    earlier = []
    for seed in range(10):
        found = told(np.concatenate([texts([0], 50, seed), texts([3], 10, seed + 1000)]))
        first = next(place for place in range(50, 60) if found[place].detected)
        earlier.append(first - (found[first].since or 0) / HOUR)
    assert float(np.median(earlier)) >= 1


def test_what_texts_share_with_themselves_is_left_out_to_the_last_digit() -> None:
    state = DriftState()
    # Signals that have nothing in common: all that two means share is each signal with itself.
    for place, vector in enumerate(np.eye(DIMENSIONS, dtype=np.float32)):
        observe(state, vector, place * HOUR, NOWHERE, RULES)
        assert state.now is not None
        assert state.mean is not None
        shared = [state.now @ state.now, state.mean @ state.mean, state.now @ state.mean]
        assert shared == pytest.approx([state.now_alone, state.mean_alone, state.both_alone], rel=1e-4)


def test_who_changes_slowly_is_not_told_of_drift_however_far_they_get() -> None:
    angles = np.linspace(0, np.pi / 2, 1500)[:, None]
    way = np.cos(angles) * np.eye(DIMENSIONS)[0] + np.sin(angles) * np.eye(DIMENSIONS)[3]
    rows = 0.5 * way + np.random.default_rng(1).standard_normal((1500, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    assert alarms(np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)) == 0


def test_most_changes_are_told_within_five_signals() -> None:
    delays = []
    for seed in range(40):
        found = told(np.concatenate([texts([0], 50, seed), texts([3], 20, seed + 1000)]))
        delays.append(next(place for place in range(50, 70) if found[place].detected) - 49)
    assert float(np.median(delays)) <= 5


def test_what_is_newest_leaves_the_old_topic_behind_as_far_as_a_change_is_likely() -> None:
    old, new = np.eye(DIMENSIONS, dtype=np.float32)[[0, 3]]
    shares = []
    for seed in range(40):
        state = DriftState()
        for vector in np.concatenate([texts([0], 50, seed), texts([3], 5, seed + 1000)]):
            observe(state, vector, 0, NOWHERE, RULES)
        lately = newest(state)
        assert lately is not None
        assert state.now is not None
        shares.append((lately @ old / (lately @ new), state.now @ old / (state.now @ new)))
    without, with_old = np.mean(shares, axis=0)
    assert abs(without) < 0.5 * with_old


def test_before_the_first_signal_nothing_is_newest() -> None:
    assert newest(DriftState()) is None


def test_one_odd_text_is_no_drift() -> None:
    for seed in range(20):
        stream = texts([0], 60, seed)
        stream[50] = texts([7], 1, seed)[0]
        calm = told(texts([0], 60, seed))
        assert [one.detected for one in told(stream)[50:52]] == [one.detected for one in calm[50:52]]


@law
@given(st.integers(0, 10_000), st.integers(1, RULES.min_signals - 1))
def test_thin_evidence_is_admitted(seed: int, count: int) -> None:
    found = told(np.concatenate([texts([0], count, seed), texts([3], RULES.min_signals, seed)]))
    for place, one in enumerate(found, start=1):
        assert one.enough_evidence == (place > RULES.min_signals)
        assert one.enough_evidence or not (one.detected or one.trust)


@law
@given(st.integers(0, 10_000), st.lists(st.integers(1, 400), min_size=80, max_size=80))
def test_signals_count_and_not_days(seed: int, hours: list[int]) -> None:
    stream = np.concatenate([texts([0], 50, seed), texts([3], 30, seed)])
    times = [int(time) * HOUR for time in np.cumsum(hours)]
    assert [one.detected for one in told(stream, times)] == [one.detected for one in told(stream)]


@law
@given(st.integers(0, 10_000))
def test_directions_have_no_names(seed: int) -> None:
    stream = np.concatenate([texts([0], 50, seed), texts([3], 30, seed)])
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((DIMENSIONS, DIMENSIONS)))
    turned = [one.trust for one in told((stream @ turn).astype(np.float32))]
    # Where the evidence lies within rounding of the threshold, either answer is right.
    assert np.isclose(turned, [one.trust for one in told(stream)], atol=2e-2).mean() >= 0.95


def test_an_alarm_ends_and_the_new_topic_becomes_ordinary() -> None:
    found = told(np.concatenate([texts([0], 50, 1), texts([3], 150, 2)]))
    detected = [one.detected for one in found]
    assert any(detected[50:60])
    assert not any(detected[-60:])
    assert found[-1].since is None


@pytest.mark.parametrize(("held", "more"), [(RESTART, WARINESS), (SETTLED - 2, WARINESS), (SETTLED, 1.0), (150, 1.0)])
def test_soon_after_a_change_another_one_takes_more_evidence(held: float, more: float) -> None:
    state = DriftState()
    *known, latest = np.concatenate([texts([0], 50, 3), texts([3], 4, 4)])
    for place, vector in enumerate(known):
        observe(state, vector, place * HOUR, NOWHERE, RULES)
    state.held = held
    changed = msgspec.structs.replace(state, since=30 * HOUR)

    observe(state, latest, 60 * HOUR, NOWHERE, RULES)
    observe(changed, latest, 60 * HOUR, NOWHERE, RULES)

    assert state.evidence == pytest.approx(more * changed.evidence, rel=1e-6)
    assert state.evidence > 0


@pytest.mark.parametrize(("distance", "magnitude"), [(-0.1, 0.0), (0.4, 0.4), (1.7, 1.0)])
def test_the_magnitude_is_a_share(distance: float, magnitude: float) -> None:
    assert report(DriftState(), distance, 0, RULES).magnitude == magnitude


def test_trust_grows_with_the_evidence_before_the_alarm() -> None:
    streams = [told(np.concatenate([texts([0], 50, seed), texts([3], 20, seed + 1000)])) for seed in range(40)]
    assert all(0 <= one.trust <= 1 for found in streams for one in found)
    assert all(one.trust == 1 for found in streams for one in found if one.detected)
    before, soon, later = (float(np.mean([found[place].trust for found in streams])) for place in (49, 51, 53))
    assert before + 0.1 < soon < later - 0.1
