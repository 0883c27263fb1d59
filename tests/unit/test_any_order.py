"""Whatever is asked of an engine, in any order: it knows what a simple model knows, before and after a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import shutil
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penchant_pipelines import mixes, model
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.encoder.base import Vectors
from penchant_pipelines.engine import Engine, EngineSettings
from penchant_pipelines.errors import Conflict, InvalidInput, NotFound, PenchantError, WrongState
from penchant_pipelines.index import ExactStore
from penchant_pipelines.interests import pack
from penchant_pipelines.jobs import JobState
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal, Steering
from penchant_pipelines.recommend.recommender import Candidate, Query, Shortlist
from penchant_pipelines.record import rows, schema
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.spaces import adapters, stock
from penchant_pipelines.spaces.space import Space
from penchant_pipelines.spaces.stock import Adapter

START = 20_000 * MICROS_PER_DAY
USERS = ["user-ann", "user-bob", "用户王芳"]
TEXTS = [
    "Hiking over the Alps in winter",
    "A long hike through the snowy Alps",
    "Baking sourdough bread at home",
    "Please stop showing me jazz",
    "I hated this dull jazz record",
    "周末去爬山，风景真好",
    "在家烤面包",
    "再也不想看到爵士乐了",
]
WORDLESS = "🙂 https://example.com"
ITEMS = {
    "alps": ("Hiking in the Alps", "Ski tours in winter"),
    "bread": ("Sourdough bread", "面包的做法"),
    "jazz": ("Jazz in Paris", "Jazz in Paris, live"),
    "tea": ("茶道入门", "茶的故事"),
    "chess": ("Chess openings", "Chess for children"),
}
TOPICS = ["jazz", "hiking", "面包", "tea"]
ADAPTER = "turned"
UNKEPT = {"outbox", "generations", "indexed_interests", "jobs", "secrets"}
"""Tables that change behind the scenes, or say nothing of anybody."""

Result = TypeVar("Result")


class Remembering:
    """An encoder that reads each text once; `scales` (d,) lead to another space."""

    base_model, device = "remembering", "cpu"

    def __init__(self, encoder: Encoder, adapter_id: str = "", scales: Any = 1.0) -> None:
        self.space_id = encoder.space_id + adapter_id
        self.dimensions = encoder.dimensions
        self.adapter_id = adapter_id
        self._encoder = encoder
        self._scales = scales
        self._known: dict[str, Any] = {}

    def encode(self, texts: Sequence[str]) -> Vectors:
        for text in texts:
            if text not in self._known:
                vector = self._encoder.encode([text])[0] * self._scales
                self._known[text] = (vector / np.linalg.norm(vector)).astype(np.float32)
        return np.stack([self._known[text] for text in texts])


@dataclass
class Kept:
    """A signal as it was sent, and what is known of it."""

    sent: Signal
    user_id: str
    time: int
    version: Item | None
    """The item as it was when the signal was read with it."""

    @property
    def evidence(self) -> Post | Behavior:
        return self.sent.evidence


@dataclass
class Truth:
    """All that an engine must know."""

    signals: dict[str, Kept] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    steered: dict[str, int] = field(default_factory=dict)
    """How many words of each user's are kept."""
    merged: dict[str, str] = field(default_factory=dict)

    def users(self) -> set[str]:
        return {kept.user_id for kept in self.signals.values()} | self.steered.keys()

    def of(self, user_id: str) -> list[Kept]:
        """A user's signals, oldest first."""
        mine = [kept for kept in self.signals.values() if kept.user_id == user_id]
        return sorted(mine, key=lambda kept: (kept.time, kept.sent.id))

    def seen(self, user_id: str) -> set[str]:
        """Items that what stands of a user's signals names."""
        standing: dict[str, list[Kept]] = {}
        undone = set()
        actions = [kept for kept in self.of(user_id) if isinstance(kept.evidence, Behavior)]
        for kept in sorted(actions, key=lambda kept: (kept.time, is_undo(kept.sent))):
            stack = standing.setdefault(kept.sent.item_id, [])
            if not is_undo(kept.sent):
                stack.append(kept)
            elif stack:
                undone.add(stack.pop().sent.id)
        return {
            kept.sent.item_id
            for kept in self.of(user_id)
            if kept.sent.item_id and kept.sent.id not in undone and not is_undo(kept.sent)
        }


def is_undo(signal: Signal) -> bool:
    return isinstance(signal.evidence, Behavior) and signal.evidence.action is Action.UNDO


