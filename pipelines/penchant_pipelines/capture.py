"""Capture: from a signal as sent to a durable profile. Text and encoders first, then one transaction.

Texts are encoded in every space that is kept current, so that each of them holds every signal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import sqlalchemy as sa

from penchant_pipelines.encoder import BatchingEncoder
from penchant_pipelines.errors import InvalidInput, Overloaded, PenchantError
from penchant_pipelines.model import Item, Post, Signal, now
from penchant_pipelines.reader import NOTHING, Reader, check_value
from penchant_pipelines.record import Record, Writer, rows, schema
from penchant_pipelines.record.commit import Captured
from penchant_pipelines.record.ledger import Ledger, SpacesChanged
from penchant_pipelines.record.reading import Reading
from penchant_pipelines.text import Document

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Read:
    """A signal with its id, time and text filled in."""

    signal: Signal
    time: int
    document: Document
    known: bool
    """Its id was captured before: there is nothing to encode."""


@dataclass(frozen=True, slots=True)
class _ReadItem:
    """An item with what its text says, and all its words."""

    item: Item
    document: Document
    words: tuple[str, ...]


class EncodingSpace(Protocol):
    """An embedding space that texts are brought into."""

    @property
    def key(self) -> int:
        """Its number in the record."""

    @property
    def encoder(self) -> BatchingEncoder:
        """Makes its vectors."""

    def in_use(self) -> AbstractContextManager[None]:
        """Keeps it from being closed."""


class Capture:
    """Takes in signals and items, and whatever else must be encoded and written."""

    def __init__(
        self, reader: Reader, record: Record, writer: Writer[Ledger], spaces: Callable[[], Sequence[EncodingSpace]]
    ) -> None:
        self._reader = reader
        self._record = record
        self._writer = writer
        self._spaces = spaces

    async def write(
        self,
        documents: Sequence[Document],
        work: Callable[[Ledger, list[Reading]], Callable[[], Result]],
        size: int = 1,
    ) -> Result:
        """Encode documents in every space that is kept, and do a work with what comes out in one transaction.

        `size` is how many signals or items that takes in.
        """
        while True:
            spaces = list(self._spaces())
            keys = frozenset(space.key for space in spaces)
            readings = await self._encode(spaces, documents)

            def checked(
                ledger: Ledger, keys: frozenset[int] = keys, readings: list[Reading] = readings
            ) -> Callable[[], Result]:
                ledger.expect(keys)
                return work(ledger, readings)

            try:
                return await self._writer.submit(checked, size)
            except SpacesChanged:
                continue

    async def _encode(self, spaces: Sequence[EncodingSpace], documents: Sequence[Document]) -> list[Reading]:
        """Encode documents in order in each space; empty ones get no vectors."""
        texts = [document.text for document in documents if document.text]
        with ExitStack() as stack:
            for space in spaces:
                stack.enter_context(space.in_use())
            encoded = await asyncio.gather(*(space.encoder.encode(texts) for space in spaces))
        rows = iter(zip(*encoded, strict=True))
        return [
            Reading(
                {space.key: vector for space, vector in zip(spaces, next(rows), strict=True)} if document.text else {},
                document.language,
                document.terms,
            )
            for document in documents
        ]

    async def capture(self, signals: Sequence[Signal]) -> list[Captured | PenchantError]:
        """Capture signals; each succeeds or fails alone. Answers once they are durable.

        Violations name fields relative to the signal (`post.text`). Raises Overloaded for all of them.
        """
        arrived = now()
        prepared = await asyncio.to_thread(self._prepare, signals, arrived)
        sound = [entry for entry in prepared if isinstance(entry, _Read)]
        if sound:
            outcomes = iter(
                await self.write(
                    [entry.document for entry in sound],
                    lambda ledger, readings: _capture_all(ledger, list(zip(sound, readings, strict=True))),
                    len(sound),
                )
            )
        return [next(outcomes) if isinstance(entry, _Read) else entry for entry in prepared]

    async def check(self, signal: Signal) -> bool:
        """Do all that capture does, up to keeping anything; tells whether it was captured before. Raises as capture."""
        known = await asyncio.to_thread(self._is_known, signal)
        prepared = await asyncio.to_thread(self._prepare, [signal], now())
        if isinstance(prepared[0], PenchantError):
            raise prepared[0]
        await self._encode(self._spaces(), [prepared[0].document])
        return known

    async def upsert_items(self, items: Sequence[Item]) -> list[PenchantError | None]:
        """Add or replace items; each succeeds or fails alone. Fields are named relative to the item."""
        prepared = await asyncio.to_thread(lambda: [self._read_item(item) for item in items])
        sound = [entry for entry in prepared if isinstance(entry, _ReadItem)]
        if sound:
            await self.write(
                [entry.document for entry in sound],
                lambda ledger, readings: ledger.upsert_items(
                    [
                        (entry.item, replace(reading, words=entry.words))
                        for entry, reading in zip(sound, readings, strict=True)
                    ]
                ),
                len(sound),
            )
        return [None if isinstance(entry, _ReadItem) else entry for entry in prepared]

    def _prepare(self, signals: Sequence[Signal], arrived: int) -> list[_Read | PenchantError]:
        known = self._known_ids([signal.id for signal in signals if signal.id])
        return [self._read(signal, arrived, known) for signal in signals]

    def _read(self, signal: Signal, arrived: int, known: set[str]) -> _Read | PenchantError:
        time = arrived if signal.time is None else signal.time
        named = signal if signal.id else replace(signal, id=uuid.uuid4().hex)
        if named.id in known:
            return _Read(named, time, NOTHING, known=True)
        evidence = named.evidence
        try:
            if isinstance(evidence, Post):
                document, evidence = self._reader.post(evidence)
                named = replace(named, evidence=evidence)
                if not document.text and not evidence.item_id:
                    raise InvalidInput.at("post.text", "holds no word: links, mentions, numbers and emoji are none")
            else:
                document = NOTHING
                check_value(evidence)
        except InvalidInput as error:
            return error
        return _Read(named, time, document, known=False)

    def _is_known(self, signal: Signal) -> bool:
        """Tell whether a signal was captured before. Raises Conflict if its id is taken by other content."""
        with self._record.read() as connection:
            return rows.user_of(connection, signal) is not None

    def _known_ids(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        with self._record.read() as connection:
            for some in rows.among(schema.signals.c.id, ids):
                found.update(connection.execute(sa.select(schema.signals.c.id).where(some)).scalars())
        return found

    def _read_item(self, item: Item) -> _ReadItem | InvalidInput:
        try:
            document = self._reader.new_item(item)
        except InvalidInput as error:
            return error
        return _ReadItem(item, document, self._reader.words(document))


def _capture_all(
    ledger: Ledger, pairs: Sequence[tuple[_Read, Reading]]
) -> Callable[[], list[Captured | PenchantError]]:
    finishes: list[Callable[[], Captured] | PenchantError] = []
    for entry, reading in pairs:
        try:
            if entry.known and not ledger.knows(entry.signal.id):
                # Erased between the look and the write: its text was not read, so it can't be captured now.
                raise Overloaded(retry_after=0.1)
            finishes.append(ledger.capture(entry.signal, entry.time, reading))
        except PenchantError as error:
            finishes.append(error)
    return lambda: [finish if isinstance(finish, PenchantError) else finish() for finish in finishes]
