"""Whole users: merged, exported, erased without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from harness import Server, StartServer, catalogue, until

from penchant.exceptions import NotFoundError, WrongStateError
from penchant.v1.interest_service_pb2 import Profile
from penchant.v1.signal_pb2 import Post, Signal
from penchant_pipelines import engine, erasure
from penchant_pipelines.index.base import unit_rows
from penchant_pipelines.index.chroma import apart
from penchant_pipelines.index.relay import Relay, interest_key
from penchant_pipelines.jobs import Progress
from penchant_pipelines.record import Record, schema
from penchant_pipelines.spaces.stock import calibration_of

DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)


def summary(profile: Profile) -> list[tuple[int, list[str], list[float]]]:
    return sorted((i.signal_count, list(i.keywords), list(i.vector)) for i in profile.interests)


def files_with(folder: Path, needle: bytes) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and needle in path.read_bytes():
            yield path.relative_to(folder).as_posix()


async def test_merging_joins_two_histories(server: Server) -> None:
    client = server.client
    texts = ["Hiking in the Alps", "Jazz piano", "Hiking boots", "A jazz club in New York"]
    for number, text in enumerate(texts):
        for user in ("both", ("guest", "member")[number % 2]):
            await client.capture(user_id=user, text=text, time=DAY_0 + timedelta(days=number))
    await client.steer("guest", topic="baking bread", pinned=True)
    await client.steer("both", topic="baking bread", pinned=True)
    merged = await client.merge_users(from_user_id="guest", into_user_id="member")
    assert (merged.user_id, merged.signal_count) == ("member", 4)
    whole = await client.profile("member", include_vectors=True)
    assert summary(whole) == summary(await client.profile("both", include_vectors=True))
    with pytest.raises(NotFoundError):
        await client.profile("guest")
    assert len([signal async for signal in client.signals("member")]) == 4

    again = await client.merge_users(from_user_id="guest", into_user_id="member")
    assert (again.version, again.signal_count) == (merged.version, 4)
    with pytest.raises(NotFoundError):
        await client.merge_users(from_user_id="guest", into_user_id="both")
    with pytest.raises(NotFoundError):
        await client.merge_users(from_user_id="nobody", into_user_id="member")
    fresh = await client.merge_users(from_user_id="member", into_user_id="renamed")
    assert (fresh.user_id, fresh.signal_count) == ("renamed", 4)
    records = [record async for record in client.export_user("renamed")]
    kinds = [record.WhichOneof("record") for record in records]
    assert kinds == ["profile", *["merged_user_id"] * 2, "steered", *["signal"] * 4]
    assert [record.merged_user_id for record in records[1:3]] == ["guest", "member"]
    assert await server.signal_count() == 8
    # What it told is held yet, under another name: that nobody is there would be no answer.
    with pytest.raises(WrongStateError, match="erase that user") as refused:
        await client.delete_user("guest")
    assert (refused.value.reason, "renamed" in str(refused.value)) == ("USER_MERGED", True)


async def test_nothing_is_left_of_an_erased_user(start: StartServer, data: Path) -> None:
    texts = ["Zugspitze summit ridgewalk", "Quokkas of Rottnest", "Xylophone marathons in Zanzibar"]
    traces = ["erased-user-7f3", "erased-guest-7f3", "signal-7f3", "Reykjavik", "attribution-7f3"]
    # The words that `stays` has never written must be gone as well.
    own = ["Wolpertinger", "Nudibranchs"]
    texts += own
    traces += own
    async with start() as server:
        client = server.client
        await client.upsert_items(catalogue())
        for number, text in enumerate(texts):
            for user, extra in (("erased-user-7f3", ""), ("stays", " Kilimanjaro")):
                if not (extra and text in own):
                    await client.capture(
                        user_id=user,
                        text=text + extra,
                        id=f"{'kept' if extra else 'signal-7f3'}-{number}",
                        context={} if extra else {"place": "Reykjavik"},
                    )
        profile = await client.profile("erased-user-7f3", include_vectors=True)
        vectors = [np.array(i.vector, dtype=np.float32).tobytes() for i in profile.interests]
        # A page of the database may end within a vector: one of its halves is whole then.
        halves = [(vector[: len(vector) // 2], vector[len(vector) // 2 :]) for vector in vectors]
        await client.behave(
            user_id="erased-guest-7f3", item_id="hiking-0", action="like", attribution_token="attribution-7f3"
        )
        await client.steer("erased-guest-7f3", topic="Reykjavik nightlife", bias=1)
        await client.merge_users(from_user_id="erased-guest-7f3", into_user_id="erased-user-7f3")
        await server.index_caught_up()
        assert [trace for trace in traces if not list(files_with(data, trace.encode()))] == []
        assert all(any(list(files_with(data, half)) for half in pair) for pair in halves)
        assert {m.user_id for m in await client.find_users(text=texts[1])} == {"erased-user-7f3", "stays"}
        assert (await server.recommended("stranger", page_size=1)) == ["hiking-0"]

        receipt = await client.delete_user("erased-user-7f3")
        assert receipt.signals_deleted == 6
        assert receipt.vectors_deleted >= 4
        assert receipt.receipt_id
        assert await client.delete_user("erased-user-7f3") == receipt
        with pytest.raises(NotFoundError):
            await client.profile("erased-user-7f3")
        with pytest.raises(NotFoundError):
            await client.delete_user("erased-guest-7f3")
        assert [m.user_id for m in await client.find_users(text=texts[1])] == ["stays"]
        assert await server.signal_count() == 3
        assert (await client.recommend("erased-user-7f3")).degraded == ["cold_user"]
        # Chroma only marks what is deleted; a rebuild leaves it behind.
        await client.wait_for_job((await client.rebuild_index()).id, timeout=30)
    assert list(files_with(data, b"Kilimanjaro"))  # the search finds what is there
    left = {needle: list(files_with(data, needle.encode())) for needle in traces}
    assert left == {needle: [] for needle in traces}
    assert [half for pair in halves for half in pair if list(files_with(data, half))] == []
    async with start() as server:
        assert await server.client.delete_user("erased-user-7f3") == receipt
        assert await server.signal_count() == 3


async def test_erased_signals_are_as_if_never_captured_and_nothing_is_left_of_them(
    start: StartServer, data: Path
) -> None:
    async with start() as server:
        client = server.client
        await client.upsert_items(catalogue())
        told = ["Hiking boots for the Alps", "Nudibranchs of the coral reef", "Wolpertinger spotted while hiking"]
        for number, text in enumerate(told):
            for user in ("ann", "bob") if number == 0 else ("ann",):
                await client.capture(user_id=user, text=text, id=f"{user}-{number}", time=DAY_0)
        for user in ("ann", "bob"):
            await client.behave(user_id=user, item_id="jazz-0", action="like", id=f"{user}-like", time=DAY_0)
        await client.behave(user_id="ann", item_id="jazz-0", action="undo", id="ann-undo", time=DAY_0)
        reef = next(i for i in (await client.profile("ann")).interests if i.label.lower() == "nudibranchs")
        await client.steer("ann", interest_id=reef.id, pinned=True)
        await client.steer("ann", interest_id=reef.id)
        await server.index_caught_up()
        assert list(files_with(data, b"Nudibranchs"))
        before = await client.profile("ann")

        receipt = await client.delete_signals("ann", ["ann-1", "ann-2", "ann-undo", "bob-0", "nobodys"])
        assert (receipt.signals_deleted, bool(receipt.receipt_id)) == (3, True)
        assert receipt.vectors_deleted >= 2
        again = await client.delete_signals("ann", ["ann-1"])
        assert (again.signals_deleted, again.receipt_id) == (0, "")
        with pytest.raises(NotFoundError):
            await client.delete_signals("nobody", ["ann-0"])

        ann, bob = await client.profile("ann"), await client.profile("bob")
        assert (ann.signal_count, ann.version) == (2, before.version + 1)
        assert shape(ann) == shape(bob)
        assert {signal.id async for signal in client.signals("ann")} == {"ann-0", "ann-like"}
        # What is no more undone is what the user took to, for the lists of others as well.
        assert await server.recommended("ann", page_size=5) == await server.recommended("bob", page_size=5)
        assert await server.signal_count() == 4
        await client.wait_for_job((await client.rebuild_index()).id, timeout=30)
        # It is free again: a correction may come under it, though a new id is better.
        await client.capture(user_id="ann", text="Coral reefs", id="ann-1", time=DAY_0)
    for trace in (b"Nudibranch", b"nudibranch", b"Wolpertinger", b"wolpertinger"):
        assert list(files_with(data, trace)) == []


def shape(profile: Profile) -> list[tuple[object, ...]]:
    """Interests but for their ids, which follow from the signals'."""
    return sorted((i.label, *i.keywords, round(i.weight, 5), i.trend, i.signal_count) for i in profile.interests)


