"""What happens around every call: request id, validation, errors to statuses, one log line, counting, draining."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from penchant.errors import Draining, Malformed, to_status
from penchant.validation import Validator

REQUEST_ID: Final = "x-request-id"
STATUS_DETAILS: Final = "grpc-status-details-bin"

T = TypeVar("T")
# Quoted: generic in the stubs alone.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_SANE_ID = re.compile(r"[\x20-\x7e]{1,128}")
# Probes and tools have to get through at any time, and would drown the log.
_UNTOUCHED = ("/grpc.health.", "/grpc.reflection.")
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
Called: TypeAlias = Callable[[str, str, float], None]
"""Told of a call that has ended: its method, the name of its code, and the seconds it took."""

_HANDLERS: dict[tuple[bool, bool], Callable[..., _Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

_log = structlog.get_logger()


class Drain:
    """Counts the calls in flight and, once started, lets no new ones in."""

    def __init__(self) -> None:
        self._started = asyncio.Event()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Calls being served now."""
        return self._in_flight

    def start(self) -> None:
        """Refuse every call from now on; those in flight go on, but for streams without an end."""
        self._started.set()

    async def wait_idle(self, timeout: float) -> bool:  # noqa: ASYNC109 - it answers, and does not raise
        """Wait up to `timeout` seconds until no call is in flight; tell whether that came true."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def unless_started(self, wanted: Coroutine[Any, Any, T]) -> T:
        """Await what may never come, such as the next element of a stream. Raises Draining at the start."""
        tasks = asyncio.create_task(wanted), asyncio.create_task(self._started.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._started.is_set():
                raise Draining
            return tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call for as long as it is served. Raises Draining instead where the drain has started."""
        if self._started.is_set():
            raise Draining
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every call but health and reflection.

    The caller's `x-request-id` (or a new one) is bound to the log context and returned in the trailers.
    Unary requests are validated before the handler sees them; elements of request streams are the
    handler's to check, for it alone can refuse one and go on.
    """

    def __init__(self, validator: Validator, drain: Drain, called: Called) -> None:
        self._validator = validator
        self._drain = drain
        self._called = called

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Return the handler with everything around it, or None where there is no such method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_UNTOUCHED):
            return handler
        return self._wrap(handler, method)

    def _wrap(self, handler: _Handler, method: str) -> _Handler:
        serve: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        decode = _strict(handler.request_deserializer or bytes)

        async def behave(request: Any, context: _Context) -> Any:
            async with _call(method, context, self._called):
                with self._drain.call():
                    if not handler.request_streaming:
                        request = decode(request)
                        self._validator.check(request)
                    result = serve(request, context)
                    if not inspect.isasyncgen(result):
                        return await result
                    async with aclosing(result) as responses:
                        async for response in responses:
                            await context.write(response)
            return None

        return _HANDLERS[handler.request_streaming, handler.response_streaming](
            behave,
            # Unary requests arrive as bytes: what fails to decode above is refused like any invalid request.
            request_deserializer=decode if handler.request_streaming else None,
            response_serializer=handler.response_serializer,
        )


@asynccontextmanager
async def _call(method: str, context: _Context, called: Called) -> AsyncIterator[None]:
    """Identify the call, end it with the status of whatever it raises, and log and count it."""
    request_id = _request_id(context)
    structlog.contextvars.bind_contextvars(request_id=request_id)
    trailers = ((REQUEST_ID, request_id),)
    context.set_trailing_metadata(trailers)
    started = time.perf_counter()
    code = grpc.StatusCode.OK
    bug: Exception | None = None
    try:
        yield
    except asyncio.CancelledError:
        code = _why_cancelled(context)
        raise
    except grpc.aio.AbortError:
        code = _current_code(context)
        raise
    except Exception as error:
        status = to_status(error)
        code = _STATUS_CODES[status.code]
        bug = error if code is grpc.StatusCode.INTERNAL else None
        details = (STATUS_DETAILS, status.SerializeToString())
        await context.abort(code, status.message, (*trailers, details))
    finally:
        seconds = time.perf_counter() - started
        called(method, code.name, seconds)
        _log.log(
            logging.ERROR if bug else logging.INFO,
            "call",
            method=method,
            code=code.name,
            duration_ms=round(seconds * 1000, 3),
            exc_info=bug,
        )


def _request_id(context: _Context) -> str:
    """Return the caller's own id where it is short printable ASCII, else a new one."""
    given = dict(context.invocation_metadata() or ()).get(REQUEST_ID, "")
    return given if isinstance(given, str) and _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _current_code(context: _Context) -> grpc.StatusCode:
    # Whatever the handler aborted with, and the stubs don't know: a StatusCode, or its number.
    code: grpc.StatusCode | int = cast("Any", context).code()
    return code if isinstance(code, grpc.StatusCode) else _STATUS_CODES[code]


def _why_cancelled(context: _Context) -> grpc.StatusCode:
    remaining = context.time_remaining()
    expired = remaining is not None and remaining <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED


def _strict(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise Malformed from error

    return decode
