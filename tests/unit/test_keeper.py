from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from live_records import DIMENSIONS, NOW, Live, axis
from numpy.typing import NDArray

from penchant_pipelines.catalog import Catalog, Keeper, feedback, keeper
from penchant_pipelines.catalog.crowd import Own, Texts
from penchant_pipelines.catalog.words import Words
from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.horizons import HORIZONS
from penchant_pipelines.model import Action, Item
from penchant_pipelines.record.commit import Commit, Touched
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.reading import Reading


def like(item_id: str) -> list[Touched]:
    return [(item_id, 1, Evidence("s", NOW, axis(0), Action.LIKE, item_id=item_id), {})]


def liked(found: Catalog, item_id: str = "film") -> float:
    return float(found.popularity([found.entries[item_id].row], NOW)[0])


def said(vector: NDArray[np.float32], item_id: str = "film", rating: float | None = None) -> Commit:
    evidence = Evidence("p", NOW, vector, rating=rating, item_id=item_id)
    return Commit(touched=[(item_id, 1, evidence, {1: vector})])


def voice(found: Catalog, item_id: str) -> list[float]:
    return [round(float(number), 5) for number in found.voices[1].sums[found.entries[item_id].row]]


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    found = Live(tmp_path)
    yield found
    await found.close()


@pytest.mark.parametrize("promptly", [True, False])
async def test_following_commits_equals_reading_anew(live: Live, promptly: bool) -> None:
    async def step(change: object) -> None:
        await change  # type: ignore[misc]
        if promptly:
            await live.follow()
            await live.check()

    await step(live.act(Action.LIKE))
    await step(live.upsert())
    await step(live.act(Action.PURCHASE, user="bob"))
    await step(live.write(axis(1)))
    await step(live.write(axis(2), user="bob"))
    await step(live.write(axis(2), "unknown yet"))
    await step(live.act(Action.SAVE))
    await step(live.act(Action.UNDO))
    await step(live.upsert(vector=axis(3)))
    await step(live.upsert("unknown yet"))
    await step(live.act(Action.LIKE, user="eve"))
    await step(live.delete())
    await step(live.act(Action.VIEW))
    await step(live.upsert())
    await step(live.write(axis(2), user="eve"))
    await step(live.writer.submit(lambda ledger: ledger.merge("bob", "ann")))
    await step(live.writer.submit(lambda ledger: ledger.erase("eve", NOW)))
    await step(live.act(Action.CLICK))
    await step(live.delete())
    await step(live.upsert())
    await live.follow()
    await live.check()
    # Ann, who bob became, once.
    assert liked(live.catalog) == pytest.approx(1.5)


async def test_a_recount_that_comes_late_counts_nothing_twice(live: Live) -> None:
    await live.upsert()
    await live.act(Action.LIKE)
    await live.act(Action.UNDO)
    # The record has gone on by the time that the recount is made.
    await asyncio.gather(*(live.act(Action.LIKE, user=f"u{n}") for n in range(5)))
    await live.follow()
    await live.check()
    assert liked(live.catalog) == pytest.approx(5, rel=1e-3)


async def test_what_comes_while_it_is_counted_again_counts_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(1))
    await live.act(Action.LIKE, user="bob")
    await live.act(Action.UNDO, user="bob")
    follow(live)
    read = live.keeper._read_again

    async def go_on() -> None:
        await live.act(Action.LIKE, user="eve")
        await live.write(axis(2), user="eve")
        await live.upsert("other")
        await live.act(Action.LIKE, "other", user="eve")
        await live.writer.submit(lambda ledger: ledger.erase("ann", NOW))
        follow(live)

    loop = asyncio.get_running_loop()
    reads = []

    def interrupted(*of: Any) -> Any:
        # Before the record is read, or after: what comes may have been read or not.
        reads.append(of)
        found = read(*of)
        if len(reads) == 1:
            asyncio.run_coroutine_threadsafe(go_on(), loop).result()
            found = read(*of)
        return found

    monkeypatch.setattr(live.keeper, "_read_again", interrupted)
    await live.keeper.count_again()
    assert live.keeper.due  # the erasure asks for another
    await live.keeper.count_again()
    assert len(reads) == 2
    await live.check()
    assert not live.keeper.due


def follow(live: Live) -> None:
    """As the loop does between two steps of a thread."""
    for commit in live.commits:
        live.keeper.apply(commit)
    live.commits.clear()