@pytest.mark.parametrize("stopped", [True, False])
async def test_nothing_erased_stays_in_the_files_of_the_index(
    start: StartServer, data: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """The start writes them anew where a stop came first; else it is done soon, again where it fails."""
    rebuild, failures = Relay.rebuild, [OSError("no room")]
    rebuilt: list[int] = []

    async def failing_once(relay: Relay, progress: Progress) -> None:
        rebuilt.append(1)
        if failures and relay.holds_erased():
            raise failures.pop()
        await rebuild(relay, progress)

    async def purged() -> bool:
        return not any(list(files_with(data / "index", half)) for half in halves)

    async def check(server: Server) -> None:
        await until(purged)
        assert [m.user_id for m in await server.client.find_users(text="Quokkas of Rottnest")] == ["stays"]

    if not stopped:
        monkeypatch.setattr(erasure, "PURGE_SECONDS", 0.2)
        monkeypatch.setattr(Relay, "rebuild", failing_once)
    async with start() as server:
        await server.client.capture(user_id="gone", text="Zugspitze summit ridgewalk")
        await server.client.capture(user_id="stays", text="Quokkas of Rottnest")
        (interest,) = (await server.client.profile("gone", include_vectors=True)).interests
        await server.index_caught_up()
        database = sa.create_engine(f"sqlite:///{data / 'record.sqlite3'}")
        with database.connect() as connection:
            calibration = calibration_of(connection.execute(sa.select(schema.spaces)).one())
            gone = sa.select(schema.users.c.key).where(schema.users.c.user_id == "gone")
            key = interest_key(connection.execute(gone).scalar_one(), interest.id)
        database.dispose()
        vector = np.array([interest.vector], dtype=np.float32)
        indexed = apart([key], unit_rows(calibration.seen(vector), vector.shape[1])).tobytes()
        # A page of a file may end within a vector.
        halves = indexed[: len(indexed) // 2], indexed[len(indexed) // 2 :]
        assert any(list(files_with(data / "index", half)) for half in halves)
        await server.client.delete_user("gone")
        await server.index_caught_up()
        if not stopped:
            await check(server)
            assert not failures
            made = len(rebuilt)
            await asyncio.sleep(0.5)
            assert len(rebuilt) == made  # once is enough
    async with start() as server:
        await check(server)


@pytest.mark.parametrize("stopped", [False, True])
async def test_after_an_erasure_the_record_is_written_anew_be_it_at_the_next_start(
    start: StartServer, data: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    rewritten: list[int] = []
    rewrite = Record.rewrite

    def watched(record: Record) -> None:
        rewritten.append(1)
        if len(rewritten) == 1:
            raise OSError("no room on the disk")
        rewrite(record)

    async def purged() -> bool:
        database = sa.create_engine(f"sqlite:///{data / 'record.sqlite3'}")
        with database.connect() as connection:
            found = connection.execute(sa.select(schema.receipts.c.purged)).scalars().all()
        database.dispose()
        return list(found) == [True]

    monkeypatch.setattr(Record, "rewrite", watched)
    monkeypatch.setattr(engine, "HEAL_SECONDS", 0.1)
    if not stopped:
        monkeypatch.setattr(erasure, "PURGE_SECONDS", 0.1)
    async with start() as server:
        await server.client.capture(user_id="gone", text="Zugspitze summit ridgewalk")
        await server.client.delete_user("gone")
        if not stopped:
            await until(purged)
    monkeypatch.setattr(erasure, "PURGE_SECONDS", 0.1)
    async with start() as server:
        await until(purged)
        assert len(rewritten) == 2
        await server.client.capture(user_id="new", text="Jazz piano all night")
    async with start():
        await asyncio.sleep(0.4)
        assert len(rewritten) == 2  # once is enough


async def test_a_log_that_others_use_is_emptied_after_an_erasure_as_soon_as_it_can_be(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use, failures = [True], [OSError("no room")]
    truncate, rewrite = Record.truncate_log, Record.rewrite
    events: list[str] = []

    def watched(record: Record) -> bool:
        if in_use:
            return False
        if failures:
            raise failures.pop()
        done = truncate(record)
        if done:
            events.append("emptied")
        return done

    def rewritten(record: Record) -> None:
        rewrite(record)
        events.append("rewritten")

    async def in_order(*wanted: str) -> bool:
        return tuple(events[-len(wanted) :]) == wanted

    monkeypatch.setattr(Record, "truncate_log", watched)
    monkeypatch.setattr(Record, "rewrite", rewritten)
    monkeypatch.setattr(engine, "HEAL_SECONDS", 0.05)
    monkeypatch.setattr(erasure, "ERASURE_SECONDS", 0.05)
    async with start() as server:
        await server.client.capture(user_id="gone", text="Zugspitze summit ridgewalk")
        assert (await server.client.delete_user("gone")).signals_deleted == 1
        assert events == []
        in_use.clear()
        await until(lambda: in_order("emptied"))
        assert not failures
    monkeypatch.setattr(erasure, "PURGE_SECONDS", 0.05)
    async with start():
        # What was written anew went through the log too.
        await until(lambda: in_order("rewritten", "emptied"))


async def test_an_erased_id_starts_anew(server: Server) -> None:
    client = server.client
    await client.capture(user_id="u", text="I love hiking", id="s-1")
    receipt = await client.delete_user("u")
    answer = await client.capture(user_id="u", text="Jazz piano now", id="s-1")
    assert (answer.duplicate, answer.profile_version) == (False, 1)
    assert [i.signal_count for i in (await client.profile("u")).interests] == [1]
    second = await client.delete_user("u")
    assert second.receipt_id != receipt.receipt_id
    assert await client.delete_user("u") == second


async def test_a_long_history_is_exported_whole(server: Server) -> None:
    signals = [Signal(id=f"s-{n:04}", user_id="u", post=Post(text=f"Hike {n % 7}")) for n in range(1_203)]
    async for result in server.client.capture_many(signals):
        assert result.error is None
    records = [record async for record in server.client.export_user("u")]
    assert records[0].profile.signal_count == 1_203
    assert {record.signal.id for record in records[1:]} == {signal.id for signal in signals}
    assert len(records) == 1_204
