"""The one writer: works are committed in groups, and answered only after their commit.

While a group is being synced to disk the next one gathers, so that under load one sync serves many
callers and alone a caller waits for nobody. Works run in one thread, in the order they came; but large ones,
each of many signals or items, make a line of their own, of which a group takes little: nobody waits for a heap
of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from penchant_pipelines.errors import Overloaded, PenchantError, Unavailable, WrongState
from penchant_pipelines.record.record import BEGIN

log = structlog.get_logger(__name__)

MAX_GROUP = 64
LARGE = 20
"""Signals, or items, from which on a work is large."""
LARGE_GROUP = 500
"""Signals that a group takes of large works, unless the first of them alone has more."""
LARGE_WAITING = 10_000
"""Signals of large works that may wait: at the slowest, a minute's."""
RETRY_SECONDS = 2.0
Result = TypeVar("Result")


class Transaction(Protocol):
    """What works write through; made anew for each group."""

    def flush(self) -> None:
        """Write what was put off to the end of the transaction."""

    def committed(self) -> None:
        """Runs after the commit, in the writer's thread."""

    def rolled_back(self) -> None:
        """Runs when nothing of it was kept."""


Tx = TypeVar("Tx", bound=Transaction)


@dataclass(eq=False, slots=True)
class _Work(Generic[Tx]):
    run: Callable[[Tx], Callable[[], Any]] | None
    future: asyncio.Future[Any]
    size: int = 1
    alone: Callable[[], Any] | None = None
    """In place of `run`: outside of any transaction."""


class Writer(Generic[Tx]):
    """Runs works in transactions on a thread of its own.

    A work gets the transaction and returns a function that is called after the flush and gives the result.
    A work may raise PenchantError only before it has written anything.
    """

    def __init__(self, engine: Engine, transaction: Callable[[Connection], Tx]) -> None:
        # Who begins by reading and then finds another writing is refused at once; this waits its turn instead.
        self._engine = engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
        self._transaction = transaction
        self._queue: deque[_Work[Tx]] = deque()
        self._large: deque[_Work[Tx]] = deque()
        self._large_size = 0
        self._wake = threading.Condition()
        self._closed = False
        self.writable = True
        """False from a work that met a record that can't be written until who tries it says otherwise."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="record-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Works that wait for their transaction."""
        return len(self._queue) + len(self._large)

    async def submit(self, work: Callable[[Tx], Callable[[], Result]], size: int = 1) -> Result:
        """Queue a work of so many signals or items and wait until it is durable.

        Work not yet begun is dropped if its caller cancels. Raises Overloaded where too much waits before a large one.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        self._enqueue(_Work(work, future, size))
        return await future

    async def alone(self, work: Callable[[], Result]) -> Result:
        """Do a work in the writer's thread, outside of any transaction, while nobody writes."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._enqueue(_Work(None, future, alone=work))
        return await future

    def _enqueue(self, work: _Work[Tx]) -> None:
        if self._closed:
            raise WrongState("SHUTTING_DOWN", "the record is closed")
        with self._wake:
            if work.size < LARGE:
                self._queue.append(work)
            elif self._large_size + work.size > LARGE_WAITING and self._large:
                raise Overloaded(RETRY_SECONDS)
            else:
                self._large.append(work)
                self._large_size += work.size
            self._wake.notify()

    async def close(self) -> None:
        """Commit what is queued, then stop."""
        self._closed = True
        with self._wake:
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self.waiting and not self._closed:
                    self._wake.wait()
                if not self.waiting:
                    return
                group = self._next()
            group = [work for work in group if not work.future.cancelled()]
            if group:
                self._commit(group)

    def _next(self) -> list[_Work[Tx]]:
        """Take the next works that go together."""
        if self._queue and self._queue[0].alone:
            return [self._queue.popleft()]
        group: list[_Work[Tx]] = []
        while self._queue and len(group) < MAX_GROUP and not self._queue[0].alone:
            group.append(self._queue.popleft())
        size = 0
        while self._large and (not size or size + self._large[0].size <= LARGE_GROUP):
            # Whose caller gave up takes nobody's place.
            size += 0 if self._large[0].future.cancelled() else self._large[0].size
            group.append(self._large.popleft())
            self._large_size -= group[-1].size
        return group

    def _commit(self, group: list[_Work[Tx]]) -> None:
        try:
            outcomes = [group[0].alone()] if group[0].alone else self._transact(group)
        except Exception as error:  # the cause may lie in any of them: each gets its own transaction
            if len(group) > 1:
                for work in group:
                    self._commit([work])
                return
            outcomes = [error if group[0].alone else self._told(error)]
        try:
            self._loop.call_soon_threadsafe(_settle, group, outcomes)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._closed = True

    def _transact(self, group: list[_Work[Tx]]) -> list[Any]:
        with self._engine.connect() as connection:
            transaction = self._transaction(connection)
            try:
                pending: list[Callable[[], Any] | PenchantError] = []
                for run in (work.run for work in group if work.run):
                    try:
                        pending.append(run(transaction))
                    except PenchantError as error:
                        pending.append(error)
                transaction.flush()
                outcomes = [finish if isinstance(finish, PenchantError) else finish() for finish in pending]
                connection.commit()
            except BaseException:
                connection.rollback()
                transaction.rolled_back()
                raise
            transaction.committed()
            return outcomes

    def _told(self, error: Exception) -> Exception:
        """What a caller hears of a failed transaction."""
        if not isinstance(error, OperationalError):
            return error
        if self.writable:  # told once: whoever writes meanwhile meets the same
            log.error("record.unwritable", error=str(error.orig))
        self.writable = False
        return Unavailable(
            "RECORD_UNWRITABLE", f"the record can't be written ({error.orig}); nothing was kept, try again"
        )


def nothing() -> None:
    """Answer of a work that gives none."""


def _settle(group: list[_Work[Any]], outcomes: list[Any]) -> None:
    for work, outcome in zip(group, outcomes, strict=True):
        if work.future.done():
            continue
        if isinstance(outcome, Exception):
            work.future.set_exception(outcome)
        else:
            work.future.set_result(outcome)
