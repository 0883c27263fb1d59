"""Who is found to want a thing, and who rather does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_records import SPACE, Live, axis
from numpy.typing import NDArray

from penchant_pipelines.index import Hit
from penchant_pipelines.model import MICROS_PER_DAY, Action, Steering, now
from penchant_pipelines.profiles import Profiles
from penchant_pipelines.recommend.audience import POOL, Audience
from penchant_pipelines.record.reading import Reading


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    found = Live(tmp_path)
    yield found
    await found.close()


def between(degrees: float) -> NDArray[np.float32]:
    """A unit vector as far from the first axis, towards the second."""
    angle = np.deg2rad(degrees)
    row: NDArray[np.float32] = (np.cos(angle) * axis(0) + np.sin(angle) * axis(1)).astype(np.float32)
    return row


async def found(
    live: Live, target: NDArray[np.float32], hits: Sequence[Hit] | None = None, limit: int = 10
) -> dict[str, float]:
    """Users by id, with how near they are, by what the index finds; where it finds nothing all are looked at."""

    async def query(kind: str, targets: object, most: int) -> list[Sequence[Hit]] | None:
        return None if hits is None else [hits[:most]]

    relay: Any = SimpleNamespace(query=query)
    audience = Audience(relay, Profiles(live.record, SPACE, live.blender), live.blender.calibration)
    matches, degraded = await audience.find(target, limit, -1)
    assert len({match.user_id for match in matches}) == len(matches)
    assert bool(degraded) == (hits is None)
    return {match.user_id: round(match.similarity, 3) for match in matches}


async def test_who_rather_dislikes_a_thing_is_not_found_by_what_else_they_like(live: Live) -> None:
    await live.upsert("film", axis(1))
    for user in ("ann", "bob"):
        await live.write(axis(0), item_id="", user=user, time=now())
    assert await found(live, between(60)) == {"ann": 0.5, "bob": 0.5}
    await live.act(Action.DISLIKE, "film", "bob", now())
    assert await found(live, between(60)) == {"ann": 0.5}
    assert await found(live, between(30)) == {"ann": 0.866, "bob": 0.866}


async def test_who_muted_what_a_thing_is_plainly_about_is_not_found_by_what_is_nearer(live: Live) -> None:
    for user in ("ann", "bob"):
        await live.write(axis(0), item_id="", user=user, time=now())
    reading = Reading({SPACE: between(70)}, "en", ("chess",))
    await live.writer.submit(lambda ledger: ledger.steer("bob", now(), Steering(muted=True), "", "chess", reading))
    assert await found(live, between(34)) == {"ann": 0.829}
    assert await found(live, between(0)) == {"ann": 1, "bob": 1}


@pytest.mark.parametrize(("bias", "wanted"), [(-1.0, False), (-0.5, False), (-0.4, True), (1.0, True)])
async def test_who_asked_for_much_less_of_a_thing_is_not_found(live: Live, bias: float, wanted: bool) -> None:
    await live.write(axis(0), item_id="", user="ann", time=now())
    (interest,) = Profiles(live.record, SPACE, live.blender).get("ann").view.interests
    less = Steering(bias=bias)
    await live.writer.submit(lambda ledger: ledger.steer("ann", now(), less, interest.id, "", Reading()))
    assert await found(live, axis(0)) == ({"ann": 1} if wanted else {})


async def test_who_cares_more_for_a_thing_comes_before_who_once_said_what_is_a_little_nearer(live: Live) -> None:
    await live.write(axis(0), item_id="", user="ann", time=now())
    for number in range(8):
        await live.write(between(30), item_id="", user="bob", time=now() - number * MICROS_PER_DAY)
    await live.write(axis(0), item_id="", user="cem", time=now() - 400 * MICROS_PER_DAY)
    assert list(await found(live, between(8))) == ["ann", "bob", "cem"]
    assert list(await found(live, between(16))) == ["bob", "ann", "cem"]
    assert list(await found(live, between(30))) == ["bob", "ann", "cem"]


async def test_of_a_users_interests_the_one_is_told_that_speaks_most_for_a_thing(live: Live) -> None:
    await live.write(axis(0), item_id="", user="ann", time=now() - 400 * MICROS_PER_DAY)
    await live.write(axis(1), item_id="", user="ann", time=now())
    assert await found(live, between(44)) == {"ann": round(float(np.sin(np.deg2rad(44))), 3)}
    assert await found(live, between(30)) == {"ann": 0.866}


async def test_whoever_is_farther_is_found_where_the_nearest_are_left_out(live: Live) -> None:
    for user in ("ann", "bob"):
        await live.write(axis(0), item_id="", user=user, time=now())
    reading = Reading({SPACE: axis(0)}, "en", ("chess",))
    await live.writer.submit(lambda ledger: ledger.steer("bob", now(), Steering(muted=True), "", "chess", reading))
    keys = {user: Profiles(live.record, SPACE, live.blender).get(user).key for user in ("ann", "bob")}
    hits = [*(Hit(f"{keys['bob']}:{number}", 1.0) for number in range(POOL + 1)), Hit(f"{keys['ann']}:0", 1.0)]
    assert await found(live, axis(0), hits, limit=1) == {"ann": 1}
