"""From a log to pairs: reading, splitting, pairing, hard negatives, synthetic pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_logs import read

from penchant_finetune.corpus import TEST, TRAIN, VALIDATION, Corpus, Split, make_corpus, measurable
from penchant_finetune.log import Log, read_log
from penchant_finetune.negatives import FIRST_RANK, LAST_RANK, MARGIN, mine
from penchant_finetune.pairs import BULK, KINDS, PARTNERS, Pairs, build_graded, build_pairs, touched
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.evaluation.log import places_by_user
from penchant_pipelines.evaluation.protocol import Phase, queries, single_cut
from penchant_pipelines.interests import Calibration, InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal
from penchant_pipelines.text import TextPipeline, TextSettings

TEXT = TextPipeline(TextSettings())
DAY = MICROS_PER_DAY


def item(number: int) -> Item:
    return Item(id=f"i{number}", title=f"item number {number}")


def liked(user: str, day: float, number: int, value: float | None = None, action: Action = Action.LIKE) -> Signal:
    return Signal(f"{user}-{day}-{number}-{action}", user, Behavior(f"i{number}", action, value), round(day * DAY))


def wrote(user: str, day: float, text: str, number: int | None = None, rating: float | None = None) -> Signal:
    post = Post(text, item_id="" if number is None else f"i{number}", rating=rating)
    return Signal(f"{user}-{day}-{text}", user, post, round(day * DAY))


def log_of(signals: list[Signal], items: int = 60) -> Log:
    return read_log([item(number) for number in range(items)], signals, TEXT)


def corpus_of(
    signals: list[Signal], split: Split | None = "time", shares: tuple[float, float] = (0.8, 0.9), items: int = 60
) -> Corpus:
    return make_corpus(log_of(signals, items), InterestSettings(), split, shares)


def filler(start: float) -> list[Signal]:
    """One more user, whose signals are validation and test."""
    return [liked("z", start + day, 50 + day) for day in range(8)]


def rows_of(corpus: Corpus) -> Callable[[str], int]:
    def row(text: str) -> int:
        if text not in corpus.texts:
            corpus.texts.append(text)
        return corpus.texts.index(text)

    return row


def level(similarity: float, vectors: NDArray[np.float32]) -> Calibration:
    return Calibration(similarity, np.zeros(vectors.shape[1], np.float32))


def pairs_of(corpus: Corpus, similarity: float = 2.0, window: float = 7.0, most: int = 1000) -> Pairs:
    """Pairs with vectors that are all at right angles: no neighbours unless `similarity` allows any."""
    vectors = np.eye(len(corpus.texts), dtype=np.float32)
    return build_pairs(corpus, vectors, level(similarity, vectors), window, most, rows_of(corpus), seed=0)


def written(corpus: Corpus, pairs: Pairs, kind: str) -> set[tuple[str, str]]:
    chosen = pairs.take(np.flatnonzero(pairs.kinds == KINDS.index(kind)))
    return {
        (corpus.texts[anchor], corpus.texts[positive])
        for anchor, positive in zip(chosen.anchors, chosen.positives, strict=True)
    }


# -- reading -----------------------------------------------------------------------------------------------------


def test_texts_are_read_as_capture_reads_them() -> None:
    log = read_log(
        [Item(id="i0", title="跑鞋", text="跑鞋 越野"), Item(id="i1", title="!!!")],
        [wrote("mei", 1, "看看這雙 #跑鞋# https://example.com", 0), wrote("mei", 2, "hello @you")],
        TEXT,
    )
    assert [entry.text for entry in log.items] == [TEXT.read("跑鞋 越野").text, "!!!"]
    assert log.signals[0].text == TEXT.read("看看這雙 #跑鞋# https://example.com").text
    assert "看看这双" in log.signals[0].text
    assert log.signals[0].hashtags == (("跑鞋", "看看这双"),)


def test_ids_count_once_users_are_numbers_and_what_undoes_is_left_out() -> None:
    again = liked("b", 1, 3)
    other = replace(again, evidence=Behavior("i7", Action.LIKE))  # the server refuses it
    signals = [liked("b", 2, 4), again, again, other, liked("a", 3, 5), liked("a", 4, 5, action=Action.UNDO)]
    log = log_of(signals)
    assert [(entry.user, entry.item_id) for entry in log.signals] == [(1, "i3"), (1, "i4"), (0, "i5")]
    assert [entry.undone for entry in log.signals] == [None, None, 4 * DAY]
    assert log.moments == ((1, DAY), (1, 2 * DAY), (0, 3 * DAY), (0, 4 * DAY))
    assert [signal.item_id for signal in read([item(3)], signals[:4]).signals] == ["i3", "i4"]


@pytest.mark.parametrize(
    ("items", "signals", "said"),
    [
        ([item(0)], [], "signals: are none"),
        ([], [wrote("a", 1, "hello")], "items: are none"),
        ([item(0)], [Signal("s", "a", Post("hello"))], "signal 's', time: is missing"),
        ([Item(id="x")], [wrote("a", 1, "hello")], "item 'x', text: needs words"),
        ([item(0)], [wrote("a", 1, "\x00\x01\x02" * 50)], "signal 'a-1-.*', post.text: looks"),
    ],
)
def test_what_can_not_be_learnt_from_is_refused(items: list[Item], signals: list[Signal], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_log(items, signals, TEXT)


def test_what_the_server_would_refuse_is_told_and_left_out() -> None:
    told: list[str] = []
    timeless = Signal("s", "a", Post("hello"))
    signals = [timeless, wrote("a", 1, "\x00\x01\x02" * 50), wrote("a", 2, "hiking"), wrote("b", 1, "jazz")]
    log = read_log([Item(id="x"), item(0)], signals, TEXT, lambda error: told.append(error.message))
    assert [entry.id for entry in log.items] == ["i0"]
    assert [entry.text for entry in log.signals] == ["jazz", "hiking"]
    named = ["item 'x', text", "signal 's', time", f"signal {signals[1].id!r}, post.text"]
    assert [": ".join(each.split(": ")[:1]) for each in told] == named


# -- splitting ---------------------------------------------------------------------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> list[Signal]:
    count = draw(st.integers(12, 40))
    entries = [(draw(st.sampled_from("abc")), draw(st.integers(0, 30)), draw(st.integers(0, 20))) for _ in range(count)]
    return [liked(user, day, number) for user, day, number in dict.fromkeys(entries)]


def undone(signals: list[Signal], count: int) -> list[Signal]:
    """What takes the first of these back at once: signals that stand are then of later days than all signals."""
    first = sorted(signals, key=lambda signal: signal.time or 0)[:count]
    return [replace(each, id=f"undo {each.id}", evidence=Behavior(each.item_id, Action.UNDO)) for each in first]


@given(logs(), st.sampled_from(["time", "user"]))
def test_nothing_learnt_lies_after_what_is_measured(signals: list[Signal], split: Split) -> None:
    try:
        corpus = corpus_of(signals, split, (0.6, 0.8))
    except InvalidInput:
        return
    for part, later in ((TRAIN, VALIDATION), (VALIDATION, TEST)):
        for user in np.unique(corpus.users) if split == "user" else [None]:
            own = np.ones(len(corpus.users), dtype=bool) if user is None else corpus.users == user
            before, after = (corpus.times[own & (corpus.parts == which)] for which in (part, later))
            assert not len(before) or not len(after) or before.max() < after.min()
    train = pairs_of(corpus)
    learnt = {(int(user), int(text)) for user, text in touched(corpus)}
    for user, *texts in zip(train.users, train.anchors, train.positives, strict=True):
        assert {(int(user), int(text)) for text in texts} <= learnt
    assert all(anchor != positive for anchor, positive in zip(train.anchors, train.positives, strict=True))


def test_few_users_are_split_each_at_a_time_of_their_own() -> None:
    # One after the other: at any one moment nobody has signals on both sides but one.
    apart = [liked(user, 100 * number + day, day) for number, user in enumerate("abcd") for day in range(20)]
    corpus = corpus_of(apart, None)
    assert corpus.split == "user"
    assert len(measurable(corpus)) == 4
    with pytest.raises(InvalidInput, match="nobody to measure"):
        corpus_of([*apart, *(liked(f"n{day}", 900 + day, day) for day in range(40))], "time")
    together = [liked(f"u{user}", day, (user + day) % 60) for user in range(30) for day in range(20)]
    assert corpus_of(together, None).split == "time"


@given(logs(), st.integers(0, 23), st.integers(0, 12))
def test_by_user_nothing_is_learnt_that_the_last_part_asks_about(
    signals: list[Signal], hours: int, taken_back: int
) -> None:
    signals = [replace(signal, time=(signal.time or 0) * 5 // 24 + hours * DAY // 24) for signal in signals]
    signals += undone(signals, taken_back)
    items = [item(number) for number in range(20)]
    try:
        corpus = corpus_of(signals, "user", (0.6, 0.7))
        asked = [query.question for query in queries(read(items, signals)) if query.phase is Phase.TEST]
    except InvalidInput:
        return
    for question in asked:
        assert (corpus.parts[(corpus.users == question.user) & (corpus.times >= question.present)] == TEST).all()


@given(logs(), st.integers(0, 12))
def test_by_time_nothing_is_learnt_that_a_single_cut_asks_about(signals: list[Signal], taken_back: int) -> None:
    signals += undone(signals, taken_back)
    signals.append(wrote("a", 30, "!!!"))  # which capture refuses
    log = read([item(number) for number in range(20)], signals)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penchant_pipelines.evaluation.protocol.FEWEST_USERS_OF_A_CUT", 1)
        asked = single_cut(log, places_by_user(log))
    try:
        corpus = corpus_of(signals, "time", (0.8, 0.9))
    except InvalidInput:
        return
    for query in asked:
        assert (corpus.parts[corpus.times >= query.question.present] == TEST).all()


# -- pairs -------------------------------------------------------------------------------------------------------


def test_a_post_goes_with_its_item_unless_it_damns_it() -> None:
    signals = [wrote("a", 1, "lovely thing", 1), wrote("a", 2, "awful thing", 2, rating=-1.0), *filler(3)]
    corpus = corpus_of(signals, shares=(0.5, 0.8))
    train = pairs_of(corpus)
    assert written(corpus, train, "post-item") == {("lovely thing", "item number 1")}


def test_items_go_together_within_the_window_and_one_user() -> None:
    signals = [liked("a", 0, 1), liked("a", 6, 2), liked("a", 20, 3), liked("b", 0.5, 4), liked("a", 1, 5, value=-1.0)]
    corpus = corpus_of([*signals, *filler(30)], shares=(0.45, 0.8))
    train = pairs_of(corpus)
    assert written(corpus, train, "co-engagement") == {("item number 1", "item number 2")}
    # Others end in the validation part or lie in the test part, and may not be learnt from.
    assert set(train.users.tolist()) == {0}
    assert len(pairs_of(corpus, window=14.0)) == 2


@pytest.mark.parametrize("when", [TRAIN, VALIDATION, TEST])
def test_what_is_taken_back_counts_until_the_part_in_which_it_is(when: int) -> None:
    signals = [liked("a", 0, 1), liked("a", 1, 2), liked("a", 2, 3, value=-1.0), *filler(30)]
    signals.append(liked("a", (3, 31, 36)[when], 1, action=Action.UNDO))
    corpus = corpus_of(signals, shares=(0.4, 0.7))
    assert corpus.undone_in[0] == when
    own = touched(corpus)
    learnt = pairs_of(corpus), build_graded(corpus, 100, seed=0), own[own[:, 0] == 0]
    assert [len(each) for each in learnt] == ([0, 1, 2] if when == TRAIN else [1, 2, 3])
    by_user = corpus_of(signals, "user", (0.4, 0.7))
    assert by_user.undone_in[0] == TEST


def test_what_names_nothing_goes_with_nothing() -> None:
    said = [wrote("a", day, text) for day, text in enumerate(("running uphill", "lol", "tomato soup", "早安"))]
    # A post about an item tells at least that.
    corpus = corpus_of([*said, wrote("a", 4, "lol", 1), *filler(30)], shares=(0.5, 0.8))
    assert corpus.grades[:5].tolist() == [1, 0, 1, 0, 1]
    neighbours = written(corpus, pairs_of(corpus, similarity=-1.0), "neighbours")
    assert neighbours == {("running uphill", "tomato soup"), ("tomato soup", "lol")}


def test_bulk_marks_give_no_more_pairs_than_their_day_is_worth() -> None:
    corpus = corpus_of([*(liked("a", 1, number) for number in range(200)), *filler(2)], shares=(0.97, 0.98), items=200)
    train = pairs_of(corpus)
    assert len(train) <= BULK * PARTNERS


def test_users_with_many_pairs_are_thinned_most() -> None:
    many = [liked("a", day, day % 60) for day in range(55)]
    few = [liked(f"u{user}", day, (user + 7 * day) % 60) for user in range(8) for day in range(3)]
    corpus = corpus_of([*many, *few, *filler(60)], shares=(0.93, 0.96))
    everything = pairs_of(corpus)
    thinned = pairs_of(corpus, most=60)
    assert len(thinned) == 60

    def share(pairs: Pairs) -> float:
        return float((pairs.users == 0).mean())

    assert 0.3 < share(thinned) < share(everything) - 0.1


def test_neighbours_are_on_one_interest() -> None:
    signals = [wrote("a", day, text) for day, text in enumerate(("running uphill", "tomato soup", "running downhill"))]
    corpus = corpus_of([*signals, *filler(30)], shares=(0.4, 0.8))
    vectors = np.eye(len(corpus.texts), dtype=np.float32)
    first, third = (corpus.texts.index(text) for text in ("running uphill", "running downhill"))
    vectors[third] = 0.8 * vectors[first] + 0.6 * vectors[third]
    train = build_pairs(corpus, vectors, level(0.5, vectors), 7.0, 1000, rows_of(corpus), seed=0)
    assert written(corpus, train, "neighbours") == {("running uphill", "running downhill")}


def test_a_hashtag_goes_with_the_rest_of_its_post() -> None:
    signals = [wrote("a", 0, "up at dawn #TrailRunning in the hills"), wrote("a", 1, "#alone"), *filler(3)]
    corpus = corpus_of(signals, shares=(0.4, 0.8))
    train = pairs_of(corpus)
    assert written(corpus, train, "hashtag") == {("Trail Running", "up at dawn in the hills")}


def test_a_hashtag_leaves_what_only_looks_like_it_in_its_post() -> None:
    signals = [
        wrote("a", 0, "started a painting, the art of patience #art #oil"),
        wrote("a", 1, "看看這雙新鞋 #登山鞋#"),
        *filler(3),
    ]
    corpus = corpus_of(signals, shares=(0.4, 0.8))
    assert written(corpus, pairs_of(corpus), "hashtag") == {
        ("art", "started a painting, the art of patience oil"),
        ("oil", "started a painting, the art of patience art"),
        ("登山鞋", "看看这双新鞋"),
    }


def test_a_traditional_hashtag_is_learnt_as_it_is_read() -> None:
    signals = [wrote("a", 0, "這個週末去爬山,天氣很好 #戶外運動#"), *filler(3)]
    corpus = corpus_of(signals, shares=(0.4, 0.8))
    assert written(corpus, pairs_of(corpus), "hashtag") == {("户外运动", "这个周末去爬山,天气很好")}


def test_grades_put_what_was_liked_best_first() -> None:
    signals = [liked("a", 0, 1, 1.0), liked("a", 1, 2, 0.2), wrote("a", 2, "no", 3, rating=-1.0), liked("b", 0, 4, 1.0)]
    corpus = corpus_of([*signals, *filler(30)], shares=(0.4, 0.8))
    graded = build_graded(corpus, 100, seed=0)
    found = {corpus.texts[other]: float(score) for other, score in zip(graded.second, graded.scores, strict=True)}
    assert {corpus.texts[first] for first in graded.first} == {"item number 1"}
    assert found["item number 3"] == 0.0
    assert 0.5 < found["item number 2"] < 1
    assert set(found) == {"item number 2", "item number 3"}


# -- hard negatives ----------------------------------------------------------------------------------------------


def test_hard_negatives_are_near_but_nobodys_positives() -> None:
    draw = np.random.default_rng(3)
    vectors = draw.standard_normal((120, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = np.arange(20, 120)
    anchors = np.arange(20)
    near = np.argsort(-(vectors[anchors] @ vectors[items].T), axis=1)
    positives = items[near[:, 5]]
    none = np.full(20, -1)
    pairs = Pairs(anchors, positives, none, anchors % 4, np.zeros(20, dtype=np.int64))
    # User 0 touched what lies at ranks 10 to 14 of their first anchor.
    own = np.array([(0, text) for text in items[near[0, 9:14]]])
    mined = mine(pairs, vectors, items, own, seed=0)
    assert (mined.negatives >= 0).all()
    for row, negative in enumerate(mined.negatives):
        rank = int(np.flatnonzero(items[near[row]] == negative)[0]) + 1
        assert FIRST_RANK <= rank <= LAST_RANK
        assert vectors[row] @ vectors[negative] < MARGIN * (vectors[row] @ vectors[positives[row]])
        assert (row % 4, negative) not in set(map(tuple, own.tolist()))
    # Where the positive itself is far, all that is near may be meant: better no negative than a wrong one.
    far = mine(Pairs(anchors, items[near[:, -1]], none, anchors, none), vectors, items, own, seed=0)
    assert (far.negatives == -1).all()
