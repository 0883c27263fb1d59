"""Bad input to every call: each is refused with the field that must change, and nothing of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from harness import Server, catalogue, in_process, refusal, refused

from penchant.v1 import (
    admin_service_pb2,
    catalog_service_pb2,
    interest_service_pb2,
    recommendation_service_pb2,
)
from penchant.v1.admin_service_pb2 import (
    ActivateAdapterRequest,
    CancelJobRequest,
    GetExperimentRequest,
    GetJobRequest,
    ListJobsRequest,
    ListMixesRequest,
    LoadAdapterRequest,
    StartExperimentRequest,
    UnloadAdapterRequest,
    UseMixRequest,
)
from penchant.v1.catalog_service_pb2 import (
    DeleteItemsRequest,
    GetItemRequest,
    Item,
    ListItemsRequest,
    UpsertItemsRequest,
)
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    CaptureRequest,
    DeleteSignalsRequest,
    DeleteUserRequest,
    ExplainInterestRequest,
    ExportUserRequest,
    GetProfileRequest,
    ListSignalsRequest,
    MergeUsersRequest,
    Steering,
    SteerInterestRequest,
    StreamCaptureRequest,
    StreamCaptureResponse,
    WatchProfilesRequest,
)
from penchant.v1.recommendation_service_pb2 import (
    Candidate,
    FindUsersRequest,
    RecommendRequest,
    RerankRequest,
)
from penchant.v1.signal_pb2 import ACTION_DWELL, ACTION_LIKE, ACTION_UNDO, ACTION_VIEW, Action, Behavior, Post, Signal
from penchant_pipelines.encoder import Encoder

pytestmark = pytest.mark.asyncio(loop_scope="module")

METHODS = [
    method
    for file in (interest_service_pb2, recommendation_service_pb2, catalog_service_pb2, admin_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
NAN, INF = float("nan"), float("inf")
YEAR_1, YEAR_9999 = -62_135_596_800, 253_402_300_799
CANDIDATE = Candidate(item_id="jazz-0")
LONG_ID, LONG_TEXT = "i" * 257, "words " * 20_000
MEGABYTES = "much text " * 1_000_000
GARBAGE = bytes(range(1, 32)).decode() * 20
ENCODED = "aGVsbG8gd29ybGQgMTIzNDU2Nzg5MCBhYmNkZWYgZ2hpamts" * 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> AsyncIterator[Server]:
    """One server for all that is refused: with sixteen items, and a user `u` of one signal."""
    async with in_process(Path(tmp_path_factory.mktemp("data")), encoder) as running:
        await running.index_ready()
        await running.client.upsert_items(catalogue())
        await running.client.capture(user_id="u", text="I love hiking", id="taken")
        yield running


@dataclass(frozen=True, slots=True)
class Bad:
    """A request, and the field that the refusal must name."""

    request: Message
    field: str

    def __str__(self) -> str:
        return f"{type(self.request).__name__.removesuffix('Request')}-{self.field}"


def post(text: str = "I love hiking", **fields: Any) -> Signal:
    evidence = {name: fields.pop(name) for name in ("language", "item_id", "rating") if name in fields}
    return Signal(user_id="u", **fields, post=Post(text=text, **evidence))


def behavior(**fields: Any) -> Signal:
    return Signal(user_id="u", behavior=Behavior(**{"item_id": "jazz-0", "action": ACTION_LIKE, **fields}))


def at(seconds: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=seconds, nanos=nanos)


def unknown(number: int) -> Action.ValueType:
    return Action.ValueType(number)


SIGNALS: list[tuple[Signal, str]] = [
    (Signal(), "user_id"),
    (Signal(user_id="u"), "evidence"),
    (post(id=LONG_ID), "id"),
    (post(id="a\nb"), "id"),
    (post(id="a\x00b"), "id"),
    (Signal(user_id="", post=Post(text="I love hiking")), "user_id"),
    (Signal(user_id=LONG_ID, post=Post(text="I love hiking")), "user_id"),
    (Signal(user_id="语" * 86, post=Post(text="I love hiking")), "user_id"),
    (Signal(user_id="a\x7fb", post=Post(text="I love hiking")), "user_id"),
    (post(time=at(YEAR_1)), "time"),
    (post(time=at(YEAR_9999)), "time"),
    (post(time=at(2**62)), "time"),
    (post(time=at(1_700_000_000, -1)), "time"),
    (post(time=at(1_700_000_000, 1_000_000_000)), "time"),
    (post(context={f"key-{n}": "" for n in range(65)}), "context"),
    (post(context={"": "value"}), 'context[""]'),
    (post(context={"a\tb": "value"}), 'context["a\tb"]'),
    (post(context={"key": "v" * 2049}), 'context["key"]'),
    (post(context={"key": "a\x00b"}), 'context["key"]'),
    (post(""), "post.text"),
    (post("  \n\t "), "post.text"),
    (post(MEGABYTES), "post.text"),
    (post(LONG_TEXT), "post.text"),
    (post(GARBAGE), "post.text"),
    (post(ENCODED), "post.text"),
    (post("\ufffd" * 100), "post.text"),
    (post("https://example.com/page?x=1"), "post.text"),
    (post("@somebody @else"), "post.text"),
    (post("😭😭😭"), "post.text"),
    (post("5:0!"), "post.text"),
    (post("!!! ??? ..."), "post.text"),
    (post(language="not a language"), "post.language"),
    (post(language="en-" + "x" * 40), "post.language"),
    (post(item_id=LONG_ID), "post.item_id"),
    (post(item_id="a\x01b"), "post.item_id"),
    (post(rating=1.01), "post.rating"),
    (post(rating=-1.01), "post.rating"),
    (post(rating=NAN), "post.rating"),
    (post(rating=INF), "post.rating"),
    (behavior(item_id="", action=ACTION_UNDO), "behavior.item_id"),
    (behavior(item_id=LONG_ID), "behavior.item_id"),
    (behavior(item_id="a\rb"), "behavior.item_id"),
    (behavior(action=0), "behavior.action"),
    (behavior(action=unknown(9)), "behavior.action"),
    (behavior(action=unknown(-1)), "behavior.action"),
    (behavior(value=NAN), "behavior.value"),
    (behavior(value=-INF), "behavior.value"),
    (behavior(value=1.5), "behavior.value"),
    (behavior(action=ACTION_DWELL, value=-3), "behavior.value"),
    (behavior(action=ACTION_VIEW, value=-1), "behavior.value"),
    (behavior(attribution_token="t" * 1025), "behavior.attribution_token"),
    (behavior(attribution_token="a\x00b"), "behavior.attribution_token"),
]

ITEMS: list[tuple[Item, str]] = [
    (Item(), "id"),
    (Item(id=LONG_ID, title="t"), "id"),
    (Item(id="a\x00b", title="t"), "id"),
    (Item(id="bad"), "text"),
    (Item(id="bad", text="https://example.com"), "text"),
    (Item(id="bad", title="\u200b", categories=["\u2060"]), "text"),
    (Item(id="bad", title=LONG_TEXT), "title"),
    (Item(id="bad", text=MEGABYTES), "text"),
    (Item(id="bad", text=GARBAGE), "text"),
    (Item(id="bad", title="t", categories=[""]), "categories[0]"),
    (Item(id="bad", title="t", categories=["a", "b" * 257]), "categories[1]"),
    (Item(id="bad", title="t", categories=["a"] * 65), "categories"),
    (Item(id="bad", title="t", create_time=at(YEAR_1)), "create_time"),
    (Item(id="bad", title="t", create_time=at(YEAR_9999)), "create_time"),
    (Item(id="bad", title="t", create_time=at(0, -1)), "create_time"),
    (Item(id="bad", title="t", attributes={f"k{n}": "" for n in range(65)}), "attributes"),
    (Item(id="bad", title="t", attributes={"": "v"}), 'attributes[""]'),
    (Item(id="bad", title="t", attributes={"k": "v" * 2049}), 'attributes["k"]'),
]

FILTERS = [
    "category", "category =", '= "movie"', "category = movie AND", "category == movie", "OR category = movie",
    "category = movie category = book", "(category = movie", "category = movie)", "NOT", 'category = "movie',
    "price > 3", "attributes > 3", 'create_time > "yesterday"', 'create_time > "2026-13-01T00:00:00Z"',
    'create_time : "2026-01-01T00:00:00Z"', "category = *", "category = movie; DROP TABLE items",
    "(" * 70 + "category = movie" + ")" * 70, "category = movie \x00", "类别 = 电影", "f(x) = 1",
    "category = " + "x" * 4096,
]  # fmt: skip


def each_id(field: str, build: Callable[[str], Message]) -> list[Bad]:
    return [Bad(build(value), field) for value in ("", LONG_ID, "a\x00b", "a\nb")]


REQUESTS: list[Bad] = [
    Bad(CaptureRequest(), "signal"),
    Bad(BatchCaptureRequest(signals=[post()] * 501), "signals"),
    *each_id("user_id", lambda value: GetProfileRequest(user_id=value)),
    Bad(GetProfileRequest(user_id="u", max_interests=-1), "max_interests"),
    Bad(GetProfileRequest(user_id="u", as_of=at(YEAR_9999)), "as_of"),
    Bad(GetProfileRequest(user_id="u", as_of=at(0, -5)), "as_of"),
    Bad(WatchProfilesRequest(user_ids=["u", ""]), "user_ids[1]"),
    Bad(WatchProfilesRequest(user_ids=["u"] * 1001), "user_ids"),
    *each_id("user_id", lambda value: ExplainInterestRequest(user_id=value, interest_id="i")),
    *each_id("interest_id", lambda value: ExplainInterestRequest(user_id="u", interest_id=value)),
    Bad(ExplainInterestRequest(user_id="u", interest_id="i", max_evidence=-1), "max_evidence"),
    *each_id("user_id", lambda value: SteerInterestRequest(user_id=value, topic="t", steering=Steering())),
    Bad(SteerInterestRequest(user_id="u", topic="jazz"), "steering"),
    Bad(SteerInterestRequest(user_id="u", steering=Steering(muted=True)), "interest_id"),
    Bad(SteerInterestRequest(user_id="u", topic=" ", steering=Steering(muted=True)), "interest_id"),
    Bad(SteerInterestRequest(user_id="u", interest_id="i", topic="t", steering=Steering()), "topic"),
    Bad(SteerInterestRequest(user_id="u", topic="t" * 1025, steering=Steering()), "topic"),
    Bad(SteerInterestRequest(user_id="u", topic="https://example.com", steering=Steering()), "topic"),
    Bad(SteerInterestRequest(user_id="u", topic=GARBAGE, steering=Steering()), "topic"),
    Bad(SteerInterestRequest(user_id="u", topic="jazz", steering=Steering(bias=1.5)), "steering.bias"),
    Bad(SteerInterestRequest(user_id="u", topic="jazz", steering=Steering(bias=NAN)), "steering.bias"),
    Bad(SteerInterestRequest(user_id="u", topic="jazz", steering=Steering(bias=-INF)), "steering.bias"),
    *each_id("user_id", lambda value: ListSignalsRequest(user_id=value)),
    Bad(ListSignalsRequest(user_id="u", page_size=-1), "page_size"),
    Bad(ListSignalsRequest(user_id="u", page_token="garbage"), "page_token"),
    Bad(ListSignalsRequest(user_id="u", page_token="!" * 20), "page_token"),
    Bad(ListSignalsRequest(user_id="u", page_token="t" * 1025), "page_token"),
    *each_id("user_id", lambda value: ExportUserRequest(user_id=value)),
    *each_id("user_id", lambda value: DeleteUserRequest(user_id=value)),
    *each_id("user_id", lambda value: DeleteSignalsRequest(user_id=value, signal_ids=["s"])),
    *each_id("signal_ids[0]", lambda value: DeleteSignalsRequest(user_id="mei", signal_ids=[value])),
    Bad(DeleteSignalsRequest(user_id="mei"), "signal_ids"),
    *each_id("from_user_id", lambda value: MergeUsersRequest(from_user_id=value, into_user_id="u")),
    *each_id("into_user_id", lambda value: MergeUsersRequest(from_user_id="u", into_user_id=value)),
    Bad(MergeUsersRequest(from_user_id="u", into_user_id="u"), "into_user_id"),
    *each_id("user_id", lambda value: RecommendRequest(user_id=value)),
    Bad(RecommendRequest(user_id="u", page_size=-1), "page_size"),
    *(Bad(RecommendRequest(user_id="u", filter=expression), "filter") for expression in FILTERS),
    Bad(RecommendRequest(user_id="u", excluded_item_ids=["a", ""]), "excluded_item_ids[1]"),
    Bad(RecommendRequest(user_id="u", excluded_item_ids=["a"] * 10_001), "excluded_item_ids"),
    *(Bad(RecommendRequest(user_id="u", diversity=value), "diversity") for value in (-0.1, 1.1, NAN, INF)),
    *(Bad(RecommendRequest(user_id="u", exploration=value), "exploration") for value in (-0.1, 1.1, NAN, INF)),
    Bad(RecommendRequest(user_id="u", query=LONG_TEXT), "query"),
    Bad(RecommendRequest(user_id="u", query=GARBAGE), "query"),
    *each_id("user_id", lambda value: RerankRequest(user_id=value, candidates=[Candidate(item_id="a")])),
    Bad(RerankRequest(user_id="u"), "candidates"),
    Bad(RerankRequest(user_id="u", candidates=[Candidate(text="t")] * 501), "candidates"),
    Bad(RerankRequest(user_id="u", candidates=[Candidate(item_id="a")] * 2), "candidates"),
    Bad(RerankRequest(user_id="u", candidates=[Candidate()]), "candidates[0].item_id"),
    Bad(RerankRequest(user_id="u", candidates=[Candidate(item_id=LONG_ID)]), "candidates[0].item_id"),
    Bad(RerankRequest(user_id="u", candidates=[Candidate(text=LONG_TEXT)]), "candidates[0].text"),
    Bad(RerankRequest(user_id="u", candidates=[Candidate(text=ENCODED)]), "candidates[0].text"),
    *(
        Bad(
            RerankRequest(user_id="u", candidates=[Candidate(item_id="a", prior_score=value)]),
            "candidates[0].prior_score",
        )
        for value in (NAN, INF, -INF)
    ),
    Bad(RerankRequest(user_id="u", candidates=[CANDIDATE], top_n=-1), "top_n"),
    Bad(RerankRequest(user_id="u", candidates=[CANDIDATE], prior_weight=-0.1), "prior_weight"),
    Bad(RerankRequest(user_id="u", candidates=[CANDIDATE], prior_weight=1.1), "prior_weight"),
    Bad(RerankRequest(user_id="u", candidates=[CANDIDATE], prior_weight=NAN), "prior_weight"),
    Bad(RerankRequest(user_id="u", candidates=[CANDIDATE], diversity=1.1), "diversity"),
    Bad(RerankRequest(user_id="u", candidates=[CANDIDATE], diversity=NAN), "diversity"),
    Bad(RerankRequest(user_id="u", candidates=[CANDIDATE], query=LONG_TEXT), "query"),
    Bad(FindUsersRequest(), "target"),
    Bad(FindUsersRequest(text=""), "text"),
    Bad(FindUsersRequest(text="https://example.com"), "text"),
    Bad(FindUsersRequest(text=LONG_TEXT), "text"),
    *each_id("item_id", lambda value: FindUsersRequest(item_id=value)),
    Bad(FindUsersRequest(text="jazz", page_size=-1), "page_size"),
    Bad(FindUsersRequest(text="jazz", exclude_seen=True), "exclude_seen"),
    *(Bad(FindUsersRequest(text="jazz", min_similarity=v), "min_similarity") for v in (-1.1, 1.1, NAN, INF)),
    Bad(UpsertItemsRequest(items=[Item(id="bad", title="t")] * 501), "items"),
    *each_id("item_id", lambda value: GetItemRequest(item_id=value)),
    Bad(ListItemsRequest(page_size=-1), "page_size"),
    Bad(ListItemsRequest(page_token="garbage"), "page_token"),
    *(Bad(ListItemsRequest(filter=expression), "filter") for expression in FILTERS[:6]),
    Bad(DeleteItemsRequest(), "item_ids"),
    Bad(DeleteItemsRequest(item_ids=["jazz-0", ""]), "item_ids[1]"),
    Bad(DeleteItemsRequest(item_ids=["jazz-0"] * 501), "item_ids"),
    *each_id("adapter_id", lambda value: LoadAdapterRequest(adapter_id=value)),
    # Here an empty one names the encoder of the settings.
    Bad(ActivateAdapterRequest(adapter_id="a" * 257), "adapter_id"),
    Bad(ActivateAdapterRequest(adapter_id="a\n"), "adapter_id"),
    Bad(UnloadAdapterRequest(adapter_id="a" * 257), "adapter_id"),
    Bad(UnloadAdapterRequest(adapter_id="a\n"), "adapter_id"),
    *each_id("name", lambda value: StartExperimentRequest(name=value, share=0.5)),
    Bad(StartExperimentRequest(name="n", adapter_id="a" * 257), "adapter_id"),
    Bad(StartExperimentRequest(name="n", share=1.5), "share"),
    Bad(StartExperimentRequest(name="n", share=float("nan")), "share"),
    Bad(GetExperimentRequest(name="n" * 257), "name"),
    Bad(UseMixRequest(mix_id="m" * 257), "mix_id"),
    Bad(UseMixRequest(mix_id="m\n"), "mix_id"),
    Bad(ListMixesRequest(page_size=-1), "page_size"),
    Bad(ListMixesRequest(page_token="garbage"), "page_token"),
    *each_id("job_id", lambda value: GetJobRequest(job_id=value)),
    *each_id("job_id", lambda value: CancelJobRequest(job_id=value)),
    Bad(ListJobsRequest(page_size=-1), "page_size"),
    Bad(ListJobsRequest(page_token="garbage"), "page_token"),
]

MISSING: list[tuple[Message, str, str]] = [
    (LoadAdapterRequest(adapter_id="absent"), "adapter", "absent"),
    (GetExperimentRequest(name="none"), "experiment", "none"),
    (GetProfileRequest(user_id="nobody"), "user", "nobody"),
    (ExplainInterestRequest(user_id="nobody", interest_id="i"), "user", "nobody"),
    (ExplainInterestRequest(user_id="u", interest_id="i-none"), "interest", "i-none"),
    (SteerInterestRequest(user_id="nobody", interest_id="i", steering=Steering()), "user", "nobody"),
    (SteerInterestRequest(user_id="u", interest_id="i-none", steering=Steering()), "interest", "i-none"),
    (ListSignalsRequest(user_id="nobody"), "user", "nobody"),
    (ExportUserRequest(user_id="nobody"), "user", "nobody"),
    (DeleteUserRequest(user_id="nobody"), "user", "nobody"),
    (DeleteSignalsRequest(user_id="nobody", signal_ids=["s"]), "user", "nobody"),
    (MergeUsersRequest(from_user_id="nobody", into_user_id="u"), "user", "nobody"),
    (FindUsersRequest(item_id="no such item"), "item", "no such item"),
    (GetItemRequest(item_id="没有"), "item", "没有"),
    (UseMixRequest(mix_id="m-none"), "mix", "m-none"),
    (GetJobRequest(job_id="j-none"), "job", "j-none"),
    (CancelJobRequest(job_id="j-none"), "job", "j-none"),
]


def call(server: Server, request: Message) -> Any:
    return server.rpc(type(request).__name__.removesuffix("Request"))(request)


@pytest.mark.parametrize("bad", REQUESTS, ids=str)
async def test_a_bad_request_is_refused_by_field(server: Server, bad: Bad) -> None:
    answer = await refused(call(server, bad.request))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert bad.field in answer.fields


@pytest.mark.parametrize(("request_", "kind", "name"), MISSING, ids=lambda value: str(type(value).__name__))
async def test_what_does_not_exist_is_named(server: Server, request_: Message, kind: str, name: str) -> None:
    answer = await refused(call(server, request_))
    assert answer.code is grpc.StatusCode.NOT_FOUND
    assert answer.reason == f"{kind.upper()}_NOT_FOUND"
    assert answer.resource == (kind, name)


@pytest.mark.parametrize(("signal", "field"), SIGNALS, ids=[field for _, field in SIGNALS])
async def test_a_bad_signal_is_refused_by_field(server: Server, signal: Signal, field: str) -> None:
    for validate_only in (False, True):
        answer = await refused(call(server, CaptureRequest(signal=signal, validate_only=validate_only)))
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
        assert f"signal.{field}" in answer.fields


async def test_bad_signals_of_a_batch_fail_alone(server: Server) -> None:
    before = await server.signal_count()
    good = Signal(user_id="batch", post=Post(text="I love hiking"))
    answer = await call(server, BatchCaptureRequest(signals=[signal for bad, _ in SIGNALS for signal in (good, bad)]))
    assert [error.index for error in answer.errors] == list(range(1, 2 * len(SIGNALS), 2))
    for error, (_, field) in zip(answer.errors, SIGNALS, strict=True):
        assert f"signals[{error.index}].{field}" in refusal(error.status).fields
        assert not answer.results[error.index].signal_id
        assert answer.results[error.index - 1].signal_id
    assert await server.signal_count() == before + len(SIGNALS)
    await server.client.delete_user("batch")
    assert await server.signal_count() == before


async def test_bad_signals_of_a_stream_fail_alone(server: Server) -> None:
    requests = [StreamCaptureRequest(sequence=n, signal=signal) for n, (signal, _) in enumerate(SIGNALS)]
    requests.append(StreamCaptureRequest(sequence=1_000, signal=Signal(user_id="s", post=Post(text="hiking"))))
    answers = [answer async for answer in server.client.stream(*requests)]
    assert answers[-1].ack.sequence == 1_000
    for answer, (sequence, (_, field)) in zip(answers[:-1], enumerate(SIGNALS), strict=True):
        assert answer.refusal.sequence == sequence
        assert f"signal.{field}" in refusal(answer.refusal.status).fields
    await server.client.delete_user("s")


async def test_bad_items_of_a_batch_fail_alone(server: Server) -> None:
    good = Item(id="good", title="A good one")
    answer = await call(server, UpsertItemsRequest(items=[good, *(item for item, _ in ITEMS), good]))
    assert answer.upserted_count == 2
    assert [(error.index, error.id) for error in answer.errors] == [
        (index, item.id) for index, (item, _) in enumerate(ITEMS, 1)
    ]
    for error, (index, (_, field)) in zip(answer.errors, enumerate(ITEMS, 1), strict=True):
        assert f"items[{index}].{field}" in refusal(error.status).fields
    assert await server.client.delete_items(["good", "bad"]) == 1


async def test_a_page_token_belongs_to_its_listing(server: Server) -> None:
    token = (await call(server, ListItemsRequest(page_size=2, filter="category = jazz"))).next_page_token
    assert token
    for request in (
        ListItemsRequest(page_token=token),
        ListItemsRequest(page_token=token, filter="category = hiking"),
        ListItemsRequest(page_token=token[:-2] + "xx", filter="category = jazz"),
        ListItemsRequest(page_token=token + "=", filter="category = jazz"),
        ListSignalsRequest(user_id="u", page_token=token),
        ListJobsRequest(page_token=token),
    ):
        assert (await refused(call(server, request))).fields == ("page_token",)


async def test_a_message_over_the_limit_is_refused_and_the_server_lives(server: Server) -> None:
    huge = CaptureRequest(signal=post("x" * 40_000_000))
    assert (await refused(call(server, huge))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await server.signal_count() == 1


async def test_bytes_that_are_no_message_are_refused(server: Server) -> None:
    for method in METHODS:
        if method.client_streaming or not method.input_type.fields:
            continue
        service = method.containing_service.full_name
        raw: Any = server.channel.unary_unary(f"/{service}/{method.name}")
        answer = await refused(raw(b"\xff\xff\xff\xff"))
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_a_stream_takes_what_came_before_bytes_that_are_no_message(server: Server) -> None:
    first = StreamCaptureRequest(sequence=3, signal=Signal(user_id="s", post=Post(text="I love hiking")))
    raw: Any = server.channel.stream_stream("/penchant.v1.InterestService/StreamCapture")

    async def answers(sent: list[bytes]) -> AsyncIterator[int]:
        async for answer in raw(iter(sent)):
            yield StreamCaptureResponse.FromString(answer).ack.sequence

    async with asyncio.timeout(10):
        assert [sequence async for sequence in answers([first.SerializeToString()])] == [3]
        answer = await refused(answers([first.SerializeToString(), b"\xff\xff\xff\xff"]))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert (await server.client.profile("s")).signal_count == 2
    await server.client.delete_user("s")


async def test_what_is_odd_but_fine_is_taken(server: Server) -> None:
    signals = [
        post(time=at(-2_208_988_800)),
        post("👨‍👩‍👧‍👦 hiking 🏔️ \u202eolleh\u202c"),
        post("", item_id="jazz-0"),
        post("Zoë's café — naïve résumé ½ ﷽"),
        post("DROP TABLE signals; -- '\" OR 1=1"),
        post("<script>alert('hiking')</script> <b>bold</b> &amp; hiking"),
        post("a" * 65_000 + " hiking"),
        behavior(action=ACTION_DWELL, value=1e300),
        behavior(item_id=""),
        Signal(user_id="../../etc/passwd", post=Post(text="I love hiking")),
        Signal(user_id="用户 with 'quotes\" and \\", post=Post(text="I love hiking")),
    ]
    answer = await call(server, BatchCaptureRequest(signals=signals))
    assert [(error.index, error.status.message) for error in answer.errors] == []
    for user in ("../../etc/passwd", "用户 with 'quotes\" and \\"):
        assert (await server.client.profile(user)).signal_count == 1
        await server.client.delete_user(user)
    assert (await server.client.profile("u")).signal_count == 1 + 9
    await server.client.delete_user("u")
    await server.client.capture(user_id="u", text="I love hiking", id="taken")


async def test_after_all_that_nothing_was_kept(server: Server) -> None:
    info = await server.client.server_info()
    assert (info.user_count, info.signal_count, info.item_count) == (1, 1, 16)
    profile = await server.client.profile("u")
    assert [interest.signal_count for interest in profile.interests] == [1]
    assert all(not i.steering.muted and not i.steering.bias for i in profile.interests)
    assert len(await server.recommended("u", page_size=100)) == 16


async def test_every_call_is_tried_here(server: Server) -> None:
    calls = {method.name for method in METHODS}
    requests = [bad.request for bad in REQUESTS] + [request for request, _, _ in MISSING]
    tried = {type(request).__name__.removesuffix("Request") for request in requests}
    # These take no fields, or only elements that fail alone.
    assert calls - tried == {
        "StreamCapture",
        "GetServerInfo",
        "ListAdapters",
        "LearnMix",
        "RebuildIndex",
        "StopExperiment",
    }
    assert len(REQUESTS) + len(SIGNALS) + len(ITEMS) + len(MISSING) > 200
