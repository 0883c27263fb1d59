"""The words that become tokens, and where their rows start: at what the dictionary says that they mean."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from penchant_finetune.bilingual.corpus import read_lines
from penchant_pipelines.encoder import Vectors
from penchant_pipelines.encoder.words import WordVocabulary
from penchant_pipelines.text.quiet_jieba import jieba

HAN = re.compile(r"[\u4e00-\u9fff]+")
_ASIDE = re.compile(r"\([^()]*\)|\[[^\]]*\]")
_REFERENCE = re.compile(r"^(?:surname|(?:old |erhua |Japanese )?variant of|see |used in|CL:|abbr\. for|also written)")
_HAN_IN_GLOSS = re.compile(r"[\u3400-\u9fff·|,，]+")
_LETTERS = re.compile(r"[a-z0-9]")
_PLACE = re.compile(r"\b(?:county|township|district|prefecture|province|city|town|village|dynasty|autonomous)\b")
SENSES = 3
STOP_WORDS = frozenset(
    "a an the to of in on at by for from with into as and or not be is are was were am been it its he his him she her "  # noqa: SIM905 - words read easier so
    "they them their we us our you your i me my this that these those who what which etc one s t sb sth esp used also "
    "do does did have has had will would so if but there some any very up out about".split()
)
"""Words of glosses and texts that say little of their subject."""

Glosses = dict[str, list[str]]


def read_glosses(file: Path) -> Glosses:
    """English meanings by simplified word, the most telling first."""
    found: Glosses = defaultdict(list)
    for row in read_lines(file):
        found[row["simplified"]] += row["glosses"]
    cleaned = {word: _telling(glosses) for word, glosses in found.items()}
    return {word: glosses for word, glosses in cleaned.items() if glosses}


def _telling(glosses: list[str]) -> list[str]:
    ranked = sorted(glosses, key=lambda gloss: bool(_REFERENCE.match(gloss)))
    senses = [_clean(sense) for gloss in ranked if not gloss.startswith("CL:") for sense in gloss.split(";")]
    return [sense for sense in dict.fromkeys(senses) if sense]


def _clean(gloss: str) -> str:
    return " ".join(_HAN_IN_GLOSS.sub(" ", _ASIDE.sub(" ", gloss)).split())


def meaning(glosses: Glosses, word: str) -> str:
    """One English line for a word, empty if the dictionary has none."""
    return "; ".join(glosses.get(word, ())[:SENSES])


def choose_words(glosses: Glosses, texts: Iterable[str], word_count: int) -> WordVocabulary:
    """All characters in use, and `word_count` words: those with glosses first, by how common they are."""
    general: dict[str, int] = {}
    with jieba.get_dict_file() as file:
        for line in file:
            word, count, _ = line.decode("utf-8").split(" ")
            if HAN.fullmatch(word):
                general[word] = int(count)
    for word in glosses:
        if HAN.fullmatch(word) and len(word) <= 5:
            general.setdefault(word, 3)
    everything = WordVocabulary(general)
    seen = Counter(word for text in texts for word in everything.segment(text).split() if HAN.fullmatch(word))
    scale = sum(general.values()) / max(sum(seen.values()), 1)

    def commonness(word: str) -> float:
        return general[word] + 0.5 * scale * seen[word]

    characters = {word for word in general if len(word) == 1} | {word for word in seen if len(word) == 1}
    characters |= {word for word in glosses if len(word) == 1 and HAN.fullmatch(word)}
    characters = {c for c in characters if c.encode("gb2312", "ignore") or seen[c]}

    def merit(word: str) -> float:
        # Without a gloss a word has to be very common to be worth more than its parts.
        known = glosses.get(word)
        if known is None:
            return commonness(word) / 8
        return commonness(word) / (4 if all(_PLACE.search(gloss) for gloss in known) else 1)

    words = sorted((word for word in general if len(word) > 1), key=lambda word: (-merit(word), word))[:word_count]
    chosen = sorted(characters | set(words), key=lambda word: (-commonness(word) if word in general else 0, word))
    return WordVocabulary({word: max(1, round(commonness(word)) if word in general else 1) for word in chosen})


def first_rows(
    vocabulary: WordVocabulary, meanings: Sequence[Sequence[str]], pieces: Mapping[str, int], embeddings: Vectors
) -> Vectors:
    """Start rows (n, d): the mean input embedding of a word's gloss, of its parts' rows where it has none.

    `meanings` are the pieces of each word's gloss, in the vocabulary's order, `pieces` the row of each in `embeddings`.
    Stop words and punctuation count only where there is nothing else; a mean is scaled to the length of a piece's row.
    """
    rows = np.zeros((len(vocabulary), embeddings.shape[1]), dtype=np.float32)
    known = np.array([len(gloss) > 0 for gloss in meanings])
    lengths = []
    for number, gloss in enumerate(meanings):
        if gloss:
            telling = [piece for piece in gloss if piece not in STOP_WORDS and _LETTERS.search(piece)] or gloss
            parts = embeddings[[pieces[piece] for piece in telling]]
            lengths.append(np.linalg.norm(parts, axis=1).mean())
            rows[number] = parts.mean(axis=0)
    rows[known] *= np.mean(lengths) / np.linalg.norm(rows[known], axis=1, keepdims=True)
    common = rows[known].mean(axis=0)
    row_of = {word: number for number, word in enumerate(vocabulary.words)}
    for number, word in enumerate(vocabulary.words):
        if not known[number]:
            found = [row_of[c] for c in word if c in row_of and known[row_of[c]]] if len(word) > 1 else []
            rows[number] = rows[found].mean(axis=0) if found else common
    return rows


def rows_by_meaning(rows: Vectors, known: NDArray[np.bool_], meanings: Vectors) -> Vectors:
    """Fill the rows (n, d) that are not `known` with what a ridge regression of the known on `meanings` (n, m) says."""
    led: Vectors = Ridge(alpha=1.0).fit(meanings[known], rows[known]).predict(meanings[~known]).astype(np.float32)
    filled = rows.copy()
    length = np.linalg.norm(rows[known], axis=1).mean()
    filled[~known] = led * length / np.linalg.norm(led, axis=1, keepdims=True)
    return filled
