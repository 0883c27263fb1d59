"""Stance: learns likes from dislikes, says nothing where it is not sure, and refuses broken weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from penchant_finetune.stance import Review, auc, held_back, make_examples, read_reviews, train_stance
from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.model import Action, Behavior, Post, Signal
from penchant_pipelines.stance import BUCKETS, COUNTS, Head, Stance, read_words
from penchant_pipelines.text import TextPipeline, TextSettings

D = 8
TEXT = TextPipeline(TextSettings())
PLAIN = ("book", "story", "chapter", "author", "page", "plot", "hero", "city", "river", "train")


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors that follow from the text and tell nothing of its stance."""
    rows = [np.random.default_rng(abs(hash_of(text))).normal(size=D) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(-1, D)


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[:12].ljust(12, b"\0"), "little")


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stance, dict[str, dict[str, object]], Path]:
    folder = tmp_path_factory.mktemp("stance")
    stance, report = train_stance(made_up_reviews(), encode, "space-1", folder)
    return stance, report, folder / "stance.safetensors"


Trained = tuple[Stance, dict[str, dict[str, object]], Path]


def test_it_learns_what_reviews_tell(trained: Trained) -> None:
    stance, report, _ = trained
    vector = encode(["x"])[0]
    assert report["en"]["words"]["auc"][0] > 0.85  # type: ignore[index]
    assert "refused" in report["zh"]
    good = stance.verdict(("the", "plot", "zorp"), vector, "en", "space-1")
    bad = stance.verdict(("the", "plot", "quib"), vector, "en-GB", "space-1")
    assert good is not None
    assert bad is not None
    assert -1 <= bad < -0.3 < 0.3 < good <= 1


def constant_head(
    score: float, slope: float = 1.0, offset: float = 0.0, sure: tuple[float, float] = (0.2, 0.8)
) -> Head:
    """A head whose score is the same whatever it reads."""
    return Head(
        np.zeros(BUCKETS, dtype=np.float16),
        np.array([score, 0, 0, 0], dtype=np.float32),
        np.zeros(0, dtype=np.float32),
        np.array([slope, offset], dtype=np.float32),
        np.array([0.2, 0.8], dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("score", "expected"), [(0.0, None), (1.3, None), (-1.3, None), (1.5, 0.635), (-1.5, -0.635), (30, 1), (-30, -1)]
)
def test_it_speaks_only_beyond_its_thresholds(score: float, expected: float | None) -> None:
    head = constant_head(score)
    found = Stance({"en": head}, {"en": head}, "space-1").verdict(("words",), None, "en")
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-3))


def test_it_says_nothing_without_words_or_in_a_language_not_learnt(trained: Trained) -> None:
    stance, vector = trained[0], encode(["x"])[0]
    assert stance.verdict((), vector, "en", "space-1") is None
    assert stance.verdict(("zorp",), vector, "zh", "space-1") is None
    assert stance.probability(("zorp",), vector, "de", "space-1") is None


def test_a_vector_of_another_space_is_left_aside(trained: Trained) -> None:
    stance = trained[0]
    words = ("the", "plot", "zorp")
    vector = encode(["x"])[0]
    other = stance.probability(words, np.zeros(99, dtype=np.float32), "en", "space-2")
    assert other == stance.probability(words, None, "en")
    assert other != stance.probability(words, vector, "en", "space-1")
    with pytest.raises(InvalidInput, match="shape"):
        stance.verdict(words, np.zeros(99, dtype=np.float32), "en", "space-1")


def test_saved_and_loaded_it_answers_the_same(trained: Trained) -> None:
    stance, _, path = trained
    loaded = Stance.load(path)
    assert loaded.space_id == "space-1"
    assert path.stat().st_size < 1_500_000
    for review in made_up_reviews(40):
        vector = encode([review.text])[0]
        for asked in ((review.words, vector, "en", "space-1"), (review.words, None, "en")):
            assert loaded.verdict(*asked) == stance.verdict(*asked)


@given(scores=st.lists(st.floats(-20, 20), min_size=2, max_size=20), slope=st.floats(0, 5), offset=st.floats(-5, 5))
def test_calibration_never_turns_an_order_round(scores: list[float], slope: float, offset: float) -> None:
    nothing = read_words(())
    found = []
    for score in sorted(scores):
        found.append(constant_head(score, slope, offset).probability(nothing, np.zeros(0, dtype=np.float32)))
    assert found == sorted(found)
    assert all(0 <= probability <= 1 for probability in found)


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
    examples = make_examples(made_up_reviews(), "en", encode)
    held = held_back(examples)
    train = examples.part(~held)
    authors = {user for user in examples.users if user not in set(train.users)}
    assert authors
    assert train.times.max() <= np.quantile(examples.times, 0.8)
    assert 0.2 < held.mean() < 0.7


def test_too_few_reviews_are_refused() -> None:
    with pytest.raises(InvalidInput, match="disliking"):
        train_stance(made_up_reviews(20), encode, "space-1")


def test_auc_is_the_share_of_pairs_in_order() -> None:
    liked = np.array([True, True, False, False])
    assert auc(liked, np.array([0.9, 0.4, 0.4, 0.1]))[0] == 0.875  # type: ignore[index]
    assert auc(np.array([True]), np.array([1.0])) is None


def test_broken_weights_are_refused(trained: Trained, tmp_path: Path) -> None:
    whole = load_file(trained[2])
    header = {"format": "penchant-stance-1", "space_id": "s", "parts": '[["heads", "en"], ["plain", "en"]]'}
    path = tmp_path / "stance.safetensors"

    def refused(weights: dict[str, NDArray[np.generic]], about: dict[str, str]) -> None:
        save_file(weights, path, metadata=about)
        with pytest.raises(WrongState):
            Stance.load(path)

    save_file(whole, path, metadata=header)
    Stance.load(path)
    refused(whole, {**header, "format": "another"})
    refused(whole, {**header, "parts": '[["heads", "en"]]'})
    refused({k: v for k, v in whole.items() if k != "heads.en.counts"}, header)
    refused({**whole, "heads.en.counts": whole["heads.en.counts"] * np.nan}, header)
    refused({**whole, "heads.en.counts": whole["heads.en.counts"][:2]}, header)
    refused({**whole, "heads.en.calibration": np.array([-1, 0], dtype=np.float32)}, header)
    refused({**whole, "heads.en.thresholds": np.array([0.6, 0.4], dtype=np.float32)}, header)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(WrongState):
        Stance.load(path)


def test_a_head_may_not_change_under_its_owner(trained: Trained) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        next(iter(trained[0].heads.values())).ngrams = np.zeros(1, dtype=np.float16)  # type: ignore[misc]
