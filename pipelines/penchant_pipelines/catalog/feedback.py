"""Feedback on items, as the record holds it: who favours an item, and what posts say of it."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any

import numpy as np
import sqlalchemy as sa

from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import Action
from penchant_pipelines.record import Record, rows, schema
from penchant_pipelines.record.rows import Vector

MOST_POSTS = 200_000
"""Posts about items, the latest, whose vectors are read at once."""

Said = tuple[Set[int], Vector]
"""Keys of users, and the sum (d,) of a post of each."""
ItemFavour = tuple[str, int, int, float]
"""Item id, user key, event time (µs), mass above 0."""


def favours(signals: Iterable[tuple[str, int, Evidence]], settings: InterestSettings) -> list[ItemFavour]:
    """What of signals on items (item id, user key, evidence) favours them."""
    weighed = (
        (item_id, user, evidence.time, weighing(evidence, settings).weight)
        for item_id, user, evidence in signals
        if evidence.action is not Action.UNDO
    )
    return [favour for favour in weighed if favour[3] > 0]


def speaks_for(evidence: Evidence, settings: InterestSettings) -> bool:
    """A post that speaks for its item."""
    return evidence.action is None and weighing(evidence, settings).weight > 0


def read_favours(
    record: Record, settings: InterestSettings, last_signal: int, items: Sequence[str] | None = None
) -> Iterator[list[ItemFavour]]:
    """Favours of some items or all, whether they are in the catalogue or not, up to a signal; in any thread."""
    signals = schema.signals
    query = (
        # What a signal on an item weighs depends on no word of it, and words are most of what there is to read.
        sa.select(
            signals.c.item_id, signals.c.user_key, signals.c.time, signals.c.action, signals.c.value, rows.VERDICT
        )
        .where(signals.c.item_id != "", rows.STANDING, signals.c.seq <= last_signal)
        .order_by(signals.c.seq)
        .execution_options(yield_per=10_000)
    )

    @functools.lru_cache(maxsize=4096)
    def mass(action: int | None, value: float | None, rating: float | None) -> float:
        kind = None if action is None else Action(action)
        return weighing(Evidence("", 0, None, kind, value, rating, item_id="any"), settings).weight

    with record.read() as connection:
        for part in _parts(query, items):
            for chunk in connection.execute(part).partitions():
                weighed = ((item_id, user, time, mass(*kind)) for item_id, user, time, *kind in chunk)
                yield [favour for favour in weighed if favour[3] > 0]


def read_posts(
    record: Record, settings: InterestSettings, space: int, last_signal: int, items: Sequence[str] | None = None
) -> dict[str, Said]:
    """Everybody's first favourable post by item, whether it is in the catalogue or not; in any thread.

    Of all items only the latest `MOST_POSTS` are read.
    """
    signals, vectors = schema.signals, schema.signal_vectors
    posts = (signals.c.item_id != "") & signals.c.action.is_(None) & (signals.c.seq <= last_signal)
    query = (
        sa.select(*rows.EVIDENCE_COLUMNS, signals.c.user_key, vectors.c.vector)
        .join(vectors, (vectors.c.seq == signals.c.seq) & (vectors.c.space == space))
        .where(posts, vectors.c.vector.is_not(None))
        .order_by(signals.c.seq)
        .execution_options(yield_per=1000)
    )
    if items is None:
        older = sa.select(signals.c.seq).where(posts).order_by(signals.c.seq.desc()).offset(MOST_POSTS).limit(1)
        query = query.where(signals.c.seq > sa.func.coalesce(older.scalar_subquery(), 0))
    users: defaultdict[str, set[int]] = defaultdict(set)
    sums: dict[str, Vector] = {}
    with record.read() as connection:
        for part in _parts(query, items):
            for row in connection.execute(part):
                if row.user_key not in users[row.item_id] and speaks_for(rows.to_evidence(row), settings):
                    users[row.item_id].add(row.user_key)
                    vector = np.frombuffer(row.vector, dtype=np.float32)
                    sums[row.item_id] = sums[row.item_id] + vector if row.item_id in sums else vector
    return {item_id: (users[item_id], vector) for item_id, vector in sums.items()}


def _parts(query: sa.Select[Any], items: Sequence[str] | None) -> Iterator[sa.Select[Any]]:
    """A query of signals, of those on some items, a part of them each, or all."""
    if items is None:
        yield query
        return
    for some in rows.among(schema.signals.c.item_id, items):
        yield query.where(some)
