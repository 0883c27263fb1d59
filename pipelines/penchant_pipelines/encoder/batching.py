"""Adaptive micro-batching: whatever waits when the model is free goes into its next forward pass.

No timer is involved. One request alone is encoded at once; under load batches fill by themselves.
Waiting requests take turns, so that one text is never stuck behind a bulk feed. Identical texts are
encoded once: a bounded cache keeps vectors, and texts in flight are shared between requests.
What would wait too long is refused at once. How long that is follows from the speed measured last.
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

TURN_SECONDS = 0.5
"""About the longest that a worker is away with one batch: who comes meanwhile waits for it."""
HALF_LIFE_SECONDS = 2.0
"""Seconds of work after which what was measured before counts half."""
DONE_AT_FIRST, SECONDS_AT_FIRST = 1_000.0, 0.1
"""What a core does of `_work`, and in which time, as long as little was measured."""
LONGEST_RETRY_SECONDS = 30.0


@dataclass(eq=False, slots=True)
class _Pending:
    """A text on its way through the model, shared by all requests that want it."""

    text: str
    future: asyncio.Future[Vector]
    work: int
    waiters: int = 0
    lasting: bool = True
    """Its vector goes into the cache."""
    taken: bool = False
    """Out of the queue. It may stand there more than once: each request that wants it queues it."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(text: str) -> int:
    """What a text costs the model, in about bytes: a token is as many in most languages, and models cut long texts."""
    return 20 + len(text[:2000].encode("utf-8", "replace")[:2000])


class BatchingEncoder:
    """Shares an encoder between the tasks of one event loop; the model runs in threads of its own."""

    def __init__(self, encoder: Encoder, settings: EncoderSettings) -> None:
        self.encoder = encoder
        self._batch_size = settings.batch_size
        self._max_wait = settings.max_wait_seconds
        self._cache: LRUCache[str, Vector] = LRUCache(maxsize=settings.cache_size)
        self._pending: dict[str, _Pending] = {}
        self._requests: deque[deque[_Pending]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self.refusals = 0
        """How many requests were turned away as Overloaded so far."""
        self._done, self._seconds = DONE_AT_FIRST, SECONDS_AT_FIRST
        self._loop = asyncio.get_running_loop()
        workers = settings.workers or (cores() if encoder.device == "cpu" else 1)
        self._threads = [
            threading.Thread(target=self._run, name=f"encoder-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def cached(self, text: str) -> Vector | None:
        """The text's vector, where it is known without asking the model."""
        vector: Vector | None = self._cache.get(text)
        return vector

    @property
    def waiting(self) -> int:
        """Texts that wait for the model or are in it."""
        return len(self._pending)

    def forget(self) -> None:
        """Drop all texts from the cache; those that are being encoded don't come into it."""
        self._cache.clear()
        for entry in self._pending.values():
            entry.lasting = False

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts in order: (n, d) float32 unit rows.

        Raises Overloaded where it would wait too long for others. Cancelling the caller takes its texts off the queue.
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
        work = {text: _work(text) for text in fresh}
        if fresh:
            wait, own = self._seconds_for(len(fresh), sum(work.values()))
            # Who asks for much has the patience to wait for as much again: else two feeds would shut each other out.
            if wait > self._max_wait + own:
                self.refusals += 1
                raise Overloaded(retry_after=min(LONGEST_RETRY_SECONDS, wait))
        for text in fresh:
            self._pending[text] = _Pending(text, self._loop.create_future(), work[text])
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

    def _seconds_for(self, count: int, work: int) -> tuple[float, float]:
        """What so many texts would wait for the turns of others, and what they take themselves."""
        with self._wake:
            turns = itertools.chain.from_iterable(itertools.islice(request, count) for request in self._requests)
            ahead = sum(entry.work for entry in turns if entry.waiters and not entry.taken)
            speed = self._done / self._seconds * len(self._threads)
        return ahead / speed, work / speed

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
        room = self._done / self._seconds * TURN_SECONDS
        while self._requests and len(batch) < min(share, self._batch_size) and room > 0:
            request = self._requests.popleft()
            entry = request.popleft()
            if not entry.taken:
                entry.taken = True
                if entry.waiters > 0:
                    batch.append(entry)
                    room -= entry.work
                else:
                    dropped.append(entry)
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
            self._measure(sum(entry.work for entry in batch), time.perf_counter() - start)
            settle = partial(self._settle, batch, vectors)
        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._closed = True

    def _measure(self, work: int, seconds: float) -> None:
        # A machine that stood still for once counts no more than a turn.
        weight = min(1.0, TURN_SECONDS / max(seconds, 1e-9))
        with self._wake:
            # A few texts alone take longer each: they don't tell how fast a queue gets shorter, unless they are faster.
            if self._requests or work * self._seconds > seconds * self._done:
                kept = 0.5 ** (weight * seconds / HALF_LIFE_SECONDS)
                self._done = self._done * kept + weight * work
                self._seconds = self._seconds * kept + weight * seconds

    def _settle(self, batch: list[_Pending], vectors: Vectors) -> None:
        for entry, vector in zip(batch, vectors, strict=True):
            self._pending.pop(entry.text, None)
            if self._cache.maxsize and entry.lasting:
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
