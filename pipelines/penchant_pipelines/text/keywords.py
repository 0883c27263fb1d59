"""Candidate keywords: short, presentable, in the user's own words and script."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from penchant_pipelines.text.chinese import to_simplified
from penchant_pipelines.text.lexicon import chinese_weight, is_thing, spaced_weight
from penchant_pipelines.text.scripts import HAN, JOINED, KANA
from penchant_pipelines.text.segment import POSSESSIVE, Segmenter

# Terms come from the beginning of a text; that bounds the work, and people say early what it is about.
_SAMPLE_CHARS = 6_000
_HAN = re.compile(f"[{HAN}]")
# A guessed word may begin with what ends the verb before it, or points to it: 看 + 完三体, 这 + 茶.
_NO_PART_OF_IT = "完这哪我你他它"
_JAPANESE = re.compile(r"[\u30a1-\u30fa\u30fc]{2,20}|[\u4e00-\u9fff々]{2,6}")
_LETTER = rf"[^\W_{KANA}{HAN}]"
# node.js, .NET, rock'n'roll, R&B and C++ are words; so is each side of "wait...what". 3D and 80s are, 9AM and 8GB not.
_ENDS = "(?![A-Za-z0-9_])"
_FIGURED = (
    rf"(?<![A-Za-z0-9_.,:/-])(?:[0-9](?:(?=[A-Z])(?![A-Z]?[BHM]{_ENDS})|(?=[Dd]{_ENDS}))|(?:19)?[5-9]0(?=s{_ENDS})"
    rf"|\.(?=(?:NET|Net|net){_ENDS}))"
)
_SPACED = re.compile(rf"(?:{_FIGURED}|(?!\d)){_LETTER}(?:{_LETTER}|[{JOINED}]|[.'’&-](?={_LETTER})){{0,60}}[+#]{{0,2}}")
# Where the space after a full stop is missing, a word that says nothing stands beside it, or a capital follows.
_RUN_ON = re.compile(rf"(?<={_LETTER}{{2}})\.(?=({_LETTER}+))")
# After a figure a unit tells how much there is of something: it is a keyword where nothing else is.
_UNITS = (
    "(?:centi|kilo|milli)?(?:gram|met(?:er|re))s?|cm|hrs?|inch(?:es)?|kgs?|kilos?|kmh?|kms|kph|lbs?|mg|miles?|mins?|mm|mph"
    "|secs?|[gmt]b|公里|公斤"
)
_MEASURED = re.compile(rf"(?:[0-9][ -]?|[一二两三四五六七八九十百千半])({_UNITS})(?![A-Za-z])", re.IGNORECASE)
# "run" may be anything, but not after a distance: 5k run.
_DISTANCE = re.compile(r"[0-9][ -]?(?:k|km|m|mi|miles?)[ -]$", re.IGNORECASE)
_RUN_WEIGHT = 0.6
_KOREAN_PARTICLE = re.compile(r"(?<=..)(?:에서|으로|까지|부터|에게|처럼|은|는|이|가|을|를|의|에|도|로|와|과|만)$")
_LONGEST_WORD = 30
_LONGEST_TAG_WORDS, _LONGEST_TAG_HAN = 4, 10
_BEGINNING_WIDTH = 24
# Of a longer text what says nothing is too little to matter.
_SHORT_TEXT_WORDS, _SHORT_TEXT_CHARS = 12, 400
_SAYING_LETTER = re.compile("[B-HJ-Z]")
# What a cut leaves at either end; .NET begins with a mark of its own.
_LOOSE_MARKS = re.compile(r"^(?:[\s,;:!?~…，。、；：！？～—-]|\.(?=\s))+|[\s,;:!?~…，。、；：！？～—-]+$")
_EARLY_BONUS = 0.25
_PAIR_BONUS = 1.2
_SINGLE_PAIR_TEXT_CHARS = 1_000


@dataclass(frozen=True, slots=True)
class _Word:
    """One occurrence: `key` tells terms apart, `shown` is what the user wrote, `weight` 0 parts phrases.

    `ending` is what is no part of the word, but of a phrase that goes on after it: 's.
    """

    key: str
    shown: str
    start: int
    end: int
    weight: float
    ending: str = ""


@dataclass(slots=True)
class _Candidate:
    shown: str
    start: int
    weight: float
    pair: bool
    count: int = 1

    def score(self, length: int) -> float:
        """Weigh rarity by how often and how early the term stands in a text of `length` characters."""
        early = 1 + _EARLY_BONUS * (1 - self.start / length)
        return self.weight * (1 + math.log2(self.count)) * early * (_PAIR_BONUS if self.pair else 1)


def extract_terms(
    text: str, hashtags: Sequence[str], language: str, segmenter: Segmenter, limit: int
) -> tuple[str, ...]:
    """Rank the terms of `text` (line breaks kept, no emoji), hashtags before all others; at most `limit`."""
    sample = text[:_SAMPLE_CHARS]
    # In a text all in capitals they don't mark acronyms. Beside letters that have no capitals they do: 看NBA.
    cased = sum(map(str.isupper, sample)), sum(map(str.islower, sample))
    shouting = cased[0] > cased[1] and sum(cased) == sum(map(str.isalpha, sample))
    candidates: dict[str, _Candidate] = {}
    for words in (_spaced_words(sample, language, shouting), _east_asian_words(sample, language, segmenter)):
        _count(words, sample, candidates)
    picked = {_key(tag): _lower(tag, shouting) for tag in hashtags if _is_presentable(tag)}
    ranked = sorted(candidates.items(), key=lambda entry: -entry[1].score(len(sample)))
    for key, candidate in ranked:
        if len(picked) >= limit:
            break
        if not _says_nothing_new(key, candidate, picked, candidates):
            picked[key] = candidate.shown
    return tuple(picked.values())[:limit]


def extract_characters(text: str, segmenter: Segmenter) -> tuple[str, ...]:
    """Single characters that name things: what a Chinese text is about where no longer word tells."""
    return tuple(
        dict.fromkeys(word.shown for word in _chinese_words(text[:_SAMPLE_CHARS], segmenter) if is_thing(word.key))
    )


def gist(text: str, language: str, segmenter: Segmenter) -> str:
    """What a short text in Chinese or English says beside words that say nothing; other texts, and such alone, whole.

    "I love", "how to get better at" and 今天又去…了 would bring short texts nearer to each other than subjects do.
    """
    if language not in ("en", "zh") or len(text) > _SHORT_TEXT_CHARS:
        return text
    words = _spaced_words(text, language, shouting=False)
    words += _chinese_words(text, segmenter) if _HAN.search(text) else []
    if len(words) > _SHORT_TEXT_WORDS:
        return text
    kept, end = [], 0
    for word in sorted(words, key=lambda word: word.start):
        # Vitamin C, plan B.
        says = word.weight or is_thing(word.key) or _SAYING_LETTER.fullmatch(text[word.start : word.end])
        if not says:
            kept.append(text[end : word.start])
            end = word.end
    said = trimmed(" ".join("".join([*kept, text[end:]]).split()))
    return said if any(map(str.isalpha, said)) else text


def trimmed(text: str) -> str:
    """A part of a text, without the marks that parted it from the rest."""
    return _LOOSE_MARKS.sub("", text)


def extract_units(text: str) -> tuple[str, ...]:
    """Units of what is measured: what a text is about where no other word tells."""
    return tuple(dict.fromkeys(match[1].lower() for match in _MEASURED.finditer(text[:_SAMPLE_CHARS])))


def beginning(text: str) -> str:
    """Quote the first words of a text, 24 columns at most: what it is called by where it has no term."""
    words = " ".join(text.split())
    width, end = 0, 0
    for place, character in enumerate(words):
        width += 2 if _HAN.match(character) else 1
        if width > _BEGINNING_WIDTH:
            # Where words are written without spaces, any of them may be the last.
            space = words.rfind(" ", 0, place)
            end = space if space > 0 else place
            break
    return f"“{words[:end]}…”" if end else f"“{words}”"


def is_beginning(term: str) -> bool:
    """Whether a term is a text's beginning, for want of a word."""
    return term.startswith("“") and term.endswith("”")


