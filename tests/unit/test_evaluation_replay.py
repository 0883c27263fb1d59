"""The engine as a method of the evaluation: it answers as of the question, not as of today."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from small_logs import bag_of_words, like, read

from penchant_pipelines.encoder import Vectors
from penchant_pipelines.engine import EngineSettings
from penchant_pipelines.evaluation.protocol import Phase, queries, replay
from penchant_pipelines.evaluation.replay import Penchant
from penchant_pipelines.interests import InterestSettings
from penchant_pipelines.model import Item
from penchant_pipelines.recommend.settings import RecommendSettings


@functools.cache
def word_vector(word: str) -> NDArray[np.float32]:
    row: NDArray[np.float32] = bag_of_words([word])[0]
    return row


class BagOfWords:
    """An encoder by words alone."""

    space_id = "bag-of-words"
    dimensions = 64
    base_model = "bag of words"
    adapter_id = ""
    device = "cpu"

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = [np.sum([word_vector(word) for word in text.lower().split() or [""]], axis=0) for text in texts]
        vectors = np.array(rows, dtype=np.float32).reshape(-1, self.dimensions)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


@pytest.mark.parametrize("start", [0, -19_405], ids=["lately", "until 1970 began"])
def test_a_taste_that_had_faded_by_then_yields_to_that_of_then(start: int) -> None:
    # An item may have been hidden since.
    items = [
        Item(id=f"{topic}{n}", title=f"{topic} {topic} {topic} {topic}{n}", hidden=n == 11)
        for topic in ("old", "new")
        for n in range(12)
    ]
    # More of the old, but a year before: today both have faded alike, and there would be more of the old left.
    signals = [like("u", start + day, f"old{day}") for day in range(10)] + [
        like("u", start + 400 + day, f"new{day}") for day in range(4)
    ]
    signals += [like("u", start + 405, "new11", 1.0), like("u", start + 405.1, "old11", 1.0)]
    log = read(items, signals)
    asked = [query for query in queries(log) if query.phase is Phase.TEST]
    settings = EngineSettings(
        interests=InterestSettings(similarity=0.5),
        recommend=RecommendSettings(fresh_weight=0.0, drift_fresh_weight=0.0, diversity=0.0, exploration=0.0),
    )
    method = Penchant(log.catalogue, settings, BagOfWords, "penchant", 0)
    try:
        for past, moment in replay(log, asked):
            method.learn(past)
            answers = [method.answer(past, query.question) for query in moment]
        unlisted = method.answer(past, replace(asked[-1].question, listed=False))
    finally:
        method.close()
    listed = [log.catalogue.items[row].id for row in answers[-1].top[0] if row >= 0]
    assert {item_id[:3] for item_id in listed[:8]} == {"new"}
    assert "new11" in listed
    # What the user has touched is in no list.
    assert not {signal.item_id for signal in signals[:14]} & set(listed)
    question = asked[-1].question
    rated = {
        log.catalogue.items[row].id: float(rating)
        for row, rating in zip(question.rated, answers[-1].ratings[0], strict=True)
    }
    assert rated["new11"] > rated["old11"]
    assert (unlisted.top == -1).all()
    assert unlisted.ratings.tolist() == answers[-1].ratings.tolist()
