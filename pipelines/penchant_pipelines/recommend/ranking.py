"""The mathematics of ranking: scores of items under interests, and greedy diversification. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests import Calibration, ProfileView
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.recommend.settings import RecommendSettings

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

PLAIN = 0.1
"""How far from θ to 1 the cosine with a muted topic is from which an item is about that, whatever else is liked."""
HALF_PLACES = 10
"""Places further on, an item is worth half."""
LATEST_FADE = 0.8
"""What each of the latest texts counts of the next one."""


@dataclass(frozen=True, slots=True)
class Taste:
    """A profile as arrays: what to go towards, what to keep away from."""

    ids: tuple[str, ...]
    centroids: Vectors
    """(k, d) of liked interests."""
    shares: Floats
    """(k,) weights, summing to 1."""
    terms: tuple[Mapping[str, float], ...]
    """Of each liked interest, k: with their support."""
    avoided: Vectors
    """(n, d) of interests that speak against what is near to them: disliked, muted, or wanted less of."""
    against: Floats
    """(n,) how much each of these does, 0…1."""
    muted: Vectors
    """(m, d) of muted interests alone."""
    silenced: Vectors
    """(t, d) of the topics by which they were muted."""
    unwanted: frozenset[str]
    """Names of these topics."""
    fresh: NDArray[np.float32] | None
    ahead: Vectors
    """(m, d) where a sequence model expects the next signals; (0, d) without one."""
    horizons: Vectors | None
    """(h, d) the liked past as one vector, under several half-lives; None without any."""
    support: float
    steered: bool
    """The user asked for more of something."""
    trust: float
    """0…1: how far the fresh horizon leads because of drift. Nowhere once the user said what to see more or less of: it
    knows nothing of that."""
    latest: Vectors
    """(l, d) of the latest texts, each an interest of its own for a while; none once the user said so, either."""
    latest_shares: Floats
    """(l,) at most 1 each, beside shares of interests that sum to 1."""
    latest_of: NDArray[np.intp]
    """(l,) which interest each is nearest to."""

    @classmethod
    def of(cls, profile: ProfileView | None, dimensions: int, ahead: Vectors | None = None) -> Taste:
        """Split a profile; None gives the taste of a stranger.

        `ahead` (m, d) counts only where something is known that the user likes: it may foretell dislikes otherwise.
        """
        interests = profile.interests if profile else ()
        liked = [i for i in interests if i.sign > 0 and not i.steering.muted and i.mass > 0]
        muted = [i for i in interests if i.steering.muted]
        avoided = [i for i in interests if i.against > 0]
        shares = np.array([i.weight for i in liked])
        spoken = any(i.steering.bias or i.steering.pinned for i in liked)
        centroids = _stack([i.vector for i in liked], dimensions)
        latest, masses = _stack([], dimensions), np.zeros(0)
        if profile and profile.latest and liked and not spoken:
            latest, masses = profile.latest
        return cls(
            ids=tuple(i.id for i in liked),
            centroids=centroids,
            shares=shares / shares.sum() if len(shares) else shares,
            terms=tuple(i.terms for i in liked),
            avoided=_stack([i.vector for i in avoided], dimensions),
            against=np.array([i.against for i in avoided]),
            muted=_stack([i.vector for i in muted], dimensions),
            silenced=_stack([topic for i in muted for topic in i.topics.values()], dimensions),
            unwanted=frozenset(topic for i in muted for topic in i.topics),
            fresh=profile.fresh if profile else None,
            ahead=ahead if ahead is not None and liked else _stack([], dimensions),
            horizons=profile.horizons if profile and liked else None,
            support=(profile.support if profile else 0.0) + sum(i.mass for i in liked if i.signal_count == 0),
            steered=any(i.steering.bias > 0 or i.steering.pinned for i in liked),
            trust=profile.drift.trust if profile and not spoken else 0.0,
            latest=latest,
            latest_shares=np.minimum(masses, 1.0) * LATEST_FADE ** np.arange(len(masses)),
            latest_of=(latest @ centroids.T).argmax(axis=1) if len(latest) else np.zeros(0, dtype=np.intp),
        )

    @property
    def is_empty(self) -> bool:
        """Nothing is known that the user likes."""
        return not self.ids

    def objection(self, vectors: Vectors) -> Floats:
        """What speaks most against items (n, d): max a_k·cos(v, avoided_k)₊, (n,)."""
        most: Floats = (self.against * (vectors @ self.avoided.T)).max(axis=1, initial=0.0)
        return most


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of n items, and the interest (column of `Taste`) that speaks for each; −1 where none does."""

    scores: Floats
    interest: NDArray[np.intp]
    own: Floats
    """What the user's own signals have of all that spoke for each, 0…1."""


