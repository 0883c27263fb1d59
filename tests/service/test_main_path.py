"""The way of a signal, from capture to a steered recommendation and a watched profile."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import Server, StartServer, catalogue, refusal, refused, topics, until

import penchant
from penchant.exceptions import ConflictError, InvalidInputError, NotFoundError
from penchant.services.interests import InterestService
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import (
    TREND_FADING,
    TREND_STEADY,
    BatchCaptureRequest,
    CaptureRequest,
    ListSignalsRequest,
    Profile,
    Steering,
    StreamCaptureRequest,
)
from penchant.v1.recommendation_service_pb2 import Candidate
from penchant.v1.signal_pb2 import ACTION_DISLIKE, ACTION_LIKE, ACTION_UNDO, ACTION_VIEW, Behavior, Post, Signal
from penchant_pipelines.profiles import Profiles, Stored
from penchant_pipelines.record import users
from penchant_pipelines.record.commit import Change

DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)


def assert_same_interests(one: Profile, other: Profile) -> None:
    assert [i.id for i in one.interests] == [i.id for i in other.interests]
    for this, that in zip(one.interests, other.interests, strict=True):
        assert this.signal_count == that.signal_count
        assert this.first_time == that.first_time
        assert list(this.keywords) == list(that.keywords)
        # Texts that are encoded together differ from those encoded alone in the last bits of their vectors.
        assert list(this.vector) == pytest.approx(list(that.vector), abs=1e-5)
        # Weights fade between two readings, if only by milliseconds.
        assert this.weight == pytest.approx(that.weight, abs=1e-5)


async def test_from_a_post_to_a_steered_recommendation(server: Server) -> None:
    client = server.client
    assert (await client.upsert_items(catalogue())).upserted_count == 16

    opened = await client.capture(user_id="ada", text="A long hike on mountain trails today, wonderful!")
    assert (opened.profile_version, opened.duplicate, len(opened.changed)) == (1, False, 1)
    await client.capture(user_id="ada", text="New hiking boots for the Alps, ready for the next trail")
    await client.behave(user_id="ada", item_id="jazz-0", action="like")
    await client.capture(user_id="ada", text="Listening to bebop and jazz trumpet all night", item_id="jazz-2")

    profile = await client.profile("ada")
    assert (profile.version, profile.signal_count, len(profile.interests)) == (4, 4, 2)
    assert sum(interest.weight for interest in profile.interests) == pytest.approx(1)
    hiking = next(i for i in profile.interests if "hik" in " ".join(i.keywords))
    jazz = next(i for i in profile.interests if i.id != hiking.id)
    assert "jazz" in jazz.keywords
    assert hiking.label in hiking.keywords
    assert 0 < hiking.confidence < 1

    explained = await client.explain("ada", hiking.id)
    assert explained.interest.id == hiking.id
    assert {e.snippet for e in explained.evidence} == {
        "New hiking boots for the Alps, ready for the next trail",
        "A long hike on mountain trails today, wonderful!",
    }
    assert sum(e.contribution for e in explained.evidence) == pytest.approx(1)

    answer = await client.recommend("ada", page_size=6, explain=True)
    places = answer.recommendations
    assert set(topics(place.item_id for place in places[:4])) == {"hiking", "jazz"}
    assert not answer.degraded
    assert len(answer.attribution_token) >= 16
    by_score = (await client.recommend("ada", page_size=6, diversity=0)).recommendations
    assert all(earlier.score >= later.score for earlier, later in pairwise(by_score))
    for place in places[:4]:
        wanted = hiking.id if place.item_id.startswith("hiking") else jazz.id
        assert place.interest_id == wanted
        assert place.evidence
        assert sum(e.contribution for e in place.evidence) == pytest.approx(1)

    # The user's own word, by id: less of it, then not at all, then as inferred again.
    less = await client.steer("ada", interest_id=jazz.id, bias=-1)
    assert less.id == jazz.id
    assert less.steering.bias == -1
    assert less.weight < jazz.weight / 2
    await client.steer("ada", interest_id=jazz.id, muted=True)
    assert "jazz" not in topics(await server.recommended("ada", page_size=16))
    assert next(i.weight for i in (await client.profile("ada")).interests if i.id == jazz.id) == 0
    neutral = await client.steer("ada", interest_id=jazz.id)
    assert neutral.weight == pytest.approx(jazz.weight, abs=1e-3)
    assert neutral.steering == Steering()
    assert "jazz" in topics(await server.recommended("ada", page_size=6))

    # In words: a topic that the user has never written about counts at once, and stays when pinned.
    asked = await client.steer("ada", topic="stars, galaxies and telescopes", bias=1, pinned=True)
    assert asked.signal_count == 0
    assert asked.weight > 0.1
    assert "galaxies" in asked.label
    assert "astronomy" in topics(await server.recommended("ada", page_size=6))
    reasons = await client.explain("ada", asked.id)
    assert [(e.signal_id, e.contribution) for e in reasons.evidence] == [("", 1)]
    assert "telescopes" in reasons.evidence[0].snippet

    matches = await client.find_users(text="mountain hiking trails")
    assert [(match.user_id, match.interest_id) for match in matches] == [("ada", hiking.id)]
    least = (await client.server_info()).similarity
    assert matches[0].similarity > least
    assert [m.user_id for m in await client.find_users(item_id="hiking-1")] == ["ada"]
    assert not await client.find_users(text="quarterly tax law", min_similarity=least)


async def test_capture_answers_with_what_the_signal_changed(server: Server) -> None:
    first = await server.client.capture(user_id="u", text="Sourdough bread fresh from the oven", id="s-1")
    assert [(i.signal_count, i.weight) for i in first.changed] == [(1, 1)]
    second = await server.client.capture(user_id="u", text="Baking rye bread with sourdough", id="s-2")
    assert [(i.id, i.signal_count) for i in second.changed] == [(first.changed[0].id, 2)]
    third = await server.client.capture(user_id="u", text="The telescope shows distant galaxies", id="s-3")
    assert len(third.changed) == 1
    assert third.changed[0].id != first.changed[0].id
    assert third.profile_version == 3


async def test_what_is_captured_is_there_word_for_word(server: Server) -> None:
    sent = Signal(
        id="s-1",
        user_id="用户",
        post=Post(text="今天去爬山，风景很美 ⛰️", language="zh", item_id="hiking-1", rating=0.5),
        context={"surface": "app", "地点": "黄山"},
    )
    sent.time.FromDatetime(DAY_0)
    liked = Signal(id="s-2", user_id="用户")
    liked.behavior.CopyFrom(Behavior(item_id="hiking-1", action=ACTION_LIKE, value=0.25, attribution_token="token"))
    liked.time.FromDatetime(DAY_0 + timedelta(days=1))
    # A nought is said as much as any other number, and there was a time before 1970.
    seen = Signal(id="s-3", user_id="用户", behavior=Behavior(item_id="hiking-2", action=ACTION_VIEW, value=0))
    seen.time.FromDatetime(datetime(1965, 5, 5, 5, 5, 5, 250, tzinfo=UTC))
    neutral = Signal(id="s-4", user_id="用户", post=Post(text="A hike like any other", rating=0))
    neutral.time.FromDatetime(DAY_0 - timedelta(days=1))
    for signal in (sent, liked, seen, neutral):
        await server.client.capture_signal(signal)
    assert [signal async for signal in server.client.signals("用户")] == [liked, sent, neutral, seen]
    records = [record async for record in server.client.export_user("用户")]
    assert [record.WhichOneof("record") for record in records] == ["profile", *["signal"] * 4]
    assert [record.signal for record in records[1:]] == [liked, sent, neutral, seen]
    assert records[0].profile.signal_count == 4
    assert len(records[0].profile.interests[0].vector) == 384


async def test_an_interest_tells_its_times_and_each_reason_where_it_comes_from(server: Server) -> None:
    await server.client.upsert_items(catalogue())
    times = [DAY_0 + timedelta(days=days) for days in (0, 2)]
    await server.client.capture(user_id="u", text="I love hiking on mountain trails", id="s-1", time=times[0])
    await server.client.behave(user_id="u", item_id="hiking-0", action="like", id="s-2", time=times[1])
    (hiking,) = (await server.client.profile("u")).interests
    assert [time.ToDatetime(UTC) for time in (hiking.first_time, hiking.last_time)] == times
    assert 0 < hiking.confidence < hiking.weight == 1
    assert hiking.trend in (TREND_STEADY, TREND_FADING)
    reasons = (await server.client.explain("u", hiking.id)).evidence
    assert sorted((reason.signal_id, reason.item_id, reason.time.ToDatetime(UTC)) for reason in reasons) == [
        ("s-1", "", times[0]),
        ("s-2", "hiking-0", times[1]),
    ]
    (first,) = (await server.client.explain("u", hiking.id, max_evidence=1)).evidence
    assert first.signal_id == reasons[0].signal_id
    # Its short horizon tells of another user than its long one.
    await server.client.capture(user_id="u", text="Jazz piano all evening")
    drift = (await server.client.profile("u")).drift
    assert (drift.enough_evidence, drift.recent_signal_count) == (False, 1)
    assert 0.001 < drift.magnitude < 1


async def test_an_export_tells_each_word_of_the_user(server: Server) -> None:
    await server.client.capture(user_id="u", text="A long hike on mountain trails today, wonderful!")
    (hiking,) = (await server.client.profile("u")).interests
    await server.client.steer("u", topic="jazz", bias=0.5)
    await server.client.steer("u", interest_id=hiking.id, muted=True)
    await server.client.steer("u", topic="jazz")
    records = [record async for record in server.client.export_user("u")]
    assert [record.WhichOneof("record") for record in records] == ["profile", *["steered"] * 3, "signal"]
    said = [record.steered for record in records[1:4]]
    assert [(word.topic, word.interest_id, word.steering) for word in said] == [
        ("jazz", "", Steering(bias=0.5)),
        ("", hiking.id, Steering(muted=True)),
        ("jazz", "", Steering()),
    ]
    await server.client.steer("u", topic="cafe\u0301", muted=True)
    *_, last, _ = [record async for record in server.client.export_user("u")]
    assert last.steered.topic == "caf\u00e9"
    times = [word.time.ToDatetime(UTC) for word in said]
    assert times == sorted(times)
    assert abs(datetime.now(UTC) - times[-1]) < timedelta(minutes=1)


async def test_the_same_id_is_captured_once(server: Server) -> None:
    def signal(text: str) -> Signal:
        return Signal(id="s-1", user_id="u", post=Post(text=text))

    first = await server.client.capture_signal(signal("I love hiking"))
    again = await server.client.capture_signal(signal("I love hiking"))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.signal_id, again.profile_version, list(again.changed)) == ("s-1", 1, [])
    with pytest.raises(ConflictError):
        await server.client.capture_signal(signal("I love baking"))
    other_user = Signal(id="s-1", user_id="somebody else", post=Post(text="I love hiking"))
    conflict = await refused(server.rpc("Capture")(CaptureRequest(signal=other_user)))
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SIGNAL_CONFLICT")
    batch = await server.rpc("BatchCapture")(
        BatchCaptureRequest(signals=[signal("I love hiking"), signal("other"), signal("I love hiking")])
    )
    assert [result.duplicate for result in batch.results] == [True, False, True]
    assert [(e.index, e.id, refusal(e.status).code) for e in batch.errors] == [
        (1, "s-1", grpc.StatusCode.ALREADY_EXISTS)
    ]
    assert (await server.client.profile("u")).signal_count == await server.signal_count() == 1


async def test_concurrent_copies_of_a_signal_are_captured_once(server: Server) -> None:
    signal = Signal(id="s-1", user_id="u", post=Post(text="I love hiking"))
    answers = await asyncio.gather(*(server.client.capture_signal(signal) for _ in range(20)))
    assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 19
    assert {answer.profile_version for answer in answers} == {1}


async def test_the_order_of_arrival_does_not_matter(start: StartServer, tmp_path: Path) -> None:
    texts = [
        "Hiking the ridge above the lake", "Jazz piano on a rainy evening", "A new pair of hiking boots",
        "Sourdough starter, day three", "The baguettes came out crusty", "Saturn through the telescope",
        "Mountain trails in the morning mist", "Bebop records from the fifties",
    ]  # fmt: skip
    signals = []
    for number, text in enumerate(texts):
        signal = Signal(id=f"s-{number}", user_id="u", post=Post(text=text))
        signal.time.FromDatetime(DAY_0 + timedelta(days=3 * number))
        signals.append(signal)
    # Two at the same moment, an undo, and actions on an item.
    for number, action in enumerate((ACTION_LIKE, ACTION_DISLIKE, ACTION_UNDO)):
        signal = Signal(id=f"b-{number}", user_id="u", behavior=Behavior(item_id="jazz-0", action=action))
        signal.time.FromDatetime(DAY_0 + timedelta(days=3 * number))
        signals.append(signal)
    shuffled = random.Random(7).sample(signals, len(signals))
    profiles = []
    for number, order in enumerate((sorted(signals, key=lambda s: s.time.seconds), signals[::-1], shuffled)):
        async with start(tmp_path / f"data-{number}") as server:
            await server.client.upsert_items(catalogue())
            if number == 2:
                answer = await server.rpc("BatchCapture")(BatchCaptureRequest(signals=order))
                assert not answer.errors
            else:
                for signal in order:
                    await server.client.capture_signal(signal)
            profiles.append(await server.client.profile("u", include_vectors=True))
    first, *others = profiles
    assert first.version == 11
    assert len(first.interests) >= 3
    for other in others:
        assert_same_interests(other, first)
        assert (other.version, other.signal_count) == (first.version, first.signal_count)


async def test_a_profile_as_of_a_moment_is_the_profile_of_that_moment(server: Server) -> None:
    texts = ["I love hiking in the mountains", "Jazz piano all evening", "Hiking boots for the trails"]
    now = datetime.now(UTC)
    times = [now - timedelta(days=days) for days in (30, 20, 10)]
    for text, time in zip(texts, times, strict=True):
        await server.client.capture(user_id="u", text=text, time=time)
    for count, time in enumerate(times, 1):
        then = await server.client.profile("u", as_of=time + timedelta(hours=1))
        assert then.signal_count == count
        assert sum(i.signal_count for i in then.interests) == count
        assert len(then.interests) == min(count, 2)
        assert then.as_of.ToDatetime(UTC) == time + timedelta(hours=1)
    before = await server.client.profile("u", as_of=times[0] - timedelta(seconds=1))
    assert (before.signal_count, list(before.interests)) == (0, [])
    present = await server.client.profile("u", include_vectors=True)
    replayed = await server.client.profile("u", as_of=now + timedelta(minutes=1), include_vectors=True)
    assert_same_interests(replayed, present)


async def test_undo_takes_the_latest_action_back(server: Server) -> None:
    client = server.client
    await client.upsert_items(catalogue())
    await client.behave(user_id="u", item_id="jazz-0", action="view")
    await client.behave(user_id="u", item_id="hiking-0", action="like")
    before = await client.profile("u", include_vectors=True)
    await client.behave(user_id="u", item_id="baking-0", action="like")
    assert len((await client.profile("u")).interests) == 3
    assert "baking-0" not in await server.recommended("u", page_size=16)
    await client.behave(user_id="u", item_id="baking-0", action="undo")
    after = await client.profile("u", include_vectors=True)
    assert_same_interests(after, before)
    assert after.signal_count == 4
    # What was taken back was not seen, and is not popular either.
    assert "baking-0" in await server.recommended("u", page_size=16)
    await client.behave(user_id="u", item_id="hiking-0", action="undo")

    async def unpopular() -> bool:
        return await server.recommended("stranger", page_size=1) == ["jazz-0"]

    await until(unpopular)
    await client.behave(user_id="u", item_id="hiking-1", action="undo")  # nothing to take back
    assert len((await client.profile("u")).interests) == 1


async def test_signals_on_an_unknown_item_count_when_it_arrives(server: Server) -> None:
    client = server.client
    answer = await client.behave(user_id="u", item_id="hiking-0", action="like")
    assert (answer.profile_version, list(answer.changed)) == (1, [])
    await client.capture(user_id="u", text="Such a relaxing tune", item_id="jazz-0")
    early = await client.profile("u")
    assert (early.signal_count, len(early.interests)) == (2, 1)
    await client.upsert_items(catalogue())
    profile = await client.profile("u")
    assert profile.signal_count == 2
    assert profile.version > early.version
    keywords = {word for interest in profile.interests for word in interest.keywords}
    assert len(profile.interests) == 2
    assert keywords & {"hiking", "Alps", "hiking trails"}
    assert set(topics(await server.recommended("u", page_size=4))) == {"hiking", "jazz"}

    async def popular() -> bool:
        return set(await server.recommended("stranger", page_size=2)) == {"hiking-0", "jazz-0"}

    await until(popular)


async def test_what_a_user_dislikes_keeps_away(server: Server) -> None:
    client = server.client
    await client.upsert_items(catalogue())
    for number in range(3):
        await client.behave(user_id="u", item_id=f"jazz-{number}", action="dislike")
    await client.capture(user_id="u", text="Fresh bread from the oven")
    profile = await client.profile("u")
    assert [interest.weight > 0 for interest in profile.interests] == [True, False]
    assert (await server.recommended("u", page_size=16))[-1] == "jazz-3"
    least = (await client.server_info()).similarity
    assert not await client.find_users(item_id="jazz-3", min_similarity=least)


async def test_who_has_touched_an_item_need_not_be_told_of_it(server: Server) -> None:
    client = server.client
    await client.upsert_items(catalogue())
    for user in ("ann", "bob", "cem"):
        await client.capture(user_id=user, text="A jazz trio, a double bass and a slow ballad")
    await client.behave(user_id="ann", item_id="jazz-1", action="view")
    await client.behave(user_id="bob", item_id="jazz-1", action="like")
    await client.behave(user_id="bob", item_id="jazz-1", action="undo")

    async def named(**asked: Any) -> set[str]:
        return {match.user_id for match in await client.find_users(item_id="jazz-1", **asked)}

    await server.index_caught_up()
    assert await named() == {"ann", "bob", "cem"}
    assert await named(exclude_seen=True) == {"bob", "cem"}
    assert len(await named(exclude_seen=True, page_size=1)) == 1


async def test_a_post_that_damns_its_subject_is_no_praise_of_it(server: Server) -> None:
    client = server.client
    await client.capture(user_id="u", text="Fresh bread from the oven")
    await client.capture(user_id="u", text="I hated this book about sailing: boring, terrible, a waste of time.")
    weights = sorted(interest.weight for interest in (await client.profile("u")).interests)
    assert len(weights) == 2
    assert weights[0] < 0.2 * weights[1]
    damning, plain = [signal async for signal in client.signals("u")]
    assert not damning.post.HasField("rating")
    assert damning.post.inferred_rating < 0
    assert not plain.post.HasField("inferred_rating")


async def test_no_interest_is_without_a_name(server: Server) -> None:
    names = {"ねこ": "“ねこ”", "猫": "猫", "徒步十二公里,腿都断了": "徒步"}
    for text, name in names.items():
        await server.client.capture(user_id=text, text=text)
        assert [interest.label for interest in (await server.client.profile(text)).interests] == [name]


async def test_what_names_nothing_is_kept_and_is_no_interest(server: Server) -> None:
    for text in ("hello world", "same", "好累", "Jazz piano all night long", "lol"):
        await server.client.capture(user_id="u", text=text)
    [interest] = (await server.client.profile("u")).interests
    assert interest.signal_count == 1
    assert len([signal async for signal in server.client.signals("u")]) == 5


@pytest.mark.parametrize("text", ["Please stop showing me jazz", "别再给我推爵士乐了"])
async def test_who_refuses_a_subject_is_shown_less_of_it(server: Server, text: str) -> None:
    client = server.client
    await client.upsert_items(catalogue())
    await client.capture(user_id="fan", text="Jazz piano all night long")
    await client.capture(user_id="ada", text=text)
    refusal = (await client.profile("ada")).interests[0]
    assert refusal.weight < 0
    assert "jazz" not in topics(await server.recommended("ada", page_size=6))
    await server.index_caught_up()
    assert [match.user_id for match in await client.find_users(text="jazz records")] == ["fan"]


async def test_steering_an_interest_reaches_that_one_and_no_other(server: Server) -> None:
    # Liked and disliked, one item stands in the middle of two interests of opposite sign.
    await server.client.upsert_items(catalogue())
    await server.client.behave(user_id="u", item_id="jazz-0", action="like")
    await server.client.behave(user_id="u", item_id="jazz-0", action="dislike")
    for interest in (await server.client.profile("u")).interests:
        steered = await server.client.steer("u", interest_id=interest.id, pinned=True)
        assert steered.id == interest.id
        assert steered.steering.pinned


FAN = [
    "World-class goalkeeping saved us again tonight in the derby",
    "Our goalkeeper kept a clean sheet, what a save in stoppage time",
    "Premier league fixtures: the striker scored a hat-trick",
    "The midfielder was sent off and the defenders parked the bus",
    "Soccer training for the kids, penalty shoot-out practice",
    "My cat sleeps on the keyboard all day",
    "The kittens need a new litter box, and cat food",
    "今天炖了红烧肉，冰糖炒糖色，五花肉软糯",
]


async def test_a_topic_steers_the_interest_that_it_means_and_no_neighbour(server: Server) -> None:
    for text in FAN:
        await server.client.capture(user_id="fan", text=text)
    before = (await server.client.profile("fan")).interests
    football, cats, pork = (interest.label for interest in before)
    neighbours = ["cricket", "sports betting", "美式橄榄球", "baking", "vet bills", "dogs", "狗"]
    meant = {topic: topic for topic in neighbours}
    meant |= {"soccer": football, "goalkeeping": football, "cats": cats, "猫": cats, "红烧肉": pork}
    for topic, label in meant.items():
        told = await server.client.steer("fan", topic=topic, muted=True)
        assert (topic, told.label, told.signal_count > 0, told.weight) == (topic, label, topic not in neighbours, 0)
        muted = [
            interest.label for interest in (await server.client.profile("fan")).interests if interest.steering.muted
        ]
        assert muted == [label]
        told = await server.client.steer("fan", topic=topic)
        assert (told.label, told.steering) == (label, Steering())
        after = (await server.client.profile("fan")).interests
        assert [(i.id, i.label, list(i.keywords)) for i in after] == [(i.id, i.label, list(i.keywords)) for i in before]
        assert [i.weight for i in after] == pytest.approx([i.weight for i in before], abs=1e-5)


@pytest.mark.parametrize(("tag", "topic"), [("#trail_running", "Trail  Running"), ("#手冲咖啡#", "手冲咖啡")])
async def test_a_topic_given_as_a_hashtag_is_its_words(server: Server, tag: str, topic: str) -> None:
    told = await server.client.steer("fan", topic=tag, muted=True)
    assert "#" not in told.label
    assert (await server.client.steer("fan", topic=topic)).id == told.id
    assert not (await server.client.profile("fan")).interests


async def test_the_label_that_is_shown_means_its_interest(server: Server) -> None:
    for text in FAN:
        await server.client.capture(user_id="fan", text=text)
    shown = (await server.client.profile("fan")).interests
    for interest in shown:
        for topic in (f" {interest.label.upper()} ", interest.label):
            told = await server.client.steer("fan", topic=topic, muted=topic == interest.label)
            assert (told.id, told.steering.muted) == (interest.id, topic == interest.label)
    records = [record async for record in server.client.export_user("fan")]
    words = [record.steered for record in records if record.HasField("steered")]
    assert [word.interest_id for word in words] == [interest.id for interest in shown for _ in range(2)]
    assert [word.topic.strip().casefold() for word in words[::2]] == [interest.label.casefold() for interest in shown]


async def test_a_muted_topic_keeps_away_what_its_category_names(server: Server) -> None:
    await server.client.upsert_items(
        [
            Item(id=name, title="The long way home", text="Snow on every road", categories=[name])
            for name in ("Ghost stories", "ghosts", "stories")
        ]
    )
    await server.client.capture(user_id="fan", text="The long way home")
    assert set(await server.recommended("fan")) == {"Ghost stories", "ghosts", "stories"}
    await server.client.steer("fan", topic="ghost stories", muted=True)
    assert set(await server.recommended("fan")) == {"ghosts", "stories"}
    told = await server.client.rerank("fan", [Candidate(item_id=name) for name in ("Ghost stories", "ghosts")])
    assert [place.item_id for place in told.recommendations] == ["ghosts", "Ghost stories"]
    await server.client.steer("fan", topic="Ghost Stories")
    assert set(await server.recommended("fan")) == {"Ghost stories", "ghosts", "stories"}


async def test_muted_items_take_no_places_of_others(server: Server) -> None:
    await server.client.upsert_items(
        [Item(id=f"gear-{n}", title="Mountain trails", text="Hike", categories=["Gear"]) for n in range(60)]
        + [
            Item(id=f"route-{n}", title=f"City bus number {n}", text="Timetable", categories=["Routes"])
            for n in range(9)
        ]
    )
    await server.client.capture(user_id="ada", text="A long hike on mountain trails today, wonderful!")
    await server.client.steer("ada", topic="gear", muted=True)
    answer = await server.client.recommend("ada", page_size=5)
    assert len(answer.recommendations) == 5
    assert all(place.item_id.startswith("route") for place in answer.recommendations)


async def test_what_was_asked_for_is_a_reason_for_its_own_items_alone(server: Server) -> None:
    await server.client.upsert_items(catalogue())
    await server.client.capture(user_id="ada", text="A long hike on mountain trails today, wonderful!")
    asked = {"stars and telescopes": "astronomy", "sourdough bread": "baking", "jazz": "jazz"}

    async def told() -> set[tuple[str, str]]:
        """Topics of items, each with what is said to have been asked for."""
        answer = await server.client.recommend("ada", page_size=16, explain=True)
        return {
            (place.item_id.rpartition("-")[0], reason.snippet)
            for place in answer.recommendations
            for reason in place.evidence
            if not reason.signal_id
        }

    for topic in asked:
        await server.client.steer("ada", topic=topic, bias=-1)
    assert await told() == set()
    less = (await server.client.profile("ada")).interests[-1]
    assert (await server.client.explain("ada", less.id)).evidence[0].snippet == f"asked for less: {less.label}"
    for topic in [*asked, *asked]:
        await server.client.steer("ada", topic=topic, bias=1)
    assert await told() == {(subject, f"asked for: {topic}") for topic, subject in asked.items()}
    await server.client.steer("ada", topic="jazz")
    await server.client.steer("ada", topic="sourdough bread", bias=-0.5)
    assert await told() == {("astronomy", "asked for: stars and telescopes")}


async def test_a_muted_topic_keeps_its_items_away_and_leaves_its_neighbours(server: Server) -> None:
    await server.client.upsert_items(
        [
            Item(id="cricket", title="Cricket: batting, bowling and the laws of cricket"),
            Item(id="football", title="Football goalkeepers and their greatest saves"),
        ]
    )
    for text in FAN:
        await server.client.capture(user_id="fan", text=text)
    assert set(await server.recommended("fan")) == {"cricket", "football"}
    await server.client.steer("fan", topic="cricket", muted=True)
    assert await server.recommended("fan") == ["football"]


async def test_validate_only_keeps_nothing(server: Server) -> None:
    answer = await server.client.capture(user_id="u", text="I love hiking", id="s-1", validate_only=True)
    assert (answer.signal_id, answer.profile_version, answer.duplicate) == ("s-1", 0, False)
    with pytest.raises(NotFoundError):
        await server.client.profile("u")
    assert await server.signal_count() == 0
    assert not (await server.client.capture(user_id="u", text="other words", id="s-1")).duplicate
    # It refuses what a capture would refuse.
    again = await server.client.capture(user_id="u", text="other words", id="s-1", validate_only=True)
    assert again.duplicate
    with pytest.raises(ConflictError):
        await server.client.capture(user_id="u", text="I love hiking", id="s-1", validate_only=True)


async def test_an_unknown_user_has_no_profile(server: Server) -> None:
    with pytest.raises(NotFoundError) as error:
        await server.client.profile("nobody")
    assert error.value.reason == "USER_NOT_FOUND"


async def test_a_stream_answers_every_signal_in_order(server: Server) -> None:
    signals = [
        Signal(id="a", user_id="u", post=Post(text="I love hiking")),
        Signal(id="b", user_id="", post=Post(text="no user")),
        Signal(id="c", user_id="u", post=Post(text="https://example.com")),
        Signal(id="a", user_id="u", post=Post(text="I love hiking")),
        Signal(id="a", user_id="u", post=Post(text="something else")),
        Signal(user_id="u", post=Post(text="Jazz piano")),
    ]
    requests = [StreamCaptureRequest(sequence=10 * n, signal=signal) for n, signal in enumerate(signals)]
    requests.append(StreamCaptureRequest(sequence=99))
    answers = [answer async for answer in server.client.stream(*requests)]
    assert [getattr(a, a.WhichOneof("event")).sequence for a in answers] == [0, 10, 20, 30, 40, 50, 99]
    events = " ".join(answer.WhichOneof("event") for answer in answers)
    assert events == "ack refusal refusal ack refusal ack refusal"
    assert [answers[n].ack.result.duplicate for n in (0, 3, 5)] == [False, True, False]
    assert answers[5].ack.result.signal_id
    assert [refusal(answers[n].refusal.status).fields for n in (1, 2)] == [
        ("signal.user_id",),
        ("signal.post.text",),
    ]
    assert refusal(answers[4].refusal.status).code is grpc.StatusCode.ALREADY_EXISTS
    assert set(refusal(answers[6].refusal.status).fields) == {"signal.user_id", "signal.evidence"}
    assert (await server.client.profile("u")).signal_count == 2


async def test_a_stream_acknowledges_before_it_ends(server: Server) -> None:
    call = server.rpc("StreamCapture")()
    for sequence in range(3):
        signal = Signal(user_id="u", post=Post(text=f"Hiking, day {sequence}"))
        await call.write(StreamCaptureRequest(sequence=sequence, signal=signal))
        assert (await asyncio.wait_for(call.read(), 10)).ack.sequence == sequence
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await server.signal_count() == 3


async def test_watching_tells_of_every_change(server: Server) -> None:
    await server.client.capture(user_id="u", text="I love hiking")
    async with aclosing(server.client.watch(["u", "new", "u"])) as profiles, asyncio.timeout(10):
        assert [(p.user_id, p.version) for p in [await anext(profiles), await anext(profiles)]] == [
            ("u", 1),
            ("new", 0),
        ]
        await server.client.capture(user_id="somebody else", text="Jazz piano")
        await server.client.capture(user_id="new", text="Jazz piano")
        seen = await anext(profiles)
        assert (seen.user_id, seen.version, len(seen.interests)) == ("new", 1, 1)
        assert seen.interests[0].label
        await server.client.steer("u", topic="baking", bias=1)
        assert ((seen := await anext(profiles)).user_id, len(seen.interests)) == ("u", 2)
    async with aclosing(server.client.watch()) as everyone, asyncio.timeout(10):
        opening = await anext(everyone)
        assert (opening.user_id, opening.space_id) == ("", (await server.client.server_info()).space_id)
        assert abs(datetime.now(UTC) - opening.as_of.ToDatetime(UTC)) < timedelta(minutes=1)
        await server.client.capture(user_id="third", text="Jazz piano")
        assert (await anext(everyone)).user_id == "third"


async def test_who_begins_to_watch_amid_changes_is_told_no_older_state_after_a_newer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.client.capture(user_id="u", text="I love hiking")
    begun, changed, find = threading.Event(), threading.Event(), Profiles.find

    def slow(*arguments: Any) -> Stored | None:
        begun.set()
        changed.wait(10)
        return find(*arguments)

    async with aclosing(server.client.watch(["u"])) as profiles, asyncio.timeout(20):
        with monkeypatch.context() as patch:
            patch.setattr(Profiles, "find", slow)
            first = asyncio.ensure_future(anext(profiles))
            await asyncio.to_thread(begun.wait, 10)
            await server.client.capture(user_id="u", text="Jazz piano")
            changed.set()
            assert (await first).version == 2
        await server.client.capture(user_id="u", text="Sourdough bread")
        assert (await anext(profiles)).version == 3


async def test_what_was_committed_before_a_space_kept_profiles_is_told_of_as_it_stands(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aclosing(server.client.watch(["u"])) as profiles, asyncio.timeout(20):
        assert (await anext(profiles)).version == 0
        monkeypatch.setattr(
            users, "Change", lambda user_id, version, signal_count, _: Change(user_id, version, signal_count, {})
        )
        for version in (1, 2):
            await server.client.capture(user_id="u", text="I love hiking")
            told = await anext(profiles)
            assert (told.version, told.signal_count, len(told.interests)) == (version, version, 1)


HIKES = [
    f"{what} {where}"
    for what in ("A ridge walk", "Two days of hiking", "Snow on the trail", "A mountain hut")
    for where in (
        "in the Alps",
        "above the fjords",
        "with heavy backpacks",
        "along the glacier",
        "before dawn",
        "in new boots",
    )
]
SESSIONS = [
    f"{what} {where}"
    for what in ("Bebop piano", "A saxophone solo", "Swing records", "A jazz trio")
    for where in ("in a New York club", "from the fifties", "at the festival")
]


async def test_who_watches_for_drift_alone_hears_of_nothing_else(server: Server) -> None:
    hikes = [Signal(id=f"h-{n:02}", user_id="u", post=Post(text=text)) for n, text in enumerate(HIKES)]
    async with aclosing(server.client.watch(["u"], drift_only=True)) as drifts, asyncio.timeout(20):
        assert (await anext(drifts)).version == 0
        answered = await server.rpc("BatchCapture")(BatchCaptureRequest(signals=hikes))
        assert not any(result.drift.detected for result in answered.results)
        assert answered.results[-1].drift.enough_evidence
        for text in SESSIONS:
            answer = await server.client.capture(user_id="u", text=text)
            if answer.drift.detected:
                break
        told = await anext(drifts)
        assert (told.version, told.drift.detected, told.drift.since) == (
            answer.profile_version,
            True,
            answer.drift.since,
        )
        assert told.drift.recent_signal_count == told.signal_count  # all are of today
    whole = await server.client.profile("u")
    assert len(whole.interests) > 1
    strongest = await server.client.profile("u", max_interests=1)
    assert [interest.id for interest in strongest.interests] == [whole.interests[0].id]


async def test_a_word_that_was_never_said_is_not_taken_back(server: Server) -> None:
    await server.client.capture(user_id="u", text="I love hiking")
    await server.client.steer("u", topic="jazz", muted=True)
    for user, topic in (("u", "opera"), ("nobody", "opera")):
        with pytest.raises(NotFoundError):
            await server.client.steer(user, topic=topic)
    with pytest.raises(NotFoundError):
        await server.client.profile("nobody")
    assert (await server.client.profile("u")).version == 2
    assert (await server.client.steer("u", topic="Jazz")).steering == Steering()


async def test_watchers_hear_that_somebody_is_no_more(server: Server) -> None:
    for user in ("erased", "guest", "member"):
        await server.client.capture(user_id=user, text="I love hiking")
    async with (
        aclosing(server.client.watch(["erased", "guest"])) as profiles,
        aclosing(server.client.watch(drift_only=True)) as drifts,
        asyncio.timeout(10),
    ):
        assert {(await anext(profiles)).version, (await anext(profiles)).version} == {1}
        await anext(drifts)
        await server.client.delete_user("erased")
        await server.client.merge_users(from_user_id="guest", into_user_id="member")
        for stream in (profiles, drifts):
            for user in ("erased", "guest"):
                gone = await anext(stream)
                assert (gone.user_id, gone.version, len(gone.interests)) == (user, 0, 0)
                assert gone.HasField("as_of")


async def test_signals_come_in_pages_newest_first(server: Server) -> None:
    rpc = server.rpc("ListSignals")
    for number in range(5):
        time = DAY_0 + timedelta(days=number // 2)
        await server.client.capture(user_id="u", text=f"Hike number {number}", id=f"s:{number}", time=time)
    ids: list[list[str]] = []
    request = ListSignalsRequest(user_id="u", page_size=2)
    while True:
        page = await rpc(request)
        ids.append([signal.id for signal in page.signals])
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        request.page_size = 2 if len(ids) == 1 else 1000  # the size may change from page to page
    assert ids == [["s:4", "s:3"], ["s:2", "s:1"], ["s:0"]]
    request = ListSignalsRequest(user_id="somebody else", page_token=request.page_token)
    assert (await refused(rpc(request))).fields == ("page_token",)


async def test_rerank_orders_the_callers_candidates(server: Server) -> None:
    client = server.client
    await client.upsert_items(catalogue())
    await client.capture(user_id="u", text="I love hiking on mountain trails")
    candidates = [
        Candidate(item_id="jazz-0", prior_score=9),
        Candidate(item_id="hiking-1", prior_score=1),
        Candidate(item_id="elsewhere", text="A weekend of hiking in the mountains", prior_score=5),
        Candidate(item_id="lost"),
    ]
    answer = await client.rerank("u", candidates)
    order = [place.item_id for place in answer.recommendations]
    assert order[-1] == "jazz-0"
    assert set(order) == {"jazz-0", "hiking-1", "elsewhere"}
    assert list(answer.missing_item_ids) == ["lost"]
    by_prior = await client.rerank("u", candidates, prior_weight=1)
    assert [p.item_id for p in by_prior.recommendations] == ["jazz-0", "elsewhere", "hiking-1"]
    best = await client.rerank("u", candidates, top_n=1, query="jazz piano", explain=True)
    assert [place.item_id for place in best.recommendations] == ["jazz-0"]
    # What an item of the catalogue is, the catalogue says.
    candidates[0].text = "A weekend of hiking in the mountains"
    assert [place.item_id for place in (await client.rerank("u", candidates)).recommendations] == order
    stranger = await client.rerank("nobody", candidates, prior_weight=0.5)
    assert list(stranger.degraded) == ["cold_user"]
    assert stranger.recommendations[0].item_id == "jazz-0"


async def test_reranked_candidates_that_are_muted_come_last(server: Server) -> None:
    client = server.client
    await client.capture(user_id="u", text="I like coffee beans from Ethiopia, roasted light")
    await client.steer("u", topic="espresso", muted=True)
    espresso = Candidate(item_id="espresso", text="Espresso machines and coffee grinders compared")
    football = Candidate(item_id="football", text="Football results of the weekend")
    hiking = Candidate(item_id="hiking", text="A weekend of hiking in the mountains")

    async def order(*candidates: Candidate, **options: Any) -> list[str]:
        answer = await client.rerank("u", candidates, **options)
        return [place.item_id for place in answer.recommendations]

    assert await order(espresso, football) == ["football", "espresso"]
    assert await order(espresso, football, top_n=1) == ["football"]
    for diversity in (0.5, 1.0):
        assert (await order(espresso, football, hiking, diversity=diversity))[-1] == "espresso"
    for candidate, prior in ((espresso, 3), (football, 1), (hiking, 1)):
        candidate.prior_score = prior
    assert (await order(espresso, football, hiking, prior_weight=1))[-1] == "espresso"


@pytest.mark.parametrize("priors", [[1e-13, 2e-13, 3e-13], [1e9, 1e9 + 1e-4, 1e9 + 2e-4]])
async def test_the_callers_order_alone_counts_however_close_the_priors(server: Server, priors: list[float]) -> None:
    await server.client.capture(user_id="u", text="I like coffee beans from Ethiopia, roasted light")
    candidates = [Candidate(item_id=str(place), text=f"Text {place}", prior_score=p) for place, p in enumerate(priors)]
    answer = await server.client.rerank("u", candidates, prior_weight=1)
    assert [place.item_id for place in answer.recommendations] == ["2", "1", "0"]


async def test_reranked_texts_without_an_id_are_told_apart(server: Server) -> None:
    client = server.client
    await client.capture(user_id="u", text="I love hiking on mountain trails")
    texts = ["", "How to bake rye bread", "A weekend of hiking in the mountains", "…", "An evening of jazz"]
    candidates = [Candidate(item_id="" if text else "lost", text=text) for text in texts]
    answer = await client.rerank("u", candidates)
    places = {place.candidate_index: place.item_id for place in answer.recommendations}
    assert places == {1: "", 2: "", 4: ""}
    assert answer.recommendations[0].candidate_index == 2
    assert list(answer.missing_item_ids) == ["lost"]
    swapped = [candidates[i] for i in (4, 2, 1)]
    again = await client.rerank("u", swapped)
    assert again.recommendations[0].candidate_index == 1
    assert again.attribution_token != answer.attribution_token
    await client.upsert_items(catalogue())
    assert not any(p.HasField("candidate_index") for p in (await client.recommend("u")).recommendations)


async def test_an_item_is_there_word_for_word_and_listed_though_hidden(server: Server) -> None:
    item = Item(id="b", title="徒步", text="Trails", categories=["y", "x"], attributes={"level": "3"}, hidden=True)
    item.create_time.FromDatetime(DAY_0 + timedelta(microseconds=250))
    plain = Item(id="a", title="Hiking trails")
    await server.client.upsert_items([item, plain])
    assert [await server.client.item(item_id) for item_id in ("a", "b")] == [plain, item]
    assert [found async for found in server.client.items()] == [plain, item]


async def test_items_change_hide_and_go(server: Server) -> None:
    client = server.client
    await client.upsert_items(catalogue())
    await client.capture(user_id="u", text="I love hiking on mountain trails")
    best = (await server.recommended("u"))[0]
    await client.upsert_items([Item(id=best, title="Sourdough bread", hidden=False)])
    assert (await client.item(best)).title == "Sourdough bread"
    assert (await server.recommended("u"))[0] != best
    second = (await server.recommended("u"))[0]
    await client.upsert_items([Item(id=second, title="Hiking trails", hidden=True)])
    assert second not in await server.recommended("u", page_size=100)
    assert (await client.item(second)).hidden
    third = (await server.recommended("u"))[0]
    assert await client.delete_items([third, third, "no such item"]) == 1
    assert third not in await server.recommended("u", page_size=100)
    with pytest.raises(NotFoundError) as error:
        await client.item(third)
    assert error.value.reason == "ITEM_NOT_FOUND"
    info = await client.server_info()
    assert info.item_count == 15
    await server.index_caught_up()
    assert not {second, third} & set(await server.recommended("u", page_size=100))


async def test_a_stream_ends_at_what_is_no_signal_and_says_so(server: Server) -> None:
    signals: list[Any] = [Signal(id="s-1", user_id="u", post=Post(text="I love hiking")), {"user_id": "u"}]

    said = r"penchant\.Signal only, holds dict"
    responses = server.client.stream_capture(signals)
    # What came before was taken.
    assert (await anext(responses)).ack.sequence == 0
    with pytest.raises(InvalidInputError, match=said):
        await anext(responses)

    def blocking() -> None:
        with penchant.Client(server.address) as client:
            responses = client.stream_capture(signals)
            assert next(responses).ack.result.duplicate
            with pytest.raises(InvalidInputError, match=said):
                next(responses)

    await asyncio.to_thread(blocking)
    assert await server.signal_count() == 1


async def test_what_the_callers_own_signals_raise_is_raised_in_whoever_streams_them(server: Server) -> None:
    def signals() -> Iterator[Signal]:
        yield Signal(id="s-1", user_id="u", post=Post(text="I love hiking"))
        raise KeyError("the caller's own")

    responses = server.client.stream_capture(signals())
    assert (await anext(responses)).ack.sequence == 0
    with pytest.raises(KeyError, match="the caller's own"):
        await anext(responses)

    def blocking() -> None:
        with penchant.Client(server.address) as client:
            responses = client.stream_capture(signals())
            assert next(responses).ack.result.duplicate
            with pytest.raises(KeyError, match="the caller's own"):
                next(responses)

    await asyncio.to_thread(blocking)


async def test_what_many_watch_is_made_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    message = InterestService._message

    async def counted(self: InterestService, user_id: str, *rest: Any) -> Profile:
        made.append(user_id)
        return await message(self, user_id, *rest)

    monkeypatch.setattr(InterestService, "_message", counted)
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        watches = [await stack.enter_async_context(aclosing(server.client.watch())) for _ in range(5)]
        for watch in watches:
            await anext(watch)  # it is on
        for version in (1, 2):
            await server.client.capture(user_id="u", text="Jazz piano all night")
            told = [await anext(watch) for watch in watches]
            assert [(profile.user_id, profile.version) for profile in told] == [("u", version)] * 5
            assert told == [told[0]] * 5
    assert made == ["u"] * 2
