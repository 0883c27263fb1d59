"""The log that is replayed: items and signals as arrays, and what is known of them at a moment."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.interests import Evidence, InterestSettings, undone_ids
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal
from penchant_pipelines.reader import NOTHING, Reader
from penchant_pipelines.text import Document, TextPipeline

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
T = TypeVar("T")
Encode = Callable[[Sequence[str]], Vectors]

LIKED_FROM = 0.5
"""Rating from which a verdict is "liked": four stars of five."""
_RATED = (Action.LIKE, Action.SAVE, Action.PURCHASE)
"""Actions whose value is a rating."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items, a row each. Rows are in random order: the order of a file may tell what became popular."""

    items: tuple[Item, ...]
    words: tuple[tuple[str, ...], ...]
    languages: tuple[str, ...]
    vectors: Vectors
    """(m, d) float32 unit rows."""
    created: NDArray[np.int64]
    """(m,) µs, 0 where unknown."""

    def __len__(self) -> int:
        """Count the items."""
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Log:
    """Signals in order of (time, id), n of them, over one catalogue."""

    catalogue: Catalogue
    signals: tuple[Signal, ...]
    user_ids: tuple[str, ...]
    users: NDArray[np.int64]
    """(n,) places in `user_ids`."""
    rows: Rows
    """(n,) rows of the catalogue that the signals touch, −1 for none."""
    times: NDArray[np.int64]
    """(n,) µs."""
    weights: NDArray[np.float64]
    """(n,) signed mass as capture gives it, 0 for UNDO; by default settings, since it tells what is right."""
    taken_back: NDArray[np.int64]
    """(n,) place of the UNDO that takes the signal back, n where none does; an UNDO's is its own."""
    verdicts: NDArray[np.int8]
    """(n,) 1 where the user's own rating says liked, 0 where it says not liked, −1 without one."""
    vectors: Vectors
    """(n, d) float32 unit rows, as capture makes them: the text's joined with the item's; zeros for neither."""
    words: tuple[tuple[str, ...], ...]
    """(n,) words of the text and of the item."""
    languages: tuple[str, ...]
    left_out: int
    """Items and signals without anything to read, which capture refuses."""

    @property
    def days(self) -> NDArray[np.int64]:
        """(n,) UTC days since 1970."""
        return self.times // MICROS_PER_DAY

    @property
    def standing(self) -> NDArray[np.bool_]:
        """(n,) whether the signal is neither an UNDO nor ever taken back."""
        return np.equal(self.taken_back, len(self.taken_back))


class Past:
    """What is known at a moment: the first `end` signals of a log, of all users. Nothing later can be asked of it.

    What was taken back by then has no row and no weight, nor has an UNDO; `signals` alone are as they came.
    """

    def __init__(self, log: Log, end: int, own: Sequence[Rows]) -> None:
        self._log = log
        self.catalogue = log.catalogue
        self.user_count = len(log.user_ids)
        self.users = log.users[:end]
        gone = log.taken_back[:end] < end
        self.rows = np.where(gone, -1, log.rows[:end])
        self.times = log.times[:end]
        self.weights = np.where(gone, 0.0, log.weights[:end])
        self.vectors = log.vectors[:end]
        self._own = own

    def __len__(self) -> int:
        """Count the signals."""
        return len(self.times)

    @cached_property
    def signals(self) -> tuple[Signal, ...]:
        """(n,) as they came."""
        return self._log.signals[: len(self)]

    @cached_property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """(n,) words of the text and of the item."""
        return self._log.words[: len(self)]

    def of(self, user: int) -> Rows:
        """Places of a user's signals, oldest first."""
        own = self._own[user]
        return own[: int(np.searchsorted(own, len(self)))]

    def liked(self, user: int) -> Rows:
        """Places of a user's signals that speak in favour of something, oldest first."""
        own = self.of(user)
        return own[self.weights[own] > 0]

    @cached_property
    def favours(self) -> Rows:
        """Places of all signals that speak in favour of an item."""
        return np.flatnonzero((self.weights > 0) & (self.rows >= 0))

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """(m,) count of signals in favour of each item."""
        return np.bincount(self.rows[self.favours], minlength=len(self.catalogue)).astype(np.float64)

    @cached_property
    def touched(self) -> NDArray[np.bool_]:
        """(m,) whether any signal names the item."""
        return np.bincount(self.rows[self.rows >= 0], minlength=len(self.catalogue)) > 0

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """(users, m) float64: 1 where a user ever favoured an item."""
        taken = self.favours
        shape = (self.user_count, len(self.catalogue))
        found = sparse.csr_array((np.ones(len(taken)), (self.users[taken], self.rows[taken])), shape=shape)
        found.sum_duplicates()
        found.data[:] = 1.0
        return found


def places_by_user(log: Log) -> list[Rows]:
    """Places of each user's signals in the log, ascending."""
    order = np.argsort(log.users, kind="stable")
    return np.split(order, np.cumsum(np.bincount(log.users, minlength=len(log.user_ids)))[:-1])


