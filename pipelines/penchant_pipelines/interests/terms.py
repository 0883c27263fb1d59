"""Terms of an interest, by how well its texts support them; and which words name it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Container, Iterable, Iterator, Mapping

from penchant_pipelines.text.chinese import to_simplified
from penchant_pipelines.text.scripts import HAN, KANA

CANDIDATES = 12
"""Best-supported words of an interest that may name it."""
PHRASE_SUPPORT = 0.7
"""What a phrase's support counts against a word's: most phrases are one text's wording, few are names."""
NAMING_SUPPORT = 0.5
"""Support from which a word names an interest, as a share of the best: what was mentioned once is not its name."""

_UNSPACED = re.compile(f"[{KANA}{HAN}]")


def support(terms: Mapping[str, float], term: str) -> float:
    """How well the texts behind `terms` support one of them."""
    return terms[term] * (PHRASE_SUPPORT if " " in term else 1.0)


def best_supported(terms: Mapping[str, float]) -> list[str]:
    """Terms that may name an interest, best supported first."""
    return sorted(terms, key=lambda term: (-support(terms, term), term))[:CANDIDATES]


def gather(terms: dict[str, float], told: Iterable[tuple[str, float]]) -> None:
    """Add support to terms; of those that differ in letter case alone the first spelling stays."""
    known = {term.casefold(): term for term in terms}
    for term, more in told:
        name = known.setdefault(term.casefold(), term)
        terms[name] = terms.get(name, 0.0) + more


def recurring(terms: Collection[str], said: Collection[str]) -> set[str]:
    """Terms that one of those said in another text has a part in, or the other way round: tyre, "winter tyres"."""
    return {*_within(said, terms), *_within(terms, said)}


def _within(parts: Iterable[str], wholes: Collection[str]) -> Iterator[str]:
    """Those of the one that stand within some of the other, and the latter."""
    # As a rule none does: one search in all of them is quicker than one in each.
    together = "\n".join(wholes).casefold()
    for part in parts:
        if (folded := part.casefold()) in together:
            yield part
            yield from (whole for whole in wholes if folded in whole.casefold())


def naming(terms: Mapping[str, float], recurrent: Container[str]) -> list[str]:
    """Terms that name an interest, best supported first.

    Where some of the best are `recurrent`, what only one text said is an oddity in it, and no name.
    """
    best = best_supported(terms)
    supported = [term for term in best if support(terms, term) >= NAMING_SUPPORT * support(terms, best[0])]
    return [term for term in supported if term in recurrent] or supported


def are_named(terms: Mapping[str, float], recurrent: Container[str], topic: str, words: Iterable[str]) -> bool:
    """Whether a topic, or all the words that are terms of it, are among those that name an interest of these terms."""
    names = [plain(term) for term in naming(terms, recurrent)]
    asked = _words(map(plain, words))
    return plain(topic) in names or (bool(asked) and asked <= _words(names))


def is_same(one: str, other: str) -> bool:
    """Whether two topics are the same but for what `plain` takes away."""
    return plain(one) == plain(other)


def holds(name: str, part: str) -> bool:
    """Whether one plain name stands within another, as whole words where words are written apart."""
    return part in name and (f" {part} " in f" {name} " or _UNSPACED.search(part) is not None)


def plain(name: str) -> str:
    """A name without what makes no other of it: letter case, width, the script of Chinese, how accents are written."""
    # Some keyboards write an accent as a character of its own, and some Latin letters as wide as Chinese ones.
    return (name if name.isascii() else to_simplified(unicodedata.normalize("NFKC", name))).casefold()


def _words(names: Iterable[str]) -> set[str]:
    return {word for name in names for word in name.split()}
