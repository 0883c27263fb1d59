"""A log as the sequence model learns from it and is measured on it: split by time, asked day by day."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_finetune.prepare import Prepared, evidence
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.highest import highest
from penchant_pipelines.interests.evidence import Evidence
from penchant_pipelines.interests.settings import InterestSettings
from penchant_pipelines.metrics import ndcg, recall
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.recommend.sequence import History, readable

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UserLog:
    """One user's signals: what the model reads, and beside it what it is to foretell.

    `rows` (n,) int64: the catalogue row each signal touches, −1 for none. `fresh` (n,) bool: a signal in favour of an
    item that the user never touched before.
    """

    user: int
    history: History
    rows: Rows
    fresh: NDArray[np.bool_]

    def before(self, time: int) -> UserLog:
        """The signals before a time (µs)."""
        end = int(np.searchsorted(self.history.times, time))
        return UserLog(self.user, self.history.part(0, end), self.rows[:end], self.fresh[:end])


@dataclass(frozen=True, slots=True)
class SequenceLog:
    """Users over one catalogue; `items` (m, d) float32 unit rows."""

    items: Vectors
    users: tuple[UserLog, ...]

    def before(self, time: int | Mapping[int, int]) -> SequenceLog:
        """The log up to a time (µs), or a time of each user's own; users without signals left out, no item is."""
        users = (user.before(_start(user, time)) for user in self.users)
        return SequenceLog(self.items, tuple(user for user in users if len(user.history)))

    def time_at(self, share: float) -> int:
        """The time (µs) before which this share of all signals lies."""
        times = np.concatenate([user.history.times for user in self.users])
        return int(np.quantile(times, share, method="lower"))


@dataclass(frozen=True, slots=True)
class Query:
    """A user at the beginning of a day: which new items will they take to? The answer is never among what is seen."""

    user: UserLog
    end: int
    """Signals before the day."""
    relevant: Rows

    @property
    def history(self) -> History:
        """What is known of the user at that moment."""
        return self.user.history.part(0, self.end)

    @property
    def seen(self) -> Rows:
        """Catalogue rows that the user touched before, each once."""
        rows = self.user.rows[: self.end]
        return np.unique(rows[rows >= 0])


def sequence_log(
    item_ids: Sequence[str],
    items: Vectors,
    signals: Iterable[tuple[int, Evidence]],
    settings: InterestSettings,
    contexts: Mapping[str, Mapping[str, str]],
) -> SequenceLog:
    """Put a log together of a catalogue, (m, d) float32 unit rows, and signals of users by (time, id).

    `contexts` are signals' contexts by signal id. Raises InvalidInput where no signal can be read.
    """
    places = {item_id: row for row, item_id in enumerate(item_ids)}
    events: dict[int, list[Evidence]] = {}
    for user, event in signals:
        events.setdefault(user, []).append(event)
    users = [
        _user_log(user, own, places, History.of(own, settings, items.shape[1], contexts), settings)
        for user, own in sorted(events.items())
    ]
    kept = tuple(user for user in users if len(user.history))
    if not kept:
        raise InvalidInput.at("signals", "are none that can be read: give signals with a text or on items listed")
    return SequenceLog(items, kept)


def prepared_log(prepared: Prepared, texts: Vectors, rows: NDArray[np.intp]) -> SequenceLog:
    """The log of some signals of a prepared folder, by vectors (t, d) of its texts. Raises as `sequence_log` does."""
    columns = prepared.signals
    items = texts[prepared.items]
    contexts = {
        columns["id"][row]: {"surface": columns["surface"][row], "device": columns["device"][row]} for row in rows
    }
    # Signals lie by (time, id).
    signals = ((columns["user"][row], evidence(prepared, row, texts, items)) for row in np.sort(rows).tolist())
    return sequence_log(prepared.item_ids, items, signals, prepared.manifest.interests, contexts)


def _user_log(
    user: int, events: Sequence[Evidence], places: Mapping[str, int], history: History, settings: InterestSettings
) -> UserLog:
    kept = readable(events, settings)
    rows = np.array([places.get(event.item_id, -1) for event, _ in kept], dtype=np.int64)
    first = np.zeros(len(rows), dtype=bool)
    first[np.unique(rows, return_index=True)[1]] = True
    return UserLog(user, history, rows, first & (history.weights > 0) & (rows >= 0))


def queries(log: SequenceLog, start: int | Mapping[int, int], end: int) -> list[Query]:
    """One query a user and day with fresh items from `start` up to `end` (µs); `start` may be each user's own.

    By day, since bulk marks on one day would otherwise foretell each other.
    """
    found = []
    for user in log.users:
        times = user.history.times
        days = times // MICROS_PER_DAY
        asked = user.fresh & (times >= _start(user, start)) & (times < end)
        for day in np.unique(days[asked]):
            known = int(np.searchsorted(times, day * MICROS_PER_DAY))
            if known:
                found.append(Query(user, known, user.rows[asked & (days == day)]))
    return found


def _start(user: UserLog, start: int | Mapping[int, int]) -> int:
    return start if isinstance(start, int) else start[user.user]


Scorer = Callable[[Sequence[Query]], Vectors]
"""Scores of all items for some queries: (q, m) float32."""

METRICS = ("recall@10", "recall@50", "ndcg@10")


def rank(asked: Sequence[Query], scores: Scorer, batch: int = 64) -> NDArray[np.float64]:
    """Rank the whole catalogue, less what each user has seen, and measure each query: (q, 3) as in METRICS.

    Recall is the share of what could have been found: hits / min(k, relevant).
    """
    measured = np.zeros((len(asked), len(METRICS)))
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        lines = scores(part)
        for place, (query, line) in enumerate(zip(part, lines, strict=True), start):
            line[query.seen] = -np.inf
            top = highest(line, 50)
            top = top[np.argsort(-line[top], kind="stable")]
            told = query.relevant
            measured[place] = recall(top, told, 10), recall(top, told, 50), ndcg(top, told, 10)
    return measured


def by_user(asked: Sequence[Query], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each user's queries: (users, metrics), users by id. Users weigh alike, however much they do."""
    names = np.array([query.user.user for query in asked])
    _, places = np.unique(names, return_inverse=True)
    counts = np.bincount(places)
    return np.stack([np.bincount(places, column) / counts for column in measured.T], axis=1)
