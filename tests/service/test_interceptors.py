"""The interceptor around a real server on loopback; the handlers below do what their user_id says."""

import asyncio
import json
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from penchant.interceptors import REQUEST_ID, STATUS_DETAILS, CallInterceptor, Drain
from penchant.logs import configure_logging
from penchant.v1 import interest_service_pb2 as pb
from penchant.v1 import interest_service_pb2_grpc as pb_grpc
from penchant.validation import Limits, Validator
from penchant_pipelines.errors import NotFound, Overloaded

WRITTEN = "what the user wrote"
Lines = list[MutableMapping[str, Any]]


class Interests(pb_grpc.InterestServiceServicer):
    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.closed = asyncio.Event()

    async def GetProfile(  # noqa: N802 - the contract's name
        self, request: pb.GetProfileRequest, context: Any
    ) -> pb.GetProfileResponse:
        await self._act(request.user_id, context)
        bound = structlog.contextvars.get_contextvars()["request_id"]
        return pb.GetProfileResponse(profile=pb.Profile(user_id=request.user_id, space_id=bound))

    async def WatchProfiles(  # noqa: N802 - the contract's name
        self, request: pb.WatchProfilesRequest, context: Any
    ) -> AsyncIterator[pb.WatchProfilesResponse]:
        try:
            for user_id in request.user_ids:
                await self._act(user_id, context)
                yield pb.WatchProfilesResponse(profile=pb.Profile(user_id=user_id))
        finally:
            self.closed.set()

    async def StreamCapture(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pb.StreamCaptureRequest], context: Any
    ) -> AsyncIterator[pb.StreamCaptureResponse]:
        async for request in request_iterator:
            await self._act(request.signal.user_id, context)
            yield pb.StreamCaptureResponse(ack=pb.StreamCaptureResponse.Ack(sequence=request.sequence))

    async def ExportUser(  # type: ignore[override]  # noqa: N802 - the contract's name
        self, request: pb.ExportUserRequest, context: Any
    ) -> None:
        """Answer by the other style that grpc.aio knows: writing to the context."""
        for version in range(3):
            await context.write(pb.ExportUserResponse(profile=pb.Profile(version=version)))
        await self._act(request.user_id, context)

    async def _act(self, user_id: str, context: Any) -> None:
        match user_id:
            case "missing":
                raise NotFound("user", user_id)
            case "busy":
                raise Overloaded(2)
            case "bug":
                raise RuntimeError(WRITTEN)
            case "abort":
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
            case "slow":
                self.entered.set()
                await self.release.wait()
            case "yield":
                await asyncio.sleep(0.01)


class Running:
    """A server under test, with a channel to it."""

    def __init__(self, channel: grpc.aio.Channel, service: Interests, drain: Drain) -> None:
        self.channel: Any = channel
        self.service, self.drain = service, drain
        self.stub: Any = pb_grpc.InterestServiceStub(channel)


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    service, drain = Interests(), Drain()  # type: ignore[abstract]
    validator = Validator(Limits(max_text_bytes=1000, max_batch_size=10))
    server = grpc.aio.server(interceptors=[CallInterceptor(validator, drain, lambda *_: None)])
    pb_grpc.add_InterestServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Running(channel, service, drain)
    finally:
        await server.stop(None)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running() as up:
        yield up


@pytest.fixture
def lines() -> Any:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as captured:
        yield captured


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [message async for message in stream]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata())


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    return status_pb2.Status.FromString(trailers(error)[STATUS_DETAILS])


def detail(error: grpc.aio.AioRpcError, kind: type) -> Any:
    found = kind()
    assert any(packed.Unpack(found) for packed in status_of(error).details)
    return found


def watch(*user_ids: str) -> pb.WatchProfilesRequest:
    return pb.WatchProfilesRequest(user_ids=user_ids)


async def feed(*user_ids: str) -> AsyncIterator[pb.StreamCaptureRequest]:
    for sequence, user_id in enumerate(user_ids):
        request = pb.StreamCaptureRequest(sequence=sequence)
        request.signal.user_id = user_id
        yield request


async def test_a_call_goes_through_and_is_logged_once(server: Running, lines: Lines) -> None:
    call = server.stub.GetProfile(pb.GetProfileRequest(user_id="u1"), metadata=((REQUEST_ID, "r-1"),))
    assert (await call).profile == pb.Profile(user_id="u1", space_id="r-1")
    assert dict(await call.trailing_metadata())[REQUEST_ID] == "r-1"
    await until(lambda: lines)
    (line,) = lines
    assert line.pop("duration_ms") > 0
    assert {key: value for key, value in line.items() if value is not None} == {
        "event": "call",
        "log_level": "info",
        "method": "/penchant.v1.InterestService/GetProfile",
        "code": "OK",
        "request_id": "r-1",
    }


