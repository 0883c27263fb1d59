"""Between rows of the record and the nouns of the domain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.sqlite import Insert, insert

from penchant_pipelines.errors import Conflict
from penchant_pipelines.interests import STEERING, Blender, Event, Evidence, Profile, SteeringEvent, unpack
from penchant_pipelines.model import Action, Behavior, Item, Post, Signal, Steering
from penchant_pipelines.record.schema import (
    item_vectors,
    items,
    merges,
    signal_vectors,
    signals,
    steering_vectors,
    steerings,
    users,
)

Vector = NDArray[np.float32]
Place = tuple[int, str]
"""Time (µs) and id of an event: in this order they are blended."""

NAMED_AT_ONCE = 500
"""Values that one query names."""
EARLIEST: Place = (-(2**62), "")
"""Before any event."""
VERDICT = sa.func.coalesce(signals.c.rating, signals.c.inferred_rating).label("rating")
"""What a post's author thinks of its subject, as given or else as its text tells."""
EVIDENCE_COLUMNS = (
    signals.c.id,
    signals.c.time,
    signals.c.action,
    signals.c.value,
    VERDICT,
    signals.c.item_id,
    signals.c.terms,
    signals.c.language,
)
# What each signal asks is put together once: SQLAlchemy takes longer to build a query than SQLite to answer it.
_OWNER = (
    sa.select(signals.c.digest, signals.c.time, users.c.key, users.c.user_id)
    .join(users, users.c.key == signals.c.user_key)
    .where(signals.c.id == sa.bindparam("signal_id"))
)
_ITEM_WORDS = sa.select(items.c.terms, items.c.language).where(items.c.id == sa.bindparam("item_id"))
_ITEM_VECTORS = sa.select(item_vectors.c.space, item_vectors.c.vector).where(
    item_vectors.c.item_id == sa.bindparam("item_id")
)
STANDING = sa.not_(signals.c.undone) & signals.c.action.is_distinct_from(int(Action.UNDO))
"""Signals that are neither taken back nor take back."""


def put(table: sa.Table) -> Insert:
    """Statement that writes rows, all their columns, each in place of the one with the same primary key."""
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    rest = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


