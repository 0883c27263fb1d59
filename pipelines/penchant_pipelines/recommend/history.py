"""What a sequence model reads of a user, from the record."""

from __future__ import annotations

import json

import sqlalchemy as sa

from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.recommend.sequence import LATEST, History, mass
from penchant_pipelines.record import Record, rows, schema


def read_history(
    record: Record,
    space: int,
    user_key: int,
    settings: InterestSettings,
    dimensions: int,
    until: int | None = None,
) -> History:
    """Read the latest of a user's signals, as many as a model reads, oldest first; vectors (n, dimensions). Blocks.

    None later than `until` (µs, inclusive); what was taken back is left out, whenever that was.
    """
    signals, vectors = schema.signals, schema.signal_vectors
    query = (
        sa.select(*rows.EVIDENCE_COLUMNS, signals.c.context, vectors.c.vector)
        .join(vectors, (vectors.c.seq == signals.c.seq) & (vectors.c.space == space))
        .where(signals.c.user_key == user_key, rows.STANDING, vectors.c.vector.is_not(None))
        .order_by(signals.c.time.desc(), signals.c.id.desc())
        .execution_options(yield_per=LATEST)
    )
    if until is not None:
        query = query.where(signals.c.time <= until)
    latest: list[Evidence] = []
    contexts: dict[str, dict[str, str]] = {}
    with record.read() as connection:
        for row in connection.execute(query):
            event = rows.to_evidence(row, rows.to_vector(row.vector))
            if mass(event, settings):
                latest.append(event)
                contexts[event.id] = json.loads(row.context)
            if len(latest) == LATEST:
                break
    return History.of(latest[::-1], settings, dimensions, contexts)
