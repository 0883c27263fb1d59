"""Bringing all that the record holds into a further embedding space, beside the live one.

From the moment that a space is kept, every write goes into it as well. What is left is a fixed backlog: the rows
that the space lacks. It is worked off in chunks, each encoded first and then written in one transaction if what
was encoded is still so. Nothing else is remembered, so an interruption costs no more than a chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from penchant_pipelines.interests import Blender, pack
from penchant_pipelines.jobs import Progress
from penchant_pipelines.record import nothing, rows, schema
from penchant_pipelines.record.carry import carried
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.reading import mean_direction
from penchant_pipelines.record.rows import Vector
from penchant_pipelines.spaces.space import Shared, Space
from penchant_pipelines.text import Document

CHUNK = 64
"""Rows that are encoded and written at once: few enough that the writer is held for milliseconds."""
PROFILES_CHUNK = 20
DROP_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Origin:
    """The space whose interests the users' words are about."""

    key: int
    blender: Blender


class Reembedding:
    """Fills one space. `run` may be broken off and called again at any time."""

    def __init__(self, space: Space, origin: Origin, shared: Shared, progress: Progress) -> None:
        self._space = space
        self._origin = origin
        self._shared = shared
        self._progress = progress
        self._done = self._total = 0

    async def run(self) -> None:
        """Bring items, signals and steering into the space, then make its profiles."""
        self._total = await asyncio.to_thread(self._count_all)
        self._done = self._total - await asyncio.to_thread(self._count_missing)
        await self._report(0)
        # Profiles from before an interruption don't know what was written since.
        await drop_rows(self._shared, self._space.key, schema.profiles)
        while not await self._shared.writer.submit(self._begin_profiles):
            for fill in (self._items, self._signals, self._steerings):
                await fill()
        await self._profiles()
        await self._report(self._total)

    # -- vectors ---------------------------------------------------------------------------------------------

    async def _items(self) -> None:
        items, held = schema.items, schema.item_vectors
        after = ""
        while found := await self._read(
            sa.select(items)
            .outerjoin(held, (held.c.item_id == items.c.id) & (held.c.space == self._space.key))
            .where(held.c.item_id.is_(None), items.c.id > after)
            .order_by(items.c.id)
            .limit(CHUNK)
        ):
            after = found[-1].id
            documents = await asyncio.to_thread(self._item_documents, found)
            vectors = await self._encode([document.text for document in documents])
            pairs = list(zip(found, vectors, strict=True))
            await self._shared.writer.submit(partial(self._put_items, pairs=pairs))
            await self._report(len(found))

    def _item_documents(self, found: Sequence[sa.Row[Any]]) -> list[Document]:
        return [self._shared.reader.item(rows.to_item(row)) for row in found]

    def _put_items(self, ledger: Ledger, pairs: Sequence[tuple[sa.Row[Any], Vector]]) -> Callable[[], None]:
        items, held = schema.items, schema.item_vectors
        for read, vector in pairs:
            present = ledger.connection.execute(sa.select(items).where(items.c.id == read.id)).first()
            there = (held.c.item_id == read.id) & (held.c.space == self._space.key)
            # Else it was deleted, or has changed and come into the space with that.
            if present == read and ledger.connection.execute(sa.select(held.c.item_id).where(there)).first() is None:
                ledger.embed_item(self._space.key, read.id, vector)
        return nothing

    async def _signals(self) -> None:
        signals, held = schema.signals, schema.signal_vectors
        subject, after = self._shared.reader.subject, 0
        while found := await self._read(
            sa.select(
                signals.c.seq,
                signals.c.text,
                signals.c.given_language,
                signals.c.item_id,
                signals.c.inferred_rating,
            )
            .outerjoin(held, (held.c.seq == signals.c.seq) & (held.c.space == self._space.key))
            .where(held.c.seq.is_(None), signals.c.seq > after)
            .order_by(signals.c.seq)
            .limit(CHUNK)
        ):
            after = found[-1].seq
            vectors = await self._encode_read(
                found, lambda row: subject(row.text, row.given_language, row.item_id, row.inferred_rating)
            )
            pairs = list(zip(found, vectors, strict=True))
            await self._shared.writer.submit(partial(self._put_signals, pairs=pairs))
            await self._report(len(found))

    def _put_signals(self, ledger: Ledger, pairs: Sequence[tuple[sa.Row[Any], Vector | None]]) -> Callable[[], None]:
        signals, held = schema.signals, schema.signal_vectors
        for read, own in pairs:
            query = sa.select(signals.c.awaits_item).where(signals.c.seq == read.seq)
            present = ledger.connection.execute(query).first()
            there = (held.c.seq == read.seq) & (held.c.space == self._space.key)
            if present is None or ledger.connection.execute(sa.select(held.c.seq).where(there)).first() is not None:
                continue
            vector = own
            if read.item_id and not present.awaits_item:
                item = rows.vectors_of_items(ledger.connection, self._space.key, [read.item_id]).get(read.item_id)
                if item is not None:
                    vector = item if own is None else mean_direction(own, item)
                elif rows.item_words(ledger.connection, read.item_id) is not None:
                    continue  # the item has yet to come; the next round finds both
                elif own is None:
                    # Nothing can be read here until the item comes back.
                    ledger.connection.execute(
                        signals.update().where(signals.c.seq == read.seq).values(awaits_item=True)
                    )
            ledger.connection.execute(
                held.insert().values(seq=read.seq, space=self._space.key, vector=rows.to_blob(vector))
            )
        return nothing

    async def _steerings(self) -> None:
        steerings, held = schema.steerings, schema.steering_vectors
        after = 0
        while found := await self._read(
            sa.select(steerings)
            .outerjoin(held, (held.c.seq == steerings.c.seq) & (held.c.space == self._space.key))
            .where(held.c.seq.is_(None), steerings.c.seq > after)
            .order_by(steerings.c.seq)
            .limit(CHUNK)
        ):
            after = found[-1].seq
            said = await self._encode_read(found, lambda row: self._shared.reader.document(row.topic, "", "topic"))
            vectors = [
                vector if vector is not None else await asyncio.to_thread(self._carried, row)
                for row, vector in zip(found, said, strict=True)
            ]
            pairs = list(zip(found, vectors, strict=True))
            await self._shared.writer.submit(partial(self._put_steerings, pairs=pairs))
            await self._report(len(found))

    def _put_steerings(self, ledger: Ledger, pairs: Sequence[tuple[sa.Row[Any], Vector | None]]) -> Callable[[], None]:
        steerings, held = schema.steerings, schema.steering_vectors
        for read, vector in pairs:
            present = ledger.connection.execute(sa.select(steerings).where(steerings.c.seq == read.seq)).first()
            there = (held.c.seq == read.seq) & (held.c.space == self._space.key)
            # A merge may have made it another user's meanwhile: the next round finds what it is about there.
            if present != read or ledger.connection.execute(sa.select(held.c.seq).where(there)).first() is not None:
                continue
            ledger.connection.execute(
                held.insert().values(seq=read.seq, space=self._space.key, vector=rows.to_blob(vector))
            )
        return nothing

    def _carried(self, word: sa.Row[Any]) -> Vector | None:
        """Where in the space a word about an interest belongs; None if nothing can tell. Replays a history."""
        held = schema.steering_vectors
        query = sa.select(held.c.vector).where(held.c.seq == word.seq, held.c.space == self._origin.key)
        with self._shared.record.read() as connection:
            known = rows.to_vector(connection.execute(query).scalar())
            if known is None:
                return None
            event = rows.to_steering(word, known)
            origin = self._origin
            return carried(connection, origin.key, origin.blender, self._space.key, word.user_key, event)

    async def _encode_read(
        self, found: Sequence[sa.Row[Any]], read: Callable[[sa.Row[Any]], Document]
    ) -> list[Vector | None]:
        """Read and encode the texts of rows; None where there is nothing to read."""
        documents = await asyncio.to_thread(lambda: [read(row) for row in found])
        vectors = iter(await self._encode([document.text for document in documents if document.text]))
        return [next(vectors) if document.text else None for document in documents]

    async def _encode(self, texts: Sequence[str]) -> Sequence[Vector]:
        # Past the queue and the cache that serve requests: a backlog must neither fill the one nor empty the other.
        return list(await asyncio.to_thread(self._space.encoder.encoder.encode, texts)) if texts else []

    # -- profiles --------------------------------------------------------------------------------------------

    def _begin_profiles(self, ledger: Ledger) -> Callable[[], bool]:
        """Let every write make profiles in this space too, once no vector is missing. False: some are."""
        complete = not self._missing_vectors(ledger.connection)
        # Here, between two transactions, and not later: no vector can be missing from now on.
        self._space.keeps_profiles = complete
        return lambda: complete

    async def _profiles(self) -> None:
        """Replay users one after another; those who do something meanwhile are taken by the writer."""
        users, held = schema.users, schema.profiles
        after = -1
        while found := await self._read(
            sa.select(users.c.key)
            .outerjoin(held, (held.c.user_key == users.c.key) & (held.c.space == self._space.key))
            .where(held.c.user_key.is_(None), users.c.key > after)
            .order_by(users.c.key)
            .limit(PROFILES_CHUNK)
        ):
            after = found[-1].key
            made = [await asyncio.to_thread(self._replayed, row.key) for row in found]
            ready = [entry for entry in made if entry is not None]
            await self._shared.writer.submit(partial(self._put_profiles, made=ready))
            await self._report(len(ready))

    def _replayed(self, user_key: int) -> tuple[int, int, bytes] | None:
        """Key, version and packed profile of a user; None if there is no such user any more."""
        with self._shared.record.read() as connection:
            query = sa.select(schema.users.c.version).where(schema.users.c.key == user_key)
            version = connection.execute(query).scalar()
            if version is None:
                return None
            events = rows.user_events(connection, self._space.key, user_key)
        return user_key, version, pack(self._space.blender.replay(events))

    def _put_profiles(self, ledger: Ledger, made: Sequence[tuple[int, int, bytes]]) -> Callable[[], None]:
        users, held = schema.users, schema.profiles
        for user_key, version, packed in made:
            there = (held.c.user_key == user_key) & (held.c.space == self._space.key)
            unchanged = (users.c.key == user_key) & (users.c.version == version)
            if (
                ledger.connection.execute(sa.select(users.c.key).where(unchanged)).first() is not None
                and ledger.connection.execute(sa.select(held.c.user_key).where(there)).first() is None
            ):
                ledger.users.put_profile(self._space, user_key, packed)
        return nothing

    # -- counting and reading ----------------------------------------------------------------------------------

    async def _report(self, more: int) -> None:
        """Tell how much is done; what came into the space by other ways while it was built makes the sum too small."""
        self._done = min(self._done + more, self._total)
        await self._progress(self._done, self._total)

    async def _read(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        def read() -> Sequence[sa.Row[Any]]:
            with self._shared.record.read() as connection:
                return connection.execute(query).all()

        return await asyncio.to_thread(read)

    def _count_all(self) -> int:
        with self._shared.record.read() as connection:
            return sum(
                int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
                for table in (schema.items, schema.signals, schema.steerings, schema.users)
            )

    def _count_missing(self) -> int:
        with self._shared.record.read() as connection:
            users = connection.execute(sa.select(sa.func.count()).select_from(schema.users)).scalar_one()
            return self._missing_vectors(connection) + int(users)

    def _missing_vectors(self, connection: sa.Connection) -> int:
        key = self._space.key
        return sum(
            int(
                connection.execute(
                    sa.select(sa.func.count())
                    .select_from(table.outerjoin(held, (theirs == mine) & (held.c.space == key)))
                    .where(theirs.is_(None))
                ).scalar_one()
            )
            for table, mine, held, theirs in (
                (schema.items, schema.items.c.id, schema.item_vectors, schema.item_vectors.c.item_id),
                (schema.signals, schema.signals.c.seq, schema.signal_vectors, schema.signal_vectors.c.seq),
                (schema.steerings, schema.steerings.c.seq, schema.steering_vectors, schema.steering_vectors.c.seq),
            )
        )


async def drop_rows(shared: Shared, space: int, *tables: sa.Table) -> None:
    """Delete a space's rows of these tables, a few in each transaction."""

    def read(query: sa.Select[Any]) -> Sequence[Any]:
        with shared.record.read() as connection:
            return connection.execute(query).scalars().all()

    def delete(ledger: Ledger, some: sa.Delete) -> Callable[[], None]:
        ledger.connection.execute(some)
        return nothing

    for table in tables:
        key = next(iter(table.primary_key.columns))
        left = mine = table.c.space == space
        while found := await asyncio.to_thread(read, sa.select(key).where(left).order_by(key).limit(DROP_CHUNK)):
            last = found[-1]
            await shared.writer.submit(partial(delete, some=table.delete().where(left, key <= last)))
            # From the beginning, all rows of other spaces would be gone over each time.
            left = mine & (key > last)
