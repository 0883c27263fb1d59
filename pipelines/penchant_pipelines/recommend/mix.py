"""How the sources are mixed: a weight each, learnt from what users took to next.

Weights are those of a conditional logit (McFadden 1974): something that was taken to should have the highest weighted
sum among the candidates. None is below 0, and all are held towards one common weight, since standings summed as they
are make a strong list already (CombSUM; Fox & Shaw 1994) and a short log can tell little of each source alone: the
families towards it, and sources that differ in their half-life alone towards each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from penchant_pipelines.metrics import ndcg
from penchant_pipelines.recommend.chance import Chance, fit
from penchant_pipelines.recommend.sources import FRESH, INTERESTS, NAMED, SAID, SOURCES

Floats = NDArray[np.float64]

COMMON_WEIGHT = 0.1
"""What a source weighs before anything is learnt; the scale only matters against `SHRINKAGE`."""
SHRINKAGE = 1.0
"""What it costs that a family weighs nothing, or twice as much, or that a source is as far from its family, where one
user's mean likelihood counts 1: lessons of one user are alike, so that few users can tell little however many their
lessons."""
LEAST_TEXT = 1e-4
"""What each horizon of the user's texts weighs at least: where the crowd decides all, nothing else would tell apart the
items that nobody has touched yet."""
MOST_STEPS = 60
CANDIDATES = 50
"""Items that each source puts forward in a lesson."""
PLACES = 10
CHANCES = 50
"""Places of a lesson's ranking from which it is learnt what a score means."""
PARTS = 3
"""Of the lessons, each ranked by what the others taught."""
QUERY = "query"
OWN = ("interests", "right now", "text", "what others say", "words", "own words", "sequence")
"""Families that compare an item with what the user wrote and took to: the others know what others did, or a date."""
LEAST_SHARE = 0.05
"""Of what spoke for an item: less is not worth telling."""
_TOLD_AS = {
    FRESH: "right now",
    SAID: "what others say",
    NAMED: "own words",
    "alike_items": "items alike",
    "alike_users": "people alike",
}


def _family(source: str) -> str:
    family = source.rpartition("_")[0] or source
    return _TOLD_AS.get(family, family)


FAMILIES = tuple(dict.fromkeys(map(_family, SOURCES)))
"""Sources as people are told of them: those that differ in their half-life alone are one."""
_IS_OWN = np.isin(FAMILIES, OWN)
_MEMBERS = np.array([[_family(source) == family for source in SOURCES] for family in FAMILIES], dtype=np.float64)
_MEAN = _MEMBERS / _MEMBERS.sum(axis=1, keepdims=True)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A user's day: what sources said of the candidates (s, n) float32, and which of them the user then took to."""

    user: int
    """A number that the user's lessons share."""
    scores: NDArray[np.float32]
    taken: NDArray[np.bool_]
    written: NDArray[np.float32]
    """(s, n) float32: what they would have said had the user only written, and favoured nothing."""

    def of_writer(self) -> Lesson:
        """The same day of somebody who has only written."""
        return replace(self, scores=self.written)

    def winnable(self) -> Lesson:
        """The same without what was taken to and no source puts forward.

        No weights bring that into a list. It would only say of all sources that what they put forward is not what is
        taken to, and where most of what is taken to is out of reach all weights would be 0.
        """
        place = min(CANDIDATES, self.scores.shape[1])
        least = np.partition(self.scores, -place, axis=1)[:, [-place]]
        # A source that knows something of a few items puts none of the others forward.
        forward = (self.scores >= least) & (self.scores > self.scores.min(axis=1, keepdims=True))
        kept = forward.any(axis=0) | ~self.taken
        return replace(self, scores=self.scores[:, kept], taken=self.taken[kept], written=self.written[:, kept])


