"""Summaries over the wire: written in the background by a real endpoint, never in anybody's way, gone when untrue."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from chat_endpoint import ChatEndpoint, listening
from harness import TOPICS, Server, StartServer, catalogue, command, healthy, until
from tiny_models import tiny_writer

from penchant.v1.interest_service_pb2 import Profile
from penchant_pipelines.errors import InvalidInput

ENOUGH = 3
MODEL = "summaries.model"


def settings(endpoint: ChatEndpoint, **more: Any) -> dict[str, Any]:
    return {"summaries.endpoint": endpoint.url, MODEL: "tiny", "summaries.every_signals": ENOUGH, **more}


@pytest.fixture
def endpoint() -> Iterator[ChatEndpoint]:
    with listening(ChatEndpoint()) as running:
        yield running


async def write(server: Server, user_id: str, topic: str, count: int = ENOUGH, start: int = 0) -> None:
    for number in range(start, start + count):
        await server.client.capture(user_id=user_id, text=TOPICS[topic][number % 4], id=f"{user_id}-{topic}-{number}")


async def summarised(server: Server, user_id: str, word: str = "") -> Profile:
    """The profile, once it has a summary that holds a word."""
    found: list[Profile] = []

    async def there() -> bool:
        found.append(await server.client.profile(user_id))
        return bool(found[-1].summary) and word.casefold() in found[-1].summary.casefold()

    await until(there)
    return found[-1]


async def asked(endpoint: ChatEndpoint, times: int) -> None:
    """Wait until the endpoint was asked so often."""

    async def enough() -> bool:
        return len(endpoint.requests) >= times

    await until(enough)


def rows(data: Path) -> int:
    engine = sa.create_engine(f"sqlite:///{data / 'record.sqlite3'}")
    with engine.connect() as connection:
        count = connection.execute(sa.text("SELECT count(*) FROM summaries")).scalar_one()
    engine.dispose()
    return int(count)


def holds(folder: Path, needle: bytes) -> bool:
    return any(needle in path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_summary_appears_and_the_model_gets_labels_alone(start: StartServer, endpoint: ChatEndpoint) -> None:
    async with start(**settings(endpoint, **{"summaries.api_key": "k-42"})) as server:
        client = server.client
        await write(server, "reader-7f3", "jazz", ENOUGH - 1)
        await asyncio.sleep(0.3)
        assert endpoint.requests == []  # too little is known as yet
        await write(server, "reader-7f3", "jazz", 1, ENOUGH - 1)
        profile = await summarised(server, "reader-7f3")
        assert profile.summary == f"You like {profile.interests[0].label}."
        assert 0 <= profile.as_of.ToMicroseconds() - profile.summary_time.ToMicroseconds() < 60e6
        assert endpoint.keys == ["Bearer k-42"]

        (sent,), (interests,) = endpoint.requests, endpoint.told
        assert "'en'" in sent["messages"][0]["content"]
        assert {key for interest in interests for key in interest} == {"label", "keywords", "share", "trend"}
        wire = json.dumps(sent)
        assert "reader-7f3" not in wire
        assert not any(text in wire for text in TOPICS["jazz"])

        records = [record async for record in client.export_user("reader-7f3")]
        assert records[0].profile.summary == profile.summary
        assert (await client.profile("reader-7f3", as_of=profile.as_of.ToDatetime(UTC))).summary == ""
        _, shown, _ = await command(server, "profile", "reader-7f3")
        assert f"{profile.summary}  (written 2" in shown

        # So few more signals of the same kind are no reason to ask again; so many are.
        await write(server, "reader-7f3", "jazz", ENOUGH - 1, 10)
        await asyncio.sleep(0.3)
        assert len(endpoint.requests) == 1
        await write(server, "reader-7f3", "jazz", 1, 20)
        await asked(endpoint, 2)
        # A new strong interest is one at once.
        await write(server, "reader-7f3", "baking", ENOUGH - 1)
        second = await summarised(server, "reader-7f3", "bread")
        assert len(second.interests) > 1


async def test_nobody_waits_for_the_model(start: StartServer, endpoint: ChatEndpoint) -> None:
    async with start(**settings(endpoint)) as server:
        endpoint.released.clear()
        await write(server, "ann", "jazz")
        await asked(endpoint, 1)
        async with asyncio.timeout(10):
            await write(server, "ann", "hiking")
            await write(server, "bob", "hiking")
            assert (await server.client.profile("ann")).summary == ""
        endpoint.released.set()
        await summarised(server, "bob")
        await summarised(server, "ann", "hik")


async def test_an_endpoint_that_is_down_is_asked_again_when_it_is_up(start: StartServer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = ChatEndpoint(port=probe.getsockname()[1])
    async with start(**settings(endpoint)) as server:
        await write(server, "ann", "jazz")
        await asyncio.sleep(0.5)
        await write(server, "ann", "hiking")
        assert await healthy(server)
        assert (await server.client.profile("ann")).summary == ""
        with listening(endpoint):
            await summarised(server, "ann", "jazz")
            assert len(endpoint.requests) == 1


async def test_a_user_whom_the_model_refuses_keeps_nobody_from_theirs(
    start: StartServer, endpoint: ChatEndpoint
) -> None:
    async with start(**settings(endpoint)) as server:
        endpoint.status = 400
        await write(server, "ann", "jazz")
        await asked(endpoint, 1)
        endpoint.status = 200
        await write(server, "bob", "hiking")
        await summarised(server, "bob")
        assert (await server.client.profile("ann")).summary == ""


async def test_the_users_word_hides_what_was_written_before(start: StartServer, endpoint: ChatEndpoint) -> None:
    async with start(**settings(endpoint)) as server:
        client = server.client
        await write(server, "ann", "jazz")
        await write(server, "ann", "hiking", 4)
        profile = await summarised(server, "ann", "jazz")
        jazz, hiking = (
            next(interest for interest in profile.interests if word in interest.label.casefold())
            for word in ("jazz", "hik")
        )
        endpoint.released.clear()
        before = len(endpoint.requests)
        await client.steer("ann", interest_id=jazz.id, bias=-0.5)
        assert (await client.profile("ann")).summary == ""
        await asked(endpoint, before + 1)
        # Said while the model writes: what it was told is true no more.
        await client.steer("ann", interest_id=jazz.id, muted=True)
        await client.steer("ann", interest_id=hiking.id, muted=True)
        await client.steer("ann", topic="sourdough baking", bias=1)
        endpoint.released.set()
        last = await summarised(server, "ann")
        assert "sourdough" in last.summary.casefold()
        assert "jazz" not in last.summary.casefold()
        assert "hik" not in last.summary.casefold()


async def test_what_was_taken_back_is_spoken_of_no_more(start: StartServer, endpoint: ChatEndpoint) -> None:
    async with start(**settings(endpoint)) as server:
        client = server.client
        await client.upsert_items(catalogue())
        await write(server, "ann", "jazz", 2)
        items = [f"astronomy-{number}" for number in range(4)]
        for item_id in items:
            await client.behave(user_id="ann", item_id=item_id, action="purchase")
        before = await summarised(server, "ann")
        assert len(before.interests) > 1
        endpoint.released.clear()
        for item_id in items:
            await client.behave(user_id="ann", item_id=item_id, action="undo")
        after = await client.profile("ann")
        assert len(after.interests) < len(before.interests)
        assert after.summary == ""


async def test_an_erased_user_has_none_and_gets_none(start: StartServer, endpoint: ChatEndpoint, data: Path) -> None:
    endpoint.answer = lambda _interests: "Wolpertinger hunting."
    async with start(**settings(endpoint)) as server:
        await write(server, "ann", "jazz")
        await summarised(server, "ann", "Wolpertinger")
        assert holds(data, b"Wolpertinger")
        await server.client.delete_user("ann")
        assert rows(data) == 0
        # While the model writes.
        endpoint.released.clear()
        before = len(endpoint.requests)
        await write(server, "bob", "jazz")
        await asked(endpoint, before + 1)
        await server.client.delete_user("bob")
        endpoint.released.set()
        await write(server, "cleo", "jazz")
        await summarised(server, "cleo")
        assert rows(data) == 1
        await server.client.delete_user("cleo")
    assert not holds(data, b"Wolpertinger")


async def test_a_stop_loses_nobody_and_switching_off_drops_all(
    start: StartServer, endpoint: ChatEndpoint, data: Path
) -> None:
    async with start() as server:
        await write(server, "ann", "jazz")
        await write(server, "bob", "hiking", ENOUGH - 1)
    endpoint.released.clear()
    async with start(**settings(endpoint)):
        await asked(endpoint, 1)
    endpoint.released.set()
    async with start(**settings(endpoint)) as server:
        written = await summarised(server, "ann")
        await write(server, "bob", "hiking", 1, ENOUGH - 1)
        await summarised(server, "bob")
    before = len(endpoint.requests)
    async with start(**settings(endpoint)) as server:
        assert (await server.client.profile("ann")).summary_time == written.summary_time
        await asyncio.sleep(0.3)
        assert len(endpoint.requests) == before  # all is well
    async with start() as server:
        assert (await server.client.profile("ann")).summary == ""

        async def dropped() -> bool:
            return rows(data) == 0

        await until(dropped)


async def test_merging_joins_what_is_spoken_of(start: StartServer, endpoint: ChatEndpoint) -> None:
    async with start(**settings(endpoint)) as server:
        await write(server, "guest", "jazz")
        await write(server, "member", "hiking")
        await summarised(server, "guest")
        await summarised(server, "member")
        await server.client.steer("guest", topic="astronomy", muted=True)
        merged = await server.client.merge_users(from_user_id="guest", into_user_id="member")
        assert merged.summary == ""
        whole = (await summarised(server, "member", "jazz")).summary.casefold()
        assert "hik" in whole
        assert "astronomy" not in whole


@pytest.mark.slow
async def test_a_local_model_writes_too(start: StartServer, tmp_path: Path) -> None:
    folder = tiny_writer(tmp_path / "model")
    async with start(**{MODEL: str(folder), "summaries.every_signals": ENOUGH}) as server:
        await write(server, "ann", "jazz")
        assert (await summarised(server, "ann")).summary


async def test_a_server_without_the_model_that_it_is_told_of_does_not_start(start: StartServer) -> None:
    with pytest.raises(InvalidInput, match=r"summaries\.model"):
        async with start(**{MODEL: "no-such-folder"}):
            pass
