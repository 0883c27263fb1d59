"""The client for blocking code; `async_client.py` is its asyncio twin."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
from google.protobuf.message import Message

from penchant import _bulk, _requests
from penchant._arguments import collection, seconds
from penchant._channel import address, channel_options
from penchant._requests import Method, named_after
from penchant._rpcs import BY_REQUEST, Rpc, streaming_rpc_of, unary_rpc_of
from penchant.exceptions import AccessError, DeadlineError, WrongStateError, from_rpc_error
from penchant.v1.admin_service_pb2 import JOB_STATE_RUNNING, Job
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import StreamCaptureRequest, StreamCaptureResponse
from penchant.v1.signal_pb2 import Signal

P = ParamSpec("P")
T = TypeVar("T")


def _unary(method: Method[P, T]) -> Callable[Concatenate[Client, P], T]:
    @named_after(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method.answer(self.call(method.request(*args, **kwargs)))

    return call


def _stream(method: Method[P, T]) -> Callable[Concatenate[Client, P], Generator[T]]:
    @named_after(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        with closing(self.stream(method.request(*args, **kwargs))) as responses:
            yield from map(method.answer, responses)

    return call


def _paged(method: Method[P, Iterable[T]]) -> Callable[Concatenate[Client, P], Generator[T]]:
    @named_after(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        request: Any = method.request(*args, **kwargs)
        request.page_size = _requests.LARGEST_PAGE
        while True:
            response: Any = self.call(request)
            yield from method.answer(response)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    return call


class Client:
    """Calls a Penchant server at `target`, `host:port` or a host with the default port; safe to share between threads.

    `timeout` is the deadline of a call in seconds; streams have none, batches get more by their size.
    While nobody answers, calls that are safe to repeat are repeated for a few seconds; where the server
    says that it is busy and when to come back, calls come back within their deadline.
    Whatever a call can't do is raised as a `penchant.PenchantError`: an argument that can't be sent as the
    InvalidInputError that names it, before anything is sent.
    """

    def __init__(self, target: str = "127.0.0.1:50051", *, timeout: float = 10.0) -> None:
        self._timeout = seconds("timeout", timeout)
        target = address(target)
        self._channel = grpc.insecure_channel(target, options=channel_options(target))
        self._calls: dict[str, Any] = {}
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled, and no more can be made."""
        self._closed = True
        self._channel.close()

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

    def capture_many(self, signals: Iterable[Signal]) -> Generator[_bulk.CaptureResult]:
        """Capture any number of signals, read as they are sent. Yields a result for each, in order.

        What an overloaded server turns away is sent again; what it refuses comes back as a result with
        `error` set. Nothing is sent before the first result is asked for.
        """
        batcher = _bulk.Batcher(self._limits(), _bulk.capture_request)
        with closing(self._send(batcher, map(_bulk.with_id, collection("signals", signals)))) as batches:
            for batch in batches:
                yield from _bulk.capture_results(batch)

    def stream_capture(self, signals: Iterable[Signal]) -> Generator[StreamCaptureResponse]:
        """Capture through one stream. Yields the server's events as they come.

        `sequence` is the position among `signals`, from 0. Nothing is sent again here: a `backoff` is the
        caller's to act on, `capture_many` does so by itself. What `signals` raises is raised once all that
        came before it is answered.
        """
        collection("signals", signals)
        failed: list[Exception] = []

        def requests() -> Iterator[StreamCaptureRequest]:
            # Raised in here, in gRPC's thread, it would end in a log.
            try:
                for sequence, signal in enumerate(signals):
                    yield StreamCaptureRequest(sequence=sequence, signal=_bulk.with_id(signal))
            except Exception as error:
                failed.append(error)

        with closing(self._events(BY_REQUEST[StreamCaptureRequest], requests())) as responses:
            yield from responses
        for error in failed:
            raise error

    def upsert_items(self, items: Iterable[Item]) -> _bulk.UpsertResult:
        """Put any number of items into the catalogue, new or changed. Returns how many, and those refused."""
        whole = _bulk.UpsertResult()
        for result in self.upsert_many(items):
            whole.add(result)
        return whole

    def upsert_many(self, items: Iterable[Item]) -> Generator[_bulk.ItemResult]:
        """The same with a result for each item, in order: what was taken is known though the server fails midway.

        Nothing is sent before the first result is asked for.
        """
        batcher = _bulk.Batcher(self._limits(), _bulk.upsert_request)
        with closing(self._send(batcher, map(_bulk.an_item, collection("items", items)))) as batches:
            for batch in batches:
                yield from _bulk.item_results(batch)

    def wait_for_job(self, job_id: str, *, timeout: float | None = None, interval: float = 0.5) -> Job:
        """Wait until a job has ended, whichever way; asks every `interval` seconds.

        Raises DeadlineError after `timeout` seconds, which does not stop the job; None waits for good.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        while (job := self.job(job_id)).state == JOB_STATE_RUNNING:
            left = interval if give_up is None else give_up - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"job {job_id!r} is still running after {timeout:g} s")
            time.sleep(min(interval, left))
        return job

    def call(self, request: Message) -> Any:
        """Send any request message of a call with one response. Returns the response as it came."""
        rpc = unary_rpc_of(request)
        request = _requests.with_ids(request)
        deadline = time.monotonic() + self._timeout
        while True:
            left = deadline - time.monotonic()
            try:
                return self._rpc(rpc)(request, timeout=left)
            except grpc.RpcError as error:
                time.sleep(_bulk.overload_pause(from_rpc_error(error), deadline - time.monotonic()))

    def stream(self, *requests: Message) -> Generator[Any]:
        """Send any request message of a call that streams its responses, or several where it takes a stream.

        Yields the responses as they come.
        """
        rpc = streaming_rpc_of(requests)
        return self._events(rpc, iter(requests) if rpc.client_streaming else requests[0])

    def _events(self, rpc: Rpc, request: Message | Iterator[Message]) -> Generator[Any]:
        call = self._rpc(rpc)(request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    def _rpc(self, rpc: Rpc) -> Any:
        if self._closed:
            raise WrongStateError("this client is closed; open another", reason="CLIENT_CLOSED")
        if rpc.path not in self._calls:
            self._calls[rpc.path] = rpc.open(self._channel)
        return self._calls[rpc.path]

    def _limits(self) -> _bulk.Limits:
        try:
            return _bulk.Limits.of(self.server_info())
        except AccessError:
            return _bulk.Limits()

    def _send(
        self, batcher: _bulk.Batcher[_bulk.Element], elements: Iterable[_bulk.Element]
    ) -> Generator[_bulk.Batch[_bulk.Element]]:
        """Send elements in batches, a few under way at once. Yields each batch when done, in order."""
        flying: deque[tuple[_bulk.Batch[_bulk.Element], Any]] = deque()
        try:
            for batch in batcher.batches(elements):
                while any(batch.meets(earlier) for earlier, _ in flying):
                    yield self._finish(*flying.popleft())
                flying.append((batch, self._start(batch)))
                if len(flying) == _bulk.IN_FLIGHT:
                    yield self._finish(*flying.popleft())
            while flying:
                yield self._finish(*flying.popleft())
        finally:
            for _, call in flying:
                call.cancel()

    def _start(self, batch: _bulk.Batch[_bulk.Element]) -> Any:
        request = batch.request()
        return self._rpc(BY_REQUEST[type(request)]).future(request, timeout=batch.timeout(self._timeout))

    def _finish(self, batch: _bulk.Batch[_bulk.Element], call: Any) -> _bulk.Batch[_bulk.Element]:
        while True:
            try:
                pause = batch.take(call.result())
            except grpc.RpcError as error:
                pause = batch.refused(from_rpc_error(error))
            if batch.done():
                return batch
            time.sleep(pause)
            call = self._start(batch)
