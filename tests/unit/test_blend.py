from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from penchant_pipelines.interests import (
    Blender,
    Calibration,
    Event,
    Evidence,
    Interest,
    InterestSettings,
    Profile,
    Recipe,
    SteeringEvent,
    Weighing,
    blend,
    pack,
    unpack,
    view,
)
from penchant_pipelines.interests.blend import Trace, undone_ids
from penchant_pipelines.interests.evidence import Vector, weighing
from penchant_pipelines.interests.horizons import HORIZONS, faded
from penchant_pipelines.interests.repeats import Repeats
from penchant_pipelines.interests.state import decay, half_lives
from penchant_pipelines.model import MICROS_PER_DAY, Action, Steering

DIMENSIONS = 6
MAX_INTERESTS = 3
DAY = MICROS_PER_DAY
law = settings(max_examples=40, deadline=None)


def unit(row: ArrayLike) -> Vector:
    vector = np.asarray(row, np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def axis(index: int) -> Vector:
    row: NDArray[np.float32] = np.eye(DIMENSIONS, dtype=np.float32)[index]
    return row


def near(topic: int, seed: int) -> Vector:
    """A vector about a topic: an axis or its opposite, with noise."""
    noise = np.random.default_rng(seed).standard_normal(DIMENSIONS) * 0.25
    return unit((1 if topic < DIMENSIONS else -1) * axis(topic % DIMENSIONS) + noise)


def level(similarity: float) -> Calibration:
    """A space whose middle is its origin."""
    return Calibration(similarity, np.zeros(DIMENSIONS, np.float32))


def blender(max_interests: int = MAX_INTERESTS, **changes: Any) -> Blender:
    return Blender(Recipe(InterestSettings(max_interests=max_interests, **changes), level(0.6), "space"))


def post(number: int, time: int, vector: Vector, rating: float | None = None, *terms: str) -> Evidence:
    return Evidence(f"p{number:03}", time, vector, rating=rating, terms=terms, language="en")


def act(number: int, time: int, action: Action, vector: Vector | None, item_id: str = "item") -> Evidence:
    return Evidence(f"a{number:03}", time, vector, action, item_id=item_id)


@st.composite
def streams(draw: st.DrawFn, steered: bool = True, undo: bool = True) -> list[Event]:
    """Events of one user, sorted by (time, id), with ties, gaps of years, unread items and the user's word."""
    kinds = ["post", "post", "action"] + ["steering"] * steered + ["undo"] * undo
    events: list[Event] = []
    time = draw(st.integers(0, 20_000)) * DAY
    for number in range(draw(st.integers(0, 25))):
        time += draw(st.sampled_from([0, 1, DAY // 3, DAY, 40 * DAY, 1000 * DAY]))
        vector = near(draw(st.integers(0, 2 * DIMENSIONS - 1)), draw(st.integers(0, 3)))
        item_id = draw(st.sampled_from(["x", "y", ""]))
        kind = draw(st.sampled_from(kinds))
        name = f"{draw(st.integers(0, 9))}-{number}"
        if kind == "steering":
            words = Steering(
                draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]))
            )
            events.append(SteeringEvent(f"steering-{number:012}", time, vector, words, terms=("asked",)))
        elif kind == "post":
            rating = draw(st.none() | st.floats(-1, 1))
            language = draw(st.sampled_from(["en", "zh", "und"]))
            events.append(Evidence(name, time, vector, None, None, rating, item_id, (f"term{number}",), language))
        else:
            actions = [action for action in Action if action is not Action.UNDO]
            action = Action.UNDO if kind == "undo" else draw(st.sampled_from(actions))
            value = draw(st.none() | st.floats(-1, 1) | st.just(40.0)) if action is Action.DWELL else None
            known = draw(st.integers(0, 9)) > 0
            events.append(Evidence(name, time, vector if known else None, action, value, item_id=item_id or "z"))
    events.sort(key=lambda event: (event.time, event.id))
    return events


def blended(events: Sequence[Event], taken_back: set[str]) -> list[Evidence]:
    rules = InterestSettings()
    return [
        event
        for event in events
        if isinstance(event, Evidence)
        and event.id not in taken_back
        and event.vector is not None
        and event.action is not Action.UNDO
        and weighing(event, rules).weight != 0
    ]


@law
@given(streams())
def test_a_profile_is_always_in_order(events: list[Event]) -> None:
    mixer = blender()
    profile = mixer.replay(events)
    assert len(profile.interests) <= MAX_INTERESTS
    assert len({interest.id for interest in profile.interests}) == len(profile.interests)
    for interest in profile.interests:
        assert interest.centroid.dtype == np.float32
        assert np.linalg.norm(interest.centroid) == pytest.approx(1, abs=1e-5)
        assert interest.first <= interest.last <= events[-1].time
        assert interest.day_count <= interest.signal_count
        assert (interest.mass >= 0).all()


@law
@given(streams())
def test_words_begin_no_day_and_change_no_habit(events: list[Event]) -> None:
    mixer = blender()
    signals = [event for event in events if isinstance(event, Evidence)]
    told, alone = mixer.replay(events), mixer.replay(signals)
    assert (told.days, told.day, told.usual_day, told.day_mass) == (
        alone.days,
        alone.day,
        alone.usual_day,
        alone.day_mass,
    )


@law
@given(streams())
def test_merges_lose_no_mass_and_no_signal(events: list[Event]) -> None:
    mixer, trace = blender(), Trace()
    profile = mixer.replay(events, trace)
    signals = blended(events, undone_ids(events))
    assert [signal for signal, _, _ in trace.taken] == signals
    assert sum(interest.signal_count for interest in profile.interests) == len(signals)
    now = max((interest.updated for interest in profile.interests), default=0)
    for sign in (1, -1):
        expected = np.zeros(len(mixer.lives))
        for signal, _, mass in trace.taken:
            rule = weighing(signal, mixer.settings)
            if rule.weight * sign > 0:
                fade = decay(now - signal.time, mixer.lives)
                columns = [list(mixer.lives[:-2]).index(rule.half_life_days * DAY), -2, -1]
                expected[columns] += trace.day_shares[signal.time // DAY] * mass * fade[columns]
        kept = sum(
            (profile.mass_of(i) * decay(now - i.updated, mixer.lives) for i in profile.interests if i.sign == sign),
            np.zeros(len(mixer.lives)),
        )
        np.testing.assert_allclose(kept, expected, rtol=1e-9, atol=1e-300)


@law
@given(streams(undo=False))
def test_blending_as_signals_come_equals_replay_bit_for_bit(events: list[Event]) -> None:
    mixer = blender()
    profile = Profile()
    for event in events:
        profile = unpack(pack(profile))
        if isinstance(event, SteeringEvent):
            mixer.steer(profile, event)
        else:
            mixer.add(profile, event)
    assert pack(profile) == pack(mixer.replay(events))


@law
@given(streams())
def test_an_undo_takes_back_the_latest_standing_action_on_its_item(events: list[Event]) -> None:
    gone: set[str] = set()
    undos_last = sorted(events, key=lambda event: (event.time, getattr(event, "action", None) is Action.UNDO))
    for place, event in enumerate(undos_last):
        if isinstance(event, Evidence) and event.action is Action.UNDO:
            gone.add(event.id)
            for earlier in reversed(undos_last[:place]):
                if (
                    isinstance(earlier, Evidence)
                    and earlier.action is not None
                    and earlier.item_id == event.item_id
                    and earlier.id not in gone
                ):
                    gone.add(earlier.id)
                    break
    mixer = blender()
    without = [event for event in events if event.id not in gone]
    assert pack(mixer.replay(events)) == pack(mixer.replay(without))


def test_undo_leaves_posts_and_other_items_alone() -> None:
    mixer = blender()
    said = Evidence("1", 1, axis(0), item_id="item")
    liked = act(2, 2, Action.LIKE, axis(1))
    other = act(3, 3, Action.LIKE, axis(2), "other")
    events = [said, liked, other, act(4, 4, Action.UNDO, None), act(5, 5, Action.UNDO, None)]
    assert undone_ids(events) == {"a002"}
    assert pack(mixer.replay(events)) == pack(mixer.replay([said, other]))


@law
@given(streams(), st.integers(1, 3000))
def test_moving_all_times_by_whole_days_changes_nothing_else(events: list[Event], days: int) -> None:
    mixer = blender()
    here = mixer.replay(events)
    there = mixer.replay([replace(event, time=event.time + days * DAY) for event in events])
    assert [i.id for i in here.interests] == [i.id for i in there.interests]
    for one, two in zip(here.interests, there.interests, strict=True):
        np.testing.assert_allclose(one.mass, two.mass, rtol=1e-12)
        np.testing.assert_allclose(one.centroid, two.centroid, atol=1e-6)
        assert (one.first + days * DAY, one.last + days * DAY) == (two.first, two.last)
        assert (one.signal_count, one.day_count) == (two.signal_count, two.day_count)
    assert (here.past is None) == (there.past is None)
    if here.past is not None and there.past is not None:
        np.testing.assert_allclose(here.past, there.past, atol=1e-6)
    assert here.support == pytest.approx(there.support)
    assert here.fresh_count == pytest.approx(there.fresh_count)


@law
@given(streams())
def test_horizons_are_the_liked_past_as_it_stood_at_the_last_like(events: list[Event]) -> None:
    mixer = blender()
    profile = mixer.replay(events)
    weighed = [(event, weighing(event, mixer.settings).weight) for event in blended(events, undone_ids(events))]
    liked = [(event, weight) for event, weight in weighed if weight > 0]
    if not liked:
        assert profile.past is None
        return
    last = liked[-1][0].time
    added: list[tuple[Evidence, float, float]] = []
    repeats = Repeats()
    for event, weight in weighed:
        assert event.vector is not None
        mass, _ = repeats.take(event.vector, weight, event.time, mixer.long_life)
        if weight > 0:
            added.append((event, mass, mass / weight))
    expected = np.zeros((len(HORIZONS), DIMENSIONS))
    for place, (event, mass, _) in enumerate(added):
        assert event.vector is not None
        newer = sum(signals for _, _, signals in added[place + 1 :])
        expected += mass * faded(np.array([newer]), np.array([(last - event.time) / DAY])) * event.vector
    assert profile.past is not None
    assert profile.past_until == last
    assert profile.past.dtype == np.float32
    np.testing.assert_allclose(profile.past, expected, atol=1e-4)


def test_horizons_fade_from_like_to_like_and_not_by_what_is_disliked() -> None:
    mixer = blender()
    profile = mixer.replay(
        [
            act(1, 0, Action.LIKE, axis(0)),
            act(2, 7 * DAY, Action.DISLIKE, axis(2)),
            act(3, 7 * DAY, Action.LIKE, None),
            SteeringEvent("steering", 500 * DAY, axis(4), Steering(bias=1.0)),
        ]
    )
    assert profile.past is not None
    np.testing.assert_array_equal(profile.past, np.tile(axis(0), (len(HORIZONS), 1)))
    mixer.add(profile, act(4, 7 * DAY, Action.LIKE, axis(1)))
    np.testing.assert_allclose(profile.past[:, [0]], faded(np.ones(1), np.full(1, 7.0)), rtol=1e-6)
    np.testing.assert_array_equal(profile.past[:, 1], 1)


def test_a_text_said_again_pushes_nothing_out_of_the_past() -> None:
    mixer = blender()
    profile = mixer.replay([act(n, n, Action.LIKE, axis(n)) for n in range(3)])
    assert profile.past is not None
    before = profile.past.copy()
    for n in range(3, 30):
        mixer.add(profile, act(n, n, Action.LIKE, axis(2)))
    np.testing.assert_allclose(profile.past, before, atol=1e-3)


def test_a_past_of_long_ago_keeps_its_direction_until_something_new_comes() -> None:
    mixer = blender()
    profile = mixer.replay([post(1, 0, axis(0)), act(2, 40_000 * DAY, Action.VIEW, axis(0))])
    assert profile.past is not None
    assert np.linalg.norm(profile.past, axis=1).min() >= blend.LEAST_PAST * 0.999
    mixer.add(profile, post(3, 80_000 * DAY, axis(1)))
    directions = profile.past / np.linalg.norm(profile.past, axis=1, keepdims=True)
    assert directions[-1] @ axis(1) > 0.999


def test_a_signal_joins_what_is_near_and_opens_what_is_not() -> None:
    mixer = blender()
    profile = Profile()
    first = mixer.add(profile, post(1, 0, axis(0)))
    assert mixer.add(profile, post(2, 0, unit(0.8 * axis(0) + 0.6 * axis(1)))) == first
    assert mixer.add(profile, post(3, 0, axis(5))) != first
    assert [interest.signal_count for interest in profile.interests] == [2, 1]
    # Of equal mass, the centre lies half-way.
    np.testing.assert_allclose(profile.interests[0].centroid, unit(1.8 * axis(0) + 0.6 * axis(1)), atol=1e-6)


def test_an_old_interest_yields_to_what_is_new() -> None:
    mixer = blender(floor=0.0)
    turn = unit(0.8 * axis(0) + 0.6 * axis(1))
    soon, late = Profile(), Profile()
    for profile, days in ((soon, 1), (late, 900)):
        mixer.add(profile, post(1, 0, axis(0)))
        mixer.add(profile, post(2, days * DAY, turn))
    assert late.interests[0].centroid @ turn > soon.interests[0].centroid @ turn
    assert late.interests[0].centroid @ turn == pytest.approx(1, abs=1e-3)


def test_a_text_said_again_opens_nothing_though_its_interest_has_moved_on() -> None:
    def turned(degrees: float) -> Vector:
        return unit([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0, 0, 0, 0])

    seen = [act(0, 0, Action.VIEW, turned(0)), post(1, DAY, turned(50)), post(2, 2 * DAY, turned(92))]
    again = act(3, 3 * DAY, Action.VIEW, turned(0))
    (interest,) = blender().replay(seen).interests
    assert interest.centroid @ turned(0) < 0.5
    (interest,) = blender().replay([*seen, again]).interests
    assert (interest.signal_count, interest.text_count) == (4, 3)


def test_dislikes_live_apart_and_never_pull_a_like_away() -> None:
    mixer = blender()
    liked = mixer.replay([post(1, 0, axis(0))])
    both = mixer.replay([post(1, 0, axis(0)), act(2, 1, Action.DISLIKE, axis(0))])
    assert [interest.sign for interest in both.interests] == [1, -1]
    np.testing.assert_array_equal(both.interests[0].centroid, liked.interests[0].centroid)
    np.testing.assert_array_equal(both.fresh, liked.fresh)


@law
@given(st.lists(st.sampled_from([1, -1]), min_size=3, max_size=12), st.integers(0, 99), st.booleans())
def test_a_like_and_a_dislike_never_merge(signs: list[int], seed: int, steer_first: bool) -> None:
    mixer = blender(max_interests=2)
    vectors = np.random.default_rng(seed).standard_normal((len(signs), DIMENSIONS))
    profile = Profile()
    for number, (sign, row) in enumerate(zip(signs, vectors, strict=True)):
        mixer.add(profile, post(number, number, unit(row), rating=float(sign)))
        if steer_first and number == 0:
            mixer.steer(profile, SteeringEvent("s", 0, unit(row), Steering(bias=0.5 * sign)))
    for sign in (1, -1):
        assert sum(i.signal_count for i in profile.interests if i.sign == sign) == signs.count(sign)


def test_what_all_texts_have_in_common_makes_no_interest() -> None:
    ones = [unit(axis(5) + axis(topic)) for topic in (0, 1, 0)]
    assert ones[0] @ ones[1] == pytest.approx(0.5)
    events = [post(number, number, vector) for number, vector in enumerate(ones)]
    found = []
    for middle in (np.zeros(DIMENSIONS, np.float32), axis(5) * np.float32(np.sqrt(0.5))):
        profile = Blender(Recipe(InterestSettings(), Calibration(0.4, middle), "space")).replay(events)
        found.append([interest.signal_count for interest in profile.interests])
    assert found == [[3], [2, 1]]


def test_the_cheapest_pair_merges() -> None:
    mixer = blender()
    close = unit(axis(0) + axis(4) + axis(5))
    profile = Profile()
    first = mixer.add(profile, post(1, 0, axis(0)))
    trace = Trace()
    for number, vector in enumerate([axis(1), axis(2), close], start=2):
        taken = mixer.add(profile, post(number, 0, vector), trace)
    assert close @ axis(0) < mixer.calibration.similarity
    assert list(trace.merged.values()) == [first] == [taken]
    assert profile.interests[0].signal_count == 2


def test_of_too_many_it_is_the_faded_that_merge() -> None:
    old = [post(10 * topic + number, 0, near(topic, number)) for topic in (0, 1) for number in range(4)]
    new = [post(90 + topic, 1000 * DAY, axis(topic)) for topic in (2, 3)]
    found = blender().replay([*old, *new]).interests
    assert [interest.signal_count for interest in found] == [8, 1, 1]


def test_a_merged_interest_tells_of_both_and_counts_their_common_day_once() -> None:
    light, heavy = axis(0), unit([1, 0, 0, 0, 1, 1])
    more_of_it = unit([0.8, 0, 0.7, 0, 1, 1])
    told = [post(1, 0, light), post(2, DAY // 2, heavy), post(3, DAY, more_of_it), post(4, 4 * DAY, axis(1))]
    both, other = blender(max_interests=2).replay(told).interests
    assert (both.signal_count, both.text_count, both.day_count) == (3, 3, 2)
    assert (both.first, both.last) == (0, DAY)
    assert other.centroid @ axis(1) == pytest.approx(1)


def test_opposites_that_cancel_out_leave_a_direction() -> None:
    mixer = blender(max_interests=2)
    profile = mixer.replay([post(1, 0, axis(0)), post(2, 0, axis(1), rating=-1.0), post(3, 0, -axis(0))])
    assert len(profile.interests) == 2
    for interest in profile.interests:
        assert np.linalg.norm(interest.centroid) == pytest.approx(1)


def test_the_users_word_stands_when_interests_merge() -> None:
    # The steered interest is the lighter one of every pair, and comes after the others.
    mixer = blender(max_interests=2)
    profile = Profile()
    mixer.add(profile, act(1, 0, Action.PURCHASE, axis(0)))
    mixer.steer(profile, SteeringEvent("s1", 1, axis(1), Steering(muted=True)))
    for number in range(2, 12):
        mixer.add(profile, act(number, number, Action.PURCHASE, near(number, number)))
    muted = [interest for interest in profile.interests if interest.steering == Steering(muted=True)]
    assert len(muted) == 1
    assert muted[0].centroid @ axis(1) > 0.99


def test_the_users_word_stands_where_nothing_but_it_is_left_to_merge_with() -> None:
    mixer = blender(max_interests=2)
    profile = mixer.replay([post(1, 0, axis(0))])
    for number in (1, 2):
        mixer.steer(profile, SteeringEvent(f"s{number}", DAY, axis(number), Steering(muted=True)))
    assert [interest.steering for interest in profile.interests] == [Steering(muted=True)] * 2
    assert sorted(interest.signal_count for interest in profile.interests) == [0, 1]
    # A word has no mass where it is a mute, and yet it does not turn to what it is merged with.
    for number, interest in enumerate(profile.interests, start=1):
        assert interest.centroid @ axis(number) > 0.7


@pytest.mark.parametrize("word", [Steering(bias=1.0), Steering(muted=True)], ids=["more", "muted"])
def test_of_words_alone_the_two_that_are_nearest_merge(word: Steering) -> None:
    mixer, profile = blender(), Profile()
    for number, vector in enumerate([axis(0), axis(1), unit(axis(1) + 1.7 * axis(2)), axis(3)]):
        mixer.steer(profile, SteeringEvent(f"s{number}", number, vector, word, f"topic {number}"))
    # Each muted topic is kept with its own vector: what it means is kept away.
    topics = {topic for interest in profile.interests for topic in interest.topics}
    assert topics == {f"topic {number}" for number in ((0, 1, 2, 3) if word.muted else (0, 1, 3))}
    centres = [interest.centroid for interest in profile.interests]
    assert [max(float(centre @ axis(lone)) for centre in centres) for lone in (0, 1, 3)] == pytest.approx([1, 1, 1])


def test_what_lies_before_1970_fades_as_all_else_does() -> None:
    mixer = blender()

    def told(first_day: int) -> tuple[float, ...]:
        profile = mixer.replay([post(n, (first_day + 30 * n) * DAY, axis(n // 20)) for n in range(40)])
        told = view(profile, (first_day + 30 * 39) * DAY, mixer)
        return told.drift.recent_signal_count, told.drift.magnitude, told.support, *(i.weight for i in told.interests)

    assert told(-20_000) == pytest.approx(told(10_000), rel=1e-5)


def test_the_newest_word_stands_among_too_many() -> None:
    mixer = blender()
    profile = Profile()
    for number in range(DIMENSIONS):
        word = Steering(pinned=True, bias=0.1 * number)
        steered = mixer.steer(profile, SteeringEvent(f"s{number}", number, axis(number), word))
        assert profile.find(steered.id) is steered
        assert steered.steering == word
        assert steered.centroid @ axis(number) > 0.7
    assert len(profile.interests) == MAX_INTERESTS


def test_the_newest_word_stands_though_it_lies_nearest_to_another() -> None:
    mixer, profile = blender(), Profile()
    for number, vector in enumerate([axis(0), axis(1), axis(2), unit(axis(2) + 1.7 * axis(3))]):
        steered = mixer.steer(profile, SteeringEvent(f"s{number}", number, vector, Steering(pinned=True)))
    assert profile.find(steered.id) is steered
    assert len(profile.interests) == MAX_INTERESTS


def test_a_neutral_word_on_nothing_pushes_nothing_out() -> None:
    mixer = blender()
    profile = mixer.replay([post(n, n, axis(n)) for n in range(MAX_INTERESTS)])
    before = [interest.id for interest in profile.interests]
    mixer.steer(profile, SteeringEvent("s", 9, axis(5), Steering()))
    assert [interest.id for interest in profile.interests] == before


def about(number: int, vector: Vector, topic: str, *terms: str, **steering: Any) -> SteeringEvent:
    return SteeringEvent(f"s{number}", number, vector, Steering(**steering), topic, (topic, *terms))


FOOTBALL = (post(1, 0, axis(0), None, "football", "premier league"), post(2, 1, axis(0), None, "football", "cricket"))
SURELY, NEARLY, BARELY = 0.75, 0.68, 0.62
"""Cosines above and below what a topic needs to mean an interest; θ is .6."""


def cosine_to_football(cosine: float) -> Vector:
    return unit(cosine * axis(0) + np.sqrt(1 - cosine**2) * axis(1))


@pytest.mark.parametrize(
    ("topic", "terms", "cosine", "meant"),
    [
        ("soccer", (), SURELY, True),
        ("cricket", (), NEARLY, False),  # mentioned once
        ("Football", (), BARELY, True),
        ("football", (), 0.5, False),
        ("the premier league of football", ("premier league", "football"), BARELY, True),
        ("football betting", ("football betting",), NEARLY, False),
    ],
)
def test_a_topic_means_an_interest_that_it_names_or_lies_well_inside(
    topic: str, terms: tuple[str, ...], cosine: float, meant: bool
) -> None:
    mixer = blender()
    profile = mixer.replay([*FOOTBALL, *(post(n, n, axis(0), None, "football") for n in range(3, 9))])
    before = msgspec.structs.replace(profile.interests[0])
    steered = mixer.steer(profile, about(9, cosine_to_football(cosine), topic, *terms, muted=True))
    assert steered.steering == Steering(muted=True)
    assert (steered is profile.interests[0]) is meant
    assert len(profile.interests) == (1 if meant else 2)
    assert profile.interests[0].terms == before.terms
    assert meant == (not steered.steered_terms)


def test_a_topic_is_named_as_it_was_written_before_its_other_terms() -> None:
    mixer, profile = blender(), Profile()
    said = ("green tea", "tea", "green", "leaf")
    mixer.steer(profile, SteeringEvent("s", 0, axis(0), Steering(bias=1.0), topic="green tea", terms=said))
    (found,) = view(profile, 0, mixer).interests
    assert tuple(sorted(found.terms, key=lambda term: -found.terms[term])) == said


BIKE = [("winter tyres", "mudguards"), ("tyre", "sealant"), ("tuba", "neighbour")]
"""What three posts on one thing speak of."""


@pytest.mark.parametrize(
    ("said", "topic", "meant"),
    [
        (BIKE, "tuba", False),
        (BIKE, "tyre", True),
        (BIKE[1:], "tuba", True),  # none was said twice: any may be its name
        ([*BIKE[1:], ("tuba",)], "tuba", True),
    ],
)
def test_what_one_text_said_names_no_interest_in_which_other_words_recur(
    said: list[tuple[str, ...]], topic: str, meant: bool
) -> None:
    mixer = blender()
    posts = [post(n, n, near(0, n), None, *terms) for n, terms in enumerate(said)]
    profile = mixer.replay(posts)
    [interest] = profile.interests
    vector = unit(
        NEARLY * interest.centroid + np.sqrt(1 - NEARLY**2) * unit(axis(1) - interest.centroid[1] * interest.centroid)
    )
    assert (mixer.steer(profile, about(9, vector, topic, muted=True)) is interest) is meant
    again = mixer.replay([*posts, *(replace(one, id=f"again-{one.id}", time=one.time + 5) for one in posts)])
    assert (
        again.interests[0].recurrent == mixer.replay(posts).interests[0].recurrent
    )  # no text is another for coming twice


def test_a_word_of_two_interests_recurs_in_what_they_merge_into() -> None:
    mixer = blender()
    posts = [post(n, n, axis(n), None, "bread" if n < 2 else "word", f"other {n}") for n in range(MAX_INTERESTS + 1)]
    profile = mixer.replay(posts)
    assert [interest.recurrent for interest in profile.interests if interest.recurrent] in ([["bread"]], [["word"]])


def test_a_word_taken_back_leaves_nothing_behind() -> None:
    mixer = blender()
    plain = mixer.replay(FOOTBALL)
    for topic, cosine in (("soccer", SURELY), ("cricket", NEARLY)):
        vector = cosine_to_football(cosine)
        words = [about(2, vector, topic, bias=1.0, pinned=True), about(3, vector, topic.upper())]
        after = mixer.replay([*FOOTBALL, *words])
        assert pack(Profile(after.interests)) == pack(Profile(plain.interests))


@pytest.mark.parametrize(("once", "again"), [("cafe\u0301", "CAF\u00c9"), ("貓糧", "猫粮"), ("NBA", "ＮＢＡ")])
def test_a_topic_is_the_same_however_it_is_written(once: str, again: str) -> None:
    mixer, profile = blender(), Profile()
    mixer.steer(profile, about(1, axis(1), once, muted=True))
    mixer.steer(profile, about(2, axis(2), again, bias=1.0))
    assert [list(interest.topics) for interest in profile.interests] == [[again]]


def test_a_topic_in_one_script_means_what_is_named_so_in_the_other() -> None:
    mixer = blender()
    profile = mixer.replay([post(1, 0, axis(0), None, "攝影展", "底片")])
    assert mixer.steer(profile, about(2, cosine_to_football(BARELY), "摄影展", muted=True)) is profile.interests[0]


def test_a_steered_topic_that_signals_joined_keeps_only_their_words_when_taken_back() -> None:
    mixer = blender()
    words: list[Event] = [about(1, axis(2), "cricket", bias=1.0), post(2, 2, unit(axis(2) + axis(3)), None, "wicket")]
    joined = mixer.replay(words)
    assert (set(joined.interests[0].steered_terms), set(joined.interests[0].terms)) == ({"cricket"}, {"wicket"})
    again = mixer.replay([*words, about(3, axis(2), "cricket")])
    assert (again.interests[0].steered_terms, set(again.interests[0].terms)) == ({}, {"wicket"})
    assert (again.interests[0].steering, again.interests[0].steered_mass) == (None, 0.0)


def test_two_topics_alike_are_two_interests() -> None:
    mixer = blender()
    words = [about(1, axis(0), "cats", muted=True), about(2, cosine_to_football(0.9), "dogs", bias=1.0)]
    assert [interest.steering for interest in mixer.replay(words).interests] == [word.steering for word in words]


def told(interest: Interest) -> dict[str, bool]:
    return {name: topic.more for name, topic in interest.topics.items()}


def test_the_last_word_on_a_topic_decides() -> None:
    mixer = blender()
    words = [about(1, axis(0), "cricket", bias=-1.0), about(2, axis(0), "Cricket", bias=1.0)]
    (interest,) = mixer.replay(words).interests
    assert (interest.sign, interest.steered_mass, told(interest)) == (1, 1.0, {"Cricket": True})
    (less,) = mixer.replay([*words, about(3, axis(0), "cricket", bias=-1.0)]).interests
    assert (less.sign, less.steered_mass, told(less)) == (-1, 1.0, {"cricket": False})


def test_terms_of_the_opening_text_count_as_of_one_at_the_usual_distance() -> None:
    mixer = blender()
    (interest,) = mixer.replay(
        [post(1, 0, axis(0), None, "first"), post(2, 0, unit([2, 1, 0, 0, 0, 0]), None, "second")]
    ).interests
    assert interest.terms["second"] > 2 * interest.terms["first"] > 0


def test_terms_of_central_texts_count_more_and_are_bounded() -> None:
    def said(number: int) -> Vector:
        return unit(axis(0) + (0.45 if number % 2 else -0.45) * axis(1 + number % 5))

    mixer = blender()
    profile = mixer.replay(
        [post(1, 0, axis(0), None, "centre")]
        + [post(n, n, said(n), None, *(f"w{n}-{k}" for k in range(8))) for n in range(2, 12)]
        + [post(20, 20, unit(0.7 * axis(0) + 0.7 * axis(1)), None, "edge")]
    )
    terms = profile.interests[0].terms
    assert len(terms) <= 40
    assert terms["edge"] < 0.8 < terms["w11-0"] < 1
    assert terms["w11-0"] > terms["w11-7"]


def test_a_term_in_capitals_and_in_small_letters_is_one_as_it_was_written_first() -> None:
    (interest,) = (
        blender().replay([post(n, n, near(0, n), None, name) for n, name in enumerate(("NBA", "nba", "Nba"))]).interests
    )
    assert set(interest.terms) == {"NBA"}
    assert "NBA" in interest.recurrent


def test_the_floor_joins_fading_and_unfading_mass() -> None:
    mixer = blender()
    assert list(mixer.lives / DAY) == [*sorted({30.0, 60.0, 90.0, 180.0}), 5.0, np.inf]
    np.testing.assert_allclose(decay(5 * DAY, mixer.lives)[-2:], [0.5, 1.0])
    assert (decay(-DAY, mixer.lives) == 1).all()
    changed = InterestSettings(post=Weighing(weight=1, half_life_days=7))
    assert half_lives(changed)[0] == 7 * DAY


def test_a_recipe_knows_when_profiles_must_be_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(InterestSettings(), level(0.5), "space")
    assert recipe.digest == Recipe(InterestSettings(), level(0.5), "space").digest
    others = [
        Recipe(InterestSettings(), level(0.51), "space"),
        Recipe(InterestSettings(), Calibration(0.5, axis(0)), "space"),
        Recipe(InterestSettings(), level(0.5), "other"),
        Recipe(InterestSettings(floor=0.03), level(0.5), "space"),
    ]
    assert recipe.digest not in {other.digest for other in others}
    monkeypatch.setattr(blend, "HORIZONS", ("last2", "7d"))
    assert recipe.digest != Recipe(InterestSettings(), level(0.5), "space").digest


@law
@given(streams())
def test_packing_keeps_everything(events: list[Event]) -> None:
    profile = blender().replay(events)
    again = unpack(pack(profile))
    assert pack(again) == pack(profile)
    assert (again.past is None) == (profile.past is None)
    if profile.past is not None and again.past is not None:
        assert again.past.dtype == np.float32
        np.testing.assert_array_equal(again.past, profile.past)
    assert again.past_until == profile.past_until
    for one, two in zip(profile.interests, again.interests, strict=True):
        assert (one.centroid == two.centroid).all()
        assert one.mass.dtype == two.mass.dtype
        assert (one.mass == two.mass).all()
        assert one.steering == two.steering
        assert two.centroid.flags.writeable


def test_a_profile_of_the_first_format_can_be_read_until_it_is_replayed() -> None:
    # The index asks stored profiles for their centroids, whatever recipe made them.
    plain = msgspec.msgpack.decode(pack(blender().replay([post(1, 0, axis(0))])))
    for name in ("today", "day", "day_mass", "usual_day", "days", "repeats"):
        del plain[name]
    for name in ("today", "text_count"):
        del plain["interests"][0][name]
    [interest] = unpack(msgspec.msgpack.encode(plain)).interests
    assert (interest.centroid == axis(0)).all()


REFUSED = post(3, 2, axis(0), -1.0, "football")


@pytest.mark.parametrize("word", [{"muted": True}, {"bias": 1.0}, {"bias": -1.0}, {"pinned": True}])
def test_a_topic_means_what_is_liked_where_the_same_was_refused_too(word: dict[str, Any]) -> None:
    mixer = blender()
    profile = mixer.replay([*FOOTBALL, REFUSED, about(4, axis(0), "football", **word)])
    assert {i.sign: i.steering for i in profile.interests} == {1: Steering(**word), -1: None}


def test_who_asks_for_more_of_what_was_refused_likes_it() -> None:
    mixer = blender()
    asked = [about(4, axis(0), "football", bias=1), about(5, axis(0), "football", bias=0.5)]
    profile = mixer.replay([REFUSED, *asked])
    assert {i.sign: i.steering for i in profile.interests} == {1: Steering(bias=0.5), -1: None}
    refused, liked = sorted(view(profile, 9, mixer).interests, key=lambda i: i.sign)
    assert liked.weight == 1
    assert refused.against < 0.5


def test_the_last_word_on_a_topic_holds() -> None:
    mixer = blender()
    less = about(4, axis(0), "football", bias=-1)
    assert [i.steering for i in mixer.replay([REFUSED, less]).interests] == [Steering(bias=-1)]
    profile = mixer.replay([REFUSED, less, about(5, axis(0), "Football", bias=1)])
    assert {i.sign: i.steering for i in profile.interests} == {1: Steering(bias=1), -1: None}
    profile = mixer.replay([REFUSED, less, about(5, axis(0), "Football", bias=1), about(6, axis(0), "football")])
    assert {i.sign: i.steering for i in profile.interests} == {-1: None}


@pytest.mark.parametrize("word", [{"muted": True}, {"bias": 1.0}, {"bias": -0.5}, {"pinned": True}])
@pytest.mark.parametrize("refused", [[], [REFUSED]])
def test_a_word_on_what_is_liked_by_now_is_no_word_on_the_dislike_that_took_the_former(
    refused: list[Event], word: dict[str, Any]
) -> None:
    mixer = blender()
    less = about(4, axis(0), "football", bias=-1)
    liked = [post(5, 5, axis(0), None, "football"), post(6, 6, axis(0), None, "football")]
    asked = [*refused, less, *liked, about(7, axis(0), "football", **word)]
    found = {i.sign: (i.steering, list(i.topics)) for i in mixer.replay(asked).interests}
    assert found == {1: (Steering(**word), ["football"]), **({-1: (None, [])} if refused else {})}
    (football,) = mixer.replay([*asked, about(8, axis(0), "football")]).interests[len(refused) :]
    assert football.steering is None
    # Taken back before that, it is the former word that goes.
    taken_back = mixer.replay([*refused, less, *liked, about(7, axis(0), "football")])
    assert {interest.steering for interest in taken_back.interests} == {None}


def test_every_topic_by_which_it_was_spoken_of_is_kept() -> None:
    mixer = blender()
    words = [about(4, axis(0), "football", bias=1), about(5, cosine_to_football(SURELY), "soccer", muted=True)]
    profile = unpack(pack(mixer.replay([*FOOTBALL, *words])))
    (spoken,) = view(profile, 9, mixer).interests
    assert list(spoken.topics) == ["football", "soccer"]
    for word in words:
        np.testing.assert_array_equal(spoken.topics[word.topic], word.vector)
    mixer.steer(profile, about(6, axis(0), "soccer"))
    (taken_back,) = view(profile, 9, mixer).interests
    assert taken_back.topics == {}


def test_less_of_a_topic_is_no_wish_for_more_though_it_is_pinned() -> None:
    mixer = blender()
    for bias, more in ((-0.5, False), (0.0, True), (0.5, True)):
        profile = mixer.replay([post(1, 0, axis(0))])
        word = Steering(pinned=True, bias=bias)
        steered = mixer.steer(profile, SteeringEvent("s", 1, axis(0), word, topic="tea", terms=("tea",)))
        assert steered.topics["tea"].more is more


def test_a_word_on_one_topic_leaves_what_was_said_of_another() -> None:
    mixer = blender()
    less = [about(4, axis(0), "football", bias=-1), about(5, axis(0), "soccer", bias=-1)]
    profile = mixer.replay([REFUSED, *less, about(6, axis(0), "football", bias=1)])
    assert {i.sign: (i.steering, list(i.topics)) for i in profile.interests} == {
        1: (Steering(bias=1), ["football"]),
        -1: (Steering(bias=-1), ["soccer"]),
    }


def test_a_like_that_is_surely_meant_comes_before_a_dislike_of_that_very_name() -> None:
    mixer = blender()
    liked = [post(1, 0, axis(0), None, "kickoff"), post(2, 1, axis(0), None, "kickoff")]
    profile = mixer.replay([*liked, REFUSED, about(4, axis(0), "football", muted=True)])
    assert {i.sign: i.steering for i in profile.interests} == {1: Steering(muted=True), -1: None}


def test_a_topic_under_which_an_interest_was_shown_means_that_one() -> None:
    mixer = blender()
    other = post(9, 3, axis(1), None, "tea")
    profile = mixer.replay([*FOOTBALL, other])
    football, tea = profile.interests
    word = replace(about(10, axis(1), "tea", muted=True), interest_id=football.id)
    assert mixer.steer(profile, word) is football
    assert (list(football.topics), tea.steering) == (["tea"], None)
    assert mixer.replay([*FOOTBALL, other, word]).interests[0].steering == Steering(muted=True)
    # Where that is no more, words decide as ever.
    (alone,) = mixer.replay([other, word]).interests
    assert alone.steering == Steering(muted=True)