@dataclass(frozen=True, slots=True)
class Mix:
    """A weight for each source. `weights` (s,) float64 in the order of `SOURCES`."""

    weights: Floats
    chance: Chance | None = None
    """How scores read as chances, where that was learnt."""
    writers: Floats | None = None
    """(s,) for users who have only written; None: the same."""

    @classmethod
    def of(
        cls, named: Mapping[str, float], chance: Chance | None = None, writers: Mapping[str, float] | None = None
    ) -> Mix:
        """Read weights by name; what isn't named weighs nothing, and names of former sources are passed over."""
        return cls(_read(named), chance, None if writers is None else _read(writers))

    def named(self) -> dict[str, float]:
        """Weights by source, heaviest first; those that weigh nothing left out."""
        order = np.argsort(-self.weights, kind="stable")
        return {SOURCES[place]: round(float(self.weights[place]), 6) for place in order if self.weights[place] > 0}

    def for_writers(self) -> Mix:
        """How to weigh for a user who has only written, and favoured nothing: tells no chances."""
        return Mix(self.weights if self.writers is None else self.writers)

    def steered(self) -> Mix:
        """The same with interests as heavy as all the rest: the user's own word is in them. Tells no chances."""
        weights, place = self.weights.copy(), SOURCES.index(INTERESTS)
        weights[place] = max(weights[place], weights.sum() - weights[place])
        return Mix(weights)

    def scores(self, standings: Floats) -> Floats:
        """Weighted mean of standings (s, n): (n,)."""
        mixed: Floats = self.weights @ standings / max(float(self.weights.sum()), 1e-12)
        return mixed

    def parts(self, standings: Floats, silent: NDArray[np.bool_]) -> Floats:
        """What each of `FAMILIES` adds to the scores of standings (s, n): (f, n); the scores are their sums.

        Of `silent` items (n,), which nobody has written about, what others say is but what their own text tells.
        """
        added: Floats = (_MEMBERS * self.weights) @ standings / max(float(self.weights.sum()), 1e-12)
        text, said = FAMILIES.index("text"), FAMILIES.index(_family(SAID))
        added[text] += np.where(silent, added[said], 0.0)
        added[said] = np.where(silent, 0.0, added[said])
        return added


def _read(named: Mapping[str, float]) -> Floats:
    return np.array([float(named.get(name, 0.0)) for name in SOURCES])


def shares(parts: Floats) -> list[tuple[tuple[str, float], ...]]:
    """Which families spoke for each item and by what share, greatest first; what spoke against it is left out.

    `parts` (f, n) of the items' scores, or (f + 1, n) where the words of a query come last.
    """
    heard = np.maximum(parts, 0.0)
    told = (heard / np.maximum(heard.sum(axis=0), 1e-12)).T
    names = (*FAMILIES, QUERY)
    order = np.argsort(-told, axis=1, kind="stable").tolist()
    return [
        tuple((names[i], round(line[i], 4)) for i in places if line[i] >= LEAST_SHARE)
        for line, places in zip(told.tolist(), order, strict=True)
    ]


def own_share(parts: Floats) -> Floats:
    """What share of all that spoke for items compares them with the user's own, 0…1: (n,).

    `parts` (f, n), of each as in `shares`.
    """
    heard = np.maximum(parts, 0.0)
    share: Floats = heard[: len(FAMILIES)][_IS_OWN].sum(axis=0) / np.maximum(heard.sum(axis=0), 1e-12)
    return share


def learn_both(lessons: Sequence[Lesson]) -> Mix:
    """Learn how to weigh for those who favour items, and from the same days for those who only write."""
    return replace(learn(lessons), writers=learn([lesson.of_writer() for lesson in lessons]).weights)


