"""Record, ledger and writer: what is answered is durable, and profiles follow from what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.capture import _capture_all, _Read
from penchant_pipelines.completion import Completion
from penchant_pipelines.errors import Conflict, NotFound, Overloaded, Unavailable, WrongState
from penchant_pipelines.interests import Blender, Calibration, Event, InterestSettings, Profile, Recipe, pack, unpack
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal, Steering
from penchant_pipelines.profiles import Profiles
from penchant_pipelines.reader import NOTHING
from penchant_pipelines.recommend.history import read_history
from penchant_pipelines.record import Record, Writer, nothing, rows, schema, users
from penchant_pipelines.record.commit import Captured, Commit, Steered
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.reading import Reading
from penchant_pipelines.record.record import FILE
from penchant_pipelines.record.users import ProfileCache

DIMENSIONS = 8
LEVEL = Calibration(0.6, np.zeros(DIMENSIONS, np.float32))
DAY = MICROS_PER_DAY


def axis(index: int) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.eye(DIMENSIONS, dtype=np.float32)[index % DIMENSIONS]
    return row


def reading(index: int) -> Reading:
    """Two spaces that see topics in other places."""
    return Reading({1: axis(index), 2: axis(index + 3)}, "en", (f"topic{index}",))


@dataclass(eq=False)
class KeptSpace:
    key: int
    space_id: str
    blender: Blender
    keeps_profiles: bool = True


def post(name: str, user: str = "ann", topic: int = 0, day: float = 1, item: str = "") -> Signal:
    return Signal(name, user, Post(f"about {topic}", item_id=item), int(day * DAY))


def act(name: str, action: Action, user: str = "ann", item: str = "film", day: float = 1) -> Signal:
    return Signal(name, user, Behavior(item, action), int(day * DAY))


class Store:
    """A record with its writer, and what was told of its commits."""

    def __init__(self, folder: Path, recipe: Recipe | None = None) -> None:
        self.record = Record(folder)
        self.blender = Blender(recipe or Recipe(InterestSettings(max_interests=3), LEVEL, "space"))
        self.spaces = [KeptSpace(key, f"space-{key}", self.blender) for key in (1, 2)]
        self.cache: ProfileCache = ProfileCache(maxsize=100)
        self.commits: list[Commit] = []
        self.numbers = self.record.numbers()
        self.writer: Writer[Ledger] = Writer(self.record.engine, self.ledger)
        self.completion = Completion(self.record, self.writer)
        self.profiles = Profiles(self.record, 1, self.blender)

    def ledger(self, connection: sa.Connection) -> Ledger:
        serving, told = self.spaces[0], self.commits.append
        return Ledger(connection, self.spaces, lambda _: serving, self.cache, b"secret", self.numbers, told)

    async def close(self) -> None:
        await self.writer.close()
        self.record.close()

    async def capture(self, *signals: Signal) -> Captured:
        """Capture signals in one transaction; the answer for the last."""
        return (await self.writer.submit(self.capturing(signals)))[-1]

    def capturing(self, signals: Sequence[Signal]) -> Callable[[Ledger], Callable[[], list[Captured]]]:
        def work(ledger: Ledger) -> Callable[[], list[Captured]]:
            finishes = [ledger.capture(signal, signal.time or 0, read(signal)) for signal in signals]
            return lambda: [finish() for finish in finishes]

        return work

    async def upsert(self, *items: tuple[str, int]) -> None:
        await self.put(*items)
        await self.complete(*(name for name, _ in items))

    async def put(self, *items: tuple[str, int]) -> None:
        """Upsert items; signals that wait for them go on to."""
        batch = [(Item(name, title=name), reading(topic)) for name, topic in items]
        await self.writer.submit(lambda ledger: ledger.upsert_items(batch))

    async def complete(self, *item_ids: str) -> None:
        """Complete the signals that wait for these items."""
        self.completion.note(item_ids)
        await self.completion.complete()

    def stored(self, user: str = "ann", space: int = 1) -> Profile:
        """The profile as it lies in the record."""
        users, profiles = schema.users, schema.profiles
        with self.record.read() as connection:
            query = (
                sa.select(profiles.c.profile)
                .join(users, users.c.key == profiles.c.user_key)
                .where(users.c.user_id == user, profiles.c.space == space)
            )
            return unpack(connection.execute(query).scalar_one())

    def replayed(self, user: str = "ann", space: int = 1) -> Profile:
        """The profile made anew from what the record holds."""
        with self.record.read() as connection:
            key = connection.execute(sa.select(schema.users.c.key).where(schema.users.c.user_id == user)).scalar_one()
            return self.blender.replay(rows.user_events(connection, space, key))

    def true(self, user: str = "ann") -> bool:
        """Whether record, cache and signals tell the same profile, in each space."""
        return all(self._true(user, space.key) for space in self.spaces)

    def _true(self, user: str, space: int) -> bool:
        kept = pack(self.replayed(user, space))
        at_hand = self.cache.get(user)
        return pack(self.stored(user, space)) == kept and (at_hand is None or pack(at_hand.profiles[space]) == kept)

    def count(self, table: sa.Table) -> int:
        with self.record.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def read(signal: Signal) -> Reading:
    evidence = signal.evidence
    return reading(int(evidence.text.split()[-1])) if isinstance(evidence, Post) and evidence.text else Reading()


@asynccontextmanager
async def opened(folder: Path, recipe: Recipe | None = None) -> AsyncIterator[Store]:
    store = Store(folder, recipe)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as found:
        yield found


def refuse_commits(store: Store, times: int, when: Callable[[sa.Connection], bool] = lambda _: True) -> list[int]:
    """Let the next commits of the writer fail, as on a full disk; returns a list that grows with each."""
    failed: list[int] = []

    @sa.event.listens_for(store.record.engine, "commit")
    def _commit(connection: sa.Connection) -> None:
        if len(failed) < times and when(connection):
            failed.append(1)
            raise OSError("the disk is full")

    return failed


# -- the writer ----------------------------------------------------------------------------------------------


async def test_an_answer_means_that_it_is_committed(store: Store) -> None:
    seen: list[int] = []

    async def one(number: int) -> None:
        await store.capture(post(f"p{number}", topic=number))
        with store.record.read() as connection:
            query = sa.select(schema.signals.c.id).where(schema.signals.c.id == f"p{number}")
            seen.append(len(connection.execute(query).all()))

    await asyncio.gather(*(one(number) for number in range(100)))
    assert seen == [1] * 100
    # Group commit: far fewer transactions than works.
    assert len(store.commits) < 50
    assert store.true()


async def test_nobody_is_answered_when_the_commit_fails(store: Store) -> None:
    await store.capture(post("before"))
    before = pack(store.stored())
    failed = refuse_commits(store, 10_000)
    outcomes = await asyncio.gather(
        *(store.capture(post(f"p{n}", user=f"u{n % 3}")) for n in range(20)),
        store.capture(post("late")),
        return_exceptions=True,
    )
    assert failed
    assert all(isinstance(outcome, OSError) for outcome in outcomes)
    assert store.count(schema.signals) == 1
    assert pack(store.stored()) == before
    assert len(store.commits) == 1
    failed.extend([1] * 10_000)
    # The same signals are no duplicates: nothing of them was kept, nor is it in a cached profile.
    assert not (await store.capture(post("late"))).duplicate
    assert store.true()


async def test_works_that_failed_together_are_tried_alone(store: Store) -> None:
    await store.capture(post("before"))

    def poisoned(connection: sa.Connection) -> bool:
        query = sa.select(schema.signals.c.seq).where(schema.signals.c.id == "poison")
        return connection.execute(query).first() is not None

    refuse_commits(store, 10_000, poisoned)
    names = ["a", "b", "poison", "c"]
    outcomes = await asyncio.gather(*(store.capture(post(name, day=2)) for name in names), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Captured, Captured, OSError, Captured]
    assert store.count(schema.signals) == 4
    assert store.true()


@pytest.mark.parametrize("stage", ["work", "finish"])
async def test_an_exception_in_one_work_hurts_no_other(store: Store, stage: str) -> None:
    def broken(ledger: Ledger) -> Callable[[], None]:
        ledger.capture(post("half", topic=5), DAY, reading(5))
        if stage == "work":
            raise ZeroDivisionError

        def finish() -> None:
            raise ZeroDivisionError

        return finish

    outcomes = await asyncio.gather(
        store.capture(post("a")),
        store.writer.submit(broken),
        store.capture(post("b", topic=1)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Captured, ZeroDivisionError, Captured]
    assert sorted(event.id for event in events_of(store)) == ["a", "b"]
    assert store.true()


def events_of(store: Store, user: str = "ann") -> list[Any]:
    with store.record.read() as connection:
        key = connection.execute(sa.select(schema.users.c.key).where(schema.users.c.user_id == user)).scalar_one()
        return list(rows.user_events(connection, 1, key))


async def test_works_run_in_the_order_they_came(store: Store) -> None:
    ran: list[int] = []

    def work(number: int) -> Callable[[Ledger], Callable[[], int]]:
        def run(ledger: Ledger) -> Callable[[], int]:
            ran.append(number)
            return lambda: number

        return run

    assert await asyncio.gather(*(store.writer.submit(work(n)) for n in range(300))) == list(range(300))
    assert ran == list(range(300))


async def test_cancelled_works_are_dropped(store: Store) -> None:
    gate, inside = threading.Event(), threading.Event()

    def slow(ledger: Ledger) -> Callable[[], None]:
        inside.set()
        assert gate.wait(10)
        return lambda: None

    first = asyncio.create_task(store.writer.submit(slow))
    await asyncio.to_thread(inside.wait, 10)
    gone = asyncio.create_task(store.capture(post("gone")))
    kept = asyncio.create_task(store.capture(post("kept")))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, kept)
    assert [event.id for event in events_of(store)] == ["kept"]


async def test_closing_commits_what_is_queued_and_takes_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    waiting = [asyncio.create_task(store.capture(post(f"p{n}"))) for n in range(150)]
    await asyncio.sleep(0)
    await store.writer.close()
    assert len(await asyncio.gather(*waiting)) == 150
    with pytest.raises(WrongState):
        await store.capture(post("late"))
    store.record.close()


async def test_who_writes_while_another_does_waits_for_its_turn(store: Store) -> None:
    await store.capture(post("before"))
    held, free = threading.Event(), threading.Event()

    def write() -> None:
        with store.record.engine.begin() as connection:
            connection.execute(schema.secrets.insert().values(name="other", value=b""))
            held.set()
            assert free.wait(10)

    other = asyncio.create_task(asyncio.to_thread(write))
    await asyncio.to_thread(held.wait, 10)
    captured = asyncio.create_task(store.capture(post("meanwhile")))
    assert not (await asyncio.wait([captured], timeout=0.3))[0]
    free.set()
    await other
    assert (await captured).version == 2


async def test_the_log_is_emptied_without_holding_up_anybody(store: Store) -> None:
    await store.capture(post("p"))
    with store.record.read() as connection:
        assert connection.execute(sa.select(schema.signals.c.id)).scalars().all() == ["p"]
        await store.capture(post("q"))
        started = time.monotonic()
        assert not store.record.truncate_log()
        await store.capture(post("r"))
        assert time.monotonic() - started < 5
    assert store.record.truncate_log()
    assert (store.record.folder / "record.sqlite3-wal").stat().st_size == 0


async def test_where_the_disk_is_full_a_caller_is_told_to_come_back(store: Store) -> None:
    await store.capture(post("p"))
    full = True

    @sa.event.listens_for(store.record.engine, "begin")
    def limit(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if full else 2**30}")  # 1: as many as there are

    with pytest.raises(Unavailable, match="full"):
        await store.capture(*(post(f"p{number}", day=number) for number in range(2_000)))
    full = False
    assert [event.id for event in events_of(store)] == ["p"]
    assert (await store.capture(post("q"))).version == 2
    assert store.true()


# -- signals -------------------------------------------------------------------------------------------------


async def test_a_resend_is_a_duplicate_and_other_content_a_conflict(store: Store) -> None:
    first = await store.capture(post("p"))
    again = await store.capture(post("p"))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.version, again.view.interests[0].signal_count) == (1, 1)
    for other in (
        post("p", topic=1),
        post("p", user="bob"),
        post("p", day=2),
        replace(post("p"), context={"k": "v"}),
    ):
        with pytest.raises(Conflict):
            await store.capture(other)
    outcome = await asyncio.gather(*(store.capture(post("q")) for _ in range(5)))
    assert sorted(captured.duplicate for captured in outcome) == [False, True, True, True, True]
    assert store.count(schema.signals) == 2


async def test_what_is_exported_is_known_again(store: Store) -> None:
    sent = replace(post("p"), time=None)
    await store.writer.submit(lambda ledger: ledger.capture(sent, DAY, reading(0)))
    # An export names the server's time.
    assert (await store.capture(replace(sent, time=DAY))).duplicate
    with pytest.raises(Conflict):
        await store.capture(replace(sent, time=2 * DAY))
    # And where an export was read in, its sender may send again what names no time.
    await store.capture(post("q", day=3))
    again = replace(post("q"), time=None)
    assert (await store.writer.submit(lambda ledger: ledger.capture(again, 9 * DAY, reading(0)))).duplicate


async def test_what_is_exported_after_a_merge_is_known_again(store: Store) -> None:
    await store.capture(replace(post("p", user="guest"), context={"surface": "home"}))
    await store.capture(post("q", user="ann"), post("r", user="bob"))
    for source, target in (("guest", "ann"), ("ann", "mei")):
        await store.writer.submit(partial(Ledger.merge, from_user_id=source, into_user_id=target))
    exported = store.profiles.signals("mei", None, 10)
    assert [signal.user_id for signal in exported] == ["mei", "mei"]
    for signal in exported:
        assert (await store.capture(signal)).duplicate
        for other in (replace(signal, context={"k": "v"}), replace(signal, user_id="bob")):
            with pytest.raises(Conflict):
                await store.capture(other)
    # Who comes back as a guest is somebody else.
    await store.capture(post("s", user="guest"))
    with pytest.raises(Conflict):
        await store.capture(post("s", user="mei"))


async def test_what_was_exported_between_merges_is_known_after_them(store: Store) -> None:
    await store.capture(post("p", user="guest"), post("q", user="ann"))
    await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))
    exported = store.profiles.signals("ann", None, 10)
    for source, target in (("ann", "mei"), ("mei", "guest")):
        await store.writer.submit(partial(Ledger.merge, from_user_id=source, into_user_id=target))
        for signal in exported:
            assert (await store.capture(signal)).duplicate
    # So is what is sent again under an id that has become another's.
    await store.capture(post("r", user="ann"))
    await store.writer.submit(lambda ledger: ledger.merge("ann", "bob"))
    assert (await store.capture(post("q", user="ann"))).duplicate


async def test_a_negative_zero_is_known_again_as_the_zero_that_is_kept(store: Store) -> None:
    rated = Signal("p", "ann", Post("about 0", rating=-0.0), DAY)
    seen = Signal("q", "ann", Behavior("film", Action.VIEW, value=-0.0), DAY)
    await store.capture(rated, seen)
    for signal in (rated, seen, *store.profiles.signals("ann", None, 10)):
        assert (await store.capture(signal)).duplicate


async def test_a_merge_there_and_back_leaves_a_user_with_no_merged_id_of_its_own(store: Store) -> None:
    await store.capture(post("p", user="guest"), post("q", user="mei"), post("r", user="tab"))
    for source, target in (("tab", "mei"), ("mei", "guest"), ("guest", "mei")):
        await store.writer.submit(partial(Ledger.merge, from_user_id=source, into_user_id=target))
    assert store.profiles.merged_ids("mei") == ["guest", "tab"]
    for signal in store.profiles.signals("mei", None, 10):
        assert (await store.capture(signal)).duplicate
    # What an id was merged into is no affair of who it is merged from later.
    await store.capture(post("s", user="tab"), post("t", user="new"))
    await store.writer.submit(lambda ledger: ledger.merge("new", "tab"))
    assert store.profiles.merged_ids("mei") == ["guest", "tab"]


async def test_an_answer_names_the_version_and_the_interests_that_its_signal_made(store: Store) -> None:
    captured = await store.writer.submit(store.capturing([post("a"), post("b", topic=1, day=2), post("c", day=3)]))
    assert [one.version for one in captured] == [1, 2, 3]
    by_id = {interest.id: interest.signal_count for interest in captured[-1].view.interests}
    assert [len(one.changed_ids) for one in captured] == [1, 1, 1]
    assert captured[0].changed_ids == captured[2].changed_ids != captured[1].changed_ids
    assert by_id[next(iter(captured[0].changed_ids))] == 2


async def test_late_signals_are_replayed_once_a_group(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.capture(*(post(f"p{n}", topic=n, day=100 + n) for n in range(5)))
    read = counting_reads(monkeypatch)
    await store.capture(*(post(f"in{n}", topic=n, day=200 + n) for n in range(20)))
    assert read == []
    await store.capture(*(post(f"late{n}", topic=n, day=n) for n in range(20)))
    assert read == [45, 45]  # once a space
    assert store.true()


def counting_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events of a user each replay reads, from now on."""
    read: list[int] = []
    user_events = rows.user_events

    def counting(*arguments: Any, **options: Any) -> list[Event]:
        events = user_events(*arguments, **options)
        read.append(len(events))
        return events

    monkeypatch.setattr(rows, "user_events", counting)
    return read


