"""How soon a change of interests is told, how often wrongly, and what is recommended after it.

    .venv/bin/python benchmarks/drift.py --topics TOPIC_TEXTS.jsonl.gz … --authors SIGNALS.jsonl.gz … --cache DIR

Streams of known changes are spliced from topic-labelled texts (lines with `text` and `topic`) and from the posts of
real people (signals): see `splices.py`. They go through the blend that serves, with the
embedded encoder's vectors. Texts and authors fall into two halves by hash: settings are tuned on one, the other only
reports. Prints a table, then JSON, with 95 % intervals by bootstrap over streams:

- missed: changes that no alarm follows within 20 signals (gradual ones: within 40, since they take 20);
- delay: signals from the change to the alarm, 1 for the first; the way back of a recurring user is told apart, within
  the ten signals that are left then;
- false alarms per 500 signals: in controls and before changes, of all signals that there was enough evidence at;
- alarms again per 500 signals: of anything else after the first right one of an abrupt change, when nothing changes
  any more;
- recall: share of the 20 signals after an abrupt change whose topic or author is among the first ten of a pool of texts
  of all of them, ranked by what is known before the signal; beside an engine without detector, and an oracle that
  forgets all before the change; and the same of the last 15 of these signals, since the oracle begins by chance. In
  controls, of the last 20 signals: what a detector costs who does not change;
- precision: of the same signals and arms, the share of the first ten whose topic or author is the signal's;
- chance: what a random order of the pool would reach of either, exactly; of recall nearly 1 where groups are few;
- thin: whether thin users are told so; they have fewer signals than anything is said by, so that it must be 1.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import hypergeom
from serving import read
from splices import AFTER, RAMP, THICK, Kind, Source, Splice, splice

from penchant import convert
from penchant.v1.signal_pb2 import Signal
from penchant_pipelines.encoder import Encoder, EncoderSettings
from penchant_pipelines.evaluation.lineup import open_cached
from penchant_pipelines.interests import Blender, Evidence, InterestSettings, Profile, Recipe, calibrate, drift, view
from penchant_pipelines.recommend.ranking import Taste, score
from penchant_pipelines.recommend.settings import RecommendSettings
from penchant_pipelines.statistics import Bootstrap
from penchant_pipelines.text import TextError, TextPipeline, TextSettings

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

AUTHORS = 120
POSTS = 150
"""Most authors of a source and posts of an author: to encode whole blogs takes hours."""
WITHIN = 20
"""Signals after a change in which it must be told, and in which recall is measured."""
BEGUN = 5
"""Signals after a change in which nobody can know much of it."""
POOL = 10
"""Texts of each group in the pool."""
TOP = 10
HALVES = ("tuning", "reporting")
ARMS = ("engine", "no_detector", "oracle", "chance")


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of a source by group; `times` (µs) where the groups are authors."""

    name: str
    groups: dict[str, list[str]]
    times: dict[str, list[int]] | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one stream."""

    stream: Splice
    alarms: tuple[int, ...]
    onsets: tuple[int, ...]
    """When what each alarm tells began (µs): one that stands is renewed for as long as the change is plain."""
    enough: int
    """First signal at which there is enough evidence to speak; the stream's length where there never is."""
    found: Floats | None = None
    """(signals, 2, arms) recall and precision; None where they are not asked for."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", type=Path, nargs="+", default=[], help="JSON Lines with text and topic")
    parser.add_argument("--authors", type=Path, nargs="+", default=[], help="JSON Lines of signals")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps vectors for the next run")
    parser.add_argument("--streams", type=int, default=60, help="streams of each kind, source and half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", choices=HALVES, action="append", help="one half alone")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a drift or recommend setting")
    options = parser.parse_args()
    settings = [changed(section, options.set) for section in (drift.DriftSettings(), RecommendSettings())]
    encoder = open_cached(EncoderSettings(), options.cache)
    recipe = Recipe(InterestSettings(drift=settings[0]), calibrate(encoder.encode), encoder.space_id)
    bench = Bench(Blender(recipe), settings[1])
    pipeline = TextPipeline(TextSettings(), options.cache)
    loaded = [*map(read_topics, options.topics), *map(read_authors, options.authors)]
    found: dict[str, dict[str, Any]] = {half: {} for half in options.half or HALVES}
    for texts in loaded:
        for number, name in enumerate(HALVES):
            if name in found:
                source, vectors = encoded(texts, name, pipeline, encoder)
                dice = np.random.default_rng([options.seed, number])
                found[name][texts.name] = bench.measure(source, vectors, options.streams, dice)
    for name, by_source in found.items():
        found[name] = {source: figures(seen, options.seed) for source, seen in by_source.items()}
        if len(by_source) > 1:
            found[name]["all"] = figures([one for seen in by_source.values() for one in seen], options.seed)
    show(found)
    print(json.dumps({"space_id": encoder.space_id, "similarity": recipe.calibration.similarity, **found}, indent=1))
    encoder.close()
    return 0


def changed(section: Any, pairs: Iterable[str]) -> Any:
    """Apply those NAME=VALUE pairs whose names the section has."""
    values = dict(pair.split("=", 1) for pair in pairs)
    fields = type(section).model_fields
    return type(section)(**{name: json.loads(value) for name, value in values.items() if name in fields})


def read_topics(path: Path) -> Texts:
    """Read topic-labelled texts."""
    groups: dict[str, list[str]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            groups[entry["topic"]].append(entry["text"])
    return Texts(path.name.split(".")[0], groups, None)


def read_authors(path: Path) -> Texts:
    """Read the earliest posts of some authors who wrote enough."""
    posts: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for message in read(path, Signal):
        signal = convert.to_signal(message)
        posts[signal.user_id].append((signal.time or 0, message.post.text))
    names = sorted((name for name, own in posts.items() if len(own) >= THICK[0] + AFTER), key=digest)[:AUTHORS]
    chosen = {name: sorted(posts[name])[:POSTS] for name in names}
    return Texts(
        path.parent.name,
        {name: [text for _, text in own] for name, own in chosen.items()},
        {name: [time for time, _ in own] for name, own in chosen.items()},
    )


def encoded(texts: Texts, wanted: str, pipeline: TextPipeline, encoder: Encoder) -> tuple[Source, Vectors]:
    """Take one half, authors by name and topics' texts one by one, as the encoder reads them."""
    kept: list[str] = []
    gaps: list[int] = []
    groups: dict[str, NDArray[np.intp]] = {}
    for name, own in texts.groups.items():
        if texts.times is not None and half(name) != wanted:
            continue
        rows, before = [], None
        for place, text in enumerate(own):
            if texts.times is None and half(text) != wanted:
                continue
            try:
                clean = pipeline.gist(pipeline.read(text)).text
            except TextError:
                continue
            if clean:
                time = texts.times[name][place] if texts.times is not None else 0
                gaps.append(0 if before is None else time - before)
                before = time
                rows.append(len(kept))
                kept.append(clean)
        groups[name] = np.array(rows, dtype=np.intp)
    timed = None if texts.times is None else np.array(gaps, dtype=np.int64)
    return Source(texts.name, groups, timed), encoder.encode(kept)


