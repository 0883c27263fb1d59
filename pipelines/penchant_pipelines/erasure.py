"""What an erasure leaves to be done: files of record and index hold what was erased until they are made anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import sqlalchemy as sa
import structlog

from penchant_pipelines.record import Record, Writer, nothing, rows, schema
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.spaces.space import Space

log = structlog.get_logger(__name__)

PURGE_SECONDS = 60.0
"""How long an erasure waits for others before files that hold what was erased are made anew."""
REWRITING_SHARE = 0.01
"""Most of the time that may go into writing the record anew."""
LOG_PAUSE_SECONDS = 0.05
"""Pause between attempts to empty the write-ahead log while others read or write."""
ROOM_SECONDS = 600.0
"""Pause between looks whether there is room to write the record anew."""
ERASURE_SECONDS = 1.0
"""How long an erasure that is asked for waits for the log to be emptied; it is emptied later otherwise."""


class Purge:
    """Makes files anew that hold what was erased, a step at a time. Belongs to one event loop."""

    def __init__(
        self,
        record: Record,
        writer: Writer[Ledger],
        indexed: Callable[[], Sequence[Space]],
        rebuild: Callable[[Space], Awaitable[None]],
    ) -> None:
        self._record = record
        self._writer = writer
        self._indexed = indexed
        self._rebuild = rebuild
        self._erased = asyncio.Event()
        self._to_rewrite = asyncio.Event()
        self._log_in_use = asyncio.Event()

    async def start(self) -> None:
        """Take up what a stop cut off; an index that holds what was erased is not opened again."""
        if await asyncio.to_thread(self._unpurged):
            self._to_rewrite.set()

    async def erased(self) -> None:
        """Say that somebody was erased; waits a moment for the log to be emptied."""
        self._erased.set()
        self._to_rewrite.set()
        try:
            async with asyncio.timeout(ERASURE_SECONDS):
                await self._empty_log()
        except Exception:  # too many readers, or a full disk: it is erased all the same
            self._log_in_use.set()

    async def empty_log(self) -> None:
        """Empty the write-ahead log that an erasure had to leave to others, as soon as they are done with it."""
        await self._log_in_use.wait()
        self._log_in_use.clear()
        try:
            await self._empty_log()
        except Exception:
            self._log_in_use.set()
            raise

    async def rebuild_indexes(self) -> None:
        """Some time after an erasure, rebuild each index that holds what was erased. Coalesces erasures.

        A vector deleted from an index stays in its files.
        """
        await self._erased.wait()
        await asyncio.sleep(PURGE_SECONDS)
        self._erased.clear()
        try:
            for space in await asyncio.to_thread(self._holding_erased):
                await self._rebuild(space)
            if await asyncio.to_thread(self._holding_erased):  # one failed, or somebody else was erased meanwhile
                self._erased.set()
        except Exception:
            self._erased.set()
            raise

    async def rewrite_record(self) -> None:
        """Some time after an erasure, write the record's file anew, without what is left in its pages."""
        await self._to_rewrite.wait()
        await asyncio.sleep(PURGE_SECONDS)
        self._to_rewrite.clear()
        held_up = 0.0

        def rewrite() -> None:
            nonlocal held_up
            begun = time.monotonic()
            try:
                self._record.rewrite()
            finally:
                held_up = time.monotonic() - begun

        try:
            if receipts := await asyncio.to_thread(self._unpurged):
                needed, free = await asyncio.to_thread(self._record.rewriting_needs)
                if free < needed:
                    # Tried all the same, it would fill the disk, and nobody could write.
                    log.warning("record.no_room_to_rewrite", needed_bytes=needed, free_bytes=free)
                    self._to_rewrite.set()
                    await asyncio.sleep(ROOM_SECONDS)
                    return
                log.info("record.rewriting")
                await self._writer.alone(rewrite)
                log.info("record.rewritten", seconds=round(held_up, 1))
                await self._empty_log()
                await self._writer.submit(partial(_purged, receipts=receipts))
        except asyncio.CancelledError:
            self._record.interrupt()  # it is still owed, and a stop can't wait that long
            raise
        except Exception:
            log.exception("record.not_rewritten")
            self._to_rewrite.set()
            # Half of it may stand there.
            self._log_in_use.set()
        # Who writes is held up meanwhile: hardly ever, however many are erased and however often it fails.
        await asyncio.sleep(held_up / REWRITING_SHARE)

    def _unpurged(self) -> Sequence[str]:
        """Receipts of erasures after which the record was not written anew."""
        table = schema.receipts
        with self._record.read() as connection:
            return connection.execute(sa.select(table.c.id).where(sa.not_(table.c.purged))).scalars().all()

    def _holding_erased(self) -> list[Space]:
        return [space for space in self._indexed() if space.relay.holds_erased()]

    async def _empty_log(self) -> None:
        """Empty the write-ahead log as soon as nobody reads or writes."""
        while not await asyncio.to_thread(self._record.truncate_log):  # noqa: ASYNC110 - a pace, not a wait
            await asyncio.sleep(LOG_PAUSE_SECONDS)


def _purged(ledger: Ledger, receipts: Sequence[str]) -> Callable[[], None]:
    table = schema.receipts
    for some in rows.among(table.c.id, receipts):
        ledger.connection.execute(table.update().where(some).values(purged=True))
    return nothing