async def test_a_signal_that_is_a_little_late_is_blended_from_a_snapshot(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.upsert(("film", 3))
    await store.capture(act("old like", Action.LIKE, day=0))
    await store.capture(*(post(f"p{day}", topic=day, day=day) for day in range(1, 600)))
    read = counting_reads(monkeypatch)
    for sent, replayed in (
        (post("late", day=598.5), 601),
        (post("soon after", day=597.5), 17),
        (act("like", Action.LIKE, day=596.5), 17),
        (act("undo", Action.UNDO, day=600), 17),
        (post("later", day=300.5), 516),
        (post("soon after that", day=598.1), 19),
        (act("undo the old", Action.UNDO, day=601), 607),
        (post("at last", day=600.5), 20),
    ):
        await store.capture(sent)
        assert read == [replayed, replayed]  # once a space
        assert store.true()
        read.clear()


signals = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 7), st.sampled_from(["post", "like", "dislike", "undo", "unknown"])),
    max_size=12,
)


@patch.object(users, "SNAPSHOT_LAGS", (4, 1))
@settings(max_examples=15, deadline=None)
@given(signals, st.randoms(use_true_random=False), st.integers(1, 4))
async def test_any_order_of_arrival_ends_in_the_same_profile(
    drawn: list[tuple[int, int, str]], random: Any, group: int
) -> None:
    actions = {"like": Action.LIKE, "dislike": Action.DISLIKE, "undo": Action.UNDO}
    history = [
        post(f"s{n}", topic=topic, day=day, item="late" if kind == "unknown" else "")
        if kind in ("post", "unknown")
        else act(f"s{n}", actions[kind], item=f"item{topic % 2}", day=day)
        for n, (day, topic, kind) in enumerate(drawn)
    ]
    packed: list[bytes] = []
    for shuffled in (False, True):
        arriving = list(history)
        if shuffled:
            random.shuffle(arriving)
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder)) as store:
                await store.upsert(("item0", 0), ("item1", 1))
                if not shuffled:
                    await store.upsert(("late", 3))
                for start in range(0, len(arriving), group):
                    if shuffled and start == len(arriving) // 2 // group * group:
                        await store.put(("late", 3))
                    await store.capture(*arriving[start : start + group])
                if shuffled:
                    await store.complete("late")
                if history:
                    assert store.true()
                    packed.append(pack(store.stored()))
    assert len(set(packed)) <= 1


