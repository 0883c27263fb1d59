"""For operators: counts, jobs, health, reflection, and what this version does not serve."""

from __future__ import annotations

import asyncio
import resource
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from harness import STUBS, Server, StartServer, catalogue, healthy, refused, until
from threadpoolctl import threadpool_info, threadpool_limits

from penchant import Client, app
from penchant.app import SERVICES, serve
from penchant.exceptions import WrongStateError
from penchant.pages import Listing, PageTokens
from penchant.settings import Settings, load_settings
from penchant.v1 import admin_service_pb2 as admin
from penchant.v1.admin_service_pb2 import CancelJobRequest, JobState, ListJobsRequest
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import CaptureRequest
from penchant.v1.signal_pb2 import Post, Signal
from penchant_pipelines import engine
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.index.relay import Relay
from penchant_pipelines.jobs import Progress


async def test_server_info_counts(server: Server, encoder: Encoder) -> None:
    info = await server.client.server_info()
    assert (info.user_count, info.item_count, info.signal_count) == (0, 0, 0)
    assert (info.space_id, info.dimensions, info.base_model) == (encoder.space_id, 384, "bilingual-MiniLM-L6")
    assert info.version
    limits = load_settings().limits
    assert (info.max_batch_size, info.max_page_size) == (limits.batch_size, limits.page_size)
    assert (info.max_text_bytes, info.max_message_bytes) == (limits.text_bytes, limits.message_bytes)
    await server.client.upsert_items(catalogue())
    for user in ("a", "b", "b"):
        await server.client.capture(user_id=user, text="I love hiking")
    info = await server.client.server_info()
    assert (info.user_count, info.item_count, info.signal_count) == (2, 16, 3)
    await server.index_caught_up()


def test_a_server_leaves_each_sum_to_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: dict[str, list[int]] = {}

    def threads(when: str) -> None:
        shared[when] = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    async def served(settings: Settings) -> None:
        threads("serving")

    monkeypatch.setattr(app, "_serve_until_told", served)
    with threadpool_limits(2, "blas"):
        assert app.run(load_settings()) == 0
        threads("afterwards")
    assert set(shared["serving"]) == {1}
    assert len(shared["serving"]) == shared["afterwards"].count(2)


async def test_the_index_is_rebuilt_while_the_server_serves(server: Server) -> None:
    client = server.client
    items = [Item(id=f"i-{n}", title=f"Hiking trail number {n % 30}") for n in range(1_500)]
    await client.upsert_items(items)
    await client.capture(user_id="u", text="I love hiking on mountain trails")
    await server.index_caught_up()
    expected = await client.recommend("u")
    job = await client.rebuild_index()
    assert (job.kind, job.state) == ("rebuild_index", JobState.JOB_STATE_RUNNING)
    with pytest.raises(WrongStateError) as error:
        await client.rebuild_index()
    assert error.value.reason == "JOB_RUNNING"
    meanwhile = 0
    while (await client.job(job.id)).state == JobState.JOB_STATE_RUNNING:
        answer = await client.recommend("u")
        assert not answer.degraded
        # Fifty items of each title are alike: the approximate index may miss the best of them, exact search does not.
        assert min(p.score for p in answer.recommendations) >= min(p.score for p in expected.recommendations) - 1e-3
        assert len(answer.recommendations) == len(expected.recommendations)
        await client.upsert_items([Item(id=f"late-{meanwhile}", title="Jazz piano")])
        meanwhile += 1
    assert meanwhile
    ended = await client.job(job.id)
    assert ended.state == JobState.JOB_STATE_SUCCEEDED
    assert ended.done_count == ended.total_count >= 1_501
    assert ended.end_time.ToMicroseconds() > ended.create_time.ToMicroseconds()
    await server.index_caught_up()
    # What came in during the rebuild is in the new index too.
    asked = await server.recommended("u", query="jazz piano", page_size=min(meanwhile, 10), diversity=0)
    assert all(item_id.startswith("late-") for item_id in asked)


async def test_a_job_can_be_cancelled(server: Server) -> None:
    client = server.client
    await client.upsert_items(Item(id=f"i-{n}", title=f"Hiking trail {n % 30}") for n in range(1_500))
    await server.index_caught_up()
    jobs = []
    for _ in range(2):
        job = await client.rebuild_index()
        # Twice at once: neither call may leave the job half ended.
        cancelled = await asyncio.gather(client.cancel_job(job.id), client.cancel_job(job.id))
        assert {ended.state for ended in cancelled} == {JobState.JOB_STATE_CANCELLED}
        jobs.append(job.id)
    assert (await refused(server.rpc("CancelJob")(CancelJobRequest(job_id=job.id)))).reason == "JOB_ENDED"
    final = await client.rebuild_index()
    assert (await client.wait_for_job(final.id, timeout=60)).state == JobState.JOB_STATE_SUCCEEDED
    assert [j.id async for j in client.jobs()][:3] == [final.id, *reversed(jobs)]
    assert len(list((server.data / "index").glob("g-*"))) == 1


