import asyncio
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from penchant import AsyncClient, Candidate, Client, InvalidInputError, Signal, WrongStateError, _requests
from penchant._channel import address
from penchant.v1.interest_service_pb2 import GetProfileRequest, StreamCaptureRequest, WatchProfilesRequest

# Called as by those who check no types.
requests: Any = _requests

SURROGATE = "half \ud83d"

WRONG: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: requests.capture.request(user_id="mei", text=5), "text", "must be a string, is int"),
    (lambda: requests.capture.request(user_id="mei", text=SURROGATE), "text", "lone surrogate"),
    (lambda: requests.capture.request(user_id="mei", rating="good"), "rating", "must be a number, is str"),
    (lambda: requests.capture.request(user_id="mei", text="x", time="2026-01-01"), "time", "fromisoformat"),
    (lambda: requests.capture.request(user_id="mei", time=date(2026, 1, 1)), "time", "must be a datetime"),
    (lambda: requests.capture.request(user_id="mei", context={"page": 1}), "context", "dict of whole strings"),
    (lambda: requests.capture.request(user_id="mei", context=["page"]), "context", "is list"),
    (lambda: requests.behave.request(user_id="mei", item_id="i", action=[]), "action", "must be a string or a whole"),
    (lambda: requests.capture_signal.request({"user_id": 5}), "signal", "must be a penchant.Signal, is dict"),
    (lambda: requests.profile.request(5), "user_id", "must be a string, is int"),
    (lambda: requests.profile.request("mei", max_interests=1 << 31), "max_interests", "32 bits"),
    (lambda: requests.watch.request("mei"), "user_ids", "put a single one into a list"),
    (lambda: requests.watch.request(["mei", 5]), "user_ids[1]", "must be a string"),
    (lambda: requests.steer.request("mei", topic="jazz", bias="more"), "bias", "must be a number"),
    (lambda: requests.recommend.request("mei", page_size=2.5), "page_size", "whole number"),
    (lambda: requests.recommend.request("mei", explain="yes"), "explain", "True or False"),
    (lambda: requests.recommend.request("mei", excluded_item_ids="i-1"), "excluded_item_ids", "must be a list, is str"),
    (lambda: requests.rerank.request("mei", "some-id"), "candidates", "must be a list, is str"),
    (lambda: requests.rerank.request("mei", Candidate(text="x")), "candidates", "must be a list"),
    (lambda: requests.rerank.request("mei", ["a", {"text": "x"}]), "candidates[1]", "penchant.Candidate"),
    (lambda: requests.rerank.request("mei", [SURROGATE]), "candidates[0]", "lone surrogate"),
    (lambda: requests.find_users.request(text=5), "text", "must be a string"),
    (lambda: requests.delete_items.request("i-1"), "item_ids", "must be a list"),
]


@pytest.mark.parametrize(("build", "field", "said"), WRONG)
def test_an_argument_that_can_not_be_sent_is_named_with_what_to_give(
    build: Callable[[], Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        build()
    assert caught.value.violations[0].field == field
    assert said in caught.value.violations[0].description


def test_arguments_that_a_method_does_not_have_are_wrong_python() -> None:
    with pytest.raises(TypeError, match="txt"):
        requests.capture.request(user_id="mei", txt="x")


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.upsert_items([{"id": "i", "text": "x"}]), "items"),
        (lambda client: client.upsert_items({"id": "i"}), "items"),
        (lambda client: next(client.capture_many([{"user_id": "mei"}])), "signals"),
        (lambda client: next(client.capture_many(Signal(user_id="mei"))), "signals"),
        (lambda client: next(client.stream_capture("mei")), "signals"),
        (lambda client: client.call({"user_id": "mei"}), "request"),
        (lambda client: client.call(WatchProfilesRequest()), "request"),
        (lambda client: client.call(StreamCaptureRequest()), "request"),
        (lambda client: client.stream(), "requests"),
        (lambda client: client.stream("mei"), "request"),
        (lambda client: client.stream(GetProfileRequest()), "request"),
        (lambda client: client.stream(WatchProfilesRequest(), WatchProfilesRequest()), "requests"),
        (lambda client: client.stream(StreamCaptureRequest(), WatchProfilesRequest()), "requests"),
    ],
)
def test_what_is_no_message_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[Client], object], field: str
) -> None:
    with Client("127.0.0.1:9") as client:
        # Asking the server for its limits is all that these may do; nobody answers here.
        monkeypatch.setattr(client, "_limits", lambda: None)
        with pytest.raises(InvalidInputError) as caught:
            call(client)
    assert caught.value.violations[0].field == field


def test_a_closed_client_says_so() -> None:
    client = Client("127.0.0.1:9")
    client.close()
    with pytest.raises(WrongStateError, match="closed"):
        client.profile("mei")
    with pytest.raises(WrongStateError, match="closed"):
        next(client.watch())

    async def closed() -> None:
        client = AsyncClient("127.0.0.1:9")
        await client.close()
        with pytest.raises(WrongStateError, match="closed"):
            await client.profile("mei")

    asyncio.run(closed())


@pytest.mark.parametrize(
    ("target", "dialled"),
    [
        ("localhost", "localhost:50051"),
        ("[::1]", "[::1]:50051"),
        ("localhost:1", "localhost:1"),
        ("[::1]:1", "[::1]:1"),
        ("unix:/run/penchant.sock", "unix:/run/penchant.sock"),
        ("dns:///penchant.internal:50051", "dns:///penchant.internal:50051"),
    ],
)
def test_where_no_port_is_named_the_servers_own_is_dialled(target: str, dialled: str) -> None:
    assert address(target) == dialled


@pytest.mark.parametrize(
    "target",
    [
        "",
        " ",
        50051,
        None,
        "http://127.0.0.1:50051",
        "127.0.0.1:50051/",
        "localhost:http",
        "localhost:",
        "h:70000",
        "::1",
        "::1:1",
    ],
)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_what_is_no_address_is_refused(client: Any, target: Any) -> None:
    with pytest.raises(InvalidInputError, match="HOST:PORT"):
        client(target)


@pytest.mark.parametrize("timeout", [None, "x", True, 0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_deadline_that_no_call_can_keep_is_refused(client: Any, timeout: Any) -> None:
    with pytest.raises(InvalidInputError, match="timeout: must be a number of seconds above 0"):
        client(timeout=timeout)