def half(name: str) -> str:
    """The half that a text, or an author by name, falls into: the same in all benchmarks."""
    return HALVES[digest(name)[0] % 2]


def digest(text: str) -> bytes:
    """A hash that splits alike on every machine."""
    return hashlib.sha256(text.encode()).digest()


class Bench:
    """Sends streams through the blend."""

    def __init__(self, blender: Blender, ranking: RecommendSettings) -> None:
        self._blender = blender
        self._ranking = ranking
        self._needed = blender.settings.drift.min_signals

    def measure(self, source: Source, vectors: Vectors, count: int, dice: np.random.Generator) -> list[Seen]:
        """Draw and play `count` streams of each kind, and as many thin ones."""
        thick = [
            self._play(splice(source, kind, False, dice), source, vectors, dice) for kind in Kind for _ in range(count)
        ]
        thin = [self._play(splice(source, Kind.ABRUPT, True, dice), source, vectors, dice) for _ in range(count)]
        return thick + thin

    def _play(self, stream: Splice, source: Source, vectors: Vectors, dice: np.random.Generator) -> Seen:
        profile, alarms, onsets, enough = Profile(), list[int](), list[int](), len(stream.rows)
        fresh = Profile()
        pool = _pool(source, stream, dice)
        asked: list[Floats] = []
        for place, (row, time) in enumerate(zip(stream.rows, stream.times, strict=True)):
            signal = Evidence(f"{place:04}", int(time), vectors[row])
            new = (
                stream.kind is Kind.ABRUPT and not stream.thin and stream.change is not None and place >= stream.change
            )
            settled = stream.kind is Kind.CONTROL and place >= len(stream.rows) - WITHIN
            if settled or (new and len(asked) < WITHIN):
                asked.append(self._found(profile, fresh, int(time), vectors, pool, stream.groups[place]))
            known = profile.drift.count
            self._blender.add(profile, signal)
            if new:
                self._blender.add(fresh, signal)
            state = profile.drift
            # What says the same once more is not observed, and leaves an alarm as it was.
            if state.count > known and state.remaining == self._blender.settings.drift.trust_signals:
                alarms.append(place)
                onsets.append(state.since or 0)
            if state.count > self._needed:
                enough = min(enough, place)
        return Seen(stream, tuple(alarms), tuple(onsets), enough, np.stack(asked) if asked else None)

    def _found(
        self, profile: Profile, fresh: Profile, time: int, vectors: Vectors, pool: list[tuple[int, str]], group: str
    ) -> Floats:
        """Recall and precision of each arm at one signal, (2, arms)."""
        rows = [row for row, _ in pool]
        right = np.array([name == group for _, name in pool])
        unalarmed = msgspec.structs.replace(profile, drift=drift.DriftState())
        told = [Taste.of(view(one, time, self._blender), vectors.shape[1]) for one in (profile, unalarmed, fresh)]
        none = np.zeros(len(rows))
        counts = []
        for taste in told:
            scores = score(taste, vectors[rows], None, none.astype(np.int64), none, time, self._ranking).scores
            counts.append(right[np.argsort(-scores, kind="stable")[:TOP]].sum())
        recall = [*(count > 0 for count in counts), hypergeom.sf(0, len(pool), right.sum(), TOP)]
        precision = [*(count / TOP for count in counts), right.mean()]
        return np.array([recall, precision], dtype=np.float64)


