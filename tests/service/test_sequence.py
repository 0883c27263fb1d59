"""An adapter's sequence model in a running server: it is asked, it is checked, it keeps nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
from harness import Server, catalogue, connected, refused, topics
from sequence_logs import likes_daily

from penchant.app import serve
from penchant.exceptions import WrongStateError
from penchant.settings import load_settings
from penchant.v1.admin_service_pb2 import JobState, LoadAdapterRequest
from penchant.v1.recommendation_service_pb2 import Candidate, RecommendResponse, RerankResponse
from penchant_finetune.sequence import SequenceSettings, train_sequence
from penchant_finetune.sequence_data import SequenceLog
from penchant_pipelines.encoder import Encoder, EncoderSettings
from penchant_pipelines.encoder.adapter import open_adapter, write_manifest
from penchant_pipelines.recommend.sequence import FILE, SequenceModel

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

MakeAdapter = Callable[[Path, int], Path]
ORDER = ["hiking", "jazz", "baking", "astronomy"]
ITEMS = catalogue()
START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def turning_log(encoder: Encoder, users: int = 24, days: int = 12) -> SequenceLog:
    """Everybody takes to a subject a day, always in one order: who came to jazz turns to baking."""
    items = encoder.encode([item.title for item in ITEMS])
    subject = np.array([ORDER.index(topic) for topic in topics(item.id for item in ITEMS)])
    dice = np.random.default_rng(0)
    logs = []
    for user in range(users):
        rows = [dice.choice(np.flatnonzero(subject == (user + day) % len(ORDER))) for day in range(days)]
        logs.append(likes_daily(user, items, np.array(rows)))
    return SequenceLog(items, tuple(logs))


@pytest.fixture(scope="module")
def folder(make_adapter: MakeAdapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapters") / "turning", 0)


@pytest.fixture(scope="module")
def adapted(folder: Path, encoder: Encoder) -> Encoder:
    return open_adapter(EncoderSettings(), folder, encoder)


@pytest.fixture(scope="module")
def model(adapted: Encoder) -> SequenceModel:
    settings = SequenceSettings(
        width=16, batch=8, positions=8, negatives=16, dropout=0.0, learning_rate=1e-2, steps=60, check_every=30
    )
    return train_sequence(turning_log(adapted), adapted.space_id, settings=settings)


def lay(folder: Path, to: Path, model: SequenceModel, base: Encoder, space_id: str = "") -> Path:
    """Copy an adapter folder, and put a sequence model into it."""
    shutil.copytree(folder, to)
    SequenceModel(model.network, space_id or model.space_id).save(to / FILE)
    write_manifest(to, base.space_id, base.dimensions, {})
    return to


async def liked(server: Server, user: str, item_ids: list[str], first: datetime = START) -> None:
    for day, item_id in enumerate(item_ids):
        await server.client.behave(user_id=user, item_id=item_id, action="like", time=first + timedelta(days=day))


def lead(answer: RecommendResponse | RerankResponse) -> float:
    """By how much baking scores above astronomy, on average."""
    scores = {place.item_id: place.score for place in answer.recommendations}
    means = [np.mean([scores[f"{topic}-{number}"] for number in range(4)]) for topic in ("baking", "astronomy")]
    return float(means[0] - means[1])


async def fill(server: Server) -> None:
    """The same likes for both: only their order tells that baking comes next for Ann."""
    await server.client.upsert_items(ITEMS)
    await liked(server, "ann", ["hiking-0", "jazz-0"])
    await liked(server, "bob", ["jazz-0", "hiking-0"])
    await server.index_ready()


async def leads(server: Server) -> dict[str, float]:
    return {user: lead(await server.client.recommend(user, page_size=14, diversity=0)) for user in ("ann", "bob")}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_recommend_looks_where_the_model_expects_the_next_signals(
    server: Server, data: Path, folder: Path, encoder: Encoder, model: SequenceModel
) -> None:
    lay(folder, data / "adapters" / "films", model, encoder)
    await fill(server)
    without = await leads(server)
    await server.client.load_adapter("films")
    job = await server.client.wait_for_job((await server.client.activate_adapter("films")).id)
    assert (job.state, job.error.message) == (JobState.JOB_STATE_SUCCEEDED, "")
    assert model.space_id != (await server.client.server_info()).space_id  # another name, the same vectors
    with_it = await leads(server)
    assert with_it["ann"] - with_it["bob"] > abs(without["ann"] - without["bob"]) + 0.01
    answer = await server.client.recommend("ann", page_size=14, diversity=0)
    ranked = [place.item_id for place in answer.recommendations]
    assert ranked.index("baking-1") < min(ranked.index(f"astronomy-{number}") for number in range(4))
    assert lead(answer) == with_it["ann"]

    # The caller's own candidates are told apart by it too.
    own = [Candidate(item_id=item.id) for item in ITEMS]
    reranked = {user: await server.client.rerank(user, own, diversity=0) for user in ("ann", "bob")}
    assert lead(reranked["ann"]) > lead(reranked["bob"]) + 0.01

    # A filter leaves nothing else in, muting is obeyed.
    filtered = await server.client.recommend("ann", filter='category = "hiking"')
    assert set(topics(place.item_id for place in filtered.recommendations)) == {"hiking"}
    await server.client.steer("ann", topic="Baking crusty baguettes at home", muted=True)
    muted = await server.client.recommend("ann", page_size=14, diversity=0)
    assert "baking-1" not in {place.item_id for place in muted.recommendations}

    # An action taken back is foretold from no more; who is erased is a stranger.
    await server.client.behave(user_id="ann", item_id="jazz-0", action="undo", time=START + timedelta(days=2))
    await server.client.behave(user_id="ann", item_id="hiking-0", action="undo", time=START + timedelta(days=2))
    await server.client.delete_user("bob")
    for stranger in ("ann", "bob", "nobody"):
        assert "cold_user" in (await server.client.recommend(stranger)).degraded


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_adapter_that_the_settings_name_has_its_model_too(
    tmp_path: Path, folder: Path, encoder: Encoder, adapted: Encoder, model: SequenceModel
) -> None:
    named = lay(folder, tmp_path / "turning", model, encoder)
    found = {}
    for share in (0, 0.3):
        overrides = {
            "data": tmp_path / f"data-{share}",
            "listen": "127.0.0.1:0",
            "encoder.adapter": named,
            "recommend.sequence_share": share,
        }
        async with (
            serve(load_settings(overrides=overrides), adapted) as address,
            connected(address, tmp_path / f"data-{share}") as server,
        ):
            await fill(server)
            found[share] = await leads(server)
    assert found[0.3]["ann"] - found[0.3]["bob"] > abs(found[0]["ann"] - found[0]["bob"]) + 0.01


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_model_of_another_space_is_refused(
    server: Server, data: Path, folder: Path, encoder: Encoder, model: SequenceModel
) -> None:
    strange = lay(folder, data / "adapters" / "strange", model, encoder, "another-space-0123456789ab")
    found = await refused(server.rpc("LoadAdapter")(LoadAdapterRequest(adapter_id="strange")))
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SEQUENCE_MISMATCH")
    # A file that the manifest doesn't name is refused as well.
    (strange / FILE).unlink()
    write_manifest(strange, encoder.space_id, encoder.dimensions, {})
    model.save(strange / FILE)
    with pytest.raises(WrongStateError, match=r"has a sequence\.safetensors that its manifest doesn't name"):
        await server.client.load_adapter("strange")
    assert [adapter.id for adapter in await server.client.adapters()] == [""]
