import inspect
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from penchant import Action, Candidate, InvalidInputError, Signal, _requests
from penchant.v1.admin_service_pb2 import ActivateAdapterRequest, StartExperimentRequest
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    CaptureRequest,
    ExplainInterestRequest,
    GetProfileRequest,
    Steering,
    SteerInterestRequest,
    WatchProfilesRequest,
)
from penchant.v1.recommendation_service_pb2 import FindUsersRequest, RecommendRequest, RerankRequest
from penchant.v1.signal_pb2 import ACTION_LIKE, Behavior


def test_capture_builds_a_post_and_gives_it_an_id_of_its_own() -> None:
    time = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=8)))
    build = _requests.capture.request
    request = build(user_id="mei", text="红烧肉", rating=0.0, language="zh", time=time, context={"surface": "feed"})
    assert isinstance(request, CaptureRequest)
    signal = request.signal
    assert (signal.user_id, signal.post.text, signal.post.language) == ("mei", "红烧肉", "zh")
    assert signal.post.HasField("rating")
    assert signal.time.ToJsonString() == "2026-01-31T04:00:00Z"
    assert dict(signal.context) == {"surface": "feed"}
    other = build(user_id="mei", text="红烧肉")
    assert isinstance(other, CaptureRequest)
    assert not other.signal.post.HasField("rating")
    assert not other.signal.HasField("time")
    assert len(signal.id) == 32
    assert signal.id != other.signal.id


def test_an_id_that_the_caller_chose_is_kept() -> None:
    request = _requests.capture.request(user_id="mei", text="x", id="order-17")
    assert isinstance(request, CaptureRequest)
    assert request.signal.id == "order-17"


def test_capture_signal_leaves_the_callers_signal_alone() -> None:
    signal = Signal(user_id="mei")
    request = _requests.capture_signal.request(signal, validate_only=True)
    assert isinstance(request, CaptureRequest)
    assert request.signal.id
    assert request.validate_only
    assert signal.id == ""


def test_every_signal_of_a_batch_without_an_id_gets_one_in_a_copy() -> None:
    request = BatchCaptureRequest(signals=[Signal(id="a"), Signal(), Signal()])
    ids = [signal.id for signal in _requests.with_ids(request).signals]
    assert ids[0] == "a"
    assert len(set(ids)) == 3
    assert all(ids)
    assert [signal.id for signal in request.signals] == ["a", "", ""]
    whole = BatchCaptureRequest(signals=[Signal(id="a")])
    assert _requests.with_ids(whole) is whole


@pytest.mark.parametrize("action", ["like", "LIKE", "ACTION_LIKE", Action.ACTION_LIKE])
def test_behave_takes_actions_by_name_or_number(action: str | Action.ValueType) -> None:
    request = _requests.behave.request(user_id="mei", item_id="i", action=action)
    assert isinstance(request, CaptureRequest)
    assert request.signal.behavior.action == Action.ACTION_LIKE
    assert not request.signal.behavior.HasField("value")


@pytest.mark.parametrize("action", ["lik", "unspecified", ""])
def test_an_unknown_action_names_the_known_ones(action: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _requests.behave.request(user_id="mei", item_id="i", action=action)
    assert caught.value.violations[0].field == "action"
    assert "not_interested" in caught.value.message
    assert "unspecified" not in caught.value.violations[0].description.partition("none of")[2]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_beyond_the_calendar_are_refused(time: str) -> None:
    with pytest.raises(InvalidInputError, match="years 1 to 9999"):
        _requests.profile.request("u", as_of=datetime.fromisoformat(time))


def test_times_without_a_zone_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="time zone"):
        _requests.capture.request(user_id="mei", text="x", time=datetime(2026, 1, 1))
    with pytest.raises(InvalidInputError) as caught:
        _requests.profile.request("mei", as_of=datetime(2026, 1, 1))
    assert caught.value.violations[0].field == "as_of"


def test_profile_as_of() -> None:
    request = _requests.profile.request("mei", as_of=datetime(2026, 1, 1, tzinfo=UTC), max_interests=3)
    assert isinstance(request, GetProfileRequest)
    assert request.as_of.ToJsonString() == "2026-01-01T00:00:00Z"
    assert request.max_interests == 3


def test_diversity_of_0_differs_from_the_servers_default() -> None:
    zero, unset = (_requests.recommend.request("mei", diversity=d) for d in (0.0, None))
    assert isinstance(zero, RecommendRequest)
    assert isinstance(unset, RecommendRequest)
    assert zero.HasField("diversity")
    assert not unset.HasField("diversity")


