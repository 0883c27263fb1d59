"""The relay: what becomes of generations when a rebuild is broken off, meets another, or can't clear up behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from penchant_pipelines import engine as engine_module
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.engine import Engine, EngineSettings
from penchant_pipelines.errors import Unavailable
from penchant_pipelines.index import ExactIndex, ExactStore, IndexSettings, IndexUnavailable, generations, relay
from penchant_pipelines.jobs import no_progress
from penchant_pipelines.model import Item
from penchant_pipelines.record import schema
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.users import ITEM


@pytest.fixture
def store() -> ExactStore:
    return ExactStore()


@pytest.fixture
async def engine(tmp_path: Path, encoder: Encoder, store: ExactStore) -> AsyncIterator[Engine]:
    async with Engine.open(EngineSettings(), tmp_path, encoder, store) as opened:
        await opened.upsert_items([item("hiking"), item("jazz")])
        yield opened


def item(name: str) -> Item:
    return Item(id=name, title=f"A book about {name}")


def known(engine: Engine) -> set[str]:
    with engine.record.read() as connection:
        return generations.names(connection)


def live_name(engine: Engine) -> str:
    generation = engine.live.relay.live
    assert generation is not None
    return generation.name


def waiting(engine: Engine) -> int:
    """Rows of the outbox that are kept."""
    with engine.record.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.outbox)).scalar_one()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


class Halted:
    """A progress that stops at its first word until it may go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.words = 0

    async def __call__(self, _done: int, _total: int) -> None:
        self.words += 1
        self.begun.set()
        await self.go_on.wait()


async def test_a_close_breaks_a_rebuild_off_and_nothing_is_left(engine: Engine, store: ExactStore) -> None:
    former, halted = live_name(engine), Halted()
    rebuilding = asyncio.create_task(engine.live.relay.rebuild(halted))
    await halted.begun.wait()
    closing = asyncio.create_task(engine.live.relay.close())
    await asyncio.sleep(0.05)
    halted.go_on.set()
    await asyncio.gather(rebuilding, closing)
    assert halted.words == 1
    await engine.live.relay.rebuild(no_progress)
    assert known(engine) == {former} == set(store.names())


@pytest.mark.parametrize(("missed", "sound"), [(1, True), (2, False)])
async def test_an_index_that_misses_one_of_a_sample_is_no_damaged_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, missed: int, sound: bool
) -> None:
    await until(lambda: engine.live.relay.lag() == 0)
    query = ExactIndex.query
    monkeypatch.setattr(ExactIndex, "query", lambda *arguments: [[]] * missed + query(*arguments)[missed:])
    assert await engine.live.relay.audit() is sound


