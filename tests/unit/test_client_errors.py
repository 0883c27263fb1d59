import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from penchant import AsyncClient, Client, exceptions
from penchant._rpcs import BY_NAME
from penchant.exceptions import (
    CancelledError,
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PenchantError,
    ServerError,
    UnavailableError,
    Violation,
    from_rpc_error,
    from_status,
)
from penchant.v1.admin_service_pb2 import JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED, GetServerInfoResponse, Job
from penchant.v1.catalog_service_pb2 import Item, UpsertItemsRequest, UpsertItemsResponse
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    BatchCaptureResponse,
    CaptureRequest,
    CaptureResponse,
)
from penchant.v1.signal_pb2 import Post, Signal

DETAILS = "grpc-status-details-bin"


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_becomes_a_leaf_of_the_tree_that_keeps_it(code: grpc.StatusCode) -> None:
    error = from_status(status_pb2.Status(code=code.value[0], message="why"))
    assert type(error) is not PenchantError
    assert error.code is code
    assert (error.message, str(error)) == ("why", "why")


def test_an_unknown_code_is_the_servers_fault() -> None:
    assert type(from_status(status_pb2.Status(code=99))) is ServerError


def test_the_drawing_names_every_error_of_the_tree() -> None:
    assert exceptions.__doc__
    for kind in PenchantError.__subclasses__():
        assert f"── {kind.__name__} " in exceptions.__doc__


def test_violations_and_reason_come_from_the_details() -> None:
    status = status_pb2.Status(code=3, message="wrong")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_INPUT", domain="penchant"))
    violation = error_details_pb2.BadRequest.FieldViolation(field="signal.user_id", description="must not be empty")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    error = from_status(status)
    assert isinstance(error, InvalidInputError)
    assert error.reason == "INVALID_INPUT"
    assert error.violations == (Violation("signal.user_id", "must not be empty"),)


def test_retry_after_is_in_seconds_and_none_where_not_told() -> None:
    status = status_pb2.Status(code=8, message="busy")
    silent = from_status(status)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)))
    told = from_status(status)
    assert isinstance(silent, OverloadedError)
    assert isinstance(told, OverloadedError)
    assert silent.retry_after is None
    assert told.retry_after == 1.5


def call_error(code: grpc.StatusCode, message: str, details: bytes | None) -> AioRpcError:
    trailing = Metadata((DETAILS, details)) if details is not None else Metadata()
    return AioRpcError(code, Metadata(), trailing, details=message)


def test_the_attached_status_of_a_call_is_read() -> None:
    status = status_pb2.Status(code=5, message="no such user")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="USER_NOT_FOUND"))
    error = from_rpc_error(call_error(grpc.StatusCode.NOT_FOUND, "no such user", status.SerializeToString()))
    assert isinstance(error, NotFoundError)
    assert error.reason == "USER_NOT_FOUND"


@pytest.mark.parametrize("details", [None, b"\xff\xff", status_pb2.Status(code=5, message="other").SerializeToString()])
def test_details_that_are_missing_broken_or_contradict_the_call_do_not_hide_its_code(
    details: bytes | None,
) -> None:
    error = from_rpc_error(call_error(grpc.StatusCode.UNAVAILABLE, "gone", details))
    assert isinstance(error, UnavailableError)
    assert (error.message, error.reason) == ("gone", "")


