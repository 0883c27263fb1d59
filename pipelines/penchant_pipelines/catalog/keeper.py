"""Keeps the catalogue in step with the record: what is committed is followed, what must be counted is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray

from penchant_pipelines.catalog.catalog import Catalog
from penchant_pipelines.catalog.feedback import ItemFavour, Said, read_favours, read_posts
from penchant_pipelines.catalog.voices import Voices
from penchant_pipelines.interests import InterestSettings
from penchant_pipelines.record import Record, rows, schema
from penchant_pipelines.record.commit import Commit, Touched
from penchant_pipelines.tasks import to_the_end

log = structlog.get_logger(__name__)

VOICES_STEP = 1024
"""Items whose voices are begun at once: what else waits for the loop has a turn in between."""
COUNT_SECONDS = 1.0
"""How long what was undone waits for others before the items are counted again."""


class Keeper:
    """Follows the record for one `catalog`. Belongs to its event loop; reads in threads."""

    def __init__(self, record: Record, catalog: Catalog, settings: InterestSettings) -> None:
        self.catalog = catalog
        self._record = record
        self._settings = settings
        self._applied = 0
        """Number of the last signal that was read or came with a commit."""
        self._keeping_up = asyncio.Lock()
        self._listening = asyncio.Lock()
        self._reset: dict[int, set[int]] = {}
        """By space, while `listen` reads: rows whose voices were reset since."""
        self.due: set[str] = set()
        """Items that wait to be counted again."""
        self._to_count = asyncio.Event()
        self._erased: set[str] = set()
        """Those among them that an erased user's signals named."""
        self._left_out = asyncio.Event()
        """What an erased user favoured was left out, but not yet of what people have in common."""
        self._counting = asyncio.Lock()
        self._meanwhile: list[Touched] = []
        """What came in since `count_again` began to read."""

    @classmethod
    def load(cls, record: Record, dimensions: Mapping[int, int], settings: InterestSettings) -> Keeper:
        """Read all items, their vectors in these spaces (by dimensions), and who favoured them; blocks."""
        catalog = Catalog(dimensions, settings)
        keeper = cls(record, catalog, settings)
        held = schema.item_vectors
        with record.read() as connection:
            for row in connection.execute(sa.select(schema.items).order_by(schema.items.c.id)):
                catalog.upsert(rows.to_item(row), row.language, {}, rows.words_of_item(row))
            for row in connection.execute(sa.select(held).where(held.c.space.in_(dimensions))):
                catalog.embed(row.space, row.item_id, np.frombuffer(row.vector, dtype=np.float32))
            keeper._applied = connection.execute(sa.select(sa.func.max(schema.signals.c.seq))).scalar() or 0
        for chunk in read_favours(record, settings, keeper._applied):
            catalog.crowd.add(catalog.placed(chunk))
        return keeper

    def apply(self, commit: Commit) -> None:
        """Follow a committed transaction; what it asks to be counted again waits for `count_when_due`."""
        catalog = self.catalog
        # The newest may have been erased: what comes after it has a higher number all the same.
        self._applied = max(self._applied, commit.last_signal)
        for space, item_id, vector in commit.embedded:
            catalog.embed(space, item_id, vector)
        for item, language, vectors, words in commit.upserted:
            if item.id not in catalog.entries:
                # It may have been here before, and its popularity with it.
                self.due.add(item.id)
            catalog.upsert(item, language, vectors, words)
        self._was_reset(catalog.delete(commit.deleted_items), catalog.voices)
        self.due |= commit.recount
        if self.due:
            self._to_count.set()
        self._erased |= commit.erased
        catalog.take(commit.touched)
        if self._counting.locked():
            self._meanwhile += commit.touched

    async def count_when_due(self) -> None:
        """Wait until something is to be counted again, and do so; what can't be read is raised and still due."""
        await self._to_count.wait()
        await asyncio.sleep(COUNT_SECONDS)
        await self._count_again()

    async def count_again(self) -> None:
        """Count anew what is due: items whose signals were undone or erased, or came before the item.

        The record is read in a thread, up to the last commit applied; what comes in meanwhile is taken in on top. What
        becomes due meanwhile, or fails, is left to the next time.
        """
        try:
            await self._count_again()
        except Exception:
            log.exception("count.failed")

    async def _count_again(self) -> None:
        catalog = self.catalog
        async with self._counting:
            if self.due:
                items, self.due = self.due, set()
                self._to_count.clear()
                erased, self._erased = self._erased, set()
                spaces, last_signal = list(catalog.voices), self._applied
                self._meanwhile = []
                try:
                    favours, said = await asyncio.to_thread(self._read_again, items, spaces, last_signal)
                except BaseException:
                    self.due |= items
                    self._to_count.set()
                    self._erased |= erased
                    raise
                if erased:
                    catalog.crowd.clear(catalog.rows_of(erased), erased=True)
                    self._left_out.set()
                rows_held = catalog.rows_of(items)
                catalog.crowd.recount(rows_held, catalog.placed(favours))
                catalog.reset_voices(rows_held, spaces)
                self._was_reset(rows_held, spaces)
                for space, by_item in said.items():
                    for item_id, (users, vector) in by_item.items():
                        catalog.hear(space, item_id, users, vector)
                catalog.take([each for each in self._meanwhile if each[0] in items], spaces)

    async def gather_when_erased(self) -> None:
        """Wait until an erased user's favours were left out, and gather what people have in common without them."""
        await self._left_out.wait()
        await asyncio.sleep(COUNT_SECONDS)
        self._left_out.clear()
        try:
            for space in self.catalog.crowd.outdated():
                await self._keep_up(space)
        finally:
            # It failed, was cancelled, or somebody else was erased meanwhile.
            if self.catalog.crowd.outdated():
                self._left_out.set()

    def _read_again(
        self, items: set[str], spaces: Sequence[int], last_signal: int
    ) -> tuple[list[ItemFavour], dict[int, dict[str, Said]]]:
        wanted = sorted(items)
        favours = [each for chunk in read_favours(self._record, self._settings, last_signal, wanted) for each in chunk]
        said = {space: read_posts(self._record, self._settings, space, last_signal, wanted) for space in spaces}
        return favours, said

    async def keep_up(self, space: int, *, words_alone: bool = False) -> None:
        """Weigh words, and gather what people have in common, anew where that is due in a space, in a thread.

        Whoever comes meanwhile is served with what there was; who comes while there is nothing waits.
        """
        words, crowd = self.catalog.words, self.catalog.crowd
        if self._keeping_up.locked() and words.is_ready and (words_alone or crowd.is_ready(space)):
            return
        await self._keep_up(space, words_alone)

    async def _keep_up(self, space: int, words_alone: bool = False) -> None:
        # Who gives up waiting must not make those that come after begin anew.
        await to_the_end(self._kept_up(space, words_alone))

    async def _kept_up(self, space: int, words_alone: bool) -> None:
        words, crowd = self.catalog.words, self.catalog.crowd
        async with self._keeping_up:
            if space not in self.catalog.vectors:
                return
            # Both are begun at once: from here on nobody does it on the loop.
            weigh = words.begin() if words.is_due else None
            due = not words_alone and crowd.is_due(space)
            gather = crowd.begin(self.catalog.texts(space)) if due else None
            weighed = gathered = None
            try:
                weighed = await asyncio.to_thread(weigh) if weigh else None
                gathered = await asyncio.to_thread(gather) if gather else None
            finally:
                if weigh:
                    words.finish(weighed)
                if gather:
                    crowd.finish(gathered)
                if space not in self.catalog.vectors:  # dropped meanwhile
                    crowd.drop_space(space)

    async def listen(self, space: int) -> None:
        """Keep what posts say of items in a space; comes back once what they said before has been read."""
        if space not in self.catalog.voices or space in self._reset:
            # Who gives up waiting must not make those that come after begin anew.
            await to_the_end(self._listen(space))

    async def _listen(self, space: int) -> None:
        catalog = self.catalog
        async with self._listening:
            if space in catalog.voices or space not in catalog.vectors:
                return
            catalog.voices[space] = Voices(*catalog.vectors[space].shape)
            reset = self._reset[space] = set()
            try:
                await self._begin_voices(space)
                # Of what was counted again before its turn came, nothing is left.
                reset.clear()
                said = await asyncio.to_thread(read_posts, self._record, self._settings, space, self._applied)
            except BaseException:
                catalog.voices.pop(space, None)
                raise
            finally:
                del self._reset[space]
            for item_id, (users, vector) in said.items():
                # What was reset has been counted anew, or is to be; and its row may be another item's.
                known = item_id in catalog.entries and catalog.entries[item_id].row not in reset
                if known and not catalog.hear(space, item_id, users, vector):
                    # One of them wrote again meanwhile.
                    self.due.add(item_id)
                    self._to_count.set()

    async def _begin_voices(self, space: int) -> None:
        """Give items their own vectors, a part of them each time. What was said of them since is yet to be read."""
        catalog = self.catalog
        for start in range(0, catalog.size, VOICES_STEP):
            if space in catalog.voices:
                catalog.reset_voices(np.arange(start, min(start + VOICES_STEP, catalog.size)), [space])
            await asyncio.sleep(0)

    def _was_reset(self, rows_held: NDArray[np.int64], spaces: Iterable[int]) -> None:
        for space in self._reset.keys() & set(spaces):
            self._reset[space].update(rows_held.tolist())
