"""Jobs: what is told of them while they run, after they ended, and after a stop that cut them off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from penchant.errors import code_of, to_status
from penchant_pipelines.errors import Conflict, NotFound, Overloaded, PenchantError, Unavailable, WrongState
from penchant_pipelines.jobs import Job, Jobs, JobState, Progress
from penchant_pipelines.record import Record, Writer
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.users import ProfileCache


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[tuple[Record, Writer[Ledger]]]:
    record = Record(tmp_path)

    def ledger(connection: Connection) -> Ledger:
        nobody: Any = None  # no space is kept, so that none is asked for
        return Ledger(connection, [], nobody, ProfileCache(maxsize=1), b"", record.numbers(), lambda _: None)

    writer = Writer(record.engine, ledger)
    yield record, writer
    await writer.close()
    record.close()


@pytest.fixture
def jobs(store: tuple[Record, Writer[Ledger]], monkeypatch: pytest.MonkeyPatch) -> Jobs:
    # The record is told of the first step of a job, and of none after it, however slow the disk is.
    monkeypatch.setattr("penchant_pipelines.jobs.SAVE_EVERY_SECONDS", 60)
    return Jobs(*store)


async def at_once(progress: Progress) -> None:
    await progress(2, 2)


async def stuck(progress: Progress) -> None:
    """Three of seven are done, of which the record hears at once, and a fourth, of which it does not yet."""
    await progress(3, 7)
    await progress(4, 7)
    await asyncio.sleep(60)


async def until_stuck(jobs: Jobs, job: Job) -> Job:
    async with asyncio.timeout(10):
        while (found := await jobs.get(job.id)).done_count < 4:
            await asyncio.sleep(0.01)
    return found


async def test_a_running_job_tells_how_far_it_is_and_one_that_was_cancelled_how_far_it_came(
    jobs: Jobs, store: tuple[Record, Writer[Ledger]]
) -> None:
    found = await until_stuck(jobs, await jobs.start("long", stuck))
    assert (found.state, found.done_count, found.total_count, found.end_time) == (JobState.RUNNING, 4, 7, None)
    assert [job for _, job in await jobs.list(None, 9)] == [found]
    ended = await jobs.cancel(found.id)
    assert (ended.state, ended.done_count, ended.total_count) == (JobState.CANCELLED, 4, 7)
    assert ended.end_time is not None
    assert ended.end_time >= ended.create_time
    # As the record tells it too.
    assert await Jobs(*store).get(found.id) == ended
    with pytest.raises(WrongState, match="ended as cancelled"):
        await jobs.cancel(found.id)


async def test_two_of_a_kind_never_run_at_once_and_others_do(jobs: Jobs) -> None:
    await jobs.start("long", stuck)
    with pytest.raises(WrongState):
        await jobs.start("long", at_once)
    quick = await jobs.start("quick", at_once)
    async with asyncio.timeout(10):  # of its own kind alone
        await jobs.ended("quick")
    assert (await jobs.get(quick.id)).state is JobState.SUCCEEDED
    await jobs.start("another", stuck)
    await jobs.close()
    # Nobody cancelled them: they tell what those of a server that was killed tell.
    assert [(job.kind, job.state, job.error_kind) for _, job in await jobs.list(None, 9)] == [
        ("another", JobState.FAILED, "Unavailable"),
        ("quick", JobState.SUCCEEDED, ""),
        ("long", JobState.FAILED, "Unavailable"),
    ]


@pytest.mark.parametrize(
    "error",
    [
        NotFound("mix", "m-1"),
        Conflict("TAKEN", "it is taken"),
        WrongState("TOO_EARLY", "wait"),
        Overloaded(1.0),
        Unavailable("DISK_FULL", "make room"),
        PenchantError("ODD", "something odd"),
    ],
)
async def test_a_job_that_fails_is_kept_with_the_code_that_a_call_would_end_with(
    jobs: Jobs, error: PenchantError
) -> None:
    async def fail(_progress: Progress) -> None:
        raise error

    job = await jobs.start("try", fail)
    await jobs.ended("try")
    kept = await jobs.get(job.id)
    assert (kept.state, kept.error, code_of(kept.error_kind)) == (
        JobState.FAILED,
        error.message,
        to_status(error).code,
    )


async def test_of_an_error_that_nobody_foresaw_a_job_tells_nothing(jobs: Jobs) -> None:
    async def broken(_: Progress) -> None:
        raise RuntimeError("what nobody outside should read")

    job = await jobs.start("failing", broken)
    await jobs.ended("failing")
    found = await jobs.get(job.id)
    assert (found.state, found.error, found.error_kind) == (
        JobState.FAILED,
        "internal error; see the server's log",
        "",
    )


async def test_a_job_whose_end_could_not_be_kept_tells_it_and_holds_up_no_other(
    jobs: Jobs, store: tuple[Record, Writer[Ledger]], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = asyncio.Event()

    async def until_full(_: Progress) -> None:
        await full.wait()

    async def unwritable(_: object) -> None:
        raise Unavailable("RECORD_UNWRITABLE", "no room on the disk")

    job = await jobs.start("quick", until_full)
    with monkeypatch.context() as patch:
        patch.setattr(store[1], "submit", unwritable)
        full.set()
        await jobs.ended("quick")
    assert (await jobs.get(job.id)).state is JobState.SUCCEEDED
    again = await jobs.start("quick", at_once)
    await jobs.ended("quick")
    assert (await jobs.get(again.id)).state is JobState.SUCCEEDED


async def test_what_a_stop_cut_off_has_failed_and_what_had_ended_stays_as_it_was(
    jobs: Jobs, store: tuple[Record, Writer[Ledger]]
) -> None:
    ended = await jobs.start("quick", at_once)
    await jobs.ended("quick")
    ended = await jobs.get(ended.id)
    cut = await until_stuck(jobs, await jobs.start("long", stuck))
    after = Jobs(*store)
    await after.recover()
    assert await after.get(ended.id) == ended
    found = await after.get(cut.id)
    assert (found.state, found.error_kind, found.done_count) == (JobState.FAILED, "Unavailable", 3)
    assert "start it again" in found.error
    assert found.end_time is not None
    assert found.end_time >= found.create_time

    # Taken up again it is the same job, as if nothing had been.
    again = await after.start("long", at_once, cut.id)
    assert again.create_time == (await after.get(cut.id)).create_time == cut.create_time
    await after.ended("long")
    whole = await after.get(again.id)
    assert (whole.id, whole.state, whole.error, whole.error_kind) == (cut.id, JobState.SUCCEEDED, "", "")
    assert (whole.done_count, whole.total_count, whole.create_time) == (2, 2, cut.create_time)
    assert [job.id for _, job in await after.list(None, 9)] == [cut.id, ended.id]
    await jobs.close()


async def test_jobs_are_listed_newest_first_page_by_page(jobs: Jobs) -> None:
    started = []
    for _ in range(3):
        started.append((await jobs.start("quick", at_once)).id)
        await jobs.ended("quick")
    page = await jobs.list(None, 2)
    assert [job.id for _, job in page] == started[:0:-1]
    assert [job.id for _, job in await jobs.list(page[-1][0], 2)] == started[:1]
    assert await asyncio.to_thread(jobs.counts) == {("quick", JobState.SUCCEEDED): 3}
    with pytest.raises(NotFound):
        await jobs.get("j-none")
