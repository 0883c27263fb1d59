"""What an erasure leaves to be done, where that fails or is broken off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from penchant_pipelines import erasure
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.engine import Engine, EngineSettings
from penchant_pipelines.erasure import Purge
from penchant_pipelines.index import ExactStore
from penchant_pipelines.model import Post, Signal
from penchant_pipelines.spaces.space import Space


@pytest.fixture
async def engine(tmp_path: Path, encoder: Encoder) -> AsyncIterator[Engine]:
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as opened:
        yield opened


class Holder:
    """A space whose index holds what was erased, until it can't be asked any more."""

    def __init__(self) -> None:
        self.away = False

    @property
    def relay(self) -> Holder:
        return self

    def holds_erased(self) -> bool:
        if self.away:
            raise OSError("the record is away")
        return True


@pytest.fixture
def holder(monkeypatch: pytest.MonkeyPatch) -> Holder:
    monkeypatch.setattr(erasure, "PURGE_SECONDS", 0.0)
    return Holder()


async def purging(engine: Engine, holder: Any, rebuild: Any) -> tuple[Purge, asyncio.Task[None]]:
    def indexed() -> Sequence[Space]:
        return [holder]

    purge = Purge(engine.record, engine.writer, indexed, rebuild)
    task = asyncio.create_task(purge.rebuild_indexes())
    await purge.erased()
    return purge, task


async def test_a_stop_ends_it_though_the_record_can_no_longer_be_read(engine: Engine, holder: Holder) -> None:
    begun = asyncio.Event()

    async def rebuild(_space: Space) -> None:
        begun.set()
        await asyncio.Event().wait()

    _, task = await purging(engine, holder, rebuild)
    await begun.wait()
    holder.away = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("holder")
async def test_without_room_the_record_is_not_written_anew_and_that_is_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten = asyncio.Event()
    room = 0
    monkeypatch.setattr(engine.record, "rewrite", rewritten.set)
    monkeypatch.setattr(engine.record, "rewriting_needs", lambda: (2, room))
    monkeypatch.setattr(erasure, "ROOM_SECONDS", 0.05)
    await engine.capture([Signal("s", "ann", Post("Hiking in the Alps"))])
    with capture_logs() as logs:
        await engine.erase("ann")
        async with asyncio.timeout(10):
            while not any(entry["event"] == "record.no_room_to_rewrite" for entry in logs):
                await asyncio.sleep(0.01)
        assert not rewritten.is_set()
        room = 2
        async with asyncio.timeout(10):
            await rewritten.wait()


async def test_what_failed_is_still_owed(engine: Engine, holder: Holder) -> None:
    rebuilt = 0

    async def rebuild(_space: Space) -> None:
        nonlocal rebuilt
        rebuilt += 1

    holder.away = True
    purge, task = await purging(engine, holder, rebuild)
    with pytest.raises(OSError, match="away"):
        await task
    holder.away = False
    async with asyncio.timeout(10):
        await purge.rebuild_indexes()
        await purge.rebuild_indexes()
    assert rebuilt == 2