def score(
    taste: Taste,
    vectors: Vectors,
    query: NDArray[np.float32] | None,
    created: NDArray[np.int64],
    popularity: Floats,
    as_of: int,
    settings: RecommendSettings,
    named: Floats | None = None,
) -> Scored:
    """Score items, (n, d) unit vectors with creation times (µs, 0 = unknown) and decayed popularity.

    `named` (k, n): how well the words of each interest name each item, as `Words.naming` tells it; None: not asked.

    s(v) = (1−σ)·[τ·log[e^(a(v)/τ) + Σ π_l·e^(cos(v,t_l)/τ)] + ω·max named_k(v)] + σ·max cos(v, ahead)
           − β·max a_k·cos(v, avoided_k)₊ + γ·2^(−age/h) + η·pop(v)
    with a(v) = (1−α)·τ·log Σ π_k·e^(cos(v,c_k)/τ) + α·cos(v, fresh), interests c_k and latest texts t_l: the soft
    maximum follows the multi-interest scoring of PinnerSage and ComiRec. σ is 0 without a sequence model.
    """
    total, speaks_for = affinity(taste, vectors, settings, named)
    if len(taste.ahead):
        share = settings.sequence_share
        total = (1 - share) * total + share * (vectors @ taste.ahead.T).max(axis=1)
    own = np.ones(len(vectors))
    if query is not None:
        liked, asked = (1 - settings.query_weight) * total, settings.query_weight * (vectors @ query)
        total, heard = liked + asked, np.maximum([liked, asked], 0.0)
        own = heard[0] / np.maximum(heard.sum(axis=0), 1e-12)
    if len(taste.avoided):
        total = total - settings.dislike_weight * taste.objection(vectors)
    age = np.maximum(as_of - created, 0) / MICROS_PER_DAY
    recency = np.where(created > 0, np.exp2(-age / settings.recency_half_life_days), 0.0)
    total = total + settings.recency_weight * recency
    crowd = np.log1p(popularity)
    crowd = crowd / max(float(crowd.max(initial=0.0)), 1e-9)
    cold = settings.cold_support / (settings.cold_support + taste.support) if settings.cold_support else 0.0
    total = total + (cold * (1 if taste.is_empty else 0.2) + (1 - cold) * settings.popularity_weight) * crowd
    return Scored(np.asarray(total, dtype=np.float64), speaks_for, own)


def affinity(
    taste: Taste, vectors: Vectors, settings: RecommendSettings, named: Floats | None = None
) -> tuple[Floats, NDArray[np.intp]]:
    """How near items (n, d) are to the interests, by soft maximum and the short horizon; and to which, −1 for none.

    The latest texts stand beside them: who begins something new is shown some of it before it can be called drift.
    What has an interest's own words (`named`, (k, n)) is nearer: vectors know few names.
    """
    count = len(vectors)
    if taste.is_empty:
        return np.zeros(count), np.full(count, -1, dtype=np.intp)
    soft, nearest = soft_maximum(vectors @ taste.centroids.T, taste.shares, settings.temperature)
    alpha = (1 - taste.trust) * settings.fresh_weight + taste.trust * settings.drift_fresh_weight
    total = soft if taste.fresh is None else (1 - alpha) * soft + alpha * (vectors @ taste.fresh)
    if len(taste.latest):
        recent, which = soft_maximum(vectors @ taste.latest.T, taste.latest_shares, settings.temperature)
        # What an adapter that training spoilt makes may be no numbers: its scores are none either, unwarned of.
        with np.errstate(invalid="ignore"):
            total = settings.temperature * np.logaddexp(total / settings.temperature, recent / settings.temperature)
        nearest = np.where(recent > soft, taste.latest_of[which], nearest)
    if named is not None:
        said = (settings.words_weight * named.T).astype(np.float32)
        most = said.max(axis=1)
        total = total + most
        with_words = soft_maximum(vectors @ taste.centroids.T + said, taste.shares, settings.temperature)[1]
        nearest = np.where(most > 0, with_words, nearest)
    return np.asarray(total, dtype=np.float64), nearest


