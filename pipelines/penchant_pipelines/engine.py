"""The engine: all parts put together, one method for each thing a caller can ask. Knows no transport.

async with Engine.open(EngineSettings(), Path("data")) as engine:
    await engine.capture([signal])
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray
from pydantic import Field
from sqlalchemy import Connection

from penchant_pipelines.capture import Capture, Reader
from penchant_pipelines.catalog import Catalog
from penchant_pipelines.encoder import BatchingEncoder, Encoder, EncoderSettings, open_encoder
from penchant_pipelines.errors import InvalidInput, NotFound, WrongState
from penchant_pipelines.index import IndexSettings, open_index_store
from penchant_pipelines.index.relay import Relay
from penchant_pipelines.interests import Blender, InterestSettings, InterestView, ProfileView, Recipe
from penchant_pipelines.interests.calibration import calibrate
from penchant_pipelines.interests.labels import Label, candidates, name_interests
from penchant_pipelines.jobs import Job, Jobs
from penchant_pipelines.model import Item, Steering, now
from penchant_pipelines.profiles import Profiles, Reason, Stored
from penchant_pipelines.recommend.candidates import Candidates
from penchant_pipelines.recommend.recommender import Candidate, Match, Query, Ranking, Recommender
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.record import Record, Writer, schema
from penchant_pipelines.record.ledger import Commit, Ledger, ProfileCache, Reading, Receipt
from penchant_pipelines.settings import Section
from penchant_pipelines.text import TextPipeline, TextSettings
from penchant_pipelines.watch import Watchers

log = structlog.get_logger(__name__)

REBUILD = "rebuild_index"
PROFILES_AT_HAND = 2_000
HEAL_SECONDS = 30.0
"""Pause between attempts to rebuild an index that is away."""
PURGE_SECONDS = 60.0
"""How long an erasure waits for others before the index is rebuilt without what they erased."""


class EngineSettings(Section):
    """Settings of every part of the engine."""

    text: TextSettings = Field(default_factory=TextSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    interests: InterestSettings = Field(default_factory=InterestSettings)
    index: IndexSettings = Field(default_factory=IndexSettings)
    recommend: RecommendSettings = Field(default_factory=RecommendSettings)


class Engine:
    """A running Penchant on one data folder. Belongs to one event loop."""

    def __init__(
        self, settings: EngineSettings, record: Record, encoder: Encoder, recipe: Recipe, catalog: Catalog
    ) -> None:
        self.settings = settings
        self.record = record
        self.encoder = BatchingEncoder(encoder, settings.encoder)
        self.blender = Blender(recipe)
        self.catalog = catalog
        self.watchers = Watchers()
        self._loop = asyncio.get_running_loop()
        self._purging = False
        self._background: set[asyncio.Task[None]] = set()
        self._profile_cache: ProfileCache = ProfileCache(maxsize=PROFILES_AT_HAND)
        self._secret = record.secret("receipts")
        self.writer: Writer[Ledger] = Writer(record.engine, self._ledger)
        self.jobs = Jobs(record, self.writer)
        self.profiles = Profiles(record, self.blender)
        self._text = TextPipeline(settings.text, record.folder / "cache")
        self._reader = Reader(self._text, self.encoder)
        self._capture = Capture(self._reader, record, self.writer)
        self.capture = self._capture.capture
        self.check = self._capture.check
        self.upsert_items = self._capture.upsert_items
        self._relay = Relay(
            record,
            self.writer,
            open_index_store(settings.index, record.folder / "index"),
            encoder.space_id,
            encoder.dimensions,
            self._heal_index,
        )
        self._recommender = Recommender(
            catalog,
            Candidates(catalog, self._relay),
            self._relay,
            self.profiles,
            recipe.similarity,
            settings.recommend,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: EngineSettings, folder: Path, encoder: Encoder | None = None
    ) -> AsyncIterator[Engine]:
        """Open a data folder, creating it if need be, and close it in good order.

        Raises WrongState where the folder is in use or the model can't be loaded.
        """
        # The lock comes first: whoever can't have the folder should hear so before a model is loaded.
        record = await asyncio.to_thread(Record, folder)
        try:
            loaded = encoder
            if loaded is None:
                loaded = await asyncio.to_thread(open_encoder, settings.encoder)
            recipe = await asyncio.to_thread(_recipe, settings, record, loaded)
            catalog = await asyncio.to_thread(Catalog.load, record, loaded.dimensions, settings.interests, now())
            engine = cls(settings, record, loaded, recipe, catalog)
            try:
                await engine._start()
                yield engine
            finally:
                await engine._close()
        finally:
            await asyncio.to_thread(record.close)

    @property
    def space_id(self) -> str:
        """The embedding space that all vectors are in."""
        return self.encoder.encoder.space_id

    async def _start(self) -> None:
        await self.jobs.recover()
        if await self._relay.start():
            return
        if await asyncio.to_thread(self._is_empty):
            # Nothing to build: a new data folder has its index before the first call.
            await self._relay.rebuild(_no_progress)
        else:
            self._heal_index()

    async def _close(self) -> None:
        for task in list(self._background):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.jobs.close()
        await self.encoder.close()
        if self._purging:
            # The next start rebuilds: files that hold erased vectors are not opened again.
            await self._relay.discard()
        await self._relay.close()
        await self.writer.close()

    # -- users -----------------------------------------------------------------------------------------------

    async def profile(self, user_id: str, as_of: int | None = None) -> Stored:
        """Read a profile, now or as it stood at a time (µs). Raises NotFound."""
        return await asyncio.to_thread(self.profiles.get, user_id, as_of)

    async def labels(self, profile: ProfileView) -> list[Label]:
        """Name a profile's interests; words that were never encoded are encoded now."""
        words = {word for interest in profile.interests for word in candidates(interest)}
        if words:
            await self.encoder.encode(sorted(words))
        return self.labels_at_hand(profile)

    def labels_at_hand(self, profile: ProfileView) -> list[Label]:
        """Name a profile's interests with what is known without asking the model."""
        return name_interests(profile.interests, self.encoder.cached)

    async def explain(self, user_id: str, interest_id: str, limit: int) -> tuple[Stored, list[Reason]]:
        """Read the signals behind an interest, greatest share first. Raises NotFound."""
        return await asyncio.to_thread(self.profiles.explain, user_id, interest_id, limit)

    async def steer(self, user_id: str, steering: Steering, interest_id: str = "", topic: str = "") -> InterestView:
        """Take the user's word about an interest, or about a topic. Raises NotFound, InvalidInput."""
        reading = Reading()
        if topic:
            reading = await self._reader.read(topic, field="topic")
            if reading.vector is None:
                raise InvalidInput.at("topic", "holds no words that could name a topic")
            # The user's own words are the best name there is.
            reading = Reading(reading.vector, reading.language, tuple(dict.fromkeys([topic.strip(), *reading.terms])))
        return await self.writer.submit(
            lambda ledger: ledger.steer(user_id, now(), steering, interest_id, topic, reading)
        )

    async def merge(self, from_user_id: str, into_user_id: str) -> tuple[ProfileView, int, int]:
        """Join one user's history to another's: the result's view, version, signal count. Raises NotFound."""
        return await self.writer.submit(lambda ledger: ledger.merge(from_user_id, into_user_id))

    async def erase(self, user_id: str) -> Receipt:
        """Erase a user from the record, the index, caches and derived data. Raises NotFound."""
        receipt = await self.writer.submit(lambda ledger: ledger.erase(user_id, now()))
        await asyncio.to_thread(self.record.truncate_log)
        self.encoder.forget()
        self._purge_index()
        return receipt

    # -- items -----------------------------------------------------------------------------------------------

    async def delete_items(self, ids: Sequence[str]) -> int:
        """Delete items; returns how many there were."""
        return await self.writer.submit(lambda ledger: ledger.delete_items(ids))

    def item(self, item_id: str) -> Item:
        """Look up an item. Raises NotFound."""
        entry = self.catalog.entries.get(item_id)
        if entry is None:
            raise NotFound("item", item_id)
        return entry.item

    # -- ranking ---------------------------------------------------------------------------------------------

    async def encode_query(self, text: str, field: str) -> NDArray[np.float32] | None:
        """Encode the words of a request; None where there are none. Raises InvalidInput at the field."""
        return (await self._reader.read(text, field=field)).vector if text else None

    async def recommend(self, user_id: str, query: Query) -> tuple[Ranking, Stored | None]:
        """Rank the catalogue for a user; an unknown one gets what is popular."""
        minute = _minute(now())
        stored = await asyncio.to_thread(self.profiles.find, user_id, present=minute)
        return await self._recommender.recommend(stored, query, minute), stored

    async def rerank(
        self,
        user_id: str,
        candidates: Sequence[Candidate],
        limit: int,
        prior_weight: float,
        diversity: float | None,
        query: NDArray[np.float32] | None,
    ) -> tuple[Ranking, tuple[str, ...], Stored | None]:
        """Rank the caller's own candidates. Second value: ids of candidates that nothing is known about."""
        minute = _minute(now())
        stored = await asyncio.to_thread(self.profiles.find, user_id, present=minute)
        ranking, missing = self._recommender.rerank(stored, candidates, limit, prior_weight, diversity, query, minute)
        return ranking, missing, stored

    async def reasons(self, stored: Stored, ranking: Ranking, limit: int = 3) -> list[list[Reason]]:
        """The user's own signals behind each place of a ranking."""
        return await asyncio.to_thread(
            self.profiles.reasons_for,
            stored,
            [place.vector for place in ranking.places],
            [place.interest_id for place in ranking.places],
            limit,
        )

    async def find_users(
        self, target: NDArray[np.float32], limit: int, min_similarity: float
    ) -> tuple[tuple[Match, ...], tuple[str, ...]]:
        """Users who would want something, by its vector."""
        return await self._recommender.find_users(target, limit, min_similarity)

    # -- operation -------------------------------------------------------------------------------------------

    async def rebuild_index(self) -> Job:
        """Start a job that rebuilds the vector index beside the live one. Raises WrongState if one runs."""
        return await self.jobs.start(REBUILD, self._relay.rebuild)

    def counts(self) -> tuple[int, int, int, int]:
        """Users, items, signals, and outbox rows that the index has yet to take; blocks."""
        with self.record.read() as connection:
            users = _count(connection, schema.users)
            items = _count(connection, schema.items)
            signals = connection.execute(sa.select(sa.func.sum(schema.users.c.signal_count))).scalar() or 0
        return users, items, int(signals), self._relay.lag()

    def _heal_index(self) -> None:
        """Rebuild the index until there is one again."""

        async def heal() -> None:
            await self.jobs.ended(REBUILD)
            while self._relay.live is None:
                await self._rebuild_and_wait()
                if self._relay.live is None:
                    await asyncio.sleep(HEAL_SECONDS)

        self._in_background("heal-index", heal())

    def _purge_index(self) -> None:
        """Rebuild the index soon: a vector deleted from it stays in its files until then. Coalesces erasures."""
        if self._purging:
            return
        self._purging = True

        async def purge() -> None:
            await asyncio.sleep(PURGE_SECONDS)
            # A rebuild that began before the erasure may have taken in what was erased.
            await self.jobs.ended(REBUILD)
            self._purging = False
            try:
                await self._rebuild_and_wait()
            except asyncio.CancelledError:
                self._purging = True  # cut off by the server's stop: left to the next start
                raise

        self._in_background("purge-index", purge())

    async def _rebuild_and_wait(self) -> None:
        with contextlib.suppress(WrongState):  # somebody else has just started one
            await self.rebuild_index()
        await self.jobs.ended(REBUILD)

    def _in_background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _is_empty(self) -> bool:
        with self.record.read() as connection:
            return not _count(connection, schema.users) and not _count(connection, schema.items)

    def _ledger(self, connection: Connection) -> Ledger:
        return Ledger(connection, self.blender, self._profile_cache, self._secret, self._committed)

    def _committed(self, commit: Commit) -> None:
        """Pass a commit on; runs in the writer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._apply, commit)

    def _apply(self, commit: Commit) -> None:
        self.catalog.apply(commit)
        if commit.recount:
            self.catalog.recount(self.record, commit.recount, commit.last_signal)
        self.watchers.publish(commit.changes)
        if commit.outbox:
            self._relay.wake()


def _recipe(settings: EngineSettings, record: Record, encoder: Encoder) -> Recipe:
    """What profiles are made by; θ is measured once for an embedding space and kept in the record.

    Raises WrongState where the data folder holds vectors of another space: the two can't be mixed.
    """
    spaces = schema.spaces
    with record.engine.begin() as connection:
        space = connection.execute(sa.select(spaces).where(spaces.c.live)).first()
        if space is not None and space.space_id != encoder.space_id:
            raise WrongState(
                "OTHER_SPACE",
                f"the data folder holds vectors of the encoder {space.space_id}, but the settings name "
                f"{encoder.space_id}; set encoder.model and encoder.adapter back, or start a new data folder",
            )
        measured = space.similarity if space is not None else calibrate(encoder.encode)
        if space is None:
            connection.execute(
                spaces.insert().values(
                    space_id=encoder.space_id, dimensions=encoder.dimensions, similarity=measured, live=True
                )
            )
            log.info("space.calibrated", space_id=encoder.space_id, similarity=measured)
    similarity = settings.interests.similarity
    return Recipe(settings.interests, measured if similarity is None else similarity, encoder.space_id)


def _count(connection: Connection, table: sa.Table) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


async def _no_progress(_done: int, _total: int) -> None:
    """Report to nobody."""


def _minute(time: int) -> int:
    """Cut a time to its minute, so that a request repeated at once gets the very same answer."""
    return time - time % 60_000_000


def attribution_token(*parts: str) -> str:
    """Name a list that was recommended: equal for equal parts, opaque to the caller."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
