from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant_pipelines.encoder import Encoder, Vectors
from penchant_pipelines.interests.calibration import Calibration, calibrate, reference_texts

TOPICS = {reference.text: reference.topic for reference in reference_texts()}
LANGUAGES = {reference.text: reference.language for reference in reference_texts()}


def direction(name: str) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(64).astype(np.float32)


def encoder(common: float, topical: float = 3.0, unread: str = "") -> Callable[[Sequence[str]], Vectors]:
    """Encode a text by its topic, plus something of its own, plus something that all texts share.

    Of texts in the language that it can't read, only the last is left.
    """

    def encode(texts: Sequence[str]) -> Vectors:
        rows = []
        for text in texts:
            row = direction(text) + common * direction("common")
            if LANGUAGES[text] == unread:
                row = 0.05 * direction(text) + direction("common")
            else:
                row = row + topical * direction(TOPICS[text])
            rows.append(row / np.linalg.norm(row))
        return np.stack(rows).astype(np.float32)

    return encode


def test_the_reference_set_is_balanced() -> None:
    texts = reference_texts()
    assert len(texts) == len({reference.text for reference in texts}) == 200
    assert {reference.language for reference in texts} == {"en", "zh"}
    for topic in {reference.topic for reference in texts}:
        assert sorted(r.language for r in texts if r.topic == topic) == ["en"] * 5 + ["zh"] * 5


@settings(max_examples=8, deadline=None)
@given(st.floats(0, 20), st.floats(0, 10))
def test_a_level_is_a_cosine_and_always_the_same(common: float, topical: float) -> None:
    found = calibrate(encoder(common, topical))
    again = calibrate(encoder(common, topical))
    assert -1 < found.similarity < 1
    assert found.similarity == again.similarity
    np.testing.assert_array_equal(found.middle, again.middle)


def test_what_all_texts_have_in_common_does_not_make_them_near() -> None:
    levels = [calibrate(encoder(common)).similarity for common in (0.0, 1.0, 2.0, 4.0)]
    assert levels == pytest.approx([levels[0]] * 4, abs=0.03)


def test_one_in_twenty_strange_texts_passes() -> None:
    encode = encoder(1.0)
    found = calibrate(encode)
    english = [text for text in TOPICS if LANGUAGES[text] == "en"]
    seen = found.seen(encode(english))
    names = np.array([TOPICS[text] for text in english])
    cosines = []
    for topic in sorted(set(names)):
        centre = seen[names == topic].mean(axis=0)
        cosines.append(seen[names != topic] @ (centre / np.linalg.norm(centre)))
    # Of English or of Chinese, whichever the encoder tells topics apart best in: here they are alike.
    assert float((np.concatenate(cosines) >= found.similarity).mean()) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("unread", ["zh", "en"])
def test_a_language_that_cannot_be_read_does_not_decide(unread: str) -> None:
    half, whole = calibrate(encoder(1.0, unread=unread)), calibrate(encoder(1.0))
    assert half.similarity == pytest.approx(whole.similarity, abs=0.1)
    np.testing.assert_allclose(half.middle, whole.middle, atol=0.1)


@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_cosines_are_products_of_what_is_seen_from_the_middle(seed: int, far: float) -> None:
    dice = np.random.default_rng(seed)
    rows = dice.standard_normal((7, 5))
    units = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    space = Calibration(0.2, np.float32(far) * units[0])
    cosines = space.cosines(units[1:4], units[4:])
    np.testing.assert_allclose(cosines, space.seen(units[1:4]) @ space.seen(units[4:]).T, atol=1e-4)
    np.testing.assert_allclose(space.cosines(units[4:], units[1:4]), cosines.T, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(space.seen(units[1:]), axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(space.cosines(units[1:], units[1:]).diagonal(), 1, atol=1e-4)


def test_a_text_in_the_middle_itself_is_near_to_nothing() -> None:
    axes = np.eye(3, dtype=np.float32)
    space = Calibration(0.2, axes[0])
    assert space.cosines(axes[:1], axes).tolist() == [[0, 0, 0]]
    assert space.seen(axes[:1]).tolist() == [[1, 0, 0]]


def test_an_encoder_that_reads_nothing_has_a_level_all_the_same() -> None:
    found = calibrate(lambda texts: np.tile(np.eye(1, 8, dtype=np.float32), (len(texts), 1)))
    assert np.isfinite(found.similarity)
    assert found.seen(found.middle[None]).tolist() == np.eye(1, 8).tolist()


def test_a_chosen_level_leaves_the_middle_as_it_was_measured() -> None:
    space = Calibration(0.2, np.ones(3, np.float32))
    assert space.chosen(None) is space
    assert (space.chosen(0.4).similarity, space.chosen(0.4).middle) == (0.4, space.middle)


def test_no_space_knows_a_language_apart_by_its_level(encoder: Encoder, calibration: Calibration) -> None:
    """Chinese texts used to lie so much nearer together than English ones that one level could not serve both."""
    levels = []
    for language in ("en", "zh"):
        texts = [text for text in TOPICS if LANGUAGES[text] == language]
        cosines = calibration.cosines(vectors := encoder.encode(texts), vectors)
        strange = np.array([[TOPICS[a] != TOPICS[b] for a in texts] for b in texts])
        levels.append(float(np.quantile(cosines[strange], 0.95)))
    assert abs(levels[0] - levels[1]) < 0.1
