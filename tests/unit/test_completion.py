"""Signals that came before their items, while all else goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
import sqlalchemy as sa
from live_records import NOW, SPACE, Live, axis

from penchant_pipelines import completion
from penchant_pipelines.completion import Completion
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.engine import Engine, EngineSettings
from penchant_pipelines.index import ExactStore
from penchant_pipelines.interests import Profile, pack, unpack
from penchant_pipelines.model import Action, Behavior, Item, Signal
from penchant_pipelines.record import rows, schema
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.reading import Reading

FILM = (Item("film", title="film"), Reading({SPACE: axis(1)}, "en", ("film",)))


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    found = Live(tmp_path)
    yield found
    await found.close()


async def put(live: Live) -> None:
    """Write the film; who waits for it goes on to."""
    await live.writer.submit(lambda ledger: ledger.upsert_items([FILM]))
    live.completion.note(["film"])


def check(live: Live, user: str = "ann") -> Profile:
    """A user's profile, which is what a replay makes."""
    users, profiles = schema.users, schema.profiles
    query = sa.select(users, profiles.c.profile).join(profiles, profiles.c.user_key == users.c.key)
    with live.record.read() as connection:
        row = connection.execute(query.where(users.c.user_id == user)).one()
        events = rows.user_events(connection, SPACE, row.key)
    assert row.profile == pack(live.blender.replay(events))
    assert row.signal_count == len(events)
    return unpack(row.profile)


async def test_who_writes_has_a_turn_between_two_users(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"u{number}" for number in range(5)]
    for name in names:
        await live.act(Action.LIKE, user=name)
    await put(live)
    assert live.commits[-1].changes == []
    loop, complete = asyncio.get_running_loop(), Ledger.complete
    captures: list[Future[None]] = []

    def meanwhile(ledger: Ledger, user_key: int) -> Callable[[], None]:
        if not captures:
            captures.append(asyncio.run_coroutine_threadsafe(live.act(Action.VIEW, "other", user="bob"), loop))
        return complete(ledger, user_key)

    monkeypatch.setattr(Ledger, "complete", meanwhile)
    before = len(live.commits)
    await live.completion.complete()
    await asyncio.wrap_future(captures[0])
    changed = [[change.user_id for change in commit.changes] for commit in live.commits[before:]]
    assert sum(len(set(each) & set(names)) for each in changed) == 5
    assert max(len(set(each) & set(names)) for each in changed) == 1
    assert "bob" in changed[0] + changed[1]
    for name in names:
        assert len(check(live, name).interests) == 1


async def test_what_a_crash_leaves_is_taken_up_at_the_next_start(live: Live) -> None:
    await live.act(Action.LIKE)
    await live.act(Action.LIKE, "never")
    await put(live)
    again = Completion(live.record, live.writer)
    await again.start()
    await asyncio.wait_for(again.complete(), 10)
    assert len(check(live).interests) == 1
    # Nothing is left to do, whatever else is waited for.
    await again.start()
    await asyncio.wait_for(again.caught_up(), completion.PATIENCE_SECONDS / 2)


@pytest.mark.parametrize("meanwhile", ["captured", "merged", "erased", "deleted"])
async def test_what_happens_to_who_waits_meanwhile(live: Live, monkeypatch: pytest.MonkeyPatch, meanwhile: str) -> None:
    await live.act(Action.LIKE)
    await put(live)
    look, loop = Completion._waiting, asyncio.get_running_loop()
    looks: list[Sequence[int]] = []

    async def happen() -> None:
        if meanwhile == "captured":
            await live.act(Action.SAVE)
        elif meanwhile == "merged":
            await live.writer.submit(lambda ledger: ledger.merge("ann", "bob"))
        elif meanwhile == "erased":
            await live.writer.submit(lambda ledger: ledger.erase("ann", NOW))
        else:
            await live.delete()

    def late(self: Completion, item_ids: Sequence[str]) -> Sequence[int]:
        found = look(self, item_ids)
        if not looks:
            asyncio.run_coroutine_threadsafe(happen(), loop).result()
        looks.append(found)
        return found

    monkeypatch.setattr(Completion, "_waiting", late)
    await asyncio.wait_for(live.completion.complete(), 10)
    if meanwhile == "erased":
        with live.record.read() as connection:
            assert connection.execute(sa.select(schema.users)).first() is None
        return
    if meanwhile == "deleted":
        assert check(live).interests == []
        await put(live)
        await live.completion.complete()
    (interest,) = check(live, "bob" if meanwhile == "merged" else "ann").interests
    assert interest.signal_count == (2 if meanwhile == "captured" else 1)


async def test_what_fails_is_still_to_be_done_and_holds_nobody_up_for_long(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.act(Action.LIKE)
    await put(live)
    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "complete", lambda _ledger, user_key: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await live.completion.complete()
        broken.setattr(completion, "PATIENCE_SECONDS", 0.05)
        await asyncio.wait_for(live.completion.caught_up(), 5)
    caught_up = asyncio.create_task(live.completion.caught_up())
    started = time.monotonic()
    await asyncio.wait_for(live.completion.complete(), 10)
    await caught_up
    assert time.monotonic() - started < completion.PATIENCE_SECONDS
    assert len(check(live).interests) == 1


async def test_an_answer_to_items_finds_them_in_the_profiles_of_who_waited(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = [Signal(f"s{name}", "ann", Behavior(name, Action.LIKE), NOW) for name in ("film", "book")]
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine:
        await engine.capture(signals)
        assert await engine.upsert_items([Item("film", title="Hiking in winter")]) == [None]
        assert len(engine.live.profiles.get("ann").view.interests) == 1
        with monkeypatch.context() as killed:  # right after the commit
            killed.setattr(Completion, "note", lambda _completion, _item_ids: None)
            await engine.upsert_items([Item("book", title="Sourdough bread")])
        assert len(engine.live.profiles.get("ann").view.interests) == 1
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine:
        await engine._completion.caught_up()
        assert len(engine.live.profiles.get("ann").view.interests) == 2
