"""Lessons from the record: what was taken to, and nothing known that could not be known then."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_records import DIMENSIONS, NOW, SPACE, Live, axis
from numpy.typing import NDArray

from penchant_pipelines.catalog import crowd
from penchant_pipelines.model import MICROS_PER_DAY, Action, Item
from penchant_pipelines.profiles import Profiles
from penchant_pipelines.recommend import history, lessons
from penchant_pipelines.recommend.lessons import MOST_LESSONS, Teacher
from penchant_pipelines.recommend.mix import Lesson
from penchant_pipelines.recommend.sequence import History, SequenceModel
from penchant_pipelines.recommend.sequence_network import Network, Shape
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.recommend.sources import SEQUENCE, SOURCES
from penchant_pipelines.record import rows

DAY = MICROS_PER_DAY
HOUR = DAY // 24
ITEMS, USERS, DAYS = 16, 4, 8
HIDDEN = 3
# Each example writes a record of its own.
law = settings(max_examples=6, deadline=None)


@dataclass(frozen=True)
class Act:
    """What a user did on a day, counted from 0; `write`: a post instead of the action."""

    user: int
    day: int
    item: int
    action: Action = Action.LIKE
    write: bool = False
    hour: int = 12

    @property
    def time(self) -> int:
        return NOW + self.day * DAY + self.hour * DAY // 24


ACTIONS = [Action.LIKE] * 6 + [Action.VIEW, Action.PURCHASE, Action.DISLIKE, Action.HIDE]


def life(seed: int, days: int = DAYS) -> list[Act]:
    """What users did, in no order."""
    draw = random.Random(seed)
    acts = [
        Act(user, day, draw.randrange(ITEMS), draw.choice(ACTIONS), draw.random() < 0.2, draw.randrange(20))
        for day in range(days)
        for user in range(USERS)
        for _ in range(draw.randrange(4))
    ]
    draw.shuffle(acts)
    return acts


def vector(item: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(item).normal(size=len(axis(0))) * 0.3
    row: NDArray[np.float32] = (axis(item) + noise).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


async def fill(live: Live) -> None:
    """Write the items, of which one is hidden."""
    await asyncio.gather(
        *(live.upsert(Item(f"i{item:02}", hidden=item == HIDDEN), vector(item)) for item in range(ITEMS))
    )
    await live.follow()


async def tell(live: Live, acts: Sequence[Act]) -> None:
    """Capture what was done, in this order."""
    await asyncio.gather(
        *(
            live.write(vector(act.item), f"i{act.item:02}", f"u{act.user}", act.time)
            if act.write
            else live.act(act.action, f"i{act.item:02}", f"u{act.user}", act.time)
            for act in acts
        )
    )
    await live.follow()


def teacher(live: Live, sequence: SequenceModel | None = None) -> Teacher:
    return Teacher(
        live.record, SPACE, live.blender, live.catalog.unheard(SPACE), RecommendSettings(), sequence, str.split
    )


def draw(live: Live, most: int = MOST_LESSONS) -> list[Lesson]:
    return list(teacher(live).lessons(most))


def lessons_of(*parts: Sequence[Act]) -> list[list[Lesson]]:
    """Lessons of a new record after each part was told."""

    async def drawn() -> list[list[Lesson]]:
        with TemporaryDirectory() as folder:
            live = Live(Path(folder))
            await fill(live)
            found = []
            for part in parts:
                await tell(live, part)
                found.append(draw(live))
            await live.close()
            return found

    return asyncio.run(drawn())


def same(one: Lesson, other: Lesson) -> bool:
    """Whether two lessons are of the same number of candidates, taken to and scored alike."""
    return (
        one.scores.shape == other.scores.shape
        and bool((one.taken == other.taken).all())
        and bool(np.allclose(one.scores, other.scores, atol=1e-4))
    )


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    found = Live(tmp_path)
    await fill(found)
    yield found
    await found.close()


@pytest.fixture
def all_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every day is asked about: by how much was told, it is otherwise the latest ones."""
    monkeypatch.setattr(lessons, "TAUGHT_SHARE", 1.0)


@law
@given(st.integers(0, 10**6), st.integers(1, DAYS - 1))
def test_what_comes_later_changes_no_lesson(seed: int, cut: int) -> None:
    acts = life(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "TAUGHT_SHARE", 1.0)
        before, after = lessons_of([act for act in acts if act.day < cut], [act for act in acts if act.day >= cut])
    assert len(after) >= len(before)
    assert all(same(*pair) for pair in zip(before, after, strict=False))


@law
@given(st.integers(0, 10**6))
def test_the_order_of_arrival_leaves_no_mark(seed: int) -> None:
    acts = life(seed)
    # Two signals of one moment follow each other by id, which here is given by arrival.
    acts = list({(act.user, act.time): act for act in acts}.values())
    (one,), (other,) = lessons_of(acts), lessons_of(sorted(acts, key=lambda act: act.time))
    assert len(one) == len(other)
    assert all(same(*pair) for pair in zip(one, other, strict=True))


