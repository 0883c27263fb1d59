"""English texts put word for word into Chinese: rough Chinese of many subjects whose meaning is known exactly.

The dictionary read backwards gives each English word its most common Chinese one. What comes out is no good Chinese,
but the encoder reads words, and these stand beside each other as the English ones did. Word-by-word translation as
training data: Reimers and Gurevych 2020 use true translations, of which there are few on most subjects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from penchant_finetune.bilingual.vocabulary import STOP_WORDS, Glosses
from penchant_pipelines.encoder.words import WordVocabulary

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+")
_FIRST_SENSES = 2
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"))


def chinese_words(glosses: Glosses, vocabulary: WordVocabulary) -> dict[str, str]:
    """English word → the most common word of the vocabulary that means it first."""
    found: dict[str, str] = {}
    for sense in range(_FIRST_SENSES):
        for word in vocabulary.words:
            for gloss in glosses.get(word, ())[sense : sense + 1]:
                english = [part for part in _WORD.findall(gloss.lower()) if part not in STOP_WORDS]
                if len(english) == 1:
                    found.setdefault(english[0], word)
    return found


def rewritten(texts: Iterable[str], chinese: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs (rough Chinese, English) of those texts of which the dictionary knows most words, at least three."""
    pairs: list[tuple[str, str]] = []
    for text in texts:
        words = [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]
        translated = [_translate(word, chinese) for word in words]
        known = sum(translation is not None for translation in translated)
        if known >= max(3, 0.6 * len(words)):
            rough = " ".join(new or old for new, old in zip(translated, words, strict=True))
            pairs.append((rough, text))
    return pairs


def _translate(word: str, chinese: dict[str, str]) -> str | None:
    if word in chinese:
        return chinese[word]
    for ending, instead in _ENDINGS:
        stem = word.removesuffix(ending) + instead
        if word.endswith(ending) and stem in chinese:
            return chinese[stem]
    return None
