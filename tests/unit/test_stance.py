"""Stance: learns likes from dislikes, says nothing where it is not sure, and refuses broken weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy import sparse

from penchant_finetune.stance import (
    Examples,
    Review,
    auc,
    held_back,
    make_examples,
    read_reviews,
    sure_blame,
    train_stance,
    unseen_sure,
)
from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.model import Action, Behavior, Post, Signal
from penchant_pipelines.stance import BUCKETS, COUNTS, FORMAT, Head, Stance, open_stance, read_words
from penchant_pipelines.text import TextPipeline, TextSettings

TEXT = TextPipeline(TextSettings())
PLAIN = ("book", "story", "chapter", "author", "page", "plot", "hero", "city", "river", "train")


def made_up_reviews(count: int = 300) -> list[Review]:
    """Reviews whose stance shows in words that no list of polar words holds, and in noise that tells nothing."""
    dice = np.random.default_rng(5)
    found = []
    for number in range(count):
        rating = [1.0, -1.0, 0.5, -0.5, 0.0][number % 5]
        telling = "zorp" if rating > 0 else "quib"
        words = [*dice.choice(PLAIN, 6), telling if rating and dice.random() < 0.8 else "lamp"]
        found.append(Review(" ".join(words), tuple(words), "en", f"u{number % 12}", number, rating))
    return found


Trained = tuple[Stance, dict[str, dict[str, object]], Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("stance")
    stance, report = train_stance(made_up_reviews(), folder)
    return stance, report, folder / "stance.safetensors"


def test_it_learns_what_reviews_tell(trained: Trained) -> None:
    stance, report, _ = trained
    assert report["en"]["auc"][0] > 0.85  # type: ignore[index]
    assert "refused" in report["zh"]
    assert stance.blame(("the", "plot", "zorp"), "en") is None
    blame = stance.blame(("the", "plot", "quib"), "en-GB")
    assert blame is not None
    assert -1 <= blame < 0
    good, bad = (stance.heads["en"].score(read_words(("the", "plot", word))) for word in ("zorp", "quib"))
    assert bad < 0 < good


def constant_head(score: float, limit: float = -1.0) -> Head:
    """A head whose score is the same whatever it reads, sure of blame up to a limit."""
    return Head(
        np.zeros(BUCKETS, dtype=np.float16),
        np.array([score, 0, 0, 0], dtype=np.float32),
        np.array([limit, -0.5], dtype=np.float32),
    )


@pytest.mark.parametrize(("score", "expected"), [(5.0, None), (0.0, None), (-0.9, None), (-1.0, -0.5), (-30, -0.5)])
def test_it_blames_only_where_it_is_sure(score: float, expected: float | None) -> None:
    assert Stance({"en": constant_head(score)}).blame(("words",), "en") == expected


def test_it_says_nothing_without_words_or_in_a_language_not_learnt(trained: Trained) -> None:
    stance = trained[0]
    assert stance.blame((), "en") is None
    assert stance.blame(("quib",), "zh") is None
    assert not stance.can_blame("zh")
    assert stance.can_blame("en-GB")


def test_a_head_that_is_never_sure_needs_no_words() -> None:
    stance = Stance({"en": constant_head(-30, limit=-np.inf)})
    assert not stance.can_blame("en")
    assert stance.blame(("words",), "en") is None


def test_it_is_sure_only_where_ratings_are_low_on_the_mean() -> None:
    values = np.arange(200, dtype=np.float64)
    ratings = np.where(values < 60, -0.5, 0.8)
    limit, rating = sure_blame(values, ratings)
    assert 60 <= limit < 100
    assert -0.5 < rating < 0
    assert sure_blame(values, np.full(200, 0.3)) == (-np.inf, 0.0)
    assert sure_blame(values[:15], np.full(15, -1.0)) == (-np.inf, 0.0)


def test_saved_and_loaded_it_answers_the_same(trained: Trained) -> None:
    stance, _, path = trained
    loaded = Stance.load(path)
    assert path.stat().st_size < 300_000
    for review in made_up_reviews(40):
        assert loaded.blame(review.words, "en") == stance.blame(review.words, "en")
        read = read_words(review.words)
        assert loaded.heads["en"].score(read) == stance.heads["en"].score(read)


def test_the_heads_that_ship_tell_a_damning_review_from_a_question() -> None:
    stance = open_stance()
    for text, damns in (
        ("I hated this book, boring and a waste of time", True),
        ("A wonderful, brilliant story", False),
        ("Who doesn't love a good sunset?", False),
        ("Pizza! Who wouldn’t like pizza?", False),
        ("Which lens is best for the night sky?", False),
        ("Breaking Bad rewatch", False),
        ("Bad Bunny tonight!", False),
        ("never had better ramen", False),
        ("nothing beats a good espresso", False),
        ("Love Island is trash", True),
        ("SO BORED, I HATE IT", True),
    ):
        assert (stance.blame(TEXT.segment(text), "en") is not None) == damns
    texts = ("太难看了，浪费时间", "太好看了，推荐")
    bad, good = (stance.heads["zh"].score(read_words(TEXT.segment(text))) for text in texts)
    assert bad < 0 < good


@pytest.mark.parametrize(
    ("praise", "blame"),
    [
        ("I loved it, wonderful", "I hated it, terrible"),
        ("not boring at all", "boring"),
        ("it isn't bad", "it isn't good"),
        ("太好看了，推荐", "太难看了，浪费时间"),
        ("一点都不无聊", "很无聊"),
        ("好看", "不好看"),
        ("很有意思", "没意思"),
        ("who doesn't like it", "for people who don't like it"),
    ],
)
def test_polar_words_are_counted_with_their_negation(praise: str, blame: str) -> None:
    good, bad = (read_words(TEXT.segment(text)).counts[1] for text in (praise, blame))
    assert good > 0 > bad


def test_a_negation_reaches_no_further_than_its_sentence() -> None:
    near, far = (read_words(TEXT.segment(text)).counts[1] for text in ("Not that good", "No. Good"))
    assert near < 0 < far


@given(st.lists(st.text(max_size=12), max_size=30))
def test_any_words_can_be_read(words: list[str]) -> None:
    found = read_words(words)
    assert found.counts.shape == (COUNTS,)
    assert np.isfinite(found.counts).all()
    assert len(set(found.buckets.tolist())) == len(found.buckets)
    assert all(0 <= bucket < BUCKETS for bucket in found.buckets)


def test_reviews_are_posts_with_a_rating_in_the_language_they_declare() -> None:
    english = "A wonderful story about the sea, I loved every page of it."
    signals = [
        Signal("1", "u", Post(english, "en", "i", 1.0), 1),
        Signal("2", "u", Post(english, "en", "i"), 2),
        Signal("3", "u", Post("En rigtig god bog om havet, som jeg læste på en dag.", "en", "i", 1.0), 3),
        Signal("4", "u", Post("非常好看的一本书，推荐给大家", "", "i", 1.0), 4),
        Signal("5", "u", Behavior("i", Action.LIKE, 1.0), 5),
    ]
    assert [(review.time, review.language) for review in read_reviews(signals, TEXT)] == [(1, "en"), (4, "zh")]


def test_held_back_are_whole_authors_and_what_is_latest() -> None:
    examples = make_examples(made_up_reviews(), "en")
    held = held_back(examples)
    train = examples.part(~held)
    authors = {user for user in examples.users if user not in set(train.users)}
    assert authors
    assert train.times.max() <= np.quantile(examples.times, 0.8)
    assert 0.2 < held.mean() < 0.7


def rated(ratings: list[float], users: str) -> Examples:
    """Reviews of which nothing but rating and author matters."""
    count = len(ratings)
    return Examples(
        sparse.csr_matrix((count, BUCKETS)),
        np.zeros((count, COUNTS), dtype=np.float32),
        np.array(ratings, dtype=np.float64),
        np.array(list(users)),
        np.arange(count, dtype=np.int64),
    )


def test_too_few_reviews_are_refused() -> None:
    with pytest.raises(InvalidInput, match="disliking"):
        train_stance(made_up_reviews(20))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    examples = rated([1, 1, -1, -1, 0], "abcde")
    found = auc(examples, np.array([0.9, 0.4, 0.4, 0.1, 5.0]))
    assert found is not None
    assert found[0] == 0.875
    assert auc(rated([1], "a"), np.array([1.0])) is None


def test_what_one_author_says_often_is_said_once() -> None:
    examples = rated([1, -1] * 100, "a" * 100 + "b" * 100)
    # One author's are all in order, the other's all the wrong way round.
    values = examples.ratings * np.where(examples.users == "a", 1, -1)
    assert auc(examples, values) == [0.5, 0.0, 1.0]


def test_whether_an_author_is_blamed_depends_on_others_alone() -> None:
    examples = make_examples(made_up_reviews(), "en")
    own = examples.users == "u0"
    before = unseen_sure(examples)
    assert before[own].any()
    after = unseen_sure(dataclasses.replace(examples, ratings=np.where(own, 1.0, examples.ratings)))
    np.testing.assert_array_equal(before[own], after[own])


def test_broken_weights_are_refused(trained: Trained, tmp_path: Path) -> None:
    whole = load_file(trained[2])
    header = {"format": FORMAT, "languages": '["en"]'}
    path = tmp_path / "stance.safetensors"

    def refused(weights: dict[str, NDArray[np.generic]], about: dict[str, str]) -> None:
        save_file(weights, path, metadata=about)
        with pytest.raises(WrongState):
            Stance.load(path)

    save_file(whole, path, metadata=header)
    Stance.load(path)
    refused(whole, {**header, "format": "another"})
    refused(whole, {**header, "languages": "[]"})
    refused(whole, {**header, "languages": '["en", "zh"]'})
    refused({k: v for k, v in whole.items() if k != "en.counts"}, header)
    refused({**whole, "en.counts": whole["en.counts"] * np.nan}, header)
    refused({**whole, "en.counts": whole["en.counts"][:2]}, header)
    refused({**whole, "en.strange": whole["en.blame"]}, header)
    refused({**whole, "en.blame": np.array([0, 3], dtype=np.float32)}, header)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(WrongState):
        Stance.load(path)


def test_a_head_may_not_change_under_its_owner(trained: Trained) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        next(iter(trained[0].heads.values())).ngrams = np.zeros(1, dtype=np.float16)  # type: ignore[misc]
