import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from penchant.v1 import (
    admin_service_pb2,
    catalog_service_pb2,
    interest_service_pb2,
    recommendation_service_pb2,
)
from penchant.v1.admin_service_pb2 import GetServerInfoRequest, ListJobsRequest
from penchant.v1.catalog_service_pb2 import DeleteItemsRequest, Item, UpsertItemsRequest
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    CaptureRequest,
    GetProfileRequest,
    MergeUsersRequest,
    Steering,
    SteerInterestRequest,
    WatchProfilesRequest,
)
from penchant.v1.recommendation_service_pb2 import (
    Candidate,
    FindUsersRequest,
    RecommendRequest,
    RerankRequest,
)
from penchant.v1.signal_pb2 import ACTION_LIKE, Behavior, Post, Signal
from penchant.validation import Limits, Validator
from penchant_pipelines.errors import InvalidInput

LIMITS = Limits(max_text_bytes=100, max_batch_size=3)
VALIDATOR = Validator(LIMITS)

# Elements of batches and streams, which services check one by one.
CHECKED_ALONE = (Signal.DESCRIPTOR, Item.DESCRIPTOR)

YEAR_1900 = -2_208_988_800
END_OF_9998 = 253_370_764_799


def fields(message: Message, prefix: str = "") -> dict[str, str]:
    """Return description by field of what is wrong with the message; empty where nothing is."""
    try:
        VALIDATOR.check(message, prefix)
    except InvalidInput as error:
        violations = error.violations
    else:
        return {}
    found = {violation.field: violation.description for violation in violations}
    assert len(found) == len(violations), "a field is listed once"
    return found


def ahead(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(time.time() + seconds))


def like(**changes: object) -> Signal:
    signal = Signal(user_id="u", behavior=Behavior(item_id="i", action=ACTION_LIKE))
    signal.MergeFrom(Signal(**changes))  # type: ignore[arg-type]
    return signal