@pytest.mark.parametrize(("like", "undo"), [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("late", [False, True])
async def test_an_undo_of_the_same_time_takes_back_what_it_names(
    store: Store, like: str, undo: str, late: bool
) -> None:
    await store.upsert(("film", 2))
    pair = [act(like, Action.LIKE), act(undo, Action.UNDO)]
    for signal in reversed(pair) if late else pair:
        await store.capture(signal)
    assert store.stored().interests == []
    assert store.true()


async def test_no_id_is_later_than_an_undo_of_its_time(store: Store) -> None:
    await store.upsert(("film", 2))
    await store.capture(act("undo", Action.UNDO))
    await store.capture(act("\U0010ffff like", Action.LIKE))
    assert store.stored().interests == []
    assert store.true()


async def test_an_undo_without_a_time_is_later_than_a_clock_that_runs_ahead(store: Store) -> None:
    await store.upsert(("film", 2))
    await store.capture(act("like", Action.LIKE, day=2))
    undo = replace(act("undo", Action.UNDO), time=None)
    await store.writer.submit(lambda ledger: ledger.capture(undo, DAY, Reading()))
    assert store.stored().interests == []
    assert store.true()
    assert (await store.writer.submit(lambda ledger: ledger.capture(undo, 3 * DAY, Reading()))).duplicate


async def test_an_undo_marks_what_it_took_back(store: Store) -> None:
    await store.upsert(("film", 2))
    await store.capture(act("like", Action.LIKE, day=1))
    await store.capture(act("save", Action.SAVE, day=2))
    await store.capture(act("undo", Action.UNDO, day=3))
    with store.record.read() as connection:
        query = sa.select(schema.signals.c.id).where(schema.signals.c.undone)
        assert list(connection.execute(query).scalars()) == ["save"]
    assert store.commits[-1].recount == {"film"}
    # An earlier undo that arrives late takes back the like; the later one still stands for the save.
    await store.capture(act("early", Action.UNDO, day=1.5))
    with store.record.read() as connection:
        assert set(connection.execute(query).scalars()) == {"like", "save"}
    assert store.stored().interests == []
    assert store.profiles.seen(store.profiles.get("ann").key) == set()
    assert store.true()
    # What comes later still, of a time before the undo, is what that takes back: the save stands again.
    await store.capture(act("late", Action.LIKE, day=2.5))
    with store.record.read() as connection:
        assert set(connection.execute(query).scalars()) == {"like", "late"}
    assert store.profiles.seen(store.profiles.get("ann").key) == {"film"}
    assert store.true()


async def test_a_signal_waits_for_its_item(store: Store) -> None:
    waiting = await store.capture(act("like", Action.LIKE))
    assert waiting.view.interests == ()
    assert waiting.version == 1
    await store.capture(post("p", topic=1, day=2))
    await store.upsert(("film", 4))
    assert store.true()
    found = store.profiles.get("ann")
    assert {int(np.argmax(interest.vector)) for interest in found.view.interests} == {1, 4}
    assert found.version == 3
    # What the user wrote about an item and the item share a direction.
    await store.capture(post("review", topic=5, day=3, item="film"))
    with store.record.read() as connection:
        blobs = connection.execute(
            sa.select(schema.signal_vectors.c.vector)
            .join(schema.signals, schema.signals.c.seq == schema.signal_vectors.c.seq)
            .where(schema.signals.c.id == "review")
            .order_by(schema.signal_vectors.c.space)
        ).scalars()
        found_vectors = [np.frombuffer(blob, np.float32) for blob in blobs]
    np.testing.assert_allclose(found_vectors[0], (axis(4) + axis(5)) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(found_vectors[1], (axis(7) + axis(8)) / np.sqrt(2), atol=1e-6)


@pytest.mark.parametrize("order", ["item first", "signal first"])
async def test_a_post_about_an_item_has_the_terms_of_both_however_many_are_taken_from_a_text(
    store: Store, order: str
) -> None:
    said, names = (tuple(f"{kind}{number}" for number in range(12)) for kind in ("said", "name"))
    review, about = Reading({1: axis(0), 2: axis(3)}, "en", said), Reading({1: axis(1), 2: axis(4)}, "en", names)
    captured = partial(Ledger.capture, signal=post("review", item="film"), time=DAY, reading=review)
    upserted = partial(Ledger.upsert_items, batch=[(Item("film"), about)])
    for work in (upserted, captured) if order == "item first" else (captured, upserted):
        await store.writer.submit(work)
    await store.complete("film")
    # What it says of its item is another thing now.
    assert store.commits[-1].recount == ({"film"} if order == "signal first" else set())
    assert [event.terms for event in events_of(store)] == [said + names]


async def test_an_item_that_changes_leaves_signals_as_they_were_taken(store: Store) -> None:
    await store.capture(act("like", Action.LIKE))
    await store.upsert(("film", 4))
    await store.capture(post("review", topic=5, day=3, item="film"))
    before, version = pack(store.stored()), store.profiles.get("ann").version
    await store.upsert(("film", 6))
    assert pack(store.stored()) == pack(store.replayed()) == before
    assert store.profiles.get("ann").version == version


async def test_an_item_that_is_sent_twice_at_once_is_what_came_last(store: Store) -> None:
    await store.capture(act("like", Action.LIKE))
    await store.upsert(("film", 4), ("film", 6))
    centroid = store.stored().interests[0].centroid
    np.testing.assert_allclose(centroid, axis(6), atol=1e-6)
    assert [item.id for commit in store.commits for item, *_ in commit.upserted] == ["film"]
    assert store.true()


async def test_a_word_is_put_elsewhere_where_it_was_said_to_belong(store: Store) -> None:
    captured = await store.capture(post("p"))
    interest = captured.view.interests[0].id
    pinned = Steering(pinned=True)
    await store.writer.submit(
        lambda ledger: ledger.steer("ann", 2 * DAY, pinned, interest, "", Reading(), {2: axis(7)})
    )
    with store.record.read() as connection:
        held = connection.execute(sa.select(schema.steering_vectors).order_by(schema.steering_vectors.c.space)).all()
    assert [np.frombuffer(row.vector, np.float32).argmax() for row in held] == [0, 7]
    assert store.true()


async def test_a_deleted_item_leaves_signals_their_vectors(store: Store) -> None:
    await store.upsert(("film", 4))
    await store.capture(act("like", Action.LIKE))
    before = pack(store.stored())
    assert await store.writer.submit(lambda ledger: ledger.delete_items(["film", "absent", "film"])) == 1
    assert pack(store.stored()) == before
    assert list(store.commits[-1].deleted_items) == ["film"]
    assert store.true()


# -- steering ------------------------------------------------------------------------------------------------


async def test_the_users_word_is_part_of_the_history(store: Store) -> None:
    captured = await store.capture(post("p", topic=0, day=1))
    key = captured.view.interests[0].id
    found = await store.writer.submit(
        lambda ledger: ledger.steer("ann", 5 * DAY, Steering(muted=True), key, "", Reading())
    )
    assert found.interest.id == key
    assert found.interest.steering.muted
    topic = await store.writer.submit(
        lambda ledger: ledger.steer("ann", 6 * DAY, Steering(bias=1.0), "", "about 3", reading(3))
    )
    assert int(np.argmax(topic.interest.vector)) == 3
    # A signal from before the words leaves them standing.
    late = await store.capture(post("late", topic=0, day=0.5))
    assert {interest.steering for interest in late.view.interests} == {
        Steering(muted=True),
        Steering(bias=1.0),
    }
    assert store.true()
    with pytest.raises(NotFound):
        await store.writer.submit(lambda ledger: ledger.steer("ann", DAY, Steering(), "absent", "", Reading()))
    with pytest.raises(NotFound):
        await store.writer.submit(lambda ledger: ledger.steer("nobody", DAY, Steering(), key, "", Reading()))


async def test_there_is_nothing_to_take_back_while_late_signals_come_either(store: Store) -> None:
    await store.capture(post("p", topic=0, day=9))

    def work(ledger: Ledger) -> Callable[[], None]:
        store.capturing([post("late", topic=1, day=1)])(ledger)
        with pytest.raises(NotFound):
            ledger.steer("ann", 10 * DAY, Steering(), "", "about 3", reading(3))
        # What came late is there to be spoken of.
        ledger.steer("ann", 10 * DAY, Steering(), "", "about 1", reading(1))
        return nothing

    await store.writer.submit(work)
    assert store.count(schema.steerings) == 1
    assert store.true()


async def test_the_answer_to_a_word_taken_back_tells_of_it_though_it_is_gone(store: Store) -> None:
    muted, nothing_said = Steering(muted=True), Steering()
    # The last two come late, which makes the words beside them a matter of a replay.
    for day, steering in ((8, muted), (9, nothing_said), (2, muted), (1, nothing_said)):

        def work(ledger: Ledger, day: int = day, steering: Steering = steering) -> Callable[[], Steered]:
            store.capturing([post(f"p{day}", topic=0, day=day)])(ledger)
            return ledger.steer("ann", 5 * DAY, steering, "", "about 3", reading(3))

        told = await store.writer.submit(work)
        assert int(np.argmax(told.interest.vector)) == 3
        assert (told.interest.steering, told.interest.weight) == (steering, 0)
        assert told.interest in told.view.interests
        assert (len(store.stored().interests) == 1) is (steering is nothing_said)
    assert store.true()


async def test_a_word_comes_after_signals_of_a_clock_that_runs_ahead(store: Store) -> None:
    captured = await store.capture(post("p"), post("q", day=2))
    interest = captured.view.interests[0].id
    less = Steering(bias=-1.0)
    told = await store.writer.submit(lambda ledger: ledger.steer("ann", DAY // 2, less, interest, "", Reading()))
    assert told.interest.id == interest
    for space in (1, 2):
        assert [(i.id, i.steering) for i in store.stored(space=space).interests] == [(interest, less)]
    assert store.true()


async def test_a_word_about_a_dislike_does_not_go_to_the_like_of_the_same_thing(store: Store) -> None:
    await store.upsert(("film", 4))
    await store.capture(act("like", Action.LIKE, day=1))
    captured = await store.capture(act("dislike", Action.DISLIKE, day=2))
    disliked = next(interest for interest in captured.view.interests if interest.sign < 0)
    found = await store.writer.submit(
        lambda ledger: ledger.steer("ann", 3 * DAY, Steering(muted=True), disliked.id, "", Reading())
    )
    assert found.interest.id == disliked.id
    for space in (1, 2):
        assert {i.sign for i in store.stored(space=space).interests if i.steering is not None} == {-1}
    assert store.true()


# -- whole users ---------------------------------------------------------------------------------------------


async def test_merged_users_are_as_if_they_had_been_one(store: Store, tmp_path: Path) -> None:
    history = [post(f"p{n}", user="guest" if n % 2 else "ann", topic=n, day=n) for n in range(8)]
    for signal in history:
        await store.capture(signal)
    view, version, count, space_id = await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))
    assert (version, count) == (8, 8)
    assert store.true()
    async with opened(tmp_path / "one") as other:
        await other.capture(*(replace(signal, user_id="ann") for signal in history))
        assert pack(store.stored()) == pack(other.stored())
    again = await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))
    assert [i.id for i in again[0].interests] == [i.id for i in view.interests]
    assert again[1:] == (version, count, space_id)
    assert store.profiles.find("guest") is None
    # A resend of what the guest sent is still a duplicate.
    resent = await store.capture(history[1])
    assert (resent.duplicate, resent.user_id) == (True, "ann")
    with pytest.raises(NotFound):
        await store.writer.submit(lambda ledger: ledger.merge("guest", "bob"))


async def test_what_comes_between_the_signals_of_merged_users_is_put_between_them(store: Store) -> None:
    await store.capture(post("early", topic=0, day=1), post("late", user="guest", topic=0, day=9))
    await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))
    await store.capture(post("between", topic=0, day=5))
    assert store.true()


