"""The protocol: test, then learn. Which questions are asked, when, and what the right answers are.

Prequential evaluation (Gama et al. 2013): in order of time, each user's day is foretold from what came before it, of
this user and of all others, and only then learnt from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.evaluation.log import Log, Past, Rows, places_by_user
from penchant_pipelines.model import MICROS_PER_DAY

TEST_SHARE = 0.3
"""The last share of a user's signals, which figures are taken from."""
TUNING_SHARE = 0.3
"""The share before it, which settings of methods are chosen by."""
MOST_TUNING_QUERIES = 1000
CUT_QUANTILE = 0.9
FEWEST_USERS_OF_A_CUT = 100


class Phase(StrEnum):
    """What a query is for."""

    TUNING = "tuning"
    TEST = "test"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Question:
    """What a method is told: who asks, and when. It answers with items other than those excluded."""

    user: int
    user_id: str
    present: int
    """µs; the beginning of the day."""
    excluded: Rows
    """Rows that the user touched before, and those created later, ascending."""
    unborn: Rows
    """Those of them that were created later."""
    rated: Rows
    """Rows to give a score each, ascending; which of them the user came to like is not told."""
    listed: bool = True
    """Whether a list is asked for, and not only how items that were rated would rank."""
    shelf: bool = False
    """Whether to rank what nobody touched so far by itself, too: asked where that will be measured."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question with its right answers."""

    question: Question
    phase: Phase
    known: int
    """How many signals of the log came before."""
    history: int
    """How many of them are the user's own."""
    relevant: Rows
    """New items of the day, there when the user came, that the user did not dislike or take back, ascending."""
    cold: Rows
    """Those of them that nobody touched before."""
    liked: NDArray[np.bool_]
    """(len(rated),) the verdicts."""
    language: str
    """The most frequent language of the user's own signals."""


def queries(log: Log) -> list[Query]:
    """All queries in order of time. Raises InvalidInput where the log leaves nothing to test on.

    One a user and active UTC day, so that bulk days count once: a test for each day that holds one of the last 30 % of
    the user's signals, and for tuning those of the 30 % before. A user without any earlier signal is not asked about.
    """
    own = places_by_user(log)
    found = [query for user in range(len(own)) for query in _of_user(log, user, own[user])]
    found = [query for query in found if len(query.relevant) or len(query.liked)]
    tests = [query for query in found if query.phase is Phase.TEST]
    tuning = [query for query in found if query.phase is Phase.TUNING]
    if not any(len(query.relevant) for query in tests):
        raise InvalidInput.at(
            "signals", "leave nothing to test on: some users need signals on new items of the catalogue on later days"
        )
    if len(tuning) > MOST_TUNING_QUERIES:
        tuning = [tuning[i] for i in np.linspace(0, len(tuning) - 1, MOST_TUNING_QUERIES).astype(int)]
    asked = tests + tuning + single_cut(log, own)
    asked.sort(key=lambda query: (query.question.present, query.known, query.question.user))
    return [_with_cold(query, past) for past, moment in replay(log, asked) for query in moment]


def single_cut(log: Log, own: list[Rows]) -> list[Query]:
    """One query a user at the 0.9 quantile of time: all that came after; none where that leaves under 100 users."""
    end = int(np.searchsorted(log.times, np.quantile(log.times, CUT_QUANTILE, method="higher")))
    present = int(log.times[end])
    found = []
    for user, places in enumerate(own):
        split = int(np.searchsorted(places, end))
        if 0 < split < len(places):
            query = _query(log, user, places[:split], places[split:], present, Phase.CUT)
            found += [query] if len(query.relevant) else []
    return found if len(found) >= FEWEST_USERS_OF_A_CUT else []


def _of_user(log: Log, user: int, places: Rows) -> Iterator[Query]:
    days = log.days[places]
    count = len(places)
    # Shares of a whole number of signals must not fall below it by the error of the sum.
    test_day = days[min(int((1 - TEST_SHARE) * count + 1e-9), count - 1)]
    tuning_day = days[min(int((1 - TEST_SHARE - TUNING_SHARE) * count + 1e-9), count - 1)]
    for day in np.unique(days[days >= tuning_day]):
        begin, end = np.searchsorted(days, [day, day + 1])
        if begin:
            phase = Phase.TEST if day >= test_day else Phase.TUNING
            present = int(day) * MICROS_PER_DAY
            yield _query(log, user, places[:begin], places[begin:end], present, phase)


def _query(log: Log, user: int, before: Rows, after: Rows, present: int, phase: Phase) -> Query:
    known = int(np.searchsorted(log.times, present))
    seen = np.unique(log.rows[before[log.taken_back[before] >= known]])
    # Not a right answer either, though touched later that day: when the user came nobody could name it.
    # Of a creation time that nobody knows, 0, before 1970 as well.
    unborn = np.flatnonzero(log.catalogue.created > max(log.times[after[0]], 0))
    after = after[log.standing[after]]
    excluded = np.union1d(seen[seen >= 0], unborn)
    new = np.setdiff1d(log.rows[after], np.append(excluded, -1))
    disliked = log.rows[after][log.weights[after] < 0]
    rating = after[log.verdicts[after] >= 0]
    # The last word counts where an item was rated twice.
    verdicts = dict(zip(log.rows[rating].tolist(), (log.verdicts[rating] == 1).tolist(), strict=True))
    rated = new[np.isin(new, list(verdicts))]
    spoken, counts = np.unique([log.languages[place] for place in before], return_counts=True)
    return Query(
        Question(user, log.user_ids[user], present, excluded, unborn, rated),
        phase,
        known,
        len(before),
        np.setdiff1d(new, disliked),
        np.zeros(0, dtype=np.int64),
        np.array([verdicts[row] for row in rated.tolist()], dtype=bool),
        str(spoken[counts.argmax()]),
    )


def _with_cold(query: Query, past: Past) -> Query:
    cold = query.relevant[~past.touched[query.relevant]]
    shelf = query.phase is Phase.TEST and len(cold) > 0
    return replace(query, cold=cold, question=replace(query.question, shelf=shelf))


def replay(log: Log, asked: list[Query]) -> Iterator[tuple[Past, list[Query]]]:
    """The moments of questions, oldest first: what is known by then, and who asks."""
    own = places_by_user(log)
    start = 0
    while start < len(asked):
        end = start
        while end < len(asked) and (asked[end].question.present, asked[end].known) == (
            asked[start].question.present,
            asked[start].known,
        ):
            end += 1
        yield Past(log, asked[start].known, own), asked[start:end]
        start = end
