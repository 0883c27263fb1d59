"""What the bilingual encoder learns from, and what it is measured on; the two share no text.

A row goes to a part by the hash of its text, so that the split survives reordering and growth of a file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.text import TextError
from penchant_pipelines.text.clean import clean
from penchant_pipelines.text.pipeline import encoder_text

FILES = {
    "tatoeba": "parallel/tatoeba.jsonl.gz",
    "lctt_titles": "parallel/lctt_titles.jsonl.gz",
    "lctt_articles": "parallel/lctt_articles.jsonl.gz",
    "cedict": "lexicon/cedict.jsonl.gz",
    "stsb_dev": "similarity/stsb_zh_dev.jsonl.gz",
    "stsb_train": "similarity/stsb_zh_train.jsonl.gz",
    "pairs": "similarity/pairs_zh.jsonl.gz",
    "zh_blogs": "zh_blogs/signals.jsonl.gz",
    "en_blogs": "en_blogs/signals.jsonl.gz",
    "douban": "douban/items.jsonl.gz",
    "goodreads": "goodreads/items.jsonl.gz",
    "lastfm": "lastfm/items.jsonl.gz",
}
"""All that a run reads of its data; topics only measure what came of it."""
SEED = 7
"""Of what is drawn from the data, whatever a run's own seed: only runs that know the same words have a mean."""
_SENTENCE_END = re.compile(r"(?<=[。！？!?])|(?<=\.)\s|\n+")


class Row(dict[str, Any]):
    """An object of a line of a file. Raises InvalidInput where it is asked for a field that it lacks."""

    def __init__(self, fields: dict[str, Any], where: str) -> None:
        super().__init__(fields)
        self._where = where

    def __missing__(self, field: str) -> NoReturn:
        """Tell where it is missing."""
        raise InvalidInput.at(self._where, f"has no field {field!r}")


def read_lines(file: Path) -> Iterator[Row]:
    """Objects of a gzipped JSON Lines file. Raises OSError, and InvalidInput where a line can't be read."""
    read = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line, object_hook=partial(Row, where=f"{file}, line {read + 1}"))
                read += 1
    except (EOFError, ValueError) as error:
        raise InvalidInput.at(str(file), f"can't be read after line {read}: {error}") from error


def digest(folder: Path) -> str:
    """16 hex digits that follow from FILES below a folder. Raises OSError where one is missing."""
    files = "".join(file_sha256(folder / file) for file in FILES.values())
    return hashlib.sha256(files.encode()).hexdigest()[:16]


