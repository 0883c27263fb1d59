"""What news says together: words of one subject, whatever they mean by themselves.

A topic model of Chinese news (LDA; Blei, Ng and Jordan 2003) with 100 topics, as the package jionlp (Apache-2.0)
carries it. Nobody's labels are in it. The package is not imported, only its file is read.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from penchant_pipelines.errors import Unsupported

Topics = Sequence[Mapping[str, float]]
"""The chances of words, topic by topic."""
_FILE = "dictionary/word_topic_weight.zip"
_FEWEST, _MOST = 2, 6
_STRAYS = 0.25
"""How many headlines have a word from elsewhere."""


def read_news_topics() -> Topics:
    """Read the topics. Raises Unsupported where the package is missing."""
    package = find_spec("jionlp")
    if package is None or not package.submodule_search_locations:
        raise Unsupported(
            "NEEDS_PACKAGE", "the topics of news need one more package: pip install 'penchant[bilingual]'"
        )
    with zipfile.ZipFile(Path(package.submodule_search_locations[0]) / _FILE) as file:
        topics: dict[str, dict[str, float]] = json.loads(file.read(file.namelist()[0]))
    return list(topics.values())


def news_headlines(topics: Topics, words: Collection[str], count: int, seed: int) -> list[str]:
    """Make about `count` texts of two to six of `words` that one topic of news has, each topic as often.

    Common words are drawn less often than they occur (by the chances to the power of ¾), since they say least.
    """
    draw = random.Random(seed)
    known = sorted(words)
    made: list[str] = []
    told = [{word: chance for word, chance in topic.items() if word in words} for topic in topics]
    told = [topic for topic in told if len(topic) >= _MOST]
    for topic in told:
        said, weights = list(topic), list(accumulate(chance**0.75 for chance in topic.values()))
        for _ in range(count // len(told)):
            chosen = draw.choices(said, cum_weights=weights, k=draw.randint(_FEWEST, _MOST))
            if draw.random() < _STRAYS:
                chosen[draw.randrange(len(chosen))] = draw.choice(known)
            made.append(" ".join(chosen))
    return made