def is_wordless(signal: Signal) -> bool:
    evidence = signal.evidence
    return isinstance(evidence, Post) and evidence.text == WORDLESS and not evidence.item_id


def told(item: Item | None) -> Any:
    """What is read of an item."""
    return item and (item.title, item.categories)


def plain(value: Any) -> Any:
    """What can be compared: what has fields becomes a dict of them."""
    if isinstance(value, np.ndarray):
        return hash((value.astype(np.float64).round(6) + 0.0).tobytes())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def about(value: Any) -> Any:
    """What equals a plain value whose sums were made in another order."""
    if isinstance(value, float):
        return pytest.approx(value, rel=0, abs=1e-8)
    if isinstance(value, dict):
        return {key: about(each) for key, each in value.items()}
    return [about(each) for each in value] if isinstance(value, list) else value


posts = st.builds(
    Post,
    text=st.sampled_from([*TEXTS, *TEXTS, WORDLESS]),
    item_id=st.sampled_from(["", "", *ITEMS]),
    rating=st.sampled_from([None, None, -1.0, 0.5]),
)
behaviors = st.builds(
    Behavior,
    item_id=st.sampled_from(sorted(ITEMS)),
    action=st.sampled_from([Action.VIEW, Action.LIKE, Action.LIKE, Action.SAVE, Action.HIDE, Action.UNDO, Action.UNDO]),
)
times = st.sampled_from([None, None, None, 0, 1, 30, 400, -1])
"""How many days ago a signal was, None where it does not tell; −1: by a clock that is ahead."""
steerings = st.sampled_from(
    [Steering(), Steering(muted=True), Steering(pinned=True), Steering(bias=1.0), Steering(bias=-1.0)]
)
users = st.sampled_from(USERS)