def test_rerank_takes_ids_and_candidates_alike() -> None:
    request = _requests.rerank.request("mei", ["a", Candidate(text="soup", prior_score=2)])
    assert [(c.item_id, c.text) for c in request.candidates] == [("a", ""), ("", "soup")]  # type: ignore[attr-defined]


def test_find_users_takes_exactly_one_target() -> None:
    assert _requests.find_users.request(text="").WhichOneof("target") == "text"
    assert _requests.find_users.request(item_id="i").WhichOneof("target") == "item_id"
    with pytest.raises(InvalidInputError, match="either"):
        _requests.find_users.request()
    with pytest.raises(InvalidInputError, match="either"):
        _requests.find_users.request(text="soup", item_id="i")


THEN = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT = Timestamp(seconds=int(THEN.timestamp()))
BEHAVIOR = Behavior(item_id="i", action=ACTION_LIKE, value=0.5, attribution_token="t")
ASKED: list[tuple[Any, dict[str, Any], Message]] = [
    (
        _requests.behave,
        {"user_id": "u", "item_id": "i", "action": "like", "value": 0.5, "attribution_token": "t", "time": THEN}
        | {"context": {"surface": "app"}, "id": "s", "validate_only": True},
        CaptureRequest(
            signal=Signal(id="s", user_id="u", behavior=BEHAVIOR, time=MOMENT, context={"surface": "app"}),
            validate_only=True,
        ),
    ),
    (
        _requests.profile,
        {"user_id": "u", "as_of": THEN, "max_interests": 3, "include_vectors": True},
        GetProfileRequest(user_id="u", as_of=MOMENT, max_interests=3, include_vectors=True),
    ),
    (
        _requests.watch,
        {"user_ids": ["u", "v"], "drift_only": True},
        WatchProfilesRequest(user_ids=["u", "v"], drift_only=True),
    ),
    (
        _requests.explain,
        {"user_id": "u", "interest_id": "i", "max_evidence": 3},
        ExplainInterestRequest(user_id="u", interest_id="i", max_evidence=3),
    ),
    (
        _requests.steer,
        {"user_id": "u", "interest_id": "i", "topic": "t", "muted": True, "pinned": True, "bias": 0.5},
        SteerInterestRequest(
            user_id="u", interest_id="i", topic="t", steering=Steering(muted=True, pinned=True, bias=0.5)
        ),
    ),
    (
        _requests.recommend,
        {"user_id": "u", "page_size": 3, "filter": "f", "excluded_item_ids": ["i"], "include_seen": True}
        | {"diversity": 0.25, "exploration": 0.5, "explain": True, "query": "q"},
        RecommendRequest(
            user_id="u",
            page_size=3,
            filter="f",
            excluded_item_ids=["i"],
            include_seen=True,
            diversity=0.25,
            exploration=0.5,
            explain=True,
            query="q",
        ),
    ),
    (
        _requests.rerank,
        {"user_id": "u", "candidates": ["i"], "top_n": 3, "prior_weight": 0.25, "diversity": 0.5}
        | {"query": "q", "explain": True},
        RerankRequest(
            user_id="u",
            candidates=[Candidate(item_id="i")],
            top_n=3,
            prior_weight=0.25,
            diversity=0.5,
            query="q",
            explain=True,
        ),
    ),
    (
        _requests.find_users,
        {"text": None, "item_id": "i", "page_size": 3, "min_similarity": 0.5, "exclude_seen": True},
        FindUsersRequest(item_id="i", page_size=3, min_similarity=0.5, exclude_seen=True),
    ),
    (
        _requests.activate_adapter,
        {"adapter_id": "a", "standby": True},
        ActivateAdapterRequest(adapter_id="a", standby=True),
    ),
    (
        _requests.start_experiment,
        {"name": "n", "adapter_id": "a", "share": 0.5},
        StartExperimentRequest(name="n", adapter_id="a", share=0.5),
    ),
]


@pytest.mark.parametrize(("method", "arguments", "request_"), ASKED, ids=lambda value: str(type(value).__name__))
def test_whatever_is_asked_for_is_in_the_request(method: Any, arguments: dict[str, Any], request_: Message) -> None:
    assert arguments.keys() == inspect.signature(method.request).parameters.keys()
    assert method.request(**arguments) == request_
