"""Is "rising" or "fading" said of what does so, and of nothing else? Of users whose habits are known, at several rates.

    .venv/bin/python benchmarks/trends.py

Invented users do something so many times a week on average, by chance (Poisson), for half a year, and take the subject
of each by shares that change after 13 weeks or do not. Prints the share of users of whose second subject "rising", and
of whose first or second "fading" is said, so many weeks after the change; where nothing changes all of it is false.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from penchant_pipelines.interests import Blender, Calibration, Evidence, InterestSettings, Recipe, Trend, view
from penchant_pipelines.model import MICROS_PER_DAY

WEEKS, CHANGE = 26, 13
LATER = (1, 2, 3, 5, 7, 11)
SUBJECTS, DIMENSIONS = 10, 40
CASES = {
    "the second takes over": ((0.8, 0.2), (0.2, 0.8)),
    "the second ends": ((0.7, 0.3), (1.0, 0.0)),
    "nothing changes": ((0.7, 0.3), (0.7, 0.3)),
}


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100, help="users of each kind")
    options = parser.parse_args()
    middle = np.zeros(DIMENSIONS, np.float32)
    blender = Blender(Recipe(InterestSettings(), Calibration(0.3, middle), "invented"))
    told = {
        "second rising": (1, Trend.RISING),
        "first fading": (0, Trend.FADING),
        "second fading": (1, Trend.FADING),
    }
    weeks = " ".join(f"{later:>4}" for later in LATER)
    table = Table("a week", "case", *(f"{name}, weeks after\n{weeks}" for name in told))
    for rate in (1, 2, 4, 10):
        for case, (before, after) in CASES.items():
            users = [history(rate, before, after, seed) for seed in range(options.users)]
            found = np.array([[trends(user, later, blender) for later in LATER] for user in users])
            table.add_row(str(rate), case, *(shares(found[:, :, place] == trend) for place, trend in told.values()))
    Console(width=150).print(table)
    return 0


def history(rate: float, before: Sequence[float], after: Sequence[float], seed: int) -> list[Evidence]:
    """A user's signals in order of time."""
    random = np.random.default_rng(seed)
    days = np.sort(random.uniform(0, 7 * WEEKS, random.poisson(rate * WEEKS)))
    signals = []
    for number, day in enumerate(days):
        subject = int(random.choice(len(before), p=before if day < 7 * CHANGE else after))
        vector = np.zeros(DIMENSIONS, np.float32)
        vector[subject] = 1.0
        vector[SUBJECTS:] = random.normal(0, 0.15, DIMENSIONS - SUBJECTS)
        signals.append(Evidence(f"{number:05}", int(day * MICROS_PER_DAY), vector / np.linalg.norm(vector)))
    return signals


def trends(user: Sequence[Evidence], later: int, blender: Blender) -> list[int]:
    """What is said of both subjects so many weeks after the change; 0 where there is no such interest."""
    end = 7 * (CHANGE + later) * MICROS_PER_DAY
    profile = view(blender.replay(signal for signal in user if signal.time <= end), end, blender)
    return [
        next((int(interest.trend) for interest in profile.interests if interest.vector[subject] > 0.7), 0)
        for subject in (0, 1)
    ]


def shares(said: NDArray[np.bool_]) -> str:
    """Of (users, weeks), the share of users by week."""
    return " ".join(f"{share:>4.0%}" for share in said.mean(axis=0))


if __name__ == "__main__":
    raise SystemExit(main())
