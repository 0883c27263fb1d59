"""The engine itself as a method: the code that serves, on a temporary data folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from penchant_pipelines.encoder import Encoder
from penchant_pipelines.engine import Engine, EngineSettings
from penchant_pipelines.errors import PenchantError
from penchant_pipelines.evaluation.log import Catalogue, Past, Rows
from penchant_pipelines.evaluation.methods import DEPTH, Answer, Floats, Method, yardstick
from penchant_pipelines.evaluation.protocol import Question
from penchant_pipelines.index import ExactStore
from penchant_pipelines.mixes import LEARN
from penchant_pipelines.recommend.recommender import Candidate, Query, Shortlist, Visit

CHUNK = 500
_SETTLE_SECONDS = 0.02


class Penchant(Method):
    """Captures signals as the server does, and recommends as the server does, at the time of each question.

    The index is exact: what an approximate one finds depends on how its threads took turns, and a report must not.
    """

    def __init__(
        self, catalogue: Catalogue, settings: EngineSettings, open_encoder: Callable[[], Encoder], name: str, seed: int
    ) -> None:
        self.name = name
        self._catalogue = catalogue
        self._ids = np.array([item.id for item in catalogue.items], dtype=object)
        self._rows = {item_id: row for row, item_id in enumerate(self._ids)}
        self._captured = 0
        self._yardstick = yardstick(seed, len(catalogue))
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._folder = TemporaryDirectory(prefix="penchant-evaluate-")
        try:
            self._engine = self._runner.run(self._open(settings, open_encoder()))
        except BaseException:
            self.close()
            raise

    async def _open(self, settings: EngineSettings, encoder: Encoder) -> Engine:
        # Mixes are learnt when the log is due for it, see `_learn_mix`, not when a clock says so.
        recommend = settings.recommend.model_copy(update={"learn_mixes": False})
        settings = settings.model_copy(update={"recommend": recommend})
        opened = Engine.open(settings, Path(self._folder.name), encoder, ExactStore())
        engine = await self._stack.enter_async_context(opened)
        # No log says since when an item is hidden, and what users took to they had been shown.
        items = [replace(item, hidden=False) for item in self._catalogue.items]
        for start in range(0, len(items), CHUNK):
            _raise_first(await engine.upsert_items(items[start : start + CHUNK]))
        while await asyncio.to_thread(engine.live.relay.lag):  # noqa: ASYNC110 - the relay tells nobody
            await asyncio.sleep(_SETTLE_SECONDS)
        return engine

    def learn(self, past: Past) -> None:
        """Capture what is new."""
        self._runner.run(self._capture(past))
        self._runner.run(self._learn_mix())

    async def _capture(self, past: Past) -> None:
        while self._captured < len(past):
            part = past.signals[self._captured : self._captured + CHUNK]
            _raise_first(await self._engine.capture(part))
            self._captured += len(part)
        await self._engine.keeper.count_again()

    async def _learn_mix(self) -> None:
        """Learn a mix when the server would, and wait for it: a report must not depend on how fast that went."""
        if self._engine.mixes.is_due():
            await self._engine.learn_mix(asked=False)
            await self._engine.jobs.ended(LEARN)

    def answer(self, past: Past, question: Question) -> Answer:
        """Recommend, and re-rank what was rated among random items."""
        return self._runner.run(self._answer(past, question))

    async def _answer(self, past: Past, question: Question) -> Answer:
        visit = await self._engine.live.visit(question.user_id, question.present)
        top, shelf = np.full(DEPTH, -1), np.full(DEPTH, -1)
        if question.listed:
            top = await self._recommend(visit, question.unborn)
        if question.shelf:
            shelf = await self._recommend(visit, np.union1d(question.unborn, np.flatnonzero(past.touched)))
        return Answer(top[None], self._ratings(visit, question.rated), shelf[None])

    async def _recommend(self, visit: Visit, excluded: Rows) -> Rows:
        """Rows of the items recommended, (DEPTH,), −1 where there are no more."""
        query = Query(DEPTH, excluded=frozenset(self._ids[excluded]))
        ranking = await self._engine.live.recommend(visit, query)
        found = [self._rows[place.item_id] for place in ranking.places]
        return np.pad(np.array(found, dtype=np.int64), (0, DEPTH - len(found)), constant_values=-1)

    def _ratings(self, visit: Visit, rated: Rows) -> Floats:
        if not len(rated):
            return np.zeros((1, 0))
        rows = np.unique(np.concatenate([rated, self._yardstick]))
        candidates = [Candidate(item_id, 0.0) for item_id in self._ids[rows]]
        ranking, _ = self._engine.live.rerank(visit, Shortlist(candidates, len(candidates)))
        scores = np.zeros(len(self._catalogue))
        for place in ranking.places:
            scores[self._rows[place.item_id]] = place.score
        mine, compared = scores[rated][:, None], scores[self._yardstick][None]
        ratings: Floats = ((mine > compared).mean(axis=1) + 0.5 * (mine == compared).mean(axis=1))[None]
        return ratings

    def close(self) -> None:
        """Close the engine and remove its folder."""
        try:
            self._runner.run(self._stack.aclose())
        finally:
            self._runner.close()
            self._folder.cleanup()


def _raise_first(outcomes: Sequence[object]) -> None:
    """Raise the first refusal: a replay that leaves something out is none."""
    for outcome in outcomes:
        if isinstance(outcome, PenchantError):
            raise outcome
