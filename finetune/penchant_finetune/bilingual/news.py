"""What news says together: words of one subject, whatever they mean by themselves.

A topic model of Chinese news (LDA; Blei, Ng and Jordan 2003) with 100 topics, as the package jionlp (Apache-2.0)
carries it. Nobody's labels are in it. The package is not imported, only its file is read.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import numpy as np

from penchant_pipelines.encoder import Vectors
from penchant_pipelines.errors import Unsupported

Topics = Sequence[Mapping[str, float]]
"""The chances of words, topic by topic."""
_FILE = "dictionary/word_topic_weight.zip"
_FEWEST, _MOST, _MOST_NEAR = 2, 6, 8
_NEARNESS = 6.0
"""A word of the same meaning is drawn e to this power times as often as one that has nothing to do with it."""
_STRAYS = 0.25
"""How many headlines have a word from elsewhere."""


def read_news_topics() -> Topics:
    """Read the topics. Raises Unsupported where the package is missing."""
    package = find_spec("jionlp")
    if package is None or not package.submodule_search_locations:
        raise Unsupported("NEEDS_PACKAGE", "the topics of news need one more package: pip install -e '.[bilingual]'")
    with zipfile.ZipFile(Path(package.submodule_search_locations[0]) / _FILE) as file:
        topics: dict[str, dict[str, float]] = json.loads(file.read(file.namelist()[0]))
    return list(topics.values())


def news_headlines(topics: Topics, words: Sequence[str], meanings: Vectors, count: int, seed: int) -> list[str]:
    """Make about `count` texts of `words` that one topic of news has, each topic as often.

    Half are two to six words; half are a word and two to eight more, drawn the likelier the nearer they are to it by
    meaning, unit rows (n, d) in the order of the words. Common words are drawn less often than they occur (by the
    chances to the power of ¾), since they say least.
    """
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    row_of = {word: row for row, word in enumerate(words)}
    made: list[str] = []
    told = [{word: chance for word, chance in topic.items() if word in row_of} for topic in topics]
    told = [topic for topic in told if len(topic) >= _MOST]
    for topic in told:
        said, chances = list(topic), np.array(list(topic.values())) ** 0.75
        weights, meant = list(accumulate(chances)), meanings[[row_of[word] for word in said]]
        for turn in range(count // len(told)):
            if turn % 2:
                first = draw.choices(range(len(said)), cum_weights=weights)[0]
                near = np.cumsum(chances * np.exp(_NEARNESS * meant @ meant[first]))
                more = np.searchsorted(near, numbers.random(draw.randint(_FEWEST, _MOST_NEAR)) * near[-1])
                chosen = [said[first], *(said[row] for row in more)]
            else:
                chosen = draw.choices(said, cum_weights=weights, k=draw.randint(_FEWEST, _MOST))
            if draw.random() < _STRAYS:
                chosen[draw.randrange(len(chosen))] = draw.choice(words)
            made.append(" ".join(chosen))
    return made
