"""Adaptive micro-batching: whatever waits when the model is free goes into its next forward pass.

No timer is involved. One request alone is encoded at once; under load batches fill by themselves.
Waiting requests take turns, so that one text is never stuck behind a bulk feed. Identical texts are
encoded once: a bounded cache keeps vectors, and texts in flight are shared between requests.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from penchant_pipelines.encoder.base import Encoder, Vectors
from penchant_pipelines.encoder.settings import EncoderSettings
from penchant_pipelines.errors import Overloaded, WrongState

Vector = NDArray[np.float32]


@dataclass(eq=False, slots=True)
class _Pending:
    """A text on its way through the model, shared by all requests that want it."""

    text: str
    future: asyncio.Future[Vector]
    waiters: int = 0
    taken: bool = False
    """Out of the queue. It may stand there more than once: each request that wants it queues it."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BatchingEncoder:
    """Shares an encoder between the tasks of one event loop; the model runs in threads of its own."""

    def __init__(self, encoder: Encoder, settings: EncoderSettings) -> None:
        self.encoder = encoder
        self._batch_size = settings.batch_size
        self._max_pending = settings.max_pending
        self._cache: LRUCache[str, Vector] = LRUCache(maxsize=settings.cache_size)
        self._pending: dict[str, _Pending] = {}
        self._requests: deque[deque[_Pending]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._texts_per_second = 200.0
        self._loop = asyncio.get_running_loop()
        workers = settings.workers or (cores() if encoder.device == "cpu" else 1)
        self._threads = [
            threading.Thread(target=self._run, name=f"encoder-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pending_count(self) -> int:
        """Texts that wait for the model or are in it."""
        return len(self._pending)

    def cached(self, text: str) -> Vector | None:
        """The text's vector, where it is known without asking the model."""
        vector: Vector | None = self._cache.get(text)
        return vector

    def forget(self) -> None:
        """Drop all texts from the cache."""
        self._cache.clear()

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts in order: (n, d) float32 unit rows.

        Raises Overloaded where too many texts wait. Cancelling the caller takes its texts off the queue.
        """
        rows: list[Vector | None] = [self._cache.get(text) for text in texts]
        missing = dict.fromkeys(text for text, row in zip(texts, rows, strict=True) if row is None)
        if missing:
            vectors = await self._enqueue(list(missing))
            rows = [row if row is not None else vectors[text] for text, row in zip(texts, rows, strict=True)]
        if not rows:
            return np.zeros((0, self.encoder.dimensions), dtype=np.float32)
        return np.stack([row for row in rows if row is not None])

    async def _enqueue(self, texts: list[str]) -> dict[str, Vector]:
        if self._closed:
            raise WrongState("SHUTTING_DOWN", "the encoder is closed")
        fresh = [text for text in texts if text not in self._pending]
        if fresh and self._pending and len(self._pending) + len(fresh) > self._max_pending:
            raise Overloaded(retry_after=min(30.0, max(0.1, len(self._pending) / self._texts_per_second)))
        for text in fresh:
            self._pending[text] = _Pending(text, self._loop.create_future())
        wanted = [self._pending[text] for text in texts]
        for entry in wanted:
            entry.waiters += 1
        queued = deque(entry for entry in wanted if not entry.taken)
        if queued:
            with self._wake:
                self._requests.append(queued)
                self._wake.notify()
        try:
            vectors = await asyncio.gather(*(asyncio.shield(entry.future) for entry in wanted))
        finally:
            for entry in wanted:
                entry.waiters -= 1
        return dict(zip(texts, vectors, strict=True))

    async def close(self) -> None:
        """Finish what is in the model, fail what still waits, stop the thread."""
        self._closed = True
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        for entry in self._pending.values():
            if not entry.future.done():
                entry.future.set_exception(WrongState("SHUTTING_DOWN", "the encoder is closed"))
                entry.future.exception()
        self._pending.clear()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._requests and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                batch, dropped = self._take()
            if dropped:
                self._loop.call_soon_threadsafe(self._drop, dropped)
            if batch:
                self._encode(batch)

    def _take(self) -> tuple[list[_Pending], list[_Pending]]:
        """Pick the next batch, a text from each waiting request in turn, and what nobody waits for now."""
        batch: list[_Pending] = []
        dropped: list[_Pending] = []
        # No more than a fair share: a worker that took all would leave the others idle, and their cores with them.
        share = -(-sum(map(len, self._requests)) // len(self._threads))
        while self._requests and len(batch) < min(share, self._batch_size):
            request = self._requests.popleft()
            entry = request.popleft()
            if not entry.taken:
                entry.taken = True
                (batch if entry.waiters > 0 else dropped).append(entry)
            if request:
                self._requests.append(request)
        return batch, dropped

    def _encode(self, batch: list[_Pending]) -> None:
        start = time.perf_counter()
        settle: Callable[[], None]
        try:
            vectors = self.encoder.encode([entry.text for entry in batch])
        except Exception as error:  # whatever the model raises belongs to the requests that wait for it
            settle = partial(self._fail, batch, error)
        else:
            rate = len(batch) / max(time.perf_counter() - start, 1e-6)
            self._texts_per_second += 0.1 * (rate - self._texts_per_second)
            settle = partial(self._settle, batch, vectors)
        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._closed = True

    def _settle(self, batch: list[_Pending], vectors: Vectors) -> None:
        for entry, vector in zip(batch, vectors, strict=True):
            self._pending.pop(entry.text, None)
            if self._cache.maxsize:
                self._cache[entry.text] = vector.copy()
            if not entry.future.done():
                entry.future.set_result(vector)

    def _fail(self, batch: list[_Pending], error: Exception) -> None:
        for entry in batch:
            self._pending.pop(entry.text, None)
            if not entry.future.done():
                entry.future.set_exception(error)
                entry.future.exception()

    def _drop(self, dropped: list[_Pending]) -> None:
        revived = deque(entry for entry in dropped if entry.waiters > 0)
        for entry in itertools.filterfalse(lambda entry: entry.waiters > 0, dropped):
            self._pending.pop(entry.text, None)
            entry.future.cancel()
        for entry in revived:
            entry.taken = False
        if revived:
            with self._wake:
                self._requests.append(revived)
                self._wake.notify()
