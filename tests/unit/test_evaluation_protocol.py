"""Which questions are asked, and that nobody who answers them knows what is to come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_logs import START, like, read

from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.evaluation.baselines_simple import Random
from penchant_pipelines.evaluation.log import Past
from penchant_pipelines.evaluation.methods import DEPTH, Answer, Floats, Method, Scorer, run
from penchant_pipelines.evaluation.protocol import Phase, Query, Question, queries, replay
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal

ITEMS = [Item(id=f"i{number}", title=f"title {number}") for number in range(30)]


def only_tests(asked: list[Query]) -> list[Query]:
    return [query for query in asked if query.phase is Phase.TEST]


def test_a_day_is_one_question_however_much_happens_on_it() -> None:
    signals = [like("u", day, f"i{day}") for day in range(7)]
    signals += [like("u", 7 + hour / 24, f"i{7 + hour}") for hour in range(3)]
    log = read(ITEMS, signals)
    (only,) = only_tests(queries(log))
    assert only.question.present == START + 7 * MICROS_PER_DAY
    assert {log.catalogue.items[row].id for row in only.relevant} == {"i7", "i8", "i9"}
    assert (only.known, only.history) == (7, 7)
    assert {log.catalogue.items[row].id for row in only.question.excluded} == {f"i{n}" for n in range(7)}


def test_targets_are_new_and_not_disliked() -> None:
    signals = [like("u", day, f"i{day}") for day in range(8)]
    signals += [
        like("u", 9.1, "i3"),
        like("u", 9.2, "i20", -1.0),
        like("u", 9.3, "i21"),
        like("u", 9.4, "i22"),
        like("u", 9.5, "i22", action=Action.DISLIKE),
        like("u", 9.6, "not in the catalogue"),
    ]
    log = read(ITEMS, signals)
    last = only_tests(queries(log))[-1]
    assert [log.catalogue.items[row].id for row in last.relevant] == ["i21"]
    told = {log.catalogue.items[row].id: bool(kind) for row, kind in zip(last.question.rated, last.liked, strict=True)}
    assert told == {"i20": False, "i22": False}


def test_cold_targets_are_those_that_nobody_touched_before() -> None:
    signals = [like("u", day, f"i{day}") for day in range(9)] + [like("v", 1, "i20")]
    signals += [like("u", 10, "i20"), like("u", 10, "i21")]
    log = read(ITEMS, signals)
    last = only_tests(queries(log))[-1]
    assert [log.catalogue.items[row].id for row in last.cold] == ["i21"]


def test_an_item_not_created_yet_is_no_candidate() -> None:
    late = Item(id="late", title="late", create_time=START + 100 * MICROS_PER_DAY)
    log = read([*ITEMS, late], [like("u", day, f"i{day}") for day in range(10)])
    for query in queries(log):
        assert [log.catalogue.items[row].id for row in query.question.unborn] == ["late"]
        assert set(query.question.unborn) <= set(query.question.excluded)


def test_before_1970_what_has_no_creation_time_was_there() -> None:
    signals = [like("u", day, f"i{day}") for day in range(10)]
    early = [replace(signal, time=(signal.time or 0) - START - 100 * MICROS_PER_DAY) for signal in signals]
    log = read(ITEMS, early)
    asked = only_tests(queries(log))
    assert [len(query.relevant) for query in asked] == [1, 1, 1]
    assert (run(lambda: Random(0), log, asked).top[:, 0] >= 0).all()


def test_an_item_that_capture_refuses_is_left_out() -> None:
    log = read([*ITEMS, Item(id="blank", title="\u200b")], [like("u", 0, "i1")])
    assert (len(log.catalogue), log.left_out) == (len(ITEMS), 1)


def test_a_user_without_a_past_is_not_asked_about() -> None:
    signals = [like("u", day, f"i{day}") for day in range(10)] + [like("once", 4, "i3")]
    assert {query.question.user_id for query in queries(read(ITEMS, signals))} == {"u"}


def test_nothing_to_test_on_is_said() -> None:
    with pytest.raises(InvalidInput, match="nothing to test on"):
        queries(read(ITEMS, [like("u", 0, "i1"), like("v", 0, "i2")]))


def test_the_single_cut_needs_a_hundred_users() -> None:
    def signals(users: int) -> list[Signal]:
        return [like(f"u{user}", day + user / 1000, f"i{day}") for user in range(users) for day in range(10)]

    def cuts(users: int) -> list[Query]:
        return [query for query in queries(read(ITEMS, signals(users))) if query.phase is Phase.CUT]

    assert cuts(99) == []
    found = cuts(100)
    assert len(found) == 100
    assert len({query.question.present for query in found}) == 1
    assert all(len(query.relevant) for query in found)


class Snoop(Scorer):
    """Looks at all that it is shown."""

    name = "snoop"
    settings = ("one", "other")  # so that it is asked everything

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.latest: list[tuple[int, int]] = []

    def _look(self, past: Past) -> int:
        shown = [len(past.rows), len(past.weights), len(past.vectors), len(past.words), len(past.signals)]
        shown.append(len(past.users))
        assert set(shown) == {len(past)}
        places = [past.of(user) for user in range(past.user_count)]
        assert sum(map(len, places)) == len(past)
        assert past.popularity.sum() == len(past.favours)
        assert past.matrix.sum() <= len(past.favours)
        return int(past.times.max(initial=-1))

    def learn(self, past: Past) -> None:
        self.learnt = self._look(past)

    def score(self, past: Past, question: Question) -> Floats:
        self.latest.append((question.present, max(self.learnt, self._look(past))))
        return np.zeros((2, len(past.catalogue)))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 23), st.integers(0, 29)),
        min_size=12,
        max_size=60,
        unique=True,
    )
)
def test_no_method_is_shown_a_signal_of_the_day_asked_about_or_later(
    drawn: list[tuple[str, int, int, int]],
) -> None:
    log = read(ITEMS, [like(user, day + hour / 24, f"i{item}") for user, day, hour, item in drawn])
    try:
        asked = queries(log)
    except InvalidInput:
        return
    snoop = Snoop(0)
    run(lambda: snoop, log, asked)
    assert len(snoop.latest) == len(asked)
    for present, latest in snoop.latest:
        assert present % MICROS_PER_DAY == 0
        assert latest < present
    for past, moment in replay(log, asked):
        for query in moment:
            user, present = query.question.user, query.question.present
            before = log.rows[(log.users == user) & (log.times < present)]
            after = log.rows[(log.users == user) & (log.times // MICROS_PER_DAY == present // MICROS_PER_DAY)]
            assert len(past) == (log.times < present).sum()
            assert set(query.relevant) == set(after) - set(before)


@pytest.mark.parametrize("later", ["i020", "i021"])
def test_no_setting_is_chosen_by_what_comes_after_a_cut_within_its_day(later: str) -> None:
    items = [Item(id=f"i{number:03}", text=f"thing {number}") for number in range(60)]
    signals = [like(f"u{user}", day + user / 1e6, f"i{day:03}") for user in range(100) for day in range(9)]
    signals += [like(f"u{user}", 20.05 + user / 1e6, "i010") for user in range(30)]
    log = read(items, signals + [like(f"u{user}", 20.8 + user / 1e6, later) for user in range(100)])
    asked = queries(log)
    rows = {item.id: row for row, item in enumerate(log.catalogue.items)}

    class Either(Method):
        name = "either"
        settings = ("i020", "neither", "i021")

        def answer(self, past: Past, question: Question) -> Answer:
            top = np.full((3, DEPTH), -1)
            top[:, 0] = [rows["i020"], rows["i055"], rows["i021"]]
            return Answer(top, np.zeros((3, len(question.rated))), np.full((3, DEPTH), -1))

    found = run(Either, log, asked)
    cut = [place for place, query in enumerate(asked) if query.phase is Phase.CUT]
    assert len(cut) == 100
    assert {Either.settings[found.chosen[place]] for place in cut} == {"neither"}


@pytest.mark.parametrize("count", [5, 10, 15, 20, 30, 40])
def test_the_tuning_part_begins_where_four_tenths_end(count: int) -> None:
    items = [Item(id=f"i{number}", text=f"thing {number}") for number in range(count)]
    log = read(items, [like("u", number, f"i{number}") for number in range(count)])
    asked = queries(log)
    assert asked[0].phase is Phase.TUNING
    assert asked[0].history == 2 * count // 5


def test_settings_are_chosen_by_earlier_days_only() -> None:
    """One setting is right on every odd day, the other on every even one: who knew the day would always be right."""

    class Turns(Scorer):
        name = "turns"
        settings = ("odd", "even")

        def score(self, past: Past, question: Question) -> Floats:
            day = question.present // MICROS_PER_DAY
            rows = {item.id: row for row, item in enumerate(past.catalogue.items)}
            scores = np.zeros((2, len(past.catalogue)))
            scores[1 - day % 2, rows[f"i{day - START // MICROS_PER_DAY}"]] = 1.0
            return scores

    log = read(ITEMS, [like("u", day, f"i{day}") for day in range(30)])
    asked = queries(log)
    found = run(lambda: Turns(0), log, asked)
    assert found.by_setting.max(axis=1).tolist() == [1.0] * len(asked)
    means = np.cumsum(found.by_setting, axis=0)
    for place in range(1, len(asked)):
        before = means[place - 1]
        assert before[found.chosen[place]] == before.max()


@pytest.mark.parametrize("settings", [("",), ("one", "other")])
def test_who_has_no_setting_to_choose_is_asked_for_what_is_measured_alone(settings: tuple[str, ...]) -> None:
    heard = []

    class Asked(Scorer):
        name = "asked"

        def score(self, past: Past, question: Question) -> Floats:
            heard.append(question.present)
            return np.zeros((len(settings), len(past.catalogue)))

    def mark(day: int) -> Signal:
        rated = Signal(f"s{day}", "u", Post("A story", item_id=f"i{day}", rating=5.0), START + day * MICROS_PER_DAY)
        return rated if day % 2 else like("u", day, f"i{day}")

    Asked.settings = settings
    asked = queries(read(ITEMS, [mark(day) for day in range(30)]))
    found = run(lambda: Asked(0), read(ITEMS, [mark(day) for day in range(30)]), asked)
    listed = [query.phase is not Phase.TUNING or len(settings) > 1 for query in asked]
    assert (found.top[:, 0] >= 0).tolist() == listed
    assert len(set(listed)) == 3 - len(settings)
    rated = [len(query.question.rated) for query in asked]
    assert [len(ratings) for ratings in found.ratings] == rated
    told = [query.question.present for query, list_, some in zip(asked, listed, rated, strict=True) if list_ or some]
    assert heard == told
    assert len(told) < len(asked) or len(settings) > 1


def test_what_capture_would_refuse_is_left_out() -> None:
    signals = [like("u", day, f"i{day}") for day in range(10)]
    empty = Signal("empty", "u", Post("https://example.org"), START)
    log = read([*ITEMS, Item(id="nameless")], [*signals, empty])
    assert log.left_out == 2
    assert len(log.signals) == 10
    with pytest.raises(InvalidInput, match="time"):
        read(ITEMS, [Signal("s", "u", Behavior("i1", Action.LIKE))])


def test_a_post_that_blames_weighs_what_capture_gives_it_and_is_no_verdict() -> None:
    posts = [
        Post("A wonderful, brilliant story", item_id="i1"),
        Post("A boring book and a waste of time", item_id="i1"),
        Post("Please stop showing me these", item_id="i1"),
        Post("Please stop showing me these", item_id="i1", rating=1.0),
    ]
    log = read(ITEMS, [Signal(f"s{place}", "u", post, START + place) for place, post in enumerate(posts)])
    praise, blame, refusal, rated = log.weights
    assert 0 < blame < praise / 5
    assert refusal < -praise / 2
    assert praise == rated
    assert log.verdicts.tolist() == [-1, -1, -1, 1]


def test_what_was_born_after_the_user_came_is_neither_candidate_nor_right_answer() -> None:
    newborn = Item(id="newborn", title="new", create_time=START + 19 * MICROS_PER_DAY // 2 + 1)
    known = Item(id="known", title="known", create_time=START + 19 * MICROS_PER_DAY // 2)
    signals = [like("u", day, f"i{day}") for day in range(9)]
    signals += [like("u", 9.5, each, 1.0) for each in ("newborn", "known", "i20")]
    log = read([*ITEMS, newborn, known], signals)
    last = only_tests(queries(log))[-1]
    names = np.array([item.id for item in log.catalogue.items])
    assert names[last.question.unborn].tolist() == ["newborn"]
    assert set(last.question.unborn) <= set(last.question.excluded)
    assert set(names[last.relevant]) == set(names[last.question.rated]) == {"known", "i20"}


def test_what_is_born_after_the_single_cut_is_no_answer_to_it() -> None:
    late = Item(id="late", title="late", create_time=START + 19 * MICROS_PER_DAY + MICROS_PER_DAY // 5)
    users = range(101)
    signals = [like(f"u{user}", day + user / 1000, f"i{day}") for user in users for day in range(20)]
    signals += [like(f"u{user}", 19.9, "late") for user in users]
    log = read([*ITEMS, late], signals)
    cuts = [query for query in queries(log) if query.phase is Phase.CUT]
    row = [item.id for item in log.catalogue.items].index("late")
    assert len(cuts) >= 100
    assert all(len(query.relevant) and row in query.question.unborn and row not in query.relevant for query in cuts)


def test_what_was_taken_back_is_no_answer_and_known_until_then() -> None:
    signals = [like("u", day, f"i{day}") for day in range(9)]
    signals += [
        like("u", 9.1, "i20", 1.0),
        like("u", 9.2, "i21", 1.0),
        like("u", 9.3, "i20", action=Action.UNDO),
        like("u", 9.4, "i22", action=Action.UNDO),
        like("u", 9.5, "i23", 1.0),
        like("u", 10.1, "i24"),
        like("u", 10.2, "i23", action=Action.UNDO),
        like("u", 11, "i23"),
    ]
    log = read(ITEMS, signals)
    names = np.array([item.id for item in log.catalogue.items])
    ninth, tenth, last = only_tests(queries(log))[-3:]
    assert names[ninth.relevant].tolist() == names[ninth.question.rated].tolist() == ["i21"]
    assert "i23" in names[tenth.question.excluded]
    assert names[last.relevant].tolist() == ["i23"]
    known = {query.known: past for past, moment in replay(log, [tenth, last]) for query in moment}
    liked = [set(names[known[query.known].rows[known[query.known].favours]]) for query in (tenth, last)]
    assert [{"i20", "i21", "i22", "i23"} & each for each in liked] == [{"i21", "i23"}, {"i21"}]
    assert [names[row] for row in np.flatnonzero(known[last.known].touched) if names[row] in {"i20", "i22"}] == []
    assert len(known[last.known].signals) == last.known


def test_each_undo_takes_back_one_action_of_its_own_user() -> None:
    undo = Action.UNDO
    signals = [like("u", 0, "i1"), like("v", 0.5, "i1"), like("u", 1, "i1", action=undo)]
    signals += [like("u", 2, "i1"), like("u", 3, "i1", action=undo), like("u", 4, "i1", action=undo)]
    log = read(ITEMS, signals)
    assert log.taken_back.tolist() == [2, len(signals), 2, 4, 4, 5]


def test_an_undo_of_the_same_time_takes_back_what_the_engine_takes_back() -> None:
    signals = [like("u", 1, "i1"), like("u", 2, "i2", action=Action.UNDO), like("u", 2, "i2")]
    signals = [replace(signal, id=name) for signal, name in zip(signals, ["first", "a", "b"], strict=True)]
    log = read(ITEMS, signals)
    assert [(signal.id, bool(kept)) for signal, kept in zip(log.signals, log.standing, strict=True)] == [
        ("first", True),
        ("b", False),
        ("a", False),
    ]


def test_a_post_weighs_what_it_does_when_it_is_captured() -> None:
    said = {"lol": 0.0, "Good morning! Sooo tired": 0.0, "Trail running in the hills": 1.0}
    posts = [Signal(f"p{number}", "u", Post(text), START + number) for number, text in enumerate(said)]
    about = Signal("q", "u", Post("lol", item_id="i1"), START + 9)
    assert read(ITEMS, [*posts, about]).weights.tolist() == [*said.values(), 1.0]
