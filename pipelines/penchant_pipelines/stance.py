"""Does its author like what a text is about? A linear head on its words, trained on reviews with ratings.

It reads words, not vectors: its answer outlives a change of the encoder. Capture asks it about posts without a rating,
which count as praise otherwise, and heeds it only where it is sure that a post is none.
"""

from __future__ import annotations

import functools
import json
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.errors import WrongState
from penchant_pipelines.text.scripts import HAN

FILE = "stance.safetensors"
FORMAT = "penchant-stance-1"
DATA = resources.files("penchant_pipelines") / "stance_data"
LANGUAGES = ("zh", "en")
BUCKETS = 1 << 15
"""Weights for words and pairs of words, found by hash."""
COUNTS = 4
"""A constant, the balance of polar words, and how many there are of each kind."""
PRAISE = 2
"""Place among these counts of how many speak for something."""
REACH = 3
"""How many words after it a negation turns round."""

_HAN = re.compile(f"[{HAN}]")
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[^\w\s]")
_ENDS = frozenset("。！？；，.!?;,")
_NEGATIONS = frozenset(
    {"不", "没", "没有", "别", "无", "非", "未", "不是", "不太", "不够", "不会", "不能", "并不"}
    | {"not", "no", "never", "nothing", "none", "cannot", "without", "hardly"}
)
_COMPARING = frozenset({"better"})
"""Praise that says nothing after a negation."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a text's words tell: hash buckets of its words and pairs, each once, and counts of polar words."""

    buckets: NDArray[np.int64]
    counts: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """Weights for one language."""

    ngrams: NDArray[np.float16]
    """(BUCKETS,)"""
    counts: NDArray[np.float32]
    """(COUNTS,)"""
    blame: NDArray[np.float32]
    """(2,): score up to which the head is sure that a text is no praise (−inf: never), and the mean rating there"""

    def score(self, words: Words) -> float:
        """Score of a text; more is better liked."""
        total = float(self.ngrams[words.buckets].astype(np.float32).sum()) / math.sqrt(max(len(words.buckets), 1))
        return total + float(self.counts @ words.counts)


class Stance:
    """Heads by language. Safe to share among threads."""

    def __init__(self, heads: dict[str, Head]) -> None:
        self.heads = heads

    @classmethod
    def load(cls, path: Path) -> Stance:
        """Load `stance.safetensors`. Raises WrongState where it is not whole."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                about = dict(file.metadata() or {})
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            raise WrongState("STANCE_UNREADABLE", f"{str(path)!r} is no safetensors file: {error}") from error
        if about.get("format") != FORMAT:
            raise WrongState("STANCE_UNREADABLE", f"{str(path)!r} is no stance head of Penchant ({FORMAT})")
        heads = {}
        try:
            for language in json.loads(about["languages"]):
                parts = {field.name: weights.pop(f"{language}.{field.name}") for field in fields(Head)}
                heads[language] = _checked(Head(**parts))
        except (KeyError, TypeError, ValueError) as error:
            raise WrongState("STANCE_UNREADABLE", f"{str(path)!r} lacks weights or has wrong ones: {error}") from error
        if weights:
            raise WrongState("STANCE_UNREADABLE", f"{str(path)!r} holds weights that belong to no head")
        return cls(heads)

    def save(self, path: Path) -> None:
        """Write the weights, with the format in the file's header."""
        from safetensors.numpy import save_file

        weights = {
            f"{language}.{field.name}": np.ascontiguousarray(getattr(head, field.name))
            for language, head in self.heads.items()
            for field in fields(Head)
        }
        save_file(weights, path, metadata={"format": FORMAT, "languages": json.dumps(list(self.heads))})

    def can_blame(self, language: str) -> bool:
        """Whether any text of a language could be surely no praise; if not, there is no need to segment it."""
        head = self.heads.get(_primary(language))
        return head is not None and bool(head.blame[0] > -np.inf)

    def blame(self, words: Sequence[str], language: str) -> float | None:
        """Rating −1…1 to expect of a text that surely is no praise; None for all others.

        `words` as `TextPipeline.segment` gives them for the document's text.
        """
        head = self.heads.get(_primary(language))
        if head is None or not words:
            return None
        limit, rating = head.blame.tolist()
        return float(rating) if head.score(read_words(words)) <= limit else None


