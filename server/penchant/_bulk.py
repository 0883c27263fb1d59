"""Many elements through few calls: what goes into a batch, what of it must be sent again, and when."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from penchant._arguments import member
from penchant._requests import with_ids
from penchant.exceptions import (
    InvalidInputError,
    OverloadedError,
    PenchantError,
    UnavailableError,
    Violation,
    from_status,
)
from penchant.v1.admin_service_pb2 import GetServerInfoResponse
from penchant.v1.catalog_service_pb2 import Item, UpsertItemsRequest, UpsertItemsResponse
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    BatchCaptureResponse,
    CaptureRequest,
    CaptureResponse,
)
from penchant.v1.signal_pb2 import Signal

# Calls under way at once: one is encoded while the next is read and sent.
IN_FLIGHT = 2

# Time that a call is given per element on top of the client's timeout; a CPU encodes a long post in less.
_SECONDS_PER_ELEMENT = 0.25

# How long elements are sent again while none of them is taken.
_PATIENCE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

# Bytes that an element may add to a request beyond its own: its tag and its length.
_OVERHEAD_BYTES = 16

_POSITION = re.compile(r"\b(?:signals|items)\[\d+\]\.?")

Element = TypeVar("Element", bound=Signal | Item)


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """What became of one signal: `response` or `error` is set, `signal` has the id it was sent with."""

    signal: Signal
    response: CaptureResponse | None
    error: PenchantError | None


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item: the catalogue has it unless `error` is set."""

    item: Item
    error: PenchantError | None


@dataclass(frozen=True, slots=True)
class ItemError:
    """An item that was refused: its position among those given, from 0, its id, and why."""

    index: int
    item_id: str
    error: PenchantError


@dataclass(slots=True)
class UpsertResult:
    """What became of items sent to the catalogue: how many it took, and the others one by one."""

    upserted_count: int = 0
    errors: list[ItemError] = field(default_factory=list)

    def add(self, result: ItemResult) -> None:
        """Count the next item."""
        if result.error is None:
            self.upserted_count += 1
        else:
            self.errors.append(ItemError(self.upserted_count + len(self.errors), result.item.id, result.error))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may carry: a number of elements, and bytes in all."""

    max_elements: int = 100
    max_bytes: int = 4 * 1024 * 1024

    @classmethod
    def of(cls, info: GetServerInfoResponse) -> Limits:
        """Read the limits that the server gives; the defaults stand for what it leaves open."""
        default = cls()
        return cls(info.max_batch_size or default.max_elements, info.max_message_bytes or default.max_bytes)


def capture_request(signals: Sequence[Signal]) -> BatchCaptureRequest:
    """Build the request for a batch of signals."""
    return BatchCaptureRequest(signals=signals)


def upsert_request(items: Sequence[Item]) -> UpsertItemsRequest:
    """Build the request for a batch of items."""
    return UpsertItemsRequest(items=items)


def with_id(signal: Signal) -> Signal:
    """Return the signal, or a copy with a random id where it has none: sent again, it stays one signal."""
    if member("signals", signal, Signal).id:
        return signal
    return with_ids(CaptureRequest(signal=signal)).signal


def an_item(item: Item) -> Item:
    """Return the item. Raises InvalidInputError if it is none."""
    return member("items", item, Item)


class Batch(Generic[Element]):
    """Some elements on their way: those still to be sent, and the answers or errors of the others."""

    def __init__(
        self,
        elements: list[Element],
        limits: Limits,
        build: Callable[[Sequence[Element]], BatchCaptureRequest | UpsertItemsRequest],
    ) -> None:
        self.elements = elements
        self.answers: dict[int, CaptureResponse] = {}
        self.errors: dict[int, PenchantError] = {}
        self._build = build
        self._ids = {element.id for element in elements}
        self._attempt = 0
        self._give_up = time.monotonic() + _PATIENCE_SECONDS
        self._waiting: list[int] = []
        for index, element in enumerate(elements):
            if fits(element, limits):
                self._waiting.append(index)
            else:
                self.errors[index] = InvalidInputError.at(
                    type(element).DESCRIPTOR.name.lower(),
                    f"takes {element.ByteSize()} bytes, the server takes {limits.max_bytes}; shorten it",
                )

    def meets(self, other: Batch[Element]) -> bool:
        """True where the two share an id: of what is sent twice, the server must see the first one first."""
        return not self._ids.isdisjoint(other._ids)

    def done(self) -> bool:
        """True when nothing is left to send."""
        return not self._waiting

    def request(self) -> BatchCaptureRequest | UpsertItemsRequest:
        """Build the request for all that is still to be sent."""
        return self._build([self.elements[index] for index in self._waiting])

    def timeout(self, base: float) -> float:
        """Return the deadline for that request, in seconds."""
        return base + _SECONDS_PER_ELEMENT * len(self._waiting)

    def take(self, response: BatchCaptureResponse | UpsertItemsResponse) -> float:
        """Sort the response in. Returns the seconds to wait before sending what is left, if anything is."""
        sent = self._waiting
        failed = {error.index: _at_element(from_status(error.status)) for error in response.errors}
        again = {i: error for i, error in failed.items() if isinstance(error, OverloadedError | UnavailableError)}
        if len(again) < len(sent):
            self._attempt = 0
            self._give_up = time.monotonic() + _PATIENCE_SECONDS
        elif time.monotonic() >= self._give_up:
            again = {}
        for i, index in enumerate(sent):
            if i in again:
                continue
            if i in failed:
                self.errors[index] = failed[i]
            elif isinstance(response, BatchCaptureResponse):
                self.answers[index] = response.results[i]
        self._waiting = [sent[i] for i in sorted(again)]
        return self._pause(list(again.values()))

    def refused(self, error: PenchantError) -> float:
        """Return the seconds to wait after the whole call failed; raises `error` where waiting won't help."""
        # An overload that doesn't say when to come back is not the server's own: nothing tells that it passes.
        if isinstance(error, OverloadedError):
            passing = error.retry_after is not None
        else:
            passing = isinstance(error, UnavailableError)
        if not passing or time.monotonic() >= self._give_up:
            raise error
        return self._pause([error])

    def _pause(self, errors: Sequence[PenchantError]) -> float:
        backoff = min(_FIRST_PAUSE_SECONDS * 2**self._attempt, _LONGEST_PAUSE_SECONDS)
        self._attempt += 1
        asked = [error.retry_after for error in errors if isinstance(error, OverloadedError) and error.retry_after]
        # Jitter, so that clients refused together don't come back together.
        return (max(asked) if asked else backoff) * random.uniform(1.0, 1.25)  # noqa: S311 (nothing secret)


