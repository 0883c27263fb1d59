"""Summaries: which are due, who writes them, and which still hold.

All of that follows from the record: a row tells of which profile a summary was made. What waits in memory is only
who changed lately; a sweep at the start, and each hour, finds whoever was missed.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from penchant_pipelines.interests import ProfileView
from penchant_pipelines.profiles import Stored
from penchant_pipelines.record import Record, Writer, nothing
from penchant_pipelines.record.commit import Change
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.schema import steerings, users
from penchant_pipelines.record.schema import summaries as table
from penchant_pipelines.spaces.space import Space
from penchant_pipelines.summaries.model_failed import ModelFailed
from penchant_pipelines.summaries.models import LanguageModel
from penchant_pipelines.summaries.wording import facts, instructions, is_liked, kept_of, spoken_of

log = structlog.get_logger(__name__)

TOP = 3
"""A summary that doesn't speak of one of so many strongest interests is written anew."""
MOST_WAITING = 10_000
"""Users that wait in memory; the sweep comes to the others."""
SWEEP_PAGE = 500
SWEEP_SECONDS = 3600.0
BREATH_SECONDS = 0.05
"""Pause after each user, so that many who change at once leave the machine to their captures."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
"""The model is left alone after a failure, twice as long after each further one, up to this."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a model wrote about a profile as it stood at a time (µs)."""

    text: str
    time: int


class Summaries:
    """Writes and reads summaries; does neither without a model. Belongs to one event loop."""

    def __init__(
        self,
        record: Record,
        writer: Writer[Ledger],
        model: LanguageModel | None,
        every_signals: int,
        serve: Callable[[str | None], AbstractContextManager[Space]],
    ) -> None:
        self._record = record
        self._writer = writer
        self._model = model
        self._every = every_signals
        self._serve = serve
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def find(self, user_id: str, space: Space, view: ProfileView) -> Summary | None:
        """A user's summary, None where there is none that still holds for this profile of theirs."""
        if self._model is None:
            return None
        return await asyncio.to_thread(self._find, user_id, space.key, view)

    def note(self, changes: Iterable[Change]) -> None:
        """Have an eye on profiles that were just committed."""
        if self._model is not None:
            for change in changes:
                if change.signal_count >= self._every:
                    self._wait_for(change.user_id)

    async def run(self) -> None:
        """Write what is due, as long as the server runs. Without a model: drop what an earlier one wrote."""
        if self._model is None:
            await self._writer.submit(_drop_all)
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep())
            tasks.create_task(self._write(self._model))

    async def close(self) -> None:
        """Let go of the model, once `run` has ended."""
        if self._model is not None:
            await self._model.close()

    # -- who is due ------------------------------------------------------------------------------------------

    def _wait_for(self, user_id: str) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting[user_id] = None
            self._arrived.set()

    async def _next(self) -> str:
        if len(self._waiting) < SWEEP_PAGE:
            self._room.set()
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popitem(last=False)[0]

    async def _sweep(self) -> None:
        while True:
            after = -1
            try:
                while page := await asyncio.to_thread(self._changed, self._live_space(), after):
                    after = page[-1][0]
                    for _, user_id in page:
                        self._wait_for(user_id)
                    self._room.clear()
                    await self._room.wait()
            except Exception:
                log.exception("summaries.sweep_failed")
            await asyncio.sleep(SWEEP_SECONDS)

    def _live_space(self) -> int:
        with self._serve(None) as live:
            return live.key

    def _changed(self, space: int, after: int) -> Sequence[tuple[int, str]]:
        """Keys and ids of the next users, by key, whose profile is another one than their summary was made of."""
        other = [table.c.user_key.is_(None), table.c.space != space, table.c.version != users.c.version]
        query = (
            sa.select(users.c.key, users.c.user_id)
            .outerjoin(table, table.c.user_key == users.c.key)
            .where(users.c.key > after, users.c.signal_count >= self._every, sa.or_(*other))
            .order_by(users.c.key)
            .limit(SWEEP_PAGE)
        )
        with self._record.read() as connection:
            return [(row.key, row.user_id) for row in connection.execute(query)]

    # -- writing ---------------------------------------------------------------------------------------------

    async def _write(self, model: LanguageModel) -> None:
        failures = 0
        while True:
            user_id = await self._next()
            try:
                asked = await self._refresh(user_id, model)
            except Exception as error:
                failures += 1
                pause = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 16), LONGEST_PAUSE_SECONDS)
                if isinstance(error, ModelFailed):
                    pause = max(pause, error.retry_after)
                    tell = log.warning if failures == 1 else log.debug
                    tell("summaries.failed", why=str(error), failures=failures)
                else:
                    log.exception("summaries.failed", failures=failures)
                if not (isinstance(error, ModelFailed) and error.lasting):
                    self._wait_for(user_id)
                await asyncio.sleep(pause)
                continue
            if asked and failures:
                log.info("summaries.resumed", failures=failures)
                failures = 0
            await asyncio.sleep(BREATH_SECONDS)

    async def _refresh(self, user_id: str, model: LanguageModel) -> bool:
        """Write a user's summary if it is due; tells whether the model had to be asked."""
        with self._serve(user_id) as space:
            due = await asyncio.to_thread(self._due, space, user_id)
            if due is None:
                return False
            stored, steering_count = due
            labels = dict(zip((i.id for i in stored.view.interests), await space.labels(stored.view), strict=True))
        chosen = spoken_of(stored.view)
        told = facts(chosen, [labels[interest.id] for interest in chosen])
        text = kept_of(await model.complete(instructions(stored.view), told)) if told else ""
        values = {
            "space": space.key,
            "version": stored.version,
            "signal_count": stored.signal_count,
            "steering_count": steering_count,
            "interests": json.dumps([interest.id for interest in chosen]),
            "time": stored.view.as_of,
            "text": text,
        }
        await self._writer.submit(lambda ledger: _put(ledger, stored.key, values))
        return bool(told)

    def _due(self, space: Space, user_id: str) -> tuple[Stored, int] | None:
        """The profile to summarise, with the number of steerings that it surely knows of; None where all is well."""
        with self._record.read() as connection:
            row = _row(connection, user_id)
        stored = space.profiles.find(user_id)
        if row is None or stored is None or stored.signal_count < self._every:
            return None
        top = {interest.id for interest in spoken_of(stored.view)[:TOP]}
        fresh = row.text is not None and _holds(row, space.key, stored.view) and top <= set(json.loads(row.interests))
        if fresh and stored.signal_count < row.signal_count + self._every:
            return None
        return stored, row.steerings

    # -- reading ---------------------------------------------------------------------------------------------

    def _find(self, user_id: str, space: int, view: ProfileView) -> Summary | None:
        with self._record.read() as connection:
            row = _row(connection, user_id)
        return Summary(row.text, row.time) if row is not None and row.text and _holds(row, space, view) else None


