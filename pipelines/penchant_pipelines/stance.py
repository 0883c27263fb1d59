"""Does its author like what a text is about? Answers only where it is sure; trained on reviews with ratings."""

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

from penchant_pipelines.errors import InvalidInput, WrongState

FILE = "stance.safetensors"
FORMAT = "penchant-stance-1"
LANGUAGES = ("zh", "en")
BUCKETS = 1 << 15
"""Weights for words and pairs of words, found by hash."""
COUNTS = 4
"""A constant, the balance of polar words, and how many there are of each kind."""
REACH = 3
"""How many words after it a negation turns round."""

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[^\w\s]")
_ENDS = frozenset("。！？；，.!?;,")
_NEGATIONS = frozenset(
    {"不", "没", "没有", "别", "无", "非", "未", "不是", "不太", "不够", "不会", "不能", "并不"}
    | {"not", "no", "never", "nothing", "none", "cannot", "without", "hardly"}
)


@dataclass(frozen=True, slots=True)
class Words:
    """What a text's words tell: hash buckets of its words and pairs, each once, and counts of polar words."""

    buckets: NDArray[np.int64]
    counts: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """Weights for one language. Thresholds are on the probability; outside 0…1 where it is never sure."""

    ngrams: NDArray[np.float16]
    """(BUCKETS,)"""
    counts: NDArray[np.float32]
    """(COUNTS,)"""
    vector: NDArray[np.float32]
    """(d,), or (0,) where the head reads words alone"""
    calibration: NDArray[np.float32]
    """(2,): slope, not below 0, and offset"""
    thresholds: NDArray[np.float32]
    """(2,): sure of dislike up to the first, of liking from the second"""

    def score(self, words: Words, vector: NDArray[np.float32]) -> float:
        """Score before calibration; more is better liked."""
        total = float(self.ngrams[words.buckets].astype(np.float32).sum()) / math.sqrt(max(len(words.buckets), 1))
        total += float(self.counts @ words.counts)
        return total + (float(self.vector @ vector) if len(self.vector) else 0.0)

    def probability(self, words: Words, vector: NDArray[np.float32]) -> float:
        """Probability that the author likes it, likes and dislikes being equally frequent."""
        slope, offset = self.calibration.tolist()
        return 1 / (1 + math.exp(-max(-50.0, min(slope * self.score(words, vector) + offset, 50.0))))


class Stance:
    """Heads by language: `heads` read words and vectors of `space_id`, `plain` words alone, for any other space."""

    def __init__(self, heads: dict[str, Head], plain: dict[str, Head], space_id: str) -> None:
        self.heads = heads
        self.plain = plain
        self.space_id = space_id

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
        if about.get("format") != FORMAT or "space_id" not in about:
            raise WrongState("STANCE_UNREADABLE", f"{str(path)!r} is no stance head of Penchant ({FORMAT})")
        kinds: dict[str, dict[str, Head]] = {"heads": {}, "plain": {}}
        try:
            for kind, language in json.loads(about["parts"]):
                parts = {field.name: weights.pop(f"{kind}.{language}.{field.name}") for field in fields(Head)}
                kinds[kind][language] = _checked(Head(**parts), plain=kind == "plain")
        except (KeyError, TypeError, ValueError) as error:
            raise WrongState("STANCE_UNREADABLE", f"{str(path)!r} lacks weights or has wrong ones: {error}") from error
        if weights or kinds["heads"].keys() != kinds["plain"].keys():
            raise WrongState("STANCE_UNREADABLE", f"{str(path)!r} holds weights that belong to no head")
        return cls(kinds["heads"], kinds["plain"], about["space_id"])

    def save(self, path: Path) -> None:
        """Write the weights, with format and space in the file's header."""
        from safetensors.numpy import save_file

        kinds = {"heads": self.heads, "plain": self.plain}
        weights = {
            f"{kind}.{language}.{field.name}": np.ascontiguousarray(getattr(head, field.name))
            for kind, heads in kinds.items()
            for language, head in heads.items()
            for field in fields(Head)
        }
        parts = json.dumps([[kind, language] for kind, heads in kinds.items() for language in heads])
        save_file(weights, path, metadata={"format": FORMAT, "space_id": self.space_id, "parts": parts})

    def probability(
        self, words: Sequence[str], vector: NDArray[np.float32] | None, language: str, space_id: str = ""
    ) -> float | None:
        """Probability that the author likes it, were both equally frequent; None for a language not learnt."""
        found = self._head(language, vector, space_id)
        return None if found is None else found[0].probability(read_words(words), found[1])

    def verdict(
        self, words: Sequence[str], vector: NDArray[np.float32] | None, language: str, space_id: str = ""
    ) -> float | None:
        """−1 (dislikes it) … +1 (likes it), None where not sure.

        `words` as `TextPipeline.segment` gives them for the document's text, `vector` (d,) float32 of that text alone
        in space `space_id`. In another space than the one learnt, and without a vector, words alone decide.
        """
        found = self._head(language, vector, space_id)
        if found is None or not words:
            return None
        head, own = found
        probability = head.probability(read_words(words), own)
        low, high = head.thresholds.tolist()
        return 2 * probability - 1 if probability <= low or probability >= high else None

    def _head(
        self, language: str, vector: NDArray[np.float32] | None, space_id: str
    ) -> tuple[Head, NDArray[np.float32]] | None:
        primary = language.partition("-")[0].lower()
        if primary not in self.heads:
            return None
        nothing = np.zeros(0, dtype=np.float32)
        if vector is None or space_id != self.space_id:
            return self.plain[primary], nothing
        head = self.heads[primary]
        if vector.shape != head.vector.shape:
            raise InvalidInput.at("vector", f"has shape {vector.shape}, the stance head reads {head.vector.shape}")
        return head, vector