def _pool(source: Source, stream: Splice, dice: np.random.Generator) -> list[tuple[int, str]]:
    """Texts of every group that are not in the stream, shuffled."""
    taken = set(stream.rows.tolist())
    pool = [
        (int(row), name)
        for name, rows in source.groups.items()
        for row in dice.permutation([row for row in rows if row not in taken])[:POOL]
    ]
    return [pool[place] for place in dice.permutation(len(pool))]


def figures(seen: list[Seen], seed: int) -> dict[str, Any]:
    """Figures with 95 % intervals: [mean, low, high]."""
    thick = [one for one in seen if not one.stream.thin]
    found: dict[str, Any] = {}
    for kind in Kind:
        streams = [one for one in thick if one.stream.kind is kind]
        if kind is not Kind.CONTROL:
            found[kind.value] = _told(streams, [one.stream.change or 0 for one in streams], seed)
        if kind is Kind.RECURRING:
            found["recurring_back"] = _told(streams, [one.stream.back or 0 for one in streams], seed)
    ends = [len(one.stream.rows) if one.stream.change is None else one.stream.change for one in thick]
    wrong = np.array([sum(alarm < end for alarm in one.alarms) for one, end in zip(thick, ends, strict=True)], float)
    signals = np.array([max(0, end - one.enough) for one, end in zip(thick, ends, strict=True)], float)
    rate = Bootstrap(len(thick), seed).ratio(wrong, signals)
    found["false_alarms_per_500"] = _rounded(500 * value for value in rate)
    found["signals_between_false_alarms"] = round(float(signals.sum() / wrong.sum())) if wrong.any() else None
    found["alarms_again_per_500"] = _again([one for one in thick if one.stream.kind is Kind.ABRUPT], seed)
    settled = _by_arm(thick, Kind.CONTROL)[0]
    found["recall_control_by_no_detector"] = _rounded(Bootstrap(settled.shape[1], seed).ratio(settled[0], settled[1]))
    abrupt, precision = _by_arm(thick, Kind.ABRUPT)
    draws = Bootstrap(abrupt.shape[1], seed)
    for name, by_arm in (("recall", abrupt), ("precision", precision)):
        found[name] = {arm: _rounded(draws.interval(values)) for arm, values in zip(ARMS, by_arm, strict=True)}
    found["recall_by_oracle"] = _rounded(draws.ratio(abrupt[0], abrupt[2]))
    found["recall_by_no_detector"] = _rounded(draws.ratio(abrupt[0], abrupt[1]))
    begun = _by_arm(thick, Kind.ABRUPT, BEGUN)[0]
    found["recall_by_oracle_once_begun"] = _rounded(draws.ratio(begun[0], begun[2]))
    thin = np.array([one.enough >= len(one.stream.rows) for one in seen if one.stream.thin], float)
    found["thin_told_so"] = float(thin.mean())
    return found


