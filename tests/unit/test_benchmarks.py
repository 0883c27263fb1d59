"""What the benchmarks ask, where it decides what their figures mean."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import drift
import labels
import numpy as np
import pytest
import serving

from penchant_pipelines.text import TextPipeline, TextSettings


@pytest.fixture
def titles(tmp_path: Path) -> Path:
    file = tmp_path / "titles.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        for topic in ("bread", "chess", "jazz", "trains"):
            for number in range(60):
                title = {"text": f"{topic} for beginners, part {number}", "topic": topic, "keywords": topic}
                lines.write(json.dumps(title) + "\n")
    return file


class Noting:
    """An encoder that notes what it is given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def encode(self, texts: list[str]) -> Any:
        self.given += texts
        return np.zeros((len(texts), 1), dtype=np.float32)


@pytest.mark.parametrize("half", drift.HALVES)
def test_what_settings_are_tuned_on_is_the_same_half_in_all(half: str, titles: Path) -> None:
    encoder: Any = Noting()
    pipeline = TextPipeline(TextSettings())
    drift.encoded(drift.read_topics(titles), half, pipeline, encoder)
    assert 80 < len(encoder.given) < 160
    named = {text for user in labels.invented(titles, half) for _, _, text in user.texts}
    assert {pipeline.gist(pipeline.read(text)).text for text in named} == set(encoder.given)


def test_invented_users_write_each_of_their_titles_once(titles: Path) -> None:
    users = list(labels.invented(titles, "tuning"))
    assert len(users) == labels.USERS
    for user in users:
        written = [text for _, _, text in user.texts]
        assert len(set(written)) == len(written)
        topics = Counter(text.split()[0] for text in written)
        assert len(topics) in labels.TOPICS
        assert set(topics.values()) == {labels.TITLES_OF_A_TOPIC}


def test_the_encoder_alone_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "cores", lambda: 3)
    parts: list[list[str]] = []
    serving.raw_rate(parts.append, [str(number) for number in range(9)])
    warming_up, *timed = parts
    assert sorted(warming_up) == sorted(text for part in timed for text in part)
    assert [len(part) for part in timed] == [3, 3, 3]
