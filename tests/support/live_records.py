"""A record in a folder as tests write it, and a catalogue that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from penchant_pipelines.catalog import Keeper
from penchant_pipelines.completion import Completion
from penchant_pipelines.interests import Blender, Calibration, InterestSettings, Recipe
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal
from penchant_pipelines.record import Record, Writer, schema
from penchant_pipelines.record.commit import Commit
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.reading import Reading
from penchant_pipelines.record.users import ProfileCache

DIMENSIONS = 4
SPACE = 1
NOW = 20_000 * MICROS_PER_DAY


def axis(index: int) -> NDArray[np.float32]:
    """A unit vector; those of indices that differ by a multiple of the dimensions are the same."""
    row: NDArray[np.float32] = np.eye(DIMENSIONS, dtype=np.float32)[index % DIMENSIONS]
    return row


@dataclass(eq=False)
class KeptSpace:
    """A space of the record."""

    key: int
    space_id: str
    blender: Blender
    keeps_profiles: bool = True


class Live:
    """A record, and a catalogue that follows it when told to. Signals are a microsecond apart unless dated."""

    def __init__(self, folder: Path) -> None:
        self.record = Record(folder)
        self.keeper = Keeper.load(self.record, {SPACE: DIMENSIONS}, InterestSettings())
        self.catalog = self.keeper.catalog
        self.catalog.listen(SPACE)
        self.commits: list[Commit] = []
        self.blender = Blender(Recipe(InterestSettings(), Calibration(0.5, np.zeros(DIMENSIONS, np.float32)), "space"))
        space = KeptSpace(SPACE, "space", self.blender)
        self.spaces = [space]
        cache: ProfileCache = ProfileCache(maxsize=10)
        numbers = self.record.numbers()
        self.writer: Writer[Ledger] = Writer(
            self.record.engine,
            lambda connection: Ledger(
                connection, self.spaces, lambda _: space, cache, b"s", numbers, self.commits.append
            ),
        )
        self.completion = Completion(self.record, self.writer)
        self.number = 0
        self._users: set[int] = set()
        """Keys of all users that a check has met, gone ones too."""

    async def act(
        self, action: Action, item_id: str = "film", user: str = "ann", time: int | None = None, surface: str = ""
    ) -> None:
        """Do something with an item, somewhere."""
        await self._capture(user, Behavior(item_id, action), Reading(), time, {"surface": surface} if surface else {})

    async def write(
        self, vector: NDArray[np.float32], item_id: str = "film", user: str = "ann", time: int | None = None
    ) -> None:
        """Write a post about an item, with this vector."""
        await self._capture(user, Post("words", item_id=item_id), Reading({SPACE: vector}, "en"), time)

    async def upsert(self, item: Item | str = "film", vector: NDArray[np.float32] | None = None) -> None:
        """Add an item, or change it."""
        added = Item(item) if isinstance(item, str) else item
        await self.put(added, Reading({SPACE: axis(0) if vector is None else vector}, "en", words=("word", added.id)))

    async def put(self, item: Item, reading: Reading) -> None:
        """The same, by what was read of it; signals that waited for it are completed."""
        await self.writer.submit(lambda ledger: ledger.upsert_items([(item, reading)]))
        self.completion.note([item.id])
        await self.completion.complete()

    async def delete(self, item_id: str = "film") -> None:
        """Delete an item."""
        await self.writer.submit(lambda ledger: ledger.delete_items([item_id]))

    async def close(self) -> None:
        """Close the record in good order."""
        await self.writer.close()
        self.record.close()

    async def follow(self) -> None:
        """Let the catalogue catch up with the commits."""
        for commit in self.commits:
            self.keeper.apply(commit)
            await self.keeper.count_again()
        self.commits.clear()

    async def check(self) -> None:
        """Check that following the commits gave what reading the record anew gives."""
        keeper = Keeper.load(self.record, {SPACE: DIMENSIONS}, InterestSettings())
        await keeper.listen(SPACE)
        found, anew = self.catalog, keeper.catalog
        assert found.entries.keys() == anew.entries.keys()
        held, held_anew = ([it.entries[name].row for name in anew.entries] for it in (found, anew))
        crowd, crowd_anew = (
            it.crowd.popularity.of_all(it.size, NOW)[:, rows] for it, rows in ((found, held), (anew, held_anew))
        )
        np.testing.assert_allclose(crowd, crowd_anew, rtol=1e-9)
        voices, voices_anew = (it.voices[SPACE].sums[rows] for it, rows in ((found, held), (anew, held_anew)))
        np.testing.assert_allclose(voices, voices_anew, atol=1e-5)
        with self.record.read() as connection:
            self._users.update(connection.execute(sa.select(schema.users.c.key)).scalars())
        for user in self._users:
            own, own_anew = ({it.id_at(row) for row in it.crowd.own(user, NOW).rows} for it in (found, anew))
            assert own == own_anew

    async def _capture(
        self,
        user: str,
        evidence: Post | Behavior,
        reading: Reading,
        time: int | None,
        context: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.number += 1
        when = NOW + self.number if time is None else time
        signal = Signal(f"s{self.number:05}", user, evidence, when, context)
        await self.writer.submit(lambda ledger: ledger.capture(signal, when, reading))
