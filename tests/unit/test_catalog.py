from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_records import DIMENSIONS, NOW, Live, axis
from numpy.typing import NDArray

from penchant_pipelines.catalog import POPULARITY_HALF_LIFE_DAYS, Catalog
from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.horizons import HORIZONS
from penchant_pipelines.model import MICROS_PER_DAY, Action, Item
from penchant_pipelines.recommend.crowd import Own
from penchant_pipelines.recommend.voices import Voices
from penchant_pipelines.recommend.words import Words
from penchant_pipelines.record.commit import Commit
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.reading import Reading

DAY = MICROS_PER_DAY


def catalog() -> Catalog:
    return Catalog({1: DIMENSIONS}, InterestSettings())


def like(item_id: str, time: int = NOW, action: Action = Action.LIKE) -> Commit:
    return Commit(touched=[(item_id, 1, Evidence("s", time, axis(0), action, item_id=item_id), {})])


def popularity(found: Catalog, as_of: int = NOW) -> dict[str, float]:
    return {name: float(found.popularity([entry.row], as_of)[0]) for name, entry in found.entries.items()}


def test_items_are_added_replaced_and_deleted() -> None:
    found = catalog()
    found.upsert(Item("a", create_time=5), "en", {1: axis(0)})
    found.upsert(Item("b", hidden=True), "zh", {1: axis(1)})
    found.apply(like("a"))
    before = found.version
    found.upsert(Item("a", title="new", create_time=6), "en", {1: axis(2)})
    assert found.version > before
    assert len(found) == 2
    row = found.entries["a"].row
    np.testing.assert_array_equal(found.vectors[1][row], axis(2))
    assert (found.created[row], found.visible[row], found.id_at(row)) == (6, True, "a")
    assert not found.visible[found.entries["b"].row]
    assert popularity(found)["a"] == 1
    found.delete(["a"])
    found.delete(["absent"])
    assert not found.visible[row]
    assert len(found) == 1
    found.upsert(Item("c"), "en", {1: axis(3)})
    assert found.entries["c"].row == row
    assert popularity(found)["c"] == 0


def test_an_item_is_in_the_categories_that_it_has_now() -> None:
    found = catalog()
    found.upsert(Item("a", categories=("Tea", "Green Tea")), "en", {1: axis(0)})
    found.upsert(Item("b", categories=("tea",)), "en", {1: axis(1)})
    a, b = (found.entries[name].row for name in "ab")
    assert (found.of_category("tea"), found.of_category("green tea")) == ({a, b}, {a})
    found.upsert(Item("a", categories=("Coffee",)), "en", {1: axis(0)})
    assert (found.of_category("tea"), found.of_category("green tea"), found.of_category("coffee")) == ({b}, set(), {a})
    found.delete(["a"])
    assert found.of_category("coffee") == set()


def test_the_place_of_an_item_that_went_holds_nothing_of_it() -> None:
    found = Catalog({1: DIMENSIONS, 2: DIMENSIONS}, InterestSettings())
    found.upsert(Item("a"), "en", {1: axis(0), 2: axis(1)})
    row = found.entries["a"].row
    found.delete(["a"])
    # The other space is being built, and lacks the new one as yet.
    found.upsert(Item("b"), "en", {1: axis(2)})
    assert found.entries["b"].row == row
    assert [found.vectors[space][row].tolist() for space in (1, 2)] == [axis(2).tolist(), [0] * DIMENSIONS]


def test_it_grows_past_its_first_size() -> None:
    found = catalog()
    for number in range(2500):
        found.upsert(Item(f"i{number}", create_time=number + 1), "en", {1: axis(number)})
    assert len(found) == 2500
    assert found.visible.sum() == 2500
    for number in (0, 1023, 1024, 2047, 2048, 2499):
        row = found.entries[f"i{number}"].row
        assert found.created[row] == number + 1
        np.testing.assert_array_equal(found.vectors[1][row], axis(number))


