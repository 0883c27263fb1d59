from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.interests import (
    STEERING,
    Blender,
    Calibration,
    Event,
    Evidence,
    InterestSettings,
    InterestView,
    Profile,
    ProfileView,
    Recipe,
    SteeringEvent,
    Trend,
    Weighing,
    explain,
    pack,
    view,
)
from penchant_pipelines.interests.blend import Trace
from penchant_pipelines.interests.evidence import Vector
from penchant_pipelines.interests.horizons import HORIZONS
from penchant_pipelines.interests.view import LATEST
from penchant_pipelines.model import MICROS_PER_DAY, Action, Steering

TOPICS = 6
TEXTS = 18
"""More than are remembered: a text said again after all the others is a new one."""
DIMENSIONS = TOPICS + TEXTS
DAY = MICROS_PER_DAY
law = settings(max_examples=40, deadline=None)


def axis(index: int) -> Vector:
    row: NDArray[np.float32] = np.eye(DIMENSIONS, dtype=np.float32)[index]
    return row


def unit(row: Vector) -> Vector:
    vector: Vector = row / np.linalg.norm(row)
    return vector


def text(topic: int, number: int) -> Vector:
    """One of several texts on a topic, each with something of its own."""
    return np.float32(0.8) * axis(topic) + np.float32(0.6) * axis(TOPICS + number % TEXTS)


def blender(max_interests: int = 3, **changes: Any) -> Blender:
    return Blender(
        Recipe(
            InterestSettings(max_interests=max_interests, **changes),
            Calibration(0.6, np.zeros(TOPICS + TEXTS, np.float32)),
            "space",
        )
    )


def post(name: str, time: int, vector: Vector, rating: float | None = None) -> Evidence:
    return Evidence(name, time, vector, rating=rating)


def daily(topic: int, days: Iterable[int], action: Action | None = None) -> list[Evidence]:
    return [Evidence(f"t{topic}-{day}", day * DAY, text(topic, day), action, item_id="item") for day in days]


def read(events: Sequence[Event], as_of: int, mixer: Blender | None = None) -> ProfileView:
    mixer = mixer or blender()
    return view(mixer.replay(events), as_of, mixer)


