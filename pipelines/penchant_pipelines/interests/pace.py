"""Pace: what share of a user's signals an interest takes of late, against before, counted by signals and not by days.

A window of days holds next to nothing of who posts twice a week, so that any silence looked like a farewell and no new
habit like a rise.
"""

from __future__ import annotations

import math

import msgspec

OF_LATE, BEFORE = 6.0, 64.0
"""Half-lives of the two windows, in mass: that of so many posts."""
SURE = 1.64
"""Standard deviations from which a change of the share is hardly chance: one in twenty is."""
RISEN, FALLEN = 1.5, 0.5
"""A share so many times what it was is a change that is worth a word."""


class Pace(msgspec.Struct):
    """Mass of an interest's signals, or of all, under either window; as of `clock`, the mass of all until then."""

    clock: float = 0.0
    late: float = 0.0
    before: float = 0.0

    def add(self, mass: float, clock: float) -> None:
        """Take in a signal, or another's mass as of the same `clock`."""
        passed = clock - self.clock
        self.late = self.late * math.exp2(-passed / OF_LATE) + mass
        self.before = self.before * math.exp2(-passed / BEFORE) + mass
        self.clock = clock

    def absorb(self, other: Pace) -> None:
        """Take in what another interest had."""
        self.add(0.0, max(self.clock, other.clock))
        other.add(0.0, self.clock)
        self.late += other.late
        self.before += other.before


class WholePace(Pace):
    """That of all signals, with the sums of squares that tell how few they are."""

    late_squares: float = 0.0
    before_squares: float = 0.0
    products: float = 0.0

    def add(self, mass: float, clock: float) -> None:
        """Take in a signal."""
        passed = clock - self.clock
        self.late_squares = self.late_squares * math.exp2(-2 * passed / OF_LATE) + mass**2
        self.before_squares = self.before_squares * math.exp2(-2 * passed / BEFORE) + mass**2
        self.products = self.products * math.exp2(-passed / OF_LATE - passed / BEFORE) + mass**2
        super().add(mass, clock)


def heading(pace: Pace, whole: WholePace) -> int:
    """Tell whether an interest's share is surely greater of late than before (1), smaller (−1), or neither.

    What the later window holds is taken out of the other. The variance is that of the difference of two weighted means
    of the same Bernoulli trials.
    """
    rest = whole.before - whole.late
    if rest <= 0:
        return 0
    passed = whole.clock - pace.clock
    mine, ever = pace.late * math.exp2(-passed / OF_LATE), pace.before * math.exp2(-passed / BEFORE)
    late, before = mine / whole.late, (ever - mine) / rest
    shared = whole.products - whole.late_squares
    squares = whole.before_squares - whole.products - shared
    # Of few signals a share of none or all is known no better than that.
    least = 1 / (whole.before**2 / whole.before_squares + 2)
    likely = min(max(ever / whole.before, least), 1 - least)
    spread = whole.late_squares / whole.late**2 + squares / rest**2 - 2 * shared / (whole.late * rest)
    sure = SURE * math.sqrt(max(likely * (1 - likely) * spread, 0.0))
    if late > RISEN * before and late - before > sure:
        return 1
    if late < FALLEN * before and before - late > sure:
        return -1
    return 0
