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
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import Action, Item
from penchant_pipelines.recommend.crowd import CROWD_HALF_LIVES_DAYS, Crowd, Favour, Texts
from penchant_pipelines.recommend.voices import Voices
from penchant_pipelines.recommend.words import Words
from penchant_pipelines.record import Record, rows, schema
from penchant_pipelines.record.commit import Commit, Touched
from penchant_pipelines.record.rows import Vector
from penchant_pipelines.tasks import to_the_end

POPULARITY_HALF_LIFE_DAYS = 30.0
_POPULARITY = CROWD_HALF_LIVES_DAYS.index(POPULARITY_HALF_LIFE_DAYS)
MOST_POSTS = 200_000
"""Posts about items, the latest, whose vectors are read at once."""

_Favour = tuple[str, int, int, float]
"""Item id, user key, event time (µs), mass above 0."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An item and the row of its vector."""

    item: Item
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
        """By space, for those that have begun to `listen`: from then on each post is heard as it comes."""
        self.version = 0
        """Grows with every change of an item."""
        self._ids: list[str | None] = []
        self._categories: defaultdict[str, set[int]] = defaultdict(set)
        self._free: list[int] = []
        self._applied = 0
        """Number of the last signal that was read or came with a commit."""
        self._spread: tuple[int, int, NDArray[np.intp]] | None = None
        self._keeping_up = asyncio.Lock()
        self._listening = asyncio.Lock()
        self._reset: dict[int, set[int]] = {}
        """By space, while `listen` reads: rows of `voices` that were reset since."""
        self.due: set[str] = set()
        """Items that wait for `count_again`."""
        self._erased: set[str] = set()
        """Those among them that an erased user's signals named."""
        self._counting = asyncio.Lock()
        self._meanwhile: list[Touched] = []
        """What came in since `count_again` began to read."""
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
        catalog.count(record)
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
        self.entries[item.id] = Entry(item, row)
        self._ids[row] = item.id
        for space, vector in vectors.items():
            self.embed(space, item.id, vector)
        self.created[row] = item.create_time or 0
        self.visible[row] = not item.hidden
        self._language[row] = language[:8]
        self.words.put(row, words)

    def delete(self, item_ids: Iterable[str]) -> None:
        """Remove items; unknown ids are fine."""
        gone = [self.entries.pop(item_id) for item_id in item_ids if item_id in self.entries]
        if not gone:
            return
        self.version += 1
        for entry in gone:
            self._uncategorise(entry)
            self._ids[entry.row] = None
            self.words.drop(entry.row)
            self.visible[entry.row] = False
            for vectors in self.vectors.values():
                vectors[entry.row] = 0.0
        # All at once: each time goes over all favours.
        rows_gone = np.array([entry.row for entry in gone])
        self.crowd.clear(rows_gone)
        self._reset_voices(rows_gone, self.voices)
        self._free += [entry.row for entry in gone]

    def of_category(self, name: str) -> set[int]:
        """Rows of the items that have a category of this name, in lower case."""
        return self._categories.get(name, set())

    def _uncategorise(self, entry: Entry) -> None:
        for name in map(str.casefold, entry.item.categories):
            self._categories[name].discard(entry.row)
            if not self._categories[name]:
                del self._categories[name]

    def apply(self, commit: Commit) -> None:
        """Follow a committed transaction; what it asks to be counted again waits for `count_again`."""
        # The newest may have been erased: what comes after it has a higher number all the same.
        self._applied = max(self._applied, commit.last_signal)
        for space, item_id, vector in commit.embedded:
            self.embed(space, item_id, vector)
        for item, language, vectors, words in commit.upserted:
            if item.id not in self.entries:
                # It may have been here before, and its popularity with it.
                self.due.add(item.id)
            self.upsert(item, language, vectors, words)
        self.delete(commit.deleted_items)
        self.due |= commit.recount
        self._erased |= commit.erased
        self._take(commit.touched)
        if self._counting.locked():
            self._meanwhile += commit.touched

    def count(self, record: Record) -> None:
        """Count from the record who favoured what, and what was said of it; blocks."""
        with record.read() as connection:
            self._applied = connection.execute(sa.select(sa.func.max(schema.signals.c.seq))).scalar() or 0
        for chunk in self._read_favours(record, None, self._applied):
            self.crowd.add(self._placed(chunk))

    async def count_again(self, record: Record) -> None:
        """Count anew what is due: items whose signals were undone or erased, or came before the item.

        The record is read in a thread, up to the last commit applied; what comes in meanwhile is taken in on top. What
        becomes due meanwhile is left to the next time.
        """
        async with self._counting:
            if self.due:
                items, self.due = self.due, set()
                erased, self._erased = self._erased, set()
                spaces, last_signal = list(self.voices), self._applied
                self._meanwhile = []
                try:
                    favours, said = await asyncio.to_thread(self._read_again, record, items, spaces, last_signal)
                except BaseException:
                    self.due |= items
                    self._erased |= erased
                    raise
                if erased:
                    self.crowd.clear(self._rows_of(erased), erased=True)
                rows_held = self._rows_of(items)
                self.crowd.recount(rows_held, self._placed(favours))
                self._reset_voices(rows_held, spaces)
                for space, sums in said.items():
                    for item_id, vector in sums.items():
                        self._add_voice(space, item_id, vector)
                self._take([each for each in self._meanwhile if each[0] in items], spaces)

    def _read_again(
        self, record: Record, items: set[str], spaces: Sequence[int], last_signal: int
    ) -> tuple[list[_Favour], dict[int, dict[str, Vector]]]:
        wanted = sorted(items)
        favours = [favour for chunk in self._read_favours(record, wanted, last_signal) for favour in chunk]
        return favours, {space: self._read_posts(record, space, last_signal, wanted) for space in spaces}

    def _read_favours(self, record: Record, items: Sequence[str] | None, last_signal: int) -> Iterator[list[_Favour]]:
        """Favours of some items or all, whether they are in the catalogue or not, up to a signal; in any thread."""
        signals = schema.signals
        query = (
            sa.select(*rows.EVIDENCE_COLUMNS, signals.c.user_key)
            .where(signals.c.item_id != "", rows.STANDING, signals.c.seq <= last_signal)
            .order_by(signals.c.seq)
            .execution_options(yield_per=10_000)
        )
        with record.read() as connection:
            for part in _parts(query, items):
                for chunk in connection.execute(part).partitions():
                    yield self._favours((row.item_id, row.user_key, rows.to_evidence(row)) for row in chunk)

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
            vectors = {} if evidence.vector is None else {space: evidence.vector}
            self._take([(evidence.item_id, user, evidence, vectors)])

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
        """Keep what posts say of items in a space; comes back once what they said before has been read."""
        if space not in self.voices or space in self._reset:
            # Who gives up waiting must not make those that come after begin anew.
            await to_the_end(self._listen(record, space))

    async def _listen(self, record: Record, space: int) -> None:
        async with self._listening:
            if space in self.voices or space not in self.vectors:
                return
            self.voices[space] = Voices(self.vectors[space])
            reset = self._reset[space] = set()
            try:
                said = await asyncio.to_thread(self._read_posts, record, space, self._applied)
            except BaseException:
                self.voices.pop(space, None)
                raise
            finally:
                del self._reset[space]
            for item_id, vector in said.items():
                # What was reset has been counted anew, or is to be; and its row may be another item's.
                if item_id in self.entries and self.entries[item_id].row not in reset:
                    self._add_voice(space, item_id, vector)

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

    def _rows_of(self, items: Iterable[str]) -> NDArray[np.int64]:
        return np.array([self.entries[item_id].row for item_id in items if item_id in self.entries], dtype=np.int64)

    def _reset_voices(self, rows_held: NDArray[np.int64], spaces: Iterable[int]) -> None:
        """Forget what was said in some spaces of the items in these rows."""
        for space in spaces:
            if space in self.voices:
                self.voices[space].reset(rows_held, self.vectors[space][rows_held])
                if space in self._reset:
                    self._reset[space].update(rows_held.tolist())

    def _take(self, touched: Sequence[Touched], spaces: Iterable[int] | None = None) -> None:
        """Take in signals on items: who favours them, and what posts say of them in some spaces or all."""
        told = ((item_id, user, evidence) for item_id, user, evidence, _ in touched)
        self.crowd.add(self._placed(self._favours(told)))
        for item_id, _, evidence, vectors in touched:
            if evidence.action is None and weighing(evidence, self._settings).weight > 0:
                for space in vectors if spaces is None else vectors.keys() & spaces:
                    self._add_voice(space, item_id, vectors[space])

    def _add_voice(self, space: int, item_id: str, vector: Vector) -> None:
        if space in self.voices and item_id in self.entries:
            self.voices[space].add(self.entries[item_id].row, vector)

    def _read_posts(
        self, record: Record, space: int, last_signal: int, items: Sequence[str] | None = None
    ) -> dict[str, Vector]:
        """Sums of the favourable posts' vectors by item, whether it is in the catalogue or not; in any thread."""
        signals, vectors = schema.signals, schema.signal_vectors
        query = (
            sa.select(*rows.EVIDENCE_COLUMNS, vectors.c.vector)
            .join(vectors, (vectors.c.seq == signals.c.seq) & (vectors.c.space == space))
            .where(
                signals.c.item_id != "",
                signals.c.action.is_(None),
                vectors.c.vector.is_not(None),
                signals.c.seq <= last_signal,
            )
            .order_by(signals.c.seq.desc())
            .limit(MOST_POSTS)
            .execution_options(yield_per=1000)
        )
        sums: dict[str, Vector] = {}
        with record.read() as connection:
            for part in _parts(query, items):
                for row in connection.execute(part):
                    if weighing(rows.to_evidence(row), self._settings).weight > 0:
                        vector = np.frombuffer(row.vector, dtype=np.float32)
                        sums[row.item_id] = sums[row.item_id] + vector if row.item_id in sums else vector
        return sums

    def _favours(self, signals: Iterable[tuple[str, int, Evidence]]) -> list[_Favour]:
        """What of signals on items (item, user's key, evidence) favours them."""
        weighed = (
            (item_id, user, evidence.time, weighing(evidence, self._settings).weight)
            for item_id, user, evidence in signals
            if evidence.action is not Action.UNDO
        )
        return [favour for favour in weighed if favour[3] > 0]

    def _placed(self, favours: Iterable[_Favour]) -> list[Favour]:
        """Favours of the items that are in the catalogue, by their rows."""
        return [
            (user, self.entries[item_id].row, time, mass)
            for item_id, user, time, mass in favours
            if item_id in self.entries
        ]

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


def _parts(query: sa.Select[Any], items: Sequence[str] | None) -> Iterator[sa.Select[Any]]:
    """A query of signals, of those on some items, a part of them each, or all."""
    if items is None:
        yield query
        return
    for start in range(0, len(items), 500):
        yield query.where(schema.signals.c.item_id.in_(items[start : start + 500]))
