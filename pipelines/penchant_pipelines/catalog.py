"""The catalogue in memory: items with their vectors and what the crowd makes of them.

A mirror of the record for ranking and filters, changed only after a commit, on the event loop. Costs
about 2 KB an item at 384 dimensions, 1.5 KB more for each further embedding space, and as much again for what
people wrote about it where that is used.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection

from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import Action, Item
from penchant_pipelines.recommend.crowd import CROWD_HALF_LIVES_DAYS, Crowd, Texts
from penchant_pipelines.recommend.voices import Voices
from penchant_pipelines.recommend.words import Words
from penchant_pipelines.record import Record, rows, schema
from penchant_pipelines.record.commit import Commit
from penchant_pipelines.record.rows import Vector

POPULARITY_HALF_LIFE_DAYS = 30.0
_POPULARITY = CROWD_HALF_LIVES_DAYS.index(POPULARITY_HALF_LIFE_DAYS)
MOST_POSTS = 200_000
"""Posts about items, the latest, whose vectors are read at once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An item and the row of its vector."""

    item: Item
    language: str
    row: int


class Catalog:
    """Items by id, vectors by space and row. Not thread-safe: the event loop alone changes it."""

    def __init__(self, dimensions: Mapping[int, int], settings: InterestSettings) -> None:
        self._settings = settings
        self.entries: dict[str, Entry] = {}
        self.vectors: dict[int, NDArray[np.float32]] = {}
        """(rows, d) float32 by the key of the space; zeros for what a space that is being built lacks."""
        self.created: NDArray[np.int64] = np.zeros(1024, dtype=np.int64)
        """Creation time in µs by row, 0 where unknown."""
        self.visible: NDArray[np.bool_] = np.zeros(1024, dtype=bool)
        """Rows that hold an item that may be recommended."""
        self._language: NDArray[np.str_] = np.zeros(1024, dtype="<U8")
        self.crowd = Crowd()
        self.words = Words()
        self.voices: dict[int, Voices] = {}
        """By space, for those that have begun to `listen`."""
        self.version = 0
        """Grows with every change of an item."""
        self._ids: list[str | None] = []
        self._categories: defaultdict[str, set[int]] = defaultdict(set)
        self._free: list[int] = []
        self._applied: int | None = None
        """Number of the last signal of the commits applied; None before the first."""
        self._spread: tuple[int, int, NDArray[np.intp]] | None = None
        self._keeping_up = asyncio.Lock()
        self._listening = asyncio.Lock()
        self._overheard: dict[int, list[tuple[str, Vector]]] = {}
        """By space: what is said of items while `listen` reads."""
        self._forgotten = 0
        """How often favours and posts were forgotten."""
        for space, length in dimensions.items():
            self.add_space(space, length)

    def __len__(self) -> int:
        """Count the items."""
        return len(self.entries)

    @classmethod
    def load(cls, record: Record, dimensions: Mapping[int, int], settings: InterestSettings) -> Catalog:
        """Read all items, their vectors in these spaces (by dimensions), and what was done with them; blocks."""
        catalog = cls(dimensions, settings)
        held = schema.item_vectors
        with record.read() as connection:
            for row in connection.execute(sa.select(schema.items).order_by(schema.items.c.id)):
                catalog.upsert(rows.to_item(row), row.language, {}, rows.words_of_item(row))
            for row in connection.execute(sa.select(held).where(held.c.space.in_(dimensions))):
                catalog.embed(row.space, row.item_id, np.frombuffer(row.vector, dtype=np.float32))
        catalog.recount(record)
        return catalog

    def add_space(self, space: int, dimensions: int) -> None:
        """Make room for vectors of a further space."""
        self.vectors[space] = np.zeros((len(self.created), dimensions), dtype=np.float32)

    def drop_space(self, space: int) -> None:
        """Forget the vectors of a space."""
        self.vectors.pop(space, None)
        self.voices.pop(space, None)
        self.crowd.drop_space(space)

    def embed(self, space: int, item_id: str, vector: Vector) -> None:
        """Set the vector of an item in one space, if both are there."""
        if item_id in self.entries and space in self.vectors:
            row = self.entries[item_id].row
            if space in self.voices:
                self.voices[space].add(row, vector - self.vectors[space][row])
            self.vectors[space][row] = vector

    def upsert(self, item: Item, language: str, vectors: Mapping[int, Vector], words: Sequence[str] = ()) -> None:
        """Add or replace an item; its popularity stays."""
        self.version += 1
        known = self.entries.get(item.id)
        row = known.row if known else self._new_row()
        if known is not None:
            self._uncategorise(known)
        for name in item.categories:
            self._categories[name.casefold()].add(row)
        self.entries[item.id] = Entry(item, language, row)
        self._ids[row] = item.id
        for space, vector in vectors.items():
            self.embed(space, item.id, vector)
        self.created[row] = item.create_time or 0
        self.visible[row] = not item.hidden
        self._language[row] = language[:8]
        self.words.put(row, words)

    def delete(self, item_id: str) -> None:
        """Remove an item; unknown ids are fine."""
        entry = self.entries.pop(item_id, None)
        if entry is not None:
            self.version += 1
            self._uncategorise(entry)
            self._ids[entry.row] = None
            self.words.drop(entry.row)
            self.visible[entry.row] = False
            for vectors in self.vectors.values():
                vectors[entry.row] = 0.0
            self._forget(np.array([entry.row]))
            self._free.append(entry.row)

    def of_category(self, name: str) -> set[int]:
        """Rows of the items that have a category of this name, in lower case."""
        return self._categories.get(name, set())

    def _uncategorise(self, entry: Entry) -> None:
        for name in map(str.casefold, entry.item.categories):
            self._categories[name].discard(entry.row)
            if not self._categories[name]:
                del self._categories[name]

    def apply(self, commit: Commit) -> None:
        """Follow a committed transaction, all but its recounts."""
        self._applied = commit.last_signal or self._applied
        for space, item_id, vector in commit.embedded:
            self.embed(space, item_id, vector)
        for item, language, vectors, words in commit.upserted:
            if item.id not in self.entries:
                # It may have been here before, and its popularity with it.
                commit.recount.add(item.id)
            self.upsert(item, language, vectors, words)
        for item_id in commit.deleted_items:
            self.delete(item_id)
        for item_id, user, evidence, vectors in commit.touched:
            self._count(item_id, user, evidence)
            if evidence.action is None:
                for space, vector in vectors.items():
                    self._hear(space, item_id, evidence, vector)

    def recount(self, record: Record, item_ids: Iterable[str] | None = None, last_signal: int | None = None) -> None:
        """Count anew from the record who favoured some items or all, and what was said of them; blocks.

        Signals after the last one named are left out: the record may have gone on, and their commits are
        to come.
        """
        signals = schema.signals
        wanted = None if item_ids is None else list(item_ids)
        query = sa.select(*rows.EVIDENCE_COLUMNS, signals.c.user_key).where(
            signals.c.item_id != "", sa.not_(signals.c.undone)
        )
        if last_signal is not None:
            query = query.where(signals.c.seq <= last_signal)
        with record.read() as connection:
            chunks = [None] if wanted is None else [wanted[i : i + 500] for i in range(0, len(wanted), 500)]
            for chunk in chunks:
                known = self.entries if chunk is None else [item_id for item_id in chunk if item_id in self.entries]
                self._forget(np.array([self.entries[item_id].row for item_id in known], dtype=np.int64))
                part = query if chunk is None else query.where(signals.c.item_id.in_(chunk))
                for row in connection.execute(part.order_by(signals.c.seq)):
                    self._count(row.item_id, row.user_key, rows.to_evidence(row))
                for space in self.voices:
                    self._hear_again(connection, space, chunk, last_signal)

    def unheard(self, space: int) -> Catalog:
        """Make one with the same items, in one space, that has heard of no signal yet: for a replay in a thread."""
        found = Catalog({}, self._settings)
        found.entries = dict(self.entries)
        found.vectors = {space: self.vectors[space]}
        found.created, found.visible = self.created.copy(), self.visible.copy()
        found.version = self.version
        found._language = self._language
        found._ids = list(self._ids)
        found.words = self.words.copy()
        found.voices = {space: Voices(self.vectors[space])}
        return found

    def witness(self, user: int, evidence: Evidence, space: int) -> None:
        """Take in a signal (by the user's key) with its vector in a space, as `apply` does with committed ones."""
        if evidence.item_id:
            self._count(evidence.item_id, user, evidence)
            if evidence.action is None and evidence.vector is not None:
                self._hear(space, evidence.item_id, evidence, evidence.vector)

    def texts(self, space: int) -> Texts:
        """The items' vectors in a space, as they are."""
        return Texts(space, self.vectors[space])

    async def keep_up(self, space: int) -> None:
        """Weigh words and gather what people have in common anew where that is due in a space, in a thread.

        Whoever comes meanwhile is served with what there was; who comes while there is nothing waits.
        """
        if self._keeping_up.locked() and self.words.is_ready and self.crowd.is_ready(space):
            return
        async with self._keeping_up:
            # Both are begun at once: from here on nobody does it on the loop.
            weigh = self.words.begin() if self.words.is_due else None
            gather = self.crowd.begin(self.texts(space)) if self.crowd.is_due(space) else None
            weighed = gathered = None
            try:
                weighed = await asyncio.to_thread(weigh) if weigh else None
                gathered = await asyncio.to_thread(gather) if gather else None
            finally:
                if weigh:
                    self.words.finish(weighed)
                if gather:
                    self.crowd.finish(gathered)

    async def listen(self, record: Record, space: int) -> None:
        """Begin to keep what posts say of items in a space."""
        async with self._listening:
            while space not in self.voices and space in self.vectors:
                # Commits that are yet to be applied bring their own.
                last_signal, forgotten = self._applied, self._forgotten
                overheard = self._overheard[space] = []
                try:
                    said = await asyncio.to_thread(self._read_posts, record, space, last_signal)
                finally:
                    del self._overheard[space]
                # What was forgotten meanwhile may have been read.
                if forgotten == self._forgotten and space in self.vectors:
                    self.voices[space] = Voices(self.vectors[space])
                    for item_id, vector in (*said.items(), *overheard):
                        if item_id in self.entries:
                            self.voices[space].add(self.entries[item_id].row, vector)

    def popularity(self, rows_wanted: Sequence[int] | NDArray[np.intp], as_of: int) -> NDArray[np.float64]:
        """Decayed positive mass of what users did with the items in these rows, at a time (µs)."""
        return self.crowd.mass(np.asarray(rows_wanted, dtype=np.intp), _POPULARITY, as_of)

    def most_popular(self, limit: int, language: str = "", within: NDArray[np.intp] | None = None) -> list[str]:
        """Ids of visible items by popularity, then newest, then row; those in the language first.

        `within` names the rows to choose from.
        """
        chosen = np.flatnonzero(self.visible) if within is None else within[self.visible[within]]
        foreign = self._language[chosen] != language if language else np.zeros(len(chosen), dtype=bool)
        crowd = self.popularity(chosen, self.crowd.landmark)
        order = np.lexsort((chosen, -self.created[chosen], -crowd, foreign))[:limit]
        return [self.id_at(row) for row in chosen[order]]

    def id_at(self, row: int) -> str:
        """Id of the item in a row that holds one."""
        item_id = self._ids[row]
        assert item_id is not None  # noqa: S101 - callers take rows from entries or `visible`
        return item_id

    @property
    def size(self) -> int:
        """Count the rows, those of deleted items too."""
        return len(self._ids)

    def spread(self, count: int) -> NDArray[np.intp]:
        """Rows of up to `count` visible items, evenly spaced."""
        if self._spread is None or self._spread[:2] != (self.version, count):
            rows_held = np.flatnonzero(self.visible)
            chosen = np.linspace(0, len(rows_held) - 1, min(count, len(rows_held))).astype(np.intp)
            self._spread = (self.version, count, rows_held[chosen])
        return self._spread[2]

    def _forget(self, rows_held: NDArray[np.int64]) -> None:
        self._forgotten += 1
        self.crowd.clear(rows_held)
        for space, voices in self.voices.items():
            voices.reset(rows_held, self.vectors[space][rows_held])

    def _hear(self, space: int, item_id: str, evidence: Evidence, vector: Vector) -> None:
        entry = self.entries.get(item_id)
        if entry is None or weighing(evidence, self._settings).weight <= 0:
            return
        if space in self.voices:
            self.voices[space].add(entry.row, vector)
        elif space in self._overheard:
            self._overheard[space].append((item_id, vector))

    def _hear_again(
        self, connection: Connection, space: int, item_ids: Sequence[str] | None, last_signal: int | None
    ) -> None:
        for item_id, evidence, vector in _posts(connection, space, item_ids, last_signal):
            self._hear(space, item_id, evidence, vector)

    def _read_posts(self, record: Record, space: int, last_signal: int | None) -> dict[str, Vector]:
        """Sums of the favourable posts' vectors by item, whether it is in the catalogue or not; in any thread."""
        sums: dict[str, Vector] = {}
        with record.read() as connection:
            for item_id, evidence, vector in _posts(connection, space, None, last_signal):
                if weighing(evidence, self._settings).weight > 0:
                    sums[item_id] = sums[item_id] + vector if item_id in sums else vector
        return sums

    def _count(self, item_id: str, user: int, evidence: Evidence) -> None:
        entry = self.entries.get(item_id)
        if entry is None or evidence.action is Action.UNDO:
            return
        weight = weighing(evidence, self._settings).weight
        if weight > 0:
            self.crowd.add(user, entry.row, evidence.time, weight)

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        row = len(self._ids)
        if row == len(self.created):
            for name in ("created", "visible", "_language"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
            for space, vectors in self.vectors.items():
                self.vectors[space] = np.concatenate([vectors, np.zeros_like(vectors)])
            for voices in self.voices.values():
                voices.grow()
        self._ids.append(None)
        return row


def _posts(
    connection: Connection, space: int, item_ids: Sequence[str] | None, last_signal: int | None
) -> Iterator[tuple[str, Evidence, Vector]]:
    """The latest posts about items, of some or all, up to a signal, with their vectors in a space."""
    signals, vectors = schema.signals, schema.signal_vectors
    query = (
        sa.select(*rows.EVIDENCE_COLUMNS, vectors.c.vector)
        .join(vectors, (vectors.c.seq == signals.c.seq) & (vectors.c.space == space))
        .where(signals.c.item_id != "", signals.c.action.is_(None), vectors.c.vector.is_not(None))
        .order_by(signals.c.seq.desc())
        .limit(MOST_POSTS)
        .execution_options(yield_per=1000)
    )
    if item_ids is not None:
        query = query.where(signals.c.item_id.in_(item_ids))
    if last_signal is not None:
        query = query.where(signals.c.seq <= last_signal)
    for row in connection.execute(query):
        yield row.item_id, rows.to_evidence(row), np.frombuffer(row.vector, dtype=np.float32)
