"""The engine: all parts put together, one method for each thing a caller can ask. Knows no transport.

async with Engine.open(EngineSettings(), Path("data")) as engine:
    await engine.capture([signal])
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import unicodedata
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from pydantic import Field
from sqlalchemy import Connection

from penchant_pipelines.capture import Capture
from penchant_pipelines.catalog import Keeper
from penchant_pipelines.completion import Completion
from penchant_pipelines.encoder import Encoder, EncoderSettings, open_encoder
from penchant_pipelines.erasure import Purge
from penchant_pipelines.errors import InvalidInput, NotFound, Overloaded, PenchantError, Unavailable, WrongState
from penchant_pipelines.index import IndexSettings, IndexStore, IndexUnavailable, open_index_store
from penchant_pipelines.interests import InterestSettings, ProfileView, SteeringEvent
from penchant_pipelines.interests.labels import Label, name_interests, shown_as
from penchant_pipelines.jobs import Job, Jobs, Progress, no_progress
from penchant_pipelines.mixes import Mixes
from penchant_pipelines.model import Item, Steering, now
from penchant_pipelines.reader import NOTHING, Reader
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.record import Record, Writer, nothing, schema
from penchant_pipelines.record.carry import carried
from penchant_pipelines.record.commit import Commit, Receipt, Steered
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.record import FILE, INDEX, is_damage, is_read_only
from penchant_pipelines.record.rows import Vector
from penchant_pipelines.record.users import ProfileCache
from penchant_pipelines.settings import Section
from penchant_pipelines.spaces import experiment as experiments
from penchant_pipelines.spaces.adapters import Adapters
from penchant_pipelines.spaces.experiment import Experiment, Report
from penchant_pipelines.spaces.space import Shared, Space
from penchant_pipelines.spaces.stock import Stock, take_stock
from penchant_pipelines.summaries import LanguageModel, Summaries, SummarySettings, open_model
from penchant_pipelines.tasks import to_the_end
from penchant_pipelines.text import Document, TextPipeline, TextSettings
from penchant_pipelines.text.hashtags import take_hashtags
from penchant_pipelines.watch import Watchers

log = structlog.get_logger(__name__)

REBUILD = "rebuild_index"
PROFILES_AT_HAND = 2_000
LEARNING_PAUSE_SECONDS = 600.0
"""Pause between looks whether a new mix is due."""
LEAST_FREE_BYTES = 2**20
"""Less than this may be too little to open a record, which takes some pages beside it."""
HEAL_SECONDS = 30.0
"""Pause between attempts to rebuild an index that is away."""


class EngineSettings(Section):
    """Settings of every part of the engine."""

    text: TextSettings = Field(default_factory=TextSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    interests: InterestSettings = Field(default_factory=InterestSettings)
    index: IndexSettings = Field(default_factory=IndexSettings)
    recommend: RecommendSettings = Field(default_factory=RecommendSettings)
    summaries: SummarySettings = Field(default_factory=SummarySettings)


class Engine:
    """A running Penchant on one data folder. Belongs to one event loop.

    What compares vectors is asked of a `Space`, which `serve` gives; what is written goes into every space.
    """

    def __init__(
        self,
        settings: EngineSettings,
        record: Record,
        stock: Stock,
        keeper: Keeper,
        store: IndexStore,
        model: LanguageModel | None,
    ) -> None:
        self.settings = settings
        self.record = record
        self.keeper = keeper
        self.catalog = keeper.catalog
        self.watchers = Watchers()
        self._loop = asyncio.get_running_loop()
        self._background: set[asyncio.Task[None]] = set()
        self._profile_cache: ProfileCache = ProfileCache(maxsize=PROFILES_AT_HAND)
        self._secret = record.secret("receipts")
        self._numbers = record.numbers()
        self.writer: Writer[Ledger] = Writer(record.engine, self._ledger)
        self._completion = Completion(record, self.writer)
        self.jobs = Jobs(record, self.writer)
        self._reader = Reader(TextPipeline(settings.text, record.folder / "cache"))
        self._store = store
        self._purge = Purge(record, self.writer, self._indexed, self._rebuild_unasked)
        self.mixes = Mixes(record, self.writer, self.jobs, self.catalog)
        shared = Shared(
            record,
            self.writer,
            keeper,
            self._store,
            self._reader,
            settings.encoder,
            settings.interests,
            settings.recommend,
            self.mixes,
        )
        self.adapters = Adapters(
            stock,
            shared,
            self.jobs,
            settings.encoder.adapter_folder(record.folder),
            self._heal_index,
            self.watchers.switched,
        )
        self.serve = self.adapters.serve
        self.summaries = Summaries(record, self.writer, model, settings.summaries.every_signals, self.serve)
        self._capture = Capture(self._reader, record, self.writer, lambda: self.adapters.serving.kept)
        self.capture = self._capture.capture
        self.check = self._capture.check

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: EngineSettings,
        folder: Path,
        encoder: Encoder | None = None,
        store: IndexStore | None = None,
    ) -> AsyncIterator[Engine]:
        """Open a data folder, creating it if need be, and close it in good order.

        `encoder` and `store` stand in for those that the settings name, `store` only in an empty folder.
        Where the encoder of its vectors is not to be had any more, all is brought into the space of the settings'
        encoder first. Raises WrongState where the folder is in use, the record is damaged or the model can't be loaded,
        Unavailable where an adapter is there and can't be read, InvalidInput where the settings name what is not there.
        """
        model = open_model(settings.summaries)
        # The lock comes first: whoever can't have the folder should hear so before a model is loaded.
        with _readable(folder):
            record = await asyncio.to_thread(Record, folder)
        try:
            with _readable(folder):
                adapters = settings.encoder.adapter_folder(folder)
                home = await asyncio.to_thread(open_encoder, settings.encoder) if encoder is None else encoder
                stock = await asyncio.to_thread(take_stock, record, settings.encoder, adapters, home)
                dimensions = {row.key: row.dimensions for row in stock.rows}
                keeper = await asyncio.to_thread(Keeper.load, record, dimensions, settings.interests)
                index = store or open_index_store(settings.index, record.folder / INDEX)
                engine = cls(settings, record, stock, keeper, index, model)
            try:
                with _readable(folder):
                    await engine._start()
                yield engine
            finally:
                await engine._close()
        finally:
            await asyncio.to_thread(record.close)

    @property
    def live(self) -> Space:
        """The space that serves all users but those of an experiment."""
        return self.adapters.serving.live

    async def _start(self) -> None:
        await self.jobs.recover()
        await asyncio.to_thread(self.mixes.start, self.live.key)
        await self.adapters.start()
        for space in self._indexed():
            if not await space.relay.start() and await asyncio.to_thread(self._is_empty):
                # Nothing to build: a new data folder has its index before the first call.
                with contextlib.suppress(IndexUnavailable):
                    await space.relay.rebuild(no_progress)
            if space.relay.live is None:
                self._heal_index(space)
        await self.adapters.resume()
        await self._completion.start()
        self._keep_up("complete-signals", self._completion.complete)
        if self.settings.recommend.learn_mixes:
            self._keep_up("learn-mixes", self._learn_if_due)
        await self._purge.start()
        self._keep_up("purge-record", self._purge.rewrite_record)
        self._keep_up("purge-index", self._purge.rebuild_indexes)
        self._keep_up("purge-log", self._purge.empty_log)
        self._keep_up("count-again", self.keeper.count_when_due)
        self._keep_up("gather-without-erased", self.keeper.gather_when_erased)
        self._in_background("write-summaries", self.summaries.run())
        self._in_background("prepare-lists", self._prepare_lists())

    async def _close(self) -> None:
        for task in list(self._background):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.summaries.close()
        self.adapters.closing()
        await self.jobs.close()
        for space in self.adapters.serving.kept:
            await space.close()
        try:
            await asyncio.to_thread(self._store.close)
        except IndexUnavailable as error:  # the next start builds it anew
            log.warning("index.not_closed", error=str(error))
        await self.writer.close()

    # -- users -----------------------------------------------------------------------------------------------

    async def labels(self, profile: ProfileView, space_id: str) -> list[Label]:
        """Name the interests of a profile that was written or is watched; by its space's model unless that is busy."""
        space = self._space(space_id)
        if space is not None:
            # What was written was taken, and a watch is no call that could come back.
            with contextlib.suppress(Overloaded), space.in_use():
                return await space.labels(profile)
        return self.labels_at_hand(profile, space_id)

    def labels_at_hand(self, profile: ProfileView, space_id: str) -> list[Label]:
        """The same with what is known without asking the model."""
        space = self._space(space_id)
        return name_interests(profile.interests, lambda _text: None) if space is None else space.labels_at_hand(profile)

    def _space(self, space_id: str) -> Space | None:
        """The space of this name; None where it was unloaded since."""
        return next((space for space in self.adapters.serving.kept if space.space_id == space_id), None)

    async def steer(self, user_id: str, steering: Steering, interest_id: str = "", topic: str = "") -> Steered:
        """Take the user's word about an interest, or about a topic. Raises NotFound, InvalidInput."""
        document = NOTHING
        if topic:
            # What looks the same is the same: accents may come as characters of their own. A hashtag is its words.
            topic = " ".join(take_hashtags(unicodedata.normalize("NFC", topic))[0].split())
            document = await asyncio.to_thread(self._reader.document, topic, "", "topic")
            if not document.text:
                raise InvalidInput.at("topic", "holds no words that could name a topic")
            # The user's own words are the best name there is.
            terms = tuple(dict.fromkeys([topic, *document.terms]))
            document = Document(document.text, document.language, terms)
            interest_id = await self._shown_as(user_id, topic, steering)
        about_interest = interest_id and not topic
        elsewhere = await asyncio.to_thread(self._elsewhere, user_id, interest_id) if about_interest else {}
        return await self._capture.write(
            [document],
            lambda ledger, readings: ledger.steer(user_id, now(), steering, interest_id, topic, readings[0], elsewhere),
        )

    async def _shown_as(self, user_id: str, topic: str, steering: Steering) -> str:
        """Id of the interest that the user's profile shows under this very name; empty where it shows none."""
        with self.serve(user_id) as space:
            stored = await asyncio.to_thread(space.profiles.find, user_id)
            if stored is None:
                return ""
            return shown_as(stored.view.interests, await space.labels(stored.view), topic, steering.for_more)

    def _elsewhere(self, user_id: str, interest_id: str) -> dict[int, Vector | None]:
        """Where an interest lies in the spaces that don't serve its user, by space; blocks for a replay each."""
        serving = self.adapters.serving
        here = serving.of(user_id)
        others = [space for space in serving.kept if space is not here and space.keeps_profiles]
        stored = here.profiles.find(user_id) if others else None
        found = next((each for each in stored.view.interests if each.id == interest_id), None) if stored else None
        if stored is None or found is None:
            return {}
        # The profile reads as of now, or of its newest signal where that is ahead: the word comes after both.
        event = SteeringEvent("", stored.view.as_of + 1, found.vector, Steering(), "", (), interest_id, found.sign)
        with self.record.read() as connection:
            return {
                space.key: carried(connection, here.key, here.blender, space.key, stored.key, event) for space in others
            }

    async def merge(self, from_user_id: str, into_user_id: str) -> tuple[ProfileView, int, int, str]:
        """Join one user's history to another's: the view, version, signal count, and space of the result.

        Raises NotFound.
        """
        merged = await self.writer.submit(lambda ledger: ledger.merge(from_user_id, into_user_id))
        await self.keeper.count_again()
        return merged

    async def erase(self, user_id: str) -> Receipt:
        """Erase a user from the record, the index, caches and derived data. Raises NotFound, WrongState."""
        return await self._erase(lambda ledger: ledger.erase(user_id, now()))

    async def erase_signals(self, user_id: str, ids: Sequence[str]) -> Receipt:
        """Erase some of a user's signals likewise, those that are there; without any the receipt has no id.

        Raises NotFound for an unknown user.
        """
        return await self._erase(lambda ledger: ledger.erase_signals(user_id, ids, now()))

    async def _erase(self, work: Callable[[Ledger], Callable[[], Receipt]]) -> Receipt:
        async def erase() -> Receipt:
            receipt = await self.writer.submit(work)
            if receipt.id:
                for space in self.adapters.serving.kept:
                    space.encoder.forget()
                await self.keeper.count_again()
                await self._purge.erased()
            return receipt

        # Whoever gives up waiting has asked for all of it.
        return await to_the_end(erase())

    # -- items -----------------------------------------------------------------------------------------------

    async def upsert_items(self, items: Sequence[Item]) -> list[PenchantError | None]:
        """Add or replace items; each succeeds or fails alone. Fields are named relative to the item.

        Signals that came before their item count for it from when it is there; where many users have such, the last
        of them moments after this returns.
        """
        outcomes = await self._capture.upsert_items(items)
        await self._completion.caught_up()
        return outcomes

    async def delete_items(self, ids: Sequence[str]) -> int:
        """Delete items; returns how many there were."""
        return await self.writer.submit(lambda ledger: ledger.delete_items(ids))

    def item(self, item_id: str) -> Item:
        """Look up an item. Raises NotFound."""
        entry = self.catalog.entries.get(item_id)
        if entry is None:
            raise NotFound("item", item_id)
        return entry.item

    # -- operation -------------------------------------------------------------------------------------------

    async def rebuild_index(self) -> Job:
        """Start a job that rebuilds the index of each space beside the old one. Raises WrongState if one runs."""

        async def rebuild(progress: Progress) -> None:
            for space in self._indexed():
                try:
                    await space.relay.rebuild(progress)
                except IndexUnavailable as error:
                    raise Unavailable(
                        "INDEX_UNAVAILABLE",
                        f"the index was not rebuilt ({error}): see that Chroma is within reach and has room, "
                        "then start it again",
                    ) from error

        return await self.jobs.start(REBUILD, rebuild)

    async def learn_mix(self, asked: bool = True) -> Job:
        """Start a job that learns from the record how to mix the sources of recommendations.

        Raises WrongState if one runs.
        """
        return await self.mixes.learn(lambda: self.live.teacher(), asked)

    async def _prepare_lists(self) -> None:
        """Spare whoever asks first the wait for what lists read."""
        try:
            await self.live.prepare()
        except Exception:
            log.exception("background.failed", task="prepare-lists")

    async def _learn_if_due(self) -> None:
        """Learn a mix where the record has grown enough, after a pause."""
        await asyncio.sleep(LEARNING_PAUSE_SECONDS)
        if self.mixes.is_due():
            with contextlib.suppress(WrongState):  # somebody else has just started one
                await self.learn_mix(asked=False)

    async def experiment(self, name: str) -> tuple[Experiment, Report]:
        """Read an experiment (an empty name: the newest) and evaluate its feedback. Raises NotFound."""
        found = await asyncio.to_thread(experiments.find, self.record, name)
        if found is None:
            raise NotFound("experiment", name)
        return found, await asyncio.to_thread(experiments.report, self.record, found, self.settings.interests)

    def counts(self) -> tuple[int, int, int, int]:
        """Users, items, signals, and outbox rows that the live index has yet to take; blocks."""
        with self.record.read() as connection:
            users = _count(connection, schema.users)
            items = _count(connection, schema.items)
            signals = connection.execute(sa.select(sa.func.sum(schema.users.c.signal_count))).scalar() or 0
        return users, items, int(signals), self.live.relay.lag()

    async def try_record(self) -> bool:
        """Whether the record can be written. Where it lately could not, this tries: no caller may come to do so."""
        if not self.writer.writable:
            with contextlib.suppress(Unavailable, sa.exc.DatabaseError):
                await self.writer.submit(_write_nothing_new)
                # Here alone: a work that succeeds may have had nothing to write.
                self.writer.writable = True
        return self.writer.writable

    def _indexed(self) -> list[Space]:
        """Spaces that have, or should have, an index: all but those being built."""
        return [space for space in self.adapters.serving.kept if space.keeps_profiles]

    def _heal_index(self, space: Space) -> None:
        """Rebuild the index of a space until there is one again."""

        async def heal() -> None:
            while space.relay.live is None and space in self.adapters.serving.kept:
                await self._rebuild_unasked(space)
                if space.relay.live is None:
                    await asyncio.sleep(HEAL_SECONDS)

        self._in_background("heal-index", heal())

    async def _rebuild_unasked(self, space: Space) -> None:
        """Rebuild the index of a space without a job; whoever calls looks whether it must be tried again."""
        try:
            await space.relay.rebuild(no_progress)
        except Exception as error:
            # What is away is tried again and again: a traceback each time would tell nothing new.
            expected = isinstance(error, IndexUnavailable | Unavailable)
            log.warning("index.not_rebuilt", space_id=space.space_id, error=str(error), exc_info=not expected)

    def _keep_up(self, name: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a step again and again, whatever becomes of one."""

        async def work() -> None:
            while True:
                try:
                    await step()
                except Exception:
                    log.exception("background.failed", task=name)
                    await asyncio.sleep(HEAL_SECONDS)

        self._in_background(name, work())

    def _in_background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _is_empty(self) -> bool:
        with self.record.read() as connection:
            return not _count(connection, schema.users) and not _count(connection, schema.items)

    def _ledger(self, connection: Connection) -> Ledger:
        serving = self.adapters.serving
        return Ledger(
            connection,
            serving.kept,
            serving.of,
            self._profile_cache,
            self._secret,
            self._numbers,
            self._committed,
        )

    def _committed(self, commit: Commit) -> None:
        """Pass a commit on; runs in the writer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._apply, commit)

    def _apply(self, commit: Commit) -> None:
        self.keeper.apply(commit)
        self._completion.note(item.id for item, *_ in commit.upserted)
        self.watchers.publish(commit.changes)
        self.summaries.note(commit.changes)
        if commit.outbox:
            for space in self.adapters.serving.kept:
                space.relay.wake()


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        cause = error.orig if isinstance(error, sa.exc.DatabaseError) else error
        if not is_damage(cause) and not isinstance(cause, sqlite3.OperationalError):
            raise
        todo, can_not = "see to that first", "read"
        if is_read_only(cause):
            todo, can_not = "it must belong to the account that runs the server", "written"
        elif is_damage(cause):
            todo = "put a backup of it into an empty folder and start with that"
        elif shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            todo = "the disk is full, make room first"
        raise WrongState(
            "RECORD_UNREADABLE", f"the record {str(folder / FILE)!r} can't be {can_not} ({cause}): {todo}"
        ) from error


def _write_nothing_new(ledger: Ledger) -> Callable[[], None]:
    """Write a page as it was: an empty transaction would not touch the disk."""
    ledger.connection.exec_driver_sql("PRAGMA user_version = 0")
    return nothing


def _count(connection: Connection, table: sa.Table) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
