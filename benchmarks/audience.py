"""Whether FindUsers finds who will want an item: by what real people took to later.

    .venv/bin/python benchmarks/audience.py --items FILE --signals FILE [--cache FOLDER]

Captures the first four fifths of a log as the server does, and asks for the users who would want each item that
somebody new took to afterwards, with profiles as they stood then; who had taken to it before is left out. Prints how
often whoever took to an item was among the first so many that were found for it, of all times and by user, with 95 %
intervals by bootstrap over users: by what ships, by nearness alone, and by how much users said of anything; for all
items, and for those that nobody had touched. As JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from mix import Floats
from numpy.typing import NDArray

from penchant.cli.files import Refusals, read_files, read_settings
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import PenchantError
from penchant_pipelines.evaluation.lineup import open_cached
from penchant_pipelines.index import ExactStore
from penchant_pipelines.model import Signal
from penchant_pipelines.profiles import Profiles, Stored
from penchant_pipelines.recommend import audience
from penchant_pipelines.recommend.audience import Audience
from penchant_pipelines.statistics import Bootstrap

KNOWN_SHARE = 0.8
MOST_ITEMS = 1500
"""Items that are asked about: of more, a random sample."""


def main() -> int:
    """Capture, ask, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--signals", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="folder that keeps vectors for the next run")
    parser.add_argument("--first", type=int, default=20, help="users that are looked at of those found")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(asyncio.run(_measured(options, Path(scratch))), indent=1))
    return 0


class _AsOf(Profiles):
    """Profiles as they stood at a time."""

    def __init__(self, stored: Sequence[Stored]) -> None:
        self._stored_by_key = {each.key: each for each in stored}

    def by_keys(self, keys: Sequence[int] | None) -> Iterator[Stored]:
        """Of these users (None: all), as they stood."""
        return iter([self._stored_by_key[key] for key in (self._stored_by_key if keys is None else keys)])


async def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    settings = read_settings(None, None)
    encoder = open_cached(settings.encoder, options.cache or folder / "cache")
    items, signals = read_files(options.items, options.signals, settings, Refusals().add)
    told = sorted(signals, key=lambda signal: (signal.time or 0, signal.id))
    cut = told[int(KNOWN_SHARE * len(told))].time or 0
    async with Engine.open(settings, folder / "data", encoder, ExactStore()) as engine:
        await engine.upsert_items(list(items))
        captured = await engine.capture([signal for signal in told if (signal.time or 0) < cut])
        refused = sum(isinstance(outcome, PenchantError) for outcome in captured)
        users = {signal.user_id for signal in told if (signal.time or 0) < cut}
        stored = [await engine.live.profile(user_id, cut) for user_id in sorted(users)]
        while engine.live.relay.live is None or engine.live.relay.lag():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
        wanted, before = _takers(told, cut, {each.user_id for each in stored}, set(engine.catalog.entries))
        asked = sorted(wanted)
        if len(asked) > MOST_ITEMS:
            asked = sorted(np.random.default_rng(0).choice(asked, MOST_ITEMS, replace=False).tolist())
        found: dict[str, list[list[str]]] = defaultdict(list)
        usual = [
            each.user_id
            for each in sorted(stored, key=lambda each: -sum(i.mass for i in each.view.interests if i.sign > 0))
        ]
        keys = {each.user_id: each.key for each in stored}
        finder = Audience(engine.live.relay, _AsOf(stored), engine.live.blender.calibration)
        for item_id in asked:
            vector = engine.catalog.vectors[engine.live.key][engine.catalog.entries[item_id].row]
            known = before.get(item_id, set())
            seen = {keys[user_id] for user_id in known & keys.keys()}
            for name, care in (("ships", audience.CARE), ("nearness alone", 0.0)):
                found[name].append(await _found(finder, care, vector, seen, options.first))
            found["most said of anything"].append([user for user in usual if user not in known][: options.first])
    cold = np.array([item_id not in before for item_id in asked])
    truth = [wanted[item_id] for item_id in asked]
    return {
        "users": len(stored),
        "signals_refused": refused,
        "items": _figures(found, truth, np.ones(len(asked), dtype=bool)),
        "cold_items": _figures(found, truth, cold),
    }


async def _found(finder: Audience, care: float, vector: NDArray[np.float32], seen: set[int], first: int) -> list[str]:
    """Users as they are found where a factor of e in mass is worth so much, without those known to have it."""
    kept, audience.CARE = audience.CARE, care
    try:
        matches, _ = await finder.find(vector, first, -1.0, left_out=seen)
    finally:
        audience.CARE = kept
    return [match.user_id for match in matches]


def _takers(
    told: Sequence[Signal], cut: int, users: set[str], items: set[str]
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Who was the first time seen with each item after a time, of these users; and who before, of any."""
    before, after = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for signal in told:
        if signal.item_id in items:
            (before if (signal.time or 0) < cut else after)[signal.item_id].add(signal.user_id)
    wanted = {item_id: (takers & users) - before.get(item_id, set()) for item_id, takers in after.items()}
    return {item_id: takers for item_id, takers in wanted.items() if takers}, dict(before)


def _figures(found: dict[str, list[list[str]]], truth: Sequence[set[str]], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Counts, each way's share with its interval, and what it has more than what ships."""
    users = sorted(set().union(*(takers for takers, one in zip(truth, chosen, strict=True) if one)))
    places = {user: place for place, user in enumerate(users)}
    shares, together = dict[str, Floats](), dict[str, list[float]]()
    bootstrap = Bootstrap(len(users))
    for name, lists in found.items():
        hits, all_of = np.zeros(len(users)), np.zeros(len(users))
        for listed, takers, one in zip(lists, truth, chosen, strict=True):
            for user in takers if one else ():
                all_of[places[user]] += 1
                hits[places[user]] += user in listed
        shares[name], together[name] = hits / all_of, list(bootstrap.ratio(hits, all_of))
    return {
        "items": int(chosen.sum()),
        "users": len(users),
        "found": together,
        "by_user": {name: list(bootstrap.interval(values)) for name, values in shares.items()},
        "by_user_more_than_ships": {
            name: list(bootstrap.difference(values, shares["ships"])[:3])
            for name, values in shares.items()
            if name != "ships"
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
