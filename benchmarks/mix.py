"""What each source of recommendations is worth, and whether learning their mix pays: an ablation on real logs.

    .venv/bin/python benchmarks/mix.py --items FILE --signals FILE [--cache FOLDER] [--lessons 3000]

Captures the log as the server does, draws lessons from the record (days of users, what every source said before), and
learns the mix as time goes by: each lesson is ranked by weights that were learnt from earlier ones alone. Prints
NDCG@10 by user, and the difference to the whole with its 95 % interval by bootstrap over users; and, for the first ten
of each list, how often users took to items that were told a chance of so much. As JSON.

With --writers every second user is one who only writes: the posts before the first day that is asked about lose their
item, all else before it and all that comes after it is left out. These alone are asked about; learnt is from all, as if
they had only written, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from penchant.cli.files import Refusals, read_files, read_settings
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import PenchantError
from penchant_pipelines.evaluation.lineup import open_cached
from penchant_pipelines.index import ExactStore
from penchant_pipelines.mixes import GROWTH
from penchant_pipelines.model import MICROS_PER_DAY, Post, Signal
from penchant_pipelines.recommend.lessons import MOST_LESSONS, TAUGHT_SHARE
from penchant_pipelines.recommend.mix import COMMON_WEIGHT, PLACES, Lesson, Mix, chance, learn, quality
from penchant_pipelines.recommend.sources import SOURCES
from penchant_pipelines.statistics import Bootstrap, by_user

FIRST = 100
"""Lessons that are learnt from before the first is asked about."""
FAMILIES = (
    *("interests", "fresh", "sequence", "text", "said", "words", "alike_items", "alike_users", "popular", "new"),
    "named",
)
Floats = NDArray[np.float64]


def main() -> int:
    """Draw lessons, rank them by each variant, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--signals", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="folder that keeps vectors for the next run")
    parser.add_argument("--lessons", type=int, default=3000, help="most lessons to draw, the latest")
    parser.add_argument("--writers", action="store_true", help="ask of people who only write, see above")
    options = parser.parse_args()
    # What is printed is JSON alone.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as scratch:
        lessons, writers, left_out = asyncio.run(_lessons(options, Path(scratch)))
    if len(lessons) <= FIRST:
        parser.error(f"the log gives {len(lessons)} lessons; more than {FIRST} are needed (see --lessons)")
    users = np.unique([lesson.user for lesson in lessons], return_inverse=True)[1]
    asked = np.arange(len(lessons)) >= FIRST
    if options.writers:
        asked &= np.isin([lesson.user for lesson in lessons], list(writers))
        lessons = [lesson.of_writer() for lesson in lessons]
    bootstrap = Bootstrap(int(users.max()) + 1)

    def meant(values: Floats) -> Floats:
        return by_user(values[asked], users[asked], int(users.max()) + 1)

    whole = meant(_as_time_goes_by(lessons))
    told = {"all, learnt": list(bootstrap.interval(whole))}
    equal = Mix(np.full(len(SOURCES), COMMON_WEIGHT))
    variants = {"all, alike": quality(lessons, equal)}
    for name in FAMILIES:
        variants[f"without {name}"] = _as_time_goes_by([_only(lesson, name, False) for lesson in lessons])
        variants[f"{name} alone"] = _as_time_goes_by([_only(lesson, name, True) for lesson in lessons])
    for name, values in variants.items():
        found = meant(values)
        told[name] = [float(np.nanmean(found)), *bootstrap.difference(found, whole)]
    weights = learn(lessons[-MOST_LESSONS:]).named()
    figures = {"lessons": len(lessons), "users": int((~np.isnan(whole)).sum()), "ndcg@10": told, "weights": weights}
    figures |= {"left_out": left_out}
    print(json.dumps(figures | {"chances": _reliability(lessons)}, indent=1))
    return 0


