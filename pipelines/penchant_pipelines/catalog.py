"""The catalogue in memory: items with their vectors and what the crowd makes of them.

A mirror of the record for ranking and filters, changed only after a commit, on the event loop. Costs
about 2 KB an item at 384 dimensions, and 1.5 KB more for each further embedding space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import MICROS_PER_DAY, Action, Item
from penchant_pipelines.record import Record, rows, schema
from penchant_pipelines.record.ledger import Commit
from penchant_pipelines.record.rows import Vector

POPULARITY_HALF_LIFE_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """An item and the row of its vector."""

    item: Item
    language: str
    row: int


class Catalog:
    """Items by id, vectors by space and row. Not thread-safe: the event loop alone changes it."""

    def __init__(self, dimensions: Mapping[int, int], settings: InterestSettings, landmark: int) -> None:
        self._settings = settings
        self._landmark = landmark
        self.entries: dict[str, Entry] = {}
        self.vectors: dict[int, NDArray[np.float32]] = {}
        """(rows, d) float32 by the key of the space; zeros for what a space that is being built lacks."""
        self.created: NDArray[np.int64] = np.zeros(1024, dtype=np.int64)
        """Creation time in µs by row, 0 where unknown."""
        self.visible: NDArray[np.bool_] = np.zeros(1024, dtype=bool)
        """Rows that hold an item that may be recommended."""
        self._language: NDArray[np.str_] = np.zeros(1024, dtype="<U8")
        self._crowd: NDArray[np.float64] = np.zeros(1024)
        self.version = 0
        """Grows with every change of an item."""
        self._ids: list[str | None] = []
        self._free: list[int] = []
        for space, length in dimensions.items():
            self.add_space(space, length)

    def __len__(self) -> int:
        """Count the items."""
        return len(self.entries)

    @classmethod
    def load(cls, record: Record, dimensions: Mapping[int, int], settings: InterestSettings, landmark: int) -> Catalog:
        """Read all items, their vectors in these spaces (by dimensions), and what was done with them; blocks."""
        catalog = cls(dimensions, settings, landmark)
        held = schema.item_vectors
        with record.read() as connection:
            for row in connection.execute(sa.select(schema.items).order_by(schema.items.c.id)):
                catalog.upsert(rows.to_item(row), row.language, {})
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

    def embed(self, space: int, item_id: str, vector: Vector) -> None:
        """Set the vector of an item in one space, if both are there."""
        if item_id in self.entries and space in self.vectors:
            self.vectors[space][self.entries[item_id].row] = vector

    def upsert(self, item: Item, language: str, vectors: Mapping[int, Vector]) -> None:
        """Add or replace an item; its popularity stays."""
        self.version += 1
        known = self.entries.get(item.id)
        row = known.row if known else self._new_row()
        self.entries[item.id] = Entry(item, language, row)
        self._ids[row] = item.id
        for space, vector in vectors.items():
            self.embed(space, item.id, vector)
        self.created[row] = item.create_time or 0
        self.visible[row] = not item.hidden
        self._language[row] = language[:8]

    def delete(self, item_id: str) -> None:
        """Remove an item; unknown ids are fine."""
        entry = self.entries.pop(item_id, None)
        if entry is not None:
            self.version += 1
            self._ids[entry.row] = None
            self._crowd[entry.row] = 0.0
            self.visible[entry.row] = False
            for vectors in self.vectors.values():
                vectors[entry.row] = 0.0
            self._free.append(entry.row)

    def apply(self, commit: Commit) -> None:
        """Follow a committed transaction, all but its recounts."""
        for space, item_id, vector in commit.embedded:
            self.embed(space, item_id, vector)
        for item, language, vectors in commit.upserted:
            if item.id not in self.entries:
                # It may have been here before, and its popularity with it.
                commit.recount.add(item.id)
            self.upsert(item, language, vectors)
        for item_id in commit.deleted_items:
            self.delete(item_id)
        for item_id, _, evidence in commit.touched:
            self._count(item_id, evidence)

    def recount(self, record: Record, item_ids: Iterable[str] | None = None, last_signal: int | None = None) -> None:
        """Count popularity anew from the record, for some items or all; blocks.

        Signals after the last one named are left out: the record may have gone on, and their commits are
        to come.
        """
        signals = schema.signals
        wanted = None if item_ids is None else list(item_ids)
        query = sa.select(*rows.EVIDENCE_COLUMNS).where(signals.c.item_id != "", sa.not_(signals.c.undone))
        if last_signal is not None:
            query = query.where(signals.c.seq <= last_signal)
        with record.read() as connection:
            chunks = [None] if wanted is None else [wanted[i : i + 500] for i in range(0, len(wanted), 500)]
            for chunk in chunks:
                for item_id in self.entries if chunk is None else chunk:
                    if item_id in self.entries:
                        self._crowd[self.entries[item_id].row] = 0.0
                part = query if chunk is None else query.where(signals.c.item_id.in_(chunk))
                for row in connection.execute(part.order_by(signals.c.seq)):
                    self._count(row.item_id, rows.to_evidence(row))

    def popularity(self, rows_wanted: Sequence[int] | NDArray[np.intp], as_of: int) -> NDArray[np.float64]:
        """Decayed positive mass of what users did with the items in these rows, at a time (µs)."""
        faded: NDArray[np.float64] = self._crowd[rows_wanted] * 2.0 ** (
            -(as_of - self._landmark) / (POPULARITY_HALF_LIFE_DAYS * MICROS_PER_DAY)
        )
        return faded

    def most_popular(self, limit: int, language: str = "", within: NDArray[np.intp] | None = None) -> list[str]:
        """Ids of visible items by popularity, then newest, then row; those in the language first.

        `within` names the rows to choose from.
        """
        chosen = np.flatnonzero(self.visible) if within is None else within[self.visible[within]]
        foreign = self._language[chosen] != language if language else np.zeros(len(chosen), dtype=bool)
        order = np.lexsort((chosen, -self.created[chosen], -self._crowd[chosen], foreign))[:limit]
        return [self.id_at(row) for row in chosen[order]]

    def id_at(self, row: int) -> str:
        """Id of the item in a row that holds one."""
        item_id = self._ids[row]
        assert item_id is not None  # noqa: S101 - callers take rows from entries or `visible`
        return item_id

    def _count(self, item_id: str, evidence: Evidence) -> None:
        entry = self.entries.get(item_id)
        if entry is None or evidence.action is Action.UNDO:
            return
        weight = weighing(evidence, self._settings).weight
        if weight > 0:
            # Forward decay from one landmark: sums need no update as time passes. Exponents stay small,
            # since the half-life is a month and the landmark is the start of the process.
            self._crowd[entry.row] += weight * 2.0 ** (
                (evidence.time - self._landmark) / (POPULARITY_HALF_LIFE_DAYS * MICROS_PER_DAY)
            )

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        row = len(self._ids)
        if row == len(self.created):
            for name in ("created", "visible", "_language", "_crowd"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
            for space, vectors in self.vectors.items():
                self.vectors[space] = np.concatenate([vectors, np.zeros_like(vectors)])
        self._ids.append(None)
        return row
