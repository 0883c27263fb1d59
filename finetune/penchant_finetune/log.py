"""The log to learn from: items and signals read as capture reads them, from files or from a server's record."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from penchant_pipelines.encoder import EncoderSettings
from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.interests import Evidence
from penchant_pipelines.interests.blend import undo_times
from penchant_pipelines.model import Action, Behavior, Item, Post, Signal
from penchant_pipelines.reader import NOTHING, Reader
from penchant_pipelines.record import schema
from penchant_pipelines.record.record import FILE, reading_uri
from penchant_pipelines.record.rows import to_item, to_signal
from penchant_pipelines.text import TextPipeline, TextSettings
from penchant_pipelines.text.clean import clean
from penchant_pipelines.text.pipeline import encoder_text


@dataclass(frozen=True, slots=True)
class LoggedItem:
    """A catalogue item as the encoder reads it; `created` in µs, 0 where unknown."""

    id: str
    text: str
    created: int


@dataclass(frozen=True, slots=True)
class LoggedSignal:
    """A signal as the encoder reads it; `text` is empty for what a user did, or where nothing could be read.

    `user` numbers users from 0 in the order of their ids: who they are is not needed to learn.
    """

    id: str
    user: int
    time: int
    item_id: str
    text: str
    hashtags: tuple[tuple[str, str], ...]
    """Each hashtag of a text, and the text without it."""
    terms: tuple[str, ...]
    language: str
    action: Action | None
    value: float | None
    rating: float | None
    surface: str
    device: str
    undone: int | None = None
    """When the user took it back, µs; None: never."""

    @property
    def evidence(self) -> Evidence:
        """The signal as the blend sees it, its vector left out."""
        return Evidence(
            id=self.id,
            time=self.time,
            vector=None,
            action=self.action,
            value=self.value,
            rating=self.rating,
            item_id=self.item_id,
            terms=self.terms,
            language=self.language,
        )


@dataclass(frozen=True, slots=True)
class Log:
    """Items, each once, and signals sorted by (time, id); those that undo are left out."""

    items: tuple[LoggedItem, ...]
    signals: tuple[LoggedSignal, ...]
    moments: tuple[tuple[int, int], ...]
    """User and time of every signal, by (time, id): of what undoes, as well."""


def read_log(
    items: Iterable[Item],
    signals: Iterable[Signal],
    text: TextPipeline,
    refused: Callable[[InvalidInput], object] | None = None,
) -> Log:
    """Read items and signals.

    A later item replaces an earlier one of its id, the first signal of an id stands, and a post that holds nothing to
    read, about no item, is left out. `refused` is told of each item or signal that the server would refuse or that has
    no time, which is then left out; without it that raises InvalidInput, as where there is nothing to learn from.
    """
    reader = Reader(text)
    catalogue: dict[str, LoggedItem] = {}
    for item in items:
        with _left_out(f"item {item.id!r}", refused):
            catalogue[item.id] = LoggedItem(item.id, reader.item(item).text, item.create_time or 0)
    known: dict[str, Signal] = {}
    for signal in signals:
        with _left_out(f"signal {signal.id!r}", refused):
            _time(signal)
            known.setdefault(signal.id, signal)
    ordered = sorted(known.values(), key=lambda signal: (_time(signal), signal.id))
    users = {user: number for number, user in enumerate(sorted({signal.user_id for signal in ordered}))}
    read = []
    for signal in ordered:
        with _left_out(f"signal {signal.id!r}", refused):
            entry = _read(signal, users[signal.user_id], reader)
            if entry.text or entry.item_id:
                read.append(entry)
    by_user: dict[int, list[LoggedSignal]] = {}
    for entry in read:
        by_user.setdefault(entry.user, []).append(entry)
    undone = {key: time for own in by_user.values() for key, time in undo_times(e.evidence for e in own).items()}
    kept = tuple(replace(entry, undone=undone.get(entry.id)) for entry in read if entry.action is not Action.UNDO)
    if not catalogue or not kept:
        raise InvalidInput.at("items" if not catalogue else "signals", "are none: there is nothing to learn from")
    return Log(tuple(catalogue.values()), kept, tuple((entry.user, entry.time) for entry in read))


def read_record(folder: Path, settings: TextSettings) -> Log:
    """Read the record of a data folder as it stands, also beside a running server; nothing is written or locked.

    Raises WrongState where there is none or another version wrote it, InvalidInput where it holds nothing.
    """
    with _snapshot(folder) as connection:
        items = [to_item(row) for row in connection.execute(sa.select(schema.items))]
        query = sa.select(schema.signals, schema.users.c.user_id).join(schema.users)
        signals = [to_signal(row, row.user_id) for row in connection.execute(query)]
    return read_log(items, signals, TextPipeline(settings))


def live_encoder(folder: Path, settings: EncoderSettings) -> tuple[EncoderSettings, str | None]:
    """The encoder that a data folder's server serves with: the settings', with the adapter that is live.

    Second value: the id of its space as the record has it; None where nothing was served yet. Raises WrongState as
    `read_record` does.
    """
    with _snapshot(folder) as connection:
        table = schema.spaces
        query = sa.select(table.c.adapter_id, table.c.space_id).where(table.c.state == "live")
        live = connection.execute(query).one_or_none()
    if live is None or not live.adapter_id:
        return settings, live and live.space_id
    adapter = settings.adapter_folder(folder) / live.adapter_id
    return settings.model_copy(update={"adapter": adapter}), live.space_id


@contextmanager
def _snapshot(folder: Path) -> Iterator[Connection]:
    file = folder.resolve() / FILE
    if not file.is_file():
        raise WrongState("NO_RECORD", f"{str(folder)!r} is no data folder: it holds no {FILE}")
    opened = partial(sqlite3.connect, reading_uri(file), uri=True)
    engine = sa.create_engine("sqlite://", creator=opened, poolclass=sa.NullPool, hide_parameters=True)
    try:
        with engine.connect() as connection:
            # All that is read belongs to one moment, whatever a server writes meanwhile.
            connection.exec_driver_sql("BEGIN")
            yield connection
    except DatabaseError as error:
        raise WrongState(
            "RECORD_UNREADABLE",
            f"the record in {str(folder)!r} can't be read; start this version's server on it once: {error.orig}",
        ) from error
    finally:
        engine.dispose()


def _time(signal: Signal) -> int:
    if signal.time is None:
        raise InvalidInput.at("time", "is missing: what comes later can't be told without it")
    return signal.time


def _read(signal: Signal, user: int, reader: Reader) -> LoggedSignal:
    evidence = signal.evidence
    behavior = evidence if isinstance(evidence, Behavior) else None
    document, post = reader.post(evidence) if isinstance(evidence, Post) else (NOTHING, None)
    return LoggedSignal(
        id=signal.id,
        user=user,
        time=_time(signal),
        item_id=signal.item_id,
        text=document.text,
        hashtags=tuple(_hashtags(post.text, document.language)) if post else (),
        terms=document.terms,
        language=document.language,
        action=behavior.action if behavior else None,
        value=behavior.value if behavior else None,
        rating=post.verdict if post else None,
        surface=signal.context.get("surface", ""),
        device=signal.context.get("device", ""),
    )


@contextmanager
def _left_out(which: str, refused: Callable[[InvalidInput], object] | None) -> Iterator[None]:
    """Name the item or signal that is refused: a file holds thousands."""
    try:
        yield
    except InvalidInput as error:
        named = InvalidInput([replace(each, field=f"{which}, {each.field}") for each in error.violations])
        if refused is None:
            raise named from error
        refused(named)


def _hashtags(text: str, language: str) -> Iterator[tuple[str, str]]:
    for tag in clean(text).hashtags:
        yield encoder_text(tag, language), encoder_text(clean(text, without=tag).text, language)