def read_log(
    items: Iterable[Item],
    signals: Iterable[Signal],
    text: TextPipeline,
    encode: Encode,
    seed: int = 0,
) -> Log:
    """Read a log with the same cleaning as capture, and encode each text once.

    A later item replaces an earlier one of its id, the first signal of an id stands. What capture would refuse is left
    out. Raises InvalidInput for a signal without a time, and where there are no items or no signals.
    """
    reader = Reader(text)
    known = {item.id: item for item in items}
    first: dict[str, Signal] = {}
    for signal in signals:
        first.setdefault(signal.id, signal)
    given = sorted(first.values(), key=_place)
    described = _read(lambda item: (item, reader.new_item(item)), [known[key] for key in sorted(known)])
    said = _read(lambda signal: _signal(signal, reader), given)
    if not described or not said:
        raise InvalidInput.at("items" if said else "signals", "are none: there is nothing to evaluate on")
    described = [described[row] for row in np.random.default_rng(seed).permutation(len(described))]
    kept = tuple(signal for signal, _ in said)
    posts = [document for _, document in said]
    documents = [document for _, document in described] + posts
    texts = list(dict.fromkeys(document.text for document in documents if document.text))
    places = {text: place for place, text in enumerate(texts)}
    encoded = encode(texts)
    cut = {written: text.words(written) for written in texts}
    catalogue = Catalogue(
        tuple(item for item, _ in described),
        tuple(cut[document.text] for _, document in described),
        tuple(document.language for _, document in described),
        encoded[[places[document.text] for _, document in described]],
        np.array([item.create_time or 0 for item, _ in described], dtype=np.int64),
    )
    row_of = {item.id: row for row, item in enumerate(catalogue.items)}
    rows = np.array([row_of.get(signal.item_id, -1) for signal in kept], dtype=np.int64)
    user_ids = tuple(sorted({signal.user_id for signal in kept}))
    number = {user_id: place for place, user_id in enumerate(user_ids)}
    touched = list(zip(posts, rows.tolist(), strict=True))
    told = [Evidence.of(signal, _time(signal), None, post.terms, post.language) for signal, post in said]
    return Log(
        catalogue,
        kept,
        user_ids,
        np.array([number[signal.user_id] for signal in kept], dtype=np.int64),
        rows,
        np.array([signal.time for signal in kept], dtype=np.int64),
        _weights(told),
        _taken_back(kept, told),
        np.array([_verdict(signal) for signal in kept], dtype=np.int8),
        _joined(posts, rows, catalogue.vectors, encoded, places),
        tuple(cut.get(post.text, ()) + (catalogue.words[row] if row >= 0 else ()) for post, row in touched),
        tuple(post.language if post.text else catalogue.languages[row] if row >= 0 else "und" for post, row in touched),
        len(known) + len(given) - len(described) - len(said),
    )


def _time(signal: Signal) -> int:
    if signal.time is None:
        raise InvalidInput.at("time", f"is missing in signal {signal.id!r}: what came before it can't be told")
    return signal.time


def _read(read: Callable[[T], tuple[T, Document]], given: Iterable[T]) -> list[tuple[T, Document]]:
    """Read what capture would not refuse."""
    found = []
    for each in given:
        with contextlib.suppress(InvalidInput):
            found.append(read(each))
    return found


def _signal(signal: Signal, reader: Reader) -> tuple[Signal, Document]:
    if not isinstance(signal.evidence, Post):
        return signal, NOTHING
    document, post = reader.post(signal.evidence)
    if not document.text and not signal.item_id:
        raise InvalidInput.at("post.text", "holds nothing to read")
    return replace(signal, evidence=post), document


def _weights(told: Sequence[Evidence]) -> NDArray[np.float64]:
    settings = InterestSettings()
    return np.array([0.0 if one.action is Action.UNDO else weighing(one, settings).weight for one in told])


def _taken_back(signals: Sequence[Signal], told: Sequence[Evidence]) -> NDArray[np.int64]:
    found = np.full(len(signals), len(signals))
    places = {signal.id: place for place, signal in enumerate(signals)}
    actions: dict[tuple[str, str], list[Evidence]] = defaultdict(list)
    for place, (signal, evidence) in enumerate(zip(signals, told, strict=True)):
        before = actions[signal.user_id, signal.item_id]
        before.append(evidence)
        if evidence.action is Action.UNDO:
            undone = [places[key] for key in undone_ids(before)]
            found[undone] = np.minimum(found[undone], place)
            found[place] = place
    return found


def _place(signal: Signal) -> tuple[int, bool, str]:
    """Sorts signals as the engine takes them: among those of one time an UNDO comes last."""
    return _time(signal), getattr(signal.evidence, "action", None) is Action.UNDO, signal.id


def _verdict(signal: Signal) -> int:
    evidence = signal.evidence
    if isinstance(evidence, Behavior) and evidence.action is Action.DISLIKE:
        return 0
    # Not what a text is taken to tell of a rating: methods are measured by what was said.
    rating = evidence.rating if isinstance(evidence, Post) else evidence.value if evidence.action in _RATED else None
    return -1 if rating is None else int(rating >= LIKED_FROM)


def _joined(
    posts: Sequence[Document], rows: Rows, items: Vectors, encoded: Vectors, places: Mapping[str, int]
) -> Vectors:
    total = np.where((rows >= 0)[:, None], items[rows], np.float32(0))
    for place, post in enumerate(posts):
        if post.text:
            total[place] += encoded[places[post.text]]
    total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return total.astype(np.float32, copy=False)
