"""Signals that came before their items are completed once those are there.

That replays the profiles of all who have such signals, so it is done user by user, each in a transaction of their own:
whoever else writes has a turn in between. Which signals wait stands with them in the record, so that what a crash
leaves is found at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from functools import partial

import sqlalchemy as sa

from penchant_pipelines.record import Record, Writer, rows, schema
from penchant_pipelines.record.ledger import Ledger

PATIENCE_SECONDS = 2.0
"""How long who brought items waits for the users whose signals came first."""


class Completion:
    """Completes the signals that wait for items which came. Belongs to one event loop; reads in threads."""

    def __init__(self, record: Record, writer: Writer[Ledger]) -> None:
        self._record = record
        self._writer = writer
        self._came: set[str] = set()
        """Items that came since the last round began."""
        self._due = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Take up what an earlier run left."""
        self.note(await asyncio.to_thread(self._left))

    def note(self, item_ids: Iterable[str]) -> None:
        """Have it looked who waits for items that are in the record now."""
        self._came.update(item_ids)
        if self._came:
            self._due.set()
            self._idle.clear()

    async def complete(self) -> None:
        """Wait for items, then complete whoever waits for them; what fails is raised, and still due."""
        await self._due.wait()
        self._due.clear()
        came, self._came = self._came, set()
        try:
            # Once more, since a merge may have made a signal another user's meanwhile.
            while users := await asyncio.to_thread(self._waiting, sorted(came)):
                for user_key in users:
                    await self._writer.submit(partial(Ledger.complete, user_key=user_key))
        except BaseException:
            self.note(came)
            raise
        if not self._came:
            self._idle.set()

    async def caught_up(self) -> None:
        """Wait until nobody waits for an item that was noted, for a moment at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._idle.wait()

    def _left(self) -> Sequence[str]:
        signals, items = schema.signals, schema.items
        query = sa.select(signals.c.item_id).join(items, items.c.id == signals.c.item_id).where(signals.c.awaits_item)
        with self._record.read() as connection:
            return connection.execute(query.distinct()).scalars().all()

    def _waiting(self, item_ids: Sequence[str]) -> Sequence[int]:
        """Keys of the users who wait for some of these items, if they are there."""
        signals, items = schema.signals, schema.items
        query = sa.select(signals.c.user_key).join(items, items.c.id == signals.c.item_id).where(signals.c.awaits_item)
        found: dict[int, None] = {}
        with self._record.read() as connection:
            for some in rows.among(signals.c.item_id, item_ids):
                found.update(dict.fromkeys(connection.execute(query.where(some).distinct()).scalars()))
        return list(found)