def test_errors_built_here_name_their_field() -> None:
    error = InvalidInputError.at("time", "must have a time zone")
    assert error.message == "time: must have a time zone"
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_that_is_too_large_is_no_overload_that_passes() -> None:
    async def echo_back(request: bytes, context: Any) -> bytes:
        return request

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1000)])
    echo: Any = grpc.unary_unary_rpc_method_handler(echo_back)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s", {"Echo": echo})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        send: Any = channel.unary_unary("/s/Echo")
        with pytest.raises(AioRpcError) as raised:
            await send(b"x" * 2000)
    await server.stop(None)
    error = from_rpc_error(raised.value)
    assert isinstance(error, InvalidInputError)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "send less at once" in error.message
    other = from_rpc_error(call_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota used up", None))
    assert isinstance(other, OverloadedError)


@asynccontextmanager
async def server_of(**calls: Callable[[Any, Any], Awaitable[Message]]) -> AsyncIterator[str]:
    """A server that answers these calls so, and takes every other and answers none."""

    class Calls(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            rpc = BY_NAME[details.method.rpartition("/")[2]]
            return grpc.unary_unary_rpc_method_handler(
                calls.get(rpc.path.rpartition("/")[2], never),
                request_deserializer=rpc.request.FromString,
                response_serializer=rpc.response.SerializeToString,
            )

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Calls()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def never(request: Message, context: Any) -> Message:
    await asyncio.sleep(60)
    return request


CALLS: list[Callable[[Any], Any]] = [
    lambda client: client.profile("mei"),
    lambda client: client.watch(["mei"]),
    lambda client: client.capture_many([]),
]


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_under_way_when_its_client_is_closed_is_cancelled_and_its_caller_is_not(
    call: Callable[[Any], Any],
) -> None:
    async with server_of() as address:
        client = AsyncClient(address)
        asyncio.get_running_loop().call_later(0.2, lambda: asyncio.ensure_future(client.close()))
        with pytest.raises(CancelledError) as caught:
            await first(call(client))
        assert caught.value.code is grpc.StatusCode.CANCELLED

        def blocking() -> None:
            client = Client(address)
            threading.Timer(0.2, client.close).start()
            with pytest.raises(CancelledError):
                next(call(client))

        await asyncio.to_thread(blocking)


@pytest.mark.parametrize("call", CALLS)
async def test_a_caller_who_is_cancelled_stays_cancelled(call: Callable[[Any], Any]) -> None:
    async with server_of() as address, AsyncClient(address) as client:
        task = asyncio.ensure_future(first(call(client)))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await first(call(client))


async def test_a_request_of_the_callers_own_is_left_as_it_is() -> None:
    request = CaptureRequest(signal=Signal(user_id="mei", post=Post(text="Jazz piano")))
    before = CaptureRequest.FromString(request.SerializeToString())
    async with server_of() as address, AsyncClient(address, timeout=0.2) as client:
        with pytest.raises(DeadlineError):
            await client.call(request)
        with Client(address, timeout=0.2) as blocking, pytest.raises(DeadlineError):
            await asyncio.to_thread(blocking.call, request)
    assert request == before


async def first(answer: Any) -> Any:
    """What a unary call answers, or a stream first."""
    return await (anext(answer) if hasattr(answer, "__anext__") else answer)


async def test_a_job_is_waited_for_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    end = 0.0

    def job(*_: object) -> Job:
        return Job(state=JOB_STATE_RUNNING if time.monotonic() < end else JOB_STATE_SUCCEEDED)

    async def job_later(*_: object) -> Job:
        return job()

    monkeypatch.setattr(Client, "job", job)
    monkeypatch.setattr(AsyncClient, "job", job_later)
    async with AsyncClient() as later:
        with Client() as client:
            waits: list[Callable[..., Any]] = [
                lambda *args, **options: asyncio.to_thread(client.wait_for_job, *args, **options),
                later.wait_for_job,
            ]
            for wait in waits:
                # It ends within the time, though before it would be asked for again.
                end = time.monotonic() + 0.1
                assert (await wait("j", timeout=0.4, interval=30)).state == JOB_STATE_SUCCEEDED
                began, end = time.monotonic(), time.monotonic() + 30
                with pytest.raises(DeadlineError, match=r"'j' is still running after 0\.4 s"):
                    await wait("j", timeout=0.4, interval=0.3)
                assert 0.4 <= time.monotonic() - began < 5


async def busy(context: Any, seconds: float) -> None:
    """Turn a call away, as the server does."""
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="busy")
    delay = Duration(nanos=int(seconds * 1e9))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", ((DETAILS, status.SerializeToString()),))


async def of_either(address: str, use: Callable[[Any], Any], **options: float) -> list[list[Any]]:
    """What an iterator of the asyncio client yields, and that of its twin."""
    async with AsyncClient(address, **options) as client:
        found = [[element async for element in use(client)]]
    with Client(address, **options) as blocking:
        return [*found, await asyncio.to_thread(lambda: list(use(blocking)))]


async def test_a_call_that_was_turned_away_comes_back_when_it_was_told_to_and_is_the_same() -> None:
    came: list[tuple[float, str, float]] = []

    async def capture(request: CaptureRequest, context: Any) -> CaptureResponse:
        came.append((time.monotonic(), request.signal.id, context.time_remaining()))
        if len(came) % 2:
            await busy(context, 0.3)
        return CaptureResponse(signal_id=request.signal.id)

    request = CaptureRequest(signal=Signal(user_id="mei", post=Post(text="Jazz piano")))
    async with server_of(Capture=capture) as address:
        async with AsyncClient(address) as client:
            answers = [await client.call(request)]
        with Client(address) as blocking:
            answers.append(await asyncio.to_thread(blocking.call, request))
    for answer, first, again in zip(answers, came[::2], came[1::2], strict=True):
        assert again[0] - first[0] >= 0.3
        assert first[1] == again[1] == answer.signal_id != ""
        # Of the time of the call, the wait is a part.
        assert again[2] < first[2] - 0.25


async def test_many_are_sent_by_who_may_not_ask_for_limits_with_time_for_each_and_again_when_told() -> None:
    came: list[tuple[float, float]] = []

    async def forbidden(request: Message, context: Any) -> Message:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
        return request

    async def capture(request: BatchCaptureRequest, context: Any) -> BatchCaptureResponse:
        came.append((time.monotonic(), context.time_remaining()))
        if len(came) % 2:
            await busy(context, 0.3)
        return BatchCaptureResponse(results=[CaptureResponse(signal_id=signal.id) for signal in request.signals])

    signals = [Signal(id=f"s-{number}", user_id="mei", post=Post(text="Jazz piano")) for number in range(40)]
    async with server_of(GetServerInfo=forbidden, BatchCapture=capture) as address:
        for results in await of_either(address, lambda client: client.capture_many(signals), timeout=5):
            assert [result.response.signal_id for result in results] == [signal.id for signal in signals]
    for first, again in zip(came[::2], came[1::2], strict=True):
        assert again[0] - first[0] >= 0.3
    assert [left for _, left in came] == pytest.approx([15] * 4, abs=1)


async def test_no_batch_is_under_way_beside_an_earlier_one_that_holds_one_of_its_ids() -> None:
    begun: list[list[str]] = []
    under_way: list[set[str]] = []

    async def info(request: Message, context: Any) -> GetServerInfoResponse:
        return GetServerInfoResponse(max_batch_size=2)

    async def upsert(request: UpsertItemsRequest, context: Any) -> UpsertItemsResponse:
        ids = {item.id for item in request.items}
        begun.append([item.title for item in request.items])
        assert all(ids.isdisjoint(other) for other in under_way)
        under_way.append(ids)
        await asyncio.sleep(0.1)
        under_way.remove(ids)
        return UpsertItemsResponse(upserted_count=len(ids))

    items = [Item(id=title[0], title=title) for title in ("a1", "b1", "c1", "b2", "d1", "c2", "b3")]
    async with server_of(GetServerInfo=info, UpsertItems=upsert) as address:
        for results in await of_either(address, lambda client: client.upsert_many(items)):
            assert [(result.item.title, result.error) for result in results] == [(item.title, None) for item in items]
    assert begun == [["a1", "b1"], ["c1", "b2"], ["d1", "c2"], ["b3"]] * 2


async def test_no_more_is_read_than_is_under_way_and_who_stops_takes_back_what_is() -> None:
    drawn: list[int] = []
    given_up = asyncio.Semaphore(0)

    def endless() -> Iterator[Signal]:
        for number in range(1000):
            drawn.append(number)
            yield Signal(id=f"s-{number}", user_id="mei", post=Post(text="Jazz piano"))

    async def info(request: Message, context: Any) -> GetServerInfoResponse:
        return GetServerInfoResponse(max_batch_size=1)

    async def capture(request: BatchCaptureRequest, context: Any) -> BatchCaptureResponse:
        if request.signals[0].id != "s-0":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                given_up.release()
                raise
        return BatchCaptureResponse(results=[CaptureResponse(signal_id="s-0")])

    async with server_of(GetServerInfo=info, BatchCapture=capture) as address, asyncio.timeout(20):
        async with AsyncClient(address, timeout=60) as client:
            results = client.capture_many(endless())
            assert (await anext(results)).signal.id == "s-0"
            await asyncio.sleep(0.1)
            await results.aclose()
            await given_up.acquire()
            assert len(drawn) <= 4
        drawn.clear()
        with Client(address, timeout=60) as blocking:
            taken = blocking.capture_many(endless())
            assert (await asyncio.to_thread(next, taken)).signal.id == "s-0"
            await asyncio.sleep(0.1)
            taken.close()
            await given_up.acquire()
            assert len(drawn) <= 4