async def _lessons(options: argparse.Namespace, folder: Path) -> tuple[list[Lesson], set[int], int]:
    """The lessons of a log, which of their users only write, and how many lines of it the server would refuse."""
    settings = read_settings(None, None)
    encoder = open_cached(settings.encoder, options.cache or folder / "cache")
    refusals = Refusals()
    items, signals = read_files(options.items, options.signals, settings, refusals.add)
    async with Engine.open(settings, folder / "data", encoder, ExactStore()) as engine:
        refused = [outcome for outcome in await engine.upsert_items(list(items)) if outcome is not None]
        # In order of time, as they came: whatever comes late calls for a replay of its user.
        told = sorted(signals, key=lambda signal: (signal.time or 0, signal.id))
        told, writers = _as_writers(told) if options.writers else (told, [])
        captured = await engine.capture(told)
        refused += [outcome for outcome in captured if isinstance(outcome, PenchantError)]
        teacher = engine.live.teacher()
        lessons = list(teacher.lessons(options.lessons))
        keys = [(await engine.live.profile(user_id)).key for user_id in writers]
        numbers = {teacher.numbers[key] for key in keys if key in teacher.numbers}
        return lessons, numbers, refusals.count + len(refused)


def _as_writers(signals: Sequence[Signal]) -> tuple[list[Signal], list[str]]:
    """Make people of every second user who only write up to the first day that is asked about; second value: who."""
    own: dict[str, list[Signal]] = defaultdict(list)
    for signal in signals:
        own[signal.user_id].append(signal)
    told, writers = [], sorted(own)[::2]
    for mine in (own.pop(user_id) for user_id in writers):
        days = [(signal.time or 0) // MICROS_PER_DAY for signal in mine]
        begin = days[int((1 - TAUGHT_SHARE) * len(mine))]
        first = next((day for day in days if day >= begin and day > days[0]), days[-1] + 1)
        for signal, day in zip(mine, days, strict=True):
            if day == first:
                told.append(signal)
            elif day < first and isinstance(signal.evidence, Post) and signal.evidence.text:
                told.append(replace(signal, evidence=replace(signal.evidence, item_id="")))
    told += [signal for mine in own.values() for signal in mine]
    return sorted(told, key=lambda signal: (signal.time or 0, signal.id)), writers


def _as_time_goes_by(lessons: Sequence[Lesson]) -> Floats:
    """NDCG@10 of each lesson (q,) by weights learnt from those before it."""
    values, begin = np.zeros(len(lessons)), 0
    while begin < len(lessons):
        mix = learn(lessons[max(0, begin - MOST_LESSONS) : begin])
        end = max(int(begin * GROWTH), FIRST) if begin else FIRST
        values[begin:end] = quality(lessons[begin:end], mix)
        begin = min(end, len(lessons))
    return values


def _reliability(lessons: Sequence[Lesson]) -> list[dict[str, float]]:
    """By fifths of the chances that were told of the first ten, as time goes by: what was told, and what came."""
    chances, came, begin = [], [], FIRST
    while begin < len(lessons):
        end = int(begin * GROWTH)
        known, asked = lessons[max(0, begin - MOST_LESSONS) : begin], lessons[begin:end]
        mix, curve = learn(known), chance(known)
        begin = end
        if curve is None:
            continue
        for lesson in asked:
            scores = mix.scores(lesson.scores.astype(np.float64))
            best = np.argsort(-scores, kind="stable")[:PLACES]
            chances.append(curve.of(scores[best]))
            came.append(lesson.taken[best])
    told, taken = np.concatenate(chances), np.concatenate(came)
    fifths = np.array_split(np.argsort(told, kind="stable"), 5)
    return [{"told": float(told[part].mean()), "came": float(taken[part].mean())} for part in fifths]


def _only(lesson: Lesson, family: str, alone: bool) -> Lesson:
    """Silence the sources of a family, or all others."""
    named = np.array([source == family or source.startswith(family + "_") for source in SOURCES])
    return replace(lesson, scores=np.where((named == alone)[:, None], lesson.scores, np.float32(0)))


if __name__ == "__main__":
    raise SystemExit(main())
