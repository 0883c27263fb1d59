"""What a log says belongs together: pairs of texts, each with the user who says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant_finetune.corpus import TRAIN, Corpus, Floats, Ints
from penchant_pipelines.interests import Calibration
from penchant_pipelines.model import MICROS_PER_DAY

Vectors = NDArray[np.float32]

KINDS = ("post-item", "co-engagement", "neighbours", "hashtag")
PARTNERS = 4
"""Most partners of one signal: pairs grow with the log, not with its square."""
REACH = 5
"""How many signals further a neighbour on the same interest is looked for."""
BULK = 32
"""Most signals of one user and day that pairs begin at: an imported shelf is one decision, not a thousand."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """n pairs; all columns (n,). `anchors`, `positives` and `negatives` are rows of the texts, −1: no negative."""

    anchors: Ints
    positives: Ints
    negatives: Ints
    users: Ints
    kinds: Ints
    """Index into KINDS."""

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.anchors)

    def take(self, rows: NDArray[np.integer]) -> Pairs:
        """Some of the pairs, in the order given."""
        return Pairs(self.anchors[rows], self.positives[rows], self.negatives[rows], self.users[rows], self.kinds[rows])


@dataclass(frozen=True, slots=True)
class Graded:
    """n pairs of items that one user rated, the first in favour; `scores` (n,) 0…1, how much the second was liked."""

    first: Ints
    second: Ints
    users: Ints
    scores: Floats

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.first)


def build_pairs(
    corpus: Corpus,
    vectors: Vectors,
    calibration: Calibration,
    window_days: float,
    most: int,
    text_row: Callable[[str], int],
    seed: int,
) -> Pairs:
    """Pairs that lie in the training part as a whole, at most `most`.

    `vectors` (t, d) are the texts' by the base encoder, of whose space `calibration` is. `text_row` gives the row of
    a text that is not yet in the corpus. Where there are more pairs, users with many are thinned: n of one user count
    √n.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, int, int], int] = {}
    makers = (
        _posts_and_items(corpus),
        _co_engaged(corpus, window_days, rng),
        _neighbours(corpus, vectors, calibration),
        _hashtags(corpus, text_row),
    )
    for kind, pairs in enumerate(makers):
        for anchor, positive, user, part in pairs:
            if anchor != positive and part == TRAIN:
                found.setdefault((anchor, positive, user), kind)
    keys = np.array(list(found), dtype=np.int64).reshape(-1, 3)
    kinds = np.array(list(found.values()), dtype=np.int64)
    none = np.full(len(kinds), -1, dtype=np.int64)
    return _thinned(Pairs(keys[:, 0], keys[:, 1], none, keys[:, 2], kinds), most, rng)


