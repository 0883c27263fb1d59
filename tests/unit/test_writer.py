"""The writer: who goes first, and who is turned away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from penchant_pipelines.errors import Overloaded
from penchant_pipelines.record import Record, Writer
from penchant_pipelines.record.writer import LARGE_GROUP, LARGE_WAITING


class Groups:
    """Transactions that note which works came together; the first of all waits until it is let go."""

    def __init__(self) -> None:
        self.done: list[list[str]] = []
        self.go_on = threading.Event()

    def __call__(self, _connection: Connection) -> Groups:
        self.done.append([])
        return self

    def flush(self) -> None:
        if len(self.done) == 1:
            self.go_on.wait(10)

    def committed(self) -> None:
        pass

    def rolled_back(self) -> None:
        pass


@pytest.fixture
def groups() -> Groups:
    return Groups()


@pytest.fixture
async def writer(tmp_path: Path, groups: Groups) -> AsyncIterator[Writer[Groups]]:
    record = Record(tmp_path)
    writer = Writer(record.engine, groups)
    yield writer
    groups.go_on.set()
    await writer.close()
    record.close()


def work(name: str) -> Callable[[Groups], Callable[[], str]]:
    def run(groups: Groups) -> Callable[[], str]:
        groups.done[-1].append(name)
        return lambda: name

    return run


async def queued(writer: Writer[Groups], groups: Groups, *works: tuple[str, int]) -> list[asyncio.Task[str]]:
    """Works that all wait while another is being committed."""
    first = asyncio.create_task(writer.submit(work("first")))
    while not groups.done:
        await asyncio.sleep(0.01)
    tasks = [asyncio.create_task(writer.submit(work(name), size)) for name, size in works]
    await asyncio.sleep(0.01)
    return [first, *tasks]


async def test_small_works_pass_a_heap_of_large_ones(writer: Writer[Groups], groups: Groups) -> None:
    large = [(f"large-{n}", LARGE_GROUP // 2) for n in range(6)]
    tasks = await queued(writer, groups, *large, ("small-1", 1), ("small-2", 1))
    assert writer.waiting == 8
    groups.go_on.set()
    await asyncio.gather(*tasks)
    assert groups.done[1:] == [
        ["small-1", "small-2", "large-0", "large-1"],
        ["large-2", "large-3"],
        ["large-4", "large-5"],
    ]


async def test_small_works_never_keep_large_ones_from_their_turn(writer: Writer[Groups], groups: Groups) -> None:
    small = [(f"small-{n}", 1) for n in range(200)]
    tasks = await queued(writer, groups, ("large", 9 * LARGE_GROUP), *small)
    groups.go_on.set()
    await asyncio.gather(*tasks)
    assert "large" in groups.done[1]
    assert [name for group in groups.done for name in group if name.startswith("small")] == [name for name, _ in small]


async def test_more_than_can_be_written_in_time_is_turned_away(writer: Writer[Groups], groups: Groups) -> None:
    huge = LARGE_WAITING + 1
    tasks = await queued(writer, groups, ("huge", huge))
    with pytest.raises(Overloaded):
        await writer.submit(work("more"), LARGE_GROUP)
    small = asyncio.create_task(writer.submit(work("small")))
    groups.go_on.set()
    await asyncio.gather(*tasks, small)
    assert await writer.submit(work("later"), huge) == "later"


async def test_who_gave_up_takes_nobodys_place(writer: Writer[Groups], groups: Groups) -> None:
    tasks = await queued(writer, groups, *((f"large-{n}", LARGE_GROUP) for n in range(3)))
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.sleep(0.01)
    groups.go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert groups.done == [["first"], ["large-2"]]