async def a_like_in_a_new_folder(live: Live) -> None:
    await live.act(Action.LIKE)


async def a_like_after_all_were_erased(live: Live) -> None:
    await live.writer.submit(lambda ledger: ledger.erase("eve", NOW))
    follow(live)
    await live.act(Action.LIKE)


async def a_post_after_the_newest_was_erased(live: Live) -> None:
    await live.writer.submit(lambda ledger: ledger.erase("eve", NOW))
    follow(live)
    await live.write(axis(2), user="joe")


@pytest.mark.parametrize("known", [[], ["eve"], ["bob", "eve"]])
@pytest.mark.parametrize(
    "meanwhile", [a_like_in_a_new_folder, a_like_after_all_were_erased, a_post_after_the_newest_was_erased]
)
@pytest.mark.parametrize("reader", ["count_again", "listen"])
async def test_what_a_reader_may_or_may_not_have_read_counts_once(
    live: Live,
    monkeypatch: pytest.MonkeyPatch,
    known: list[str],
    meanwhile: Callable[[Live], Awaitable[None]],
    reader: str,
) -> None:
    if "erased" in meanwhile.__name__ and not known:
        return
    await live.upsert()
    for user in known:
        await live.write(axis(1), user=user)
        await live.act(Action.LIKE, user=user)
    if "bob" in known:
        await live.act(Action.UNDO, user="bob", time=NOW + 100)
    follow(live)
    if reader == "listen":
        await live.keeper.count_again()
        del live.catalog.voices[1]
    holder, name = (live.keeper, "_read_again") if reader == "count_again" else (keeper, "read_posts")
    read = getattr(holder, name)
    loop, reads = asyncio.get_running_loop(), []

    async def go_on() -> None:
        await meanwhile(live)
        follow(live)

    def late(*of: Any) -> Any:
        # The record has gone on by the time that the thread comes to read it.
        reads.append(of)
        if len(reads) == 1:
            asyncio.run_coroutine_threadsafe(go_on(), loop).result()
        return read(*of)

    live.keeper.due.add("film")
    with monkeypatch.context() as patched:
        patched.setattr(holder, name, late)
        await (live.keeper.count_again() if reader == "count_again" else live.keeper.listen(1))
    assert reads
    await live.keeper.count_again()
    await live.check()


