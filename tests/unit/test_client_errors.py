import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from penchant import AsyncClient, Client, exceptions
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
from penchant.v1.admin_service_pb2 import JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED, Job
from penchant.v1.interest_service_pb2 import CaptureRequest
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
async def silent_server() -> AsyncIterator[str]:
    """A server that takes every call and answers none."""

    class Silent(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            async def wait(request: bytes, context: Any) -> bytes:
                await asyncio.sleep(60)
                return b""

            return grpc.unary_unary_rpc_method_handler(wait)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Silent()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


CALLS: list[Callable[[Any], Any]] = [
    lambda client: client.profile("mei"),
    lambda client: client.watch(["mei"]),
    lambda client: client.capture_many([]),
]


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_under_way_when_its_client_is_closed_is_cancelled_and_its_caller_is_not(
    call: Callable[[Any], Any],
) -> None:
    async with silent_server() as address:
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
    async with silent_server() as address, AsyncClient(address) as client:
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
    async with silent_server() as address, AsyncClient(address, timeout=0.2) as client:
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
