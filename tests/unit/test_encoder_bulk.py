"""Many texts are encoded in their order, by a thread a core, and no longer than somebody wants them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from penchant_pipelines.encoder import bulk, encode_all


class Numbers:
    """An encoder of texts that are numbers; all but the first wait in it until it is free."""

    space_id = base_model = "numbers"
    adapter_id = ""
    device = "cpu"
    dimensions = 1

    def __init__(self) -> None:
        self.free = threading.Event()
        self.asked = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if texts[0] != "0":
            assert self.free.wait(timeout=30)
        self.asked += len(texts)
        return np.array([[float(text)] for text in texts], dtype=np.float32)


def test_texts_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 3)
    encoder = Numbers()
    encoder.free.set()
    parts = list(encode_all(encoder, [str(number) for number in range(20)]))
    assert [len(part) for part in parts] == [3] * 6 + [2]
    assert np.array_equal(np.concatenate(parts)[:, 0], np.arange(20))
    assert list(encode_all(encoder, [])) == []


def test_who_closes_it_waits_for_no_more_than_is_in_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 1)
    monkeypatch.setattr(bulk, "cores", lambda: 2)
    encoder = Numbers()
    parts = encode_all(encoder, [str(number) for number in range(1000)])
    assert next(parts) == 0
    threading.Timer(0.2, encoder.free.set).start()
    parts.close()
    assert encoder.asked <= 3
