from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import aclosing, contextmanager
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.interceptors import Drain
from penchant.services.interests import InterestService
from penchant.v1.interest_service_pb2 import WatchProfilesRequest
from penchant_pipelines.record.commit import Change
from penchant_pipelines.watch import SWITCHED, Watcher, Watchers


def change(user: str, version: int) -> Change:
    return Change(user, version, version, {1: b""})


async def drained(watcher: Watcher) -> list[Change]:
    found = []
    try:
        while True:
            found.append(await asyncio.wait_for(watcher.next(), 0.01))
    except TimeoutError:
        return found


async def test_every_step_is_told_in_order_while_one_keeps_up() -> None:
    watchers = Watchers()
    with watchers.listen([]) as watcher:
        sent = [change("a", 1), change("b", 1), change("a", 2)]
        watchers.publish(sent)
        assert await drained(watcher) == sent


async def test_only_the_users_named_are_told() -> None:
    watchers = Watchers()
    with watchers.listen(["a", "c"]) as some, watchers.listen(["b"]) as other:
        watchers.publish([change("a", 1), change("b", 1), change("c", 1)])
        assert [c.user_id for c in await drained(some)] == ["a", "c"]
        assert [c.user_id for c in await drained(other)] == ["b"]


async def test_a_switch_is_told_to_everybody_and_once() -> None:
    watchers = Watchers()
    with watchers.listen([]) as all_users, watchers.listen(["a"]) as some:
        watchers.publish([change("a", 1)])
        watchers.switched()
        watchers.switched()
        assert await drained(all_users) == await drained(some) == [change("a", 1), SWITCHED]


async def test_a_waiting_listener_wakes() -> None:
    watchers = Watchers()
    with watchers.listen([]) as watcher:
        waiting = asyncio.create_task(watcher.next())
        await asyncio.sleep(0)
        watchers.publish([change("a", 1)])
        assert await asyncio.wait_for(waiting, 1) == change("a", 1)


async def test_what_led_to_a_profile_that_one_was_told_is_not_told_after_it() -> None:
    watchers = Watchers()
    with watchers.listen(["a"]) as watcher:
        watchers.publish([change("a", 1)])
        watcher.told("a", 2)
        watchers.publish([change("a", 2), change("a", 3), change("a", 4)])
        assert await drained(watcher) == [change("a", 3), change("a", 4)]


async def test_who_is_erased_and_comes_back_is_told_from_the_first_version_on() -> None:
    watchers = Watchers()
    with watchers.listen(["a"]) as watcher:
        watcher.told("a", 5)
        watchers.publish([change("a", 0), change("a", 1)])
        assert await drained(watcher) == [change("a", 0), change("a", 1)]


async def test_who_left_is_told_nothing() -> None:
    watchers = Watchers()
    with watchers.listen([]) as watcher:
        pass
    watchers.publish([change("a", 1)])
    assert await drained(watcher) == []


async def test_a_slow_listener_gets_the_newest_state_of_everyone_in_bounded_memory() -> None:
    watcher = Watcher(frozenset())
    versions = 5 * Watcher.LIMIT
    for version in range(versions):
        for user in ("a", "b", "c"):
            watcher.offer(change(user, version))
    found = await drained(watcher)
    assert len(found) <= Watcher.LIMIT + 3
    for user in ("a", "b", "c"):
        told = [c.version for c in found if c.user_id == user]
        assert told == sorted(set(told))
        assert told[-1] == versions - 1


async def test_profiles_of_many_users_are_not_kept_for_a_slow_listener() -> None:
    watcher = Watcher(frozenset())
    for number in range(3 * Watcher.LIMIT):
        watcher.offer(change(f"u{number}", 1))
    found = await drained(watcher)
    assert len(found) == 3 * Watcher.LIMIT
    assert [bool(c.profiles) for c in found] == [True] * Watcher.LIMIT + [False] * 2 * Watcher.LIMIT


async def test_what_was_queued_of_an_erased_user_is_told_to_nobody() -> None:
    watcher = Watcher(frozenset())
    sent = [change("a", 1), change("b", 1), change("a", 2), change("a", 0), change("a", 1), change("a", 0)]
    for one in sent:
        watcher.offer(one)
    watcher.offer(change("a", 1))
    assert await drained(watcher) == [change("b", 1), change("a", 0), change("a", 1)]


async def test_a_slow_listener_hears_of_an_erasure_though_its_user_came_back() -> None:
    watcher = Watcher(frozenset())
    watcher.told("a", 5)
    sent = [change("a", 0), change("a", 1), change("a", 2)]
    for one in sent + [change("b", version) for version in range(1, Watcher.LIMIT + 1)]:
        watcher.offer(one)
    assert [c for c in await drained(watcher) if c.user_id == "a"] == [sent[0], sent[2]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=80), st.integers(1, 6))
async def test_nothing_newest_is_ever_lost(steps: Iterable[tuple[str, bool]], limit: int) -> None:
    class Narrow(Watcher):
        LIMIT = limit

    watcher = Narrow(frozenset())
    newest: dict[str, int] = {}
    told: dict[str, int] = {}
    for user, read in steps:
        newest[user] = newest.get(user, 0) + 1
        watcher.offer(change(user, newest[user]))
        if read:
            seen = await watcher.next()
            assert told.get(seen.user_id, 0) < seen.version
            told[seen.user_id] = seen.version
    for seen in await drained(watcher):
        assert told.get(seen.user_id, 0) < seen.version
        told[seen.user_id] = seen.version
    assert told == newest


async def test_many_users_behind_one_slow_listener_cost_little() -> None:
    watcher = Watcher(frozenset())
    start = asyncio.get_running_loop().time()
    for number in range(30_000):
        watcher.offer(change(f"u{number}", 1))
    # Takes about 0.1 s; coalescing at every offer would take a minute.
    assert asyncio.get_running_loop().time() - start < 2
    assert len(await drained(watcher)) == 30_000


async def test_no_space_is_in_use_while_a_watcher_reads() -> None:
    in_use = [0]

    @contextmanager
    def serve(user_id: str) -> Iterator[SimpleNamespace]:
        in_use[0] += 1
        yield SimpleNamespace(space_id="space")
        in_use[0] -= 1

    engine: Any = SimpleNamespace(watchers=Watchers(), serve=serve, live=SimpleNamespace(space_id="space"))
    unused: Any = None
    service = InterestService(engine, unused, unused, unused, Drain())
    stream: Any = service.WatchProfiles(WatchProfilesRequest(), unused)
    async with aclosing(stream) as profiles:
        await anext(profiles)
        engine.watchers.publish([change("a", 0)])
        assert (await anext(profiles)).profile.user_id == "a"
        assert in_use == [0]
