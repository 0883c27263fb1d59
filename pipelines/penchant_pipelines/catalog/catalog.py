"""The catalogue in memory: items with their vectors and what the crowd makes of them.

A mirror of the record for ranking and filters; a `Keeper` keeps it in step. Costs about 2 KB an item at 384
dimensions, 1.5 KB more for each further embedding space, and as much again for what people wrote about it where that is
used.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.catalog.crowd import Crowd, Favour, Texts
from penchant_pipelines.catalog.feedback import ItemFavour, favours, speaks_for
from penchant_pipelines.catalog.popularity import HALF_LIVES_DAYS
from penchant_pipelines.catalog.voices import Voices
from penchant_pipelines.catalog.words import Words
from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.terms import plain
from penchant_pipelines.model import Item
from penchant_pipelines.record.commit import Touched
from penchant_pipelines.record.rows import Vector

POPULARITY_HALF_LIFE_DAYS = 30.0
_POPULARITY = HALF_LIVES_DAYS.index(POPULARITY_HALF_LIFE_DAYS)


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
        self.changed: NDArray[np.int64] = np.zeros(1024, dtype=np.int64)
        """Version of the last change by row."""
        self._numbers: NDArray[np.uint64] = np.zeros(1024, dtype=np.uint64)
        """Each follows from the id of the item in a row alone."""
        self._language: NDArray[np.str_] = np.zeros(1024, dtype="<U8")
        self.crowd = Crowd()
        self.words = Words()
        self.voices: dict[int, Voices] = {}
        """By space, for those where what posts say is kept: there each post is heard as it comes."""
        self.version = 0
        """Grows with every change of an item."""
        self._ids: list[str | None] = []
        self._categories: defaultdict[str, set[int]] = defaultdict(set)
        self._free: list[int] = []
        self._spread: tuple[int, int, NDArray[np.intp]] | None = None
        for space, length in dimensions.items():
            self.add_space(space, length)

    def __len__(self) -> int:
        """Count the items."""
        return len(self.entries)

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
            self._categories[plain(name)].add(row)
        self.entries[item.id] = Entry(item, row)
        self._numbers[row] = _number(item.id)
        self._ids[row] = item.id
        for space, vector in vectors.items():
            self.embed(space, item.id, vector)
        self.created[row] = item.create_time or 0
        self.visible[row] = not item.hidden
        self.changed[row] = self.version
        self._language[row] = language[:8]
        self.words.put(row, words)

    def delete(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """Remove items; unknown ids are fine. Tells the rows that they had: (n,)."""
        gone = [self.entries.pop(item_id) for item_id in item_ids if item_id in self.entries]
        rows_gone = np.array([entry.row for entry in gone], dtype=np.int64)
        if not gone:
            return rows_gone
        self.version += 1
        for entry in gone:
            self._uncategorise(entry)
            self._ids[entry.row] = None
            self.words.drop(entry.row)
            self.visible[entry.row] = False
            self.changed[entry.row] = self.version
            for vectors in self.vectors.values():
                vectors[entry.row] = 0.0
        # All at once: each time goes over all favours.
        self.crowd.clear(rows_gone)
        self.reset_voices(rows_gone, self.voices)
        self._free += [entry.row for entry in gone]
        return rows_gone

    def of_category(self, name: str) -> set[int]:
        """Rows of the items that have a category of this name."""
        return self._categories.get(plain(name), set())

    def _uncategorise(self, entry: Entry) -> None:
        for name in map(plain, entry.item.categories):
            self._categories[name].discard(entry.row)
            if not self._categories[name]:
                del self._categories[name]

    def unheard(self, space: int) -> Catalog:
        """Make one with the same items, in one space, that has heard of no signal yet: for a replay in a thread.

        There it has to `listen` before it witnesses anything: that takes too long for the event loop.
        """
        found = Catalog({}, self._settings)
        found.entries = dict(self.entries)
        found.vectors = {space: self.vectors[space]}
        found.created, found.visible, found.changed = self.created.copy(), self.visible.copy(), self.changed.copy()
        found.version = self.version
        found._numbers, found._language = self._numbers, self._language
        found._ids = list(self._ids)
        found.words = self.words.copy()
        return found

    def listen(self, space: int) -> None:
        """Keep what posts say of items in a space from now on."""
        self.voices[space] = Voices.of(self.vectors[space])

    def witness(self, user: int, evidence: Evidence, space: int) -> None:
        """Take in a signal (by the user's key) with its vector in a space, as `take` does with committed ones."""
        if evidence.item_id:
            vectors = {} if evidence.vector is None else {space: evidence.vector}
            self.take([(evidence.item_id, user, evidence, vectors)])

    def texts(self, space: int) -> Texts:
        """The items' vectors in a space, as they are."""
        own, voices = self.vectors[space][: self.size], self.voices.get(space)
        return Texts(space, own, own if voices is None else voices.sums[: self.size])

    def popularity(self, rows_wanted: Sequence[int] | NDArray[np.intp], as_of: int) -> NDArray[np.float64]:
        """Decayed mass of those who took to the items in these rows, everybody once, at a time (µs): (n,)."""
        return self.crowd.popularity.of(np.asarray(rows_wanted, dtype=np.intp), _POPULARITY, as_of)

    def most_popular(self, limit: int, language: str = "", within: NDArray[np.intp] | None = None) -> list[str]:
        """Ids of visible items by popularity, then newest, then in an order of their ids; those in the language first.

        `within` names the rows to choose from.
        """
        chosen = np.flatnonzero(self.visible) if within is None else within[self.visible[within]]
        foreign = self._language[chosen] != language if language else np.zeros(len(chosen), dtype=bool)
        crowd = self.popularity(chosen, self.crowd.popularity.landmark)
        keys = foreign.astype(np.int8), -crowd, -self.created[chosen], self._numbers[chosen]
        foremost = _foremost(keys, limit)
        order = foremost[np.lexsort([key[foremost] for key in reversed(keys)])][:limit]
        return [self.id_at(row) for row in chosen[order]]

    def shuffled(self, rows_held: NDArray[np.intp], seed: str) -> NDArray[np.uint64]:
        """A number for each of the items in some rows (n,), by its id and a seed alone, whatever else is there.

        Mixed as the last step of SplitMix64 does (Steele, Lea & Flood 2014).
        """
        mixed = self._numbers[rows_held] ^ np.uint64(_number(seed))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return mixed ^ (mixed >> np.uint64(31))

    def id_at(self, row: int) -> str:
        """Id of the item in a row that holds one."""
        item_id = self._ids[row]
        assert item_id is not None  # noqa: S101 - callers take rows from entries or `visible`
        return item_id

    def item_at(self, row: int) -> Item | None:
        """The item in a row, None where there is none; to a thread it may be one that has just left the row."""
        entry = self.entries.get(self._ids[row] or "")
        return None if entry is None else entry.item

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

    def rows_of(self, items: Iterable[str]) -> NDArray[np.int64]:
        """Rows of the items that are in the catalogue."""
        return np.array([self.entries[item_id].row for item_id in items if item_id in self.entries], dtype=np.int64)

    def reset_voices(self, rows_held: NDArray[np.int64], spaces: Iterable[int]) -> None:
        """Forget what was said in some spaces of the items in these rows."""
        for space in spaces:
            if space in self.voices:
                self.voices[space].reset(rows_held, self.vectors[space][rows_held])

    def take(self, touched: Sequence[Touched], spaces: Iterable[int] | None = None) -> None:
        """Take in signals on items: who favours them, and what posts say of them in some spaces or all."""
        told = ((item_id, user, evidence) for item_id, user, evidence, _ in touched)
        self.crowd.add(self.placed(favours(told, self._settings)))
        for item_id, user, evidence, vectors in touched:
            if speaks_for(evidence, self._settings):
                for space in vectors if spaces is None else vectors.keys() & spaces:
                    self.hear(space, item_id, {user}, vectors[space])

    def hear(self, space: int, item_id: str, users: Set[int], vector: Vector) -> bool:
        """Take in as `Voices.hear` does what users said of an item, where that is kept and the item is there."""
        if space in self.voices and item_id in self.entries:
            return self.voices[space].hear(self.entries[item_id].row, users, vector)
        return True

    def placed(self, of_items: Iterable[ItemFavour]) -> list[Favour]:
        """Favours of the items that are in the catalogue, by their rows."""
        return [
            (user, self.entries[item_id].row, time, mass)
            for item_id, user, time, mass in of_items
            if item_id in self.entries
        ]

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        row = len(self._ids)
        if row == len(self.created):
            for name in ("created", "visible", "changed", "_numbers", "_language"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
            for space, vectors in self.vectors.items():
                self.vectors[space] = np.concatenate([vectors, np.zeros_like(vectors)])
            for voices in self.voices.values():
                voices.grow()
        self._ids.append(None)
        return row


def _number(text: str) -> int:
    """64 bits that follow from a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _foremost(keys: Sequence[NDArray[Any]], count: int) -> NDArray[np.intp]:
    """Places of the first so many by keys (n,), the first of which counts most; in no order, and some more.

    Ordering all of a large catalogue takes five times as long.
    """
    found: list[NDArray[np.intp]] = []
    ties = np.arange(len(keys[0]))
    for key in keys:
        wanted = count - sum(len(sure) for sure in found)
        if len(ties) <= wanted:
            break
        values = key[ties]
        last = np.partition(values, wanted - 1)[wanted - 1]
        found.append(ties[values < last])
        ties = ties[values == last]
    return np.concatenate([*found, ties])