async def test_merging_into_somebody_new_renames(store: Store) -> None:
    await store.capture(post("p", user="guest"))
    _, _, count, _ = await store.writer.submit(lambda ledger: ledger.merge("guest", "new"))
    assert count == 1
    assert store.true("new")
    assert store.count(schema.users) == 1
    _, _, count, _ = await store.writer.submit(lambda ledger: ledger.merge("new", "newer"))
    # The guest's signals went along, and the first merge is known by where they are now.
    assert (await store.writer.submit(lambda ledger: ledger.merge("guest", "newer")))[2] == count == 1


@pytest.mark.parametrize("ends", ["erase", "merge"])
async def test_who_comes_back_in_the_transaction_that_ended_them_is_a_stranger(store: Store, ends: str) -> None:
    await store.capture(post("secret", topic=1))

    def all_at_once(ledger: Ledger) -> Callable[[], tuple[Captured, Captured]]:
        before = ledger.capture(post("more", topic=2), DAY, reading(2))
        if ends == "erase":
            ledger.erase("ann", 9)
        else:
            ledger.merge("ann", "bob")
        after = ledger.capture(post("back", topic=5), 2 * DAY, reading(5))
        return lambda: (before(), after())

    _, after = await store.writer.submit(all_at_once)
    assert (after.version, [interest.signal_count for interest in after.view.interests]) == (1, [1])
    assert after.changed_ids == {interest.id for interest in after.view.interests}
    assert np.argmax(after.view.interests[0].vector) == 5
    assert store.true()