@pytest.mark.parametrize(
    "message",
    [
        GetServerInfoRequest(),
        like(),
        like(time=ahead(86_000)),
        like(time=Timestamp(seconds=YEAR_1900)),
        like(context={"surface": "feed", "地点": "上海"}),
        Signal(user_id="用户", post=Post(text="hello", language="zh-Hans")),
        Signal(user_id="u", post=Post(item_id="i")),
        Signal(user_id="u", post=Post(item_id="i", rating=-1)),
        Signal(user_id="u", post=Post(text="字" * 33)),
        Item(id="i"),
        Item(id="i", create_time=Timestamp(seconds=END_OF_9998)),
        BatchCaptureRequest(),
        BatchCaptureRequest(signals=[Signal()] * 3),
        UpsertItemsRequest(),
        UpsertItemsRequest(items=[Item()] * 3),
        DeleteItemsRequest(item_ids=["a", "b", "c"]),
        GetProfileRequest(user_id="u", as_of=Timestamp(seconds=-62_135_596_800)),
        SteerInterestRequest(user_id="u", interest_id="i", steering=Steering()),
        SteerInterestRequest(user_id="u", topic="tea", steering=Steering(bias=1)),
        MergeUsersRequest(from_user_id="a", into_user_id="b"),
        RecommendRequest(user_id="u", page_size=2**31 - 1),
        RerankRequest(user_id="u", candidates=[Candidate(item_id="i"), Candidate(text="t")]),
        FindUsersRequest(text="tea"),
        FindUsersRequest(item_id="i"),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_sound_messages_pass(message: Message) -> None:
    assert fields(message) == {}


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        (CaptureRequest(), "signal", "must be set"),
        (CaptureRequest(signal=Signal(user_id="u")), "signal.evidence", "one of post, behavior"),
        (CaptureRequest(signal=Signal(user_id="u", post=Post())), "signal.post.text", "blank"),
        (CaptureRequest(signal=Signal(user_id="u", post=Post(rating=1))), "signal.post.text", "blank"),
        (Signal(user_id="u", post=Post(text=" \n")), "post.text", "blank"),
        (Signal(user_id="u", post=Post(text="字" * 34)), "post.text", "at most 100 bytes of UTF-8, is 102"),
        (Signal(user_id="u", post=Post(text="t", rating=1.5)), "post.rating", "less than or equal to 1"),
        (Signal(user_id="u", post=Post(text="t", language="??")), "post.language", "BCP-47"),
        (like(id="a\0b"), "id", "control characters"),
        (like(id="a" * 257), "id", "at most 256 bytes of UTF-8, is 257"),
        (
            like(behavior=Behavior(action=99)),  # type: ignore[arg-type]
            "behavior.action",
            "the contract names",
        ),
        (like(behavior=Behavior(value=float("inf"))), "behavior.value", "finite"),
        (
            like(behavior=Behavior(attribution_token="\0")),
            "behavior.attribution_token",
            "U+0000",
        ),
        (like(context={"k": "\0"}), 'context["k"]', "U+0000"),
        (like(context={"": "v"}), 'context[""]', "its key must not be empty"),
        (like(context={"k" * 200: "v"}), f'context["{"k" * 40}"]', "its key must be at most 128 bytes"),
        (like(context={str(n): "" for n in range(65)}), "context", "at most 64"),
        (like(time=ahead(90_000)), "time", "must be from 1900-01-01T00:00:00Z to 20"),
        (like(time=Timestamp(seconds=YEAR_1900 - 1)), "time", "1900"),
        (like(time=Timestamp(nanos=-1)), "time", "nanos"),
        (like(time=Timestamp(nanos=1_000_000_000)), "time", "nanos"),
        (Item(id="i", title="x" * 101), "title", "at most 100 bytes"),
        (Item(id="i", text="x" * 101), "text", "at most 100 bytes"),
        (Item(id="i", categories=["a", ""]), "categories[1]", "empty"),
        (Item(id="i", create_time=Timestamp(seconds=END_OF_9998 + 1)), "create_time", "9998-12-31"),
        (BatchCaptureRequest(signals=[like()] * 4), "signals", "at most 3 elements, holds 4"),
        (UpsertItemsRequest(items=[Item()] * 4), "items", "at most 3 elements, holds 4"),
        (DeleteItemsRequest(item_ids=["a"] * 4), "item_ids", "at most 3 elements, holds 4"),
        (DeleteItemsRequest(), "item_ids", "at least 1"),
        (DeleteItemsRequest(item_ids=["a\0"]), "item_ids[0]", "control characters"),
        (WatchProfilesRequest(user_ids=["a", "b\n"]), "user_ids[1]", "control characters"),
        (GetProfileRequest(user_id="u", as_of=ahead(90_000)), "as_of", "0001-01-01T00:00:00Z"),
        (GetProfileRequest(user_id="u", max_interests=-1), "max_interests", "greater than or equal to 0"),
        (SteerInterestRequest(user_id="u", steering=Steering()), "interest_id", "or topic"),
        (SteerInterestRequest(user_id="u", interest_id="i", topic="t", steering=Steering()), "topic", "one"),
        (SteerInterestRequest(user_id="u", topic="t" * 101, steering=Steering()), "topic", "at most 100"),
        (SteerInterestRequest(user_id="u", topic="t"), "steering", "must be set"),
        (
            SteerInterestRequest(user_id="u", topic="t", steering=Steering(bias=float("nan"))),
            "steering.bias",
            "less than or equal to 1",
        ),
        (MergeUsersRequest(from_user_id="a", into_user_id="a"), "into_user_id", "differ"),
        (RecommendRequest(user_id="u", query="q" * 101), "query", "at most 100 bytes"),
        (RecommendRequest(user_id="u", excluded_item_ids=["\x7f"]), "excluded_item_ids[0]", "control"),
        (RerankRequest(user_id="u"), "candidates", "at least 1"),
        (RerankRequest(user_id="u", candidates=[Candidate(item_id="i")] * 4), "candidates", "at most 3"),
        (
            RerankRequest(user_id="u", candidates=[Candidate(item_id="i"), Candidate()]),
            "candidates[1].item_id",
            "or text",
        ),
        (RerankRequest(user_id="u", candidates=[Candidate(text=" \n")]), "candidates[0].item_id", "or text"),
        (RerankRequest(user_id="u", candidates=[Candidate(text="x" * 101)]), "candidates[0].text", "100"),
        (
            RerankRequest(user_id="u", candidates=[Candidate(text="x")], query="q" * 101),
            "query",
            "at most 100 bytes",
        ),
        (FindUsersRequest(), "target", "one of text, item_id"),
        (FindUsersRequest(text=""), "text", "blank"),
        (FindUsersRequest(text=" \n"), "text", "blank"),
        (FindUsersRequest(text="x" * 101), "text", "at most 100 bytes"),
        (ListJobsRequest(page_token="t" * 1025), "page_token", "at most 1024 bytes"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(message: Message, field: str, words: str) -> None:
    found = fields(message)
    assert list(found) == [field]
    assert words in found[field]


def test_an_empty_id_is_called_empty_and_nothing_else() -> None:
    assert fields(GetProfileRequest()) == {"user_id": "must not be empty"}


def test_everything_wrong_is_listed_at_once_with_the_prefix() -> None:
    found = fields(Signal(user_id="\0" * 300, post=Post(rating=2)), prefix="signals[3]")
    assert sorted(found) == ["signals[3].post.rating", "signals[3].post.text", "signals[3].user_id"]
    assert "256 bytes" in found["signals[3].user_id"]
    assert "control characters" in found["signals[3].user_id"]


@pytest.mark.parametrize(
    "message",
    [
        RecommendRequest(user_id="u", excluded_item_ids=[""] * 500_000),
        RerankRequest(user_id="u", candidates=[Candidate()] * 500_000),
        WatchProfilesRequest(user_ids=["\0"] * 500_000),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_a_message_wrong_in_a_million_places_is_refused_at_once(message: Message) -> None:
    started = time.perf_counter()
    assert len(fields(message)) == 1
    assert time.perf_counter() - started < 1


def requests_and_elements() -> list[Descriptor]:
    modules = (admin_service_pb2, catalog_service_pb2, interest_service_pb2, recommendation_service_pb2)
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    requests = [method.input_type for service in services for method in service.methods]
    return [*requests, *CHECKED_ALONE]


def overfull(kind: Descriptor) -> Iterator[tuple[str, Message]]:
    """Give, for each string that a message of this kind can hold, its path and a message where it is huge."""
    huge = "x" * 10_000
    for field in kind.fields:
        message: Any = GetMessageClass(kind)()
        nested = field.message_type
        if nested and nested.GetOptions().map_entry:
            getattr(message, field.name)[huge] = ""
            yield field.name, message
            message = GetMessageClass(kind)()
            getattr(message, field.name)["k"] = huge
            yield field.name, message
        elif nested and nested not in CHECKED_ALONE:
            for path, child in overfull(nested):
                message = GetMessageClass(kind)()
                target = getattr(message, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(child)
                yield f"{field.name}.{path}", message
        elif field.type == field.TYPE_STRING:
            message = GetMessageClass(kind)(**{field.name: [huge] if field.is_repeated else huge})
            yield field.name, message


@pytest.mark.parametrize("kind", requests_and_elements(), ids=lambda kind: kind.name)
def test_no_string_is_unbounded(kind: Descriptor) -> None:
    for path, message in overfull(kind):
        complaints = {re.sub(r"\[.*?\]", "", field): words for field, words in fields(message).items()}
        assert "must be at most" in complaints.get(path, ""), f"{kind.name}.{path}"


def test_the_strings_of_signals_and_items_are_all_seen() -> None:
    seen = {path for kind in CHECKED_ALONE for path, _ in overfull(kind)}
    assert {"id", "post.text", "behavior.attribution_token", "context", "categories", "attributes"} <= seen
