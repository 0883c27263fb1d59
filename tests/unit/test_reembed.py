"""Bringing a record into a further space while it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from live_records import DIMENSIONS, NOW, SPACE, KeptSpace, Live, axis
from numpy.typing import NDArray

from penchant_pipelines.interests import Blender, Calibration, InterestSettings, Profile, Recipe, pack
from penchant_pipelines.jobs import no_progress
from penchant_pipelines.model import Action, Item, Post, Signal, Steering
from penchant_pipelines.reader import Reader
from penchant_pipelines.record import rows, schema
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.reading import Reading
from penchant_pipelines.refusals import RATING
from penchant_pipelines.spaces import reembed
from penchant_pipelines.spaces.reembed import Origin, Reembedding, drop_rows
from penchant_pipelines.text import TextPipeline, TextSettings

OTHER = 2


class Further(KeptSpace):
    """The space that is filled. Its encoder is held up by what happens `meanwhile`, by what is encoded first."""

    def __init__(self) -> None:
        calibration = Calibration(0.5, np.zeros(DIMENSIONS, np.float32))
        super().__init__(OTHER, "other", Blender(Recipe(InterestSettings(), calibration, "other")), False)
        self.encoder = SimpleNamespace(encoder=self)
        self.encoded: list[str] = []
        self.meanwhile: dict[str, Callable[[], Awaitable[object]]] = {}
        self._loop = asyncio.get_running_loop()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Vectors of texts by their length."""

        async def happen() -> None:
            if texts[0] in self.meanwhile:
                await self.meanwhile.pop(texts[0])()

        self.encoded += texts
        asyncio.run_coroutine_threadsafe(happen(), self._loop).result()
        return [axis(len(text)) for text in texts]


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    found = Live(tmp_path)
    yield found
    await found.close()


def shared(live: Live) -> Any:
    return SimpleNamespace(
        record=live.record, writer=live.writer, reader=Reader(TextPipeline(TextSettings())), encoder=None
    )


async def fill(live: Live, space: Further) -> None:
    """Bring all into the space, which is kept from now on."""
    live.spaces.append(space)
    filled: Any = space
    await Reembedding(filled, Origin(SPACE, live.blender), shared(live), no_progress).run()


def check_whole(live: Live, space: Further) -> set[str]:
    """Check that the space has a profile of each user as a replay makes it; gives the ids of its items."""
    held = schema.item_vectors
    with live.record.read() as connection:
        users = connection.execute(sa.select(schema.users.c.key)).scalars().all()
        kept = sa.select(schema.profiles.c.user_key, schema.profiles.c.profile).where(schema.profiles.c.space == OTHER)
        profiles = {row.user_key: row.profile for row in connection.execute(kept)}
        assert profiles == {
            user: pack(space.blender.replay(rows.user_events(connection, OTHER, user))) for user in users
        }
        return set(connection.execute(sa.select(held.c.item_id).where(held.c.space == OTHER)).scalars())


async def test_what_goes_while_it_is_encoded_holds_nothing_up(live: Live) -> None:
    for item_id in ("bread", "film"):
        await live.upsert(Item(item_id, title=item_id))
    for user in ("ann", "bob"):
        await live.write(axis(1), user=user)
        await live.act(Action.LIKE, "bread", user=user)
    said = partial(Ledger.steer, time=NOW, steering=Steering(bias=1), interest_id="", topic="chess")
    for user in ("ann", "cat"):
        await live.writer.submit(partial(said, user_id=user, reading=Reading({SPACE: axis(2)}, "en", ("chess",))))
    space = Further()
    space.meanwhile = {
        "bread": lambda: live.delete("bread"),
        "words": lambda: live.writer.submit(lambda ledger: ledger.erase("bob", NOW)),
        "chess": lambda: live.writer.submit(lambda ledger: ledger.erase("cat", NOW)),
    }
    await fill(live, space)
    assert not space.meanwhile
    assert space.keeps_profiles
    assert check_whole(live, space) == {"film"}