async def test_no_copy_of_what_is_erased_stays_in_a_page_of_the_file(store: Store) -> None:
    random = Random(5)
    words: dict[str, list[str]] = {f"user{number}": [] for number in range(12)}
    for number in range(300):
        user, word = random.choice(list(words)), f"zq{number:05}z"
        words[user].append(word)
        text = Post(word + " x" * random.randrange(10, 300))
        read = Reading({1: axis(number), 2: axis(number)}, "en", (word,))
        signal = Signal(f"s{number:05}", user, text, number)
        await store.writer.submit(partial(Ledger.capture, signal=signal, time=number, reading=read))
    for user, written in words.items():
        await store.writer.submit(partial(Ledger.erase, user_id=user, time=400))
        await store.writer.alone(store.record.rewrite)
        assert store.record.truncate_log()
        whole = (store.record.folder / FILE).read_bytes()
        assert [word for word in written if word.encode() in whole] == []


def temporary_folders() -> set[Path]:
    """Folders of SQLite's temporary files that this process has open."""
    found = set()
    for opened_file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(opened_file.readlink())
    return {target.parent for target in found if target.name.startswith("etilqs")}


async def test_what_users_wrote_lies_in_no_other_folder_while_the_record_is_rewritten(store: Store) -> None:
    with store.record.engine.begin() as connection:
        # More than is kept in memory.
        connection.exec_driver_sql("CREATE TABLE large (content BLOB)")
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) "
            "INSERT INTO large SELECT randomblob(100000) FROM n"
        )
    folders: set[Path] = set()
    rewriting = asyncio.create_task(store.writer.alone(store.record.rewrite))
    while not rewriting.done():
        folders |= temporary_folders()
        await asyncio.sleep(0.002)
    await rewriting
    assert folders == {store.record.folder.absolute()}
    # One that is broken off leaves all as it was.
    broken = asyncio.create_task(store.writer.alone(store.record.rewrite))
    while not broken.done():
        store.record.interrupt()
        await asyncio.sleep(0.002)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await broken
    await store.capture(post("p"))


