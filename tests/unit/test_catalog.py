from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from penchant_pipelines.catalog import POPULARITY_HALF_LIFE_DAYS, Catalog
from penchant_pipelines.interests import Blender, Evidence, InterestSettings, Recipe
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Signal
from penchant_pipelines.record import Record, Writer
from penchant_pipelines.record.ledger import Commit, Ledger, ProfileCache, Reading

DIMENSIONS = 4
DAY = MICROS_PER_DAY
NOW = 20_000 * DAY


def axis(index: int) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.eye(DIMENSIONS, dtype=np.float32)[index % DIMENSIONS]
    return row


def catalog() -> Catalog:
    return Catalog({1: DIMENSIONS}, InterestSettings())


def like(item_id: str, time: int = NOW, action: Action = Action.LIKE) -> Commit:
    return Commit(touched=[(item_id, 1, Evidence("s", time, axis(0), action, item_id=item_id), {})])


def popularity(found: Catalog, as_of: int = NOW) -> dict[str, float]:
    return {name: float(found.popularity([entry.row], as_of)[0]) for name, entry in found.entries.items()}


def test_items_are_added_replaced_and_deleted() -> None:
    found = catalog()
    found.upsert(Item("a", create_time=5), "en", {1: axis(0)})
    found.upsert(Item("b", hidden=True), "zh", {1: axis(1)})
    found.apply(like("a"))
    before = found.version
    found.upsert(Item("a", title="new", create_time=6), "en", {1: axis(2)})
    assert found.version > before
    assert len(found) == 2
    row = found.entries["a"].row
    np.testing.assert_array_equal(found.vectors[1][row], axis(2))
    assert (found.created[row], found.visible[row], found.id_at(row)) == (6, True, "a")
    assert not found.visible[found.entries["b"].row]
    assert popularity(found)["a"] == 1
    found.delete("a")
    found.delete("absent")
    assert not found.visible[row]
    assert len(found) == 1
    found.upsert(Item("c"), "en", {1: axis(3)})
    assert found.entries["c"].row == row
    assert popularity(found)["c"] == 0


def test_it_grows_past_its_first_size() -> None:
    found = catalog()
    for number in range(2500):
        found.upsert(Item(f"i{number}", create_time=number + 1), "en", {1: axis(number)})
    assert len(found) == 2500
    assert found.visible.sum() == 2500
    for number in (0, 1023, 1024, 2047, 2048, 2499):
        row = found.entries[f"i{number}"].row
        assert found.created[row] == number + 1
        np.testing.assert_array_equal(found.vectors[1][row], axis(number))


def test_popularity_halves_and_counts_only_what_speaks_for_an_item() -> None:
    found = catalog()
    for name in ("a", "b"):
        found.upsert(Item(name), "en", {1: axis(0)})
    half_life = int(POPULARITY_HALF_LIFE_DAYS * DAY)
    found.apply(like("a", NOW - half_life))
    found.apply(like("b", NOW, Action.PURCHASE))
    for action in (Action.DISLIKE, Action.HIDE, Action.UNDO):
        found.apply(like("b", NOW, action))
    found.apply(like("absent"))
    assert popularity(found) == pytest.approx({"a": 0.5, "b": 1.5})
    assert popularity(found, NOW + half_life) == pytest.approx({"a": 0.25, "b": 0.75})


def test_the_most_popular_come_first_then_the_newest_and_the_own_language_before_all() -> None:
    found = catalog()
    for name, language, created in (("old", "en", 1), ("new", "en", 2), ("hit", "en", 1), ("片", "zh", 3)):
        found.upsert(Item(name, create_time=created), language, {1: axis(0)})
    found.upsert(Item("hidden", hidden=True), "en", {1: axis(0)})
    found.apply(like("hit"))
    found.apply(like("hidden"))
    assert found.most_popular(10) == ["hit", "片", "new", "old"]
    assert found.most_popular(2, "zh") == ["片", "hit"]
    within = np.array([found.entries[name].row for name in ("old", "hidden", "片")])
    assert found.most_popular(10, "en", within) == ["old", "片"]


@dataclass(eq=False)
class KeptSpace:
    key: int
    space_id: str
    blender: Blender
    keeps_profiles: bool = True


class Live:
    """A catalogue that follows a record."""

    def __init__(self, folder: Path) -> None:
        self.record = Record(folder)
        self.catalog = Catalog.load(self.record, {1: DIMENSIONS}, InterestSettings())
        self.commits: list[Commit] = []
        space = KeptSpace(1, "space", Blender(Recipe(InterestSettings(), 0.5, "space")))
        cache: ProfileCache = ProfileCache(maxsize=10)
        self.writer: Writer[Ledger] = Writer(
            self.record.engine,
            lambda connection: Ledger(connection, [space], lambda _: space, cache, b"s", self.commits.append),
        )
        self.number = 0

    async def act(self, action: Action, item_id: str = "film", user: str = "ann") -> None:
        self.number += 1
        signal = Signal(f"s{self.number}", user, Behavior(item_id, action), NOW + self.number)
        time = NOW + self.number
        await self.writer.submit(lambda ledger: ledger.capture(signal, time, Reading()))

    async def upsert(self, item_id: str = "film") -> None:
        await self.writer.submit(lambda ledger: ledger.upsert_items([(Item(item_id), Reading({1: axis(0)}, "en"))]))

    async def delete(self, item_id: str = "film") -> None:
        await self.writer.submit(lambda ledger: ledger.delete_items([item_id]))

    def follow(self) -> None:
        for commit in self.commits:
            self.catalog.apply(commit)
            if commit.recount:
                self.catalog.recount(self.record, commit.recount, commit.last_signal)
        self.commits.clear()

    def is_true(self) -> bool:
        """Whether following the commits gave what reading the record anew gives."""
        anew = Catalog.load(self.record, {1: DIMENSIONS}, InterestSettings())
        return popularity(self.catalog) == pytest.approx(popularity(anew))


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    found = Live(tmp_path)
    yield found
    await found.writer.close()
    found.record.close()


@pytest.mark.parametrize("promptly", [True, False])
async def test_following_commits_equals_reading_anew(live: Live, promptly: bool) -> None:
    async def step(change: object) -> None:
        await change  # type: ignore[misc]
        if promptly:
            live.follow()
            assert live.is_true()

    await step(live.act(Action.LIKE))
    await step(live.upsert())
    await step(live.act(Action.PURCHASE, user="bob"))
    await step(live.act(Action.SAVE))
    await step(live.act(Action.UNDO))
    await step(live.act(Action.LIKE, user="eve"))
    await step(live.delete())
    await step(live.act(Action.VIEW))
    await step(live.upsert())
    await step(live.writer.submit(lambda ledger: ledger.merge("bob", "ann")))
    await step(live.writer.submit(lambda ledger: ledger.erase("eve", NOW)))
    await step(live.act(Action.CLICK))
    await step(live.delete())
    await step(live.upsert())
    live.follow()
    assert live.is_true()
    assert popularity(live.catalog)["film"] > 2


async def test_a_recount_that_comes_late_counts_nothing_twice(live: Live) -> None:
    await live.upsert()
    await live.act(Action.LIKE)
    await live.act(Action.UNDO)
    # The record has gone on by the time that the recount is made.
    await asyncio.gather(*(live.act(Action.LIKE, user=f"u{n}") for n in range(5)))
    live.follow()
    assert live.is_true()
    assert popularity(live.catalog)["film"] == pytest.approx(5, rel=1e-3)
