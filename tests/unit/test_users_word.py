"""The user's own word, whatever comes late, is undone or is taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penchant_pipelines.encoder import Encoder
from penchant_pipelines.engine import Engine, EngineSettings
from penchant_pipelines.index import ExactStore
from penchant_pipelines.interests import InterestSettings, InterestView, ProfileView
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal, Steering, now

MUTED, PINNED, LESS, MORE = Steering(muted=True), Steering(pinned=True), Steering(bias=-1.0), Steering(bias=1.0)
ODD = ("zorbulax", "cipher", "cryptography")
HIKES = ("Day hikes in the Alps", "Hiking boots for alpine trails")


@pytest.fixture
async def engine(tmp_path: Path, encoder: Encoder) -> AsyncIterator[Engine]:
    settings = EngineSettings(interests=InterestSettings(max_interests=3))
    async with Engine.open(settings, tmp_path, encoder, ExactStore()) as opened:
        await opened.upsert_items([Item(id=f"hike-{n}", title=title) for n, title in enumerate(HIKES)])
        yield opened


START = now() - 100 * MICROS_PER_DAY


def act(name: str, action: Action, day: float, item: str = "hike-0", user: str = "ann") -> Signal:
    return Signal(name, user, Behavior(item, action), START + round(day * MICROS_PER_DAY))


def post(text: str, day: float) -> Signal:
    return Signal(f"{text}-{day}", "ann", Post(text), START + round(day * MICROS_PER_DAY))


def profile(engine: Engine, as_of: int | None = None) -> ProfileView:
    return engine.live.profiles.get("ann", as_of).view


def told(view: ProfileView) -> dict[str, tuple[int, int, float, Steering]]:
    """What a reader sees of interests, but for time that goes by between two looks."""
    return {i.id: (i.sign, i.signal_count, round(i.weight, 4), i.steering) for i in view.interests}


def shape(view: ProfileView) -> list[tuple[int, float, Steering]]:
    """The same whatever the interests' ids, which follow from the signals'."""
    return sorted(((i.signal_count, round(i.weight, 4), i.steering) for i in view.interests), key=str)


def all_signals(engine: Engine) -> list[Signal]:
    return engine.live.profiles.signals("ann", None, 99)


def liked(engine: Engine) -> InterestView:
    return next(interest for interest in profile(engine).interests if interest.sign > 0)


@pytest.mark.parametrize("word", [MUTED, PINNED, LESS, MORE])
async def test_a_word_on_a_like_stays_on_it_when_an_earlier_one_comes_late(engine: Engine, word: Steering) -> None:
    signals = [act("like", Action.LIKE, 11), act("save", Action.SAVE, 12), act("hide", Action.HIDE, 13)]
    await engine.capture(signals)
    await engine.steer("ann", word, liked(engine).id)
    await engine.capture([act("earlier", Action.LIKE, 1, "hike-1")])
    assert {(i.sign, i.steering) for i in profile(engine).interests} == {(1, word), (-1, Steering())}


@pytest.mark.parametrize("word", [MUTED, PINNED, LESS])
async def test_a_word_outlives_what_it_was_about_by_name_and_id(engine: Engine, word: Steering) -> None:
    await engine.capture([act("like", Action.LIKE, 1)])
    known = liked(engine)
    await engine.steer("ann", word, known.id)
    await engine.capture([act("undo", Action.UNDO, 2)])
    (left,) = profile(engine).interests
    assert (left.id, left.signal_count, left.steering) == (known.id, 0, word)
    (label,) = await engine.live.labels(profile(engine))
    assert label.label
    assert label.keywords
    await engine.steer("ann", Steering(), known.id)
    assert profile(engine).interests == ()


@pytest.mark.parametrize("word", [MUTED, PINNED, LESS, MORE])
async def test_a_word_taken_back_is_as_if_never_said(engine: Engine, word: Steering) -> None:
    await engine.capture([post("Bebop saxophone records", 1), post("Baking sourdough bread", 2)])
    await engine.steer("ann", word, topic="jazz")
    # It joins what the word opened.
    soon = Signal("trumpet", "ann", Post("Jazz trumpet solo"), now() + MICROS_PER_DAY)
    await engine.capture([soon])
    said = profile(engine)
    assert [interest.steering for interest in said.interests if interest.steering != Steering()] == [word]
    await engine.steer("ann", Steering(), topic="jazz")
    await engine.capture([Signal(f"bob-{s.id}", "bob", s.evidence, s.time) for s in all_signals(engine)])
    taken_back, never = profile(engine), engine.live.profiles.get("bob").view
    assert shape(taken_back) == shape(never) != shape(said)
    assert told(profile(engine, as_of=soon.time)) == told(said)


async def test_what_went_together_to_make_room_for_a_word_comes_apart_when_it_is_taken_back(engine: Engine) -> None:
    texts = ("Bebop saxophone records", "Baking sourdough bread", "A telescope for the rings of Saturn")
    await engine.capture([post(text, day) for day, text in enumerate(texts)])
    before = profile(engine)
    await engine.steer("ann", MUTED, topic="tax returns")
    assert len(profile(engine).interests) == len(before.interests) == 3
    assert told(profile(engine)) != told(before)
    await engine.steer("ann", Steering(), topic="tax returns")
    assert told(profile(engine)) == told(before)


@pytest.mark.parametrize("later", [Steering(), PINNED])
async def test_all_words_about_an_interest_are_taken_back_whatever_it_was_called(
    engine: Engine, later: Steering
) -> None:
    await engine.capture([act("like", Action.LIKE, 11)])
    former = liked(engine).id
    await engine.steer("ann", MUTED, former)
    await engine.capture([act("earlier", Action.LIKE, 1, "hike-1")])
    renamed = liked(engine).id
    assert renamed != former
    if later != Steering():
        await engine.steer("ann", later, renamed)
    for _ in range(2):
        assert (await engine.steer("ann", Steering(), renamed)).interest.steering == Steering()
        assert {interest.steering for interest in profile(engine).interests} == {Steering()}


async def test_an_erased_signal_takes_the_names_that_it_gave_and_no_others(engine: Engine) -> None:
    await engine.capture([act("like", Action.LIKE, 1)])
    await engine.steer("ann", PINNED, liked(engine).id)
    await engine.capture([act("undo", Action.UNDO, 2)])
    await engine.capture([post(f"Sourdough bread, loaf {n}", 3 + n) for n in range(20)])
    await engine.capture([post("Zorbulax ciphers and cryptography", 2.5)])
    odd = next(interest for interest in profile(engine).interests if "orbulax" in " ".join(interest.terms))
    await engine.steer("ann", PINNED, odd.id)
    before = named(engine)
    await engine.erase_signals("ann", ["Zorbulax ciphers and cryptography-2.5"])
    view = profile(engine)
    assert named(engine) == before - {name for name in before if any(w in name.lower() for w in ODD)} != before
    assert told(view) == told(profile(engine, as_of=view.as_of))
    assert {term for interest in profile(engine, as_of=view.as_of).interests for term in interest.terms} == named(
        engine
    )


def named(engine: Engine) -> set[str]:
    return {term for interest in profile(engine).interests for term in interest.terms}


async def test_what_is_undone_in_the_moment_that_it_is_done_stays_so_however_much_comes_late(engine: Engine) -> None:
    await engine.upsert_items([Item(id="jazz", title="Jazz piano for beginners")])
    await engine.capture([act("b", Action.LIKE, 1), act("d", Action.LIKE, 1, "jazz"), act("a", Action.UNDO, 1, "jazz")])
    await engine.capture([post(f"Sourdough bread, loaf {n}", 2 + n) for n in range(15)])
    for late in range(3):
        await engine.capture([post(f"Pruning roses {late}", 15.5 - late)])
        view = profile(engine)
        assert told(view) == told(profile(engine, as_of=view.as_of))


async def test_who_muted_a_topic_is_not_found_for_items_of_that_category(engine: Engine) -> None:
    await engine.capture([post("Which tax forms to file in April", 1)])
    target = await engine.live.encode_query("Tax forms to file in April", "text")
    assert target is not None
    await engine.steer("ann", MUTED, topic="Jazz")
    matches, _ = await engine.live.find_users(target, 5, 0.0, ("tax",))
    assert [match.user_id for match in matches] == ["ann"]
    matches, _ = await engine.live.find_users(target, 5, 0.0, ("tax", "JAZZ"))
    assert matches == ()