def _row(connection: Connection, user_id: str) -> sa.Row[Any] | None:
    """A user's summary, its columns null where there is none, and how often the user was steered."""
    steered = sa.select(sa.func.count()).where(steerings.c.user_key == users.c.key).scalar_subquery()
    query = (
        sa.select(table, steered.label("steerings"))
        .select_from(users.outerjoin(table, table.c.user_key == users.c.key))
        .where(users.c.user_id == user_id)
    )
    return connection.execute(query).first()


def _holds(row: sa.Row[Any], space: int, view: ProfileView) -> bool:
    """Tell whether all that a summary speaks of is still so, and the user has said nothing since."""
    liked = {interest.id for interest in view.interests if is_liked(interest)}
    return bool(
        row.space == space and row.steering_count == row.steerings and liked.issuperset(json.loads(row.interests))
    )


def _put(ledger: Ledger, user_key: int, values: dict[str, Any]) -> Callable[[], None]:
    # The user may have been erased, or merged into another, while the model wrote.
    known = sa.select(users.c.key).where(users.c.key == user_key)
    if ledger.connection.execute(known).first() is not None:
        statement = insert(table).values(user_key=user_key, **values)
        ledger.connection.execute(statement.on_conflict_do_update(index_elements=["user_key"], set_=values))
    return nothing


def _drop_all(ledger: Ledger) -> Callable[[], None]:
    ledger.connection.execute(table.delete())
    return nothing
