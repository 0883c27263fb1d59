"""What survives: crashes, stops under load, many writers at once, a second server, a damaged index."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal as signals
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from harness import (
    Server,
    StartServer,
    catalogue,
    connected,
    healthy,
    logged,
    own_process,
    serve_command,
    starting_process,
    until,
)
from own_process import finished

from penchant import AsyncClient
from penchant.exceptions import PenchantError
from penchant.services.interests import READER
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import CaptureRequest, StreamCaptureRequest, WatchProfilesRequest
from penchant.v1.recommendation_service_pb2 import FindUsersRequest
from penchant.v1.signal_pb2 import Post, Signal
from penchant_pipelines import engine, erasure
from penchant_pipelines.index.chroma import SEAL, EmbeddedStore
from penchant_pipelines.record.record import FILE

SIGNALS, USERS = 2_000, 20
TEXTS = [f"{what} {where}" for what in ("Hiking", "Jazz", "Bread", "Stars") for where in "abcdefghij"]


def signal(number: int) -> Signal:
    return Signal(id=f"s-{number}", user_id=f"u-{number % USERS}", post=Post(text=TEXTS[number % len(TEXTS)]))


class Load:
    """Clients that capture signals one by one, and what was acknowledged to them."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = itertools.count()
        self.acknowledged: set[int] = set()

    async def run(self, clients: int, lanes: int) -> None:
        """Capture up to SIGNALS signals, until the server is gone."""
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(AsyncClient(self._address)) for _ in range(clients)]
            await asyncio.gather(*(self._lane(client) for client in opened for _ in range(lanes)))

    async def reach(self, count: int) -> None:
        async def reached() -> bool:
            return len(self.acknowledged) >= count

        await until(reached, seconds=60)

    async def _lane(self, client: AsyncClient) -> None:
        for number in self._numbers:
            if number >= SIGNALS:
                return
            try:
                answer = await client.capture_signal(signal(number))
            except PenchantError:
                return
            assert answer.signal_id == f"s-{number}"
            self.acknowledged.add(number)


async def held(server: Server) -> Counter[str]:
    """Ids of all signals that the server lists, with how often each is there."""
    found: Counter[str] = Counter()
    for user in range(USERS):
        found.update([listed.id async for listed in server.client.signals(f"u-{user}")])
    return found


@pytest.mark.slow
async def test_a_killed_server_has_kept_all_that_it_acknowledged(
    start: StartServer, data: Path, tmp_path: Path
) -> None:
    with own_process(data, tmp_path / "log") as process:
        async with connected(process.address, data) as server:
            items = [Item(id=f"i-{n}", title=TEXTS[n % len(TEXTS)]) for n in range(1_500)]
            assert (await server.client.upsert_items(items)).upserted_count == 1_500
        load = Load(process.address)
        running = asyncio.create_task(load.run(clients=4, lanes=8))
        await load.reach(700)
        process.kill()
        await running
    acknowledged = {f"s-{number}" for number in load.acknowledged}
    assert 700 <= len(acknowledged) < SIGNALS

    async with start() as server:
        # The index of a server that was killed is not trusted: answers are exact, and say so, until it heals.
        meanwhile = await server.client.recommend("u-0", page_size=10)
        assert list(meanwhile.degraded) == ["index_unavailable"]
        assert len(meanwhile.recommendations) == 10
        found = await held(server)
        assert acknowledged <= set(found)

        results = [r async for r in server.client.capture_many(signal(n) for n in range(SIGNALS))]
        assert [r.error for r in results if r.error] == []
        assert {r.signal.id for r in results if r.response and r.response.duplicate} == set(found)
        assert await held(server) == Counter(f"s-{number}" for number in range(SIGNALS))
        assert await server.signal_count() == SIGNALS
        for user in range(USERS):
            profile = await server.client.profile(f"u-{user}")
            assert profile.version == profile.signal_count == SIGNALS // USERS
            assert sum(i.signal_count for i in profile.interests) == SIGNALS // USERS

        await server.index_ready()
        healed = await server.client.recommend("u-0", page_size=10)
        assert not healed.degraded
        assert len(healed.recommendations) == 10


