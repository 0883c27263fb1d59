from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from penchant_pipelines.encoder import Encoder
from penchant_pipelines.engine import Engine, EngineSettings
from penchant_pipelines.index import ExactStore
from penchant_pipelines.interests.subjects import Subjects
from penchant_pipelines.jobs import Jobs, JobState
from penchant_pipelines.mixes import Mixes, MixVersion
from penchant_pipelines.model import Action, Behavior, Item, Post, Signal
from penchant_pipelines.recommend.mix import Mix
from penchant_pipelines.recommend.sources import SOURCES
from penchant_pipelines.spaces import space


async def test_what_a_live_mix_reads_is_at_hand_soon_after_a_start(encoder: Encoder, tmp_path: Path) -> None:
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine:
        await engine.upsert_items([Item("alps", "Hiking in the Alps"), Item("bread", "Sourdough bread")])
        await engine.capture([Signal("s1", "ann", Behavior("alps", Action.LIKE))])
        mix = Mix.of({source: 1 / len(SOURCES) for source in SOURCES})
        await engine.mixes._keep(MixVersion("m-1", 0, mix, 1, 1, 0.1, 0.1, True, engine.live.key), "")
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine, asyncio.timeout(10):
        catalog, key = engine.catalog, engine.live.key
        while not (catalog.words.is_ready and catalog.crowd.is_ready(key) and key in catalog.voices):
            await asyncio.sleep(0.01)


async def test_a_mix_that_nobody_asked_for_needs_no_alarm_where_there_is_too_little_to_learn_from(
    encoder: Encoder, tmp_path: Path
) -> None:
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine:
        await engine.capture([Signal("s", "ann", Post("Hiking in the Alps"))])
        for asked, state in ((False, JobState.SUCCEEDED), (True, JobState.FAILED)):
            job = await engine.learn_mix(asked)
            await engine.jobs.ended(job.kind)
            assert (await engine.jobs.get(job.id)).state is state
        assert engine.mixes.live is None


async def test_a_job_whose_end_was_never_noted_did_what_it_did(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_late(*_: object) -> None:
        """Write nothing, as who is killed before."""

    mix = MixVersion("m-1", 0, Mix.of({"popular_ever": 1.0}), 1, 1, 0.1, 0.1, True, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "_save", too_late)
        patch.setattr(Mixes, "_judged", lambda *_: mix)
        async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine:
            job = await engine.learn_mix()
            await engine.jobs.ended(job.kind)
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine:
        assert engine.mixes.live is not None
        kept = await engine.jobs.get(job.id)
        assert (kept.state, kept.error) == (JobState.SUCCEEDED, "")
        assert kept.end_time is not None


async def test_who_was_erased_is_left_out_of_what_people_have_in_common_though_nobody_asks(
    encoder: Encoder, tmp_path: Path
) -> None:
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine, asyncio.timeout(10):
        await engine.upsert_items([Item("alps", "Hiking in the Alps")])
        await engine.capture([Signal(name, name, Behavior("alps", Action.LIKE)) for name in ("ann", "bob")])
        crowd, key = engine.catalog.crowd, engine.live.key
        await engine.keeper.keep_up(key)
        await engine.erase("ann")
        assert crowd.outdated() == [key]
        while crowd.outdated():
            await asyncio.sleep(0.01)
        assert crowd.is_ready(key)


async def test_a_model_that_failed_once_at_the_start_names_interests_later(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fails_once(*of: Any) -> Any:
        tries.append(len(tries))
        if tries == [0]:
            raise MemoryError
        return Subjects(*of)

    monkeypatch.setattr(space, "Subjects", fails_once)
    async with Engine.open(EngineSettings(), tmp_path, encoder, ExactStore()) as engine:
        await engine.capture([Signal("s1", "ann", Post("Sourdough bread at home"))])
        stored = await engine.live.profile("ann")
        assert len(engine.labels_at_hand(stored.view, engine.live.space_id)) == 1
        assert len(await engine.live.labels(stored.view)) == 1
        assert tries == [0, 1]
