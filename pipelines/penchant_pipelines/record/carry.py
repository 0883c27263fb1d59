"""The user's word about an interest, carried into another space, where that interest may not exist."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from penchant_pipelines.interests import Blender, SteeringEvent, explain
from penchant_pipelines.record import rows
from penchant_pipelines.record.rows import Vector
from penchant_pipelines.record.schema import signal_vectors, signals


def carried(
    connection: Connection, origin: int, blender: Blender, target: int, user_key: int, event: SteeringEvent
) -> Vector | None:
    """Where an interest of the space `origin` lies in the space `target`: the mean of what made it, by share.

    `event` is the user's word as `origin` reads it, `blender` that of `origin`. Returns a unit vector (d,), None
    where nothing that made the interest has a vector in `target`.
    """
    before = [
        known
        for known in rows.user_events(connection, origin, user_key, until=event.time)
        if (known.time, known.id) < (event.time, event.id)
    ]
    profile, contributions = explain(before, blender, event.time)
    interest = profile.find(event.interest_id) or blender.nearest(profile.interests, event.vector, event.sign)[0]
    if interest is None:
        return None
    shares = {part.signal_id: part.share for part in contributions[interest.id]}
    # Mass of an empty id was put in by earlier words: those about a topic nearest to the interest.
    word = shares.pop("", 0.0) or float(not shares)
    parts = [share * vector for share, vector in _signals(connection, target, shares)]
    topics = [known for known in before if isinstance(known, SteeringEvent) and known.topic]
    if word and topics:
        said = np.stack([known.vector for known in topics])
        nearest = topics[int(blender.calibration.cosines(said, interest.centroid[None])[:, 0].argmax())]
        there = rows.user_events(connection, target, user_key, until=nearest.time)
        parts += [word * known.vector for known in there if isinstance(known, SteeringEvent) and known.id == nearest.id]
    total = np.sum(parts, axis=0) if parts else np.zeros(1, np.float32)
    norm = float(np.linalg.norm(total))
    return (total / norm).astype(np.float32) if norm > 1e-9 else None


def _signals(connection: Connection, space: int, shares: dict[str, float]) -> list[tuple[float, Vector]]:
    """Share and vector in a space of each of these signals that has one there."""
    query = (
        sa.select(signals.c.id, signal_vectors.c.vector)
        .join(signal_vectors, signal_vectors.c.seq == signals.c.seq)
        .where(signal_vectors.c.space == space, signal_vectors.c.vector.is_not(None))
    )
    found: list[tuple[float, Vector]] = []
    for some in rows.among(signals.c.id, sorted(shares)):
        for row in connection.execute(query.where(some)):
            found.append((shares[row.id], np.frombuffer(row.vector, dtype=np.float32)))
    return found
