"""The audience of an item: users who would want it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.index.relay import Relay
from penchant_pipelines.interests import Calibration, InterestView, ProfileView
from penchant_pipelines.interests.terms import plain
from penchant_pipelines.interests.view import matrix
from penchant_pipelines.profiles import Profiles
from penchant_pipelines.recommend.candidates import INDEX_LAG
from penchant_pipelines.recommend.ranking import plainly

UNWANTED = 0.5
"""How much an interest must speak against what is near to it, for its user not to want that at all."""
CARE = 0.05
"""What cosine it is worth that a user cares e times as much for an interest, by its mass."""
POOL = 400
"""Interests that are looked at, at least: whoever cares most for a thing need not have said what is nearest to it."""


@dataclass(frozen=True, slots=True)
class Match:
    """A user who would want something."""

    user_id: str
    interest_id: str
    similarity: float
    weight: float
    profile: ProfileView


class Audience:
    """Turns items into interested users, in one embedding space."""

    def __init__(self, relay: Relay, profiles: Profiles, calibration: Calibration) -> None:
        self._relay = relay
        self._profiles = profiles
        self._calibration = calibration

    async def find(
        self,
        target: NDArray[np.float32],
        limit: int,
        min_similarity: float,
        categories: Sequence[str] = (),
        left_out: Set[int] = frozenset(),
    ) -> tuple[tuple[Match, ...], tuple[str, ...]]:
        """Users with an interest near a target vector (d,), each once by the best, by how near and how heavy that is.

        `categories` are those of the item, where it is one: who muted a topic of that name doesn't want it. `left_out`:
        keys of users who are not looked for.
        """
        named = frozenset(map(plain, categories))
        degraded: tuple[str, ...] = ()
        matches: list[Match] = []
        wanted = max(4 * limit + 20, POOL)
        while True:
            keys: dict[int, None] | None = None
            exhausted = True
            answers = await self._relay.query("interests", target[None, :], wanted)
            if answers is None:
                degraded = (INDEX_LAG,)
            else:
                found = answers[0]
                near = [hit for hit in found if hit.similarity >= min_similarity - 0.05]
                holders = (int(hit.id.partition(":")[0]) for hit in near)
                keys = dict.fromkeys(key for key in holders if key not in left_out)
                exhausted = len(found) < wanted or len(near) < len(found)
            matches = await asyncio.to_thread(self._match, target, keys, min_similarity, named, left_out)
            if exhausted or len(matches) >= limit or wanted >= 20_000:
                break
            wanted *= 4
        return tuple(matches[:limit]), degraded

    def _match(
        self,
        target: NDArray[np.float32],
        keys: dict[int, None] | None,
        least: float,
        named: frozenset[str],
        left_out: Set[int],
    ) -> list[Match]:
        matches, near = list[tuple[float, Match]](), plainly(self._calibration)
        for stored in self._profiles.by_keys(None if keys is None else list(keys)):
            interests = stored.view.interests
            if not interests or stored.key in left_out:
                continue
            nearness = self._calibration.cosines(matrix(interests), target[None])[:, 0]
            # Whoever holds it nearest to something muted, much less wanted, or rather disliked than liked, does not
            # want it; nor does, whatever they like, who muted what it is plainly about.
            silenced = {topic: vector for i in interests if i.steering.muted for topic, vector in i.topics.items()}
            if not named.isdisjoint(map(plain, silenced)):
                continue
            if silenced and self._calibration.cosines(np.stack([*silenced.values()]), target[None]).max() >= near:
                continue
            spoken = [row for row, i in enumerate(interests) if i.sign > 0 or i.against >= UNWANTED]
            row = max(spoken, key=lambda row: float(nearness[row]), default=None)
            if row is None or interests[row].against >= UNWANTED:
                continue
            cares = [
                (_care(interests[row], float(nearness[row])), row)
                for row in spoken
                if nearness[row] >= least and interests[row].against < UNWANTED
            ]
            if cares:
                score, row = max(cares)
                best = interests[row]
                matches.append((score, Match(stored.user_id, best.id, float(nearness[row]), best.weight, stored.view)))
        matches.sort(key=lambda match: (-match[0], match[1].user_id))
        return [match for _, match in matches]


def _care(interest: InterestView, similarity: float) -> float:
    """How much an interest speaks for what is so near to it: of a faint or faded one, less."""
    return similarity + CARE * math.log(max(interest.mass, 1e-9))
