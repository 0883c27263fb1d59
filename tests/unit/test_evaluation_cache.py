"""Each text goes through the model once; its vector comes back bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_logs import bag_of_words

from penchant_pipelines.encoder.bulk import CHUNK
from penchant_pipelines.errors import WrongState
from penchant_pipelines.evaluation.vector_cache import CachedEncoder


class Words:
    """An encoder of bags of words that counts what it is asked."""

    dimensions = 64
    base_model = "words"
    adapter_id = ""
    device = "cpu"

    def __init__(self, space_id: str, turn: float = 1.0) -> None:
        self.space_id = space_id
        self.turn = np.float32(turn)
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return bag_of_words(texts) * self.turn


def test_a_text_is_encoded_once_and_found_again_by_the_next_run(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(CHUNK + 10)]
    model = Words("one")
    cached = CachedEncoder(model, tmp_path)
    heard: list[tuple[int, int]] = []
    cached.report = lambda done, _, total: heard.append((done, total))
    first = cached.encode([*texts, "text 0"])
    assert sorted(model.asked) == sorted(texts)  # by threads, in any order
    assert heard == [(CHUNK, len(texts)), (len(texts), len(texts))]
    assert np.array_equal(first[0], first[-1])
    assert np.array_equal(cached.encode(texts[::-1]), first[: len(texts)][::-1])
    cached.close()

    later = Words("one")
    again = CachedEncoder(later, tmp_path)
    assert np.array_equal(again.encode(["new", *texts])[1:], bag_of_words(texts))
    assert later.asked == ["new"]
    assert again.encode([]).shape == (0, 64)
    again.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "vectors.sqlite3"
    file.write_bytes(b"no database at all" * 500)
    with pytest.raises(WrongState, match=r"vectors\.sqlite3 can't be used as a cache of vectors .* delete it"):
        CachedEncoder(Words("one"), tmp_path)


def test_spaces_are_kept_apart_and_no_text_is_kept(tmp_path: Path) -> None:
    one, other = CachedEncoder(Words("one"), tmp_path), CachedEncoder(Words("other", -1.0), tmp_path)
    assert np.array_equal(one.encode(["a private matter"]), -other.encode(["a private matter"]))
    one.close()
    other.close()
    assert all(b"private" not in file.read_bytes() for file in tmp_path.iterdir())