@pytest.mark.slow
async def test_a_server_that_is_told_to_stop_finishes_what_it_has_begun(
    start: StartServer, data: Path, tmp_path: Path
) -> None:
    with own_process(data, tmp_path / "log") as process:
        async with connected(process.address, data) as server:
            assert await healthy(server)
        load = Load(process.address)
        running = asyncio.create_task(load.run(clients=4, lanes=4))
        await load.reach(400)
        process.terminate()
        began = time.monotonic()
        await asyncio.to_thread(process.process.join, 30)
        assert process.process.exitcode == 0
        assert time.monotonic() - began < 15
        await running
    assert 400 <= len(load.acknowledged) < SIGNALS
    assert "Traceback" not in (tmp_path / "log").read_text()
    sealed = generations(data)
    async with start() as server:
        # A clean stop leaves the index sound: no rebuild, and nothing degraded.
        await server.index_ready()
        assert generations(data) == sealed
        found = await held(server)
        assert {f"s-{number}" for number in load.acknowledged} <= set(found)
        assert set(found.values()) == {1}


@pytest.mark.slow
async def test_a_server_that_is_told_to_stop_while_it_starts_does_not_start(
    start: StartServer, data: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with start() as server:
        items = [Item(id=f"i-{n}", title=TEXTS[n % len(TEXTS)]) for n in range(1_500)]
        assert (await server.client.upsert_items(items)).upserted_count == 1_500
        # In another space each of them is embedded anew before anything is served.
        await server.index_caught_up()
    with starting_process(data, log, "encoder.dimensions=128") as process:
        assert (await asyncio.to_thread(logged, process, log, "server.starting"))["data"] == str(data)
        await asyncio.to_thread(logged, process, log, "space.lost")
        assert process.pid is not None
        os.kill(process.pid, signals.SIGTERM)
        os.kill(process.pid, signals.SIGINT)
        await asyncio.to_thread(process.join, 30)
        assert process.exitcode == 0
    said = log.read_text()
    assert "server.stopped" in said
    assert "server.listening" not in said
    assert "Traceback" not in said
    # What it had begun stands in nobody's way.
    async with start() as server:
        assert (await server.client.server_info()).item_count == 1_500
        assert await server.recommended("u")


@pytest.mark.slow
async def test_a_second_process_is_turned_away_and_the_first_lives(server: Server) -> None:
    began = time.monotonic()
    code, _, err = await asyncio.to_thread(finished, *serve_command(server.data))
    assert code == 1
    assert "another server works on the data folder" in err
    assert "Traceback" not in err
    assert time.monotonic() - began < 30
    assert not (await server.client.capture(user_id="u", text="I love hiking")).duplicate
    assert await server.signal_count() == 1


@pytest.mark.slow
async def test_many_clients_write_to_one_user(server: Server) -> None:
    async def write(client: AsyncClient, writer: int) -> list[int]:
        versions = []
        for number in range(100):
            text = TEXTS[(writer + number) % len(TEXTS)]
            answer = await client.capture(user_id="u", text=text, id=f"{writer}-{number}")
            versions.append(answer.profile_version)
        return versions

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(server.address)) for _ in range(8)]
        versions = await asyncio.gather(*(write(client, writer) for writer, client in enumerate(clients)))
    assert sorted(itertools.chain(*versions)) == list(range(1, 801))
    assert all(line == sorted(line) for line in versions)
    profile = await server.client.profile("u")
    assert (profile.version, profile.signal_count) == (800, 800)
    assert sum(interest.signal_count for interest in profile.interests) == 800


async def test_open_streams_do_not_hold_up_a_stop(start: StartServer, data: Path) -> None:
    async with AsyncExitStack() as running, AsyncExitStack() as callers:
        address = (await running.enter_async_context(start())).address
        server = await callers.enter_async_context(connected(address, data))
        watch = server.rpc("WatchProfiles")(WatchProfilesRequest())
        stream = server.rpc("StreamCapture")()
        await watch.read()
        await stream.write(StreamCaptureRequest(sequence=7, signal=signal(0)))
        assert (await stream.read()).ack.sequence == 7
        assert (await watch.read()).profile.user_id == "u-0"
        stopping = asyncio.create_task(running.aclose())
        for call in (watch, stream):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await asyncio.wait_for(call.read(), 5)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(stopping, 5)


async def test_a_sender_who_hangs_up_leaves_no_task_behind(server: Server) -> None:
    def readers() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if task.get_name() == READER]

    stream = server.rpc("StreamCapture")()

    async def send() -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            for number in itertools.count():
                await stream.write(StreamCaptureRequest(sequence=number + 1, signal=signal(number)))

    sender = asyncio.create_task(send())
    await stream.read()
    assert readers()
    await asyncio.sleep(1)  # what is read ahead piles up: nobody reads the answers
    stream.cancel()
    await sender

    async def gone() -> bool:
        return not readers()

    await until(gone)