async def test_a_work_alone_stands_outside_of_all_transactions_in_its_turn(store: Store) -> None:
    order: list[str] = []

    def alone() -> str:
        with store.record.engine.connect() as connection:
            connection.execution_options(begin="BEGIN IMMEDIATE").execute(sa.select(1))  # nobody else writes
        order.append("alone")
        return "done"

    def work(name: str) -> Callable[[Ledger], Callable[[], None]]:
        return lambda _: lambda: order.append(name)

    captures = [store.writer.submit(work(name)) for name in "ab"]
    outcome = await asyncio.gather(*captures, store.writer.alone(alone), store.writer.submit(work("c")))
    assert (order, outcome[2]) == (["a", "b", "alone", "c"], "done")
    with pytest.raises(ZeroDivisionError):
        await store.writer.alone(lambda: 1 / 0)
    await store.capture(post("p"))


async def test_erasing_leaves_nothing_but_a_receipt(store: Store) -> None:
    await store.upsert(("film", 4))
    await store.capture(post("p", user="guest"))
    await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))
    await store.capture(post("unique words 7"), act("like", Action.LIKE), act("x", Action.LIKE, item="unknown"))
    await store.writer.submit(lambda ledger: ledger.steer("ann", DAY, Steering(bias=1), "", "about 6", reading(6)))
    await store.capture(post("other", user="bob"))
    receipt = await store.writer.submit(lambda ledger: ledger.erase("ann", 9))
    assert receipt.signals_deleted == 4
    # Three signals in two spaces, one waits for its item; and in each space as many interests as there may be.
    assert receipt.vectors_deleted == 6 + 6
    assert store.commits[-1].recount == store.commits[-1].erased == {"film", "unknown"}
    for table in (schema.steerings, schema.steering_vectors, schema.merges):
        assert store.count(table) == 0
    assert store.count(schema.signals) == store.count(schema.users) == 1
    assert store.count(schema.signal_vectors) == store.count(schema.profiles) == 2  # bob's, in two spaces
    assert await store.writer.submit(lambda ledger: ledger.erase("ann", 10)) == receipt
    with pytest.raises(NotFound):
        await store.writer.submit(lambda ledger: ledger.erase("nobody", 10))
    # Back again, the user is a stranger, and the same ids are free.
    back = await store.capture(post("unique words 7"))
    assert (back.duplicate, back.version) == (False, 1)
    later = await store.writer.submit(lambda ledger: ledger.erase("ann", 11))
    assert later.id != receipt.id
    assert await store.writer.submit(lambda ledger: ledger.erase("ann", 12)) == later
    assert await asyncio.to_thread(store.record.truncate_log)
    whole = b"".join(path.read_bytes() for path in store.record.folder.glob("record.sqlite3*"))
    assert b"unique words" not in whole
    assert b"about 0" in whole  # bob's


