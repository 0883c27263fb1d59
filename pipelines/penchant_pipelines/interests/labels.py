"""Labels and keywords. Keywords: the user's own words that lie nearest to an interest's centre, names before verbs.

A label is what the interest surely is about, by its common name, and else the best keyword. What a word of the user
opened keeps that name until it is taken back. An interest without a single word that is fit for one is called by the
beginning of a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests.subjects import LEAST_SIGNALS, Subjects
from penchant_pipelines.interests.terms import best_supported, holds, is_same, naming, plain, support
from penchant_pipelines.interests.view import InterestView
from penchant_pipelines.text.chinese import to_simplified
from penchant_pipelines.text.keywords import is_beginning
from penchant_pipelines.text.lexicon import chinese_fitness, english_fitness
from penchant_pipelines.text.scripts import HAN

MAX_KEYWORDS = 6
SUPPORT_SHARE = 0.4
"""What the best support adds to a word's closeness."""
NAMING_BONUS = 0.2
"""And what it adds that a topic of this name would be taken for the interest."""

LONGEST = 60
"""Characters of a label: the user may give a topic in a thousand, and on several lines."""

_HAN = re.compile(f"[{HAN}]")

Lookup = Callable[[str], NDArray[np.float32] | None]
"""A word's unit vector (d,), None where it isn't known yet."""


@dataclass(frozen=True, slots=True)
class Label:
    """How an interest is named."""

    label: str
    keywords: tuple[str, ...]


def candidates(interest: InterestView) -> list[str]:
    """Words that may name an interest: what the user called it, then the best supported."""
    words = {term: times for term, times in interest.terms.items() if not is_beginning(term)}
    called = [interest.called] if interest.called else []
    return list(dict.fromkeys([*called, *best_supported(words or interest.terms)]))


def name_interests(
    interests: Sequence[InterestView], lookup: Lookup, subjects: Subjects | None = None, language: str = ""
) -> list[Label]:
    """Name the interests of one profile, strongest first; no two share a label while there are words left.

    A name is one line of at most LONGEST characters. Common names are those of `subjects` in the user's `language`.
    """
    taken: set[str] = set()
    labels = []
    for interest in interests:
        keywords = list(dict.fromkeys(map(_on_a_line, _ranked(interest, lookup))))
        names = [*_common_names(interest, subjects, language), *keywords]
        label = next((name for name in names if plain(name) not in taken), keywords[0] if keywords else "")
        taken.add(plain(label))
        keywords.sort(key=lambda word: word != label)
        labels.append(Label(label, tuple(keywords[:MAX_KEYWORDS])))
    return labels


def shown_as(interests: Sequence[InterestView], labels: Sequence[Label], topic: str, more: bool) -> str:
    """Id of the interest that is shown under this very name; empty where none is.

    What the user called by this topic before goes first, and is no matter of labels; `more` is not said of a dislike.
    """
    if any(is_same(topic, said) for interest in interests for said in interest.topics):
        return ""
    for interest, label in zip(interests, labels, strict=True):
        if is_same(topic, label.label) and (interest.sign > 0 or not more):
            return interest.id
    return ""


def _on_a_line(word: str) -> str:
    printable = "".join(char for char in word if char.isspace() or unicodedata.category(char) != "Cc")
    line = " ".join(printable.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"


def _common_names(interest: InterestView, subjects: Subjects | None, language: str) -> list[str]:
    if subjects is None or interest.called or interest.signal_count < LEAST_SIGNALS:
        return []
    subject = subjects.surely(interest.vector, interest.terms)
    name = subject.called(language, interest.terms) if subject else ""
    return [name] if name else []


def _ranked(interest: InterestView, lookup: Lookup) -> list[str]:
    words = candidates(interest)
    if not words:
        return []
    most = max(support(interest.terms, word) for word in words) or 1.0
    names = naming({word: interest.terms[word] for word in words}, interest.recurrent)
    scores: dict[str, float] = {}
    for word in words:
        vector = lookup(word)
        closeness = float(vector @ interest.vector) if vector is not None else 0.0
        known_by = SUPPORT_SHARE * support(interest.terms, word) / most + NAMING_BONUS * (word in names)
        scores[word] = closeness + known_by + _fitness(word)
    best: dict[str, str] = {}
    for word in sorted(words, key=lambda word: (word != interest.called, -scores[word], word)):
        bare = plain(word)
        # "running" adds nothing next to "trail running".
        if not any(holds(other, bare) or holds(bare, other) for other in best):
            best[bare] = word
    return list(best.values())


def _fitness(term: str) -> float:
    return chinese_fitness(to_simplified(term)) if _HAN.search(term) else english_fitness(term.casefold())
