"""The relay: carries committed changes from the record's outbox into the vector index.

It writes the current state of whatever changed, and advances its cursor only after the index has
answered: doing a step twice does no harm. A rebuild fills a new generation beside the live one, catches
up with what was committed meanwhile, and switches by one write to the record. Each embedding space has a
relay and generations of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np
import sqlalchemy as sa
import structlog

from penchant_pipelines.errors import Unavailable
from penchant_pipelines.index import generations
from penchant_pipelines.index.base import Generation, Hit, IndexStore, IndexUnavailable, Vectors
from penchant_pipelines.index.generations import Taken
from penchant_pipelines.interests import Blender, Profile, pack
from penchant_pipelines.jobs import Progress, no_progress
from penchant_pipelines.record import Record, Writer, rows, schema
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.rows import Vector
from penchant_pipelines.record.users import ITEM, USER
from penchant_pipelines.tasks import to_the_end

log = structlog.get_logger(__name__)

STEP = 500
"""Outbox rows that one step takes."""
PROFILES_STEP = 100
"""Users that one transaction of a rebuild takes; their profiles may have to be written."""
STILL = 0.995
"""An interest whose centroid keeps this cosine to its indexed vector is not written again."""
RETRY_SECONDS = 5.0
TIDY_SECONDS = 30.0
"""Pause between attempts to remove what nobody follows any more, or to replace what is worn."""
LEAST_DELETED = 1000
"""Vectors that may be deleted from an index, however few it holds, before it is built anew."""


class Relay:
    """Keeps the live generation in step with the record. One task writes; all else only reads."""

    def __init__(
        self,
        record: Record,
        writer: Writer[Ledger],
        store: IndexStore,
        space: int,
        blender: Blender,
        on_lost: Callable[[], None],
    ) -> None:
        self._record = record
        self._writer = writer
        self._store = store
        self._space = space
        self._blender = blender
        self._calibration = blender.calibration
        self._recipe = f"{blender.recipe.digest} {store.recipe}".strip()
        self._dimensions = len(blender.calibration.middle)
        self._on_lost = on_lost
        self._wake = asyncio.Event()
        self._stepping = asyncio.Lock()
        self._rebuilding = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._told: list[Progress] = []
        """Of all who wait for a rebuild."""
        self._littered = asyncio.Event()
        self._worn = asyncio.Event()
        self._closed = False
        # Of its own: queries that hang would take the threads of all else.
        self._asking = ThreadPoolExecutor(thread_name_prefix="index-query")
        self._failed: Generation | None = None
        self.live: Generation | None = None
        """The generation that answers queries; None while there is none that can be trusted."""

    async def start(self) -> bool:
        """Open the live generation and begin to follow the outbox. False: it must be rebuilt.

        One whose files hold vectors of erased users, or whose interests another recipe made, is not opened again.
        """
        async with self._rebuilding:
            name = await asyncio.to_thread(self._live_name)
            if name is not None:
                try:
                    if name not in await asyncio.to_thread(self._store.names):
                        raise IndexUnavailable("the index that the record names is gone")
                    generation = await asyncio.to_thread(self._store.open, name, self._dimensions)
                    if await asyncio.to_thread(self._is_sound, generation):
                        self.live = generation
                        # A rebuild that was cut off may have left one.
                        await self._tidy()
                except IndexUnavailable as error:
                    log.warning("index.unavailable", generation=name, error=str(error))
        following = asyncio.create_task(self._follow(), name="index-relay")
        self._tasks = [
            following,
            asyncio.create_task(self._keep_tidy(), name="index-tidy"),
            asyncio.create_task(self._replace_worn(), name="index-replace"),
        ]
        return self.live is not None

    async def close(self) -> None:
        """Stop following, and break off a rebuild; what is in the outbox waits for the next start."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        async with self._rebuilding, self._stepping:
            self.live = None
        self._asking.shutdown(wait=False)

    def holds_erased(self) -> bool:
        """Tell whether files of a generation hold vectors of erased users: deleted from it, they stay there; blocks."""
        with self._record.read() as connection:
            return generations.holds_erased(connection, self._space)

    def wake(self) -> None:
        """Say that the outbox has grown."""
        self._wake.set()

    async def query(self, kind: Literal["items", "interests"], targets: Vectors, limit: int) -> list[list[Hit]] | None:
        """Ask the live generation for what is nearest to (n, d) unit vectors; None where none can answer.

        Interests are compared as seen from the middle of the space: so are their `Hit.similarity`.
        """
        if kind == "interests":
            targets = self._calibration.seen(targets)
        loop = asyncio.get_running_loop()
        while (generation := self.live) is not None:
            try:
                return await loop.run_in_executor(self._asking, self._ask, generation, kind, targets, limit)
            except IndexUnavailable as error:
                self._lose(generation, error)
        return None

    def _ask(
        self, generation: Generation, kind: Literal["items", "interests"], targets: Vectors, limit: int
    ) -> list[list[Hit]]:
        if self._failed is generation:  # while this waited for a thread
            raise IndexUnavailable("it failed just now")
        index = generation.items if kind == "items" else generation.interests
        try:
            return index.query(targets, limit)
        except IndexUnavailable:
            self._failed = generation
            raise

    def _lose(self, generation: Generation, error: IndexUnavailable) -> None:
        """Take a generation that failed out of service, unless a rebuild has replaced it meanwhile."""
        if self.live is generation:
            log.warning("index.lost", generation=generation.name, error=str(error))
            self.live = None
            self._on_lost()

    def lag(self) -> int:
        """Count outbox rows that the live generation has yet to take; blocks."""
        with self._record.read() as connection:
            return generations.lag(connection, self._space)

    async def rebuild(self, progress: Progress) -> None:
        """Build a new generation from the record beside the live one, and switch to it; nothing once this is closed.

        Who comes while one is being built is told of its progress, and needs no other where it succeeds.
        """
        before = self.live
        self._told.append(progress)
        try:
            async with self._rebuilding:
                if not self._closed and (self.live is before or self.live is None):
                    await self._rebuild()
        finally:
            self._told.remove(progress)

    async def _rebuild(self) -> None:
        name, begun = f"g-{secrets.token_hex(6)}", time.monotonic()
        try:
            await self._writer.submit(lambda ledger: generations.begin(ledger, name, self._space, self._recipe))
            generation = await asyncio.to_thread(self._store.open, name, self._dimensions)
            await self._fill(generation)
            while await self._step(generation) == STEP:
                pass
            await to_the_end(self._switch(generation))
            log.info("index.built", generation=name, seconds=round(time.monotonic() - begun, 1))
        except IndexUnavailable:
            if not self._closed:
                raise
        finally:
            # Whatever became of it, one generation is left over.
            await to_the_end(self._tidy())

    async def _report(self, done: int, total: int) -> None:
        """Tell whoever waits for a rebuild how far it is. Raises IndexUnavailable once nobody wants it any more."""
        if self._closed:
            raise IndexUnavailable("the relay is closed")
        for progress in list(self._told):
            await progress(done, total)

    async def _switch(self, generation: Generation) -> None:
        """Let a generation answer from now on, once it is near the present: the rest comes by the outbox as ever."""
        async with self._stepping:
            while await self._step_unlocked(generation) == STEP:
                pass
            await self._writer.submit(lambda ledger: generations.switch(ledger, self._space, generation.name))
            self.live = generation
        self.wake()

    async def audit(self) -> bool:
        """Tell whether the live generation holds what the record says, and finds a sample of it."""
        # What is being written at this moment is in the one and not yet in the other.
        async with self._stepping:
            return self.live is not None and await asyncio.to_thread(self._is_sound, self.live)

    async def drop_unknown(self) -> None:
        """Remove generations that the record does not know, of whichever space, from disk. Raises IndexUnavailable."""
        # In this order: one that another space begins in between is not taken for nobody's.
        names = await asyncio.to_thread(self._store.names)
        known = await asyncio.to_thread(self._known)
        for name in names:
            if name not in known:
                await asyncio.to_thread(self._store.drop, name)

    def tidy_later(self) -> None:
        """Say that something is left that could not be removed."""
        self._littered.set()

    async def _tidy(self) -> None:
        """Remove generations that are not live, while none is being built; what fails is tried again later.

        The record comes first: it keeps the outbox for each generation that it knows.
        """
        try:
            await self._writer.submit(lambda ledger: generations.forget(ledger, self._space, but_live=True))
            await self.drop_unknown()
        except Exception as error:
            expected = isinstance(error, IndexUnavailable | Unavailable)
            log.warning("index.not_tidied", error=str(error), exc_info=not expected)
            self.tidy_later()

    async def _keep_tidy(self) -> None:
        while True:
            await self._littered.wait()
            await asyncio.sleep(TIDY_SECONDS)
            async with self._rebuilding:
                self._littered.clear()
                await self._tidy()

    async def _replace_worn(self) -> None:
        while True:
            await self._worn.wait()
            self._worn.clear()
            try:
                if self.live is not None and await asyncio.to_thread(self._is_worn, self.live):
                    await self.rebuild(no_progress)
            except Exception as error:
                expected = isinstance(error, IndexUnavailable | Unavailable)
                log.warning("index.not_replaced", error=str(error), exc_info=not expected)
                await asyncio.sleep(TIDY_SECONDS)

    def _is_worn(self, generation: Generation) -> bool:
        """Tell whether more was deleted from a generation than it holds: a write and a query go over that, too."""
        with self._record.read() as connection:
            deleted = generations.deleted(connection, generation.name)
        held = zip(deleted, (generation.items, generation.interests), strict=True)
        return any(gone > LEAST_DELETED and gone > index.count() for gone, index in held)

    async def _follow(self) -> None:
        idle = False
        while True:
            generation = self.live
            try:
                if generation is not None:
                    while await self._step(generation):  # noqa: ASYNC110 - a pace, not a wait
                        # Rows of the same user that arrive in the meantime are taken together.
                        await asyncio.sleep(0.02)
                    if idle:
                        await self._look_after(generation)
            except IndexUnavailable as error:
                if generation is not None:
                    self._lose(generation, error)
            except Exception as error:
                if not isinstance(error, Unavailable):  # that the record can't be written is told by its writer
                    log.exception("index.relay_failed")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._wake.wait()
            idle = not self._wake.is_set()
            self._wake.clear()

    async def _look_after(self, generation: Generation) -> None:
        """Find out that the index is away, or came back with other data, though nobody asks it.

        Raises IndexUnavailable.
        """
        if not await asyncio.to_thread(self._is_complete, generation):
            raise IndexUnavailable("the index holds something else than was written into it")

    async def _step(self, generation: Generation) -> int:
        async with self._stepping:
            return await self._step_unlocked(generation)

    async def _step_unlocked(self, generation: Generation) -> int:
        """Bring one batch of outbox rows into a generation; returns how many rows it took."""
        entries = await asyncio.to_thread(self._read_outbox, generation.name)
        if not entries:
            return 0
        cursor = entries[-1].seq
        item_ids = list(dict.fromkeys(entry.key for entry in entries if entry.kind == ITEM))
        user_keys = list(dict.fromkeys(int(entry.key) for entry in entries if entry.kind == USER))
        gone = await asyncio.to_thread(self._write_items, generation, item_ids)
        taken = await asyncio.to_thread(self._write_interests, generation, user_keys)
        await self._writer.submit(lambda ledger: generations.advance(ledger, generation.name, cursor, taken, gone))
        if (gone or taken.gone) and await asyncio.to_thread(self._is_worn, generation):
            self._worn.set()
        return len(entries)

    def _read_outbox(self, generation: str) -> Sequence[sa.Row[int, str, str]]:
        with self._record.read() as connection:
            return generations.yet_to_take(connection, generation, STEP)

    def _write_items(self, generation: Generation, ids: list[str]) -> int:
        """Write items that are there, delete the others; tells how many those are."""
        if not ids:
            return 0
        with self._record.read() as connection:
            found = rows.vectors_of_items(connection, self._space, ids)
        if found:
            generation.items.upsert(list(found), np.stack(list(found.values())))
        gone = [item_id for item_id in ids if item_id not in found]
        if gone:
            generation.items.delete(gone)
        return len(gone)

    def _write_interests(self, generation: Generation, user_keys: list[int]) -> Taken:
        """Write interests that moved, delete those that went."""
        written: dict[tuple[int, str], Vector] = {}
        gone: list[tuple[int, str]] = []
        remade: dict[int, bytes] = {}
        with self._record.read() as connection:
            for key in user_keys:
                indexed = generations.interests_held(connection, generation.name, key)
                profile, recipe = self._profile(connection, key)
                if recipe not in (None, self._blender.recipe.digest):
                    remade[key] = pack(profile)
                wanted = self._findable(profile)
                for interest_id, vector in wanted.items():
                    held = indexed.get(interest_id)
                    if held is None or float(held @ vector) < STILL:
                        written[key, interest_id] = vector
                gone += [(key, interest_id) for interest_id in indexed if interest_id not in wanted]
        if gone:
            generation.interests.delete([interest_key(*pair) for pair in gone])
        if written:
            generation.interests.upsert([interest_key(*pair) for pair in written], np.stack(list(written.values())))
        return Taken(written, gone, remade)

    def _profile(self, connection: sa.Connection, user_key: int) -> tuple[Profile, str | None]:
        """A user's profile, and by which recipe it is stored, if it is."""
        table = schema.profiles
        query = sa.select(table.c.recipe, table.c.profile)
        row = connection.execute(query.where(table.c.user_key == user_key, table.c.space == self._space)).first()
        recipe, packed = (None, None) if row is None else (row.recipe, row.profile)
        return rows.user_profile(connection, self._space, self._blender, user_key, recipe, packed), recipe

    def _findable(self, profile: Profile) -> dict[str, Vector]:
        """Interests by which a user may be found, liked and not muted; as seen from the middle."""
        found = {
            interest.id: interest.centroid
            for interest in profile.interests
            if interest.sign > 0 and not (interest.steering and interest.steering.muted)
        }
        if not found:
            return {}
        return dict(zip(found, self._calibration.seen(np.stack(list(found.values()))), strict=True))

    async def _fill(self, generation: Generation) -> None:
        item_ids, user_keys = await asyncio.to_thread(self._everything)
        total, done = len(item_ids) + len(user_keys), 0
        await self._report(0, total)
        for start in range(0, len(item_ids), STEP):
            chunk = item_ids[start : start + STEP]
            await asyncio.to_thread(self._write_items, generation, chunk)
            done += len(chunk)
            await self._report(done, total)
        for start in range(0, len(user_keys), PROFILES_STEP):
            keys = user_keys[start : start + PROFILES_STEP]
            taken = await asyncio.to_thread(self._write_interests, generation, keys)
            await self._writer.submit(partial(self._note, generation=generation.name, taken=taken))
            done += len(keys)
            await self._report(done, total)

    def _note(self, ledger: Ledger, generation: str, taken: Taken) -> Callable[[], None]:
        """Keep the books, and the profiles that were made anew: a read would make them again each time."""
        table, recipe = schema.profiles, self._blender.recipe.digest
        for key, packed in taken.remade.items():
            # Whoever wrote meanwhile has a newer one.
            theirs = (table.c.user_key == key) & (table.c.space == self._space) & (table.c.recipe != recipe)
            ledger.connection.execute(table.update().where(theirs).values(recipe=recipe, profile=packed))
        return generations.advance(ledger, generation, None, taken)

    def _everything(self) -> tuple[list[str], list[int]]:
        """Ids of all items with a vector, and keys of all users."""
        held = schema.item_vectors
        with self._record.read() as connection:
            mine = sa.select(held.c.item_id).where(held.c.space == self._space)
            item_ids = connection.execute(mine).scalars().all()
            return list(item_ids), list(connection.execute(sa.select(schema.users.c.key)).scalars())

    def _live_name(self) -> str | None:
        with self._record.read() as connection:
            return generations.live_name(connection, self._space, self._recipe)

    def _known(self) -> set[str]:
        with self._record.read() as connection:
            return generations.names(connection)

    def _is_sound(self, generation: Generation) -> bool:
        """Audit: the index holds what the record says it took, and finds a sample of it by vector."""
        if not self._is_complete(generation):
            return False
        items = schema.item_vectors
        with self._record.read() as connection:
            mine = items.c.space == self._space
            query = sa.select(items.c.vector).where(mine).order_by(sa.func.random()).limit(8)
            sample = [np.frombuffer(blob, dtype=np.float32) for blob in connection.execute(query).scalars()]
        if not sample or self.lag():
            return True
        hits = generation.items.query(np.stack(sample), 1)
        # Another item may have the very same text: it is the similarity that must be 1. A graph misses one at times.
        missed = sum(not found or found[0].similarity < 0.99 for found in hits)
        if missed > len(hits) / 2:
            log.warning("index.audit_failed", missed=missed, asked=len(hits))
        return missed <= len(hits) / 2

    def _is_complete(self, generation: Generation) -> bool:
        """Tell whether the index holds as many items and interests as the record says it took, if it took all."""
        if self.lag():
            return True
        items, indexed = schema.item_vectors, schema.indexed_interests
        counted = ((items, items.c.space == self._space), (indexed, indexed.c.generation == generation.name))
        with self._record.read() as connection:
            expected = tuple(
                connection.execute(sa.select(sa.func.count()).select_from(table).where(those)).scalar_one()
                for table, those in counted
            )
        found = generation.items.count(), generation.interests.count()
        # What was written in between makes no damage.
        if found == expected or self.lag():
            return True
        log.warning("index.audit_failed", found=found, expected=expected)
        return False


def interest_key(user_key: int, interest_id: str) -> str:
    """Id of an interest in the index."""
    return f"{user_key}:{interest_id}"