async def test_a_guest_id_that_came_back_is_erased_with_what_was_known_of_its_merge(store: Store) -> None:
    await store.capture(post("p", user="guest"))
    await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))
    await store.capture(post("q", user="guest", day=2))
    receipt = await store.writer.submit(lambda ledger: ledger.erase("guest", 9))
    assert receipt.signals_deleted == 1
    assert store.count(schema.merges) == 0
    assert store.profiles.get("ann").signal_count == 1
    with pytest.raises(NotFound):
        await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))


async def test_no_receipt_speaks_for_who_came_back_and_was_merged(store: Store) -> None:
    await store.capture(post("p", user="guest"))
    receipt = await store.writer.submit(lambda ledger: ledger.erase("guest", 9))
    assert await store.writer.submit(lambda ledger: ledger.erase("guest", 10)) == receipt
    await store.capture(post("q", user="guest"))
    await store.writer.submit(lambda ledger: ledger.merge("guest", "ann"))
    with pytest.raises(WrongState, match="a part of that of 'ann'"):
        await store.writer.submit(lambda ledger: ledger.erase("guest", 11))


async def test_a_resend_of_what_was_erased_meanwhile_is_sent_once_more(store: Store) -> None:
    await store.capture(post("p"))
    # It was known when it came, so that nobody read its text; by now its author is erased.
    known = _Read(post("p"), DAY, NOTHING, known=True)
    await store.writer.submit(lambda ledger: ledger.erase("ann", 9))
    (outcome,) = await store.writer.submit(lambda ledger: _capture_all(ledger, [(known, Reading())]))
    assert isinstance(outcome, Overloaded)
    assert store.count(schema.signals) == store.count(schema.users) == 0


