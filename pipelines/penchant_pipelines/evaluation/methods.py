"""The interface of everything that is compared, and how a method is run through a log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.evaluation.log import Log, Past, Rows
from penchant_pipelines.evaluation.protocol import Phase, Query, Question, replay
from penchant_pipelines.highest import highest
from penchant_pipelines.metrics import ndcg
from penchant_pipelines.model import MICROS_PER_DAY

DEPTH = 50
"""Places of a list that are looked at."""
YARDSTICK = 200
"""Random items that a score is compared with, so that scores of different days can be compared."""

Floats = NDArray[np.float64]


@lru_cache(maxsize=8)
def yardstick(seed: int, items: int) -> Rows:
    """Rows of the random items that scores are compared with: (YARDSTICK,)."""
    return np.random.default_rng(seed).integers(0, items, YARDSTICK)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method says to a question, a row for each of its settings.

    `top` (s, DEPTH) int64: rows of the catalogue, best first, −1 where there are no more. `ratings` (s, r) float64, for
    each row of `Question.rated`: 0…1, the share of random items that score lower. `shelf` (s, DEPTH): as `top`, among
    what nobody touched so far. Nothing but −1 in a list that the question does not ask for.
    """

    top: Rows
    ratings: Floats
    shelf: Rows


_NOTHING = Answer(np.full((1, DEPTH), -1), np.zeros((1, 0)), np.full((1, DEPTH), -1))


class Method(ABC):
    """Foretells what a user will take to. Several settings of it run side by side; see `run`."""

    name: str
    settings: Sequence[str] = ("",)
    """Names of the settings, the one to begin with in the middle."""

    def learn(self, past: Past) -> None:  # noqa: B027 - most have nothing to do here
        """Learn from what is known by now; called before the questions of each moment."""

    @abstractmethod
    def answer(self, past: Past, question: Question) -> Answer:
        """Answer a question from what is known."""

    def close(self) -> None:  # noqa: B027 - as above
        """Let go of what the method holds."""


class Scorer(Method):
    """A method that scores the whole catalogue."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @abstractmethod
    def score(self, past: Past, question: Question) -> Floats:
        """Scores, (s, m) float64, higher is better; equal where nothing is known."""

    def answer(self, past: Past, question: Question) -> Answer:
        """Rank by score; what scores alike ranks by popularity, so that strangers get what is popular."""
        scores = np.ascontiguousarray(np.atleast_2d(self.score(past, question)), dtype=np.float64)
        spread = scores.max(axis=1, keepdims=True) - scores.min(axis=1, keepdims=True)
        crowd = past.popularity / max(past.popularity.max(), 1.0)
        scores = scores + 1e-9 * np.where(spread > 0, spread, 1.0) * crowd
        rated = scores[:, question.rated, None]
        compared = scores[:, None, yardstick(self.seed, scores.shape[1])]
        ratings = (rated > compared).mean(axis=2) + 0.5 * (rated == compared).mean(axis=2)
        scores[:, question.excluded] = -np.inf
        top = _lists(scores, question.listed)
        untouched = np.where(past.touched, -np.inf, scores) if question.shelf else scores
        return Answer(top, ratings, _lists(untouched, question.shelf))


def _lists(scores: Floats, asked: bool) -> Rows:
    if not asked:
        return np.full((len(scores), DEPTH), -1)
    return np.stack([best(line) for line in scores])


def best(scores: Floats) -> Rows:
    """Rows of the DEPTH highest scores, best first, ties by row; −1 in place of those at −∞."""
    found = highest(scores, DEPTH)
    found = found[np.argsort(-scores[found], kind="stable")]
    places = np.full(DEPTH, -1)
    places[: len(found)] = np.where(np.isfinite(scores[found]), found, -1)
    return places


class Refit:
    """Says when a costly fit is due: at the first call, and whenever there is so many times as much to learn from."""

    def __init__(self, growth: float) -> None:
        self._growth = growth
        self._fitted = 0

    def due(self, count: int) -> bool:
        """Ask with so many signals at hand; who is told yes is taken to fit."""
        if count and count >= self._growth * self._fitted:
            self._fitted = count
            return True
        return False


@dataclass(frozen=True, slots=True)
class Run:
    """The answers of a method with the setting that was best so far, q queries in order of time.

    `top`, `shelf` (q, DEPTH) int64, −1 as in `Answer`; `ratings`: (r,) float64 for each query; `chosen`: (q,) int64,
    the setting that each answer is of; `by_setting`: (q, s) float64, NDCG@10 of each setting.
    """

    name: str
    settings: tuple[str, ...]
    top: Rows
    shelf: Rows
    ratings: tuple[Floats, ...]
    chosen: NDArray[np.int64]
    by_setting: Floats


def run(make: Callable[[], Method], log: Log, asked: list[Query]) -> Run:
    """Run a method through a log.

    Its settings are chosen as time goes by: each answer is of the setting that ranked best by NDCG@10, meant over
    users, on all queries of earlier moments. Who has nothing to choose makes no list for what is asked for that alone,
    and isn't asked at all where nothing else is.
    """
    method = make()
    chooses = len(method.settings) > 1
    board = _Board(len(log.user_ids), len(method.settings))
    waiting: deque[tuple[Query, Floats]] = deque()
    tops, shelves, ratings, chosen, measured = [], [], list[Floats](), [], []
    try:
        for past, moment in replay(log, asked):
            method.learn(past)
            present = moment[0].question.present
            # A day's right answers are known when it is over: a cut may come in the middle of it.
            while waiting and waiting[0][0].question.present + MICROS_PER_DAY <= present:
                board.add(*waiting.popleft())
            setting = board.leader()
            for query in moment:
                listed = chooses or query.phase is not Phase.TUNING
                question = replace(query.question, listed=listed)
                answer = method.answer(past, question) if listed or len(question.rated) else _NOTHING
                found = np.array([ndcg(top, query.relevant, 10) for top in answer.top])
                tops.append(answer.top[setting])
                shelves.append(answer.shelf[setting])
                ratings.append(answer.ratings[setting])
                chosen.append(setting)
                measured.append(found)
                waiting.append((query, found))
    finally:
        method.close()
    return Run(
        method.name,
        tuple(method.settings),
        np.stack(tops),
        np.stack(shelves),
        tuple(ratings),
        np.array(chosen),
        np.stack(measured),
    )


class _Board:
    """How the settings did so far."""

    def __init__(self, users: int, settings: int) -> None:
        self._sums = np.zeros((users, settings))
        self._counts = np.zeros(users)

    def add(self, query: Query, found: Floats) -> None:
        """Count a query of a day that has passed; a cut's answers lie too far ahead to be known yet."""
        if query.phase is not Phase.CUT and len(query.relevant):
            self._sums[query.question.user] += found
            self._counts[query.question.user] += 1

    def leader(self) -> int:
        """Find the best setting; the one in the middle until there is a difference."""
        heard = self._counts > 0
        means = (self._sums[heard] / self._counts[heard, None]).mean(axis=0) if heard.any() else self._sums[0]
        middle = len(means) // 2
        return middle if means[middle] >= means.max() else int(means.argmax())