@law
@given(st.integers(0, 10**6))
def test_two_records_of_one_log_give_the_same_lessons_to_the_last_digit(seed: int) -> None:
    acts = life(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "TAUGHT_SHARE", 1.0)
        patch.setattr(lessons, "MOST_ITEMS", 6)
        (one,), (other,) = lessons_of(acts), lessons_of(acts)
    assert len(one) == len(other)
    for mine, yours in zip(one, other, strict=True):
        assert mine.user == yours.user
        assert np.array_equal(mine.scores, yours.scores)
        assert np.array_equal(mine.taken, yours.taken)


@law
@given(st.integers(0, 10**6))
def test_a_lesson_compares_what_was_not_seen_and_knows_what_was_taken(seed: int) -> None:
    acts = life(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "TAUGHT_SHARE", 1.0)
        (found,) = lessons_of(acts)
    expected = []
    for day in range(DAYS):
        for user in range(USERS):
            mine = [act for act in acts if act.user == user]
            seen = {act.item for act in mine if act.day < day} | {HIDDEN}
            today = [act for act in mine if act.day == day]
            bad = {act.item for act in today if not act.write and act.action in (Action.DISLIKE, Action.HIDE)}
            taken = {act.item for act in today} - bad - seen
            if taken and any(act.day < day and favourable(act) for act in mine):
                expected.append((day, ITEMS - len(seen), len(taken)))
    assert sorted((lesson.scores.shape[1], int(lesson.taken.sum())) for lesson in found) == sorted(
        (compared, taken) for _, compared, taken in expected
    )
    assert all(lesson.scores.shape[0] == len(SOURCES) for lesson in found)
    assert all(lesson.scores.dtype == lesson.written.dtype == np.float32 for lesson in found)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_lesson_tells_what_would_be_said_to_one_who_only_wrote(seed: int) -> None:
    apart = np.array([name.startswith(("words", "alike")) for name in SOURCES])
    favoured = np.array([name.startswith(("words", "alike_items")) for name in SOURCES])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "TAUGHT_SHARE", 1.0)
        # What people have in common is read anew each time.
        for pending in ("_PENDING", "_UNLEARNT"):
            patch.setattr(crowd, pending, 0)
        (found,) = lessons_of(life(seed))
    for lesson in found:
        assert lesson.written.shape == lesson.scores.shape
        np.testing.assert_array_equal(lesson.written[~apart], lesson.scores[~apart])
        assert not lesson.written[favoured].any()
    # People are found by what is written about alone.
    assert any(lesson.written[apart & ~favoured].any() for lesson in found)


def favourable(act: Act) -> bool:
    return act.write or act.action not in (Action.DISLIKE, Action.HIDE)


@law
@given(st.integers(0, 10**6), st.integers(0, USERS - 1), st.integers(0, DAYS - 1), st.integers(0, ITEMS - 1))
def test_what_was_undone_leaves_no_trace(seed: int, user: int, day: int, item: int) -> None:
    acts = life(seed)
    (plain,) = lessons_of(acts)
    # The undo follows at once, so that it takes back nothing else.
    (undone,) = lessons_of([*acts, Act(user, day, item, hour=22), Act(user, day, item, Action.UNDO, hour=23)])
    assert len(plain) == len(undone)
    assert all(same(*pair) for pair in zip(plain, undone, strict=True))


@pytest.mark.usefixtures("all_days")
async def test_a_lesson_knows_nothing_of_its_own_day(live: Live) -> None:
    await tell(live, [Act(0, 0, 0), Act(0, 1, 1, hour=1), Act(1, 0, 0), Act(1, 1, 1, hour=23)])
    (one, other) = draw(live)
    for lesson in (one, other):
        popular = lesson.scores[SOURCES.index("popular_ever")]
        assert len(set(popular.tolist())) == 1  # nobody had favoured what is compared
    assert same(one, other)


async def test_only_days_after_the_first_of_those_who_like_something_teach(live: Live) -> None:
    await tell(live, [Act(0, 0, 0), Act(0, 0, 1)])
    await tell(live, [Act(1, 0, 2, Action.DISLIKE), Act(1, 1, 5)])
    assert draw(live) == []
    await tell(live, [Act(1, 2, 6)])
    assert len(draw(live)) == 1


async def test_what_was_disliked_the_same_day_was_not_taken_to(live: Live) -> None:
    await tell(live, [Act(0, 0, 0), Act(0, 1, 5), Act(0, 1, 6, hour=13), Act(0, 1, 5, Action.DISLIKE, hour=14)])
    (lesson,) = draw(live)
    assert lesson.taken.sum() == 1
    await tell(live, [Act(0, 1, 6, Action.NOT_INTERESTED, hour=15)])
    assert draw(live) == []