def soft_maximum(cosines: Vectors, shares: Floats, temperature: float) -> tuple[Floats, NDArray[np.intp]]:
    """τ·log Σ π_k·e^(cos_k/τ) of cosines (n, k) with k interests of these shares: (n,), and which leads."""
    pull = cosines.astype(np.float64) / temperature + np.log(np.maximum(shares, 1e-9))
    peak = pull.max(axis=1)
    soft: Floats = temperature * (peak + np.log(np.exp(pull - peak[:, None]).sum(axis=1)))
    return soft, pull.argmax(axis=1)


def is_muted(taste: Taste, vectors: Vectors, calibration: Calibration) -> NDArray[np.bool_]:
    """Tell which items (n, d) belong to a muted interest: near enough to it, and nearer than to any that is liked.

    Of a topic it is enough to be plainly near: what is liked, made of whole texts, lies nearer to texts anyway.
    """
    if not len(taste.muted):
        return np.zeros(len(vectors), dtype=bool)
    cosines = calibration.cosines(vectors, np.vstack([taste.muted, taste.centroids, taste.silenced]))
    parts = np.split(cosines, np.cumsum([len(taste.muted), len(taste.centroids)]), axis=1)
    muted, liked, named = (part.max(axis=1, initial=-1) for part in parts)
    found: NDArray[np.bool_] = (muted >= calibration.similarity) & (muted >= liked) | (named >= plainly(calibration))
    return found


def plainly(calibration: Calibration) -> float:
    """Cosine with a bare topic from which a text is plainly about that."""
    return calibration.similarity + PLAIN * (1 - calibration.similarity)


def diversify(scores: Floats, vectors: Vectors, limit: int, diversity: float) -> list[int]:
    """Pick up to `limit` rows by maximal marginal relevance (Carbonell & Goldstein 1998).

    Scores are scaled to 0…1 first. Ties go to the higher score, then to the lower row. diversity 0 is the
    order of the scores alone.
    """
    order = np.argsort(-scores, kind="stable")
    if diversity <= 0 or len(order) <= 1:
        return [int(row) for row in order[:limit]]
    spread = float(scores.max() - scores.min())
    relevance = (scores[order] - scores.min()) / (spread if spread > 1e-12 else 1.0)
    sorted_vectors = vectors[order]
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(limit, len(scores)):
        gain = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(np.argmax(gain))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, sorted_vectors @ sorted_vectors[best])
    return [int(row) for row in order[chosen]]


def by_place(scores: Floats) -> Floats:
    """What a place in the order of scores (n,) is worth: 1 at the top, half of it ten places on.

    However long a list is asked for: its first places must not hang on that.
    """
    places = np.empty(len(scores))
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    worth: Floats = np.exp2(-places / HALF_PLACES)
    return worth


def quotas(shares: Floats, total: int) -> list[int]:
    """How many candidates each interest brings: max(2, round(total·share))."""
    return [max(2, round(total * float(share))) for share in shares]


def _stack(vectors: list[NDArray[np.float32]], dimensions: int) -> Vectors:
    return np.stack(vectors) if vectors else np.zeros((0, dimensions), dtype=np.float32)