def steered(events: list[Evidence], steering: Steering, topic: int, as_of: int) -> dict[int, InterestView]:
    """Read after a word about a topic; interests by the axis nearest to them."""
    word = SteeringEvent("steering-1", events[-1].time, axis(topic), steering)
    found = read([*events, word], as_of)
    return {int(np.argmax(interest.vector)): interest for interest in found.interests}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event], int]:
    """Events of one user in order, and a time not before the last."""
    events: list[Event] = []
    time = 0
    for number in range(draw(st.integers(1, 20))):
        time += draw(st.sampled_from([0, DAY // 2, 3 * DAY, 200 * DAY]))
        noise = np.random.default_rng(draw(st.integers(0, 3))).standard_normal(DIMENSIONS) * 0.2
        raw = axis(draw(st.integers(0, TOPICS - 1))) + noise
        vector = (raw / np.linalg.norm(raw)).astype(np.float32)
        kind = draw(st.integers(0, 5))
        if kind == 0:
            bias = draw(st.sampled_from([-1.0, -0.3, 0.0, 0.6, 1.0]))
            word = Steering(draw(st.booleans()), draw(st.booleans()), bias)
            events.append(SteeringEvent(f"steering-{number:012}", time, vector, word))
        elif kind == 1:
            action = draw(st.sampled_from([Action.LIKE, Action.VIEW, Action.DISLIKE, Action.UNDO]))
            events.append(Evidence(f"n{number:03}", time, vector, action, item_id="item"))
        else:
            events.append(post(f"n{number:03}", time, vector, draw(st.none() | st.floats(-1, 1))))
    events.sort(key=lambda event: (event.time, event.id))
    return events, time + draw(st.sampled_from([0, DAY, 1000 * DAY]))


@law
@given(histories())
def test_weights_are_shares(history: tuple[list[Event], int]) -> None:
    found = read(*history)
    liked = [interest.weight for interest in found.interests if interest.sign > 0]
    assert all(0 <= weight <= 1 for weight in liked)
    assert sum(liked) == pytest.approx(1) or sum(liked) == 0
    assert sum(liked) > 0 or not any(interest.mass > 0 and interest.sign > 0 for interest in found.interests)
    assert all(-1 <= interest.weight <= 0 for interest in found.interests if interest.sign < 0)
    assert all(0 <= interest.confidence <= 1 for interest in found.interests)
    order = [(interest.sign < 0, -abs(interest.weight)) for interest in found.interests]
    assert order == sorted(order)


@law
@given(histories())
def test_reading_changes_nothing(history: tuple[list[Event], int]) -> None:
    events, as_of = history
    mixer = blender()
    profile = mixer.replay(events)
    before = pack(profile)
    first, second = view(profile, as_of, mixer), view(profile, as_of, mixer)
    assert [(i.id, i.weight, i.mass) for i in first.interests] == [(i.id, i.weight, i.mass) for i in second.interests]
    assert pack(profile) == before


@law
@given(histories())
def test_an_explanation_accounts_for_all_of_an_interest(history: tuple[list[Event], int]) -> None:
    events, as_of = history
    mixer = blender()
    profile, contributions = explain(events, mixer, as_of)
    assert pack(profile) == pack(mixer.replay(events))
    found = view(profile, as_of, mixer)
    assert set(contributions) == {interest.id for interest in found.interests}
    named: list[str] = []
    for interest in found.interests:
        reasons = contributions[interest.id]
        assert sum(1 for reason in reasons if reason.signal_id) == interest.signal_count
        assert all(0 <= reason.share <= 1 for reason in reasons)
        kept = profile.find(interest.id)
        # One of repetitions alone, which a word opened, counts nothing.
        if interest.mass > 0 or (kept and kept.text_count):
            assert sum(reason.share for reason in reasons) == pytest.approx(1)
        assert [reason.share for reason in reasons] == sorted((reason.share for reason in reasons), reverse=True)
        named += [reason.signal_id for reason in reasons if reason.signal_id]
    assert len(named) == len(set(named))


def test_shares_follow_weight_and_age() -> None:
    like = Evidence("like", 0, text(0, 0), Action.LIKE, item_id="item")
    buy = Evidence("buy", 0, text(0, 1), Action.PURCHASE, item_id="item")
    old = post("old", 0, text(1, 0))
    new = post("new", 90 * DAY, text(1, 1))
    mixer = blender(floor=0.0)
    _, contributions = explain([buy, like, old, new], mixer, 90 * DAY)
    shares = {reason.signal_id: reason.share for reasons in contributions.values() for reason in reasons}
    # 1.5 · 2^(−90/180) against 1 · 2^(−90/90); 0.5 against 1.
    assert shares["buy"] / shares["like"] == pytest.approx(1.5 * 2**-0.5 / 0.5)
    assert shares["new"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("floor", [0.0, 0.02, 0.5])
def test_mass_halves_in_a_half_life_down_to_the_floor(floor: float) -> None:
    mixer = blender(floor=floor)
    profile = mixer.replay([post("p", 0, axis(0))])
    masses = [view(profile, days * DAY, mixer).interests[0].mass for days in (0, 90, 180, 90_000)]
    fading = [mass / masses[0] - floor for mass in masses]
    assert fading[1] == pytest.approx(fading[0] / 2)
    assert fading[2] == pytest.approx(fading[0] / 4)
    assert fading[3] == pytest.approx(0, abs=1e-9)


def test_each_action_fades_at_its_own_pace() -> None:
    mixer = blender(floor=0.0)
    profile = mixer.replay(daily(0, [0], Action.VIEW) + daily(1, [0], Action.PURCHASE))
    now = {i.id: i.mass for i in view(profile, 0, mixer).interests}
    later = {i.id: i.mass for i in view(profile, 180 * DAY, mixer).interests}
    assert sorted(later[key] / now[key] for key in now) == pytest.approx([2**-6, 2**-1])


def test_muting_silences_an_interest_and_neutral_restores_it() -> None:
    events = daily(0, range(3)) + daily(1, range(3, 6))
    as_of = 6 * DAY
    plain = {int(np.argmax(i.vector)): i.weight for i in read(events, as_of).interests}
    muted = steered(events, Steering(muted=True), 0, as_of)
    assert muted[0].weight == 0
    assert muted[0].steering.muted
    assert muted[1].weight == pytest.approx(1)
    words: list[Event] = [
        SteeringEvent(f"steering-{n}", events[-1].time, axis(0), word)
        for n, word in enumerate([Steering(muted=True), Steering(pinned=True, bias=1.0), Steering()])
    ]
    again = {int(np.argmax(i.vector)): i.weight for i in read([*events, *words], as_of).interests}
    assert again == pytest.approx(plain)


def test_a_pin_never_fades() -> None:
    events = daily(0, [0])
    masses = [steered(events, Steering(pinned=True), 0, days * DAY)[0].mass for days in (0, 100, 10_000)]
    assert masses[0] == masses[1] == masses[2] > 1
    later = daily(0, [0]) + daily(1, [3000])
    assert steered(later, Steering(pinned=True), 0, 3000 * DAY)[0].weight > 0.5
    # Two signals with years between them: three quarters of both, and the word itself.
    apart = daily(0, [0, 3001])
    assert steered(apart, Steering(pinned=True), 0, 3001 * DAY)[0].mass == pytest.approx(0.75 * 2 + 1)
    word = SteeringEvent("steering-1", 3001 * DAY, axis(0), Steering(pinned=True))
    _, contributions = explain([*apart, word], blender(), 3001 * DAY)
    assert [part.share for part in next(iter(contributions.values()))] == pytest.approx([0.4, 0.3, 0.3])


def test_a_bias_multiplies_for_likes_and_dislikes_alike() -> None:
    events = daily(0, [0])
    plain = read(events, 0).interests[0].mass
    assert steered(events, Steering(bias=-1.0), 0, 0)[0].mass == pytest.approx(plain / 4)
    assert steered(events, Steering(bias=-0.5), 0, 0)[0].mass == pytest.approx(plain / 2)
    # Wanting more of it is evidence too: one post's worth.
    assert steered(events, Steering(bias=1.0), 0, 0)[0].mass == pytest.approx((plain + 1) * 4)
    hated = daily(0, [0], Action.DISLIKE)
    assert steered(hated, Steering(bias=1.0), 0, 0)[0].mass == pytest.approx(1 / 4)
    assert steered(hated, Steering(bias=-1.0), 0, 0)[0].mass == pytest.approx((1 + 1) * 4)


def test_a_topic_nobody_wrote_about_becomes_an_interest() -> None:
    wanted = steered(daily(0, [0]), Steering(bias=1.0), 4, 0)
    assert wanted[4].weight > 0
    assert wanted[4].confidence == 1
    assert wanted[4].signal_count == 0
    unwanted = steered(daily(0, [0]), Steering(bias=-1.0), 4, 0)
    assert unwanted[4].sign == -1
    assert unwanted[4].weight < 0
    assert unwanted[0].weight == pytest.approx(1)


def test_an_interest_that_a_word_opened_begins_with_its_first_signal() -> None:
    word = SteeringEvent("steering-1", 0, axis(4), Steering(bias=1.0))
    (asked,) = read([word], 10 * DAY).interests
    (told,) = read([word, *daily(4, [10, 12])], 12 * DAY).interests
    assert (asked.first, asked.last) == (0, 0)
    assert (told.first, told.last) == (10 * DAY, 12 * DAY)


def test_confidence_grows_with_days_and_more_slowly_within_one() -> None:
    def after(events: list[Evidence]) -> float:
        return read(events, 40 * DAY).interests[0].confidence

    by_days = [after(daily(0, range(count))) for count in (1, 2, 5, 20, 40)]
    assert by_days == sorted(set(by_days))
    one_day = [post(f"p{n:02}", n, text(0, n)) for n in range(20)]
    assert after(daily(0, range(1))) < after(one_day) < after(daily(0, range(20)))


def test_confidence_grows_with_agreement() -> None:
    near = [post(f"p{n}", n * DAY, unit(3 * axis(0) + axis(TOPICS + n))) for n in range(9)]
    loose, tight = read(daily(0, range(9)), 9 * DAY), read(near, 9 * DAY)
    assert loose.interests[0].signal_count == tight.interests[0].signal_count == 9
    assert loose.interests[0].confidence < tight.interests[0].confidence


@pytest.mark.parametrize("action", [None, Action.VIEW, Action.CLICK, Action.PURCHASE])
@pytest.mark.parametrize("every", [1, 3, 7, 30])
def test_a_steady_stream_is_steady_whatever_its_half_life(action: Action | None, every: int) -> None:
    for days in (61, 200, 400):
        events = daily(0, range(0, days, every), action)
        assert read(events, events[-1].time).interests[0].trend is Trend.STEADY


@pytest.mark.parametrize("action", [None, Action.VIEW, Action.PURCHASE])
def test_trends(action: Action | None) -> None:
    def trend(days: Iterable[int], as_of: int) -> Trend:
        return read(daily(0, days, action), as_of * DAY).interests[0].trend

    assert trend(range(3), 3) is Trend.NEW
    assert trend([0], 9) is Trend.NEW
    assert trend([*range(0, 200, 20), *range(200, 214)], 214) is Trend.RISING
    assert trend(range(60), 120) is Trend.FADING
    assert trend([0], 60) is Trend.FADING
    # A pause no longer than the usual ones is no farewell.
    assert trend(range(0, 400, 40), 385) is Trend.STEADY


def weekly(subjects: Sequence[int], begin: int = 0) -> list[Evidence]:
    """Twice a week, on one of these subjects each time."""
    days = range(begin, begin + len(subjects) * 7 // 2, 3)
    return [post(f"w{day:04}", day * DAY, text(subject, day)) for day, subject in zip(days, subjects, strict=False)]


def test_trends_of_who_posts_twice_a_week() -> None:
    def trends(subjects: Sequence[int]) -> dict[int, Trend]:
        events = weekly(subjects)
        found = read(events, events[-1].time + DAY).interests
        return {subject: i.trend for subject in (0, 1) for i in found if i.vector[subject] > 0.7}

    usual = [0, 0, 1, 0] * 8
    assert trends(usual) == {0: Trend.STEADY, 1: Trend.STEADY}
    assert trends([*usual, 0, 0, 0, 0]) == {0: Trend.STEADY, 1: Trend.STEADY}
    assert trends([*usual, *[1, 1, 0, 1] * 3]) == {0: Trend.STEADY, 1: Trend.RISING}
    assert trends([*usual, *[0] * 20]) == {0: Trend.STEADY, 1: Trend.FADING}


def test_nothing_rises_while_its_user_is_away() -> None:
    events = weekly([*[0, 0, 1, 0] * 8, *[1, 1, 0, 1] * 3])

    def rising(days: int) -> list[Trend]:
        found = read(events, events[-1].time + days * DAY).interests
        return [i.trend for i in found if i.vector[1] > 0.7]

    assert [rising(days) for days in (1, 20, 100, 400)] == [[Trend.RISING]] * 2 + [[Trend.FADING]] * 2


def test_one_day_of_many_signals_is_no_rise() -> None:
    events = weekly([0, 1] * 12)
    day = events[-1].time // DAY + 3
    bulk = [post(f"x{n:03}", day * DAY + n * 60_000_000, text(1, 200 + n)) for n in range(40)]
    after = weekly([0], begin=day + 3)
    trends = {i.trend for i in read([*events, *bulk, *after], after[-1].time).interests}
    assert trends == {Trend.STEADY}


def test_languages_follow_use() -> None:
    events = [Evidence(f"{n:02}", n * DAY, text(0, n), language="zh" if n % 3 else "en") for n in range(9)]
    assert read(events, 9 * DAY).languages == ("zh", "en")
    switched = [*events, *(Evidence(f"x{n}", (400 + n) * DAY, text(0, n), language="en") for n in range(2))]
    assert read(switched, 402 * DAY).languages == ("en", "zh")
    # What is written in none that is known tells of none.
    unknown = [Evidence(f"y{n}", (9 + n) * DAY, text(1, n), language="und") for n in range(9)]
    assert read([*events, *unknown], 18 * DAY).languages == ("zh", "en")


@law
@given(st.lists(st.tuples(st.integers(1, 40 * 24), st.sampled_from(["zh", "en"])), min_size=1, max_size=DIMENSIONS))
def test_languages_weigh_what_was_written_in_them_and_fade_with_it(told: list[tuple[int, str]]) -> None:
    times = np.cumsum([gap for gap, _ in told]) * (DAY // 24)
    events = [
        Evidence(f"{n:03}", int(time), axis(n), language=language)
        for n, (time, (_, language)) in enumerate(zip(times, told, strict=True))
    ]
    trace = Trace()
    profile = blender().replay(events, trace)
    weight: dict[str, float] = {}
    for evidence, _, mass in trace.taken:
        faded = mass * 2.0 ** (-(int(times[-1]) - evidence.time) / blender().long_life)
        weight[evidence.language] = weight.get(evidence.language, 0.0) + faded
    assert profile.languages == pytest.approx(weight, rel=1e-9)


def test_what_is_known_of_a_user_fades_as_posts_do() -> None:
    events = daily(0, [0]) + daily(1, [90], Action.DISLIKE)
    assert [read(events, day * DAY).support for day in (90, 180)] == pytest.approx([1.5, 0.75])


def test_the_signals_that_count_as_recent_grow_fewer_though_nothing_comes() -> None:
    events = daily(0, [0] * 1) + [post(f"more{n}", n, text(1, n)) for n in range(1, 8)]
    assert [read(events, days * DAY).drift.recent_signal_count for days in (0, 5, 10, 100)] == [8, 4, 2, 0]


def test_the_first_day_fades_from_either_horizon_at_its_own_pace() -> None:
    horizons = blender().replay(daily(0, [0]) + daily(1, [10])).horizons()
    assert horizons is not None
    lengths = [horizon @ text(0, 0) - horizon @ text(1, 10) * (text(0, 0) @ text(1, 10)) for horizon in horizons]
    assert lengths == pytest.approx([2 ** (-10 / 5), 2 ** (-10 / 90)], rel=1e-5)


def test_a_profile_without_events_reads_empty() -> None:
    found = read([], 5)
    assert found.interests == ()
    assert found.fresh is None
    assert found.horizons is None
    assert found.support == 0
    assert not found.drift.detected


def test_the_fresh_horizon_forgets_first() -> None:
    events = daily(0, range(60)) + daily(1, range(60, 70))
    found = read(events, 70 * DAY)
    assert found.fresh is not None
    assert np.linalg.norm(found.fresh) == pytest.approx(1, abs=1e-5)
    assert found.fresh @ axis(1) > 0.9
    assert np.argmax(found.interests[0].vector) == 0


@law
@given(histories())
def test_horizons_are_directions_whenever_they_are_read(history: tuple[list[Event], int]) -> None:
    events, as_of = history
    mixer = blender()
    profile = mixer.replay(events)
    now, later = (view(profile, as_of + wait, mixer).horizons for wait in (0, 3000 * DAY))
    assert (now is None) == (later is None) == (profile.past is None)
    if now is not None and later is not None:
        assert now.shape == (len(HORIZONS), DIMENSIONS)
        np.testing.assert_allclose(np.linalg.norm(now, axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(now, later)


def test_the_shorter_a_horizon_the_more_it_is_of_the_last_days() -> None:
    found = read(daily(0, range(60)) + daily(1, range(60, 66)), 66 * DAY).horizons
    assert found is not None
    towards_the_new = found @ axis(1)
    assert (np.diff(towards_the_new) < 0).all()
    assert towards_the_new[0] > 0.9
    assert towards_the_new[-1] < 0.3


def test_the_latest_texts_are_told_one_by_one_newest_first() -> None:
    events = daily(0, range(6)) + daily(1, [6])
    events += [
        post("again", 7 * DAY, text(0, 5)),
        post("bad", 8 * DAY, text(2, 8), rating=-1.0),
        Evidence("seen", 9 * DAY, text(3, 9), Action.VIEW, item_id="seen"),
        Evidence("liked", 10 * DAY, text(4, 10), Action.LIKE, item_id="liked"),
        Evidence("unliked", 11 * DAY, text(4, 10), Action.UNDO, item_id="liked"),
    ]
    latest = read(events, 12 * DAY).latest
    assert latest is not None
    vectors, masses = latest
    told = [text(3, 9), text(1, 6), text(0, 5), text(0, 4), text(0, 3)]
    assert len(told) == LATEST
    np.testing.assert_allclose(vectors, np.stack(told), atol=1e-3)
    # What is said again two days later counts anew what has faded of it: as much as one text, and no more.
    np.testing.assert_allclose(masses, [0.1, 1, 1, 1, 1])
    assert read([post("bad", 0, text(2, 8), rating=-1.0)], DAY).latest is None
    assert read([], DAY).latest is None


def test_half_lives_come_from_the_settings() -> None:
    mixer = blender(post=Weighing(weight=2.0, half_life_days=10), floor=0.0)
    profile: Profile = mixer.replay(daily(0, [0], Action.DISLIKE) + daily(1, [0]))
    masses = {interest.sign: interest.mass for interest in view(profile, 20 * DAY, mixer).interests}
    # One text is believed by half.
    assert masses[1] == pytest.approx(2.0 * 2**-2 / 2)
    assert masses[-1] == pytest.approx(2 ** (-20 / 180))


def test_the_newest_signals_lead_once_drift_is_likely_however_close_in_time() -> None:
    minute = DAY // 1440
    events = [post(f"{n:03}", n * minute, text(int(n >= 60), n)) for n in range(72)]
    calm, changed = read(events[:60], DAY), read(events, DAY)
    assert calm.fresh is not None
    assert changed.fresh is not None
    assert (calm.drift.detected, changed.drift.detected) == (False, True)
    assert calm.fresh @ axis(0) > 0.9
    assert changed.fresh @ axis(1) > 0.9


def test_a_signal_named_as_a_steering_event_opens_an_interest_of_its_own() -> None:
    name = f"{STEERING}{1:012d}"
    events: list[Event] = [
        SteeringEvent(name, 0, axis(0), Steering(bias=1), topic="tea", terms=("tea",)),
        post(name, DAY, axis(1)),
        *daily(2, range(2, 4)),
    ]
    profile, contributions = explain(events, blender(), 9 * DAY)
    assert len({interest.id for interest in profile.interests}) == len(profile.interests) == 3
    assert set(contributions) == {interest.id for interest in profile.interests}


def test_a_dislike_speaks_by_its_mass_and_by_its_share_of_what_was_said() -> None:
    def against(*noes: Evidence, likes: int = 0, as_of: int = 9 * DAY) -> float:
        events = [*daily(0, range(1, 1 + likes)), *noes]
        return read(sorted(events, key=lambda event: (event.time, event.id)), as_of).interests[-1].against

    def no(action: Action, day: int = 9) -> Evidence:
        return Evidence(f"no-{day}", day * DAY, text(0, 15), action, item_id="item")

    assert against(no(Action.REPORT)) == pytest.approx(1)
    assert against(no(Action.HIDE)) == pytest.approx(0.6)
    assert against(no(Action.SKIP)) == pytest.approx(0.1)
    assert against(no(Action.REPORT), as_of=900 * DAY) < 0.1
    assert against(no(Action.REPORT, 8), no(Action.REPORT, 9)) == pytest.approx(1, abs=0.01)
    assert 0 < against(no(Action.SKIP), likes=6) < 0.01
    assert 0.1 < against(no(Action.REPORT), likes=6) < 0.3
    # Likes of something else take nothing from it.
    assert against(no(Action.HIDE), *daily(3, range(1, 7))) == pytest.approx(0.6)


def test_what_is_muted_or_wanted_less_of_speaks_against_what_is_near() -> None:
    events = daily(0, range(1, 7))
    assert steered(events, Steering(), 0, 9 * DAY)[0].against == 0
    assert steered(events, Steering(bias=1), 0, 9 * DAY)[0].against == 0
    assert steered(events, Steering(bias=-0.4), 0, 9 * DAY)[0].against == pytest.approx(0.4)
    assert steered(events, Steering(muted=True), 0, 9 * DAY)[0].against == 1
    # Less of what is disliked leaves it a whole no.
    assert steered(daily(0, [1], Action.DISLIKE), Steering(bias=-0.4), 0, DAY)[0].against == pytest.approx(1)


def test_what_was_asked_for_was_asked_for_then() -> None:
    mixer = blender()
    word = SteeringEvent("steering-1", 50 * DAY, axis(0), Steering(bias=1), topic="tea", terms=("tea",))
    _, contributions = explain([*daily(0, range(1, 7)), word], mixer, 60 * DAY)
    (found,) = contributions.values()
    assert [part.time for part in found if not part.signal_id] == [50 * DAY]