def to_json(value: Any) -> str:
    """Compact JSON with sorted keys; Chinese stays readable."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def to_vector(blob: bytes | None) -> Vector | None:
    """(d,) float32 from a blob."""
    return None if blob is None else np.frombuffer(blob, dtype=np.float32)


def to_blob(vector: Vector | None) -> bytes | None:
    """A blob from (d,) float32."""
    return None if vector is None else vector.tobytes()


def digest(signal: Signal) -> bytes:
    """Digest of a signal as it was sent: equal for a resend, different for other content of the same id."""
    evidence = signal.evidence
    if isinstance(evidence, Post):
        content: list[Any] = ["post", evidence.text, evidence.language, evidence.item_id, _kept(evidence.rating)]
    else:
        content = [
            "behavior",
            evidence.item_id,
            int(evidence.action),
            _kept(evidence.value),
            evidence.attribution_token,
        ]
    whole = [signal.user_id, signal.time, content, dict(signal.context)]
    # surrogatepass: texts are checked later, and a digest must not be the one that fails.
    return hashlib.blake2b(to_json(whole).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _kept(number: float | None) -> float | None:
    """A number as SQLite gives it back: it knows no negative zero."""
    return None if number is None else number + 0.0


def user_of(connection: Connection, signal: Signal) -> str | None:
    """Whose a signal is in the record, None for one that is not there. Raises Conflict for other content of its id.

    An export says what its sender may not have: the server's time, and another id of the user's where one was merged
    into another. So each is as good as the other.
    """
    known = connection.execute(_OWNER, {"signal_id": signal.id}).first()
    if known is None:
        return None
    times = {None, known.time} if signal.time in (None, known.time) else {signal.time}
    merged = sa.select(merges.c.from_user_id).where(merges.c.into_key == known.key)
    user_ids = {known.user_id, *connection.execute(merged).scalars()}
    if signal.user_id not in user_ids:
        user_ids = {signal.user_id}
    if all(
        known.digest != digest(replace(signal, user_id=user_id, time=time)) for user_id in user_ids for time in times
    ):
        raise Conflict(
            "SIGNAL_CONFLICT", f"signal id {signal.id!r} was captured before with different content; use a new id"
        )
    return str(known.user_id)


def signal_values(signal: Signal, time: int, user_key: int) -> dict[str, Any]:
    """Columns of a signal that hold what the caller sent."""
    evidence = signal.evidence
    post = evidence if isinstance(evidence, Post) else None
    behavior = evidence if isinstance(evidence, Behavior) else None
    return {
        "id": signal.id,
        "user_key": user_key,
        "time": time,
        "digest": digest(signal),
        "action": int(behavior.action) if behavior else None,
        "item_id": evidence.item_id,
        "text": post.text if post else "",
        "given_language": post.language if post else "",
        "rating": post.rating if post else None,
        "inferred_rating": post.inferred_rating if post else None,
        "value": behavior.value if behavior else None,
        "attribution_token": behavior.attribution_token if behavior else "",
        "context": to_json(dict(signal.context)),
    }


def to_signal(row: Row[Any], user_id: str) -> Signal:
    """A whole signal from a row of `signals`."""
    evidence: Post | Behavior
    if row.action is None:
        evidence = Post(row.text, row.given_language, row.item_id, row.rating, row.inferred_rating)
    else:
        evidence = Behavior(row.item_id, Action(row.action), row.value, row.attribution_token)
    return Signal(row.id, user_id, evidence, row.time, json.loads(row.context))


def to_evidence(row: Row[*tuple[Any, ...]], vector: Vector | None = None) -> Evidence:
    """What the blend needs from a row of `EVIDENCE_COLUMNS`, and the signal's vector in some space."""
    return Evidence(
        id=row.id,
        time=row.time,
        vector=vector,
        action=None if row.action is None else Action(row.action),
        value=row.value,
        rating=row.rating,
        item_id=row.item_id,
        terms=tuple(json.loads(row.terms)),
        language=row.language,
    )


def item_values(item: Item, language: str, terms: tuple[str, ...], words: tuple[str, ...]) -> dict[str, Any]:
    """Columns of an item."""
    return {
        "id": item.id,
        "title": item.title,
        "text": item.text,
        "categories": to_json(list(item.categories)),
        "create_time": item.create_time,
        "attributes": to_json(dict(item.attributes)),
        "hidden": item.hidden,
        "language": language,
        "terms": to_json(list(terms)),
        "words": to_json(list(words)),
    }


def to_item(row: Row[Any]) -> Item:
    """An item from a row of `items`."""
    attributes: Mapping[str, str] = json.loads(row.attributes)
    return Item(
        id=row.id,
        title=row.title,
        text=row.text,
        categories=tuple(json.loads(row.categories)),
        create_time=row.create_time,
        attributes=attributes,
        hidden=row.hidden,
    )


def words_of_item(row: Row[Any]) -> tuple[str, ...]:
    """All words of an item, from a row of `items`; those of its title where it was written before words were kept."""
    if row.words is None:
        return tuple(word for word in row.title.lower().split() if word.isalnum())
    return tuple(json.loads(row.words))


def among(column: sa.ColumnElement[Any], values: Sequence[str | int]) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions that a column is one of some values, for one query each: so many as a query takes."""
    for start in range(0, len(values), NAMED_AT_ONCE):
        yield column.in_(values[start : start + NAMED_AT_ONCE])


def item_ids(connection: Connection, after: str) -> Iterator[str]:
    """Ids of all items that come after one (empty: of all), in order."""
    query = sa.select(items.c.id).where(items.c.id > after).order_by(items.c.id)
    yield from connection.execute(query.execution_options(yield_per=500)).scalars()


def item_words(connection: Connection, item_id: str) -> tuple[tuple[str, ...], str] | None:
    """Terms and language of an item; None if it is not known."""
    row = connection.execute(_ITEM_WORDS, {"item_id": item_id}).first()
    return None if row is None else (tuple(json.loads(row.terms)), row.language)


def vectors_of_item(connection: Connection, item_id: str) -> dict[int, Vector]:
    """An item's vectors by space."""
    found = connection.execute(_ITEM_VECTORS, {"item_id": item_id})
    return {row.space: np.frombuffer(row.vector, dtype=np.float32) for row in found}