@pytest.mark.parametrize("given", [None, "", "x" * 129])
async def test_an_unfit_request_id_is_replaced(server: Running, given: str | None) -> None:
    metadata = () if given is None else ((REQUEST_ID, given),)
    call = server.stub.GetProfile(pb.GetProfileRequest(user_id="u1"), metadata=metadata)
    await call
    assigned = dict(await call.trailing_metadata())[REQUEST_ID]
    assert len(assigned) == 32
    assert int(assigned, 16)


async def test_concurrent_calls_keep_their_own_request_id(server: Running) -> None:
    async def ask(number: int) -> str:
        metadata = ((REQUEST_ID, f"r-{number}"),)
        response = await server.stub.GetProfile(pb.GetProfileRequest(user_id="yield"), metadata=metadata)
        return str(response.profile.space_id)

    assert await asyncio.gather(*map(ask, range(50))) == [f"r-{n}" for n in range(50)]


async def test_streams_go_through(server: Running) -> None:
    profiles = await collect(server.stub.WatchProfiles(watch("a", "b")))
    assert [p.profile.user_id for p in profiles] == ["a", "b"]
    acks = await collect(server.stub.StreamCapture(feed("a", "b", "c")))
    assert [a.ack.sequence for a in acks] == [0, 1, 2]
    records = await collect(server.stub.ExportUser(pb.ExportUserRequest(user_id="u")))
    assert [r.profile.version for r in records] == [0, 1, 2]