async def test_an_index_that_lost_or_regained_something_while_nobody_asked_is_built_anew(
    engine: Engine, store: ExactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RETRY_SECONDS", 0.05)
    await until(lambda: engine.live.relay.lag() == 0)

    async def rebuilt(former: str) -> None:
        await until(lambda: engine.live.relay.live is not None and live_name(engine) != former)
        assert store.open(live_name(engine), 384).items.count() == 2

    first = live_name(engine)
    store.open(first, 384).items.delete(["jazz"])
    await rebuilt(first)
    second = live_name(engine)
    store.open(second, 384).items.upsert(["a former one"], np.eye(1, 384, dtype=np.float32))
    await rebuilt(second)


async def test_an_index_that_is_away_is_missed_though_nobody_asks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(engine_module, "HEAL_SECONDS", 0.05)
    await until(lambda: engine.live.relay.lag() == 0)

    def away(*_arguments: Any) -> int:
        raise IndexUnavailable("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(ExactIndex, "count", away)
        patch.setattr(ExactStore, "open", away)
        await until(lambda: engine.live.relay.live is None)
    await until(lambda: engine.live.relay.live is not None)


async def test_queries_that_hang_take_the_threads_of_nothing_else_and_are_asked_once(
    engine: Engine, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, asked = threading.Event(), []

    def hang(*arguments: Any) -> None:
        asked.append(arguments)
        go_on.wait(10)
        raise IndexUnavailable("it hangs")

    monkeypatch.setattr(ExactIndex, "query", hang)
    monkeypatch.setattr(engine.live.relay, "_on_lost", lambda: None)
    target = encoder.encode(["jazz"])
    queries = [asyncio.create_task(engine.live.relay.query("items", target, 1)) for _ in range(100)]
    await until(lambda: len(asked) > 0)
    async with asyncio.timeout(5):
        await engine.upsert_items([item("baking")])
    go_on.set()
    assert await asyncio.gather(*queries) == [None] * 100
    assert len(asked) <= 32  # no more than there are threads


async def test_an_index_of_which_more_was_deleted_than_it_holds_is_replaced(
    engine: Engine, store: ExactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LEAST_DELETED", 2)
    former = live_name(engine)
    await engine.upsert_items([item("chess"), item("go")])
    await engine.delete_items(["hiking", "jazz"])
    await until(lambda: engine.live.relay.lag() == 0)
    assert live_name(engine) == former
    await engine.delete_items(["go"])
    await until(lambda: live_name(engine) != former and store.names() == [live_name(engine)])
    replaced = live_name(engine)
    for _ in range(2):
        await engine.delete_items(["chess"])
        await engine.upsert_items([item("chess")])
        await until(lambda: engine.live.relay.lag() == 0)
    assert live_name(engine) == replaced
    assert store.open(replaced, 384).items.count() == 1


async def test_what_cant_be_dropped_keeps_no_outbox_and_is_dropped_later(
    engine: Engine, store: ExactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_store: ExactStore, name: str) -> None:
        raise IndexUnavailable(name)

    monkeypatch.setattr(relay, "TIDY_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(ExactStore, "drop", failing)
        await engine.live.relay.rebuild(no_progress)
        assert known(engine) == {live_name(engine)}
        await engine.upsert_items([item("baking")])
        await until(lambda: waiting(engine) == 0)
        assert len(store.names()) == 2
    await until(lambda: store.names() == [live_name(engine)])


async def test_a_rebuild_that_fails_while_nothing_can_be_written_is_forgotten_later(
    engine: Engine, store: ExactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(*_: Any, **__: Any) -> None:
        raise Unavailable("RECORD_UNWRITABLE", "the disk is full")

    monkeypatch.setattr(relay, "TIDY_SECONDS", 0.05)
    live = live_name(engine)
    with monkeypatch.context() as patch:
        patch.setattr(generations, "forget", unwritable)
        patch.setattr(generations, "switch", unwritable)
        with pytest.raises(Unavailable):
            await engine.live.relay.rebuild(no_progress)
        assert len(known(engine)) == 2
    await until(lambda: known(engine) == {live} and store.names() == [live])


async def test_what_follows_the_outbox_says_nothing_of_a_record_that_cant_be_written(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def unwritable(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        raise Unavailable("RECORD_UNWRITABLE", "the disk is full")

    monkeypatch.setattr(relay, "RETRY_SECONDS", 0.05)
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(generations, "advance", unwritable)
        await engine.upsert_items([item("baking")])
        await until(lambda: tries > 1)
    assert logs == []
    await until(lambda: waiting(engine) == 0)


async def test_a_rebuild_that_is_given_up_as_it_switches_has_switched(
    engine: Engine, store: ExactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, switching, go_on = generations.switch, threading.Event(), threading.Event()

    def slow(ledger: Ledger, space: int, name: str) -> Callable[[], None]:
        switching.set()
        go_on.wait()
        return switch(ledger, space, name)

    monkeypatch.setattr(generations, "switch", slow)
    former = live_name(engine)
    rebuilding = asyncio.create_task(engine.live.relay.rebuild(no_progress))
    await asyncio.to_thread(switching.wait)
    rebuilding.cancel()
    await asyncio.sleep(0.05)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await rebuilding
    assert known(engine) == {live_name(engine)} == set(store.names()) != {former}
    await engine.upsert_items([item("baking")])
    await until(lambda: engine.live.relay.lag() == 0)


async def test_who_asks_for_a_rebuild_while_one_is_under_way_hears_how_far_it_is(engine: Engine) -> None:
    told: list[tuple[int, int]] = []

    async def progress(done: int, total: int) -> None:
        told.append((done, total))

    halted = Halted()
    first = asyncio.create_task(engine.live.relay.rebuild(halted))
    await halted.begun.wait()
    second = asyncio.create_task(engine.live.relay.rebuild(progress))
    await asyncio.sleep(0.05)
    halted.go_on.set()
    await first
    built = live_name(engine)
    await second
    assert told[-1] == (2, 2)
    assert live_name(engine) == built


async def test_who_waits_for_a_rebuild_that_is_given_up_gets_one_of_its_own(engine: Engine) -> None:
    former, halted = live_name(engine), Halted()
    first = asyncio.create_task(engine.live.relay.rebuild(halted))
    await halted.begun.wait()
    second = asyncio.create_task(engine.live.relay.rebuild(no_progress))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert known(engine) == {live_name(engine)} != {former}


async def test_what_is_still_written_into_a_forgotten_generation_leaves_no_trace(engine: Engine) -> None:
    vector = np.ones(4, dtype=np.float32)
    taken = generations.Taken({(1, "i-1"): vector}, [], {})
    await engine.writer.submit(lambda ledger: generations.advance(ledger, "g-forgotten", 7, taken))
    with engine.record.read() as connection:
        assert connection.execute(sa.select(schema.indexed_interests.c.generation)).all() == []


@pytest.mark.parametrize(("ef_search", "kept"), [(100, True), (400, False)])
async def test_an_index_that_was_built_by_other_settings_is_built_anew(
    tmp_path: Path, encoder: Encoder, ef_search: int, kept: bool
) -> None:
    names: list[str] = []
    for searched in (100, ef_search):
        settings = EngineSettings(index=IndexSettings(ef_search=searched))
        async with Engine.open(settings, tmp_path, encoder) as engine:
            if not names:
                await engine.upsert_items([item("hiking")])
            async with asyncio.timeout(20):
                while engine.live.relay.live is None or engine.live.relay.lag():
                    await asyncio.sleep(0.01)
            names.append(live_name(engine))
    assert (names[0] == names[1]) is kept


async def test_a_switch_does_not_wait_until_nobody_writes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, former = generations.advance, live_name(engine)

    def busy(ledger: Ledger, name: str, cursor: int | None, *taken: Any) -> Callable[[], None]:
        noted = advance(ledger, name, cursor, *taken)
        ledger.connection.execute(schema.outbox.insert().values(kind=ITEM, key="hiking"))
        return noted

    with monkeypatch.context() as patched:
        patched.setattr(generations, "advance", busy)
        await engine.upsert_items([item("baking")])
        async with asyncio.timeout(10):
            await engine.live.relay.rebuild(no_progress)
    assert live_name(engine) != former
    await until(lambda: engine.live.relay.lag() == 0)
    assert await engine.live.relay.audit()