def vectors_of_items(connection: Connection, space: int, ids: Sequence[str]) -> dict[str, Vector]:
    """Vectors in a space of the items among these ids that have one there."""
    found: dict[str, Vector] = {}
    query = sa.select(item_vectors.c.item_id, item_vectors.c.vector).where(item_vectors.c.space == space)
    for some in among(item_vectors.c.item_id, ids):
        for row in connection.execute(query.where(some)):
            found[row.item_id] = np.frombuffer(row.vector, dtype=np.float32)
    return found


def user_profile(
    connection: Connection, space: int, blender: Blender, user_key: int, recipe: str | None, packed: bytes | None
) -> Profile:
    """A user's profile as it is stored, or made anew where another recipe made it or none yet."""
    if packed is not None and recipe == blender.recipe.digest:
        return unpack(packed)
    return blender.replay(user_events(connection, space, user_key))


def user_events(
    connection: Connection, space: int, user_key: int, until: int | None = None, after: int = EARLIEST[0]
) -> list[Event]:
    """Signals and steering of a user, as a space reads them, by (time, id).

    All of them, or those up to a time (µs, inclusive), or later than one; words as they stood then.
    """
    signal_vector, steering_vector = signal_vectors.c.vector, steering_vectors.c.vector
    taken_back = steerings.c.taken_back
    query = (
        sa.select(*EVIDENCE_COLUMNS, signal_vector)
        .outerjoin(signal_vectors, (signal_vectors.c.seq == signals.c.seq) & (signal_vectors.c.space == space))
        .where(signals.c.user_key == user_key)
    )
    words = (
        sa.select(steerings, steering_vector)
        .join(steering_vectors, (steering_vectors.c.seq == steerings.c.seq) & (steering_vectors.c.space == space))
        # Null where nothing that the words were about can be read in this space any more.
        .where(steerings.c.user_key == user_key, steering_vector.is_not(None))
    )
    if until is not None:
        query = query.where(signals.c.time <= until)
        words = words.where(steerings.c.time <= until, taken_back.is_(None) | (taken_back > until))
    else:
        words = words.where(taken_back.is_(None))
    if after > EARLIEST[0]:
        query = query.where(signals.c.time > after)
        words = words.where(steerings.c.time > after)
    events: list[Event] = [to_evidence(row, to_vector(row.vector)) for row in connection.execute(query)]
    events += [to_steering(row, np.frombuffer(row.vector, dtype=np.float32)) for row in connection.execute(words)]
    return sorted(events, key=place)


def place(event: Event) -> Place:
    """Where an event stands among all of its user's."""
    return event.time, event.id


def to_steering(row: Row[*tuple[Any, ...]], vector: Vector) -> SteeringEvent:
    """A steering event from a row of `steerings` and its vector in some space."""
    return SteeringEvent(
        id=steering_event_id(row.seq),
        time=row.time,
        vector=vector,
        steering=Steering(row.muted, row.pinned, row.bias),
        topic=row.topic,
        terms=tuple(json.loads(row.terms)),
        interest_id=row.interest_id,
        sign=row.sign,
    )


def steering_event_id(seq: int) -> str:
    """Sorts among signal ids of the same microsecond, and names the interest that the words open."""
    return f"{STEERING}{seq:012d}"


def steering_number(event_id: str) -> int:
    """The row of `steerings` that an event of this id comes from."""
    return int(event_id.removeprefix(STEERING))