def _by_arm(seen: list[Seen], kind: Kind, start: int = 0) -> Floats:
    """Recall and precision of the streams of a kind, of their signals from one on, (2, arms, streams)."""
    found = [one.found[start:].mean(axis=0) for one in seen if one.stream.kind is kind and one.found is not None]
    return np.stack(found, axis=-1)


def _again(streams: list[Seen], seed: int) -> list[float] | None:
    """Alarms of anything else per 500 signals once a change was told; None where none was."""
    again, signals = list[int](), list[int]()
    for one in streams:
        told = next((n for n, alarm in enumerate(one.alarms) if alarm >= (one.stream.change or 0)), None)
        if told is not None:
            again.append(len(set(one.onsets[told:])) - 1)
            signals.append(len(one.stream.rows) - 1 - one.alarms[told])
    if not signals:
        return None
    rate = Bootstrap(len(signals), seed).ratio(np.array(again, float), np.array(signals, float))
    return _rounded(500 * value for value in rate)


def _told(streams: list[Seen], changes: list[int], seed: int) -> dict[str, Any]:
    delays = []
    for one, change in zip(streams, changes, strict=True):
        within = WITHIN + (RAMP if one.stream.kind is Kind.GRADUAL else 0)
        after = [alarm - change + 1 for alarm in one.alarms if change <= alarm < change + within]
        delays.append(after[0] if after else np.nan)
    values, draws = np.array(delays), Bootstrap(len(delays), seed)
    return {
        "missed": _rounded(draws.interval(np.isnan(values).astype(float))),
        "delay": None if np.isnan(values).all() else _rounded(draws.interval(values)),
        "median_delay": None if np.isnan(values).all() else float(np.nanmedian(values)),
        "within_5": _rounded(draws.interval((values <= 5).astype(float))),
    }


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 3) for value in values]


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print the table to the error stream, so that JSON stands alone."""
    table = Table(
        "half", "source", "missed: abrupt", "gradual", "recurring", "back", "delay", "median", "false/500", "again/500"
    )
    for name in ("recall", "chance", "of oracle's", "from the 6th on", "no detector's"):
        table.add_column(name)
    for name in ("precision", "oracle's", "chance", "thin told"):
        table.add_column(name)
    for name, by_source in found.items():
        for source, row in by_source.items():
            kinds = ("abrupt", "gradual", "recurring", "recurring_back")
            table.add_row(
                name,
                source,
                *(_cell(row[kind]["missed"]) for kind in kinds),
                _cell(row["abrupt"]["delay"]),
                f"{row['abrupt']['median_delay']}",
                _cell(row["false_alarms_per_500"]),
                _cell(row["alarms_again_per_500"]),
                _cell(row["recall"]["engine"]),
                f"{row['recall']['chance'][0]:.2f}",
                _cell(row["recall_by_oracle"]),
                _cell(row["recall_by_oracle_once_begun"]),
                _cell(row["recall_by_no_detector"]),
                *(_cell(row["precision"][arm]) for arm in ("engine", "oracle")),
                f"{row['precision']['chance'][0]:.2f}",
                f"{row['thin_told_so']:.2f}",
            )
    Console(width=280, stderr=True).print(table)


def _cell(values: list[float] | None) -> str:
    return "–" if values is None else f"{values[0]:.2f} ({values[1]:.2f}–{values[2]:.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
