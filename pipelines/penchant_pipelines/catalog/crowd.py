"""What the crowd takes to: who favoured which item and when, as arrays in memory.

A mirror of the record's favours, kept by rows of the catalogue. Popularity is counted as signals come; what people have
in common is read from a sparse matrix that is made anew once enough has come in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from penchant_pipelines.catalog.ease import Ease, Vectors
from penchant_pipelines.catalog.like_minds import LikeMinds
from penchant_pipelines.catalog.popularity import EVERY, HALF_LIVES_DAYS, Popularity
from penchant_pipelines.interests.horizons import HORIZONS, faded
from penchant_pipelines.model import MICROS_PER_DAY

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

NEIGHBOURS = 100
LIKE_MINDED = 0.1
"""What share of people, the nearest, count as like minds: where there are few, everybody would be a neighbour else."""
MINDS_SHARE = 0.3
"""What the squared cosine of a past with what somebody took to counts, where that of what both favoured counts 1."""
_PENDING_SHARE, _PENDING = 0.005, 32
"""Favours that may wait outside the matrix: a share of all, and some more."""
_UNLEARNT_SHARE, _UNLEARNT = 0.02, 32
"""Favours, come or gone, after which it is learnt anew which items go together: a share of all, and some more."""
LENIENCE = 2.0
"""How many times as much may wait where nobody keeps up (`begin`) before a question itself is held up."""

Favour = tuple[int, int, int, float]
"""That a user, by key, took to the item in a row, when (event time, µs) and how much (mass above 0)."""


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Users × items as of the first `count` favours: ones, and at the same places the time of the latest favour."""

    users: Rows
    """(u,) numbers, ascending."""
    favours: sparse.csr_array
    times: sparse.csr_array
    count: int

    def without(self, rows: Rows, count: int) -> _Matrix:
        """The same where nobody favoured these items, which leaves the first `count` favours."""
        kept = ~np.isin(self.times.indices, rows)
        users = np.repeat(np.arange(len(self.users)), np.diff(self.times.indptr))[kept]
        indptr = np.searchsorted(users, np.arange(len(self.users) + 1))
        parts = ((array.data[kept], array.indices[kept], indptr) for array in (self.favours, self.times))
        favours, times = (sparse.csr_array(part, shape=self.times.shape) for part in parts)
        return _Matrix(self.users, favours, times, count)


@dataclass(frozen=True, slots=True)
class Texts:
    """Items' vectors in an embedding space, named by its key: (rows, d) float32 by row, zeros where there are none."""

    space: int
    vectors: Vectors
    said: Vectors
    """The same, of any length, enriched by what people wrote about the items, so far as that is kept."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a user wrote about and took to, as one unit vector (d,), in the space of these texts."""

    vector: Vectors
    texts: Texts


