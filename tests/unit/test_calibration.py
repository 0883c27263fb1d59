from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant_pipelines.encoder import Vectors
from penchant_pipelines.interests.calibration import calibrate, reference_texts

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
def test_a_threshold_is_a_cosine_and_always_the_same(common: float, topical: float) -> None:
    found = calibrate(encoder(common, topical))
    assert -1 < found < 1
    assert found == calibrate(encoder(common, topical))


def test_the_threshold_rises_where_unrelated_texts_are_closer() -> None:
    found = [calibrate(encoder(common)) for common in (0.0, 1.0, 2.0, 4.0)]
    assert found == sorted(set(found))


def test_one_in_twenty_strange_texts_passes() -> None:
    encode = encoder(1.0)
    threshold = calibrate(encode)
    english = [text for text in TOPICS if LANGUAGES[text] == "en"]
    vectors = encode(english)
    names = np.array([TOPICS[text] for text in english])
    cosines = []
    for topic in sorted(set(names)):
        centre = vectors[names == topic].mean(axis=0)
        cosines.append(vectors[names != topic] @ (centre / np.linalg.norm(centre)))
    # Of English or of Chinese, whichever the encoder tells topics apart best in: here they are alike.
    assert float((np.concatenate(cosines) >= threshold).mean()) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("unread", ["zh", "en"])
def test_a_language_that_cannot_be_read_does_not_decide(unread: str) -> None:
    half, whole = calibrate(encoder(1.0, unread=unread)), calibrate(encoder(1.0))
    assert half == pytest.approx(whole, abs=0.1)
    assert half < 0.9