async def test_what_was_done_with_an_item_counts_in_a_space_that_was_filled_while_it_was_away(live: Live) -> None:
    film = Item("film", title="film")
    await live.upsert(film)
    await live.act(Action.LIKE)
    await live.write(axis(1))
    await live.delete()
    space = Further()
    await fill(live, space)
    back = Reading({SPACE: axis(3), OTHER: axis(2)}, "en")
    for _ in range(2):  # sent once more, it changes nothing
        await live.put(film, back)
    assert [len(commit.changes) for commit in live.commits[-3:]] == [0, 1, 0]
    assert check_whole(live, space) == {"film"}
    held = schema.signal_vectors
    with live.record.read() as connection:
        kept = sa.select(held.c.space, held.c.vector).order_by(held.c.space, held.c.seq)
        vectors = [(row.space, np.frombuffer(row.vector, np.float32)) for row in connection.execute(kept)]
    # The post has its own words in the further space; in the first both are as they were taken.
    between = (axis(0) + axis(1)) / np.sqrt(2)
    wanted = [(SPACE, axis(0)), (SPACE, between), (OTHER, axis(2)), (OTHER, axis(len("words")))]
    for (key, vector), (wanted_key, direction) in zip(vectors, wanted, strict=True):
        assert key == wanted_key
        np.testing.assert_allclose(vector, direction, atol=1e-6)


async def test_profiles_from_before_an_interruption_are_made_anew(live: Live) -> None:
    await live.upsert(Item("film", title="film"))
    await live.act(Action.LIKE)
    space = Further()
    with live.record.read() as connection:
        user = connection.execute(sa.select(schema.users.c.key)).scalar_one()
    outdated = pack(Profile())

    def leave(ledger: Ledger) -> Callable[[], None]:
        ledger.users.put_profile(space, user, outdated)
        return lambda: None

    await live.writer.submit(leave)
    await fill(live, space)
    assert check_whole(live, space) == {"film"}
    with live.record.read() as connection:
        kept = sa.select(schema.profiles.c.profile).where(schema.profiles.c.space == OTHER)
        assert connection.execute(kept).scalar_one() != outdated


async def test_a_refusal_is_read_by_what_it_refuses(live: Live) -> None:
    refusal = Signal("refusal", "ann", Post("Please stop showing me jazz", inferred_rating=RATING), NOW)
    await live.writer.submit(lambda ledger: ledger.capture(refusal, NOW, Reading({SPACE: axis(1)}, "en")))
    space = Further()
    await fill(live, space)
    assert space.encoded == ["jazz"]


async def test_filling_and_dropping_a_space_go_over_its_rows_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembed, "PROFILES_CHUNK", 2)
    monkeypatch.setattr(reembed, "DROP_CHUNK", 2)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    sa.event.listen(live.record.engine, "checkout", lambda driver, *_: driver.set_progress_handler(step, 10))

    async def taken(first: int, count: int) -> int:
        """Steps that SQLite takes for all users, so many of them new."""
        users = [
            {"key": key, "user_id": str(key), "version": 0, "signal_count": 0, "latest_time": 0, "latest_id": ""}
            for key in range(first, first + count)
        ]
        profiles = [{"user_key": user["key"], "space": SPACE, "recipe": "", "profile": b""} for user in users]
        with live.record.engine.begin() as connection:
            connection.execute(schema.users.insert(), users)
            connection.execute(schema.profiles.insert(), profiles)
        space, before = Further(), steps
        await fill(live, space)
        check_whole(live, space)
        live.spaces.remove(space)
        await drop_rows(shared(live), OTHER, schema.profiles)
        after = steps
        with live.record.read() as connection:
            kept = connection.execute(sa.select(schema.profiles.c.space)).scalars().all()
        assert kept == [SPACE] * (first + count)
        return after - before

    few, many = await taken(0, 50), await taken(50, 350)
    assert many < 12 * few