def _says_nothing_new(
    key: str, candidate: _Candidate, picked: Iterable[str], candidates: dict[str, _Candidate]
) -> bool:
    """Whether the term is there already, or only ever stands inside (or around) one that is."""
    for other in picked:
        if _overlap(key, other):
            known = candidates.get(other)
            if known is None or candidate.count <= known.count:
                return True
    return False


def _overlap(key: str, other: str) -> bool:
    if _HAN.search(key):
        return key in other or other in key
    words, others = set(key.split()), set(other.split())
    return bool(words & others)


def _count(words: Sequence[_Word], text: str, candidates: dict[str, _Candidate]) -> None:
    def add(key: str, shown: str, start: int, weight: float, *, pair: bool) -> None:
        if key in candidates:
            candidates[key].count += 1
        else:
            candidates[key] = _Candidate(shown, start, weight, pair)

    for word in words:
        if word.weight:
            add(word.key, word.shown, word.start, word.weight, pair=False)
    pairs: dict[str, int] = {}
    phrases = [(left, right, text[left.end : right.start]) for left, right in pairwise(words)]
    phrases = [p for p in phrases if p[0].weight and p[1].weight and _adjoin(*p) and p[0].key != p[1].key]
    phrases = [p for p in phrases if not _begins_a_name(p[1], p[0], text)]
    for left, right, gap in phrases:
        pairs[left.key + gap + right.key] = pairs.get(left.key + gap + right.key, 0) + 1
    for left, right, gap in phrases:
        key = left.key + gap + right.key
        # Two Chinese words side by side are a term only if it recurs, and so are two others in a long text.
        if pairs[key] > 1 or (gap and len(text) <= _SINGLE_PAIR_TEXT_CHARS):
            weight = (left.weight + right.weight) / 2
            add(key, left.shown + left.ending + gap + right.shown, left.start, weight, pair=True)