class Anything(RuleBasedStateMachine):
    """Plays a story to an engine and tells it to a `Truth`."""

    encoder: Encoder
    other: Encoder
    folders: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.time = START
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(model, "time", SimpleNamespace(time_ns=lambda: self.time * 1000))
        self.truth = Truth()
        self.numbers = itertools.count()
        self.runner = asyncio.Runner()
        self.folder = next(self.folders)
        self.alike = True
        """All spaces read signals with the same words of their items."""
        for module in (stock, adapters):
            self.patch.setattr(module, "open_folder", lambda *_: Adapter(ADAPTER, self.other))
        self.patch.setattr(mixes, "FEWEST_LESSONS", 4)
        self.open()

    # -- the machine's own -----------------------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        async def in_time() -> Result:
            async with asyncio.timeout(60):
                return await work

        self.time += 1000
        return self.runner.run(in_time())

    def refused(self, work: Coroutine[Any, Any, Any], error: type[PenchantError]) -> None:
        """What is refused leaves all as it was."""
        before = self.dump()
        with pytest.raises(error):
            self.do(work)
        assert self.dump() == before

    def open(self) -> None:
        self.stack = AsyncExitStack()
        opened = Engine.open(EngineSettings(), self.folder, self.encoder, ExactStore())
        self.engine: Engine = self.do(self.stack.enter_async_context(opened))

    def close(self) -> None:
        self.do(self.stack.aclose())

    def teardown(self) -> None:
        try:
            self.check_afresh()
        finally:
            self.close()
            self.runner.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    def dump(self) -> dict[str, list[Any]]:
        with self.engine.record.read() as connection:
            return {
                table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
                for table in schema.metadata.sorted_tables
                if table.name not in UNKEPT
            }

    async def settled(self) -> None:
        """Wait for what goes on behind the scenes."""
        await self.engine._completion.caught_up()
        await self.engine.keeper.count_again()
        for space in self.engine.adapters.serving.kept:
            while space.relay.live is None or space.relay.lag():
                await asyncio.sleep(0.001)

    # -- what is asked ---------------------------------------------------------------------------------------

    @rule(days=st.sampled_from([0.0001, 0.5, 3, 100]))
    def wait(self, days: float) -> None:
        self.time += int(days * MICROS_PER_DAY)

    @rule(user=users, batch=st.lists(st.tuples(posts | behaviors, times), min_size=1, max_size=4))
    def capture(self, user: str, batch: list[tuple[Post | Behavior, int | None]]) -> None:
        self.send(
            [
                Signal(
                    f"s{next(self.numbers):04}",
                    user,
                    evidence,
                    None if days is None else self.time - days * MICROS_PER_DAY,
                )
                for evidence, days in batch
            ]
        )

    @rule(batch=st.lists(st.tuples(users, posts | behaviors), min_size=2, max_size=5))
    def capture_of_one_moment(self, batch: list[tuple[str, Post | Behavior]]) -> None:
        self.send([Signal(f"s{next(self.numbers):04}", user, evidence, self.time) for user, evidence in batch])

    @precondition(lambda self: self.truth.signals)
    @rule(data=st.data())
    def capture_again(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(list(self.truth.signals.values())))
        assert self.do(self.engine.check(kept.sent))
        self.send([kept.sent])
        before = self.dump()
        (outcome,) = self.do(self.engine.capture([replace(kept.sent, context={"another": "one"})]))
        assert isinstance(outcome, Conflict)
        assert self.dump() == before

    def send(self, signals: Sequence[Signal]) -> None:
        outcomes = self.do(self.engine.capture(signals))
        for signal, outcome in zip(signals, outcomes, strict=True):
            if is_wordless(signal):
                assert isinstance(outcome, InvalidInput)
                continue
            assert not isinstance(outcome, PenchantError)
            assert outcome.signal_id == signal.id
            assert outcome.duplicate == (signal.id in self.truth.signals)
            if outcome.duplicate:
                continue
            time = self.time if signal.time is None else signal.time
            if signal.time is None and is_undo(signal):
                mine = [kept.time for kept in self.truth.of(signal.user_id) if kept.sent.item_id == signal.item_id]
                time = max([time, *mine])
            version = self.truth.items.get(signal.item_id)
            self.truth.signals[signal.id] = Kept(signal, signal.user_id, time, version)

    @rule(
        chosen=st.lists(
            st.tuples(st.sampled_from(sorted(ITEMS)), st.integers(0, 1), st.booleans(), st.booleans()),
            min_size=1,
            max_size=4,
        )
    )
    def put_items(self, chosen: list[tuple[str, int, bool, bool]]) -> None:
        order = sorted(ITEMS)
        items = [
            Item(
                name,
                ITEMS[name][title],
                categories=("music",) if category else (),
                create_time=START - order.index(name) * MICROS_PER_DAY,
                hidden=hidden,
            )
            for name, title, category, hidden in chosen
        ]
        assert self.do(self.engine.upsert_items([*items, Item("empty")]))[:-1] == [None] * len(items)
        for item in items:
            self.truth.items[item.id] = item
        for kept in self.truth.signals.values():
            if kept.version is None:
                kept.version = self.truth.items.get(kept.sent.item_id)

    @rule(names=st.sets(st.sampled_from(sorted(ITEMS)), max_size=3))
    def delete_items(self, names: set[str]) -> None:
        self.do(self.settled())
        assert self.do(self.engine.delete_items(sorted(names))) == len(names & self.truth.items.keys())
        for name in names:
            self.truth.items.pop(name, None)

    @rule(user=users, topic=st.sampled_from(TOPICS), steering=steerings)
    def steer_topic(self, user: str, topic: str, steering: Steering) -> None:
        before = self.dump()
        try:
            self.do(self.engine.steer(user, steering, topic=topic))
        except NotFound:
            assert steering == Steering()
            assert self.dump() == before
        else:
            self.truth.steered[user] = self.truth.steered.get(user, 0) + 1

    @rule(user=users, place=st.integers(0, 20), steering=steerings)
    def steer_interest(self, user: str, place: int, steering: Steering) -> None:
        with self.engine.serve(user) as space:
            stored = space.profiles.find(user)
        if stored is None or not stored.view.interests:
            self.refused(self.engine.steer(user, steering, interest_id="i-0"), NotFound)
            return
        interest = stored.view.interests[place % len(stored.view.interests)]
        self.do(self.engine.steer(user, steering, interest_id=interest.id))
        self.truth.steered[user] = self.truth.steered.get(user, 0) + 1

    @rule(source=users, into=users)
    def merge(self, source: str, into: str) -> None:
        if source == into:
            return  # refused by the service
        known = self.truth.users()
        if source not in known:
            if self.truth.merged.get(source) == into:
                self.do(self.engine.merge(source, into))
            else:
                self.refused(self.engine.merge(source, into), NotFound)
            return
        _, _, count, _ = self.do(self.engine.merge(source, into))
        for kept in self.truth.signals.values():
            if kept.user_id == source:
                kept.user_id = into
        assert count == len(self.truth.of(into))
        if source in self.truth.steered:
            self.truth.steered[into] = self.truth.steered.get(into, 0) + self.truth.steered.pop(source)
        for user, owner in list(self.truth.merged.items()):
            if owner == source:
                self.truth.merged[user] = into
        self.truth.merged[source] = into
        if self.truth.merged.get(into) == into:
            del self.truth.merged[into]

    @rule(user=users)
    def forget(self, user: str) -> None:
        known = self.truth.users()
        if user not in known:
            before = self.dump()
            with suppress(NotFound):
                self.do(self.engine.erase(user))
            assert self.dump() == before
            return
        mine = self.truth.of(user)
        receipt = self.do(self.engine.erase(user))
        assert receipt.signals_deleted == len(mine)
        assert self.do(self.engine.erase(user)) == receipt
        for kept in mine:
            del self.truth.signals[kept.sent.id]
        self.truth.steered.pop(user, None)
        for gone in [user, *(each for each, owner in self.truth.merged.items() if owner == user)]:
            self.truth.merged.pop(gone, None)
            assert gone in self.truth.users() or gone not in repr(self.dump())
        assert user not in self.engine._profile_cache

    @rule(user=users, topic=st.sampled_from(TOPICS), batch=st.lists(posts | behaviors, min_size=1, max_size=4))
    def ask_much_at_once(self, user: str, topic: str, batch: list[Post | Behavior]) -> None:
        """Whatever comes first, each is done wholly or not at all."""
        signals = [Signal(f"s{next(self.numbers):04}", user, evidence, self.time) for evidence in batch]
        signals = [signal for signal in signals if not is_wordless(signal)]
        before = self.truth.of(user)

        async def ask() -> list[Any]:
            each = [self.engine.capture([signal]) for signal in signals]
            said = self.engine.steer(user, Steering(bias=1.0), topic=topic)
            return await asyncio.gather(*each, said, self.engine.erase(user), return_exceptions=True)

        *captured, said, receipt = self.do(ask())
        assert not isinstance(said, BaseException), said
        assert not any(isinstance(each, BaseException) or isinstance(each[0], PenchantError) for each in captured)
        with self.engine.record.read() as connection:
            left = set(connection.execute(sa.select(schema.signals.c.id)).scalars())
            words = connection.execute(
                sa.select(sa.func.count())
                .select_from(schema.steerings.join(schema.users))
                .where(schema.users.c.user_id == user)
            ).scalar_one()
        if isinstance(receipt, NotFound):
            assert not before
        else:
            gone = [signal for signal in signals if signal.id not in left]
            # Else it may be that of an erasure before.
            assert receipt.signals_deleted == len(before) + len(gone) or not before
            for kept in before:
                del self.truth.signals[kept.sent.id]
            self.truth.steered.pop(user, None)
            for each in [user, *(each for each, owner in self.truth.merged.items() if owner == user)]:
                self.truth.merged.pop(each, None)
        for signal in signals:
            if signal.id in left:
                version = self.truth.items.get(signal.item_id)
                assert signal.time is not None
                self.truth.signals[signal.id] = Kept(signal, user, signal.time, version)
        if words:
            self.truth.steered[user] = words

    # -- spaces and mixes ------------------------------------------------------------------------------------

    @rule(
        adapter_id=st.sampled_from(["", ADAPTER, ADAPTER]),
        load=st.sampled_from([True, True, False]),
        standby=st.booleans(),
    )
    def activate(self, adapter_id: str, load: bool, standby: bool) -> None:
        if adapter_id and load:
            self.do(self.engine.adapters.load(adapter_id))
        found = next((each for each in self.engine.adapters.all() if each.id == adapter_id), None)
        if found is None:
            self.refused(self.engine.adapters.activate(adapter_id, standby), WrongState)
            return
        if found.space is None:
            self.alike &= all(
                kept.version is None or told(kept.version) == told(self.truth.items.get(kept.sent.item_id))
                for kept in self.truth.signals.values()
            )

        async def ended() -> Any:
            job = await self.engine.adapters.activate(adapter_id, standby)
            while (job := await self.engine.jobs.get(job.id)).end_time is None:
                await asyncio.sleep(0.001)
            return job

        job = self.do(ended())
        assert job.state is JobState.SUCCEEDED, job
        assert found.space is not None
        assert standby or self.engine.live is found.space

    @rule(adapter_id=st.sampled_from(["", ADAPTER]))
    def unload(self, adapter_id: str) -> None:
        found = next((each for each in self.engine.adapters.all() if each.id == adapter_id), None)
        if found is None or (found.space is not None and found.space in self.in_service()):
            self.refused(self.engine.adapters.unload(adapter_id), WrongState)
            return
        self.do(self.engine.adapters.unload(adapter_id))
        assert found.space is None
        with self.engine.record.read() as connection:
            kept = {space.key for space in self.engine.adapters.serving.kept}
            for table in (schema.signal_vectors, schema.item_vectors, schema.steering_vectors, schema.profiles):
                assert set(connection.execute(sa.select(table.c.space)).scalars()) <= kept

    def in_service(self) -> list[Space | None]:
        return [self.engine.live, self.engine.adapters.serving.trial]

    @rule(adapter_id=st.sampled_from(["", ADAPTER]))
    def start_experiment(self, adapter_id: str) -> None:
        work = self.engine.adapters.start_experiment(f"e{next(self.numbers)}", adapter_id, 0.5)
        found = next((each for each in self.engine.adapters.all() if each.id == adapter_id), None)
        fits = found is not None and found.space is not None and found.space is not self.engine.live
        if not fits or self.engine.adapters.serving.experiment is not None:
            self.refused(work, WrongState)
            return
        self.do(work)

    @rule()
    def stop_experiment(self) -> None:
        if self.engine.adapters.serving.experiment is None:
            self.refused(self.engine.adapters.stop_experiment(), WrongState)
            return
        self.do(self.engine.adapters.stop_experiment())

    @rule(use=st.booleans())
    def learn_mix(self, use: bool) -> None:
        async def learnt() -> Any:
            job = await self.engine.learn_mix()
            while (job := await self.engine.jobs.get(job.id)).end_time is None:
                await asyncio.sleep(0.001)
            return job

        self.do(self.settled())
        job = self.do(learnt())
        assert job.state is JobState.SUCCEEDED or "a mix needs" in job.error, job
        for _, version in self.do(self.engine.mixes.versions(None, 1)):
            self.do(self.engine.mixes.use(version.id if use else ""))

    @rule()
    def restart(self) -> None:
        before = self.do(self.answers())
        time = self.time
        self.close()
        self.open()
        self.time = time - 1000
        assert self.do(self.answers()) == about(before)

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are now."""
        folder = next(self.folders)
        shutil.copytree(self.folder, folder)
        before = self.do(self.answers())
        time = self.time
        self.close()
        shutil.rmtree(self.folder)
        self.folder = folder
        self.open()
        self.time = time - 1000
        assert self.do(self.answers()) == about(before)

    # -- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def record_is_true(self) -> None:
        """Users, signals and items are those of the model; profiles are what a replay makes."""
        engine, truth = self.engine, self.truth
        self.do(engine._completion.caught_up())
        assert engine.catalog.entries.keys() == truth.items.keys()
        assert {name: entry.item for name, entry in engine.catalog.entries.items()} == truth.items
        assert engine.counts()[:3] == (len(truth.users()), len(truth.items), len(truth.signals))
        for user in USERS:
            stored = engine.live.profiles.find(user)
            assert (stored is not None) == (user in truth.users())
            if stored is None:
                continue
            mine = truth.of(user)
            assert stored.signal_count == len(mine)
            assert len(engine.live.profiles.steerings(user)) == truth.steered.get(user, 0)
            assert engine.live.profiles.seen(stored.key) == truth.seen(user)
            with engine.record.read() as connection:
                for space in engine.adapters.serving.kept:
                    query = sa.select(schema.profiles.c.profile).where(
                        schema.profiles.c.user_key == stored.key, schema.profiles.c.space == space.key
                    )
                    events = rows.user_events(connection, space.key, stored.key)
                    assert connection.execute(query).scalar_one() == pack(space.blender.replay(events))
            for size in (1, 3, 100):
                assert list(self.listed(user, size)) == [(kept.time, kept.sent.id) for kept in reversed(mine)]

    def listed(self, user: str, size: int) -> Iterator[tuple[int, str]]:
        after: tuple[int, str] | None = None
        while page := self.engine.live.profiles.signals(user, after, size):
            for signal in page:
                assert signal.time is not None
                after = (signal.time, signal.id)
                yield after

    async def answers(self) -> Any:
        """What users and backends are told now."""
        await self.settled()
        # What is gathered now and then is of the same moment: now.
        crowd, words = self.engine.catalog.crowd, self.engine.catalog.words
        crowd._matrix, words._weighed = None, None
        crowd._alike.clear()
        told: list[Any] = []
        for user in [*USERS, "stranger"]:
            with self.engine.serve(user) as space:
                stored = space.profiles.find(user)
                told.append(stored)
                if stored is not None:
                    told.append(await space.labels(stored.view))
                    for interest in stored.view.interests:
                        told.append(await space.explain(user, interest.id, 0))
                visit = await space.visit(user)
                for include_seen in (False, True):
                    ranking = await space.recommend(visit, Query(50, include_seen=include_seen, diversity=0.0))
                    told.append(ranking)
                    if stored is not None:
                        told.append(await space.reasons(stored, ranking))
                shortlist = Shortlist([Candidate(name, 0.0) for name in sorted(ITEMS)], 50)
                told.append(space.rerank(visit, shortlist))
        for text in TEXTS[:3]:
            target = await self.engine.live.encode_query(text, "text")
            assert target is not None
            told.append(await self.engine.live.find_users(target, 10, 0.0))
        return plain(told)

    def check_afresh(self) -> None:
        """A new engine that is sent what is left, in another order, knows the same of everybody."""
        engine, truth = self.engine, self.truth
        self.do(engine._completion.caught_up())
        versions: list[Item | None] = []
        for kept in truth.signals.values():
            if kept.version not in versions:
                versions.append(kept.version)
        versions.sort(key=lambda version: version is None)
        moments = [self.time - days * MICROS_PER_DAY for days in (0, 3, 30)]

        async def afresh(space: Space) -> None:
            folder = next(self.folders)
            encoder = self.other if space.adapter_id else self.encoder
            async with Engine.open(EngineSettings(), folder, encoder, ExactStore()) as fresh:
                for version in versions:
                    if version is None:
                        await fresh.delete_items(sorted(ITEMS))
                    else:
                        await fresh.upsert_items([version])
                    sent = [
                        replace(kept.sent, user_id=kept.user_id, time=kept.time)
                        for kept in reversed(truth.signals.values())
                        if kept.version == version
                    ]
                    assert all(not isinstance(each, PenchantError) for each in await fresh.capture(sent))
                await fresh.writer.submit(lambda ledger: said_again(ledger, engine, space.key))
                for user, moment in itertools.product(sorted(truth.users()), [None, *moments]):
                    found, wanted = (
                        replace(profiles.get(user, moment), key=0, version=0)
                        for profiles in (space.profiles, fresh.live.profiles)
                    )
                    assert plain(found) == about(plain(wanted))
            shutil.rmtree(folder)

        for space in engine.adapters.serving.kept if self.alike else ():
            self.do(afresh(space))


def said_again(ledger: Ledger, engine: Engine, space: int) -> Callable[[], None]:
    """Write what users said in one space of an engine; words on interests are of the moment."""
    words, vectors, users = schema.steerings, schema.steering_vectors, schema.users
    query = sa.select(words, vectors.c.vector, users.c.user_id).join(users, users.c.key == words.c.user_key)
    query = query.join(vectors, (vectors.c.seq == words.c.seq) & (vectors.c.space == space))
    with engine.record.read() as connection:
        found = connection.execute(query).mappings().all()
    for row in found:
        state = ledger.users.get(row["user_id"], create=True)
        own = {column.name: row[column.name] for column in words.c} | {"user_key": state.key}
        ledger.connection.execute(words.insert().values(own))
        ledger.connection.execute(vectors.insert().values(seq=row["seq"], space=1, vector=row["vector"]))
        ledger.users.touch(state)
        state.now_stale(rows.EARLIEST)
    return lambda: None


@pytest.mark.slow
@pytest.mark.timeout(400)
# What is late by a few signals is among these of nearly everything.
@patch("penchant_pipelines.record.users.SNAPSHOT_LAGS", (4, 1))
def test_anything_in_any_order(encoder: Encoder, tmp_path: Path) -> None:
    scales = np.random.default_rng(0).uniform(0, 1, encoder.dimensions)
    Anything.encoder = Remembering(encoder)
    Anything.other = Remembering(encoder, ADAPTER, scales)
    Anything.folders = (tmp_path / str(number) for number in itertools.count())
    run_state_machine_as_test(
        Anything,
        settings=settings(
            max_examples=3,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