def capture_results(batch: Batch[Signal]) -> Iterator[CaptureResult]:
    """Yield a result for each signal of a finished batch, in order."""
    for index, signal in enumerate(batch.elements):
        yield CaptureResult(signal, batch.answers.get(index), batch.errors.get(index))


def item_results(batch: Batch[Item]) -> Iterator[ItemResult]:
    """Yield a result for each item of a finished batch, in order."""
    for index, item in enumerate(batch.elements):
        yield ItemResult(item, batch.errors.get(index))


class Batcher(Generic[Element]):
    """Gathers elements into batches that fit `limits`."""

    def __init__(
        self, limits: Limits, build: Callable[[Sequence[Element]], BatchCaptureRequest | UpsertItemsRequest]
    ) -> None:
        self._limits = limits
        self._build = build
        self._elements: list[Element] = []
        self._bytes = 0

    def batches(self, elements: Iterable[Element]) -> Iterator[Batch[Element]]:
        """Gather all of these, in order."""
        for element in elements:
            if batch := self.add(element):
                yield batch
        if batch := self.rest():
            yield batch

    def add(self, element: Element) -> Batch[Element] | None:
        """Add an element. Returns the batch before it, where that is now full."""
        size = element.ByteSize() + _OVERHEAD_BYTES if fits(element, self._limits) else 0
        full = len(self._elements) >= self._limits.max_elements or self._bytes + size > self._limits.max_bytes
        batch = self.rest() if full else None
        self._elements.append(element)
        self._bytes += size
        return batch

    def rest(self) -> Batch[Element] | None:
        """Return what has gathered, or None."""
        elements, self._elements, self._bytes = self._elements, [], 0
        return Batch(elements, self._limits, self._build) if elements else None


def fits(element: Message, limits: Limits) -> bool:
    """Say whether a call could carry the element at all."""
    return element.ByteSize() + _OVERHEAD_BYTES <= limits.max_bytes


def overload_pause(error: PenchantError, seconds_left: float) -> float:
    """Return the seconds after which a single call may be sent again; raises `error` where it may not.

    Only an overload that says when to come back, in time, is worth waiting for: nothing was taken then.
    """
    if not isinstance(error, OverloadedError) or error.retry_after is None:
        raise error
    # The pause is about as long as what is taken waits: who comes back with less time left than that comes in vain.
    if 2 * error.retry_after >= seconds_left:
        raise error
    return error.retry_after


def _at_element(error: PenchantError) -> PenchantError:
    """Take the element's position in this one call out of field names: to the caller it means nothing."""
    error.message = _POSITION.sub("", error.message)
    if isinstance(error, InvalidInputError):
        error.violations = tuple(Violation(_POSITION.sub("", v.field), v.description) for v in error.violations)
    return error