def build_graded(corpus: Corpus, most: int, seed: int) -> Graded:
    """Pairs of a user's best item and another one, of users whose grades differ, in the training part."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int]] = []
    scores: list[float] = []
    rated = np.flatnonzero(corpus.kept & (corpus.parts == TRAIN) & (corpus.item_of >= 0))
    for own in _by_user(corpus, rated):
        best = own[corpus.grades[own] >= corpus.grades[own].max()]
        if corpus.grades[own].min() == corpus.grades[own].max() or corpus.grades[best[0]] <= 0:
            continue
        for other in own:
            first = int(rng.choice(best))
            if corpus.item_of[first] != corpus.item_of[other]:
                items = corpus.items[corpus.item_of[[first, other]]]
                rows.append((int(items[0]), int(items[1]), int(corpus.users[other])))
                scores.append((float(corpus.grades[other]) + 1) / 2)
    chosen = np.sort(rng.permutation(len(rows))[:most])
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)[chosen]
    return Graded(table[:, 0], table[:, 1], table[:, 2], np.array(scores)[chosen])


def touched(corpus: Corpus) -> Ints:
    """All that users wrote or touched in the training part: (n, 2) of user and text, each once, sorted."""
    rows = np.flatnonzero(corpus.kept & (corpus.parts == TRAIN))
    wrote = rows[corpus.texts_of[rows] >= 0]
    took = rows[corpus.item_of[rows] >= 0]
    users = np.concatenate([corpus.users[wrote], corpus.users[took]])
    texts = np.concatenate([corpus.texts_of[wrote], corpus.items[corpus.item_of[took]]])
    return np.unique(np.stack([users, texts], axis=1), axis=0)


_Pair = tuple[int, int, int, int]
"""Anchor, positive, user, and the part that the later of the two lies in."""


def _posts_and_items(corpus: Corpus) -> Iterator[_Pair]:
    """What a user wrote and the item that it was about."""
    for row in np.flatnonzero((corpus.texts_of >= 0) & (corpus.item_of >= 0) & (corpus.grades > 0)):
        yield (
            int(corpus.texts_of[row]),
            int(corpus.items[corpus.item_of[row]]),
            int(corpus.users[row]),
            int(corpus.parts[row]),
        )


def _co_engaged(corpus: Corpus, window_days: float, rng: np.random.Generator) -> Iterator[_Pair]:
    """Two items that one user took to within the window."""
    window = round(window_days * MICROS_PER_DAY)
    for own in _by_user(corpus, np.flatnonzero(corpus.first_touches())):
        times = corpus.times[own]
        ends = np.searchsorted(times, times + window, side="right")
        for place in _spread(times, rng):
            later = np.arange(place + 1, ends[place])
            for other in rng.permutation(later)[:PARTNERS]:
                first, second = own[place], own[other]
                pair = corpus.items[corpus.item_of[[first, second]]]
                yield int(pair[0]), int(pair[1]), int(corpus.users[first]), int(corpus.parts[second])


def _neighbours(corpus: Corpus, vectors: Vectors, calibration: Calibration) -> Iterator[_Pair]:
    """A signal and the next one of its user on the same interest, as the base encoder sees it."""
    shown = corpus.shown
    for own in _by_user(corpus, np.flatnonzero(corpus.kept & (shown >= 0) & (corpus.grades > 0))):
        texts = shown[own]
        for place, row in enumerate(own[:-1]):
            following = texts[place + 1 : place + 1 + REACH]
            cosines = calibration.cosines(vectors[following], vectors[texts[place]][None])[:, 0]
            near = np.flatnonzero((cosines >= calibration.similarity) & (following != texts[place]))
            if len(near):
                later = own[place + 1 + near[0]]
                yield int(shown[row]), int(shown[later]), int(corpus.users[row]), int(corpus.parts[later])


def _hashtags(corpus: Corpus, text_row: Callable[[str], int]) -> Iterator[_Pair]:
    """A hashtag and the post it stands in, the tag itself taken out."""
    for row, tags in enumerate(corpus.hashtags):
        for tag, rest in tags:
            if corpus.texts_of[row] >= 0 and corpus.grades[row] > 0 and rest:
                yield text_row(tag), text_row(rest), int(corpus.users[row]), int(corpus.parts[row])


def _by_user(corpus: Corpus, rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows of each user, in order of time."""
    users = corpus.users[rows]
    for user in np.unique(users):
        yield rows[users == user]


def _spread(times: Ints, rng: np.random.Generator) -> Iterator[int]:
    """Places to begin pairs at, no more than BULK a day."""
    days = times // MICROS_PER_DAY
    for day in np.unique(days):
        places = np.flatnonzero(days == day)
        yield from sorted(rng.permutation(places)[:BULK].tolist())


def _thinned(pairs: Pairs, most: int, rng: np.random.Generator) -> Pairs:
    if len(pairs) <= most:
        return pairs
    counts = np.bincount(pairs.users)
    # The largest of log w + Gumbel noise are a sample without replacement by weights w (Vieira 2014).
    keys = -0.5 * np.log(counts[pairs.users]) + rng.gumbel(size=len(pairs))
    return pairs.take(np.sort(np.argpartition(-keys, most)[:most]))
