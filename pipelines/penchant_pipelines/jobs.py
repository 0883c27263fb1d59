"""Long jobs: started by a call, followed by polling, kept in the record, cancellable."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.sqlite import insert

from penchant_pipelines.errors import NotFound, PenchantError, Unavailable, WrongState
from penchant_pipelines.model import now
from penchant_pipelines.record import Record, Writer, nothing
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.schema import jobs as table

log = structlog.get_logger(__name__)

Progress = Callable[[int, int], Awaitable[None]]
"""Told how many of how many are done; raises to stop."""
SAVE_EVERY_SECONDS = 0.5


class JobState(enum.IntEnum):
    """The numbers are those of the contract's `JobState`."""

    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4


CUT_OFF: dict[str, Any] = {
    "state": JobState.FAILED,
    "error": "the server stopped while the job ran; start it again",
    "error_kind": Unavailable.__name__,
}
"""How a job ends that a stop of the server cuts off, unless it is taken up again."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. Times in µs; `error` is empty unless it failed.

    `error_kind` is the name of the domain error's class; empty where it is none.
    """

    id: str
    kind: str
    state: JobState
    done_count: int
    total_count: int
    error: str
    error_kind: str
    create_time: int
    end_time: int | None


class Jobs:
    """Runs jobs on the event loop. Two of one kind never run at once."""

    def __init__(self, record: Record, writer: Writer[Ledger]) -> None:
        self._record = record
        self._writer = writer
        self._running: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._closing = False

    async def recover(self) -> None:
        """Close the books on jobs that were running when the server was killed."""
        await self._writer.submit(
            lambda ledger: _update(ledger, table.c.state == JobState.RUNNING, **CUT_OFF, end_time=now())
        )

    @staticmethod
    def new_id() -> str:
        """An id for a job, for who must know it before the job is started."""
        return "j-" + uuid.uuid4().hex[:16]

    async def start(self, kind: str, work: Callable[[Progress], Awaitable[None]], job_id: str = "") -> Job:
        """Start a job; `work` is given a function to report (done, total) to.

        With the id of a job that was cut off, that one is taken up again. Raises WrongState if one of its kind runs.
        """
        # One that has ended stays among the running until that is written; nobody need wait for it.
        if any(job.kind == kind and job.state is JobState.RUNNING for job, _ in self._running.values()):
            raise WrongState("JOB_RUNNING", f"a job {kind} is running; wait for it or cancel it")
        job = Job(job_id or self.new_id(), kind, JobState.RUNNING, 0, 0, "", "", now(), None)
        # Taken before the first await, so that two calls at once can't both pass the check above.
        kept = asyncio.create_task(self._keep(job))
        task = asyncio.create_task(self._run(job, work, kept), name=f"job-{kind}")
        self._running[job.id] = (job, task)
        return await asyncio.shield(kept)

    async def get(self, job_id: str) -> Job:
        """Read a job. Raises NotFound."""
        if job_id in self._running:
            return self._running[job_id][0]
        found = await asyncio.to_thread(self._load, sa.select(table).where(table.c.id == job_id))
        if not found:
            raise NotFound("job", job_id)
        return found[0][1]

    async def list(self, before: int | None, limit: int) -> Sequence[tuple[int, Job]]:
        """Jobs with their sequence numbers, newest first, older than a number."""
        query = sa.select(table).order_by(table.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.seq < before)
        found = await asyncio.to_thread(self._load, query)
        return [(seq, self._running[job.id][0] if job.id in self._running else job) for seq, job in found]

    def counts(self) -> dict[tuple[str, JobState], int]:
        """How many jobs there are in the record, by kind and state; blocks."""
        query = sa.select(table.c.kind, table.c.state, sa.func.count()).group_by(table.c.kind, table.c.state)
        with self._record.read() as connection:
            return {(kind, JobState(state)): count for kind, state, count in connection.execute(query)}

    async def cancel(self, job_id: str) -> Job:
        """Stop a running job and wait until it has. Raises NotFound, or WrongState if it has ended."""
        job = await self.get(job_id)
        if job_id not in self._running:
            raise WrongState("JOB_ENDED", f"the job has ended as {job.state.name.lower()}")
        running, task = self._running[job_id]
        if running.state is JobState.RUNNING:  # else it is at its end already: only its last note is to be saved
            task.cancel()
        await asyncio.wait([task])
        return await self.get(job_id)

    async def ended(self, kind: str) -> None:
        """Wait until no job of a kind runs."""
        tasks = [task for job, task in self._running.values() if job.kind == kind]
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Cut off what runs."""
        self._closing = True
        for job_id in list(self._running):
            with contextlib.suppress(PenchantError):
                await self.cancel(job_id)

    async def _run(self, job: Job, work: Callable[[Progress], Awaitable[None]], kept: asyncio.Task[Job]) -> None:
        saved = 0

        async def progress(done: int, total: int) -> None:
            nonlocal saved
            self._note(job.id, done_count=done, total_count=total)
            if now() - saved > SAVE_EVERY_SECONDS * 1e6:
                saved = now()
                await self._save(job.id)

        try:
            # Whoever asks for it must find it: without its row it does nothing, as its caller is told.
            await asyncio.shield(kept)
            await work(progress)
            self._note(job.id, state=JobState.SUCCEEDED)
        except asyncio.CancelledError:
            self._note(job.id, **(CUT_OFF if self._closing else {"state": JobState.CANCELLED}))
        except PenchantError as error:
            self._note(job.id, state=JobState.FAILED, error=error.message, error_kind=type(error).__name__)
        except Exception:
            log.exception("job.failed", job_id=job.id, kind=job.kind)
            self._note(job.id, state=JobState.FAILED, error="internal error; see the server's log")
        self._note(job.id, end_time=now())
        ended = self._running[job.id][0]
        tell = log.warning if ended.state is JobState.FAILED else log.info
        why = {"error": ended.error} if ended.error else {}
        tell("job.ended", job_id=job.id, kind=job.kind, state=ended.state.name, **why)
        try:
            await asyncio.shield(self._save(job.id))
        except Unavailable:
            return  # it stays at hand, so that `get` tells how it ended
        del self._running[job.id]

    async def _keep(self, job: Job) -> Job:
        """Write a job that begins; one that is taken up again keeps the time at which it was created."""
        return self._note(job.id, create_time=await self._writer.submit(lambda ledger: _insert(ledger, job)))

    def _note(self, job_id: str, **changes: Any) -> Job:
        job, task = self._running[job_id]
        self._running[job_id] = (replace(job, **changes), task)
        return self._running[job_id][0]

    async def _save(self, job_id: str) -> None:
        job, _ = self._running[job_id]
        await self._writer.submit(
            lambda ledger: _update(
                ledger,
                table.c.id == job_id,
                state=job.state,
                done_count=job.done_count,
                total_count=job.total_count,
                error=job.error,
                error_kind=job.error_kind,
                end_time=job.end_time,
            )
        )

    def _load(self, query: sa.Select[Any]) -> Sequence[tuple[int, Job]]:
        with self._record.read() as connection:
            return [
                (
                    row.seq,
                    Job(
                        row.id,
                        row.kind,
                        JobState(row.state),
                        row.done_count,
                        row.total_count,
                        row.error,
                        row.error_kind,
                        row.create_time,
                        row.end_time,
                    ),
                )
                for row in connection.execute(query)
            ]


def succeed(ledger: Ledger, job_id: str) -> None:
    """Note in the transaction of what a job was for that it did it: a crash behind that must not call it failed."""
    done = {"done_count": table.c.total_count, "state": JobState.SUCCEEDED, "end_time": now()}
    ledger.connection.execute(table.update().where(table.c.id == job_id).values(**done))


async def no_progress(_done: int, _total: int) -> None:
    """Report to nobody."""


def _insert(ledger: Ledger, job: Job) -> Callable[[], int]:
    values: dict[str, Any] = {"state": int(job.state), "done_count": 0, "total_count": 0, "end_time": None}
    values |= {"error": "", "error_kind": ""}
    statement = insert(table).values(id=job.id, kind=job.kind, create_time=job.create_time, **values)
    again = statement.on_conflict_do_update(index_elements=["id"], set_=values).returning(table.c.create_time)
    create_time = ledger.connection.execute(again).scalar_one()
    return lambda: create_time


def _update(ledger: Ledger, where: sa.ColumnElement[bool], **values: Any) -> Callable[[], None]:
    ledger.connection.execute(table.update().where(where).values(**values))
    return nothing
