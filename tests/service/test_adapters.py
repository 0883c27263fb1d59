"""Adapters that switch live: nothing is lost, no space is mixed, and whatever happens one space stays whole."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import sqlite3
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock

import grpc
import numpy as np
import pytest
import sqlalchemy as sa
import torch
from harness import Server, StartServer, catalogue, command, connected, in_process, own_process, refused, until
from peft import PeftModel

from penchant.exceptions import WrongStateError
from penchant.v1.admin_service_pb2 import (
    ActivateAdapterRequest,
    AdapterState,
    JobState,
    LoadAdapterRequest,
    StartExperimentRequest,
    StopExperimentRequest,
    UnloadAdapterRequest,
)
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import Interest
from penchant.v1.recommendation_service_pb2 import FindUsersRequest
from penchant.v1.signal_pb2 import Post, Signal
from penchant_finetune.log import live_encoder
from penchant_pipelines import model
from penchant_pipelines.encoder import Encoder, EncoderSettings, Vectors, adapter
from penchant_pipelines.encoder.adapter import WEIGHTS, open_adapter, read_manifest
from penchant_pipelines.encoder.sentence import BILINGUAL, file_sha256
from penchant_pipelines.errors import InvalidInput, Unavailable, WrongState
from penchant_pipelines.index import IndexUnavailable, relay
from penchant_pipelines.index.chroma import EmbeddedStore
from penchant_pipelines.interests import Blender, Calibration, InterestSettings, Recipe, pack
from penchant_pipelines.memory import settle
from penchant_pipelines.reader import Reader
from penchant_pipelines.record import Record, rows, schema
from penchant_pipelines.spaces import adapters, experiment, stock
from penchant_pipelines.spaces.experiment import Experiment
from penchant_pipelines.text import TextPipeline, TextSettings

# peft asks transformers in a way that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

WORDS = ["Hiking", "Jazz", "Bread", "Stars", "Chess", "Tulips", "Sailing", "Judo", "Coffee", "Trains"]
PLACES = ["the Alps", "Paris", "a kitchen", "winter", "the dark", "school", "the sea", "spring"]
TEXTS = [f"{what} in {where}" for what, where in itertools.product(WORDS, PLACES)]
LOADED, BUILDING, STANDBY, LIVE = (
    AdapterState.Value(f"ADAPTER_STATE_{name}") for name in ("LOADED", "BUILDING", "STANDBY", "LIVE")
)
MakeAdapter = Callable[[Path, int], Path]
READER = Reader(TextPipeline(TextSettings()))


def as_read(text: str) -> str:
    """What the encoder is given of a post."""
    return READER.post(model.Post(text))[0].text


@pytest.fixture(scope="module")
def books(make_adapter: MakeAdapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapters") / "books", 0)


@pytest.fixture(scope="module")
def adapted(books: Path, encoder: Encoder) -> Encoder:
    return open_adapter(EncoderSettings(), books, encoder)


@pytest.fixture
def shelf(data: Path, books: Path) -> Path:
    """The server's adapter directory, with one adapter in it."""
    shutil.copytree(books, data / "adapters" / "books")
    return data / "adapters"


def signal(number: int, user: str = "") -> Signal:
    text = TEXTS[number * 7 % len(TEXTS)]
    return Signal(id=f"s-{number}", user_id=user or f"u-{number % 10}", post=Post(text=text))


async def seed(server: Server, items: int, signals: int) -> None:
    texts = [TEXTS[number % len(TEXTS)] for number in range(items)]
    upserted = await server.client.upsert_items(
        [Item(id=f"i-{number}", title=f"{text} {number}") for number, text in enumerate(texts)]
    )
    assert upserted.upserted_count == items
    results = [result async for result in server.client.capture_many(signal(n) for n in range(signals))]
    assert [result.error for result in results if result.error] == []
    # A behaviour on an item, and one on an item that comes later or never.
    await server.client.behave(user_id="u-0", item_id="i-1", action="like", id="likes")
    await server.client.behave(user_id="u-0", item_id="nowhere", action="save", id="waits")


async def activated(server: Server, adapter_id: str, standby: bool = False) -> None:
    job = await server.client.wait_for_job((await server.client.activate_adapter(adapter_id, standby=standby)).id)
    assert (job.state, job.error.message) == (JobState.JOB_STATE_SUCCEEDED, "")


async def states(server: Server) -> dict[str, int]:
    return {adapter.id: adapter.state for adapter in await server.client.adapters()}