@dataclass(frozen=True, slots=True)
class _Alike:
    """Which items go together, and what people took to, in one space."""

    ease: Ease
    minds: LikeMinds
    users: Rows
    """(u,) numbers of those whom `minds` knows, ascending."""
    changes: int
    """How many changes of favours it knows."""
    outdated: bool = False
    """It was learnt from what was erased since, too."""


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What people have in common as of a moment; `learnt` is None where the former in that space still does."""

    matrix: _Matrix
    space: int
    learnt: tuple[Ease, LikeMinds] | None


@dataclass(slots=True)
class _Gathering:
    """What became, since `begin`, of the favours that are gathered."""

    held: int
    """How many are still held."""
    changes: int
    """How many changes there had been."""
    dropped: list[Rows] = field(default_factory=list)
    """Items whose favours were forgotten, or are counted anew."""
    cleared: list[Rows] = field(default_factory=list)
    """Items that nothing may go with until it is learnt anew."""
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Own:
    """What a user favoured: `rows` (n,) ascending; `masses` (h, n), faded under each of `HORIZONS`."""

    rows: Rows
    masses: Floats

    def under(self, horizons: Rows) -> Own:
        """The same with the masses of some horizons alone, by their places."""
        return Own(self.rows, self.masses[horizons])


NO_FAVOURS = Own(np.zeros(0, dtype=np.int64), np.zeros((len(HORIZONS), 0)))


class Crowd:
    """Who favoured what. Belongs to one event loop, as the catalogue whose rows it speaks of."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        """Of users by key, as they came: keys are random, and by their order no two runs would give the same sums."""
        self._count = 0
        self._changes = 0
        """How many favours came or went."""
        self._users = np.zeros(1024, dtype=np.int64)
        self._rows = np.zeros(1024, dtype=np.int64)
        self._times = np.zeros(1024, dtype=np.int64)
        self._width = 1024
        """Rows of the catalogue that the next matrix has room for: some more than anybody favoured."""
        self.popularity = Popularity()
        self._matrix: _Matrix | None = None
        self._alike: dict[int, _Alike] = {}
        """By the key of the space."""
        self._gathering: _Gathering | None = None
        """Where somebody is between `begin` and `finish`."""

    def __len__(self) -> int:
        """Count the favours."""
        return self._count

    def add(self, favours: Sequence[Favour]) -> None:
        """Count favours, in their order."""
        if not favours:
            return
        users, rows, times, masses = zip(*favours, strict=True)
        start, self._count = self._count, self._count + len(favours)
        self._changes += len(favours)
        while self._count > len(self._users):
            for name in ("_users", "_rows", "_times"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
        held = slice(start, self._count)
        self._users[held] = [self._numbers.setdefault(user, len(self._numbers)) for user in users]
        self._rows[held], self._times[held] = rows, times
        while max(rows) >= self._width:
            self._width *= 2
        self.popularity.take(self._users[held], self._rows[held], np.array(masses), self._times[held])

    def recount(self, rows: Rows, favours: Sequence[Favour]) -> None:
        """Count the favours of these items anew; what goes with them is learnt anew when it is due."""
        count, changes = self._count, self._changes
        self._drop(rows)
        self.add(favours)
        self._changes = changes + abs(self._count - count)

    def clear(self, rows: Rows, erased: bool = False) -> None:
        """Forget all favours of these items, and what goes with them.

        Where a user's were erased among them, what goes together is to be learnt anew at once.
        """
        self._changes += self._drop(rows)
        for space, alike in self._alike.items():
            outdated = alike.outdated or erased
            self._alike[space] = replace(alike, ease=alike.ease.without(rows), outdated=outdated)
        if self._gathering is not None:
            self._gathering.cleared.append(rows)
            self._gathering.erased |= erased

    def _drop(self, rows: Rows) -> int:
        """Forget all favours of these items; tells how many there were."""
        kept = ~np.isin(self._rows[: self._count], rows)
        if kept.all():
            return 0
        self.popularity.drop(rows)
        for name in ("_users", "_rows", "_times"):
            # Not in place: a thread may be reading them, see `begin`.
            array = getattr(self, name)
            setattr(self, name, np.append(array[: self._count][kept], np.zeros(len(array) - int(kept.sum()), np.int64)))
        self._count = int(kept.sum())
        if self._gathering is not None:
            self._gathering.dropped.append(rows)
            self._gathering.held = int(kept[: self._gathering.held].sum())
        if self._matrix is not None:
            self._matrix = self._matrix.without(rows, int(kept[: self._matrix.count].sum()))
        return len(kept) - self._count

    def drop_space(self, space: int) -> None:
        """Forget what goes together in a space."""
        self._alike.pop(space, None)

    def still(self, texts: Texts) -> Crowd:
        """Make one that stays as all is now, but for popularity, and can be asked in any thread in the texts' space."""
        self._current()
        self._learn_alike(texts)
        # What it shares is not changed in place, but for what comes behind its count.
        found = copy.copy(self)
        found._alike = dict(self._alike)
        # As between `begin` and `finish`: it answers from what there is.
        found._gathering = _Gathering(self._count, self._changes)
        return found

    def own(self, user: int, as_of: int) -> Own:
        """What a user favoured, each item once, by the latest favour; the newest counts whole."""
        matrix = self._current()
        rows, times = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        number = self._numbers.get(user, -1)
        place = int(np.searchsorted(matrix.users, number))
        if place < len(matrix.users) and matrix.users[place] == number:
            span = slice(matrix.times.indptr[place], matrix.times.indptr[place + 1])
            rows.append(matrix.times.indices[span].astype(np.int64))
            times.append(matrix.times.data[span])
        pending = slice(matrix.count, self._count)
        new = self._users[pending] == number
        rows.append(self._rows[pending][new])
        times.append(self._times[pending][new])
        every, when = _latest(np.concatenate(rows), np.concatenate(times))
        age = np.maximum(as_of - when, 0) / MICROS_PER_DAY
        # After a long pause all would be as good as nothing otherwise.
        age = age - (age.min() if len(age) else 0.0)
        newer = len(when) - np.searchsorted(np.sort(when), when, side="right")
        return Own(every, faded(newer.astype(np.float64), age))

    def alike_items(self, own: Own, size: int, texts: Texts) -> Floats:
        """How well items go with the user's own, by who favoured both and by their texts; see `Ease`: (h, size)."""
        found = np.zeros((len(own.masses), size))
        alike = self._learn_alike(texts)
        if alike is None or not len(own.rows):
            return found
        ease = alike.ease
        known, held = min(size, ease.size), _spread(own, ease.size)
        found[:, :known] = ease.scores(held, texts.vectors)[:, :known]
        strange = ease.strange(texts.vectors[:size])
        if len(strange):
            found[:, strange] += ease.scores_of_others(held, texts.vectors[strange], texts.vectors)
        return found

    def alike_strangers(self, own: Own, vectors: Vectors, texts: Texts) -> Floats:
        """The same for items (m, d) that are no rows of the catalogue: (h, m)."""
        alike = self._learn_alike(texts)
        if alike is None or not len(own.rows):
            return np.zeros((len(own.masses), len(vectors)))
        ease = alike.ease
        return ease.scores_of_others(_spread(own, ease.size), vectors, texts.vectors)

    def alike_users(
        self,
        user: int,
        own: Own,
        size: int,
        as_of: int,
        lives: Rows | slice = EVERY,
        past: Past | None = None,
    ) -> Floats:
        """What the most similar users favoured, faded under half-lives of the crowd, by their places: (l, size).

        Similar by the cosine of what both favoured (Herlocker et al. 1999), and by how near what they favoured is to
        the user's past; see `LikeMinds`. So whoever has only written is told of others, too.
        """
        matrix = self._current()
        near = np.zeros(len(matrix.users))
        if len(near) and len(own.rows):
            mine = np.zeros(matrix.favours.shape[1])
            mine[own.rows[own.rows < len(mine)]] = 1.0
            sizes = np.diff(matrix.favours.indptr)
            near += (matrix.favours @ mine) / np.sqrt(np.maximum(sizes * len(own.rows), 1.0))
        number = self._numbers.get(user, -1)
        if past is not None:
            near += MINDS_SHARE * self._like_minded(matrix, number, past)
        near[matrix.users == number] = 0.0
        nearest = np.argsort(-near, kind="stable")[:NEIGHBOURS]
        nearest = nearest[near[nearest] > 0]
        fading = np.array(HALF_LIVES_DAYS)[lives] * MICROS_PER_DAY
        found = np.zeros((len(fading), size))
        if not len(nearest):
            return found
        who, rows, times = self._favoured_by(matrix, nearest)
        inside = rows < size
        pulls, rows, ages = near[nearest[who[inside]]], rows[inside], np.maximum(as_of - times[inside], 0)
        for line, life in enumerate(fading):
            found[line] = np.bincount(rows, pulls * np.exp2(-ages / life), minlength=size)
        return found

    def _like_minded(self, matrix: _Matrix, number: int, past: Past) -> Floats:
        """Squared cosines of the users of the matrix who are like minds of one, by number: (u,), 0 of all others."""
        found, alike = np.zeros(len(matrix.users)), self._learn_alike(past.texts)
        if alike is None or not len(found):
            return found
        myself = int(np.searchsorted(alike.users, number))
        known = myself < len(alike.users) and alike.users[myself] == number
        cosines = np.maximum(alike.minds.cosines(past.vector, myself if known else None), 0.0)
        cosines[alike.users == number] = 0.0
        cosines[np.argsort(cosines, kind="stable")[: int((1 - LIKE_MINDED) * len(cosines))]] = 0.0
        places = np.minimum(np.searchsorted(matrix.users, alike.users), len(found) - 1)
        there = matrix.users[places] == alike.users
        found[places[there]] = cosines[there] ** 2
        return found

    def _favoured_by(self, matrix: _Matrix, places: NDArray[np.intp]) -> tuple[Rows, Rows, Rows]:
        """What the users in some rows of the matrix favoured: places among these, items and latest times, each (n,).

        With what came since the matrix was made: the newest may be what counts most.
        """
        held = matrix.times[places]
        who = np.repeat(np.arange(len(places)), np.diff(held.indptr))
        pending = slice(matrix.count, self._count)
        users = self._users[pending]
        found = np.minimum(np.searchsorted(matrix.users, users), len(matrix.users) - 1)
        chosen = np.full(len(matrix.users), -1)
        chosen[places] = np.arange(len(places))
        who_since = np.where(matrix.users[found] == users, chosen[found], -1)
        since = who_since >= 0
        width = self._width
        keys = np.append(who, who_since[since]) * width + np.append(held.indices, self._rows[pending][since])
        keys, times = _latest(keys, np.append(held.data, self._times[pending][since]))
        return *np.divmod(keys, width), times

    def is_ready(self, space: int) -> bool:
        """There is something to answer from in a space, be it of some time ago."""
        return self._matrix is not None and space in self._alike

    def is_due(self, space: int) -> bool:
        """So much has come in that what people have in common should be gathered anew."""
        return self._is_late(1.0) or self._is_to_learn(space)

    def outdated(self) -> list[int]:
        """Spaces in which what people have in common was learnt from somebody who was erased since, too."""
        return [space for space, alike in self._alike.items() if alike.outdated]

    def begin(self, texts: Texts) -> Callable[[], _Gathered]:
        """Begin to gather anew: what is returned does it, in any thread, for `finish`; till then the old holds."""
        self._gathering = _Gathering(self._count, self._changes)
        gather, learns = self._snapshot(), self._is_to_learn(texts.space)

        def work() -> _Gathered:
            matrix = gather()
            return _Gathered(matrix, texts.space, _learnt(matrix, texts) if learns and matrix.count else None)

        return work

    def finish(self, gathered: _Gathered | None) -> None:
        """Take up what was gathered, less what was forgotten since; None: leave all as it was."""
        since, self._gathering = self._gathering, None
        if gathered is None or since is None:
            return
        self._matrix = gathered.matrix
        if since.dropped:
            self._matrix = self._matrix.without(np.concatenate(since.dropped), since.held)
        if gathered.learnt is not None:
            ease, minds = gathered.learnt
            if since.cleared:
                ease = ease.without(np.concatenate(since.cleared))
            self._alike[gathered.space] = _Alike(ease, minds, gathered.matrix.users, since.changes, since.erased)
        elif not gathered.matrix.count:
            self.drop_space(gathered.space)

    def _is_late(self, lenience: float) -> bool:
        held = self._matrix.count if self._matrix else 0
        return self._matrix is None or self._count - held > lenience * (_PENDING + _PENDING_SHARE * self._count)

    def _is_unlearnt(self, space: int, lenience: float) -> bool:
        alike = self._alike.get(space)
        return alike is None or self._changes - alike.changes > lenience * (_UNLEARNT + _UNLEARNT_SHARE * self._count)

    def _is_to_learn(self, space: int) -> bool:
        return self._is_unlearnt(space, 1.0) or self._alike[space].outdated

    def _current(self) -> _Matrix:
        if self._matrix is None or (self._is_late(LENIENCE) and self._gathering is None):
            self._matrix = self._snapshot()()
        return self._matrix

    def _learn_alike(self, texts: Texts) -> _Alike | None:
        late = self._is_unlearnt(texts.space, LENIENCE) and self._gathering is None
        if texts.space not in self._alike or late:
            matrix = self._current()
            if not matrix.count:
                return None
            pending = self._count - matrix.count
            self._alike[texts.space] = _Alike(*_learnt(matrix, texts), matrix.users, self._changes - pending)
        return self._alike[texts.space]

    def _snapshot(self) -> Callable[[], _Matrix]:
        """What makes the matrix of the favours there are now, in any thread."""
        users, rows, times = (array[: self._count] for array in (self._users, self._rows, self._times))
        width = self._width
        return lambda: _made(users, rows, times, width)


def _spread(own: Own, size: int) -> Floats:
    """What a user favoured as masses of all items: (h, size)."""
    held = own.rows < size
    found = np.zeros((len(own.masses), size))
    found[:, own.rows[held]] = own.masses[:, held]
    return found


def _made(users: Rows, rows: Rows, times: Rows, width: int) -> _Matrix:
    numbers, places = np.unique(users, return_inverse=True)
    keys, latest = _latest(places * width + rows, times)
    places, indices = np.divmod(keys, width)
    indptr = np.searchsorted(places, np.arange(len(numbers) + 1))
    shape = (len(numbers), width)
    favours = sparse.csr_array((np.ones(len(indices)), indices, indptr), shape=shape)
    return _Matrix(numbers, favours, sparse.csr_array((latest, indices, indptr), shape=shape), len(users))


def _learnt(matrix: _Matrix, texts: Texts) -> tuple[Ease, LikeMinds]:
    return Ease(matrix.favours, texts.vectors), LikeMinds(matrix.favours, texts.said)


def _latest(keys: Rows, times: Rows) -> tuple[Rows, Rows]:
    """Each key once, ascending, and its latest time."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else order
    return keys[starts], np.maximum.reduceat(times[order], starts) if len(keys) else times