def garble(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.write_bytes(b"\xde\xad\xbe\xef" * (path.stat().st_size // 4 + 1))


def cut_short(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unseal(folder: Path) -> None:
    """Take the seal off, as a crash leaves it."""
    for path in folder.rglob("seal.json"):
        path.unlink()


@pytest.mark.parametrize("damage", [garble, cut_short, unseal, shutil.rmtree])
async def test_a_damaged_index_heals_by_itself(start: StartServer, damage: Callable[[Path], None]) -> None:
    async def lists(server: Server) -> list[list[str]]:
        return [
            await server.recommended("u", page_size=5),
            [match.user_id for match in await server.client.find_users(text="hiking")],
        ]

    async with start() as server:
        await server.index_ready()
        await server.client.upsert_items(catalogue())
        await server.client.capture(user_id="u", text="I love hiking on mountain trails")
        await server.index_caught_up()
        before = await lists(server)
        index = server.data / "index"
    assert list(index.rglob("chroma.sqlite3"))
    damage(index)

    async def replaced() -> bool:
        return len(list(index.glob("g-*"))) == 1

    async with start() as server:
        assert await lists(server) == before
        await server.index_ready()
        assert not (await server.client.recommend("u")).degraded
        assert await lists(server) == before
        await until(replaced)
    async with start() as server:
        assert not (await server.client.recommend("u")).degraded


async def test_an_index_of_users_alone_that_is_gone_is_built_anew(start: StartServer, data: Path) -> None:
    async with start() as server:
        await server.client.capture(user_id="ann", text="Bouldering and climbing gyms")
        await server.index_caught_up()
    shutil.rmtree(data / "index")

    async with start() as server:

        async def found() -> bool:
            answer = await server.rpc("FindUsers")(FindUsersRequest(text="climbing", min_similarity=-1))
            assert answer.degraded or answer.matches
            return not answer.degraded

        await until(found)


async def test_an_index_that_is_away_is_tried_again_in_one_line_each(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "HEAL_SECONDS", 0.05)
    monkeypatch.setattr(erasure, "PURGE_SECONDS", 0.05)
    async with start() as server:
        for user in ("ann", "gone"):
            await server.client.capture(user_id=user, text="Bouldering and climbing gyms")
    with socket.socket() as taken, structlog.testing.capture_logs() as lines:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        async with start(index={"url": f"http://127.0.0.1:{taken.getsockname()[1]}"}) as server:
            await server.client.delete_user("gone")

            async def tried() -> bool:
                return [line["event"] for line in lines].count("index.not_rebuilt") > 5

            await until(tried)
            assert [job async for job in server.client.jobs()] == []
    assert not [line for line in lines if line.get("exc_info")]
    async with start() as server:
        await server.index_ready()
        assert [match.user_id for match in await server.client.find_users(text="climbing")] == ["ann"]


async def test_a_new_folder_is_served_without_its_index_server(start: StartServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        async with start(index={"url": f"http://127.0.0.1:{taken.getsockname()[1]}"}) as server:
            await server.client.capture(user_id="ann", text="Bouldering and climbing gyms")
            answer = await server.rpc("FindUsers")(FindUsersRequest(text="climbing"))
            assert ([match.user_id for match in answer.matches], answer.degraded) == (["ann"], ["index_unavailable"])

            job = await server.client.rebuild_index()
            told = (await server.client.wait_for_job(job.id, timeout=30, interval=0.02)).error.message
            assert told.startswith("the index was not rebuilt (")
            assert told.endswith("then start it again")


async def test_an_index_that_cant_be_sealed_does_not_hold_up_a_stop(start: StartServer) -> None:
    with structlog.testing.capture_logs() as lines:
        async with start() as server:
            await server.index_ready()
            await server.client.capture(user_id="ann", text="Bouldering and climbing gyms")
            await server.index_caught_up()
            (generation,) = (server.data / "index").glob("g-*")
            (generation / SEAL).mkdir()
    assert [line for line in lines if line["event"] == "index.not_closed"]
    async with start() as server:
        await server.index_ready()
        assert [match.user_id for match in await server.client.find_users(text="climbing")] == ["ann"]


def generations(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / FILE)) as record:
        return [name for (name,) in record.execute("SELECT name FROM generations")]


async def test_what_a_rebuild_that_was_cut_off_left_is_dropped_at_the_start(start: StartServer, data: Path) -> None:
    async with start() as server:
        await server.index_ready()
        live = generations(data)
    (data / "index" / "g-left").mkdir()
    with closing(sqlite3.connect(data / FILE)) as record, record:
        record.execute(
            "INSERT INTO generations (name, space, cursor, live) SELECT 'g-left', space, 0, 0 FROM generations"
        )
    async with start() as server:
        assert [path.name for path in (data / "index").glob("g-*")] == generations(data) == live
        await server.client.capture(user_id="ann", text="I love hiking")
        await server.index_caught_up()
        with closing(sqlite3.connect(data / FILE)) as record:
            assert record.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


async def test_a_rebuild_that_is_cancelled_at_its_end_leaves_no_second_index(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop, dropping, go_on = EmbeddedStore.drop, threading.Event(), threading.Event()

    def slow(store: EmbeddedStore, name: str) -> None:
        dropping.set()
        go_on.wait()
        drop(store, name)

    monkeypatch.setattr(EmbeddedStore, "drop", slow)
    job = await server.client.rebuild_index()
    await asyncio.to_thread(dropping.wait)
    cancelling = asyncio.create_task(server.client.cancel_job(job.id))
    await asyncio.sleep(0.1)
    go_on.set()
    await cancelling
    assert len(generations(server.data)) == 1


async def test_users_are_found_by_the_interests_that_present_settings_make(start: StartServer, data: Path) -> None:
    async def found(server: Server) -> list[str]:
        answer = await server.rpc("FindUsers")(FindUsersRequest(text="Jazz piano", min_similarity=0.95))
        assert not answer.degraded
        return [match.user_id for match in answer.matches]

    def recipes() -> set[str]:
        with closing(sqlite3.connect(data / FILE)) as record:
            return {recipe for (recipe,) in record.execute("SELECT recipe FROM profiles")}

    texts = ["I love hiking", "Jazz piano", "Sourdough bread", "Photographs of galaxies", "Filing a tax return"]
    async with start(interests={"max_interests": 2}) as server:
        await server.index_ready()
        for text in texts:
            await server.client.capture(user_id="ann", text=text)
        await server.index_caught_up()
        assert await found(server) == []
        before = recipes()
    async with start() as server:
        await server.index_ready()
        assert await found(server) == ["ann"]
        # Made anew once, not for each who reads it.
        (made,) = recipes()
        assert made not in before


async def test_a_backup_of_the_record_is_all_there_is(start: StartServer, data: Path, tmp_path: Path) -> None:
    restored = tmp_path / "restored"
    restored.mkdir()
    async with start() as server:
        await server.client.upsert_items(catalogue())
        await server.client.capture(user_id="ann", text="Hiking in the Alps")
        with closing(sqlite3.connect(data / FILE)) as live, closing(sqlite3.connect(restored / FILE)) as copy:
            live.backup(copy)
        kept = await server.client.profile("ann"), await server.recommended("ann")
        await server.client.capture(user_id="ann", text="Jazz piano all night")
    async with start(restored) as server:
        await server.index_ready()
        profile = await server.client.profile("ann")
        assert (profile.version, profile.interests[0].label) == (1, kept[0].interests[0].label)
        assert await server.recommended("ann") == kept[1]
        assert [match.user_id for match in await server.client.find_users(text="hiking")] == ["ann"]


async def test_a_caller_who_hangs_up_disturbs_nobody(server: Server) -> None:
    calls = [
        server.rpc("Capture")(CaptureRequest(signal=Signal(user_id="u", post=Post(text=text))))
        for text in [*TEXTS, *TEXTS[:10]]
    ]
    await asyncio.sleep(0.005)
    for call in calls[::2]:
        call.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    kept = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert kept >= 25
    assert (await server.client.capture(user_id="other", text="Jazz")).profile_version == 1
    assert kept <= (await server.client.profile("u")).signal_count <= 50


async def test_a_deadline_that_passes_is_told(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await server.rpc("Capture")(CaptureRequest(signal=signal(0)), timeout=0.0001)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await server.client.capture(user_id="u-0", text="Jazz")).signal_id
