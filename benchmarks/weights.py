"""What the weights of interests are worth: whether an interest of weight .6 takes .6 of what the user says next.

    .venv/bin/python benchmarks/weights.py --signals FILE [--items FILE] [--cache FOLDER]

Captures a log as the server does, then blends each user's signals once more in order of time: before each that goes to
one of two or more liked interests, their weights are what is foretold. Prints how often interests of some weight took
the next signal, and the mean logarithm (base 2) of the weight of the one that did, by user, with 95 % intervals by
bootstrap over users: by the half-lives that ship, and the difference where all are so many times as long. As JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from mix import Floats

from penchant.cli.files import Refusals, read_files, read_settings
from penchant_pipelines.engine import Engine
from penchant_pipelines.evaluation.lineup import open_cached
from penchant_pipelines.index import ExactStore
from penchant_pipelines.interests import Blender, Evidence, InterestSettings, Profile, Recipe, view
from penchant_pipelines.interests.blend import Event, Trace
from penchant_pipelines.record import rows, schema
from penchant_pipelines.statistics import Bootstrap

STRETCHES = (0.25, 0.5, 1.0, 2.0, 4.0)
BOUNDS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
LEAST = 1e-3
"""Weight below which all is alike: one signal that nobody foresaw must not decide a user's mean."""
FEWEST = 5
"""Foretold signals of a user who counts in means by user."""


def main() -> int:
    """Capture, blend, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path)
    parser.add_argument("--signals", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="folder that keeps vectors for the next run")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as scratch:
        events, recipe = asyncio.run(_events(options, Path(scratch)))
    bootstrap = Bootstrap(len(events))
    told = {stretch: _foretold(events, _stretched(recipe, stretch)) for stretch in STRETCHES}
    means = {stretch: _means(by_user) for stretch, by_user in told.items()}
    usual = means[1.0]
    weights, took = (np.concatenate(column) for column in zip(*told[1.0], strict=True))
    parts = np.digitize(weights, BOUNDS[1:-1])
    figures = {
        "users": int((~np.isnan(usual)).sum()),
        "signals": int(took.sum()),
        "weights": [
            {"told": float(weights[here].mean()), "took": float(took[here].mean()), "times": int(here.sum())}
            for here in (parts == part for part in range(len(BOUNDS) - 1))
            if here.any()
        ],
        "mean_log2_weight": list(bootstrap.interval(usual)),
        "more_by_half_lives_times": {
            stretch: list(bootstrap.difference(mean, usual)[:3]) for stretch, mean in means.items() if stretch != 1
        },
    }
    print(json.dumps(figures, indent=1))
    return 0


async def _events(options: argparse.Namespace, folder: Path) -> tuple[list[Sequence[Event]], Recipe]:
    """The events of each user in order, and the recipe of the space."""
    settings = read_settings(None, None)
    encoder = open_cached(settings.encoder, options.cache or folder / "cache")
    none = folder / "none.jsonl"
    none.touch()
    items, signals = read_files(options.items or none, options.signals, settings, Refusals().add)
    async with Engine.open(settings, folder / "data", encoder, ExactStore()) as engine:
        await engine.upsert_items(list(items))
        await engine.capture(sorted(signals, key=lambda signal: (signal.time or 0, signal.id)))
        with engine.record.read() as connection:
            keys = connection.execute(sa.select(schema.users.c.key).order_by(schema.users.c.user_id)).scalars().all()
            return [rows.user_events(connection, engine.live.key, key) for key in keys], engine.live.blender.recipe


def _stretched(recipe: Recipe, times: float) -> Blender:
    settings: dict[str, Any] = recipe.settings.model_dump()
    for one in (settings["post"], *settings["actions"].values()):
        one["half_life_days"] *= times
    return Blender(Recipe(InterestSettings.model_validate(settings), recipe.calibration, recipe.space_id))


def _foretold(events: Sequence[Sequence[Event]], blender: Blender) -> list[tuple[Floats, Floats]]:
    """Of each user: weights of liked interests before each signal (n,), and whether those took it (n,)."""
    return [_of_user(own, blender) for own in events]


def _of_user(events: Sequence[Event], blender: Blender) -> tuple[Floats, Floats]:
    profile, trace = Profile(), Trace()
    weights, took = list[float](), list[bool]()
    for event in events:
        if not isinstance(event, Evidence):
            continue
        before = view(profile, max(event.time, profile.updated), blender)
        known = len(trace.taken)
        blender.add(profile, event, trace)
        liked = {interest.id: interest.weight for interest in before.interests if interest.sign > 0}
        taker = trace.last_of(trace.taken[-1][1]) if len(trace.taken) > known else ""
        if taker in liked and len(liked) > 1:
            weights += liked.values()
            took += [interest_id == taker for interest_id in liked]
    return np.array(weights, dtype=np.float64), np.array(took, dtype=np.float64)


def _means(by_user: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Mean logarithm (base 2) of the weight of what took each signal: (users,), NaN of few signals."""
    taken = [weights[took == 1] for weights, took in by_user]
    return np.array([np.log2(np.maximum(own, LEAST)).mean() if len(own) >= FEWEST else np.nan for own in taken])


if __name__ == "__main__":
    raise SystemExit(main())