def check_record(data: Path, encoders: Iterable[Encoder]) -> None:
    """Every space of the record holds every signal, as its own encoder reads it, and the profiles that follow."""
    by_id = {encoder.space_id: encoder for encoder in encoders}
    record = Record(data)
    try:
        with record.read() as connection:
            spaces = connection.execute(sa.select(schema.spaces)).all()
            assert {row.space_id for row in spaces} == set(by_id)
            signals = connection.execute(sa.select(schema.signals)).all()
            for space in spaces:
                held = schema.signal_vectors
                query = sa.select(held.c.seq, held.c.vector).where(held.c.space == space.key)
                vectors = {row.seq: rows.to_vector(row.vector) for row in connection.execute(query)}
                assert set(vectors) == {row.seq for row in signals}
                posts = [row for row in signals if row.action is None and not row.item_id][::5]
                expected = by_id[space.space_id].encode([as_read(row.text) for row in posts])
                for row, vector in zip(posts, expected, strict=True):
                    held_vector = vectors[row.seq]
                    assert held_vector is not None
                    np.testing.assert_allclose(held_vector, vector, atol=1e-4)
                recipe = Recipe(InterestSettings(), stock.calibration_of(space), space.space_id)
                for user in connection.execute(sa.select(schema.users)).all():
                    profiles = schema.profiles
                    kept = connection.execute(
                        sa.select(profiles).where(profiles.c.user_key == user.key, profiles.c.space == space.key)
                    ).one()
                    assert kept.recipe == recipe.digest
                    events = rows.user_events(connection, space.key, user.key)
                    assert kept.profile == pack(Blender(recipe).replay(events))
                items = sa.select(sa.func.count()).select_from(schema.items)
                held_items = sa.select(sa.func.count()).where(schema.item_vectors.c.space == space.key)
                assert connection.execute(held_items).scalar() == connection.execute(items).scalar()
    finally:
        record.close()