async def test_lessons_are_of_the_latest_days_of_each_user(live: Live) -> None:
    await tell(live, [Act(user, day, day) for user in range(2) for day in range(10) if day != HIDDEN])
    by_user = defaultdict(list)
    for lesson in draw(live):
        by_user[lesson.user].append(lesson.scores.shape[1])
    # 9 signals, of whose last 60 % the first is that of day 4.
    assert sorted(by_user.values()) == [[ITEMS - 1 - seen for seen in range(3, 9)]] * 2


async def test_the_latest_lessons_are_drawn(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await tell(live, [Act(user, day, day) for user in range(2) for day in range(10) if day != HIDDEN])
    assert [lesson.scores.shape[1] for lesson in draw(live, 3)] == [ITEMS - 8, ITEMS - 9, ITEMS - 9]
    # Of six signals, three of each user are left, and the latest two days of these teach.
    monkeypatch.setattr(lessons, "MOST_SIGNALS", 6)
    assert [lesson.scores.shape[1] for lesson in draw(live, 3)] == [ITEMS - 2, ITEMS - 3, ITEMS - 3]


async def test_a_replay_stops_soon_and_keeps_nothing_in_the_log(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await tell(live, [Act(user, day, day) for user in range(2) for day in range(10) if day != HIDDEN])
    whole = draw(live)
    monkeypatch.setattr(rows, "NAMED_AT_ONCE", 3)
    for one, other in zip(whole, draw(live), strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
    replaying = teacher(live)
    drawn = replaying.lessons()
    next(drawn)
    assert live.record.truncate_log()
    replaying.stop()
    assert len(list(drawn)) < len(whole) / 2


async def test_of_many_items_some_are_compared_and_all_that_were_taken(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tell(live, [Act(0, 0, 0), Act(0, 1, 1), Act(0, 1, 2)])
    monkeypatch.setattr(lessons, "MOST_ITEMS", 5)
    (lesson,) = draw(live)
    assert lesson.taken.sum() == 2
    assert 5 <= lesson.scores.shape[1] <= 7
    monkeypatch.setattr(lessons, "CANDIDATES", 1)
    (narrow,) = draw(live)
    assert narrow.taken.sum() == 2


async def test_an_empty_record_teaches_nothing(live: Live) -> None:
    assert draw(live) == []


async def test_what_came_after_the_user_is_neither_compared_nor_taken_to(live: Live) -> None:
    for item, born in ((4, 2 * DAY), (5, DAY + 13 * HOUR), (6, DAY + 11 * HOUR)):
        await live.upsert(Item(f"i{item:02}", create_time=NOW + born), vector(item))
    await tell(live, [Act(0, 0, 0), Act(0, 1, 5), Act(0, 1, 6, hour=13)])
    (lesson,) = draw(live)
    assert lesson.taken.sum() == 1
    assert lesson.scores.shape[1] == ITEMS - 4  # but the hidden one, the one seen, and items 4 and 5


async def test_before_1970_what_has_no_creation_time_teaches(live: Live) -> None:
    long_ago = -(NOW // DAY) - 100
    await tell(live, [Act(0, long_ago, 0), Act(0, long_ago + 1, 5)])
    assert len(draw(live)) == 1


class Asked(SequenceModel):
    """A model that keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(Network(Shape(DIMENSIONS, width=8, heads=2)), "space")
        self.histories: list[History] = []

    def next_vectors(self, history: History) -> NDArray[np.float32]:
        """See `SequenceModel`."""
        self.histories.append(history)
        return super().next_vectors(history)


async def test_lessons_ask_a_sequence_model_what_recommend_would_have_asked(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lessons, history):
        monkeypatch.setattr(module, "LATEST", 2)
    await live.act(Action.LIKE, "i00", time=NOW, surface="web")
    await live.act(Action.LIKE, "i01", time=NOW + HOUR, surface="app")
    await live.act(Action.LIKE, "gone", time=NOW + 2 * HOUR)  # tells a model nothing: it has no vector
    await live.act(Action.LIKE, "i05", time=NOW + 2 * DAY)
    await live.follow()
    model = Asked()
    (lesson,) = teacher(live, model).lessons()
    ann = Profiles(live.record, SPACE, live.blender).get("ann").key
    served = history.read_history(live.record, SPACE, ann, live.blender.recipe.settings, DIMENSIONS, NOW + DAY)
    (asked,) = model.histories
    assert asked.times.tolist() == [NOW, NOW + HOUR]
    assert len(set(asked.contexts[:, 0].tolist()) - {0}) == 2
    for name in ("vectors", "times", "actions", "weights", "contexts"):
        np.testing.assert_array_equal(getattr(asked, name), getattr(served, name), err_msg=name)
    assert lesson.scores[SOURCES.index(SEQUENCE)].any()
