"""From answers to figures: every metric of every query, and from those of each user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines import metrics
from penchant_pipelines.evaluation.log import Catalogue, Log
from penchant_pipelines.evaluation.methods import Run
from penchant_pipelines.evaluation.protocol import Phase, Query, replay
from penchant_pipelines.statistics import by_user

Floats = NDArray[np.float64]
ACCURACY = ("ndcg@10", "recall@10", "recall@50", "mrr@50")
BEYOND = ("diversity@10", "novelty@10", "calibration_kl@10")
VERDICTS = ("verdict_auc", "verdict_precision", "verdict_recall", "verdict_f1")
COLD = "cold_items"
"""What nobody touched before, in the list of everything."""
COLD_ALONE = "cold_items_among_themselves"
"""The same in the list of such items alone, as on a shelf of what is new."""
HISTORIES = ((1, 5), (5, 20), (20, 100), (100, None))
"""Groups by how many signals of the user are known."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one method: `users` by metric, (users,) with NaN where there is none; groups alike."""

    users: Mapping[str, Floats]
    groups: Mapping[str, Mapping[str, Floats]]
    cut: Mapping[str, Floats]
    coverage: float


def measure(log: Log, asked: Sequence[Query], run: Run, listed: Sequence[Mapping[str, float]]) -> Measured:
    """Measure a run; `listed` holds for each query what `beyond` makes of its list."""
    users = np.array([query.question.user for query in asked])
    count = len(log.user_ids)
    tests = np.array([query.phase is Phase.TEST for query in asked])
    cut = np.array([query.phase is Phase.CUT for query in asked])
    found = _accuracies(asked, run.top)
    told = {name: np.array([each[name] for each in listed]) for name in BEYOND}

    def meant(values: Mapping[str, Floats], chosen: NDArray[np.bool_]) -> dict[str, Floats]:
        return {name: by_user(column[chosen], users[chosen], count) for name, column in values.items()}

    cold = {COLD: _accuracies(asked, run.top, cold=True), COLD_ALONE: _accuracies(asked, run.shelf, cold=True)}
    groups = {name: meant(cold.get(name, found), tests & chosen) for name, chosen in group_masks(asked).items()}
    shown = np.unique(run.top[tests][:, :10])
    return Measured(
        {**meant(found, tests), **meant(told, tests), **_verdicts(asked, run, count)},
        groups,
        meant(found, cut) if cut.any() else {},
        float((shown >= 0).sum()) / len(log.catalogue),
    )


def group_masks(asked: Sequence[Query]) -> dict[str, NDArray[np.bool_]]:
    """Which queries belong to which group, (q,) bool each."""
    histories = np.array([query.history for query in asked])
    languages = np.array([query.language for query in asked])
    found = {}
    for low, high in HISTORIES:
        name = f"history {low}-{high - 1}" if high else f"history {low}+"
        found[name] = (histories >= low) & (histories < (high or np.inf))
    for language in sorted(set(languages.tolist())):
        found[f"language {language}"] = languages == language
    found[COLD] = found[COLD_ALONE] = np.array([len(query.cold) > 0 for query in asked])
    return found


def beyond(log: Log, asked: list[Query], runs: Sequence[Run]) -> list[list[dict[str, float]]]:
    """Diversity, novelty and calibration of each run's lists of 10; one pass through the log for all runs."""
    catalogue = log.catalogue
    kinds = len({name for item in catalogue.items for name in item.categories})
    counts = np.zeros(len(catalogue))
    pairs: set[tuple[int, int]] = set()
    tastes: dict[int, Counter[str]] = {}
    found: list[list[dict[str, float]]] = [[] for _ in runs]
    standing = log.standing
    heard = place = 0
    for past, moment in replay(log, asked):
        for new in range(heard, len(past)):
            user, row = int(log.users[new]), int(log.rows[new])
            if row < 0 or log.weights[new] <= 0 or not standing[new]:
                continue
            tastes.setdefault(user, Counter()).update(catalogue.items[row].categories)
            if (user, row) not in pairs:
                pairs.add((user, row))
                counts[row] += 1
        heard = len(past)
        for query in moment:
            taste = tastes.get(query.question.user, Counter[str]())
            for each, run in zip(found, runs, strict=True):
                rows = run.top[place, :10]
                rows = rows[rows >= 0]
                each.append(
                    {
                        "diversity@10": metrics.intra_list_diversity(catalogue.vectors[rows]),
                        "novelty@10": metrics.novelty(counts[rows], len(log.user_ids)),
                        "calibration_kl@10": _calibration(catalogue, taste, rows.tolist()) if kinds > 1 else np.nan,
                    }
                )
            place += 1
    return found


def _calibration(catalogue: Catalogue, taste: Counter[str], rows: Sequence[int]) -> float:
    return metrics.calibration_kl(taste, Counter(name for row in rows for name in catalogue.items[row].categories))


def _accuracies(asked: Sequence[Query], lists: NDArray[np.int64], cold: bool = False) -> dict[str, Floats]:
    """Each metric of each list, (q,): of all right answers, or of the cold ones alone."""
    relevant = [query.cold if cold else query.relevant for query in asked]
    return {
        name: np.array([_accuracy(top, rows, name) for top, rows in zip(lists, relevant, strict=True)])
        for name in ACCURACY
    }


def _accuracy(top: NDArray[np.int64], relevant: NDArray[np.int64], name: str) -> float:
    kind, _, places = name.partition("@")
    if kind == "ndcg":
        return metrics.ndcg(top, relevant, int(places))
    if kind == "recall":
        return metrics.recall(top, relevant, int(places))
    return metrics.reciprocal_rank(top, relevant)


def _verdicts(asked: Sequence[Query], run: Run, count: int) -> dict[str, Floats]:
    """Foretell each verdict with the threshold that was best on those of earlier moments."""
    threshold, waiting, present = metrics.Threshold(), list[int](), -1
    scores: dict[int, list[Floats]] = {}
    said: dict[int, list[NDArray[np.bool_]]] = {}
    liked: dict[int, list[NDArray[np.bool_]]] = {}
    for place, query in enumerate(asked):
        if query.phase is Phase.CUT or not len(query.liked):
            continue
        if query.question.present != present:
            for earlier in waiting:
                threshold.add(run.ratings[earlier], asked[earlier].liked)
            waiting, present = [], query.question.present
        waiting.append(place)
        if query.phase is Phase.TEST:
            user = query.question.user
            scores.setdefault(user, []).append(run.ratings[place])
            said.setdefault(user, []).append(run.ratings[place] >= threshold.best())
            liked.setdefault(user, []).append(query.liked)
    found = {name: np.full(count, np.nan) for name in VERDICTS}
    for user, kept in liked.items():
        truth = np.concatenate(kept)
        found["verdict_auc"][user] = metrics.auc(np.concatenate(scores[user]), truth)
        (
            found["verdict_precision"][user],
            found["verdict_recall"][user],
            found["verdict_f1"][user],
        ) = metrics.precision_recall_f1(np.concatenate(said[user]), truth)
    return found
