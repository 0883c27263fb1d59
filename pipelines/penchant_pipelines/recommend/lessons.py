"""Lessons for the mix: the record replayed day by day, to see what each source said before the user chose.

The same blending, crowd and sources as in serving, fed in order of event time: a lesson knows nothing of its own day.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from penchant_pipelines.catalog import Catalog
from penchant_pipelines.highest import highest
from penchant_pipelines.interests import Blender, Evidence, Profile, view
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.recommend.mix import CANDIDATES, Lesson
from penchant_pipelines.recommend.ranking import Taste
from penchant_pipelines.recommend.sequence import LATEST, History, SequenceModel, mass
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.recommend.sources import Asker, Sources
from penchant_pipelines.record import Record, rows, schema

MOST_SIGNALS = 200_000
"""Signals that are replayed: the latest."""
MOST_LESSONS = 600
"""Lessons that a mix is learnt from: the latest."""
MOST_ITEMS = 20_000
"""Items that a lesson compares; of a larger catalogue a random part, and what was taken to."""
TAUGHT_SHARE = 0.6
"""The last share of a user's signals, whose days are asked about: before that too little is known."""


@dataclass(frozen=True, slots=True)
class _Touch:
    """A signal as lessons see it; `row` of the catalogue, −1 for none."""

    seq: int
    user: int
    time: int
    row: int
    weight: float

    @property
    def day(self) -> int:
        return self.time // MICROS_PER_DAY


