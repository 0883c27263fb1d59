"""Labels of interests against the tags that authors gave their own texts.

    .venv/bin/python benchmarks/labels.py --posts POSTS.jsonl.gz --keywords TITLES.jsonl.gz [--half tuning|reporting]

POSTS are signals whose `context` holds the author's tags, separated by commas, under `tags`. TITLES are lines with
`text`, `topic` and `keywords`; of them, invented users with two to four topics and ten titles on each are made. The
tags and keywords are the reference: they are hidden from what reads the texts. Users fall into halves by a hash of
their ids, titles by a hash of themselves, as in `drift.py`. Prints for each set the share of interests whose label,
or whose label or a keyword, meets one of the user's own tags: equal, or one within the other, letter case aside (95 %
by bootstrap over users); the share of labels that no other interest of the user has, and of those in Chinese
characters; their mean length in characters; the share that are common names and not words of the texts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from drift import HALVES, half
from rich.console import Console
from rich.table import Table

from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.evaluation.vector_cache import CachedEncoder
from penchant_pipelines.interests import Blender, Evidence, InterestSettings, Recipe, calibrate, view
from penchant_pipelines.interests.labels import Label, candidates, name_interests
from penchant_pipelines.interests.subjects import Subjects
from penchant_pipelines.model import MICROS_PER_DAY, MICROS_PER_SECOND
from penchant_pipelines.statistics import Bootstrap
from penchant_pipelines.text import TextPipeline, TextSettings
from penchant_pipelines.text.scripts import HAN

USERS = 100
TOPICS = (2, 3, 4)
TITLES_OF_A_TOPIC = 10
_HAN = re.compile(f"[{HAN}]")
_SEPARATORS = re.compile(r"[,，、;；]")


@dataclass(frozen=True, slots=True)
class User:
    """What one author wrote, with event times in µs, and the tags that the author gave all of it."""

    texts: list[tuple[str, int, str]]
    """Id, time, text."""
    tags: frozenset[str]


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, help="JSON Lines of signals with tags in their context")
    parser.add_argument("--keywords", type=Path, help="JSON Lines of titles with topic and keywords")
    parser.add_argument("--half", choices=HALVES, default=HALVES[0])
    parser.add_argument("--cache", type=Path, default=Path("var/vectors"), help="folder that keeps vectors")
    parser.add_argument("--show", type=int, default=0, metavar="USERS", help="print the labels of so many users")
    parser.add_argument("--words-alone", action="store_true", help="name by words of the texts alone")
    options = parser.parse_args()
    encoder = CachedEncoder(open_encoder(EncoderSettings()), options.cache)
    reader = TextPipeline(TextSettings())
    calibration = calibrate(encoder.encode)
    blender = Blender(Recipe(InterestSettings(), calibration, encoder.space_id))
    subjects = None if options.words_alone else Subjects(encoder.encode, calibration)
    table = Table("set", "users", "interests", "label meets a tag", "label or keyword")
    for name in ("distinct", "Chinese", "length", "common name"):
        table.add_column(name)
    sets = {"posts": (options.posts, authors), "titles": (options.keywords, invented)}
    for name, (file, make) in sets.items():
        if file is None:
            continue
        users = list(make(file, options.half))
        named = [name_all(user, reader, encoder, blender, subjects) for user in users]
        table.add_row(name, str(len(users)), str(sum(map(len, named))), *figures(users, named))
        for user, labels in list(zip(users, named, strict=True))[: options.show]:
            for label in labels:
                words = [label.label, *(word for word in label.keywords if word != label.label)]
                print("+" if meets(words[:1], user.tags) else " ", " | ".join(words))
            print()
    Console(width=150).print(table)
    return 0


def authors(file: Path, wanted: str) -> Iterator[User]:
    """Authors of one half, from signals."""
    signals = defaultdict(list)
    for line in _lines(file):
        signals[line["user_id"]].append(line)
    for user_id, lines in sorted(signals.items()):
        if half(user_id) == wanted:
            texts = [(line["id"], _micros(line["time"]), line["post"]["text"]) for line in lines]
            yield User(texts, _tags(line["context"].get("tags", "") for line in lines))


def invented(file: Path, wanted: str) -> Iterator[User]:
    """Users made of titles of one half, the same at each run."""
    topics = defaultdict(list)
    for line in _lines(file):
        if line["keywords"] and half(line["text"]) == wanted:
            topics[line["topic"]].append(line)
    random = np.random.default_rng(0)
    for _ in range(USERS):
        chosen = random.choice(sorted(topics), random.choice(TOPICS), replace=False)
        lines = [
            topics[topic][row]
            for topic in chosen
            for row in random.choice(len(topics[topic]), TITLES_OF_A_TOPIC, replace=False)
        ]
        random.shuffle(lines)
        texts = [(f"{day:03}", day * MICROS_PER_DAY, line["text"]) for day, line in enumerate(lines)]
        yield User(texts, _tags(line["keywords"] for line in lines))


def name_all(
    user: User, reader: TextPipeline, encoder: CachedEncoder, blender: Blender, subjects: Subjects | None
) -> list[Label]:
    """Label a user's interests as the engine does."""
    read = [(name, time, reader.gist(reader.read(text))) for name, time, text in user.texts]
    read = sorted((entry for entry in read if entry[2].text), key=lambda entry: (entry[1], entry[0]))
    vectors = encoder.encode([document.text for _, _, document in read])
    events = [
        Evidence(name, time, vector, terms=document.terms, language=document.language)
        for (name, time, document), vector in zip(read, vectors, strict=True)
    ]
    profile = view(blender.replay(events), events[-1].time, blender)
    interests = [interest for interest in profile.interests if interest.sign > 0]
    words = sorted({word for interest in interests for word in candidates(interest)})
    known = dict(zip(words, encoder.encode(words), strict=True))
    return name_interests(interests, known.get, subjects, profile.languages[0])


def figures(users: Sequence[User], named: Sequence[Sequence[Label]]) -> Iterator[str]:
    """The cells of a set's row."""
    bootstrap = Bootstrap(len(users), seed=0)
    for most in (0, None):
        shares = [
            np.mean([meets([label.label, *label.keywords[:most]], user.tags) for label in labels])
            for user, labels in zip(users, named, strict=True)
        ]
        mean, low, high = bootstrap.interval(np.array(shares))
        yield f"{mean:.3f} ({low:.3f}–{high:.3f})"
    every = [[label.label for label in labels] for labels in named]
    yield f"{np.mean([labels.count(label) == 1 for labels in every for label in labels]):.3f}"
    yield f"{np.mean([bool(_HAN.search(label)) for labels in every for label in labels]):.3f}"
    yield f"{np.mean([len(label) for labels in every for label in labels]):.1f}"
    yield f"{np.mean([label.label not in label.keywords for labels in named for label in labels]):.3f}"


def meets(words: Sequence[str], tags: frozenset[str]) -> bool:
    """Whether a word equals a tag, or one contains the other; both case-folded. A sign alone is in too many."""
    folded = [word.casefold() for word in words if len(word) > 1]
    return any(word in tag or tag in word for word in folded for tag in tags)


def _tags(fields: Iterable[str]) -> frozenset[str]:
    tags = (tag.strip().casefold() for field in fields for tag in _SEPARATORS.split(field))
    return frozenset(tag for tag in tags if len(tag) > 1)


def _micros(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * MICROS_PER_SECOND)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


if __name__ == "__main__":
    raise SystemExit(main())
