"""From answers to figures, on answers that are given by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from small_logs import START, like, read

from penchant_pipelines import metrics
from penchant_pipelines.evaluation.log import Log
from penchant_pipelines.evaluation.measure import BEYOND, COLD, COLD_ALONE, Measured, beyond, measure
from penchant_pipelines.evaluation.methods import DEPTH, Run
from penchant_pipelines.evaluation.protocol import Phase, Query, Question
from penchant_pipelines.evaluation.report import OURS, report
from penchant_pipelines.model import MICROS_PER_DAY, Item
from penchant_pipelines.statistics import Bootstrap, holm

USERS = 12
ITEMS = [Item(id=f"i{n}", title=f"title {n}", categories=("early" if n < 2 else "late",)) for n in range(10)]
NONE = np.zeros(0, dtype=np.int64)


@pytest.fixture(scope="module")
def log() -> Log:
    """Each user likes an item a day for four days."""
    return read(ITEMS, [like(f"u{user:02}", day, f"i{day}") for user in range(USERS) for day in range(4)])


def query(
    user: int, day: int, relevant: int | None = None, liked: Sequence[bool] = (), phase: Phase = Phase.TEST
) -> Query:
    """Asked of a user on a day; the right answer is a cold one."""
    right = NONE if relevant is None else np.array([relevant])
    present = START + day * MICROS_PER_DAY
    question = Question(user, f"u{user:02}", present, NONE, NONE, np.arange(len(liked)), shelf=True)
    return Query(question, phase, day * USERS, day, right, right, np.array(liked, dtype=bool), "en")


def answers(
    top: Sequence[int], shelf: Sequence[int] = (), ratings: Sequence[Sequence[float]] = (), name: str = OURS
) -> Run:
    """One item for each query, and one of those nobody touched; −1: none."""
    lists = np.full((2, len(top), DEPTH), -1, dtype=np.int64)
    lists[0, :, 0] = top
    lists[1, :, 0] = shelf or -1
    rated = tuple(np.array(each, dtype=np.float64) for each in ratings or [[]] * len(top))
    nothing = np.zeros(len(top), dtype=np.int64)
    return Run(name, ("",), lists[0], lists[1], rated, nothing, np.zeros((len(top), 1)))


def measured(log: Log, asked: list[Query], run: Run) -> Measured:
    return measure(log, asked, run, [dict.fromkeys(BEYOND, 0.0) for _ in asked])


def test_coverage_is_that_of_tests_alone(log: Log) -> None:
    asked = [query(0, 1, 5, phase=Phase.TUNING), query(0, 2, 5), query(1, 2, 5)]
    assert measured(log, asked, answers([4, 5, 6])).coverage == pytest.approx(2 / len(ITEMS))


def test_what_is_cold_is_measured_in_the_list_of_all_and_in_one_of_its_own(log: Log) -> None:
    groups = measured(log, [query(0, 2, 5)], answers([1], shelf=[5])).groups
    assert groups[COLD]["ndcg@10"][0] == 0
    assert groups[COLD_ALONE]["ndcg@10"][0] == 1


def test_a_list_is_held_against_each_liking_once(log: Log) -> None:
    asked = [query(0, day, 5) for day in range(1, 4)]
    ((*_, told),) = beyond(log, asked, [answers([5, 5, 5])])
    expected = metrics.calibration_kl(Counter(early=2, late=1), Counter(late=1))
    assert told["calibration_kl@10"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("day", "phase", "recall"), [(1, Phase.TUNING, 1.0), (2, Phase.TEST, 0.0), (1, Phase.CUT, 0.0)]
)
def test_verdicts_are_foretold_by_those_of_earlier_days(log: Log, day: int, phase: Phase, recall: float) -> None:
    """Without any the threshold is ½, under which both scores are."""
    asked = [query(0, day, liked=(False, True), phase=phase), query(1, 2, liked=(False, True))]
    found = measured(log, asked, answers([-1, -1], ratings=[(0.1, 0.3)] * 2)).users
    assert found["verdict_recall"][1] == recall
    assert found["verdict_auc"][1] == 1


def test_each_p_is_corrected_for_all_methods(log: Log) -> None:
    asked = [query(user, 2, 5) for user in range(USERS)]
    hits = {OURS: 12, "some": 9, "few": 8}
    runs = [answers([5] * count + [6] * (USERS - count), name=name) for name, count in hits.items()]
    told = report(log, asked, [[each] for each in runs], 0, {})["against"]
    assert all(told[name]["ndcg@10"][0] == pytest.approx(1 - hits[name] / USERS, abs=1e-5) for name in ("some", "few"))
    draws, ours = Bootstrap(USERS, 0), np.ones(USERS)
    plain = {name: draws.difference(ours, (np.arange(USERS) < hits[name]).astype(np.float64))[3] for name in told}
    assert {name: values["ndcg@10"][3] for name, values in told.items()} == pytest.approx(holm(plain), abs=1e-5)
    assert holm(plain) != pytest.approx(plain, abs=1e-3)


def test_a_user_of_whom_one_seed_tells_nothing_is_not_left_out(log: Log) -> None:
    """Precision is told only where something was called liked, which differs by seed."""
    asked = [query(0, 2, 5, liked=(True, False)), query(1, 2, 5, liked=(True, False))]
    seeds = [
        answers([5, 5], ratings=ratings, name="by chance") for ratings in ([(1, 0), (0.1, 0)], [(1, 1), (0.9, 0.8)])
    ]
    found = report(log, asked, [seeds], 0, {})
    # ¾ of the first user, whom both seeds tell of, and ½ of the second.
    assert found["methods"]["by chance"]["verdict_precision"][0] == pytest.approx(5 / 8)


def test_of_few_users_there_is_no_p_whoever_else_is_asked_about(log: Log) -> None:
    asked = [query(user, 2, 5, liked=(True, False) if user < 9 else ()) for user in range(USERS)]
    better, worse = (
        answers([item] * USERS, ratings=[ratings if user < 9 else () for user in range(USERS)], name=name)
        for name, item, ratings in ((OURS, 5, (0.9, 0.1)), ("other", 6, (0.1, 0.9)))
    )
    found = report(log, asked, [[better], [worse]], 0, {})["against"]["other"]
    assert found["ndcg@10"][3] < 0.01
    assert found["verdict_auc"] == [1, 1, 1, None]
