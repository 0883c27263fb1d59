"""Mixes: how sources are weighed, learnt from the record by a job, kept in versions, one of them live."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.errors import NotFound, WrongState
from penchant_pipelines.jobs import Job, Jobs, Progress, succeed
from penchant_pipelines.model import now
from penchant_pipelines.recommend.chance import Chance
from penchant_pipelines.recommend.lessons import MOST_LESSONS, Teacher
from penchant_pipelines.recommend.mix import Lesson, Mix, chance, learn, learn_both, quality
from penchant_pipelines.recommend.sources import INTERESTS, SOURCES
from penchant_pipelines.record import Record, Writer, nothing
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.schema import mixes as table
from penchant_pipelines.statistics import FEWEST_USERS, Bootstrap, Floats, by_user
from penchant_pipelines.tasks import to_the_end

log = structlog.get_logger(__name__)

LEARN = "learn_mix"
FEWEST_LESSONS = 40
FEWEST_FAVOURS = 200
"""Signals in favour of items from which a mix is learnt without being asked for."""
GROWTH = 1.5
"""How much the record must have grown since the last time."""
JUDGING_SHARE = 0.25
"""The latest lessons, by which a new mix is judged before it is learnt from all."""
INTERESTS_ALONE = Mix.of({INTERESTS: 1.0})


@dataclass(frozen=True, slots=True)
class MixVersion:
    """A mix as it is kept. `create_time` in µs; `quality` and `quality_before`: NDCG@10 on the latest lessons."""

    id: str
    create_time: int
    mix: Mix
    favour_count: int
    """Signals in favour of items that the record held."""
    lesson_count: int
    quality: float
    quality_before: float
    """Of what was live, on the same lessons."""
    live: bool
    space: int | None
    """Whose vectors it was learnt by; None: nobody knows."""
    outdated: bool = False
    """It weighs sources that are no more, which count nothing now, or nobody knows what its scores mean as chances."""


class Mixes:
    """Learns mixes and keeps them. Belongs to one event loop."""

    def __init__(self, record: Record, writer: Writer[Ledger], jobs: Jobs, catalog: Catalog) -> None:
        self._record = record
        self._writer = writer
        self._jobs = jobs
        self._catalog = catalog
        self.live: MixVersion | None = None
        """None: interests alone rank, by the formula of the settings."""
        self._tried_at = 0
        self._choices = 0
        """How often somebody chose what is live."""

    def start(self, space: int) -> None:
        """Read what is live; blocks. `space`: whose vectors sources read now."""
        self.live = next((version for _, version in self._read(1, table.c.live)), None)
        # By the newest, live or not: who went back to another doesn't want it learnt again at once.
        columns = (table.c.favour_count, table.c.chosen_count, table.c.space)
        with self._record.read() as connection:
            row = connection.execute(sa.select(*columns).order_by(table.c.seq.desc()).limit(1)).first()
        self._tried_at = max(row.favour_count, row.chosen_count or 0) if row else 0
        # What was to be learnt after a switch may have been cut off; what a person chose since then stands.
        other = row is not None and row.chosen_count is None and row.space != space
        if other or (self.live is not None and self.live.outdated):
            self.outgrow()

    async def learn(self, teacher: Callable[[], Teacher], asked: bool = True) -> Job:
        """Start a job that learns from lessons, and puts to use what ranks not surely worse than what is live.

        Raises WrongState if one runs. Where there are fewer than 40 lessons the job fails, if somebody asked for it.
        """
        favours, job_id = len(self._catalog.crowd), self._jobs.new_id()

        async def work(progress: Progress) -> None:
            choices = self._choices
            thread = ThreadPoolExecutor(1, thread_name_prefix="lessons")
            try:
                by = teacher()
                lessons = await self._lessons(by, thread, progress)
                if len(lessons) < FEWEST_LESSONS and not asked:
                    log.info("mix.too_few_lessons", lessons=len(lessons), needed=FEWEST_LESSONS)
                    return
                version = await asyncio.get_running_loop().run_in_executor(thread, self._judged, lessons, by.space)
            finally:
                # Whoever cancels doesn't hold up the event loop until the sums are done.
                thread.shutdown(wait=False)
            # What a person chose meanwhile is not overruled by a job.
            version = replace(version, live=version.live and self._choices == choices)
            with contextlib.suppress(asyncio.CancelledError):  # too late: it is done
                await to_the_end(self._keep(version, job_id))
            log.info("mix.learnt", mix=version.id, live=version.live, quality=version.quality)

        job = await self._jobs.start(LEARN, work, job_id)
        self._tried_at = favours
        return job

    def is_due(self) -> bool:
        """Tell whether the record has grown enough since the last time to learn anew."""
        return len(self._catalog.crowd) >= max(FEWEST_FAVOURS, GROWTH * self._tried_at)

    def outgrow(self) -> None:
        """Have one learnt again as soon as there is enough to learn from: sources say something else now."""
        self._tried_at = 0

    async def versions(self, before: int | None, limit: int) -> Sequence[tuple[int, MixVersion]]:
        """Versions with their sequence numbers, newest first, older than a number."""
        return await asyncio.to_thread(self._read, limit, *([] if before is None else [table.c.seq < before]))

    async def use(self, mix_id: str) -> MixVersion | None:
        """Put a version to use at once; an empty id: none, interests alone rank. Raises NotFound."""
        return await to_the_end(self._choose(mix_id))

    async def _choose(self, mix_id: str) -> MixVersion | None:
        found = await asyncio.to_thread(self._read, 1, table.c.id == mix_id) if mix_id else []
        if mix_id and not found:
            raise NotFound("mix", mix_id)
        self._choices += 1
        favours = len(self._catalog.crowd)
        await self._writer.submit(lambda ledger: _use(ledger, mix_id, favours))
        self.live = replace(found[0][1], live=True) if found else None
        self._tried_at = favours
        return self.live

    async def _keep(self, version: MixVersion, job_id: str) -> None:
        await self._writer.submit(lambda ledger: _insert(ledger, version, job_id))
        if version.live:
            self.live = version

    async def _lessons(self, teacher: Teacher, thread: ThreadPoolExecutor, progress: Progress) -> list[Lesson]:
        loop, lessons, source = asyncio.get_running_loop(), list[Lesson](), teacher.lessons()
        try:
            while (lesson := await loop.run_in_executor(thread, next, source, None)) is not None:
                lessons.append(lesson)
                await progress(len(lessons), MOST_LESSONS)
        finally:
            # Whoever cancels need not wait for the whole replay.
            teacher.stop()
            await loop.run_in_executor(thread, source.close)
        await progress(len(lessons), len(lessons))
        return lessons

    def _judged(self, lessons: Sequence[Lesson], space: int) -> MixVersion:
        if len(lessons) < FEWEST_LESSONS:
            raise WrongState(
                "TOO_FEW_LESSONS",
                f"the record holds {len(lessons)} days on which a known user took to new items; a mix needs "
                f"{FEWEST_LESSONS}",
            )
        live = self.live.mix if self.live else INTERESTS_ALONE
        cut = int((1 - JUDGING_SHARE) * len(lessons))
        trial, recent = learn(lessons[:cut]), lessons[cut:]
        users = np.unique([lesson.user for lesson in recent], return_inverse=True)[1]
        before, after = quality(recent, live), quality(recent, trial)
        return MixVersion(
            "m-" + uuid.uuid4().hex[:12],
            now(),
            replace(learn_both(lessons), chance=chance(lessons)),
            len(self._catalog.crowd),
            len(lessons),
            float(_by_user(after, users).mean()),
            float(_by_user(before, users).mean()),
            # A few users' luck must not keep out what most lessons taught: only a sure loss does.
            not is_surely_worse(after, before, users),
            space,
        )

    def _read(self, limit: int, *where: sa.ColumnElement[bool]) -> Sequence[tuple[int, MixVersion]]:
        query = sa.select(table).where(*where).order_by(table.c.seq.desc()).limit(limit)
        with self._record.read() as connection:
            return [(row.seq, _version(row)) for row in connection.execute(query)]


def is_surely_worse(after: Floats, before: Floats, users: NDArray[np.int64]) -> bool:
    """Tell whether lessons (q,), of users numbered from 0, are answered worse than before beyond chance.

    Users are drawn; of few, their days: one user alone would always be sure.
    """
    drawn = users if users.max() + 1 >= FEWEST_USERS else np.arange(len(users))
    after, before = _by_user(after, drawn), _by_user(before, drawn)
    _, _, high, _ = Bootstrap(len(after)).difference(after, before)
    return high < 0


def _by_user(values: Floats, users: NDArray[np.int64]) -> Floats:
    return by_user(values, users, int(users.max()) + 1)


def _version(row: sa.Row[Any]) -> MixVersion:
    weights = json.loads(row.weights)
    writers = json.loads(row.writer_weights) if row.writer_weights else None
    curve = Chance(*json.loads(row.chance)) if row.chance else None
    return MixVersion(
        row.id,
        row.create_time,
        Mix.of(weights, curve, writers),
        row.favour_count,
        row.lesson_count,
        row.quality,
        row.quality_before,
        row.live,
        row.space,
        curve is None or not weights.keys() <= set(SOURCES),
    )


def _insert(ledger: Ledger, version: MixVersion, job_id: str) -> Callable[[], None]:
    if version.live:
        ledger.connection.execute(table.update().values(live=False))
    curve = version.mix.chance
    ledger.connection.execute(
        table.insert().values(
            id=version.id,
            create_time=version.create_time,
            weights=json.dumps(version.mix.named()),
            writer_weights=json.dumps(version.mix.for_writers().named()),
            chance=json.dumps([curve.base, curve.slope]) if curve else None,
            favour_count=version.favour_count,
            lesson_count=version.lesson_count,
            quality=version.quality,
            quality_before=version.quality_before,
            live=version.live,
            space=version.space,
        )
    )
    succeed(ledger, job_id)
    return nothing


def _use(ledger: Ledger, mix_id: str, favours: int) -> Callable[[], None]:
    ledger.connection.execute(table.update().values(live=table.c.id == mix_id, chosen_count=favours))
    return nothing