def test_popularity_halves_and_counts_only_what_speaks_for_an_item() -> None:
    found = catalog()
    for name in ("a", "b"):
        found.upsert(Item(name), "en", {1: axis(0)})
    half_life = int(POPULARITY_HALF_LIFE_DAYS * DAY)
    found.apply(like("a", NOW - half_life))
    found.apply(like("b", NOW, Action.PURCHASE))
    for action in (Action.DISLIKE, Action.HIDE, Action.UNDO):
        found.apply(like("b", NOW, action))
    found.apply(like("absent"))
    assert popularity(found) == pytest.approx({"a": 0.5, "b": 1.5})
    assert popularity(found, NOW + half_life) == pytest.approx({"a": 0.25, "b": 0.75})


def test_the_most_popular_come_first_then_the_newest_and_the_own_language_before_all() -> None:
    found = catalog()
    for name, language, created in (("old", "en", 1), ("new", "en", 2), ("hit", "en", 1), ("片", "zh", 3)):
        found.upsert(Item(name, create_time=created), language, {1: axis(0)})
    found.upsert(Item("hidden", hidden=True), "en", {1: axis(0)})
    found.apply(like("hit"))
    found.apply(like("hidden"))
    assert found.most_popular(10) == ["hit", "片", "new", "old"]
    assert found.most_popular(2, "zh") == ["片", "hit"]
    within = np.array([found.entries[name].row for name in ("old", "hidden", "片")])
    assert found.most_popular(10, "en", within) == ["old", "片"]


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
    assert popularity(live.catalog)["film"] > 2


async def test_a_recount_that_comes_late_counts_nothing_twice(live: Live) -> None:
    await live.upsert()
    await live.act(Action.LIKE)
    await live.act(Action.UNDO)
    # The record has gone on by the time that the recount is made.
    await asyncio.gather(*(live.act(Action.LIKE, user=f"u{n}") for n in range(5)))
    await live.follow()
    await live.check()
    assert popularity(live.catalog)["film"] == pytest.approx(5, rel=1e-3)


async def test_what_comes_while_it_is_counted_again_counts_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(1))
    await live.act(Action.LIKE, user="bob")
    await live.act(Action.UNDO, user="bob")
    follow(live)
    read = live.catalog._read_again

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

    monkeypatch.setattr(live.catalog, "_read_again", interrupted)
    await live.catalog.count_again(live.record)
    assert live.catalog.due  # the erasure asks for another
    await live.catalog.count_again(live.record)
    assert len(reads) == 2
    await live.check()
    assert not live.catalog.due


def follow(live: Live) -> None:
    """As the loop does between two steps of a thread."""
    for commit in live.commits:
        live.catalog.apply(commit)
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
        await live.catalog.count_again(live.record)
        del live.catalog.voices[1]
    read = live.catalog._read_again if reader == "count_again" else live.catalog._read_posts
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

    live.catalog.due.add("film")
    with monkeypatch.context() as patched:
        patched.setattr(live.catalog, read.__name__, late)
        await (
            live.catalog.count_again(live.record) if reader == "count_again" else live.catalog.listen(live.record, 1)
        )
    assert reads
    await live.catalog.count_again(live.record)
    await live.check()