def _adjoin(left: _Word, right: _Word, gap: str) -> bool:
    chinese = _HAN.search(left.key), _HAN.search(right.key)
    return gap == ("" if all(chinese) else " ") and all(chinese) == any(chinese)


def _begins_a_name(word: _Word, before: _Word, text: str) -> bool:
    """Whether a word is written as names are, and what stands before it is not: beat Elden Ring."""
    capital = text[word.start].isupper() and text[word.start + 1].islower()
    return capital and text[before.start].islower()


def _spaced_words(text: str, language: str, shouting: bool) -> list[_Word]:
    words = []
    parted = _RUN_ON.sub(lambda stop: "!" if _begins_anew(stop, language) else ".", text)
    units = {match.start(1) for match in _MEASURED.finditer(text)}
    for match in _SPACED.finditer(parted):
        written = POSSESSIVE.sub("", match.group())
        if language == "ko":
            written = _KOREAN_PARTICLE.sub("", written)
        key = written.casefold().replace("’", "'")
        weight = spaced_weight(key, language) if len(key) <= _LONGEST_WORD and match.start() not in units else 0.0
        if key == "run" and _DISTANCE.search(text, max(match.start() - 10, 0), match.start()):
            weight = _RUN_WEIGHT
        ending = "'s" if POSSESSIVE.search(match.group()) else ""
        words.append(_Word(key, _lower(written, shouting), match.start(), match.end(), weight, ending))
    return words


def _begins_anew(stop: re.Match[str], language: str) -> bool:
    before, word = stop.string[max(stop.start() - _LONGEST_WORD, 0) : stop.start()], stop[1]
    ended = re.split(r"[\W\d_]", before)[-1]
    # Dr.Dre, St.Vincent and last.fm are names.
    capital = word.istitle() and len(word) > 1 and len(ended) > 2 and ended[-1].islower()
    said_all = ended.islower() and len(word) > 2 and not spaced_weight(ended, language)
    return capital or said_all or not spaced_weight(word.casefold(), language)


def _east_asian_words(text: str, language: str, segmenter: Segmenter) -> list[_Word]:
    if language == "ja":
        return [_Word(m.group(), m.group(), m.start(), m.end(), 1.0) for m in _JAPANESE.finditer(text)]
    return list(_chinese_words(text, segmenter)) if _HAN.search(text) else []


def _chinese_words(text: str, segmenter: Segmenter) -> Iterator[_Word]:
    for cut, place in segmenter.cut_with_offsets(to_simplified(text)):
        word, start, end = cut, place, place + len(cut)
        if _HAN.search(word):
            if len(word) > 1 and word[0] in _NO_PART_OF_IT and not _is_listed(word, segmenter):
                word, start = word[1:], start + 1
            weight = 1.0 if word in segmenter.user_words else chinese_weight(word, segmenter.knows(word))
            yield _Word(word.casefold(), text[start:end], start, end, weight)


def _is_listed(word: str, segmenter: Segmenter) -> bool:
    return segmenter.knows(word) or word in segmenter.user_words


def _key(term: str) -> str:
    return to_simplified(term).casefold()


def _lower(written: str, shouting: bool) -> str:
    return " ".join(word if _is_acronym(word, shouting) else word.lower() for word in written.split())


def _is_acronym(word: str, shouting: bool) -> bool:
    return 2 <= len(word) <= 5 and word.isupper() and (not shouting or any(map(str.isdigit, word)))


def _is_presentable(tag: str) -> bool:
    return len(tag) > 1 and len(_HAN.findall(tag)) <= _LONGEST_TAG_HAN and len(tag.split()) <= _LONGEST_TAG_WORDS