def share(text: str) -> float:
    """A number in [0, 1) that follows from the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


@dataclass(frozen=True, slots=True)
class Graded:
    """Two texts and how alike they are, 0…5."""

    a: str
    b: str
    score: float


@dataclass(frozen=True, slots=True)
class Topical:
    """A text and its topic."""

    text: str
    topic: str


@dataclass(slots=True)
class Corpus:
    """Texts as the encoder reads them. Chinese comes first in pairs of languages."""

    parallel: list[tuple[str, str]] = field(default_factory=list)
    titles: list[tuple[str, str]] = field(default_factory=list)
    paraphrases: list[tuple[str, str, str]] = field(default_factory=list)
    """Anchor, what says the same, what does not ("" where nobody said)."""
    graded: list[Graded] = field(default_factory=list)
    passages: list[tuple[str, str]] = field(default_factory=list)
    """Two Chinese texts out of one document."""
    english: list[str] = field(default_factory=list)
    chinese: list[str] = field(default_factory=list)
    """All Chinese text, for counting words."""
    reading: list[str] = field(default_factory=list)
    """Chinese sentences of every source, whose English nobody wrote."""


@dataclass(slots=True)
class Held:
    """One part of what is set aside: `development` steers the training, `test` is looked at once."""

    graded: list[Graded] = field(default_factory=list)
    parallel: list[tuple[str, str]] = field(default_factory=list)
    titles: list[tuple[str, str]] = field(default_factory=list)

    def texts(self) -> set[str]:
        """All of its texts."""
        return {text for pair in self.parallel + self.titles for text in pair} | {
            text for graded in self.graded for text in (graded.a, graded.b)
        }


def read_corpus_parts(folder: Path) -> tuple[Held, Held]:
    """What is set aside: the development part and the test part."""
    development, test = Held(), Held()
    development.parallel, test.parallel = _halves(_held(_translations(folder, "tatoeba"), 2000))
    development.titles, test.titles = _halves(_held(_translations(folder, "lctt_titles"), 1000))
    for row in read_lines(folder / FILES["stsb_dev"]):
        graded = Graded(read(row["a"], "zh"), read(row["b"], "zh"), float(row["score"]))
        (development if share(graded.a) < 0.5 else test).graded.append(graded)
    return development, test


def read_corpus(folder: Path, reading: int) -> Corpus:
    """Read everything below `folder` that may be learnt from, with `reading` sentences that nobody translated."""
    corpus = Corpus()
    held = set[str]().union(*(part.texts() for part in read_corpus_parts(folder)))
    for name, learnt in (("tatoeba", corpus.parallel), ("lctt_titles", corpus.titles)):
        learnt += [pair for pair in _translations(folder, name) if held.isdisjoint(pair)]
    for row in read_lines(folder / FILES["stsb_train"]):
        graded = Graded(read(row["a"], "zh"), read(row["b"], "zh"), float(row["score"]))
        if held.isdisjoint((graded.a, graded.b)):
            corpus.graded.append(graded)
    corpus.paraphrases = _paraphrases(folder / FILES["pairs"], held)
    draw = random.Random(SEED)
    for row in read_lines(folder / FILES["lctt_articles"]):
        title = read(row["title"], "zh")
        if title in held:
            continue
        spans = _spans(read(row["text"][:3000].removeprefix(row["title"]), "zh"))
        corpus.passages += [(title, span) for span in spans[:1]]
        if len(spans) > 3:
            first, second = draw.sample(spans[1:], 2)
            corpus.passages.append((first, second))
    for row in read_lines(folder / FILES["zh_blogs"]):
        spans = _spans(read(row["post"]["text"][:3000], "zh"))
        tags = row.get("context", {}).get("tags", "")
        if len(spans) > 1:
            corpus.passages.append((spans[0], draw.choice(spans[1:])))
        if tags and spans:
            corpus.passages.append((read(tags.replace(",", " ") + " " + spans[0][:20], "zh"), spans[-1]))
    for row in read_lines(folder / FILES["douban"]):
        title = read(row.get("title", ""), "zh")
        rest = read(row.get("text", "").removeprefix(row.get("title", "")), "zh")
        if title and len(rest) > 6 and draw.random() < 0.5:
            corpus.passages.append((title, rest[:120]))
    for row in read_lines(folder / FILES["en_blogs"]):
        if share(row["id"]) > 0.6 or not row["post"]["text"][:600].isascii():
            continue
        spans = _spans(read(row["post"]["text"][:600], "en"), 160)
        if spans:
            corpus.english.append(draw.choice(spans))
    for name in ("goodreads", "lastfm"):
        items = [read(row["text"], "en") for row in read_lines(folder / FILES[name])]
        corpus.english += _drawn(draw, [text for text in items if text], 2000)
    corpus.english += _drawn(draw, [en for _, en in corpus.titles], 3000)
    corpus.english += _drawn(draw, [en for _, en in corpus.parallel], 4000)
    corpus.chinese = [
        *(zh for zh, _ in corpus.parallel + corpus.titles),
        *(text for row in corpus.paraphrases for text in row),
        *(text for pair in corpus.passages for text in pair),
        *(text for g in corpus.graded for text in (g.a, g.b)),
    ]
    corpus.reading = _reading(folder, held, draw, reading)
    return corpus


def read_topics(folder: Path, name: str, language: str) -> list[Topical]:
    """A set of topic-labelled texts, in the order of their hashes; for measuring only."""
    rows = sorted(read_lines(folder / f"topics/{name}.jsonl.gz"), key=lambda row: share(row["text"]))
    return [Topical(read(row["text"], language), row["topic"]) for row in rows]


def read(text: str, language: str) -> str:
    """What the encoder would be given of a text, empty where nothing is left."""
    try:
        return encoder_text(clean(text).text, language)
    except TextError:
        return ""


def _translations(folder: Path, name: str) -> list[tuple[str, str]]:
    """Pairs (Chinese, English), each once, in the order of their hashes."""
    rows = read_lines(folder / FILES[name])
    pairs = dict.fromkeys((read(row["zh"], "zh"), read(row["en"], "en")) for row in rows)
    return sorted((pair for pair in pairs if all(pair)), key=lambda pair: share(pair[0]))


def _held(pairs: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """The first pairs whose texts on both sides occur once: a translation that is asked for must be the only one."""
    taken: list[tuple[str, str]] = []
    used: set[str] = set()
    for pair in pairs:
        if len(taken) < count and used.isdisjoint(pair):
            taken.append(pair)
            used.update(pair)
    return taken


def _halves(pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The second half, which steers, and the first, which is reported."""
    middle = len(pairs) // 2
    return pairs[middle:], pairs[:middle]


def _paraphrases(file: Path, held: set[str]) -> list[tuple[str, str, str]]:
    same: list[tuple[str, str, str]] = []
    against: dict[str, str] = {}
    for row in read_lines(file):
        a, b, label = read(row["a"], "zh"), read(row["b"], "zh"), row["label"]
        if not a or not b or not held.isdisjoint((a, b)):
            continue
        if label in {"same", "entailment"}:
            same.append((a, b, row["set"]))
        elif label == "contradiction":
            against[a] = b
    # Questions about one bank's two products say little; a third of them is enough.
    return [(a, b, against.get(a, "")) for a, b, origin in same if not origin.startswith("AFQMC") or share(a) < 0.3]


def _reading(folder: Path, held: set[str], draw: random.Random, count: int) -> list[str]:
    """Draw sentences of what has no translation, each once, none of those that are measured on."""
    texts = [
        read(row[side], "zh")
        for row in read_lines(folder / FILES["pairs"])
        # Questions about one bank's two products say little.
        if not row["set"].startswith("AFQMC")
        for side in ("a", "b")
    ]
    # An article begins with its title.
    articles = (
        row["text"].removeprefix(row["title"])
        for row in read_lines(folder / FILES["lctt_articles"])
        if read(row["title"], "zh") not in held
    )
    posts = (row["post"]["text"] for row in read_lines(folder / FILES["zh_blogs"]))
    items = (row.get("text", "") for row in read_lines(folder / FILES["douban"]))
    for documents, most in ((articles, 3), (posts, 20), (items, 3)):
        for document in documents:
            spans = _spans(read(document[:3000], "zh"), 60)
            texts += _drawn(draw, spans, most)
    return _drawn(draw, sorted({text for text in texts if text} - held), count)


def _drawn(draw: random.Random, texts: list[str], most: int) -> list[str]:
    return draw.sample(texts, min(most, len(texts)))


def _spans(text: str, length: int = 90) -> list[str]:
    """Runs of whole sentences of about `length` characters."""
    spans = [""]
    for sentence in _SENTENCE_END.split(text):
        if len(spans[-1]) + len(sentence) > length and spans[-1]:
            spans.append("")
        spans[-1] = (spans[-1] + sentence)[: 2 * length]
    return [span.strip() for span in spans if len(span.strip()) > 15]