async def test_what_goes_together_is_learnt_anew_at_once_for_an_erasure_alone(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.upsert()
    for number in range(20):
        await live.act(Action.LIKE, user=f"u{number}")
    await live.follow()
    await live.catalog.keep_up(1)
    await live.act(Action.UNDO, user="u1")
    await live.writer.submit(lambda ledger: ledger.merge("u2", "u3"))
    await live.follow()
    assert not live.catalog.crowd.is_due(1)
    # Not even what was taken back stays once its user is erased.
    await live.writer.submit(lambda ledger: ledger.erase("u1", NOW))
    follow(live)
    with monkeypatch.context() as broken:
        broken.setattr(live.catalog, "_read_again", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await live.catalog.count_again(live.record)
    await live.catalog.count_again(live.record)
    assert live.catalog.crowd.is_due(1)
    await live.check()


async def test_a_count_that_fails_is_still_due(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.act(Action.LIKE)
    await live.act(Action.UNDO)
    follow(live)
    assert popularity(live.catalog)["film"] > 0
    with monkeypatch.context() as broken:
        broken.setattr(live.catalog, "_read_again", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await live.catalog.count_again(live.record)
    await live.catalog.count_again(live.record)
    await live.check()
    assert popularity(live.catalog)["film"] == 0


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


def said(vector: NDArray[np.float32], item_id: str = "a", rating: float | None = None) -> Commit:
    evidence = Evidence("p", NOW, vector, rating=rating, item_id=item_id)
    return Commit(touched=[(item_id, 1, evidence, {1: vector})])


def voice(found: Catalog, item_id: str) -> list[float]:
    return [round(float(number), 5) for number in found.voices[1].sums[found.entries[item_id].row]]


async def test_what_posts_say_of_an_item_is_kept_from_when_it_is_listened_to(live: Live) -> None:
    await live.upsert()
    await live.upsert("other", axis(1))
    await live.write(axis(2))
    await live.follow()
    anew = Catalog.load(live.record, {1: DIMENSIONS}, InterestSettings())
    assert not anew.voices
    anew.apply(said(axis(3), "film"))
    assert not anew.voices
    await anew.listen(live.record, 1)
    # The record has the mean direction of what was written and what it was about.
    half = round(float(np.sqrt(0.5)), 5)
    assert voice(anew, "film") == pytest.approx([1 + half, 0, half, 0], abs=1e-4)
    assert voice(anew, "other") == [0, 1, 0, 0]
    anew.drop_space(1)
    assert not anew.voices


async def test_what_is_said_or_forgotten_while_the_record_is_read_counts_once(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.upsert()
    await live.upsert("other", axis(1))
    await live.write(axis(2))
    await live.write(axis(2), "other")
    await live.follow()
    anew = Catalog.load(live.record, {1: DIMENSIONS}, InterestSettings())
    read = anew._read_posts

    def interrupted(*of: Any) -> Any:
        found = read(*of)
        # As the loop does between two steps of the reader.
        anew.apply(said(axis(3), "film"))
        anew.delete(["other"])
        anew.upsert(Item("other"), "en", {1: axis(1)})
        return found

    monkeypatch.setattr(anew, "_read_posts", interrupted)
    await anew.listen(live.record, 1)
    half = round(float(np.sqrt(0.5)), 5)
    assert voice(anew, "film") == pytest.approx([1 + half, 0, half, 1], abs=1e-4)
    assert voice(anew, "other") == [0, 1, 0, 0]


async def test_posts_are_read_once_however_much_is_counted_again_meanwhile(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item_id in ("film", "book", "gone"):
        await live.upsert(item_id)
        await live.write(axis(1), item_id)
        await live.write(axis(2), item_id, user="eve")
    await live.follow()
    del live.catalog.voices[1]
    read, loop, reads = live.catalog._read_posts, asyncio.get_running_loop(), []
    waiting: list[asyncio.Task[None]] = []

    async def meanwhile() -> None:
        waiting.append(asyncio.create_task(live.catalog.listen(live.record, 1)))
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

    def interrupted(record: Any, space: int, last_signal: int, items: Any = None) -> Any:
        found = read(record, space, last_signal, items)
        if items is None:
            reads.append(found)
            asyncio.run_coroutine_threadsafe(meanwhile(), loop).result()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(live.catalog, "_read_posts", interrupted)
        await asyncio.wait_for(live.catalog.listen(live.record, 1), 10)
        await waiting[0]
    assert len(reads) == 1
    await live.check()


async def test_what_is_erased_while_posts_are_read_is_not_heard(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(2), user="eve")
    await live.follow()
    anew = Catalog.load(live.record, {1: DIMENSIONS}, InterestSettings())
    read, loop = anew._read_posts, asyncio.get_running_loop()

    async def erase() -> None:
        await live.writer.submit(lambda ledger: ledger.erase("eve", NOW))
        for commit in live.commits:
            anew.apply(commit)

    def interrupted(*of: Any) -> Any:
        found = read(*of)
        asyncio.run_coroutine_threadsafe(erase(), loop).result()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(anew, "_read_posts", interrupted)
        await anew.listen(live.record, 1)
    await anew.count_again(live.record)
    assert voice(anew, "film") == [1, 0, 0, 0]


async def test_who_could_not_listen_can_later(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(2))
    await live.follow()
    del live.catalog.voices[1]
    with monkeypatch.context() as broken:
        broken.setattr(live.catalog, "_read_posts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await live.catalog.listen(live.record, 1)
    await live.catalog.listen(live.record, 1)
    await live.check()


async def test_who_gives_up_waiting_leaves_what_was_read_to_others(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.upsert()
    await live.write(axis(2))
    await live.follow()
    del live.catalog.voices[1]
    read, loop = live.catalog._read_posts, asyncio.get_running_loop()

    def given_up(*of: Any) -> Any:
        loop.call_soon_threadsafe(waiting.cancel)
        time.sleep(0.1)
        return read(*of)

    with monkeypatch.context() as patched:
        patched.setattr(live.catalog, "_read_posts", given_up)
        waiting = asyncio.create_task(live.catalog.listen(live.record, 1))
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert 1 in live.catalog.voices
    await live.check()


async def test_words_and_crowd_are_gathered_apart_from_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Catalog({1: DIMENSIONS}, InterestSettings())
    for number in range(200):
        found.upsert(Item(f"i{number}"), "en", {}, ["all", f"pair{number // 2}"])
        found.apply(like(f"i{number}"))
    await found.keep_up(1)
    assert not any((found.words.is_due, found.crowd.is_due(1)))
    for number in range(200, 300):
        found.upsert(Item(f"i{number}"), "en", {}, ["all", f"pair{number // 2}"])
        found.apply(like(f"i{number}"))
    assert all((found.words.is_due, found.crowd.is_due(1)))
    begun = asyncio.Event()

    def begin() -> Any:
        begun.set()
        return Words.begin(found.words)

    monkeypatch.setattr(found.words, "begin", begin)
    keeping = asyncio.create_task(found.keep_up(1))
    await begun.wait()
    # Others are not held up, and what comes meanwhile is not lost.
    await asyncio.wait_for(found.keep_up(1), 0.5)
    found.upsert(Item("late"), "en", {}, ["all", "pair7"])
    found.delete(["i14"])
    found.apply(like("late"))
    own = found.crowd.own(1, NOW)
    found.words.alike(own, found.size)
    await keeping
    assert not found.words.is_due
    # When something was erased, one gathers anew what is left, and the others are answered from it as it is.
    found.crowd.clear(np.array([found.entries["i16"].row]), erased=True)
    assert (found.crowd.is_ready(1), found.crowd.is_due(1)) == (True, True)
    await asyncio.gather(found.keep_up(1), found.keep_up(1))
    assert (found.crowd.is_ready(1), found.crowd.is_due(1)) == (True, False)
    likes = found.words.alike(Own(np.array([15]), np.ones((len(HORIZONS), 1))), found.size)[0]
    row = found.entries["late"].row
    assert likes[row] == pytest.approx(1, abs=1e-6)
    assert row in found.crowd.own(1, NOW).rows


def listening(*item_ids: str) -> Catalog:
    """A catalogue that listens, with nothing in the record."""
    found = catalog()
    for item_id in item_ids:
        found.upsert(Item(item_id), "en", {1: axis(0)})
    found.voices[1] = Voices(found.vectors[1])
    return found


def test_only_posts_that_speak_for_an_item_are_heard() -> None:
    found = listening("a", "b")
    found.apply(said(axis(1)))
    found.apply(said(axis(2), rating=-1.0))
    found.apply(like("a"))
    found.apply(said(axis(3), "absent"))
    assert voice(found, "a") == [1, 1, 0, 0]
    assert voice(found, "b") == [1, 0, 0, 0]


def test_a_new_vector_of_an_item_keeps_what_was_said_of_it() -> None:
    found = listening("a")
    found.apply(said(axis(1)))
    found.upsert(Item("a"), "en", {1: axis(2)})
    assert voice(found, "a") == [0, 1, 1, 0]
    found.embed(1, "a", axis(3))
    assert voice(found, "a") == [0, 1, 0, 1]
    found.delete(["a"])
    found.upsert(Item("b"), "en", {1: axis(0)})
    assert voice(found, "b") == [1, 0, 0, 0]


def test_voices_grow_with_the_catalogue() -> None:
    found = listening("a")
    found.apply(said(axis(1)))
    for number in range(1500):
        found.upsert(Item(f"i{number}"), "en", {1: axis(number)})
    found.apply(said(axis(3), "i1498"))
    assert voice(found, "a") == [1, 1, 0, 0]
    assert voice(found, "i1498") == [0, 0, 1, 1]
    assert voice(found, "i1499") == [0, 0, 0, 1]


def test_a_replay_hears_all_anew_and_leaves_the_catalogue_alone() -> None:
    found = listening("a", "b")
    found.upsert(Item("hidden", hidden=True), "en", {1: axis(3)}, ["word"])
    found.upsert(Item("a"), "en", {}, ["word"])
    found.apply(like("a"))
    found.apply(said(axis(1)))
    again = found.unheard(1)
    assert again.entries == found.entries
    assert popularity(again) == {"a": 0, "b": 0, "hidden": 0}
    assert voice(again, "a") == [1, 0, 0, 0]
    np.testing.assert_array_equal(again.visible, found.visible)
    likes = again.words.alike(Own(np.array([again.entries["a"].row]), np.ones((1, 1))), again.size)[0]
    assert likes[again.entries["hidden"].row] == pytest.approx(1)
    for item_id, user, evidence, _ in [*like("a").touched, *said(axis(1)).touched]:
        again.witness(user, evidence, 1)
        assert item_id == "a"
    again.witness(7, Evidence("none", NOW, axis(2)), 1)
    assert popularity(again) == popularity(found)
    assert voice(again, "a") == voice(found, "a")
    again.witness(2, Evidence("more", NOW, axis(2), Action.LIKE, item_id="b"), 1)
    assert popularity(again)["b"] == 1
    assert popularity(found)["b"] == 0
    assert len(found.crowd.own(2, NOW).rows) == 0
    # Nor does it see what becomes of the items meanwhile.
    row = found.entries["a"].row
    found.upsert(Item("a", create_time=9, hidden=True), "en", {})
    assert (again.visible[row], again.created[row]) == (True, 0)


def test_a_spread_is_even_visible_and_never_stale() -> None:
    found = catalog()
    for number in range(100):
        found.upsert(Item(f"i{number:02}", hidden=number % 2 == 1), "en", {1: axis(number)})
    assert found.spread(50).tolist() == list(range(0, 100, 2))
    assert found.spread(1000).tolist() == list(range(0, 100, 2))
    few = found.spread(5)
    assert (few[0], few[-1], len(few)) == (0, 98, 5)
    assert np.ptp(np.diff(few)) <= 2
    found.delete(["i00"])
    assert found.spread(5)[0] == 2
    assert not len(catalog().spread(5))


async def test_words_come_with_the_items_from_the_record(live: Live) -> None:
    await live.upsert("film")
    await live.upsert("book")
    await live.follow()
    anew = Catalog.load(live.record, {1: DIMENSIONS}, InterestSettings())
    for found in (live.catalog, anew):
        own = Own(np.array([found.entries["film"].row]), np.ones((1, 1)))
        likes = found.words.alike(own, found.size)[0]
        film, book = (likes[found.entries[name].row] for name in ("film", "book"))
        assert film == pytest.approx(1)
        assert 0 < book < film
