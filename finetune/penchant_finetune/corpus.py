"""A log in numbers: every text once, signals as columns, each in its part of the time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penchant_finetune.log import Log, LoggedSignal
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.interests import InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import MICROS_PER_DAY

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TRAIN, VALIDATION, TEST, NEVER = 0, 1, 2, 3
FEWEST_USERS = 20
"""Users to be measured below which a split at one moment for all says little."""

Split = Literal["time", "user"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, items and signals; n signals sorted by (time, id).

    `items` (m,) and `texts_of` (n,) are rows of `texts`; `item_of` (n,) rows of `items`; −1 where there is none.
    `grades` (n,) lie from −1 (against) to 1 (in favour), `parts` (n,) are TRAIN, VALIDATION or TEST, `undone_in` (n,)
    the part in which the user took a signal back, or NEVER.
    """

    texts: list[str]
    items: Ints
    users: Ints
    times: Ints
    item_of: Ints
    texts_of: Ints
    grades: Floats
    parts: NDArray[np.int8]
    undone_in: NDArray[np.int8]
    hashtags: list[tuple[tuple[str, str], ...]]
    """Of each signal, as `LoggedSignal` has them."""
    split: Split

    @property
    def shown(self) -> Ints:
        """What each signal is about, (n,) rows of `texts`: the user's own words, else the item; −1 for neither."""
        items = np.where(self.item_of >= 0, self.items[self.item_of], -1)
        return np.where(self.texts_of >= 0, self.texts_of, items)

    @property
    def kept(self) -> Bools:
        """Signals (n,) that were not taken back before their part ended: what came of them later, nobody knew then."""
        return self.undone_in > self.parts

    def first_touches(self) -> Bools:
        """Signals (n,) in favour of an item that their user did not touch before, and kept."""
        seen: set[tuple[int, int]] = set()
        first = np.zeros(len(self.users), dtype=bool)
        for row in np.flatnonzero(self.kept & (self.item_of >= 0)).tolist():
            key = int(self.users[row]), int(self.item_of[row])
            first[row] = key not in seen
            seen.add(key)
        return first & (self.grades > 0)


def make_corpus(log: Log, settings: InterestSettings, split: Split | None, shares: tuple[float, float]) -> Corpus:
    """Number a log; `shares` are where validation and test begin, as shares of all signals.

    Of those that undo, too, as `penchant evaluate` counts them: what it asks about may then not be learnt from.
    split "time": at one moment for all, so that nothing learnt lies after anything measured. "user": at the beginning
    of a UTC day of each user's own, so that others' later signals may be learnt from, a user's own never. None: by
    time, unless fewer than FEWEST_USERS could then be measured. Raises InvalidInput where nobody could.
    """
    rows: dict[str, int] = {}
    items = np.array([rows.setdefault(item.text, len(rows)) for item in log.items], dtype=np.int64)
    places = {item.id: row for row, item in enumerate(log.items)}
    signals = log.signals
    texts_of = [rows.setdefault(signal.text, len(rows)) if signal.text else -1 for signal in signals]
    corpus = Corpus(
        texts=list(rows),
        items=items,
        users=np.array([signal.user for signal in signals], dtype=np.int64),
        times=np.array([signal.time for signal in signals], dtype=np.int64),
        item_of=np.array([places.get(signal.item_id, -1) for signal in signals], dtype=np.int64),
        texts_of=np.array(texts_of, dtype=np.int64),
        grades=np.array([_grade(signal, settings) for signal in signals]),
        parts=np.zeros(len(signals), dtype=np.int8),
        undone_in=np.full(len(signals), NEVER, dtype=np.int8),
        hashtags=[signal.hashtags for signal in signals],
        split="time",
    )
    corpus = _split(corpus, log, np.quantile([time for _, time in log.moments], shares, method="lower"))
    if split == "user" or (split is None and len(measurable(corpus)) < FEWEST_USERS):
        corpus = replace(_split(corpus, log, _starts_by_user(log, shares)[corpus.users]), split="user")
    if not len(measurable(corpus)):
        raise InvalidInput.at(
            "signals", "leave nobody to measure: no user has new items in the test part on a later day than their first"
        )
    return corpus


def measurable(corpus: Corpus, part: int = TEST) -> Ints:
    """Users whom `next_items.questions` asks about, sorted: with new items in a part on a UTC day after their first."""
    days = corpus.times // MICROS_PER_DAY
    users = corpus.users
    begun = np.full(int(users.max()) + 1, np.iinfo(np.int64).max)
    known = (corpus.parts <= part) & (corpus.undone_in > part)
    np.minimum.at(begun, users[known], days[known])
    return np.unique(users[(corpus.parts == part) & corpus.first_touches() & (days > begun[users])])


def _grade(signal: LoggedSignal, settings: InterestSettings) -> float:
    return float(np.clip(weighing(signal.evidence, settings).weight, -1.0, 1.0))


def _split(corpus: Corpus, log: Log, starts: Ints) -> Corpus:
    """Parts by when validation and test start, µs: (2,) for all, or (n, 2)."""
    never = np.iinfo(np.int64).max
    starts = np.insert(starts, 2, never, axis=-1)
    undone = np.array([never if signal.undone is None else signal.undone for signal in log.signals], dtype=np.int64)
    parts, undone_in = ((starts <= times[:, None]).sum(axis=-1).astype(np.int8) for times in (corpus.times, undone))
    return replace(corpus, parts=parts, undone_in=undone_in)


def _starts_by_user(log: Log, shares: Sequence[float]) -> Ints:
    """When validation and test start for each user, µs: (users, 2)."""
    users, times = np.array(log.moments, dtype=np.int64).T
    days = times // MICROS_PER_DAY
    own = [np.quantile(days[users == user], shares, method="lower") for user in range(int(users.max()) + 1)]
    return np.array(own, dtype=np.int64) * MICROS_PER_DAY