class Traffic:
    """Callers that write and read without a pause, and what they were answered."""

    def __init__(self, server: Server, encoders: Iterable[Encoder]) -> None:
        self._client = server.client
        self._numbers = itertools.count(10_000)
        self._fixed = {encoder.space_id: encoder.encode([as_read(TEXTS[0])])[0] for encoder in encoders}
        self._ended = False
        self.captured: list[str] = []
        self.seen: Counter[tuple[str, str]] = Counter()
        self.order: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self._client.capture(user_id="fixed", text=TEXTS[0], id="fixed")
        lanes = [self._capture, self._capture, self._read, self._recommend, self._recommend, self._upsert]
        tasks = [asyncio.create_task(self._loop(lane)) for lane in lanes]
        try:
            yield
        finally:
            self._ended = True
            await asyncio.gather(*tasks)  # raises what any call was refused with

    async def _loop(self, lane: Callable[[], object]) -> None:
        while not self._ended:
            await lane()  # type: ignore[misc]

    async def _capture(self) -> None:
        number = next(self._numbers)
        answer = await self._client.capture_signal(signal(number))
        self.captured.append(answer.signal_id)
        self._note("capture", answer.space_id)

    async def _read(self) -> None:
        profile = await self._client.profile("fixed", include_vectors=True)
        self._note("profile", profile.space_id)
        self.order.append(profile.space_id)
        # One text, so the interest lies where the space that is named puts that text, and nowhere else.
        cosine = float(np.array(profile.interests[0].vector) @ self._fixed[profile.space_id])
        assert cosine == pytest.approx(1, abs=1e-4)

    async def _recommend(self) -> None:
        answer = await self._client.recommend(f"u-{next(self._numbers) % 10}", page_size=5, explain=True)
        assert len(answer.recommendations) == 5
        self._note("recommend", answer.space_id)

    async def _upsert(self) -> None:
        number = next(self._numbers) % 50
        await self._client.upsert_items([Item(id=f"i-{number}", title=f"{TEXTS[number]} anew")])

    def _note(self, kind: str, space_id: str) -> None:
        assert space_id in self._fixed
        self.seen[kind, space_id] += 1


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_an_activation_under_traffic_loses_nothing_and_mixes_nothing(
    start: StartServer, data: Path, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await seed(server, items=150, signals=300)
        await server.index_ready()
        loaded = await server.client.load_adapter("books")
        assert (loaded.state, loaded.space_id, dict(loaded.metrics)) == (LOADED, adapted.space_id, {"recall@10": 0.25})
        own = next(adapter for adapter in await server.client.adapters() if not adapter.id)
        manifest = read_manifest(BILINGUAL)
        assert (own.sha256, dict(own.metrics)) == (manifest.files[WEIGHTS], manifest.metrics)
        traffic = Traffic(server, [encoder, adapted])
        async with traffic.running():
            await asyncio.sleep(0.5)
            job = await server.client.activate_adapter("books")
            assert job.state == JobState.JOB_STATE_RUNNING
            assert (await states(server))["books"] in (LOADED, BUILDING)
            job = await server.client.wait_for_job(job.id)
            assert (job.state, job.error.message) == (JobState.JOB_STATE_SUCCEEDED, "")
            assert job.done_count == job.total_count > 450
            await asyncio.sleep(0.5)
        for kind in ("capture", "profile", "recommend"):
            assert traffic.seen[kind, encoder.space_id] > 0
            assert traffic.seen[kind, adapted.space_id] > 0
        # Switched once, for good.
        assert [space for space, _ in itertools.groupby(traffic.order)] == [encoder.space_id, adapted.space_id]
        info = await server.client.server_info()
        assert (info.space_id, info.adapter_id) == (adapted.space_id, "books")
        assert await states(server) == {"": STANDBY, "books": LIVE}
        await server.client.capture(user_id="fixed", text=TEXTS[0], id="after")

        began = time.perf_counter()
        back = await server.client.activate_adapter("")
        took = time.perf_counter() - began
        assert back.state == JobState.JOB_STATE_SUCCEEDED
        assert took < 1
        assert await states(server) == {"": LIVE, "books": STANDBY}
        profile = await server.client.profile("fixed", include_vectors=True)
        assert profile.space_id == encoder.space_id
        # What came while the other was live is here too.
        assert profile.interests[0].signal_count == 2
        found = {listed.id for user in range(10) for listed in [s async for s in server.client.signals(f"u-{user}")]}
        assert set(traffic.captured) <= found
        await server.index_caught_up()
        assert not (await server.client.recommend("u-1")).degraded
    check_record(data, [encoder, adapted])


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_server_that_is_killed_in_mid_activation_goes_on_by_itself(
    data: Path, shelf: Path, encoder: Encoder, adapted: Encoder, tmp_path: Path
) -> None:
    done = 0
    job_id = ""
    # At first while it is not even known how much there is to do.
    for attempt, share in enumerate((0.0, 0.2, 0.7)):
        with own_process(data, tmp_path / f"log-{attempt}") as process:
            async with connected(process.address, data) as server:
                if not attempt:
                    await seed(server, items=100, signals=200)
                    await server.client.load_adapter("books")
                    job_id = (await server.client.activate_adapter("books")).id

                async def far_enough(server: Server = server, share: float = share, job_id: str = job_id) -> bool:
                    job = await server.client.job(job_id)
                    assert job.state == JobState.JOB_STATE_RUNNING
                    return not share or (job.total_count > 0 and job.done_count >= share * job.total_count)

                await until(far_enough, seconds=60)
                # The old space serves, whole, all the while.
                assert (await server.client.server_info()).space_id == encoder.space_id
                await server.client.capture_signal(signal(500 + attempt))
                done = (await server.client.job(job_id)).done_count
            process.kill()
    with own_process(data, tmp_path / "log-last") as process:
        async with connected(process.address, data) as server:

            async def counted(server: Server = server) -> bool:
                return (await server.client.job(job_id)).total_count > 0

            await until(counted, seconds=60)
            job = await server.client.job(job_id)
            assert job.done_count >= done // 2  # what was done is not done again
            job = await server.client.wait_for_job(job_id)
            assert (job.state, job.error.message) == (JobState.JOB_STATE_SUCCEEDED, "")
            assert (await server.client.server_info()).space_id == adapted.space_id
            assert (await server.client.activate_adapter("")).state == JobState.JOB_STATE_SUCCEEDED
            assert await server.signal_count() == 205
    check_record(data, [encoder, adapted])


async def test_a_cancelled_activation_leaves_the_live_space_whole(
    start: StartServer, data: Path, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await seed(server, items=100, signals=60)
        await server.index_ready()
        await server.client.load_adapter("books")
        before = await server.client.profile("u-1", include_vectors=True)
        job = await server.client.activate_adapter("books")

        async def begun() -> bool:
            return (await server.client.job(job.id)).done_count > 0

        await until(begun)
        assert (await refused(server.rpc("UnloadAdapter")(UnloadAdapterRequest(adapter_id="books")))).reason
        assert (await refused(server.rpc("ActivateAdapter")(ActivateAdapterRequest(adapter_id="books")))).reason == (
            "JOB_RUNNING"
        )
        assert (await server.client.cancel_job(job.id)).state == JobState.JOB_STATE_CANCELLED
        assert await states(server) == {"": LIVE, "books": LOADED}
        after = await server.client.profile("u-1", include_vectors=True)
        assert after.interests[0].vector == before.interests[0].vector
        assert not (await server.client.recommend("u-1")).degraded
        assert len(list((data / "index").glob("g-*"))) == 1
        with_one = data.parent / "copy"
        shutil.copytree(data, with_one, ignore=shutil.ignore_patterns("lock"))
        check_record(with_one, [encoder])
        # Nothing stands in the way of another attempt.
        await activated(server, "books")
        assert await states(server) == {"": STANDBY, "books": LIVE}
        await server.client.unload_adapter("")
        assert await states(server) == {"": LOADED, "books": LIVE}
    check_record(data, [adapted])


def record_bytes(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in data.glob("record.sqlite3*"))


async def test_who_is_erased_during_an_activation_is_in_no_space(
    start: StartServer, data: Path, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    secret = "My neighbour Zebulon keeps ostriches in his attic"
    async with start() as server:
        await seed(server, items=60, signals=60)
        await server.client.capture(user_id="gone", text=secret)
        await server.client.steer("gone", topic="ostriches", bias=1)
        await server.client.load_adapter("books")
        job = await server.client.activate_adapter("books")

        async def begun() -> bool:
            return (await server.client.job(job.id)).done_count > 0

        await until(begun)
        await server.client.capture(user_id="gone", text=secret, id="late")
        receipt = await server.client.delete_user("gone")
        assert receipt.signals_deleted == 2
        assert (await server.client.wait_for_job(job.id)).state == JobState.JOB_STATE_SUCCEEDED
    check_record(data, [encoder, adapted])
    needles = [secret.encode(), *(one.encode([as_read(secret)])[0].tobytes() for one in (encoder, adapted))]
    whole = record_bytes(data)
    assert [needle in whole for needle in needles] == [False] * 3


async def nearest(server: Server, encoder: Encoder, text: str) -> Interest:
    """The interest of the user "u" that lies nearest to a text, as this encoder reads it."""
    vector = encoder.encode([as_read(text)])[0]
    profile = await server.client.profile("u", include_vectors=True)
    return max(profile.interests, key=lambda interest: float(np.array(interest.vector) @ vector))


async def test_the_users_word_holds_in_the_other_space(
    start: StartServer, data: Path, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await server.client.upsert_items(catalogue())
        for text in ("I love hiking on mountain trails", "Jazz piano all night"):
            await server.client.capture(user_id="u", text=text)
        jazz = await nearest(server, encoder, "Jazz piano all night")
        await server.client.steer("u", interest_id=jazz.id, muted=True)
        await server.client.steer("u", topic="astronomy", bias=1)
        await server.client.load_adapter("books")
        await activated(server, "books", standby=True)
        # Said while both are kept, about an interest of the live one.
        hiking = await nearest(server, encoder, "I love hiking on mountain trails")
        await server.client.steer("u", interest_id=hiking.id, pinned=True)
        await activated(server, "books")
        assert (await server.client.profile("u")).space_id == adapted.space_id
        texts = ("I love hiking on mountain trails", "Jazz piano all night", "astronomy")
        told = [(await nearest(server, adapted, text)).steering for text in texts]
        assert [steering.pinned for steering in told] == [True, False, False]
        assert [steering.muted for steering in told] == [False, True, False]
        assert [steering.bias for steering in told] == [0, 0, 1]
    check_record(data, [encoder, adapted])


async def test_a_live_adapter_is_served_after_a_restart_and_left_when_it_is_gone(
    start: StartServer, data: Path, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await seed(server, items=20, signals=30)
        await server.client.load_adapter("books")
        assert live_encoder(data, EncoderSettings()) == (EncoderSettings(), encoder.space_id)
        await activated(server, "books")
        # What is fine-tuned next has to beat the adapter that serves now.
        assert live_encoder(data, EncoderSettings()) == (EncoderSettings(adapter=shelf / "books"), adapted.space_id)
        await server.client.unload_adapter("")
    async with start() as server:
        assert (await server.client.server_info()).space_id == adapted.space_id
        assert not (await server.client.recommend("u-1")).degraded
        await server.client.capture_signal(signal(700))
    check_record(data, [adapted])
    shutil.rmtree(shelf / "books")
    async with start() as server:
        # All was brought into the space of the settings' encoder before the first call.
        assert (await server.client.server_info()).space_id == encoder.space_id
        assert await states(server) == {"": LIVE}
        assert len(await server.recommended("u-1", page_size=5)) == 5
        assert await server.signal_count() == 33
    check_record(data, [encoder])


async def test_an_adapter_that_is_out_of_reach_at_a_start_loses_nothing(
    start: StartServer, data: Path, shelf: Path, adapted: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = data.parent / "elsewhere"
    async with start() as server:
        await seed(server, items=4, signals=4)
        await server.client.load_adapter("books")
        await activated(server, "books")
    # Of another owner, for want of memory, with a hub that is away.
    for module, name, fault, told in (
        (adapter, "file_sha256", PermissionError("another's"), Unavailable),
        (PeftModel, "from_pretrained", torch.OutOfMemoryError("too little"), Unavailable),
        (adapter, "open_model", WrongState("MODEL_UNREADABLE", "the hub is away"), WrongState),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, Mock(side_effect=fault))
            with pytest.raises(told):
                async with start():
                    pass
    shutil.move(shelf, elsewhere)
    with pytest.raises(InvalidInput, match=r"encoder\.adapters: there is no folder"):
        async with start(**{"encoder.adapters": f"{elsewhere}s"}):
            pass
    async with start(**{"encoder.adapters": str(elsewhere)}) as server:
        assert (await server.client.server_info()).space_id == adapted.space_id
        assert await states(server) == {"": STANDBY, "books": LIVE}


async def test_a_stopped_server_takes_its_activation_up_again(
    start: StartServer, data: Path, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await seed(server, items=100, signals=60)
        await server.client.load_adapter("books")
        job = await server.client.activate_adapter("books", standby=True)

        async def begun() -> bool:
            return (await server.client.job(job.id)).done_count > 0

        await until(begun)
    async with start() as server:
        await server.client.capture_signal(signal(900))
        job = await server.client.wait_for_job(job.id)
        assert (job.state, job.error.message) == (JobState.JOB_STATE_SUCCEEDED, "")
        assert await states(server) == {"": LIVE, "books": STANDBY}
    check_record(data, [encoder, adapted])


class Breaking:
    """An encoder whose machine fails after some texts."""

    def __init__(self, encoder: Encoder, texts: int) -> None:
        self._encoder = encoder
        self._left = texts
        self.space_id, self.dimensions = encoder.space_id, encoder.dimensions
        self.base_model, self.adapter_id, self.device = encoder.base_model, encoder.adapter_id, encoder.device

    def encode(self, texts: Sequence[str]) -> Vectors:
        self._left -= len(texts)
        if self._left < 0:
            raise MemoryError
        return self._encoder.encode(texts)


@pytest.mark.parametrize("measured", [True, False], ids=["", "from-a-space-whose-middle-was-never-measured"])
async def test_another_encoder_in_the_settings_reads_everything_anew_before_the_first_call(
    data: Path,
    encoder: Encoder,
    adapted: Encoder,
    calibrated_once: Callable[[Any], Calibration],
    measured: bool,
) -> None:
    calibrated_once(adapted.encode)
    async with in_process(data, encoder) as server:
        await seed(server, items=200, signals=60)
        await server.client.steer("u-1", topic="astronomy", bias=1)
    if not measured:
        with closing(sqlite3.connect(data / "record.sqlite3")) as record, record:
            record.execute("UPDATE spaces SET similarity = NULL, middle = NULL")
    # The first attempt is cut off; what it has done is not lost, and the old space is whole.
    with pytest.raises(MemoryError):
        async with in_process(data, Breaking(adapted, 150)):
            pass
    async with in_process(data, Breaking(adapted, 250)) as server:
        assert (await server.client.server_info()).space_id == adapted.space_id
        profile = await server.client.profile("u-1")
        assert (profile.space_id, profile.signal_count) == (adapted.space_id, 6)
        assert any(interest.steering.bias == 1 for interest in profile.interests)
        assert len(await server.recommended("u-1", page_size=5)) == 5
    check_record(data, [adapted])


async def test_a_comment_without_a_word_says_what_its_item_says_in_every_space(
    data: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with in_process(data, encoder) as server:
        await server.client.upsert_items(catalogue())
        await server.client.capture(user_id="u", text="🎺🎺 10/10", item_id="jazz-0")
        await server.client.behave(user_id="v", item_id="jazz-0", action="like")
    for served in (encoder, adapted):
        async with in_process(data, served) as server:
            one, other = [(await server.client.profile(user, include_vectors=True)).interests[0] for user in "uv"]
            assert list(one.vector) == pytest.approx(list(other.vector), abs=1e-6)
            assert one.label == other.label


def with_pickle(folder: Path) -> None:
    torch.save({}, folder / "optimizer.pt")


def with_other_weights(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("damage", "reason"), [(with_pickle, "ADAPTER_UNSAFE"), (with_other_weights, "ADAPTER_ALTERED")]
)
async def test_a_bad_adapter_is_refused(
    server: Server, shelf: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(shelf / "books")
    found = await refused(server.rpc("LoadAdapter")(LoadAdapterRequest(adapter_id="books")))
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    assert await states(server) == {"": LIVE}


async def test_an_adapter_is_named_not_found_by_a_path(server: Server, shelf: Path, books: Path) -> None:
    async def load(adapter_id: str) -> tuple[grpc.StatusCode, str]:
        found = await refused(server.rpc("LoadAdapter")(LoadAdapterRequest(adapter_id=adapter_id)))
        return found.code, found.reason

    assert await load("absent") == (grpc.StatusCode.NOT_FOUND, "ADAPTER_NOT_FOUND")
    for path in ("..", ".", "../adapters/books", "books/", str(books)):
        assert (await load(path))[0] is grpc.StatusCode.INVALID_ARGUMENT
    (shelf / "link").symlink_to(books)
    assert (await load("link"))[1] == "ADAPTER_UNSAFE"
    unloaded = await refused(server.rpc("ActivateAdapter")(ActivateAdapterRequest(adapter_id="books")))
    assert unloaded.reason == "ADAPTER_NOT_LOADED"
    assert (await refused(server.rpc("UnloadAdapter")(UnloadAdapterRequest()))).reason == "ADAPTER_LIVE"


async def test_an_activation_that_has_only_just_begun_is_not_unloaded(server: Server, data: Path, shelf: Path) -> None:
    await server.client.load_adapter("books")
    job = await server.client.activate_adapter("books")
    assert await states(server) == {"": LIVE, "books": BUILDING}
    unload = server.rpc("UnloadAdapter")(UnloadAdapterRequest(adapter_id="books"))
    assert (await refused(unload)).reason == "JOB_RUNNING"
    await server.client.cancel_job(job.id)
    assert await states(server) == {"": LIVE, "books": LOADED}
    with closing(sqlite3.connect(data / "record.sqlite3")) as record:
        assert record.execute("SELECT adapter_id, state FROM spaces").fetchall() == [("", "live")]
    await server.client.unload_adapter("books")


async def test_the_model_of_an_unloaded_adapter_takes_no_memory(
    server: Server, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Encoder]] = []

    def noted(*arguments: Any) -> Encoder:
        encoder = open_adapter(*arguments)
        opened.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(stock, "open_adapter", noted)
    await server.client.load_adapter("books")
    await activated(server, "books")
    settle()  # as a start does
    assert (await server.client.activate_adapter("")).state == JobState.JOB_STATE_SUCCEEDED
    assert opened[0]() is not None
    await server.client.unload_adapter("books")
    assert [encoder() for encoder in opened] == [None]


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_is_asked_at_once_one_space_is_live_and_whole(
    start: StartServer, data: Path, shelf: Path, encoder: Encoder, adapted: Encoder, seed: int
) -> None:
    random = Random(seed)
    names = itertools.count()

    async def asked(server: Server) -> None:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: server.client.activate_adapter("books"),
            lambda: server.client.activate_adapter("books", standby=True),
            lambda: server.client.activate_adapter(""),
            lambda: server.client.unload_adapter("books"),
            lambda: server.client.load_adapter("books"),
            lambda: server.client.start_experiment(f"e-{next(names)}", "books", share=0.5),
            lambda: server.client.stop_experiment(),
        ]

        async def some() -> None:
            await asyncio.sleep(random.random() / 50)
            with contextlib.suppress(WrongStateError):
                await random.choice(calls)()

        # Captures beside it keep the record's writer busy, so that what is asked meets in between.
        writes = (server.client.capture_signal(signal(1000 * seed + next(names), "ann")) for _ in range(20))
        await asyncio.gather(*(some() for _ in range(12)), *writes)

    async with start() as server:
        await server.client.load_adapter("books")
        await activated(server, "books", standby=True)
        for _ in range(4):
            await asked(server)
            await server.index_ready()
            found = await states(server)
            assert list(found.values()).count(LIVE) == 1
            assert set(found.values()) <= {LIVE, STANDBY, LOADED}
            captured = await server.client.capture_signal(signal(100_000 * (seed + 1) + next(names)))
            assert captured.profile_version
    async with start() as server:
        assert await states(server) == {name: state for name, state in found.items() if state != LOADED} | (
            {"": found[""]} if found[""] == LOADED else {}
        )
    kept = {"": encoder, "books": adapted}
    check_record(data, [kept[name] for name, state in found.items() if state != LOADED])


async def test_who_watches_is_told_of_the_profiles_in_another_space(
    start: StartServer, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await server.client.capture(user_id="u", text="Jazz piano all night")
        await server.client.load_adapter("books")
        async with (
            aclosing(server.client.watch(["u"], drift_only=True)) as named,
            aclosing(server.client.watch()) as everybody,
            asyncio.timeout(60),
        ):
            spaces = [[(await anext(told)).space_id] for told in (named, everybody)]
            await activated(server, "books", standby=True)
            await server.client.start_experiment("all", "books", 1.0)
            moved = await anext(named)
            assert (moved.user_id, moved.version, moved.space_id) == ("u", 1, adapted.space_id)
            assert moved.interests[0].id == (await server.client.profile("u")).interests[0].id
            assert (await anext(everybody)).space_id == encoder.space_id
            await server.client.stop_experiment()
            await activated(server, "books")
            for told, seen in zip((named, everybody), spaces, strict=True):
                seen += [(await anext(told)).space_id, (await anext(told)).space_id]
                assert seen == [encoder.space_id, encoder.space_id, adapted.space_id]


async def test_an_experiment_serves_a_share_of_the_users_and_is_evaluated(
    start: StartServer, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await seed(server, items=20, signals=40)
        begin = StartExperimentRequest(name="books-1", adapter_id="books", share=0.5)
        loaded = await server.client.load_adapter("books")
        assert loaded.sha256 == file_sha256(shelf / "books" / WEIGHTS)
        assert abs(time.time() - loaded.load_time.seconds) < 60
        assert (await refused(server.rpc("StartExperiment")(begin))).reason == "ADAPTER_NOT_STANDBY"
        with pytest.raises(WrongStateError, match="adapter '' serves everybody already; name the one to try"):
            await server.client.start_experiment("none", "", 0.5)
        await activated(server, "books", standby=True)
        assert await states(server) == {"": LIVE, "books": STANDBY}
        running, late = await asyncio.gather(
            *(server.client.start_experiment(name, "books", 0.5) for name in ("books-1", "at-once")),
            return_exceptions=True,
        )
        assert not isinstance(running, BaseException)
        assert isinstance(late, WrongStateError)
        assert late.reason == "EXPERIMENT_RUNNING"
        assert (running.control_space_id, running.trial_space_id) == (encoder.space_id, adapted.space_id)
        assert (await refused(server.rpc("StartExperiment")(begin))).reason == "EXPERIMENT_RUNNING"
        assert (await refused(server.rpc("UnloadAdapter")(UnloadAdapterRequest(adapter_id="books")))).reason == (
            "EXPERIMENT_RUNNING"
        )
        users = [f"u-{number}" for number in range(10)]
        arms = await self_consistent(server, users)
        assert set(arms.values()) == {encoder.space_id, adapted.space_id}
        known = Experiment("books-1", "books", 0.5, "", "", 0)
        assert arms == {user: (adapted if known.takes(user) else encoder).space_id for user in users}
        for number, user in enumerate(users):
            # Who is served by the trial likes what comes, the others hide it.
            liked = arms[user] == adapted.space_id
            answer = await server.client.recommend(user, page_size=3)
            assert answer.space_id == arms[user]
            for place in answer.recommendations:
                await server.client.behave(
                    user_id=user,
                    item_id=place.item_id,
                    action="like" if liked else "hide",
                    attribution_token=answer.attribution_token,
                )
            await server.client.behave(user_id=user, item_id=f"i-{number}", action="like")  # no token, no arm
        await server.client.behave(user_id="idle", item_id="nowhere", action="view")  # no list, but there
        report = await server.client.experiment()
        trial_users = sum(space_id == adapted.space_id for space_id in arms.values())
        assert (report.trial.user_count, report.control.user_count) == (trial_users, 10 - trial_users)
        assert report.trial.signal_count + report.control.signal_count == 30
        assert (report.trial.list_count, report.trial.space_id) == (trial_users, adapted.space_id)
        assert (report.trial.positive_rate.value, report.trial.negative_rate.value) == (1, 0)
        assert (report.control.positive_rate.value, report.control.negative_rate.value) == (0, 1)
        assert report.positive_difference.low == report.positive_difference.high == 1
        assert report.negative_difference.low == report.negative_difference.high == -1
        assert report.trial.active_user_count + report.control.active_user_count == 11
        assert report.trial.positive_per_user.value == pytest.approx(3 * trial_users / report.trial.active_user_count)
        assert report.control.negative_per_user.value > report.trial.negative_per_user.value == 0
        assert report.positive_per_user_difference.value == report.trial.positive_per_user.value
        assert report.negative_per_user_difference.value == -report.control.negative_per_user.value
        # Users are compared with each other in one space only.
        found = await server.client.call(FindUsersRequest(text="Hiking in the Alps"))
        assert found.space_id == encoder.space_id
        assert {arms[match.user_id] for match in found.matches} == {encoder.space_id, adapted.space_id}
    async with start() as server:
        # It outlives a restart, and everybody stays where he was.
        assert await self_consistent(server, users) == arms
        assert (await server.client.stop_experiment()).end_time.seconds > 0
        assert set((await self_consistent(server, users)).values()) == {encoder.space_id}
        assert (await refused(server.rpc("StartExperiment")(begin))).code is grpc.StatusCode.ALREADY_EXISTS
        await server.client.start_experiment("second", "books", 1)
        assert set((await self_consistent(server, users)).values()) == {adapted.space_id}
        # A switch ends it.
        await activated(server, "books")
        second = (await server.client.experiment()).experiment
        assert (second.name, second.adapter_id, second.share) == ("second", "books", 1)
        assert second.end_time.ToMicroseconds() > second.start_time.ToMicroseconds()
        assert (await server.client.experiment("books-1")).trial.signal_count == report.trial.signal_count


async def test_an_experiment_that_could_not_be_stopped_goes_on_and_can_be(
    start: StartServer, shelf: Path, adapted: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as server:
        await seed(server, items=5, signals=10)
        await server.client.load_adapter("books")
        await activated(server, "books", standby=True)
        await server.client.start_experiment("all", "books", 1)
        with monkeypatch.context() as patch:
            patch.setattr(experiment, "end", unwritable)
            assert (await refused(server.rpc("StopExperiment")(StopExperimentRequest()))).reason == "RECORD_UNWRITABLE"
        assert set((await self_consistent(server, ["u-1"])).values()) == {adapted.space_id}
        assert (await server.client.stop_experiment()).HasField("end_time")


async def test_an_activation_that_fails_as_it_switches_can_be_asked_for_again(
    start: StartServer, data: Path, shelf: Path, adapted: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as server:
        await seed(server, items=5, signals=10)
        await server.client.load_adapter("books")
        with monkeypatch.context() as patch:
            patch.setattr(experiment, "end", unwritable)
            job = await server.client.wait_for_job((await server.client.activate_adapter("books")).id)
            assert (job.state, job.error.message) == (JobState.JOB_STATE_FAILED, "the disk is full")
            assert await states(server) == {"": LIVE, "books": LOADED}
        await activated(server, "books")
        assert await states(server) == {"": STANDBY, "books": LIVE}


async def test_what_an_unload_could_not_delete_is_deleted_later(
    start: StartServer, data: Path, shelf: Path, adapted: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> tuple[int, int]:
        with closing(sqlite3.connect(data / "record.sqlite3")) as record:
            spaces = record.execute("SELECT count(*) FROM spaces").fetchone()[0]
            return spaces, record.execute("SELECT count(*) FROM generations").fetchone()[0]

    async def kept_alone() -> bool:
        return left() == (1, 1) and len(list((data / "index").glob("g-*"))) == 1

    monkeypatch.setattr(relay, "TIDY_SECONDS", 0.05)
    monkeypatch.setattr(adapters, "UNWRITABLE_SECONDS", 0.05)
    async with start() as server:
        await seed(server, items=5, signals=10)
        await server.index_ready()
        await server.client.load_adapter("books")
        await activated(server, "books", standby=True)
        with monkeypatch.context() as patch:
            patch.setattr(EmbeddedStore, "drop", out_of_reach)
            with patch.context() as disk:
                disk.setattr(adapters, "drop_rows", unwritable)
                unloading = asyncio.create_task(server.client.unload_adapter("books"))
                await asyncio.sleep(0.3)
                assert left() == (2, 2)
            await unloading
            assert left() == (1, 1)
            assert not await kept_alone()
        await until(kept_alone)


def unwritable(*_: object) -> None:
    raise Unavailable("RECORD_UNWRITABLE", "the disk is full")


def out_of_reach(*_: object) -> None:
    raise IndexUnavailable("it can't be reached")


async def self_consistent(server: Server, users: Iterable[str]) -> dict[str, str]:
    """The space of each user, which every kind of answer names."""
    found = {}
    for user in users:
        profile = await server.client.profile(user)
        answers: list[Any] = [
            await server.client.recommend(user, page_size=2),
            await server.client.rerank(user, ["i-1", "i-2"]),
            await server.client.capture(user_id=user, text="More Chess in winter"),
            await server.client.explain(user, profile.interests[0].id),
        ]
        assert {answer.space_id for answer in answers} == {profile.space_id}
        found[user] = profile.space_id
    return found


@pytest.mark.slow
async def test_the_command_line_leads_through_the_life_of_an_adapter(
    start: StartServer, shelf: Path, encoder: Encoder, adapted: Encoder
) -> None:
    async with start() as server:
        await seed(server, items=20, signals=40)
        code, _, told = await command(server, "adapters", "rollback")
        assert (code, "none" in told) == (1, True)
        code, out, _ = await command(server, "adapters", "activate", "books", "--standby", "--wait")
        assert (code, "succeeded" in out) == (0, True)
        code, out, _ = await command(server, "adapters", "list")
        assert code == 0
        lines = {line.split()[0]: line.split()[1:3] for line in out.splitlines()[1:]}
        assert lines == {"(settings)": ["live", encoder.space_id], "books": ["standby", adapted.space_id]}
        code, _, told = await command(server, "adapters", "experiment", "report")
        assert (code, "there is no experiment yet" in told) == (1, True)
        code, out, _ = await command(server, "adapters", "experiment", "start", "autumn", "books", "--share", "0.25")
        assert (code, "25% of the users by books" in out) == (0, True)
        code, out, _ = await command(server, "adapters", "experiment", "report", "--json")
        assert json.loads(out)["experiment"]["trial_space_id"] == adapted.space_id
        code, _, told = await command(server, "adapters", "unload", "books")
        assert (code, "experiment" in told) == (1, True)
        code, _, told = await command(server, "adapters", "activate", "books", "--wait")
        assert (code, "ends experiment autumn" in told) == (0, True)
        assert (await server.client.server_info()).space_id == adapted.space_id
        code, out, told = await command(server, "adapters", "rollback", "--json")
        assert "experiment" not in told
        assert json.loads(out)["state"] == "JOB_STATE_SUCCEEDED"
        assert (await server.client.server_info()).space_id == encoder.space_id
        code, out, _ = await command(server, "adapters", "experiment", "report", "autumn")
        assert [line.split()[0] for line in out.splitlines()[2:4]] == ["control", "trial"]
        assert (await command(server, "adapters", "unload", "books", "--json"))[:2] == (0, "{}\n")
        assert await states(server) == {"": LIVE}
        code, _, told = await command(server, "adapters", "load", "absent")
        assert (code, "absent" in told) == (1, True)