async def test_what_goes_together_is_learnt_anew_at_once_for_an_erasure_alone(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.upsert()
    for number in range(20):
        await live.act(Action.LIKE, user=f"u{number}")
    await live.follow()
    await live.keeper.keep_up(1)
    await live.act(Action.UNDO, user="u1")
    await live.writer.submit(lambda ledger: ledger.merge("u2", "u3"))
    await live.follow()
    assert not live.catalog.crowd.is_due(1)
    # Not even what was taken back stays once its user is erased.
    await live.writer.submit(lambda ledger: ledger.erase("u1", NOW))
    follow(live)
    with monkeypatch.context() as broken:
        broken.setattr(live.keeper, "_read_again", lambda *_: 1 / 0)
        await live.keeper.count_again()
    assert live.keeper.due
    await live.keeper.count_again()
    assert live.catalog.crowd.is_due(1)
    await live.check()


async def test_what_people_have_in_common_forgets_who_was_erased_though_nobody_asks(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "COUNT_SECONDS", 0.0)
    crowd = live.catalog.crowd
    await live.upsert()
    await live.act(Action.LIKE, user="u1")
    await live.act(Action.LIKE, user="u2")
    await live.follow()
    await live.keeper.keep_up(1)
    await live.writer.submit(lambda ledger: ledger.erase("u1", NOW))
    await live.follow()
    assert crowd.outdated() == [1]
    with monkeypatch.context() as broken:
        broken.setattr(crowd, "begin", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await live.keeper.gather_when_erased()
    await asyncio.wait_for(live.keeper.gather_when_erased(), 5)
    assert (crowd.outdated(), crowd.is_due(1)) == ([], False)
    await live.writer.submit(lambda ledger: ledger.erase("u2", NOW))
    await live.follow()
    await asyncio.wait_for(live.keeper.gather_when_erased(), 5)
    assert crowd.outdated() == []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(live.keeper.gather_when_erased(), 0.05)


async def test_a_count_that_fails_is_still_due(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.act(Action.LIKE)
    await live.act(Action.UNDO)
    follow(live)
    assert liked(live.catalog) > 0
    with monkeypatch.context() as broken:
        broken.setattr(live.keeper, "_read_again", lambda *_: 1 / 0)
        await live.keeper.count_again()
        broken.setattr(keeper, "COUNT_SECONDS", 0.0)
        # Raised to who does it again and again, and pauses after what fails.
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await live.keeper.count_when_due()
    assert live.keeper.due
    await live.keeper.count_again()
    await live.check()
    assert liked(live.catalog) == 0


async def test_an_item_that_comes_again_in_the_transaction_that_deleted_it_is_there(live: Live) -> None:
    await live.upsert()
    anew = (Item("film", title="again"), Reading({1: axis(1)}, "en", words=("again",)))

    def both(ledger: Ledger) -> Callable[[], None]:
        ledger.delete_items(["film"])
        return ledger.upsert_items([anew])

    await live.writer.submit(both)
    await live.follow()
    await live.check()
    assert live.catalog.entries["film"].item.title == "again"


async def test_what_posts_say_of_an_item_is_kept_from_when_it_is_listened_to(live: Live) -> None:
    await live.upsert()
    await live.upsert("other", axis(1))
    await live.write(axis(2))
    await live.follow()
    anew = Keeper.load(live.record, {1: DIMENSIONS}, InterestSettings())
    found = anew.catalog
    assert not found.voices
    anew.apply(said(axis(3)))
    assert not found.voices
    await anew.listen(1)
    # The record has the mean direction of what was written and what it was about.
    half = round(float(np.sqrt(0.5)), 5)
    assert voice(found, "film") == pytest.approx([1 + half, 0, half, 0], abs=1e-4)
    assert voice(found, "other") == [0, 1, 0, 0]
    found.drop_space(1)
    assert not found.voices


async def test_what_is_said_or_forgotten_while_the_record_is_read_counts_once(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.upsert()
    await live.upsert("other", axis(1))
    await live.write(axis(2))
    await live.write(axis(2), "other")
    await live.follow()
    anew = Keeper.load(live.record, {1: DIMENSIONS}, InterestSettings())
    read = feedback.read_posts

    def interrupted(*of: Any) -> Any:
        found = read(*of)
        # As the loop does between two steps of the reader.
        anew.apply(said(axis(3)))
        anew.apply(Commit(deleted_items={"other": None}))
        anew.apply(Commit(upserted=[(Item("other"), "en", {1: axis(1)}, ())]))
        return found

    monkeypatch.setattr(keeper, "read_posts", interrupted)
    await anew.listen(1)
    half = round(float(np.sqrt(0.5)), 5)
    assert voice(anew.catalog, "film") == pytest.approx([1 + half, 0, half, 1], abs=1e-4)
    assert voice(anew.catalog, "other") == [0, 1, 0, 0]


async def test_posts_are_read_once_however_much_is_counted_again_meanwhile(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item_id in ("film", "book", "gone"):
        await live.upsert(item_id)
        await live.write(axis(1), item_id)
        await live.write(axis(2), item_id, user="eve")
    await live.follow()
    del live.catalog.voices[1]
    read, loop, reads = feedback.read_posts, asyncio.get_running_loop(), []
    waiting: list[asyncio.Task[None]] = []

    async def meanwhile() -> None:
        waiting.append(asyncio.create_task(live.keeper.listen(1)))
        await live.write(axis(3))
        await live.write(axis(3), "new")
        await live.upsert("new", axis(2))
        await live.delete("gone")
        await live.upsert("in its place", axis(1))
        await live.follow()
        await live.write(axis(3), "new")
        await live.writer.submit(lambda ledger: ledger.erase("eve", NOW))
        await live.follow()
        # Whoever else comes is told nothing of what is known by half.
        assert not waiting[0].done()

    def interrupted(record: Any, settings: Any, space: int, last_signal: int, items: Any = None) -> Any:
        found = read(record, settings, space, last_signal, items)
        if items is None:
            reads.append(found)
            asyncio.run_coroutine_threadsafe(meanwhile(), loop).result()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "read_posts", interrupted)
        await asyncio.wait_for(live.keeper.listen(1), 10)
        await waiting[0]
    assert len(reads) == 1
    await live.check()


async def test_a_large_catalogue_begins_to_be_heard_in_parts(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b", "c", "d"]
    for item_id in names:
        await live.upsert(item_id)
        await live.write(axis(1), item_id)
    await live.follow()
    del live.catalog.voices[1]
    monkeypatch.setattr(keeper, "VOICES_STEP", 1)
    steps: list[int] = []
    reset = live.catalog.reset_voices

    def counted(rows_held: NDArray[np.int64], spaces: Any) -> None:
        steps.append(len(rows_held))
        reset(rows_held, spaces)

    monkeypatch.setattr(live.catalog, "reset_voices", counted)
    listening = asyncio.create_task(live.keeper.listen(1))
    while len(steps) < 2:
        await asyncio.sleep(0)
    # Whatever becomes of items whose turn has come, and of others.
    for item_id in ("a", "d"):
        await live.upsert(item_id, axis(2))
        await live.write(axis(3), item_id, user="eve")
    await live.act(Action.LIKE, "c", user="joe")
    await live.act(Action.UNDO, "c", user="joe")
    await live.upsert("new", axis(3))
    await live.delete("b")
    follow(live)
    await live.keeper.count_again()
    await listening
    await live.keeper.count_again()
    await live.check()


async def test_what_is_counted_again_before_it_begins_to_be_heard_stands(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item_id in ("a", "b"):
        await live.upsert(item_id)
        await live.write(axis(1), item_id)
        await live.act(Action.LIKE, item_id, user="joe")
    await live.follow()
    del live.catalog.voices[1]
    for item_id in ("a", "b"):
        await live.act(Action.UNDO, item_id, user="joe")
    begun, counted, begin = asyncio.Event(), asyncio.Event(), live.keeper._begin_voices

    async def slowly(space: int) -> None:
        begun.set()
        await counted.wait()
        await begin(space)

    monkeypatch.setattr(live.keeper, "_begin_voices", slowly)
    listening = asyncio.create_task(live.keeper.listen(1))
    await begun.wait()
    follow(live)
    await live.keeper.count_again()
    counted.set()
    await listening
    await live.keeper.count_again()
    await live.check()


async def test_who_writes_again_while_posts_are_read_is_heard_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(1))
    await live.write(axis(2))
    await live.write(axis(2), user="eve")
    await live.follow()
    del live.catalog.voices[1]
    read, loop = feedback.read_posts, asyncio.get_running_loop()

    async def meanwhile() -> None:
        await live.write(axis(3))
        await live.follow()

    def interrupted(*of: Any) -> Any:
        found = read(*of)
        asyncio.run_coroutine_threadsafe(meanwhile(), loop).result()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "read_posts", interrupted)
        await live.keeper.listen(1)
    await live.keeper.count_again()
    half = float(np.sqrt(0.5))
    assert voice(live.catalog, "film") == pytest.approx([1 + 2 * half, half, half, 0], abs=1e-4)
    await live.check()


async def test_what_is_erased_while_posts_are_read_is_not_heard(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(2), user="eve")
    await live.follow()
    anew = Keeper.load(live.record, {1: DIMENSIONS}, InterestSettings())
    read, loop = feedback.read_posts, asyncio.get_running_loop()

    async def erase() -> None:
        await live.writer.submit(lambda ledger: ledger.erase("eve", NOW))
        for commit in live.commits:
            anew.apply(commit)

    def interrupted(*of: Any) -> Any:
        found = read(*of)
        asyncio.run_coroutine_threadsafe(erase(), loop).result()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "read_posts", interrupted)
        await anew.listen(1)
    await anew.count_again()
    assert voice(anew.catalog, "film") == [1, 0, 0, 0]


async def test_who_favours_what_is_read_without_a_word_of_it(live: Live) -> None:
    await live.upsert()
    await live.write(axis(1))
    await live.act(Action.LIKE, user="bob")
    asked: list[str] = []

    @sa.event.listens_for(live.record.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    found = Keeper.load(live.record, {1: DIMENSIONS}, InterestSettings()).catalog
    assert liked(found) == pytest.approx(2, rel=1e-3)
    assert [statement for statement in asked if "FROM signals" in statement]
    assert not [statement for statement in asked if "signals.terms" in statement]


async def test_who_could_not_listen_can_later(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(2))
    await live.follow()
    del live.catalog.voices[1]
    with monkeypatch.context() as broken:
        broken.setattr(keeper, "read_posts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await live.keeper.listen(1)
    await live.keeper.listen(1)
    await live.check()


async def test_who_gives_up_waiting_leaves_what_was_read_to_others(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(2))
    await live.follow()
    del live.catalog.voices[1]
    read, loop = feedback.read_posts, asyncio.get_running_loop()

    def given_up(*of: Any) -> Any:
        loop.call_soon_threadsafe(waiting.cancel)
        time.sleep(0.1)
        return read(*of)

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "read_posts", given_up)
        waiting = asyncio.create_task(live.keeper.listen(1))
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert 1 in live.catalog.voices
    await live.check()


async def test_words_and_crowd_are_gathered_apart_from_the_loop(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    found = live.catalog
    for number in range(200):
        found.upsert(Item(f"i{number}"), "en", {}, ["all", f"pair{number // 2}"])
        found.take(like(f"i{number}"))
    await live.keeper.keep_up(1)
    assert not any((found.words.is_due, found.crowd.is_due(1)))
    for number in range(200, 300):
        found.upsert(Item(f"i{number}"), "en", {}, ["all", f"pair{number // 2}"])
        found.take(like(f"i{number}"))
    assert all((found.words.is_due, found.crowd.is_due(1)))
    begun = asyncio.Event()

    def begin() -> Any:
        begun.set()
        return Words.begin(found.words)

    monkeypatch.setattr(found.words, "begin", begin)
    keeping = asyncio.create_task(live.keeper.keep_up(1))
    await begun.wait()
    # Others are not held up, and what comes meanwhile is not lost.
    await asyncio.wait_for(live.keeper.keep_up(1), 0.5)
    found.upsert(Item("late"), "en", {}, ["all", "pair7"])
    found.delete(["i14"])
    found.take(like("late"))
    own = found.crowd.own(1, NOW)
    found.words.alike(own, found.size)
    await keeping
    assert not found.words.is_due
    # When something was erased, one gathers anew what is left, and the others are answered from it as it is.
    found.crowd.clear(np.array([found.entries["i16"].row]), erased=True)
    assert (found.crowd.is_ready(1), found.crowd.is_due(1)) == (True, True)
    await asyncio.gather(live.keeper.keep_up(1), live.keeper.keep_up(1))
    assert (found.crowd.is_ready(1), found.crowd.is_due(1)) == (True, False)
    likes = found.words.alike(Own(np.array([15]), np.ones((len(HORIZONS), 1))), found.size)[0]
    row = found.entries["late"].row
    assert likes[row] == pytest.approx(likes[15])
    assert likes[15] > 2 * likes[16]
    assert row in found.crowd.own(1, NOW).rows


async def like_something(live: Live) -> None:
    await live.upsert()
    await live.act(Action.LIKE)
    await live.follow()


def while_gathering(live: Live, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have the loop do something while a thread gathers."""
    begin, loop = live.catalog.crowd.begin, asyncio.get_running_loop()

    def begun(texts: Texts) -> Any:
        gather = begin(texts)

        def work() -> Any:
            loop.call_soon_threadsafe(act)
            time.sleep(0.1)
            return gather()

        return work

    monkeypatch.setattr(live.catalog.crowd, "begin", begun)


async def test_who_gives_up_waiting_leaves_what_was_gathered_to_others(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await like_something(live)
    while_gathering(live, monkeypatch, lambda: waiting.cancel())
    waiting = asyncio.create_task(live.keeper.keep_up(1))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (live.catalog.crowd.is_ready(1), live.catalog.crowd.is_due(1)) == (True, False)


async def test_a_space_that_is_dropped_while_it_is_gathered_does_not_come_back(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await like_something(live)
    while_gathering(live, monkeypatch, lambda: live.catalog.drop_space(1))
    await live.keeper.keep_up(1)
    assert not live.catalog.crowd.is_ready(1)
    assert live.catalog.crowd.outdated() == []
    monkeypatch.setattr(live.catalog.crowd, "begin", lambda *_: 1 / 0)
    await live.keeper.keep_up(1)


async def test_words_come_with_the_items_from_the_record(live: Live) -> None:
    await live.upsert("film")
    await live.upsert("book")
    await live.follow()
    anew = Keeper.load(live.record, {1: DIMENSIONS}, InterestSettings())
    for found in (live.catalog, anew.catalog):
        own = Own(np.array([found.entries["film"].row]), np.ones((1, 1)))
        likes = found.words.alike(own, found.size)[0]
        film, book = (likes[found.entries[name].row] for name in ("film", "book"))
        assert 0 < book < film