def read_words(words: Sequence[str]) -> Words:
    """Hash words and pairs, and count polar words; what follows a negation closely counts the other way round."""
    tokens = [token for word in words for token in _tokens(word)]
    polar = _polar_words()
    found: set[str] = set()
    good = bad = left = 0
    for place, token in enumerate(tokens):
        negation = token in _NEGATIONS or token.endswith("n't")
        if token in _ENDS:
            left = 0
        turned = left > 0 and not negation and token not in _ENDS
        left = REACH if negation else max(left - 1, 0)
        found.add(f"{'not ' if turned else ''}{token}")
        sign = polar.get(token, 0) * (-1 if turned else 1)
        good, bad = good + (sign > 0), bad + (sign < 0)
        if place:
            found.add(f"{tokens[place - 1]} {token} ")
            # 没 意思 is two words to jieba and one to the list.
            sign = polar.get(tokens[place - 1] + token, 0)
            good, bad = good + (sign > 0), bad + (sign < 0)
    balance = 3 * (good - bad) / math.sqrt(max(len(tokens), 1))
    counts = np.array([1, balance, math.log1p(good) / 2, math.log1p(bad) / 2], dtype=np.float32)
    return Words(np.array(sorted({_bucket(name) for name in found}), dtype=np.int64), counts)


def _tokens(word: str) -> list[str]:
    lowered = word.lower().replace("’", "'")
    return [lowered] if _HAN.search(lowered) else _TOKEN.findall(lowered)


def _bucket(name: str) -> int:
    return zlib.crc32(name.encode()) % BUCKETS


@functools.cache
def _polar_words() -> dict[str, int]:
    """Words that speak for or against, lines `+ word` or `- word`, a file a language."""
    folder = resources.files("penchant_pipelines") / "stance_words"
    lines = [line for language in LANGUAGES for line in (folder / f"{language}.txt").read_text("utf-8").splitlines()]
    return {line[2:]: 1 if line[0] == "+" else -1 for line in lines}


def _checked(head: Head, plain: bool) -> Head:
    shapes = (head.ngrams.shape, head.counts.shape, head.calibration.shape, head.thresholds.shape)
    if shapes != ((BUCKETS,), (COUNTS,), (2,), (2,)) or head.vector.ndim != 1 or (len(head.vector) == 0) != plain:
        raise ValueError(f"shapes {shapes} and {head.vector.shape}")
    for field in fields(Head):
        weights = getattr(head, field.name)
        if weights.dtype != (np.float16 if field.name == "ngrams" else np.float32) or not np.isfinite(weights).all():
            raise ValueError(f"{field.name} must be finite floating-point numbers of the right width")
    if head.calibration[0] < 0 or head.thresholds[0] >= head.thresholds[1]:
        raise ValueError("calibration must not fall, and the thresholds must leave room for doubt")
    return head