def learn(lessons: Sequence[Lesson]) -> Mix:
    """Find the weights under which what was taken to, and is `winnable`, stands out most, every user counting alike.

    A source that said nothing in any lesson weighs nothing: what it would be worth, nobody knows. Of several answers,
    which days of more than one item may have, it is the one that equal weights lead to.
    """
    winnable = [lesson.winnable() for lesson in lessons]
    told = [lesson for lesson in winnable if lesson.taken.any() and not lesson.taken.all()]
    if not told:
        return Mix(np.full(len(SOURCES), COMMON_WEIGHT))
    shares = _shares(told) * len({lesson.user for lesson in told})
    parts = [lesson.scores[:, chosen] for lesson in told for chosen in (lesson.taken, ~lesson.taken)]
    scores, counts = np.concatenate(parts, axis=1), np.array([part.shape[1] for part in parts])

    def loss(weights: Floats) -> tuple[float, Floats]:
        value, slope = _surprise(weights.astype(np.float32), scores, counts, shares)
        away, pull = _away(weights)
        return value + SHRINKAGE * away, slope + SHRINKAGE * pull

    start = np.full(len(SOURCES), COMMON_WEIGHT)
    heard = np.any([lesson.scores.any(axis=1) for lesson in told], axis=0)
    least = [LEAST_TEXT if _family(source) == "text" else 0.0 for source in SOURCES]
    bounds = [(low, None if speaks else low) for low, speaks in zip(least, heard, strict=True)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MOST_STEPS})
    return Mix(np.asarray(found.x, dtype=np.float64))


def _away(weights: Floats) -> tuple[float, Floats]:
    """How far families are from the common weight, in the mean, and sources (s,) from their family's; gradient (s,)."""
    means = _MEAN @ weights
    families, sources = (means - COMMON_WEIGHT) / COMMON_WEIGHT, (weights - means @ _MEMBERS) / COMMON_WEIGHT
    value = float(families @ families + sources @ sources)
    return value, 2 * (families @ _MEAN + sources) / COMMON_WEIGHT


def _surprise(
    weights: NDArray[np.float32], scores: NDArray[np.float32], counts: NDArray[np.intp], shares: Floats
) -> tuple[float, Floats]:
    """−log probability that something taken to comes first, summed over lessons by shares (q,), and its gradient (s,).

    `scores` (s, n): of each lesson what was taken to and then the rest, and `counts` (2q,) how many these are. Of what
    was taken to all day, the best placed counts most: a list need not bring everything to be a good one.
    """
    said = (weights @ scores).astype(np.float64)
    starts = np.cumsum(counts) - counts
    peaks = np.maximum.reduceat(said, starts)
    odds = np.exp(said - np.repeat(peaks, counts))
    sums = np.add.reduceat(odds, starts)
    taken, others = (peaks + np.log(sums)).reshape(-1, 2).T
    values = np.logaddexp(0.0, others - taken)
    missing = -np.expm1(-values) * shares
    pulls = odds * np.repeat(np.stack([-missing, missing], axis=1).ravel() / sums, counts)
    return float(values @ shares), (scores @ pulls.astype(scores.dtype)).astype(np.float64)


def quality(lessons: Sequence[Lesson], mix: Mix) -> Floats:
    """NDCG@10 of each lesson under a mix (q,)."""
    return np.array([_ndcg(lesson, mix.scores(lesson.scores.astype(np.float64))) for lesson in lessons])


def chance(lessons: Sequence[Lesson]) -> Chance | None:
    """Learn how a mix's scores read as chances, every answer counting alike; `lessons` in order of time.

    Each part of them is ranked by a mix that was learnt from the others, as Platt has it. From the best of each lesson
    alone: further down, only what was taken to is among the candidates for certain.
    """
    scores, taken = [], []
    bounds = [number * len(lessons) // PARTS for number in range(PARTS + 1)]
    for begin, end in pairwise(bounds):
        mix = learn([*lessons[:begin], *lessons[end:]])
        for lesson in lessons[begin:end]:
            said = mix.scores(lesson.scores.astype(np.float64))
            best = np.argsort(-said, kind="stable")[:CHANCES]
            scores.append(said[best])
            taken.append(lesson.taken[best])
    return fit(np.concatenate(scores), np.concatenate(taken)) if any(part.any() for part in taken) else None


def _ndcg(lesson: Lesson, scores: Floats) -> float:
    order = np.argsort(-scores, kind="stable")[:PLACES]
    return ndcg(order, np.flatnonzero(lesson.taken), PLACES)


def _shares(lessons: Sequence[Lesson]) -> Floats:
    _, places, counts = np.unique([lesson.user for lesson in lessons], return_inverse=True, return_counts=True)
    shares = 1.0 / counts[places]
    whole: Floats = shares / shares.sum()
    return whole