async def test_a_job_tells_how_far_it_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(_: Relay, progress: Progress) -> None:
        await progress(3, 7)
        await asyncio.sleep(60)

    async def begun() -> bool:
        return bool((await server.client.job(job.id)).done_count)

    monkeypatch.setattr(Relay, "rebuild", stuck)
    job = await server.client.rebuild_index()
    await until(begun)
    found = await server.client.job(job.id)
    assert (found.state, found.done_count, found.total_count) == (JobState.JOB_STATE_RUNNING, 3, 7)
    assert not found.HasField("end_time")
    ended = await server.client.cancel_job(job.id)
    assert (ended.state, ended.done_count, ended.total_count) == (JobState.JOB_STATE_CANCELLED, 3, 7)


async def test_jobs_come_in_pages(server: Server) -> None:
    for _ in range(4):
        job = await server.client.rebuild_index()
        await server.client.wait_for_job(job.id, timeout=30, interval=0.02)
    first = await server.rpc("ListJobs")(ListJobsRequest(page_size=3))
    rest = await server.rpc("ListJobs")(ListJobsRequest(page_size=3, page_token=first.next_page_token))
    assert [len(first.jobs), len(rest.jobs), rest.next_page_token] == [3, 1, ""]
    assert first.jobs[0].id == job.id