@functools.cache
def open_stance() -> Stance:
    """Load the heads that ship with the package."""
    return Stance.load(Path(str(DATA / FILE)))


def read_words(words: Sequence[str]) -> Words:
    """Hash words and pairs, and count polar words; what follows a negation closely counts the other way round."""
    written = [token for word in words for token in _tokens(word)]
    tokens = [token.lower() for token in written]
    polar = _polar_words()
    found: set[str] = set()
    good = bad = left = 0
    for place, token in enumerate(tokens):
        # Who doesn't love a sunset? Everybody does. Nothing beats a good one.
        asked = place > 0 and tokens[place - 1] == "who" and (place == 1 or tokens[place - 2] in _ENDS)
        praised = tokens[place : place + 2] == ["nothing", "beats"]
        negation = (token in _NEGATIONS or token.endswith("n't")) and not asked and not praised
        if token in _ENDS:
            left = 0
        turned = left > 0 and not negation and token not in _ENDS
        left = REACH if negation else max(left - 1, 0)
        found.add(f"{'not ' if turned else ''}{token}")
        # "Never had better ramen" is no blame, "it gets no better" no praise.
        silent = _is_name(written, place) or (turned and token in _COMPARING)
        sign = 0 if silent else polar.get(token, 0) * (-1 if turned else 1)
        good, bad = good + (sign > 0), bad + (sign < 0)
        if place:
            found.add(f"{tokens[place - 1]} {token} ")
            # 没 意思 is two words to jieba and one to the list.
            sign = polar.get(tokens[place - 1] + token, 0)
            good, bad = good + (sign > 0), bad + (sign < 0)
    balance = 3 * (good - bad) / math.sqrt(max(len(tokens), 1))
    counts = np.array([1, balance, math.log1p(good) / 2, math.log1p(bad) / 2], dtype=np.float32)
    return Words(np.array(sorted({_bucket(name) for name in found}), dtype=np.int64), counts)


def holds_praise(words: Sequence[str]) -> bool:
    """Whether words of a text, as `TextPipeline.segment` gives them, speak for something."""
    return bool(read_words(words).counts[PRAISE] > 0)


def _is_name(written: Sequence[str], place: int) -> bool:
    """Whether a token is a part of a name, Bad Bunny or Breaking Bad: words with capitals, side by side."""
    beside = (*written[max(place - 1, 0) : place], *written[place + 1 : place + 2])
    return written[place].istitle() and any(len(token) > 1 and token.istitle() for token in beside)


def _tokens(word: str) -> list[str]:
    plain = word.replace("’", "'")
    return [plain] if _HAN.search(plain) else _TOKEN.findall(plain)


def _bucket(name: str) -> int:
    return zlib.crc32(name.encode()) % BUCKETS


@functools.cache
def _polar_words() -> dict[str, int]:
    """Words that speak for or against, lines `+ word` or `- word`, a file a language."""
    lines = [line for language in LANGUAGES for line in (DATA / f"{language}.txt").read_text("utf-8").splitlines()]
    return {line[2:]: 1 if line[0] == "+" else -1 for line in lines}


def _primary(language: str) -> str:
    return language.partition("-")[0].lower()


def _checked(head: Head) -> Head:
    shapes = (head.ngrams.shape, head.counts.shape, head.blame.shape)
    if shapes != ((BUCKETS,), (COUNTS,), (2,)):
        raise ValueError(f"shapes {shapes}")
    for field in fields(Head):
        weights = getattr(head, field.name)
        if weights.dtype != (np.float16 if field.name == "ngrams" else np.float32):
            raise ValueError(f"{field.name} must be floating-point numbers of the right width")
    finite = (head.ngrams, head.counts, head.blame[1:])
    if not all(np.isfinite(weights).all() for weights in finite) or np.isnan(head.blame[0]):
        raise ValueError("weights must be finite")
    if not -1 <= head.blame[1] <= 1:
        raise ValueError("a rating lies between -1 and 1")
    return head
