"""Shares of late and before: sums that fade with every signal, and what is surely a change."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant_pipelines.interests.pace import BEFORE, FALLEN, OF_LATE, RISEN, SURE, Pace, WholePace, heading

signals = st.lists(st.tuples(st.integers(0, 2), st.floats(0.01, 3)), min_size=1, max_size=40)


def paced(history: list[tuple[int, float]]) -> tuple[WholePace, list[Pace]]:
    """That of all, and of each of three interests, after signals of so much mass each."""
    whole, parts = WholePace(), [Pace() for _ in range(3)]
    for interest, mass in history:
        whole.add(mass, whole.clock + mass)
        parts[interest].add(mass, whole.clock)
    return whole, parts


def taken(interest: int, times: int) -> list[tuple[int, float]]:
    return [(interest, 1.0)] * times


@given(signals)
def test_sums_fade_by_what_came_after(history: list[tuple[int, float]]) -> None:
    whole, parts = paced(history)
    later, late, before, squares = 0.0, 0.0, 0.0, 0.0
    for _, mass in reversed(history):
        late += mass * 2 ** (-later / OF_LATE)
        before += mass * 2 ** (-later / BEFORE)
        squares += mass**2 * 2 ** (-2 * later / BEFORE)
        later += mass
    assert (whole.late, whole.before, whole.before_squares) == pytest.approx((late, before, squares))
    for part in parts:
        part.add(0.0, whole.clock)
    assert sum(part.late for part in parts) == pytest.approx(whole.late)
    assert sum(part.before for part in parts) == pytest.approx(whole.before)


@given(signals)
def test_what_is_merged_is_as_if_it_had_been_one(history: list[tuple[int, float]]) -> None:
    whole, parts = paced(history)
    _, (together, *_) = paced([(0 if interest == 1 else interest, mass) for interest, mass in history])
    for kept, gone in ((0, 1), (1, 0)):
        merged = copy.copy(parts[kept])
        merged.absorb(copy.copy(parts[gone]))
        merged.add(0.0, whole.clock)
        together.add(0.0, whole.clock)
        assert (merged.late, merged.before) == pytest.approx((together.late, together.before))


def test_a_share_that_changes_is_told_once_it_is_no_chance() -> None:
    half = (taken(0, 1) + taken(1, 1)) * 20
    assert [heading(part, paced(half)[0]) for part in paced(half)[1][:2]] == [0, 0]
    for more, told in ((2, [0, 0]), (10, [1, -1])):
        whole, parts = paced(half + taken(0, more))
        assert [heading(part, whole) for part in parts[:2]] == told
    # What comes rarely is missed no sooner than its rarity allows.
    whole, parts = paced((taken(0, 9) + taken(1, 1)) * 5 + taken(0, 12))
    assert heading(parts[1], whole) == 0


def test_a_small_change_of_a_large_share_is_worth_no_word_however_sure_it_is() -> None:
    whole, parts = paced((taken(0, 2) + taken(1, 1)) * 20 + taken(0, 10))  # from two thirds to nearly all
    assert [heading(part, whole) for part in parts[:2]] == [0, -1]
    whole, parts = paced((taken(0, 19) + taken(1, 1)) * 4 + (taken(0, 1) + taken(1, 1)) * 5)  # from nearly all to half
    assert [heading(part, whole) for part in parts[:2]] == [0, 1]


def test_a_change_is_sure_by_the_weight_of_each_signal_in_either_window() -> None:
    dice = np.random.default_rng(7)
    told = []
    for _ in range(500):
        chances = dice.random(2).repeat(dice.integers(1, 30, size=2))
        mine = dice.random(len(chances)) < chances
        masses = dice.choice([0.25, 1.0, 2.0], size=len(chances))
        later = masses.sum() - masses.cumsum()
        late, ever = (masses * 2 ** (-later / half_life) for half_life in (OF_LATE, BEFORE))
        rest = ever - late
        share, before, likely = (weights @ mine / max(weights.sum(), 1e-9) for weights in (late, rest, ever))
        least = 1 / (ever.sum() ** 2 / (ever**2).sum() + 2)
        likely = min(max(likely, least), 1 - least)
        variance = ((late / late.sum() - rest / max(rest.sum(), 1e-9)) ** 2).sum()
        sure = abs(share - before) > SURE * np.sqrt(likely * (1 - likely) * variance)
        told.append(sure * (int(share > RISEN * before) - int(share < FALLEN * before)) if rest.sum() > 1e-9 else 0)
        whole, parts = paced([(int(taken), mass) for taken, mass in zip(mine, masses, strict=True)])
        assert heading(parts[1], whole) == told[-1]
    assert min(told.count(way) for way in (-1, 0, 1)) > 20


def test_of_a_beginner_nothing_is_said() -> None:
    assert heading(Pace(), WholePace()) == 0
    unequal = ([(0, 1.0), (1, 0.2)], [(1, 0.5), (0, 2.0)])
    for history in (taken(0, 1), taken(0, 5), taken(0, 1) + taken(1, 1), taken(0, 2) + taken(1, 1), *unequal):
        whole, parts = paced(history)
        assert [heading(part, whole) for part in parts] == [0, 0, 0]
