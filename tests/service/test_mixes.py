"""Mixes over the wire: learnt from the record, listed, put to use and rolled back, and told of in answers."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import Server, StartServer, command, refused, until

from penchant.v1.admin_service_pb2 import JobState, LearnMixRequest, ListMixesRequest, Mix, UseMixRequest
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.recommendation_service_pb2 import Candidate, Recommendation, RerankRequest
from penchant.v1.signal_pb2 import Action, Behavior, Post, Signal
from penchant_pipelines import engine
from penchant_pipelines.errors import Unavailable
from penchant_pipelines.jobs import Jobs
from penchant_pipelines.mixes import Mixes, _use

SUBJECTS = {
    "tea": ["green tea", "oolong", "black tea", "white tea", "puer cakes"],
    "rail": ["night trains", "steam engines", "narrow gauge lines", "model railways", "old stations"],
    "clay": ["stoneware", "raku firing", "porcelain", "glazes", "the potter's wheel"],
}
ASPECTS = ["for beginners", "in Japan", "on a small budget", "through history", "in winter", "by its masters"]
ASPECTS += ["explained slowly", "in pictures"]
USERS, DAYS, PER_DAY = 15, 14, 2
SOURCES = {
    "interests",
    "right now",
    "text",
    "what others say",
    "words",
    "items alike",
    "people alike",
    "popular",
    "new",
}


def items() -> list[Item]:
    return [
        Item(id=f"{topic}-{number}", title=f"{subject} {aspect}".capitalize(), categories=[topic])
        for topic, subjects in SUBJECTS.items()
        for number, (subject, aspect) in enumerate((s, a) for s in subjects for a in ASPECTS)
    ]


def signals(users: int = USERS, days: int = DAYS) -> Iterator[Signal]:
    """Users of one topic each, who come upon its items in nearly the same order: each is the talk of a few days."""
    draw = random.Random(5)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    orders = {topic: draw.sample(range(40), 40) for topic in SUBJECTS}
    for user in range(users):
        topic = list(SUBJECTS)[user % len(SUBJECTS)]
        talk = [*orders[topic][: days * PER_DAY]]
        for place in range(0, len(talk) - 4, 4):
            talk[place : place + 4] = draw.sample(talk[place : place + 4], 4)
        for place, number in enumerate(talk):
            time = today - timedelta(days=days - place // PER_DAY, hours=-8, minutes=-user)
            item_id = f"{topic}-{number}"
            signal = Signal(id=f"u{user}-{place}", user_id=f"u{user}")
            signal.time.FromDatetime(time)
            if place % 5:
                signal.behavior.CopyFrom(Behavior(item_id=item_id, action=Action.ACTION_LIKE))
            else:
                subject = SUBJECTS[topic][number // len(ASPECTS)]
                signal.post.CopyFrom(Post(text=f"All evening with {subject}, and I want more", item_id=item_id))
            yield signal


async def seed(server: Server) -> None:
    await server.client.upsert_items(items())
    results = [result async for result in server.client.capture_many(signals())]
    assert [result.error for result in results if result.error] == []
    await server.index_caught_up()


async def learnt(server: Server) -> Mix:
    """Learn a mix: the newest."""
    job = await server.client.learn_mix()
    assert job.kind == "learn_mix"
    ended = await server.client.wait_for_job(job.id, timeout=60, interval=0.05)
    assert (ended.state, ended.error.message) == (JobState.JOB_STATE_SUCCEEDED, "")
    assert ended.done_count == ended.total_count > 0
    return (await mixes(server))[0]


async def mixes(server: Server) -> list[Mix]:
    return [mix async for mix in server.client.mixes()]


def told(places: Any) -> dict[str, list[tuple[str, float]]]:
    return {place.item_id: [(s.source, s.share) for s in place.sources] for place in places}


def check_sources(place: Recommendation, known: set[str]) -> None:
    shares = [source.share for source in place.sources]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0.05
    assert sum(shares) <= 1.001
    assert {source.source for source in place.sources} <= known


async def test_a_mix_is_learnt_goes_live_and_is_rolled_back(start: StartServer) -> None:
    async with start() as server:
        await seed(server)
        before = await server.recommended("u0", diversity=0)
        plain = await server.client.recommend("u0", explain=True)
        assert not any(place.sources for place in plain.recommendations)

        first = await learnt(server)
        assert (first.live, first.favour_count) == (True, USERS * DAYS * PER_DAY)
        assert first.lesson_count >= 40
        # Interests can't tell which item of a topic is the talk of these days; the crowd can.
        assert first.quality > first.quality_before
        assert first.weights
        assert all(weight > 0 for weight in first.weights.values())

        answer = await server.client.recommend("u0", explain=True, diversity=0)
        for place in answer.recommendations:
            check_sources(place, SOURCES)
        chances = [place.chance for place in answer.recommendations]
        assert all(place.HasField("chance") for place in answer.recommendations)
        assert chances == sorted(chances, reverse=True)
        assert 0 < chances[-1] <= chances[0] < 1
        asked = await server.client.recommend("u0", query="tea")
        assert not any(place.HasField("chance") for place in (*asked.recommendations, *plain.recommendations))
        heard = {source.source for place in answer.recommendations for source in place.sources}
        assert heard & {"people alike", "items alike", "popular"}
        assert [place.item_id for place in answer.recommendations] != before
        assert not any(p.sources for p in (await server.client.recommend("u0", diversity=0)).recommendations)
        likely = {place.item_id: place.chance for place in answer.recommendations}
        reranked = await server.client.rerank("u0", [Candidate(item_id=item_id) for item_id in likely])
        for place in reranked.recommendations:
            assert place.chance == pytest.approx(likely[place.item_id], abs=1e-6)
        stranger = await server.client.recommend("nobody", explain=True)
        assert stranger.recommendations
        assert not any(place.sources for place in stranger.recommendations)

        second = await learnt(server)
        assert [mix.mix_id for mix in await mixes(server)] == [second.mix_id, first.mix_id]
        assert [mix.live for mix in await mixes(server)].count(True) == 1
        page = await server.rpc("ListMixes")(ListMixesRequest(page_size=1))
        rest = await server.rpc("ListMixes")(ListMixesRequest(page_size=1, page_token=page.next_page_token))
        assert [mix.mix_id for mix in (*page.mixes, *rest.mixes)] == [second.mix_id, first.mix_id]
        assert (bool(page.next_page_token), rest.next_page_token) == (True, "")

        assert await server.client.use_mix("") is None
        assert not any(mix.live for mix in await mixes(server))
        assert await server.recommended("u0", diversity=0) == before
        rolled_back = await server.client.recommend("u0", explain=True)
        assert not any(place.sources for place in rolled_back.recommendations)

        unknown = await refused(server.rpc("UseMix")(UseMixRequest(mix_id="m-none")))
        assert (unknown.code, unknown.resource) == (grpc.StatusCode.NOT_FOUND, ("mix", "m-none"))
        used = await server.client.use_mix(first.mix_id)
        assert used is not None
        assert (used.mix_id, used.live) == (first.mix_id, True)
        expected = told((await server.client.recommend("u0", explain=True, diversity=0)).recommendations)

    async with start() as server:
        assert [mix.mix_id for mix in await mixes(server) if mix.live] == [first.mix_id]
        again = await server.client.recommend("u0", explain=True, diversity=0)
        assert list(told(again.recommendations)) == list(expected)
        assert all(place.HasField("chance") for place in again.recommendations)
        for item_id, sources in told(again.recommendations).items():
            assert dict(sources) == pytest.approx(dict(expected[item_id]), abs=0.01)
        await server.client.use_mix("")
    async with start() as server:
        assert not any(mix.live for mix in await mixes(server))
        assert await server.recommended("u0", diversity=0) == before


async def test_who_only_writes_is_told_what_people_took_to_who_took_to_such_things(start: StartServer) -> None:
    async with start() as server:
        await seed(server)
        mix = await learnt(server)
        assert mix.writer_weights
        assert not {name for name in mix.writer_weights if name.startswith(("words", "alike_items"))}
        assert "named" in mix.writer_weights
        assert "named" not in mix.weights
        await server.client.capture(user_id="zoe", text="Night trains through the Alps, and steam engines")
        await server.client.capture(user_id="zoe", text="A weekend at the narrow gauge line")
        answer = await server.client.recommend("zoe", explain=True, diversity=0, page_size=10)
        assert {place.item_id.partition("-")[0] for place in answer.recommendations} == {"rail"}
        for place in answer.recommendations:
            check_sources(place, SOURCES - {"words", "items alike"} | {"own words"})
            assert not place.HasField("chance")
        heard = {source.source for place in answer.recommendations for source in place.sources}
        assert {"people alike", "own words"} <= heard
        # Once she took to something, she is weighed for as all others.
        item_id = answer.recommendations[0].item_id
        await server.client.behave(user_id="zoe", item_id=item_id, action="like")
        known = await server.client.recommend("zoe", explain=True, diversity=0)
        assert all(place.HasField("chance") for place in known.recommendations)


async def test_what_a_person_chooses_stays_whoever_learns_or_gives_up_meanwhile(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def held_up(work: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*args: Any) -> Any:
            begun.set()
            goes_on.wait()
            return work(*args)

        return wait

    async def ranked_by_mix(server: Server) -> bool:
        answer = await server.client.recommend("u0", explain=True)
        return any(place.sources for place in answer.recommendations)

    async with start() as server:
        await seed(server)
        with monkeypatch.context() as patch:
            patch.setattr(Mixes, "_judged", held_up(Mixes._judged))
            learning = asyncio.create_task(learnt(server))
            await asyncio.to_thread(begun.wait)
            # There was none before: so it is to stay.
            assert await server.client.use_mix("") is None
            goes_on.set()
            mix = await learning
        assert not mix.live
        assert not await ranked_by_mix(server)

        begun.clear()
        goes_on.clear()
        with monkeypatch.context() as patch:
            patch.setattr("penchant_pipelines.mixes._use", held_up(_use))
            using = server.rpc("UseMix")(UseMixRequest(mix_id=mix.mix_id))
            await asyncio.to_thread(begun.wait)
            using.cancel()
            await asyncio.sleep(0.2)  # until the server has heard of it
            goes_on.set()
        # It was written already.
        await until(lambda: ranked_by_mix(server))
        assert [found.live for found in await mixes(server)] == [True]


async def test_what_a_person_chose_is_not_overruled_after_a_restart(
    start: StartServer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as server:
        await seed(server)
        first = await learnt(server)
        assert await server.client.use_mix("") is None
    # As if it had been learnt when the record held a third of what it held when it was put away.
    with closing(sqlite3.connect(data / "record.sqlite3")) as record, record:
        record.execute("UPDATE mixes SET favour_count = favour_count / 3")
    monkeypatch.setattr(engine, "LEARNING_PAUSE_SECONDS", 0.05)
    async with start() as server:
        await asyncio.sleep(1)
        assert [(mix.mix_id, mix.live) for mix in await mixes(server)] == [(first.mix_id, False)]
        assert [job.kind async for job in server.client.jobs()] == ["learn_mix"]


@pytest.mark.parametrize(
    ("change", "weighs"),
    [
        ("""UPDATE mixes SET weights = '{"popular_ever": 1.0, "a former source": 3.0}'""", {"popular_ever": 1.0}),
        ("UPDATE mixes SET chance = NULL", None),
        ("UPDATE mixes SET space = NULL", None),
        ("UPDATE mixes SET space = space + 1", None),
    ],
)
async def test_a_mix_of_a_former_version_or_of_another_space_is_learnt_anew(
    start: StartServer, data: Path, monkeypatch: pytest.MonkeyPatch, change: str, weighs: dict[str, float] | None
) -> None:
    async with start() as server:
        await seed(server)
        first = await learnt(server)
    with closing(sqlite3.connect(data / "record.sqlite3")) as record, record:
        record.execute(change)
    monkeypatch.setattr(engine, "LEARNING_PAUSE_SECONDS", 0.1)
    async with start() as server:
        assert dict((await mixes(server))[-1].weights) == (weighs or dict(first.weights))
        async with asyncio.timeout(60):
            while (newest := (await mixes(server))[0]).mix_id == first.mix_id:
                await asyncio.sleep(0.05)
        assert newest.live
        places = (await server.client.recommend("u0")).recommendations
        assert places
        assert all(place.HasField("chance") for place in places)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
async def test_a_mix_is_learnt_anew_in_another_space(
    start: StartServer, data: Path, make_adapter: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LEARNING_PAUSE_SECONDS", 0.1)
    async with start() as server:
        await seed(server)
        async with asyncio.timeout(60):
            while not (first := await mixes(server)):
                await asyncio.sleep(0.05)
        make_adapter(data / "adapters" / "books", 0)
        await server.client.load_adapter("books")
        await server.client.wait_for_job((await server.client.activate_adapter("books")).id)
        async with asyncio.timeout(60):
            while (await mixes(server))[0].mix_id == first[0].mix_id:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("learns", [True, False])
async def test_mixes_are_learnt_unasked_unless_the_settings_say_otherwise(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, learns: bool
) -> None:
    monkeypatch.setattr(engine, "LEARNING_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(engine, "HEAL_SECONDS", 0.05)

    async def unwritable(*_: object) -> None:
        raise Unavailable("RECORD_UNWRITABLE", "the disk is full")

    async with start(recommend={"learn_mixes": learns}) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Jobs, "start", unwritable)
            await seed(server)
            await asyncio.sleep(0.5)
        # What could not be begun is no try.
        await asyncio.sleep(0.5)
        jobs = [job async for job in server.client.jobs()]
        assert any(job.kind == "learn_mix" for job in jobs) is learns


async def test_reranked_candidates_tell_their_sources_too(server: Server) -> None:
    await seed(server)
    await learnt(server)
    places = (await server.client.recommend("u0", explain=True, page_size=5, diversity=0)).recommendations
    # A text of the caller's own stands between items of the catalogue: sources must stay with their items.
    candidates = [Candidate(item_id=place.item_id) for place in places]
    candidates.insert(1, Candidate(item_id="own", text="A catalogue of teapots"))
    request = RerankRequest(user_id="u0", candidates=candidates, explain=True)
    reranked = told((await server.rpc("Rerank")(request)).recommendations)
    assert reranked["own"]
    for item_id, sources in told(places).items():
        assert dict(reranked[item_id]) == pytest.approx(dict(sources), abs=0.01)
    asked = await server.client.recommend("u0", explain=True, query="night trains", page_size=5)
    assert asked.recommendations[0].sources[0].source == "query"
    for place in asked.recommendations:
        check_sources(place, SOURCES | {"query"})


@pytest.mark.parametrize(
    "weights",
    [
        {"alike_users_ever": 1.0},
        {"interests": 0.1, "alike_users_ever": 1.0},
        {"interests": 1.0, "text_last10": 1.0, "alike_users_ever": 1.0, "popular_ever": 1.0},
        {"interests": 1.0, "words_last10": 1.0},
    ],
)
async def test_own_posts_are_a_reason_so_far_as_they_decided(
    start: StartServer, data: Path, weights: dict[str, float]
) -> None:
    async with start(recommend={"learn_mixes": False}) as server:
        await seed(server)
        await learnt(server)
    with closing(sqlite3.connect(data / "record.sqlite3")) as record, record:
        record.execute("UPDATE mixes SET weights = ?", (json.dumps(weights),))
    async with start(recommend={"learn_mixes": False}) as server:
        assert dict((await mixes(server))[0].weights) == weights
        answer = await server.client.recommend("u0", explain=True, page_size=100, include_seen=True)
        heard = []
        for place in answer.recommendations:
            own = sum(s.share for s in place.sources if s.source in ("interests", "text", "words"))
            told = sum(reason.contribution for reason in place.evidence)
            heard += [own] * bool(place.sources)
            # Sources under a twentieth are not told of.
            if own < 0.1:
                assert (place.interest_id, list(place.evidence)) == ("", [])
            elif own > 0.25:
                assert 0 < told <= own + 0.05
                assert place.interest_id
        if "interests" not in weights:
            assert max(heard) == 0
        elif "alike_users_ever" not in weights:
            assert min(heard) > 0.99
        else:
            assert min(heard) < 0.2 < max(heard)


async def test_too_little_to_learn_from_is_said(start: StartServer) -> None:
    async with start() as server:
        await server.client.upsert_items(items())
        assert [r.error async for r in server.client.capture_many(signals(users=3, days=4)) if r.error] == []
        job = (await server.rpc("LearnMix")(LearnMixRequest())).job
        ended = await server.client.wait_for_job(job.id, timeout=30, interval=0.05)
        assert ended.state == JobState.JOB_STATE_FAILED
        assert "a mix needs 40" in ended.error.message
        assert ended.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert await mixes(server) == []
    async with start() as server:
        assert await server.client.job(job.id) == ended


async def test_the_command_line_leads_through_the_life_of_a_mix(server: Server) -> None:
    code, out, _ = await command(server, "mix", "list")
    assert (code, "no mix was learnt yet" in out) == (0, True)
    code, out, err = await command(server, "mix", "learn")
    assert (code, "failed" in out, "a mix needs 40" in err) == (1, True, True)
    await seed(server)
    code, out, _ = await command(server, "mix", "learn")
    assert (code, "succeeded" in out, "is live" in out) == (0, True, True)
    (mix,) = await mixes(server)
    code, out, _ = await command(server, "mix", "list")
    assert code == 0
    heaviest = max(mix.weights, key=lambda source: mix.weights[source])
    assert out.splitlines()[1].split()[0] == mix.mix_id
    assert f"{heaviest} " in out
    code, out, _ = await command(server, "recommend", "u0", "--explain", "-n", "3")
    assert code == 0
    block = [line.rstrip() for line in out.partition("\n 2.")[0].splitlines()]
    assert re.search(r"chance \d+\.\d\d%$", block[0])
    assert any(re.match(r"     sources +[a-z ]+ \d+%", line) for line in block)
    assert any(re.match(r"     because of +.* \(-?\d+%\)", line) for line in block)
    code, out, _ = await command(server, "recommend", "u0", "-n", "3")
    assert (code, out.split()[:3]) == (0, ["score", "chance", "item"])
    code, out, _ = await command(server, "mix", "use", "")
    assert (code, "no mix is live" in out) == (0, True)
    code, out, _ = await command(server, "mix", "list", "--json")
    assert [json.loads(line)["live"] for line in out.splitlines()] == [False]
    code, out, _ = await command(server, "recommend", "u0", "--explain", "-n", "3")
    assert (code, "sources" in out, "score" in out.splitlines()[0]) == (0, False, True)
    code, out, _ = await command(server, "mix", "use", mix.mix_id, "--json")
    assert json.loads(out)["mix"]["live"] is True
    code, _, err = await command(server, "mix", "use", "m-none")
    assert (code, "m-none" in err) == (1, True)
