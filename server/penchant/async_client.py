"""The client for asyncio; `client.py` is its blocking twin."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
from google.protobuf.message import Message

from penchant import _bulk, _requests
from penchant._arguments import collection, seconds
from penchant._channel import address, channel_options
from penchant._requests import Method, named_after
from penchant._rpcs import BY_REQUEST, Rpc, streaming_rpc_of, unary_rpc_of
from penchant.exceptions import (
    AccessError,
    CancelledError,
    DeadlineError,
    PenchantError,
    WrongStateError,
    from_rpc_error,
)
from penchant.v1.admin_service_pb2 import JOB_STATE_RUNNING, Job
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import StreamCaptureRequest, StreamCaptureResponse
from penchant.v1.signal_pb2 import Signal

P = ParamSpec("P")
T = TypeVar("T")

# A call that is cancelled raises in whoever waits for it what cancels a task.
_GIVEN_UP = (grpc.RpcError, asyncio.CancelledError)


def _unary(method: Method[P, T]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @named_after(method)
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method.answer(await self.call(method.request(*args, **kwargs)))

    return call


def _stream(method: Method[P, T]) -> Callable[Concatenate[AsyncClient, P], AsyncGenerator[T]]:
    @named_after(method)
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
        async with aclosing(self.stream(method.request(*args, **kwargs))) as responses:
            async for response in responses:
                yield method.answer(response)

    return call


def _paged(method: Method[P, Iterable[T]]) -> Callable[Concatenate[AsyncClient, P], AsyncGenerator[T]]:
    @named_after(method)
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
        request: Any = method.request(*args, **kwargs)
        request.page_size = _requests.LARGEST_PAGE
        while True:
            response: Any = await self.call(request)
            for element in method.answer(response):
                yield element
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    return call


class AsyncClient:
    """Calls a Penchant server at `target`, `host:port`, from one event loop; else as `penchant.Client`."""

    def __init__(self, target: str = "127.0.0.1:50051", *, timeout: float = 10.0) -> None:
        self._timeout = seconds("timeout", timeout)
        self._target = address(target)
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled, and no more can be made."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    capture = _unary(_requests.capture)
    behave = _unary(_requests.behave)
    capture_signal = _unary(_requests.capture_signal)
    profile = _unary(_requests.profile)
    watch = _stream(_requests.watch)
    explain = _unary(_requests.explain)
    steer = _unary(_requests.steer)
    signals = _paged(_requests.signals)
    export_user = _stream(_requests.export_user)
    delete_user = _unary(_requests.delete_user)
    delete_signals = _unary(_requests.delete_signals)
    merge_users = _unary(_requests.merge_users)

    recommend = _unary(_requests.recommend)
    rerank = _unary(_requests.rerank)
    find_users = _unary(_requests.find_users)

    item = _unary(_requests.item)
    items = _paged(_requests.items)
    delete_items = _unary(_requests.delete_items)

    server_info = _unary(_requests.server_info)
    adapters = _unary(_requests.adapters)
    load_adapter = _unary(_requests.load_adapter)
    activate_adapter = _unary(_requests.activate_adapter)
    unload_adapter = _unary(_requests.unload_adapter)
    start_experiment = _unary(_requests.start_experiment)
    stop_experiment = _unary(_requests.stop_experiment)
    experiment = _unary(_requests.experiment)
    learn_mix = _unary(_requests.learn_mix)
    mixes = _paged(_requests.mixes)
    use_mix = _unary(_requests.use_mix)
    rebuild_index = _unary(_requests.rebuild_index)
    job = _unary(_requests.job)
    jobs = _paged(_requests.jobs)
    cancel_job = _unary(_requests.cancel_job)

    async def capture_many(
        self, signals: Iterable[Signal] | AsyncIterable[Signal]
    ) -> AsyncGenerator[_bulk.CaptureResult]:
        """Capture any number of signals, read as they are sent; as `Client.capture_many`."""
        batcher = _bulk.Batcher(await self._limits(), _bulk.capture_request)
        with_ids = (_bulk.with_id(signal) async for signal in _each(collection("signals", signals)))
        async with aclosing(self._send(batcher, with_ids)) as batches:
            async for batch in batches:
                for result in _bulk.capture_results(batch):
                    yield result

    async def stream_capture(
        self, signals: Iterable[Signal] | AsyncIterable[Signal]
    ) -> AsyncGenerator[StreamCaptureResponse]:
        """Capture through one stream; as `Client.stream_capture`."""
        collection("signals", signals)
        failed: list[Exception] = []

        async def requests() -> AsyncIterator[StreamCaptureRequest]:
            sequence = 0
            # Raised in here, in a task of gRPC's, it would end in a log.
            try:
                async for signal in _each(signals):
                    yield StreamCaptureRequest(sequence=sequence, signal=_bulk.with_id(signal))
                    sequence += 1
            except Exception as error:
                failed.append(error)

        async with aclosing(self._events(BY_REQUEST[StreamCaptureRequest], requests())) as responses:
            async for response in responses:
                yield response
        for error in failed:
            raise error

    async def upsert_items(self, items: Iterable[Item] | AsyncIterable[Item]) -> _bulk.UpsertResult:
        """Put any number of items into the catalogue, new or changed; as `Client.upsert_items`."""
        whole = _bulk.UpsertResult()
        async for result in self.upsert_many(items):
            whole.add(result)
        return whole

    async def upsert_many(self, items: Iterable[Item] | AsyncIterable[Item]) -> AsyncGenerator[_bulk.ItemResult]:
        """The same with a result for each item, in order; as `Client.upsert_many`."""
        batcher = _bulk.Batcher(await self._limits(), _bulk.upsert_request)
        checked = (_bulk.an_item(item) async for item in _each(collection("items", items)))
        async with aclosing(self._send(batcher, checked)) as batches:
            async for batch in batches:
                for result in _bulk.item_results(batch):
                    yield result

    async def wait_for_job(self, job_id: str, *, timeout: float | None = None, interval: float = 0.5) -> Job:  # noqa: ASYNC109 (as the blocking twin)
        """Wait until a job has ended, whichever way; as `Client.wait_for_job`."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while (job := await self.job(job_id)).state == JOB_STATE_RUNNING:
            left = interval if give_up is None else give_up - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"job {job_id!r} is still running after {timeout:g} s")
            await asyncio.sleep(min(interval, left))
        return job

    async def call(self, request: Message) -> Any:
        """Send any request message of a call with one response. Returns the response as it came."""
        rpc = unary_rpc_of(request)
        request = _requests.with_ids(request)
        deadline = time.monotonic() + self._timeout
        while True:
            left = deadline - time.monotonic()
            try:
                return await self._rpc(rpc)(request, timeout=left)
            except _GIVEN_UP as error:
                await asyncio.sleep(_bulk.overload_pause(_reason(error), deadline - time.monotonic()))

    def stream(self, *requests: Message) -> AsyncGenerator[Any]:
        """Send any request message of a call that streams its responses, or several where it takes a stream.

        Yields the responses as they come.
        """
        rpc = streaming_rpc_of(requests)
        return self._events(rpc, _each(requests) if rpc.client_streaming else requests[0])

    async def _events(self, rpc: Rpc, request: Message | AsyncIterator[Message]) -> AsyncGenerator[Any]:
        call = self._rpc(rpc)(request)
        try:
            async for response in call:
                yield response
        except _GIVEN_UP as error:
            raise _reason(error) from error
        finally:
            call.cancel()

    def _rpc(self, rpc: Rpc) -> Any:
        if self._closed:
            raise WrongStateError("this client is closed; open another", reason="CLIENT_CLOSED")
        if self._channel is None:
            # Here rather than in __init__: the channel belongs to the loop that makes the calls.
            self._channel = grpc.aio.insecure_channel(self._target, options=channel_options(self._target))
        if rpc.path not in self._calls:
            self._calls[rpc.path] = rpc.open(self._channel)
        return self._calls[rpc.path]

    async def _limits(self) -> _bulk.Limits:
        try:
            return _bulk.Limits.of(await self.server_info())
        except AccessError:
            return _bulk.Limits()

    async def _send(
        self, batcher: _bulk.Batcher[_bulk.Element], elements: AsyncIterator[_bulk.Element]
    ) -> AsyncGenerator[_bulk.Batch[_bulk.Element]]:
        """Send elements in batches, a few under way at once. Yields each batch when done, in order."""
        flying: deque[tuple[_bulk.Batch[_bulk.Element], asyncio.Task[None]]] = deque()

        async def finish() -> _bulk.Batch[_bulk.Element]:
            batch, task = flying.popleft()
            await task
            return batch

        try:
            async for batch in _batches(batcher, elements):
                while any(batch.meets(earlier) for earlier, _ in flying):
                    yield await finish()
                flying.append((batch, asyncio.create_task(self._send_batch(batch))))
                if len(flying) == _bulk.IN_FLIGHT:
                    yield await finish()
            while flying:
                yield await finish()
        finally:
            tasks = [task for _, task in flying]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_batch(self, batch: _bulk.Batch[_bulk.Element]) -> None:
        while not batch.done():
            request = batch.request()
            call = self._rpc(BY_REQUEST[type(request)])
            try:
                pause = batch.take(await call(request, timeout=batch.timeout(self._timeout)))
            except _GIVEN_UP as error:
                pause = batch.refused(_reason(error))
            if not batch.done():
                await asyncio.sleep(pause)


def _reason(error: BaseException) -> PenchantError:
    """Turn one of _GIVEN_UP into the error to raise in its place; raises what cancels the caller's own task."""
    if isinstance(error, grpc.RpcError):
        return from_rpc_error(error)
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    return CancelledError("the call was given up: its connection was closed")


async def _batches(
    batcher: _bulk.Batcher[_bulk.Element], elements: AsyncIterator[_bulk.Element]
) -> AsyncIterator[_bulk.Batch[_bulk.Element]]:
    async for element in elements:
        if batch := batcher.add(element):
            yield batch
    if batch := batcher.rest():
        yield batch


async def _each(elements: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(elements, AsyncIterable):
        async for element in elements:
            yield element
    else:
        for element in elements:
            yield element
