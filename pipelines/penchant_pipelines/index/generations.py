"""What the record knows of the index's generations: which is live, how far each has come, and what it holds.

Outbox rows are kept until every generation that the record knows has taken them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from penchant_pipelines.record import nothing
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.rows import Vector, put
from penchant_pipelines.record.schema import generations as table
from penchant_pipelines.record.schema import indexed_interests as indexed
from penchant_pipelines.record.schema import outbox


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of some users' interests in a generation, by (user, interest), for the record's bookkeeping."""

    written: dict[tuple[int, str], Vector]
    gone: list[tuple[int, str]]
    remade: dict[int, bytes]
    """Packed profiles, by user, that were stored as another recipe had made them."""


def names(connection: sa.Connection) -> set[str]:
    """Names of all generations, of whichever space."""
    return set(connection.execute(sa.select(table.c.name)).scalars())


def live_name(connection: sa.Connection, space: int, recipe: str) -> str | None:
    """Name of a space's live generation, unless its files hold erased users or another recipe made it."""
    mine = table.c.live & (table.c.space == space)
    fit = sa.not_(table.c.holds_erased) & (table.c.recipe == recipe)
    return connection.execute(sa.select(table.c.name).where(mine, fit)).scalar()


def holds_erased(connection: sa.Connection, space: int) -> bool:
    """Tell whether files of a space's generations hold vectors of erased users."""
    found = sa.select(table.c.name).where(table.c.space == space, table.c.holds_erased).limit(1)
    return connection.execute(found).first() is not None


def deleted(connection: sa.Connection, name: str) -> tuple[int, int]:
    """Count the items and the interests that were deleted from a generation; none where the record does not know it."""
    query = sa.select(table.c.items_deleted, table.c.interests_deleted).where(table.c.name == name)
    row = connection.execute(query).first()
    return (0, 0) if row is None else (row.items_deleted, row.interests_deleted)


def lag(connection: sa.Connection, space: int) -> int:
    """Count outbox rows that a space's live generation has yet to take."""
    mine = table.c.live & (table.c.space == space)
    cursor = connection.execute(sa.select(table.c.cursor).where(mine)).scalar() or 0
    return connection.execute(sa.select(sa.func.count()).select_from(outbox).where(outbox.c.seq > cursor)).scalar_one()


def yet_to_take(connection: sa.Connection, name: str, limit: int) -> Sequence[sa.Row[int, str, str]]:
    """Read the next outbox rows (seq, kind, key) for a generation; none where the record does not know it."""
    cursor = connection.execute(sa.select(table.c.cursor).where(table.c.name == name)).scalar_one_or_none()
    if cursor is None:
        return []
    query = sa.select(outbox.c.seq, outbox.c.kind, outbox.c.key).where(outbox.c.seq > cursor)
    return connection.execute(query.order_by(outbox.c.seq).limit(limit)).all()


def interests_held(connection: sa.Connection, name: str, user_key: int) -> dict[str, Vector]:
    """Vectors of a user's interests in a generation, by interest, to the precision of float16."""
    query = sa.select(indexed.c.interest_id, indexed.c.vector).where(
        indexed.c.generation == name, indexed.c.user_key == user_key
    )
    return {
        row.interest_id: np.frombuffer(row.vector, dtype=np.float16).astype(np.float32)
        for row in connection.execute(query)
    }


def begin(ledger: Ledger, name: str, space: int, recipe: str) -> Callable[[], None]:
    """Note a generation that is to be filled with all that is committed so far."""
    newest = ledger.connection.execute(sa.select(sa.func.max(outbox.c.seq))).scalar() or 0
    cursors = ledger.connection.execute(sa.select(sa.func.max(table.c.cursor))).scalar() or 0
    ledger.connection.execute(
        table.insert().values(name=name, space=space, cursor=max(newest, cursors), live=False, recipe=recipe)
    )
    return nothing


def advance(ledger: Ledger, name: str, cursor: int | None, taken: Taken, items_deleted: int = 0) -> Callable[[], None]:
    """Note what a generation has taken, up to an outbox row if there is one; nothing of one since forgotten."""
    if ledger.connection.execute(sa.select(table.c.name).where(table.c.name == name)).first() is None:
        return nothing
    for key, interest_id in taken.gone:
        ledger.connection.execute(
            indexed.delete().where(
                indexed.c.generation == name, indexed.c.user_key == key, indexed.c.interest_id == interest_id
            )
        )
    if taken.written:
        ledger.connection.execute(
            put(indexed),
            [
                {
                    "generation": name,
                    "user_key": key,
                    "interest_id": interest_id,
                    "vector": vector.astype(np.float16).tobytes(),
                }
                for (key, interest_id), vector in taken.written.items()
            ],
        )
    if cursor is not None:
        counts = {
            "items_deleted": table.c.items_deleted + items_deleted,
            "interests_deleted": table.c.interests_deleted + len(taken.gone),
        }
        ledger.connection.execute(table.update().where(table.c.name == name).values(cursor=cursor, **counts))
        last = ledger.connection.execute(sa.select(sa.func.min(table.c.cursor))).scalar_one()
        ledger.connection.execute(outbox.delete().where(outbox.c.seq <= last))
    return nothing


def switch(ledger: Ledger, space: int, name: str) -> Callable[[], None]:
    """Make a generation the live one of its space."""
    ledger.connection.execute(table.update().where(table.c.space == space).values(live=table.c.name == name))
    return nothing


def forget(ledger: Ledger, space: int, but_live: bool = False) -> Callable[[], None]:
    """Forget all generations of a space, or all but the live one."""
    theirs = table.c.space == space
    if but_live:
        theirs &= sa.not_(table.c.live)
    ledger.connection.execute(indexed.delete().where(indexed.c.generation.in_(sa.select(table.c.name).where(theirs))))
    ledger.connection.execute(table.delete().where(theirs))
    return nothing
