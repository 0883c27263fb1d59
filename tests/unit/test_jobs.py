"""Jobs: what is kept of one that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from penchant.errors import code_of, to_status
from penchant_pipelines.errors import Conflict, NotFound, Overloaded, PenchantError, Unavailable, WrongState
from penchant_pipelines.jobs import Jobs, JobState, Progress
from penchant_pipelines.record import Record, Writer
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.users import KeptSpace, ProfileCache


def nobody(_user_id: str) -> KeptSpace:
    raise AssertionError


def ledger(connection: Connection) -> Ledger:
    return Ledger(connection, (), nobody, ProfileCache(maxsize=1), b"", iter(()), lambda _commit: None)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    record = Record(tmp_path)
    writer: Writer[Ledger] = Writer(record.engine, ledger)
    try:
        yield Jobs(record, writer)
    finally:
        await writer.close()
        record.close()


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
