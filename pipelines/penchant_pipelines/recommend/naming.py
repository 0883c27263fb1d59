"""The words by which an interest's terms are looked for in items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

TERMS_ASKED = 20
"""Terms of an interest whose words are looked for."""


def weighed_words(terms: Mapping[str, float], words_of: Callable[[str], Sequence[str]]) -> dict[str, float]:
    """Words of an interest's best terms, by the support of the best that holds them, in shares of the greatest.

    `words_of` cuts terms into words as items are cut.
    """
    best = sorted(terms.items(), key=lambda pair: (-pair[1], pair[0]))[:TERMS_ASKED]
    greatest = best[0][1] if best else 0.0
    words: dict[str, float] = {}
    for term, support in best:
        for word in words_of(term):
            # Of what says too little to be told from nothing, all terms are alike.
            words.setdefault(word, support / greatest if greatest else 1.0)
    return words
