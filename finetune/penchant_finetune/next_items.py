"""Next items: what users took to next, looked for by profiles and scores as the server would make them.

Asked once a user and day, with the profile as it stood before that day: bulk marks of one day would otherwise foretell
each other. Every item is ranked but those the user touched before and those created later; a day's other new items
stand aside while one is looked for. Popularity is left out: it is the same for all encoders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_finetune.corpus import TEST
from penchant_finetune.pairs import Vectors
from penchant_finetune.prepare import Prepared, evidence, standing
from penchant_pipelines.encoder import Encoder, encode_all
from penchant_pipelines.interests import Blender, Calibration, Profile, Recipe, view
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.recommend.ranking import Taste, score
from penchant_pipelines.recommend.settings import RecommendSettings

METRICS = ("recall@10", "recall@50", "ndcg@10", "mrr")
"""Each item asked for is looked for by itself, as the only right one: recall is the share of them that is found.

`metrics.recall`, by which a sequence model is told by itself, is of one list with all of a day's items in it, and
divides by as many as the list has room for.
"""
MOST_A_DAY = 20
"""Most new items of one user and day that are looked for."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Question:
    """One user's day: all signals before it, the new items of the day, and those among them to look for."""

    user: int
    start: int
    """Beginning of the day, µs."""
    known: int
    """How many of the user's signals lie before it."""
    new: NDArray[np.int64]
    asked: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Asked:
    """Users to ask about: rows of their signals up to the end of the part, in order of time, and the questions."""

    signals: dict[int, NDArray[np.intp]]
    questions: list[Question]


def questions(prepared: Prepared, part: int = TEST) -> Asked:
    """What to ask: each day of a part of the log on which a user with a history took to new items of the catalogue."""
    columns = {name: np.array(prepared.signals[name], dtype=np.int64) for name in ("user", "time", "item", "part")}
    stands = standing(prepared, part)
    new = np.array(prepared.signals["new"], dtype=bool)
    rng = np.random.default_rng(prepared.manifest.settings.seed)
    signals: dict[int, NDArray[np.intp]] = {}
    found: list[Question] = []
    for user in np.unique(columns["user"][new & (columns["part"] == part)]):
        own = np.flatnonzero((columns["user"] == user) & stands)
        days = columns["time"][own] // MICROS_PER_DAY
        for day in np.unique(days[new[own] & (columns["part"][own] == part)]):
            rows = own[new[own] & (columns["part"][own] == part) & (days == day)]
            known = int(np.searchsorted(days, day))
            if known:
                items = columns["item"][rows]
                chosen = rng.permutation(items)[:MOST_A_DAY]
                signals[int(user)] = own
                found.append(Question(int(user), int(day) * MICROS_PER_DAY, known, items, chosen))
    return Asked(signals, found)


def measure(
    prepared: Prepared,
    asked: Asked,
    texts: Vectors,
    calibration: Calibration,
    ahead: Callable[[Question], Vectors | None] | None = None,
) -> dict[int, Values]:
    """Figures of an encoder by user, each (4,) as in METRICS; `texts` (t, d) are its vectors of the texts.

    `ahead` gives (m, d) where a sequence model expects the next signals of a question's user.
    """
    manifest = prepared.manifest
    blender = Blender(Recipe(manifest.interests, calibration, manifest.space_id))
    items = texts[prepared.items]
    ranking = RecommendSettings()
    unpopular = np.zeros(len(items))
    collected: dict[int, list[Values]] = {}
    touched = np.array(prepared.signals["item"], dtype=np.int64)
    profile, blended, user = Profile(), 0, -1
    for question in asked.questions:
        own = asked.signals[question.user]
        if question.user != user:
            profile, blended, user = Profile(), 0, question.user
        for row in own[blended : question.known]:
            blender.add(profile, evidence(prepared, int(row), texts, items))
        blended = question.known
        expected = None if ahead is None else ahead(question)
        taste = Taste.of(view(profile, question.start, blender), items.shape[1], expected)
        scores = score(taste, items, None, prepared.created, unpopular, question.start, ranking).scores
        seen = touched[own[: question.known]]
        ranks = _ranks(scores, question, seen[seen >= 0], prepared.created)
        collected.setdefault(user, []).extend(map(_figures, ranks))
    return {user: np.mean(figures, axis=0) for user, figures in collected.items()}


def encode_signals(prepared: Prepared, rows: NDArray[np.intp], encoder: Encoder) -> Vectors:
    """Vectors (t, d) of the catalogue and of what these signals say; zeros for all other texts."""
    texts = np.array(prepared.signals["text"], dtype=np.int64)
    needed = np.unique(np.concatenate([prepared.items, texts[rows]]))
    needed = needed[needed >= 0]
    vectors = np.zeros((len(prepared.base), encoder.dimensions), dtype=np.float32)
    vectors[needed] = np.concatenate([*encode_all(encoder, [prepared.texts[row] for row in needed])])
    return vectors


def _ranks(scores: Values, question: Question, seen: NDArray[np.int64], created: NDArray[np.int64]) -> list[int]:
    """Place of each item asked for among those that are there, not seen, nor new that day; ties count against it."""
    others = scores.copy()
    others[seen] = -np.inf
    # As new as can be by their score, they would lead all that is there. 0 is no time, before 1970 either.
    others[created > max(question.start, 0)] = -np.inf
    others[question.new] = -np.inf
    ordered = np.sort(others)
    return [int(1 + len(ordered) - np.searchsorted(ordered, scores[item], side="left")) for item in question.asked]


def _figures(rank: int) -> Values:
    gain = 1 / np.log2(1 + rank) if rank <= 10 else 0.0
    return np.array([float(rank <= 10), float(rank <= 50), gain, 1 / rank])