async def test_a_rollback_leaves_profiles_at_hand_correct(store: Store) -> None:
    await store.capture(post("p", topic=0), post("q", user="guest", topic=1))
    before = pack(store.stored())

    async def undone(change: Callable[[Ledger], Any]) -> None:
        def work(ledger: Ledger) -> Callable[[], None]:
            change(ledger)
            ledger.flush()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.writer.submit(work)
        assert pack(store.stored()) == before
        assert store.true("ann")
        assert store.true("guest")

    await undone(lambda ledger: ledger.capture(post("r", topic=0, day=3), 3 * DAY, reading(0)))
    await undone(lambda ledger: ledger.capture(post("early", topic=0, day=0.1), DAY // 10, reading(0)))
    await undone(lambda ledger: ledger.steer("ann", 4 * DAY, Steering(bias=1), "", "about 2", reading(2)))
    await undone(lambda ledger: ledger.merge("guest", "ann"))
    await undone(lambda ledger: ledger.erase("ann", 1))
    await undone(lambda ledger: ledger.capture(post("n", user="new"), DAY, reading(0)))
    assert store.profiles.find("new") is None
    captured = await store.capture(post("r", topic=0, day=3))
    assert captured.view.interests[0].signal_count == 2
    assert store.true()


async def test_another_recipe_replays_profiles_when_they_are_used(tmp_path: Path) -> None:
    history = [post(f"p{n}", topic=n, day=n) for n in range(6)]
    history.append(act("like", Action.LIKE, day=9))
    wide = Recipe(InterestSettings(max_interests=6), LEVEL, "space")
    async with opened(tmp_path) as store:
        await store.upsert(("film", 0))
        await store.capture(*history)
        narrow_profile = pack(store.stored())
    async with opened(tmp_path, wide) as store:
        assert len(store.profiles.get("ann").view.interests) == 6
        assert pack(store.stored()) == narrow_profile
        captured = await store.capture(post("next", topic=0, day=10))
        assert len(captured.view.interests) == 6
        assert store.true()
    async with opened(tmp_path) as store:
        await store.capture(post("again", topic=0, day=11))
        assert len(store.stored().interests) == 3
        assert store.true()


async def test_the_outbox_tells_what_changed_once_a_group(store: Store) -> None:
    await store.upsert(("film", 0))
    await store.capture(*(post(f"p{n}") for n in range(10)), post("q", user="bob"))
    with store.record.read() as connection:
        entries = connection.execute(sa.select(schema.outbox.c.kind, schema.outbox.c.key)).all()
        keys = set(connection.execute(sa.select(schema.users.c.key)).scalars())
    assert [kind for kind, _ in entries] == ["item", "user", "user"]
    assert {int(key) for kind, key in entries if kind == "user"} == keys
    assert [(change.user_id, change.version) for change in store.commits[-1].changes] == [
        ("ann", 10),
        ("bob", 1),
    ]


async def test_the_outbox_tells_of_what_goes(store: Store) -> None:
    await store.upsert(("film", 0))
    await store.capture(post("p"), post("q", user="guest"))
    keys = {str(store.profiles.get(user).key) for user in ("ann", "guest")}
    told = store.count(schema.outbox)
    await store.writer.submit(lambda ledger: ledger.delete_items(["film"]))
    await store.writer.submit(lambda ledger: ledger.merge("guest", "new"))
    await store.writer.submit(lambda ledger: ledger.erase("ann", 9))
    with store.record.read() as connection:
        query = sa.select(schema.outbox.c.kind, schema.outbox.c.key).order_by(schema.outbox.c.seq).offset(told)
        entries = {(kind, key) for kind, key in connection.execute(query)}
    assert {("item", "film"), *(("user", key) for key in keys)} <= entries


async def test_a_profile_reads_as_of_the_present_that_it_is_given(store: Store) -> None:
    await store.capture(post("p", day=1), post("q", topic=1, day=5))
    for present, as_of in ((30, 30), (3, 5)):
        found = store.profiles.find("ann", present=present * DAY)
        assert found is not None
        assert (found.view.as_of, found.signal_count) == (as_of * DAY, 2)


async def test_a_profile_as_of_then_knows_nothing_later(store: Store) -> None:
    await store.capture(*(post(f"p{n}", topic=n, day=n) for n in range(5)))
    then = store.profiles.get("ann", as_of=2 * DAY)
    assert then.signal_count == 3
    assert {int(np.argmax(interest.vector)) for interest in then.view.interests} == {0, 1, 2}
    assert store.profiles.get("ann", as_of=0 - DAY).view.interests == ()


async def test_a_history_as_of_then_knows_nothing_later(store: Store) -> None:
    await store.capture(*(post(f"p{n}", topic=n, day=n) for n in range(1, 5)))
    key = store.profiles.get("ann").key
    for until, days in ((None, [1, 2, 3, 4]), (2 * DAY, [1, 2]), (DAY - 1, [])):
        found = read_history(store.record, 1, key, InterestSettings(), DIMENSIONS, until)
        assert found.times.tolist() == [day * DAY for day in days]
        assert found.vectors.tolist() == [axis(day).tolist() for day in days]
