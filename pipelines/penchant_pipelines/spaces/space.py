"""An embedding space at work: all that is of one encoder, and what is asked of it.

Vectors of different spaces must never meet. So everything that compares vectors hangs on one object of this
class, and a request picks it once, at its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.catalog import Keeper
from penchant_pipelines.encoder import BatchingEncoder, Encoder, EncoderSettings
from penchant_pipelines.encoder.batching import cores
from penchant_pipelines.index import IndexStore
from penchant_pipelines.index.relay import Relay
from penchant_pipelines.interests import Blender, Calibration, InterestSettings, InterestView, ProfileView, Recipe
from penchant_pipelines.interests.labels import Label, Lookup, candidates, name_interests
from penchant_pipelines.interests.subjects import Subjects
from penchant_pipelines.mixes import Mixes
from penchant_pipelines.model import now
from penchant_pipelines.profiles import Profiles, Reason, Stored
from penchant_pipelines.reader import Reader
from penchant_pipelines.recommend.audience import Audience, Match
from penchant_pipelines.recommend.candidates import Candidates
from penchant_pipelines.recommend.history import read_history
from penchant_pipelines.recommend.lessons import Teacher
from penchant_pipelines.recommend.mix import Mix
from penchant_pipelines.recommend.recommender import Query, Ranking, Recommender, Shortlist, Visit
from penchant_pipelines.recommend.sequence import SequenceModel
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.record import Record, Writer
from penchant_pipelines.record.ledger import Ledger

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Shared:
    """What all spaces have in common."""

    record: Record
    writer: Writer[Ledger]
    keeper: Keeper
    store: IndexStore
    reader: Reader
    encoder: EncoderSettings
    interests: InterestSettings
    recommend: RecommendSettings
    mixes: Mixes


class Space:
    """One embedding space of the record, with its encoder. Belongs to one event loop."""

    def __init__(
        self,
        key: int,
        adapter_id: str,
        encoder: Encoder,
        calibration: Calibration,
        shared: Shared,
        on_lost: Callable[[Space], None],
        keeps_profiles: bool,
        sequence: SequenceModel | None,
    ) -> None:
        self.key = key
        self.adapter_id = adapter_id
        """Folder of its adapter; empty for the encoder that the settings name."""
        self.space_id = encoder.space_id
        self.encoder = BatchingEncoder(encoder, shared.encoder)
        self.keeps_profiles = keeps_profiles
        """False while vectors are missing. The writer's thread sets it."""
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        recipe = Recipe(shared.interests, calibration, encoder.space_id)
        self.blender = Blender(recipe)
        # A start need not wait for it; whoever asks for labels does.
        self._subjects = self._read_subjects()
        self.profiles = Profiles(shared.record, key, self.blender)
        self.relay = Relay(shared.record, shared.writer, shared.store, key, self.blender, lambda: on_lost(self))
        self._reader = shared.reader
        self._sequence = sequence if shared.recommend.sequence_share else None
        catalog = shared.keeper.catalog
        # A thread a core for what takes long, lists and whatever replays a history: nothing else need wait for them.
        self._threads = ThreadPoolExecutor(cores(), thread_name_prefix="lists")
        self._recommender = Recommender(
            catalog,
            key,
            Candidates(catalog, key, self.relay, shared.recommend.sequence_share, self._threads),
            self.profiles,
            calibration,
            shared.recommend,
            self._mix,
            shared.reader.words_of,
            self._threads,
        )
        self._audience = Audience(self.relay, self.profiles, calibration)
        self._shared = shared

    def _mix(self) -> Mix | None:
        live = self._shared.mixes.live
        return None if live is None else live.mix

    async def prepare(self) -> None:
        """Have at hand what lists read: words of items alone, unless a mix is live."""
        mixed = self._shared.mixes.live is not None
        if mixed:
            # What people took to is read from what was said of it, too.
            await self._shared.keeper.listen(self.key)
        await self._shared.keeper.keep_up(self.key, words_alone=not mixed)

    def teacher(self) -> Teacher:
        """Who draws lessons for a mix from the record, in this space."""
        shared = self._shared
        catalog, words_of = shared.keeper.catalog.unheard(self.key), shared.reader.words_of
        return Teacher(shared.record, self.key, self.blender, catalog, shared.recommend, self._sequence, words_of)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the space from being closed while a request works with it."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def close(self) -> None:
        """Let go of the encoder's threads and the index, once no request works with them any more."""
        await self._unused.wait()
        await asyncio.wait([self._subjects])
        await asyncio.to_thread(self._threads.shutdown)
        await self.encoder.close()
        await self.relay.close()

    # -- profiles --------------------------------------------------------------------------------------------

    async def profile(self, user_id: str, as_of: int | None = None) -> Stored:
        """Read a profile, now or as it stood at a time (µs). Raises NotFound."""
        if as_of is None:
            return await asyncio.to_thread(self.profiles.get, user_id)
        return await self._replaying(self.profiles.get, user_id, as_of)

    async def labels(self, profile: ProfileView) -> list[Label]:
        """Name a profile's interests; words that were never encoded are encoded now."""
        lookup = await self._look_up(profile.interests)
        return name_interests(profile.interests, lookup, await self._all_subjects(), _language(profile))

    def labels_at_hand(self, profile: ProfileView) -> list[Label]:
        """The same with what is known without asking the model."""
        known = self._subjects.done() and self._subjects.exception() is None
        subjects = self._subjects.result() if known else None
        return name_interests(profile.interests, self.encoder.cached, subjects, _language(profile))

    async def names(self, wanted: Sequence[tuple[ProfileView, str]]) -> list[str]:
        """The label of one interest, by its id, of each of many profiles, as `labels` gives it."""
        named = []
        for profile, interest_id in wanted:
            place = next(place for place, interest in enumerate(profile.interests) if interest.id == interest_id)
            # What is weaker has no say in its name.
            named.append((profile.interests[: place + 1], _language(profile)))
        lookup = await self._look_up([interest for interests, _ in named for interest in interests])
        subjects = await self._all_subjects()
        return [name_interests(interests, lookup, subjects, language)[-1].label for interests, language in named]

    async def _look_up(self, interests: Sequence[InterestView]) -> Lookup:
        """Encode the words that may name interests."""
        words = sorted({word for interest in interests for word in candidates(interest)})
        return dict(zip(words, await self.encoder.encode(words), strict=True)).get

    def _read_subjects(self) -> asyncio.Task[Subjects]:
        return asyncio.create_task(asyncio.to_thread(Subjects, self.encoder.encoder.encode, self.blender.calibration))

    async def _all_subjects(self) -> Subjects:
        if self._subjects.done() and self._subjects.exception() is not None:
            self._subjects = self._read_subjects()
        return await asyncio.shield(self._subjects)

    async def explain(self, user_id: str, interest_id: str, limit: int) -> tuple[Stored, list[Reason]]:
        """Read the signals behind an interest, greatest share first. Raises NotFound."""
        return await self._replaying(self.profiles.explain, user_id, interest_id, limit)

    async def _replaying(self, read: Callable[..., Result], *args: Any) -> Result:
        """Do what replays a user's history; who gives up before its turn takes no thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, read, *args)

    # -- ranking ---------------------------------------------------------------------------------------------

    async def encode_query(self, text: str, field: str) -> NDArray[np.float32] | None:
        """Encode the words of a request; None where there are none. Raises InvalidInput at the field."""
        return (await self.encode_queries([(text, field)]))[0]

    async def encode_queries(self, texts: Sequence[tuple[str, str]]) -> list[NDArray[np.float32] | None]:
        """The same for many texts, each with its field, at once."""

        def read() -> list[str]:
            return [self._reader.document(text, "", field).text for text, field in texts]

        words = await asyncio.to_thread(read)
        vectors = iter(await self.encoder.encode([text for text in words if text]))
        return [next(vectors) if text else None for text in words]

    async def visit(self, user_id: str, present: int | None = None) -> Visit:
        """Look at a user, for all that is ranked for them now, or at a time (µs). An unknown one is a stranger."""
        minute = _minute(now() if present is None else present)
        stored, ahead = await asyncio.to_thread(self._look_ahead, user_id, minute, present)
        await self.prepare()
        return await self._recommender.visit(stored, minute, ahead)

    async def recommend(self, visit: Visit, query: Query) -> Ranking:
        """Rank the catalogue for a user; a stranger gets what is popular. Raises InvalidInput at the filter."""
        return await self._recommender.recommend(visit, query)

    def rerank(self, visit: Visit, shortlist: Shortlist) -> tuple[Ranking, tuple[str, ...]]:
        """Rank the caller's own candidates. Second value: ids of candidates that nothing is known about."""
        return self._recommender.rerank(visit, shortlist)

    def _look_ahead(
        self, user_id: str, minute: int, until: int | None
    ) -> tuple[Stored | None, NDArray[np.float32] | None]:
        """A user's profile, and (m, d) where the sequence model, if there is one, expects the next signals; blocks.

        The model reads no signal later than `until` (µs).
        """
        stored = self.profiles.find(user_id, present=minute)
        if stored is None or self._sequence is None:
            return stored, None
        shared = self._shared
        history = read_history(shared.record, self.key, stored.key, shared.interests, self._sequence.dimensions, until)
        return stored, self._sequence.next_vectors(history)

    async def reasons(self, stored: Stored, ranking: Ranking, limit: int = 3) -> list[list[Reason]]:
        """The user's own signals behind each place of a ranking."""
        return await self._replaying(
            self.profiles.reasons_for,
            stored,
            [place.vector for place in ranking.places],
            [place.interest_id for place in ranking.places],
            [place.own_share for place in ranking.places],
            limit,
        )

    async def find_users(
        self,
        target: NDArray[np.float32],
        limit: int,
        min_similarity: float,
        categories: Sequence[str] = (),
        unseen: str = "",
    ) -> tuple[tuple[Match, ...], tuple[str, ...]]:
        """Users who would want something, by its vector and its categories; none who touched the item `unseen`."""
        left_out = await asyncio.to_thread(self.profiles.seen_by, unseen) if unseen else set()
        return await self._audience.find(target, limit, min_similarity, categories, left_out)


def _language(profile: ProfileView) -> str:
    """The language that a user writes most; empty where none is known."""
    return profile.languages[0] if profile.languages else ""


def _minute(time: int) -> int:
    """Cut a time to its minute, so that a request repeated at once gets the very same answer."""
    return time - time % 60_000_000
