"""Streams in which a user's interests change at a known signal, spliced from texts by topic or by author.

Each stream is of one kind (after Gama et al. 2014, "A survey on concept drift adaptation"): abrupt, gradual, recurring,
or a control in which nothing changes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.model import MICROS_PER_DAY

Rows = NDArray[np.intp]

THICK = (30, 100)
"""Least and most signals before the change."""
THIN = (2, 5)
AFTER = 40
"""Signals after the change."""
THIN_AFTER = 4
RAMP = 20
"""Signals over which a gradual change goes from none to whole."""
VISIT = 30
"""Signals of a recurring change before the old interests come back."""
MOST_TOPICS = 3
GAP_DAYS = (0.2, 2.0)
"""Least and most of a topical user's mean days between signals."""
LEAST_GAP = 60_000_000


class Kind(enum.StrEnum):
    """How the interests change."""

    ABRUPT = enum.auto()
    GRADUAL = enum.auto()
    RECURRING = enum.auto()
    CONTROL = enum.auto()


@dataclass(frozen=True, slots=True)
class Source:
    """Texts by group. A group is a topic; where there are `gaps`, an author, whose posts stay in order.

    `groups` holds rows of the texts; `gaps` (n,) the µs since the author's post before.
    """

    name: str
    groups: Mapping[str, Rows]
    gaps: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Splice:
    """One user's stream: rows of the source's texts, (n,), and event times in µs, (n,), rising.

    `change` is the first signal of what is new, None in a control; `back` the first after a recurring user's return.
    `groups` (n,) names the group of each signal.
    """

    source: str
    kind: Kind
    rows: Rows
    times: NDArray[np.int64]
    groups: tuple[str, ...]
    change: int | None
    back: int | None
    thin: bool


def splice(source: Source, kind: Kind, thin: bool, dice: np.random.Generator) -> Splice:
    """Draw a stream. Raises InvalidInput where the source has too few groups or texts."""
    least, most = THIN if thin else THICK
    after = THIN_AFTER if thin else AFTER
    sides = _sides(source, least + after, dice)
    before = int(dice.integers(least, min(most, min(len(source.groups[name]) for name in sides[0]) - after) + 1))
    new = _new_signals(kind, before, after, dice)
    rows, groups = np.zeros(len(new), dtype=np.intp), [""] * len(new)
    for names, places in zip(sides, (np.flatnonzero(~new), np.flatnonzero(new)), strict=True):
        for place, (row, name) in zip(places, _draw(source, names, len(places), dice), strict=True):
            rows[place], groups[place] = row, name
    if source.gaps is not None:
        gaps = source.gaps[rows]
    else:
        mean = float(np.exp(dice.uniform(*np.log(GAP_DAYS)))) * MICROS_PER_DAY
        gaps = dice.exponential(mean, len(rows)).astype(np.int64)
    times = np.cumsum(np.maximum(gaps, LEAST_GAP))
    back = before + VISIT if kind is Kind.RECURRING and not thin else None
    return Splice(source.name, kind, rows, times, tuple(groups), None if kind is Kind.CONTROL else before, back, thin)


def _sides(source: Source, least: int, dice: np.random.Generator) -> tuple[list[str], list[str]]:
    """Pick the groups before and after the change, of `least` texts or more each: one author each, or some topics."""
    names = [str(name) for name in dice.permutation(sorted(source.groups)) if len(source.groups[name]) >= least]
    if len(names) < 2:
        raise InvalidInput.at("groups", f"{source.name} needs two groups of {least} texts or more")
    most = 1 if source.gaps is not None else min(MOST_TOPICS, len(names) // 2)
    first, second = (int(number) for number in dice.integers(1, most + 1, 2))
    return names[:first], names[first : first + second]


def _new_signals(kind: Kind, before: int, after: int, dice: np.random.Generator) -> NDArray[np.bool_]:
    """Tell for each signal whether it is of the new interests."""
    new = np.zeros(before + after, dtype=bool)
    if kind is Kind.ABRUPT:
        new[before:] = True
    elif kind is Kind.GRADUAL:
        new[before:] = dice.random(after) < np.arange(1, after + 1) / RAMP
    elif kind is Kind.RECURRING:
        new[before : before + VISIT] = True
    return new


def _draw(source: Source, names: list[str], count: int, dice: np.random.Generator) -> list[tuple[int, str]]:
    """Draw texts without repeating any; an author's are consecutive and in order."""
    if source.gaps is not None:
        rows = source.groups[names[0]]
        start = int(dice.integers(0, len(rows) - count + 1))
        return [(int(row), names[0]) for row in rows[start : start + count]]
    shuffled = {name: iter(dice.permutation(source.groups[name])) for name in names}
    return [(int(next(shuffled[name])), name) for name in map(str, dice.choice(names, count))]