class Teacher:
    """Draws lessons from the record, in one embedding space. `catalog` is its own to fill; see `Catalog.unheard`."""

    def __init__(
        self,
        record: Record,
        space: int,
        blender: Blender,
        catalog: Catalog,
        settings: RecommendSettings,
        sequence: SequenceModel | None,
        words_of: Callable[[str], Sequence[str]],
    ) -> None:
        """`words_of` cuts terms into words as items are cut."""
        self._record = record
        self.space = space
        self._blender = blender
        self._catalog = catalog
        self._sources = Sources(catalog, space, settings, words_of)
        self._sequence = sequence
        self._profiles: dict[int, Profile] = defaultdict(Profile)
        self._seen: dict[int, set[int]] = defaultdict(set)
        self._latest: dict[int, deque[tuple[Evidence, str]]] = defaultdict(lambda: deque(maxlen=LATEST))
        """What a sequence model reads of users: signals that say something, each with its context (JSON)."""
        self.numbers: dict[int, int] = {}
        """Of users in lessons, by key: as they are asked about."""
        self._dice = np.random.default_rng(0)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have `lessons` end soon, from any thread."""
        self._stopped.set()

    def lessons(self, most: int = MOST_LESSONS) -> Generator[Lesson, None, None]:
        """Replay, and draw up to `most` lessons of the latest days, oldest first; blocks."""
        touches = self._touches()
        if not touches:
            return
        self._catalog.listen(self.space)
        asked = _asked(touches, most)
        for day, events in groupby(
            self._events([touch.seq for touch in touches]), key=lambda event: event[1].time // MICROS_PER_DAY
        ):
            today = list(events)
            for user in dict.fromkeys(user for user, *_ in today):
                came, taken = asked.get((user, day), (0, set()))
                if taken and user in self._profiles:
                    # What came later nobody could have named, and that it is the newest of all would seem to tell.
                    there = {row for row in taken - self._seen[user] if self._catalog.created[row] <= came}
                    lesson = self._lesson(user, int(day) * MICROS_PER_DAY, came, there)
                    if lesson is not None:
                        yield lesson
            for user, evidence, context in today:
                self._learn(user, evidence, context)

    def _touches(self) -> list[_Touch]:
        signals = schema.signals
        query = (
            sa.select(*rows.EVIDENCE_COLUMNS, signals.c.seq, signals.c.user_key)
            .where(rows.STANDING)
            .order_by(signals.c.time.desc(), signals.c.id.desc())
            .limit(MOST_SIGNALS)
        )
        found = []
        with self._record.read() as connection:
            for row in connection.execute(query):
                evidence = rows.to_evidence(row)
                weight = weighing(evidence, self._blender.settings).weight
                found.append(_Touch(row.seq, row.user_key, row.time, self._row(evidence.item_id), weight))
        return found[::-1]

    def _events(self, numbers: Sequence[int]) -> Iterator[tuple[int, Evidence, str]]:
        """Read signals by their numbers, in order, until `stop`.

        Some at a time: while anything is being read, what is erased stays in the log.
        """
        signals, vectors = schema.signals, schema.signal_vectors
        query = (
            sa.select(*rows.EVIDENCE_COLUMNS, signals.c.user_key, signals.c.context, vectors.c.vector)
            .outerjoin(vectors, (vectors.c.seq == signals.c.seq) & (vectors.c.space == self.space))
            .where(rows.STANDING)
            .order_by(signals.c.time, signals.c.id)
        )
        for some in rows.among(signals.c.seq, numbers):
            if self._stopped.is_set():
                return
            with self._record.read() as connection:
                found = connection.execute(query.where(some)).all()
            for row in found:
                yield row.user_key, rows.to_evidence(row, rows.to_vector(row.vector)), row.context

    def _learn(self, user: int, evidence: Evidence, context: str) -> None:
        self._blender.add(self._profiles[user], evidence)
        if self._sequence is not None and mass(evidence, self._blender.settings):
            self._latest[user].append((evidence, context))
        self._catalog.witness(user, evidence, self.space)
        row = self._row(evidence.item_id)
        if row >= 0:
            self._seen[user].add(row)

    def _lesson(self, user: int, as_of: int, came: int, taken: set[int]) -> Lesson | None:
        ahead = None
        if self._sequence is not None:
            latest = self._latest[user]
            contexts = {event.id: json.loads(context) for event, context in latest}
            events = [event for event, _ in latest]
            history = History.of(events, self._blender.settings, self._sequence.dimensions, contexts)
            ahead = self._sequence.next_vectors(history)
        dimensions = self._catalog.vectors[self.space].shape[1]
        taste = Taste.of(view(self._profiles[user], as_of, self._blender), dimensions, ahead)
        if not taken or taste.is_empty:
            return None
        compared = self._compared(user, came, taken)
        asker = Asker(user, taste, as_of)
        scores = self._sources.scores(asker, compared)
        written = self._sources.as_writer(asker, compared, scores)
        chosen = np.isin(compared, sorted(taken))
        # Lines that are alike bring the same: those that both tell, and all that say nothing, of which one is kept.
        lines = np.concatenate([scores, written[(written != scores).any(axis=1)]])
        telling = np.array(lines.any(axis=1))
        telling[np.argmin(telling)] = True
        for line in lines[telling]:
            chosen[highest(line, CANDIDATES)] = True
        number = self.numbers.setdefault(user, len(self.numbers))
        told, bare = (each[:, chosen].astype(np.float32) for each in (scores, written))
        return Lesson(number, told, np.isin(compared[chosen], sorted(taken)), bare)

    def _compared(self, user: int, came: int, taken: set[int]) -> NDArray[np.intp]:
        catalog = self._catalog
        there = catalog.visible[: catalog.size] & (catalog.created[: catalog.size] <= came)
        there[list(self._seen[user] - taken)] = False
        rows_held = np.flatnonzero(there)
        if len(rows_held) > MOST_ITEMS:
            there[:] = False
            there[self._dice.choice(rows_held, MOST_ITEMS, replace=False)] = True
            there[list(taken)] = True
        return np.flatnonzero(there)

    def _row(self, item_id: str) -> int:
        entry = self._catalog.entries.get(item_id)
        return entry.row if entry is not None and self._catalog.visible[entry.row] else -1


def _asked(touches: Sequence[_Touch], most: int) -> dict[tuple[int, int], tuple[int, set[int]]]:
    """The latest days of users: when each came, and what they took to that day and did not dislike, seen or not."""
    own: dict[int, list[_Touch]] = defaultdict(list)
    for touch in touches:
        own[touch.user].append(touch)
    found: dict[tuple[int, int], tuple[int, set[int]]] = {}
    for user, mine in own.items():
        first = mine[min(int((1 - TAUGHT_SHARE) * len(mine)), len(mine) - 1)].day
        for day, today in groupby((touch for touch in mine if touch.day >= first), key=lambda touch: touch.day):
            marked = list(today)
            disliked = {touch.row for touch in marked if touch.weight < 0}
            taken = {touch.row for touch in marked if touch.row >= 0 and touch.weight > 0} - disliked
            if taken and day > mine[0].day:
                # What has no creation time, 0, was there before 1970 as well.
                found[user, day] = max(marked[0].time, 0), taken
    # Users of one day stay as they came: their keys are random.
    latest = sorted(found, key=lambda key: key[1])[-most:]
    return {key: found[key] for key in latest}
