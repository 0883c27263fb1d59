"""The report: figures with intervals, differences with p values, as one JSON object."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penchant_pipelines.evaluation.log import Log
from penchant_pipelines.evaluation.measure import Measured, beyond, group_masks, measure
from penchant_pipelines.evaluation.methods import DEPTH, Floats, Run
from penchant_pipelines.evaluation.protocol import Phase, Query
from penchant_pipelines.statistics import FEWEST_USERS, Bootstrap, by_user, holm

OURS = "penchant"
DIGITS = 6
READING = (
    "methods: [mean, low, high], a figure 0…1 (novelty@10 and calibration_kl@10: bits) and its 95 % interval by "
    "bootstrap over users. against: [difference, low, high, p], Penchant less the method in the same unit, p two-sided "
    "and after Holm's correction, the interval before it. groups and single_cut: the same of some questions. settings: "
    "share of questions that each setting was chosen for, and what it alone would have reached. null: not to be told. "
    f"p is null where fewer than {FEWEST_USERS} users have the figure: nothing is to be called more than chance then."
)
PROTOCOL = {
    "name": "prequential: test, then learn",
    "query": "one a user and active UTC day within the last 30 % of the user's signals; users without any earlier "
    "signal are not asked about",
    "candidates": "the whole catalogue, less what the user touched before and what was created after the user came, by "
    "the first signal of the day",
    "target": "candidates that the user touches for the first time on that day, does not dislike and never takes back, "
    "weighed by default settings",
    "known": "all signals of all users before that day, and nothing later",
    "tuning": "settings of a method are those that ranked best by NDCG@10 (mean over users) on all queries of earlier "
    "days, from the 30 % of each user's signals before the last 30 % on (1,000 of those days at most)",
    "figures": "mean over users of the mean over a user's queries; intervals are 95 %, by bootstrap over users; "
    "recall@k is hits / min(k, targets); mrr@50 looks at 50 places; coverage@10 is the share of the catalogue that is "
    "listed at all; verdicts foretell whether a rating will be four stars of five or more",
    "against": "Penchant less the method, paired by user; p is two-sided, corrected by Holm over the methods",
}


def report(
    log: Log, asked: list[Query], runs: Sequence[Sequence[Run]], seed: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the report of all methods, each run with one seed or more; what differs by seed is meant.

    `about` is added to the protocol. The result holds nothing but JSON types; NaN is null.
    """
    flat = [each for seeds in runs for each in seeds]
    listed = beyond(log, asked, flat)
    measured = iter([measure(log, asked, each, told) for each, told in zip(flat, listed, strict=True)])
    by_seed = {seeds[0].name: [next(measured) for _ in seeds] for seeds in runs}
    found = {name: _mean(seeds) for name, seeds in by_seed.items()}
    tests = [query for query in asked if query.phase is Phase.TEST and len(query.relevant)]
    draws = Bootstrap(len(log.user_ids), seed)
    cut = {name: each.cut for name, each in found.items()}
    return {
        "reading": READING,
        "protocol": {
            **PROTOCOL,
            "signals": len(log.signals),
            "items": len(log.catalogue),
            "users": len({query.question.user for query in tests}),
            "queries": len(tests),
            "verdict_users": max(int(np.isfinite(each.users["verdict_auc"]).sum()) for each in found.values()),
            "tuning_queries": sum(query.phase is Phase.TUNING for query in asked),
            "depth": DEPTH,
            "seed": seed,
            **about,
        },
        "methods": {
            name: {**_figures(draws, each.users), "coverage@10": [_number(each.coverage), None, None]}
            for name, each in found.items()
        },
        "against": _against(draws, {name: each.users for name, each in found.items()}),
        "groups": _groups(draws, asked, found),
        "single_cut": {
            "users": sum(query.phase is Phase.CUT for query in asked),
            "methods": {name: _figures(draws, values) for name, values in cut.items()},
            "against": _against(draws, cut),
        }
        if all(cut.values())
        else None,
        "settings": {seeds[0].name: _settings(log, asked, seeds[0]) for seeds in runs if len(seeds[0].settings) > 1},
        "seeds": {
            name: [_number(float(np.nanmean(each.users["ndcg@10"]))) for each in seeds]
            for name, seeds in by_seed.items()
            if len(seeds) > 1
        },
    }


def _mean(seeds: Sequence[Measured]) -> Measured:
    """Mean of the seeds, user by user: of those seeds that tell something of the user."""

    def meant(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
        return {name: _by_user([part[name] for part in parts]) for name in parts[0]}

    return Measured(
        meant([each.users for each in seeds]),
        {name: meant([each.groups[name] for each in seeds]) for name in seeds[0].groups},
        meant([each.cut for each in seeds]),
        float(np.mean([each.coverage for each in seeds])),
    )


def _by_user(columns: Sequence[Floats]) -> Floats:
    count = len(columns[0])
    return by_user(np.concatenate(columns), np.tile(np.arange(count), len(columns)), count)


def _groups(draws: Bootstrap, asked: list[Query], found: Mapping[str, Measured]) -> dict[str, Any]:
    groups = {}
    for name, chosen in group_masks(asked).items():
        values = {method: each.groups[name] for method, each in found.items()}
        told = [
            query
            for query, inside in zip(asked, chosen, strict=True)
            if inside and query.phase is Phase.TEST and len(query.relevant)
        ]
        if told:
            groups[name] = {
                "users": len({query.question.user for query in told}),
                "queries": len(told),
                "methods": {method: _figures(draws, each) for method, each in values.items()},
                "against": _against(draws, values),
            }
    return groups


def _figures(draws: Bootstrap, values: Mapping[str, Floats]) -> dict[str, list[float | None]]:
    return {name: [_number(n) for n in draws.interval(column)] for name, column in values.items()}


def _against(draws: Bootstrap, values: Mapping[str, Mapping[str, Floats]]) -> dict[str, Any]:
    if OURS not in values:
        return {}
    others = [name for name in values if name != OURS]
    found: dict[str, dict[str, list[float | None]]] = {name: {} for name in others}
    for metric, ours in values[OURS].items():
        told = {name: _difference(draws, ours, values[name][metric]) for name in others}
        corrected = holm({name: difference[3] for name, difference in told.items()})
        for name, difference in told.items():
            found[name][metric] = [_number(n) for n in (*difference[:3], corrected[name])]
    return found


def _difference(draws: Bootstrap, ours: Floats, theirs: Floats) -> tuple[float, float, float, float]:
    mean, low, high, p = draws.difference(ours, theirs)
    # Not all that are asked about have every figure: few may have rated anything.
    known = int((~np.isnan(ours - theirs)).sum())
    return mean, low, high, p if known >= FEWEST_USERS else float("nan")


def _settings(log: Log, asked: list[Query], run: Run) -> dict[str, Any]:
    """What each setting alone would have reached in the test, and how often it was the one chosen."""
    tests = np.array([query.phase is Phase.TEST for query in asked])
    users = np.array([query.question.user for query in asked])[tests]
    chosen = Counter(run.settings[place] for place in run.chosen[tests])
    alone = [np.nanmean(by_user(column, users, len(log.user_ids))) for column in run.by_setting[tests].T]
    return {
        name: {"chosen": _number(chosen[name] / tests.sum()), "ndcg@10": _number(float(value))}
        for name, value in zip(run.settings, alone, strict=True)
    }


def p_words(p: float) -> str:
    """Say a p value to three places, which none is too small for."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, DIGITS)