async def test_unary_requests_are_validated_before_the_handler(server: Running) -> None:
    error = await refused(server.stub.GetProfile(pb.GetProfileRequest()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == ("user_id", "must not be empty")
    error = await refused(collect(server.stub.WatchProfiles(watch("u", ""))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not server.service.closed.is_set()


@pytest.mark.parametrize("count", [1, 1000])
async def test_a_refusal_reaches_the_client_however_much_is_wrong(server: Running, count: int) -> None:
    error = await refused(collect(server.stub.WatchProfiles(watch(*["\0" * 300] * count))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status_of(error).message == error.details()


@pytest.mark.parametrize("style", ["GetProfile", "WatchProfiles", "StreamCapture", "ExportUser"])
async def test_domain_errors_become_statuses_in_every_kind_of_call(server: Running, style: str) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "GetProfile": lambda: server.stub.GetProfile(pb.GetProfileRequest(user_id="missing")),
        "WatchProfiles": lambda: collect(server.stub.WatchProfiles(watch("u", "missing"))),
        "StreamCapture": lambda: collect(server.stub.StreamCapture(feed("u", "missing"))),
        "ExportUser": lambda: collect(server.stub.ExportUser(pb.ExportUserRequest(user_id="missing"))),
    }
    error = await refused(calls[style]())
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "user 'missing' does not exist")
    assert detail(error, error_details_pb2.ErrorInfo).reason == "USER_NOT_FOUND"
    assert trailers(error)[REQUEST_ID]


async def test_overload_tells_when_to_retry_and_is_no_bug(server: Running, lines: Lines) -> None:
    error = await refused(server.stub.GetProfile(pb.GetProfileRequest(user_id="busy")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail(error, error_details_pb2.RetryInfo).retry_delay.seconds == 2
    await until(lambda: lines)
    (line,) = lines
    assert (line["log_level"], line["code"], line["exc_info"]) == ("info", "RESOURCE_EXHAUSTED", None)


async def test_a_bug_is_logged_with_its_traceback_and_kept_from_the_caller(server: Running, lines: Lines) -> None:
    call = server.stub.GetProfile(pb.GetProfileRequest(user_id="bug"), metadata=((REQUEST_ID, "r-9"),))
    error = await refused(call)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert dict(detail(error, error_details_pb2.ErrorInfo).metadata) == {"request_id": "r-9"}
    assert WRITTEN.encode() not in trailers(error)[STATUS_DETAILS]
    await until(lambda: lines)
    (line,) = lines
    assert (line["log_level"], line["code"]) == ("error", "INTERNAL")
    assert isinstance(line["exc_info"], RuntimeError)


async def test_a_handlers_own_abort_is_left_alone(server: Running, lines: Lines) -> None:
    error = await refused(server.stub.GetProfile(pb.GetProfileRequest(user_id="abort")))
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not yours")
    assert trailers(error)[REQUEST_ID]
    await until(lambda: lines)
    assert lines[0]["code"] == "PERMISSION_DENIED"


@pytest.mark.parametrize("method", ["GetProfile", "WatchProfiles", "StreamCapture"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(server: Running, method: str) -> None:
    path = f"/penchant.v1.InterestService/{method}"
    garbage = b"\xff\xff\xff"

    async def one() -> AsyncIterator[bytes]:
        yield garbage

    call: Awaitable[object]
    if method == "GetProfile":
        call = server.channel.unary_unary(path)(garbage)
    elif method == "WatchProfiles":
        call = collect(server.channel.unary_stream(path)(garbage))
    else:
        call = collect(server.channel.stream_stream(path)(one()))
    error = await refused(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(error, error_details_pb2.ErrorInfo).reason == "MALFORMED_REQUEST"


async def test_a_method_that_does_not_exist_is_unimplemented(server: Running) -> None:
    error = await refused(server.channel.unary_unary("/penchant.v1.InterestService/Nothing")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_hanging_up_closes_the_stream_and_the_count(server: Running, lines: Lines) -> None:
    stream = server.stub.WatchProfiles(watch("u", "slow"))
    assert (await stream.read()).profile.user_id == "u"
    await server.service.entered.wait()
    assert server.drain.in_flight == 1
    stream.cancel()
    async with asyncio.timeout(5):
        await server.service.closed.wait()
    await until(lambda: lines)
    assert lines[0]["code"] == "CANCELLED"
    assert server.drain.in_flight == 0


async def test_a_deadline_that_passes_is_logged_as_such(server: Running, lines: Lines) -> None:
    error = await refused(server.stub.GetProfile(pb.GetProfileRequest(user_id="slow"), timeout=0.1))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: lines)
    assert lines[0]["code"] == "DEADLINE_EXCEEDED"
    assert 50 < lines[0]["duration_ms"] < 5_000


async def test_draining_lets_calls_finish_and_no_new_ones_in(server: Running) -> None:
    assert await server.drain.wait_idle(0)
    running_call = asyncio.ensure_future(server.stub.GetProfile(pb.GetProfileRequest(user_id="slow")))
    await server.service.entered.wait()
    await server.stub.GetProfile(pb.GetProfileRequest(user_id="u"))  # its end is not that of the other
    server.drain.start()
    assert not await server.drain.wait_idle(0.02)

    error = await refused(server.stub.GetProfile(pb.GetProfileRequest(user_id="u")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert detail(error, error_details_pb2.ErrorInfo).reason == "DRAINING"

    server.service.release.set()
    assert (await running_call).profile.user_id == "slow"
    assert await server.drain.wait_idle(5)


async def test_health_is_neither_logged_nor_refused(server: Running, lines: Lines) -> None:
    server.drain.start()
    response = await health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest())
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    assert lines == []


@pytest.fixture
def _logging_restored() -> Any:
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, logging.getLogger("jieba").disabled
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("jieba").disabled = disabled
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging_restored")
async def test_json_logs_are_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    async with running() as up:
        await up.stub.GetProfile(pb.GetProfileRequest(user_id="用户"), metadata=((REQUEST_ID, "r-1"),))
        await refused(up.stub.GetProfile(pb.GetProfileRequest(user_id="bug")))
        logging.getLogger("anyone").warning("from the %s", "library")
        logging.getLogger("chromadb.api").info("chatter")
        logging.getLogger("jieba").error("chatter")
        logging.getLogger("anyone").debug("too fine")
        with warnings.catch_warnings(action="always"):
            warnings.warn("take care", stacklevel=1)
    written = capfd.readouterr()
    assert written.out == ""
    # gRPC's own core may have a word to say there too, about connections of tests before this one.
    lines = [line for line in written.err.splitlines() if line.startswith("{")]
    fine, bug, library, warning = map(json.loads, lines)
    assert (fine["event"], fine["code"], fine["request_id"], fine["level"]) == ("call", "OK", "r-1", "info")
    assert fine["timestamp"].endswith("Z")
    assert "exception" not in fine
    assert bug["level"] == "error"
    assert "RuntimeError" in bug["exception"]
    assert (library["event"], library["level"], library["logger"]) == (
        "from the library",
        "warning",
        "anyone",
    )
    assert "take care" in warning["event"]
    assert "用户" not in written.err


@pytest.mark.usefixtures("_logging_restored")
async def test_console_logs_are_readable(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "console")
    async with running() as up:
        await up.stub.GetProfile(pb.GetProfileRequest(user_id="u"))
        await refused(up.stub.GetProfile(pb.GetProfileRequest(user_id="bug")))
    written = capfd.readouterr().err
    assert "code=INTERNAL" in written
    assert "RuntimeError" in written
    assert "code=OK" not in written


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        configure_logging("loud", "json")