async def test_clients_ask_for_the_largest_pages_that_there_are(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    listing = PageTokens.listing

    def noted(*args: Any) -> Listing:
        found = listing(*args)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(PageTokens, "listing", noted)
    ids = [f"i-{number:03}" for number in range(120)]
    async with start(**{"limits.page_size": 50}) as server:
        await server.client.upsert_items(Item(id=item_id, title="Hiking trail") for item_id in ids)
        assert [item.id async for item in server.client.items()] == ids
        with Client(server.address) as client:
            assert await asyncio.to_thread(lambda: [item.id for item in client.items()]) == ids
    assert sizes == [50] * 6


async def test_health_tells_of_every_service(server: Server) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    for name in ("", *SERVICES):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    unknown = await refused(stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service")))
    assert unknown.code is grpc.StatusCode.NOT_FOUND


async def test_health_tells_that_the_record_cant_be_written_and_that_it_can_again(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "HEALTH_SECONDS", 0.05)
    async with start() as server:
        await server.index_ready()
        await server.client.capture(user_id="u", text="I love hiking")
        await server.index_caught_up()
        stub = health_pb2_grpc.HealthStub(server.channel)

        async def sick() -> bool:
            return not await healthy(server)

        with full_disk(server.data / "record.sqlite3-wal"):
            capture = server.rpc("Capture")(
                CaptureRequest(signal=Signal(id="s", user_id="u", post=Post(text="Jazz piano")))
            )
            assert (await refused(capture)).reason == "RECORD_UNWRITABLE"
            # A stream goes on: each of its signals is asked to come back.
            signals = [Signal(id=f"t-{n}", user_id="u", post=Post(text="Jazz piano")) for n in range(2)]
            events = [event async for event in server.client.stream_capture(signals)]
            assert [(event.WhichOneof("event"), event.backoff.sequence) for event in events] == [
                ("backoff", 0),
                ("backoff", 1),
            ]
            assert all(event.backoff.retry_delay.ToSeconds() == 1 for event in events)
            await until(sick)
            told = {name: (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in SERVICES}
            assert [name for name, status in told.items() if status == health_pb2.HealthCheckResponse.SERVING] == [
                "penchant.v1.RecommendationService"
            ]
            # Reading goes on.
            assert (await server.client.profile("u")).signal_count == 1
            # What has nothing to write tells nothing.
            assert await server.client.delete_items(["unknown"]) == 0
            await asyncio.sleep(0.2)
            assert await sick()
        # Nobody writes, as a balancer sends nobody here.
        await until(lambda: healthy(server))
        await server.client.capture(user_id="u", text="Jazz piano")
        assert await server.signal_count() == 2


@contextmanager
def full_disk(log: Path) -> Iterator[None]:
    """Let no file of this process grow beyond what the record's log has now: it can't take a page more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_reflection_lists_every_service_and_file(server: Server) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        *(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in SERVICES),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert {*SERVICES} <= {service.name for service in answers[0].list_services_response.service}
    assert len(SERVICES) == len(STUBS) == 4
    assert all(answer.file_descriptor_response.file_descriptor_proto for answer in answers[1:])


async def test_a_second_server_gets_neither_the_folder_nor_the_port(
    start: StartServer, encoder: Encoder, tmp_path: Path
) -> None:
    async with start() as server:
        for overrides, reason in (
            ({"data": server.data, "listen": "127.0.0.1:0"}, "DATA_FOLDER_LOCKED"),
            ({"data": tmp_path / "other", "listen": server.address}, "ADDRESS_TAKEN"),
            ({"data": tmp_path / "other", "listen": f"localhost:{server.address.rpartition(':')[2]}"}, "ADDRESS_TAKEN"),
        ):
            settings = load_settings(overrides=overrides)
            with pytest.raises(WrongState) as error:
                async with serve(settings, encoder):
                    pass
            assert error.value.reason == reason
        # Heard before anything was made.
        assert not (tmp_path / "other").exists()
        assert (await server.client.server_info()).signal_count == 0


async def test_a_host_that_is_none_is_told_by_its_setting(encoder: Encoder, data: Path) -> None:
    settings = load_settings(overrides={"data": data, "listen": "127.0.0.1:0", "metrics_listen": "nohost.invalid:9464"})
    with pytest.raises(InvalidInput, match=r"metrics_listen: there is no host 'nohost\.invalid'"):
        async with serve(settings, encoder):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104 - refused
async def test_metrics_have_an_address_of_their_own(encoder: Encoder, data: Path, host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = load_settings(
        overrides={"data": data, "listen": f"127.0.0.1:{port}", "metrics_listen": f"{host}:{port}"}
    )
    with pytest.raises(WrongState, match=r"metrics_listen: can't listen on .*this server's `listen`"):
        async with serve(settings, encoder):
            pass


@pytest.mark.parametrize("offset", [0, 40_000])
async def test_a_damaged_record_is_named(start: StartServer, data: Path, encoder: Encoder, offset: int) -> None:
    async with start() as server:
        await server.client.capture(user_id="ann", text="Bouldering and climbing gyms")
    record = data / "record.sqlite3"
    whole = record.read_bytes()
    record.write_bytes(whole[:offset] + b"\xde\xad\xbe\xef" * (len(whole) // 4 - offset // 4))
    with pytest.raises(WrongState, match=r"record\.sqlite3.* can't be read") as error:
        async with serve(load_settings(overrides={"data": data, "listen": "127.0.0.1:0"}), encoder):
            pass
    assert error.value.reason == "RECORD_UNREADABLE"


async def test_a_start_on_a_full_disk_says_that_it_is_full(
    data: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Record", Mock(side_effect=sqlite3.OperationalError("disk I/O error")))
    for free, todo in ((2**40, "see to that first"), (4096, "the disk is full, make room first")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Mock(free=free))
        with pytest.raises(WrongState, match=rf"\(disk I/O error\): {todo}"):
            async with engine.Engine.open(engine.EngineSettings(), data, encoder):
                pass


async def test_a_record_of_before_middles_were_measured_reads_as_a_new_one(start: StartServer, data: Path) -> None:
    async def told(server: Server) -> tuple[float, list[tuple[str, float]], list[str]]:
        profile = await server.client.profile("hiker")
        matches = await server.client.find_users(text="a trail in the mountains")
        found = [(match.interest_id, round(match.similarity, 4)) for match in matches]
        return (await server.client.server_info()).similarity, found, [i.label for i in profile.interests]

    def indexed() -> list[str]:
        with closing(sqlite3.connect(data / "record.sqlite3")) as record:
            found = record.execute("SELECT interest_id FROM indexed_interests ORDER BY interest_id")
            return [interest_id for (interest_id,) in found]

    async def rebuilt() -> bool:
        return indexed() == held

    async with start() as server:
        await server.client.capture(user_id="hiker", text="I love hiking on mountain trails")
        await server.client.capture(user_id="hiker", text="Filing the quarterly tax return")
        await server.index_caught_up()
        before, held = await told(server), indexed()
        assert (len(before[1]), len(held)) == (1, 2)
    with closing(sqlite3.connect(data / "record.sqlite3")) as record, record:
        record.execute("UPDATE spaces SET similarity = 0.9, middle = NULL")
        # No interests at all, as far as the record of before knew.
        record.execute("UPDATE profiles SET recipe = 'old', profile = x''")
        record.execute("UPDATE generations SET live = 0")
    async with start() as server:
        assert await told(server) == before
        await server.index_ready()
        assert await told(server) == before
        # What is in the old index is forgotten once the new one answers.
        await until(rebuilt)


async def test_what_users_wrote_is_for_the_servers_account_alone(start: StartServer, tmp_path: Path) -> None:
    async with start() as server:
        await server.client.capture(user_id="u", text="I love hiking")
        await server.index_caught_up()
        modes = {path.name: path.stat().st_mode & 0o777 for path in server.data.glob("record.sqlite3*")}
        assert modes == dict.fromkeys(("record.sqlite3", "record.sqlite3-wal", "record.sqlite3-shm"), 0o600)
        (generation,) = (path for path in (server.data / "index").iterdir() if path.is_dir())
        assert {path.stat().st_mode & 0o777 for path in (server.data, generation)} == {0o700}
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o750)
    async with start(shared):
        assert shared.stat().st_mode & 0o777 == 0o750


def test_every_admin_call_is_tried_here_or_with_adapters_or_mixes() -> None:
    tried = {"GetServerInfo", "RebuildIndex", "GetJob", "ListJobs", "CancelJob"}
    tried |= {"ListAdapters", "LoadAdapter", "ActivateAdapter", "UnloadAdapter"}
    tried |= {"LearnMix", "ListMixes", "UseMix"}
    tried |= {"StartExperiment", "StopExperiment", "GetExperiment"}
    assert tried == {m.name for m in admin.DESCRIPTOR.services_by_name["AdminService"].methods}
