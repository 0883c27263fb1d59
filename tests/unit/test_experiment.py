"""Experiments: who is in which arm, and what the feedback says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from penchant_pipelines.interests import InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY as DAY
from penchant_pipelines.model import Action
from penchant_pipelines.record import Record, schema
from penchant_pipelines.spaces.experiment import Experiment, Report, attribution_token, find, report

USERS = [f"u-{number}" for number in range(20_000)]


def experiment(name: str = "autumn", share: float = 0.5, end_time: int | None = None) -> Experiment:
    return Experiment(name, "books", share, "old", "new", 100, end_time)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_share_of_the_users_is_taken_always_the_same(share: float) -> None:
    taken = [user for user in USERS if experiment(share=share).takes(user)]
    assert len(taken) / len(USERS) == pytest.approx(share, abs=0.012)
    assert taken == [user for user in USERS if experiment(share=share).takes(user)]
    # A greater share keeps whom a smaller one took; another name draws anew.
    assert all(experiment(share=min(1.0, share * 2)).takes(user) for user in taken)
    if 0 < share < 1:
        again = sum(experiment("spring", share).takes(user) for user in taken) / len(taken)
        assert again == pytest.approx(share, abs=0.05)


def test_a_token_tells_its_space_and_nothing_else() -> None:
    one, same = attribution_token("old", "recommend", "mei", "7"), attribution_token("old", "recommend", "mei", "7")
    other, trial = attribution_token("old", "recommend", "mei", "8"), attribution_token("new", "recommend", "mei", "7")
    assert one == same
    assert len({one, other, trial}) == 3
    assert one[:8] == other[:8] != trial[:8]
    assert len(one) == 32
    assert "mei" not in one


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    found = Record(tmp_path)
    yield found
    found.close()


def keep(record: Record, rows: Iterable[tuple[int, str, Action, int]], **more: object) -> None:
    """Keep signals: user, space of the list, action, time; `more` holds for all of them."""
    with record.engine.begin() as connection:
        held = connection.execute(sa.select(sa.func.count()).select_from(schema.signals)).scalar_one()
        for number, (user, space, action, time) in enumerate(rows, start=held):
            if connection.execute(schema.users.select().where(schema.users.c.key == user)).first() is None:
                connection.execute(
                    schema.users.insert().values(
                        key=user, user_id=f"u-{user}", version=0, signal_count=0, latest_time=0, latest_id=""
                    )
                )
            connection.execute(
                schema.signals.insert().values(
                    id=f"s-{number}", user_key=user, time=time, digest=b"", action=int(action), item_id="i", text="",
                    given_language="", attribution_token=attribution_token(space, str(number)) if space else "",
                    **{"context": "{}", "language": "und", "terms": "[]", "awaits_item": False, "undone": False} | more,
                )
            )  # fmt: skip


def evaluated(record: Record, end_time: int | None = None) -> Report:
    return report(record, experiment(end_time=end_time), InterestSettings())


def test_only_feedback_on_lists_of_either_arm_in_its_time_counts(record: Record) -> None:
    keep(
        record,
        [
            (1, "old", Action.LIKE, 150),
            (1, "old", Action.HIDE, 160),
            (2, "new", Action.LIKE, 150),
            (3, "new", Action.SAVE, 170),
            (3, "third", Action.LIKE, 150),  # a list of another space
            (3, "", Action.LIKE, 150),  # of nobody's list
            (3, "new", Action.LIKE, 99),  # before
            (3, "new", Action.HIDE, 300),  # after
            (3, "new", Action.UNDO, 150),
        ],
    )
    found = evaluated(record, end_time=200)
    assert (found.control.users, found.control.signals, found.control.lists) == (1, 2, 2)
    assert (found.trial.users, found.trial.signals, found.trial.lists) == (2, 2, 2)
    assert (found.control.positive[0], found.control.negative[0]) == (0.5, 0.5)
    assert found.trial.positive[0] == 1
    assert found.positive[0] == 0.5
    # One user says nothing about others.
    assert found.control.positive[1:] == (0, 1)
    assert found.positive[1:] == (-1, 1)
    assert evaluated(record).trial.negative[0] == pytest.approx(1 / 3)


def test_what_was_taken_back_and_what_says_nothing_count_for_neither(record: Record) -> None:
    keep(record, [(1, "new", Action.LIKE, 150), (2, "new", Action.LIKE, 150)])
    keep(record, [(1, "new", Action.HIDE, 150), (2, "new", Action.SAVE, 150)], undone=True)
    before = evaluated(record)
    assert (before.trial.signals, before.trial.positive[0]) == (2, 1)
    # Seen for no time at all: neither liked nor disliked.
    keep(record, [(1, "new", Action.VIEW, 150), (2, "old", Action.VIEW, 150)], value=0.0)
    for arm in (evaluated(record).control, evaluated(record).trial):
        assert arm.negative_per_user[0] == 0
        assert arm.negative[0] == 0


def test_a_user_counts_in_the_arm_of_their_name_whatever_list_they_answer_to(record: Record) -> None:
    plan = experiment()
    trial, control = (next(user for user in range(1, 99) if plan.takes(f"u-{user}") is arm) for arm in (True, False))
    # Either answers to a list of the other arm: one that they were given before, or as somebody else.
    keep(record, [(trial, "old", Action.LIKE, 150), (control, "new", Action.HIDE, 150)])
    found = evaluated(record)
    assert (found.trial.active_users, found.control.active_users) == (1, 1)
    assert (found.trial.positive_per_user[0], found.trial.negative_per_user[0]) == (1, 0)
    assert (found.control.positive_per_user[0], found.control.negative_per_user[0]) == (0, 1)


def test_who_came_after_the_end_took_no_part(record: Record) -> None:
    keep(record, [(1, "", Action.LIKE, 150), (2, "", Action.LIKE, 201)])
    assert [
        found.control.active_users + found.trial.active_users for found in (evaluated(record, 200), evaluated(record))
    ] == [1, 2]


def test_signals_of_one_user_do_not_make_the_interval_narrow(record: Record) -> None:
    few = [(user, "old", Action.LIKE if user % 2 else Action.HIDE, 150) for user in range(1, 9) for _ in range(40)]
    many = [(100 + n, "new", Action.LIKE if n % 2 else Action.HIDE, 150) for n in range(320)]
    keep(record, few + many)
    found = evaluated(record)
    widths = [high - low for _, low, high in (found.control.positive, found.trial.positive)]
    assert found.control.positive[0] == found.trial.positive[0] == 0.5
    assert widths[1] == pytest.approx(2 * 1.96 * (0.25 / 320) ** 0.5, rel=0.2)
    assert widths[0] > 4 * widths[1]
    assert evaluated(record) == found


def test_a_difference_lies_within_its_interval_and_is_less_sure_than_either_arm(record: Record) -> None:
    keep(record, [(n, "old", Action.HIDE if n % 4 else Action.LIKE, 150) for n in range(100)])
    keep(record, [(100 + n, "new", Action.LIKE if n % 4 else Action.HIDE, 150) for n in range(100)])
    found = evaluated(record)
    assert found.positive[0] == -found.negative[0] == 0.5
    for sign, (_, low, high) in ((1, found.positive), (-1, found.negative)):
        assert low < sign * 0.5 < high
        # The arms are drawn anew by themselves, alike as they are.
        assert high - low == pytest.approx(2 * 1.96 * (2 * 0.25 * 0.75 / 100) ** 0.5, rel=0.15)


def test_who_sends_likes_alone_still_tells_the_arms_apart(record: Record) -> None:
    plan = experiment()
    rows = []
    for user in range(1, 401):
        trial = plan.takes(f"u-{user}")
        # All were active; of the control a fifth likes something, of the trial half, and nobody says what they dislike.
        rows.append((user, "", Action.VIEW, 120))
        rows += [(user, "new" if trial else "old", Action.LIKE, 150)] * (user % (2 if trial else 5) == 0)
    keep(record, [*rows, (900, "", Action.LIKE, 100 - 29 * DAY), (901, "", Action.VIEW, 100 - 27 * DAY)])
    found = evaluated(record)
    assert found.control.active_users + found.trial.active_users == 401
    assert found.control.positive_per_user[0] == pytest.approx(0.2, abs=0.05)
    assert found.trial.positive_per_user[0] == pytest.approx(0.5, abs=0.06)
    value, low, high = found.positive_per_user
    assert value == pytest.approx(found.trial.positive_per_user[0] - found.control.positive_per_user[0])
    assert 0 < low < value < high
    assert high - low == pytest.approx(2 * 1.96 * (0.2 * 0.8 / 200 + 0.25 / 200) ** 0.5, rel=0.15)
    assert found.negative_per_user[0] == found.positive[0] == 0


def test_an_experiment_is_found_by_its_name_and_the_newest_without_one(record: Record) -> None:
    first, second = experiment("autumn", share=0.1, end_time=300), experiment("spring")
    with record.engine.begin() as connection:
        connection.execute(schema.experiments.insert(), [dataclasses.asdict(each) for each in (first, second)])
    assert find(record, "") == find(record, "spring") == second
    assert find(record, "autumn") == first
    assert find(record, "winter") is None


def test_nothing_has_been_tried_yet(record: Record) -> None:
    assert find(record, "") is None
    found = evaluated(record)
    assert found.trial.signals == 0
    assert found.positive_per_user[1:] == (-float("inf"), float("inf"))
    assert found.trial.positive == (0, 0, 1)


def test_active_users_of_whom_none_gave_feedback_tell_nothing(record: Record) -> None:
    keep(record, [(user, "", Action.LIKE, 150) for user in range(20)])
    found = evaluated(record)
    assert min(found.control.active_users, found.trial.active_users) > 1
    for figure in (found.control.positive_per_user, found.trial.negative_per_user, found.negative_per_user):
        assert figure == (0, -float("inf"), float("inf"))
