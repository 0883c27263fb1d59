"""One transaction on the record: every change of the truth goes through here.

Profiles that a transaction touches are kept at hand and written once, at the flush; those that a late
signal, an undo or a merge made stale are replayed there, once however many signals came late.
"""

from __future__ import annotations

import hmac
import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from cachetools import LRUCache
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from penchant_pipelines.errors import Conflict, NotFound
from penchant_pipelines.interests import (
    Blender,
    Event,
    Evidence,
    InterestView,
    Profile,
    ProfileView,
    SteeringEvent,
    pack,
    unpack,
    view,
)
from penchant_pipelines.interests.blend import undone_ids
from penchant_pipelines.model import Action, Item, Signal, Steering, now
from penchant_pipelines.record import rows, schema
from penchant_pipelines.record.rows import Vector

ITEM, USER = "item", "user"


@dataclass(frozen=True, slots=True)
class Reading:
    """What text and encoder made of a signal or an item. `vector` is None where there was nothing to read."""

    vector: Vector | None = None
    language: str = "und"
    terms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Captured:
    """What became of a signal."""

    signal_id: str
    duplicate: bool
    user_id: str
    version: int
    view: ProfileView
    """The profile right after the commit."""
    changed_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of an erasure."""

    id: str
    signals_deleted: int
    vectors_deleted: int


@dataclass(frozen=True, slots=True)
class Change:
    """A committed change of a profile, for those who watch."""

    user_id: str
    version: int
    signal_count: int
    profile: bytes


@dataclass(slots=True)
class Commit:
    """All that others want to know of a committed transaction."""

    changes: list[Change] = field(default_factory=list)
    upserted: list[tuple[Item, str, Vector]] = field(default_factory=list)
    deleted_items: list[str] = field(default_factory=list)
    touched: list[tuple[str, int, Evidence]] = field(default_factory=list)
    """Item id, user key and evidence of each new signal that names an item."""
    recount: set[str] = field(default_factory=set)
    """Items whose popularity must be counted again: signals on them were undone or erased."""
    last_signal: int = 0
    """Number of the newest signal in the record as of this commit: what such a count goes up to."""
    outbox: bool = False


@dataclass(eq=False, slots=True)
class UserState:
    """A user's row while a transaction works on it."""

    key: int
    user_id: str
    version: int
    signal_count: int
    latest: tuple[int, str]
    profile: Profile
    stale: bool = False
    fresh_row: bool = False


ProfileCache = LRUCache[str, UserState]


class Ledger:
    """Works on the truth through one connection; see `Writer` for its life."""

    def __init__(
        self,
        connection: Connection,
        blender: Blender,
        cache: ProfileCache,
        secret: bytes,
        on_commit: Callable[[Commit], None],
    ) -> None:
        self.connection = connection
        self._blender = blender
        self._cache = cache
        self._secret = secret
        self._on_commit = on_commit
        self._dirty: dict[str, UserState] = {}
        self._replayed: set[str] = set()
        self._before: dict[str, dict[str, tuple[int, int]]] = {}
        self._views: dict[str, ProfileView] = {}
        self._outbox: dict[tuple[str, str], None] = {}
        self._commit = Commit()

    # -- signals ---------------------------------------------------------------------------------------------

    def capture(self, signal: Signal, time: int, reading: Reading) -> Callable[[], Captured]:
        """Take in a signal at its event time (µs). Raises Conflict if its id is taken by other content."""
        known = self._known(signal)
        if known is not None:
            return known
        state = self._user(signal.user_id, create=True)
        values = rows.signal_values(signal, time, state.key)
        reading, awaits_item = self._with_item(signal, reading)
        values |= {
            "language": reading.language,
            "terms": rows.to_json(list(reading.terms)),
            "vector": None if reading.vector is None else reading.vector.tobytes(),
            "awaits_item": awaits_item,
            "undone": False,
        }
        self.connection.execute(schema.signals.insert().values(values))
        self._touch(state)
        state.version += 1
        state.signal_count += 1
        evidence = _evidence(signal, time, reading)
        if signal.item_id:
            self._commit.touched.append((signal.item_id, state.key, evidence))
        position = (time, signal.id)
        taken_by: str | None = None
        if state.stale or position < state.latest or evidence.action is Action.UNDO:
            state.stale = True
        else:
            taken_by = self._blender.add(state.profile, evidence)
        state.latest = max(state.latest, position)
        # The version that this signal made; later ones of the same group are not its own.
        version = state.version
        return lambda: Captured(
            signal.id, False, state.user_id, version, self._view(state), self._changed(state, taken_by)
        )

    def knows(self, signal_id: str) -> bool:
        """Tell whether a signal with this id is in the record."""
        query = sa.select(schema.signals.c.seq).where(schema.signals.c.id == signal_id)
        return self.connection.execute(query).first() is not None

    def _known(self, signal: Signal) -> Callable[[], Captured] | None:
        """Answer for an id that was captured before."""
        query = (
            sa.select(schema.signals.c.digest, schema.users.c.user_id)
            .join(schema.users, schema.users.c.key == schema.signals.c.user_key)
            .where(schema.signals.c.id == signal.id)
        )
        row = self.connection.execute(query).first()
        if row is None:
            return None
        if row.digest != rows.digest(signal):
            raise Conflict(
                "SIGNAL_CONFLICT",
                f"signal id {signal.id!r} was captured before with different content; use a new id",
            )
        state = self._user(row.user_id)
        return lambda: Captured(signal.id, True, state.user_id, state.version, self._view(state), frozenset())

    def _with_item(self, signal: Signal, reading: Reading) -> tuple[Reading, bool]:
        """Add what the item says to what the user wrote. Second value: the item is not known yet."""
        if not signal.item_id:
            return reading, False
        found = rows.item_vectors(self.connection, [signal.item_id]).get(signal.item_id)
        if found is None:
            return reading, True
        return _joined(reading, *found), False

    # -- steering --------------------------------------------------------------------------------------------

    def steer(
        self, user_id: str, time: int, steering: Steering, interest_id: str, topic: str, reading: Reading
    ) -> Callable[[], InterestView]:
        """Record the user's word about an interest (by id) or a topic (by its reading)."""
        state = self._user(user_id, create=not interest_id)
        vector = reading.vector
        if interest_id:
            interest = state.profile.find(interest_id)
            if interest is None:
                raise NotFound("interest", interest_id)
            vector = interest.centroid
        assert vector is not None  # noqa: S101 - the caller encodes the topic
        inserted = self.connection.execute(
            schema.steerings.insert().values(
                user_key=state.key,
                time=time,
                topic=topic,
                interest_id=interest_id,
                terms=rows.to_json(list(reading.terms)),
                vector=vector.tobytes(),
                muted=steering.muted,
                pinned=steering.pinned,
                bias=steering.bias,
            )
        )
        seq = inserted.inserted_primary_key[0]  # type: ignore[index]
        event = SteeringEvent(rows.steering_event_id(seq), time, vector, steering, topic, reading.terms, interest_id)
        self._touch(state)
        state.version += 1
        position = (time, event.id)
        if state.stale or position < state.latest:
            state.stale = True
        else:
            interest_id = self._blender.steer(state.profile, event).id
        state.latest = max(state.latest, position)

        def finish() -> InterestView:
            interests = self._view(state).interests
            named = next((interest for interest in interests if interest.id == interest_id), None)
            # A replay may have given it another name.
            return named or max(interests, key=lambda interest: float(interest.vector @ vector))

        return finish

    # -- whole users -----------------------------------------------------------------------------------------

    def merge(self, from_user_id: str, into_user_id: str) -> Callable[[], tuple[ProfileView, int, int]]:
        """Move all signals and steering of one user to another. Repeating it changes nothing."""
        into = self._find(into_user_id)
        source = self._find(from_user_id)
        if source is None:
            done = self.connection.execute(
                sa.select(schema.merges.c.into_key).where(schema.merges.c.from_user_id == from_user_id)
            ).scalar()
            if into is None or done != into.key:
                raise NotFound("user", from_user_id)
            merged = into
            return lambda: (self._view(merged), merged.version, merged.signal_count)
        if into is None:
            into = self._user(into_user_id, create=True)
        for table in (schema.signals, schema.steerings):
            self.connection.execute(table.update().where(table.c.user_key == source.key).values(user_key=into.key))
        merges = schema.merges
        self.connection.execute(merges.update().where(merges.c.into_key == source.key).values(into_key=into.key))
        statement = insert(merges).values(from_user_id=from_user_id, into_key=into.key)
        self.connection.execute(
            statement.on_conflict_do_update(index_elements=["from_user_id"], set_={"into_key": into.key})
        )
        self._drop_user(source)
        self._touch(into)
        into.version += source.version
        into.signal_count += source.signal_count
        into.latest = max(into.latest, source.latest)
        into.stale = True
        merged = into
        return lambda: (self._view(merged), merged.version, merged.signal_count)

    def erase(self, user_id: str, time: int) -> Callable[[], Receipt]:
        """Erase a user. A repeated call gives the same receipt."""
        proof = hmac.new(self._secret, user_id.encode(), "sha256").hexdigest()
        state = self._find(user_id)
        table = schema.receipts
        if state is None:
            row = self.connection.execute(
                sa.select(table).where(table.c.user_digest == proof).order_by(table.c.time.desc())
            ).first()
            if row is None:
                raise NotFound("user", user_id)
            again = Receipt(row.id, row.signals_deleted, row.vectors_deleted)
            return lambda: again
        signals = schema.signals
        mine = signals.c.user_key == state.key
        self._commit.recount.update(
            self.connection.execute(
                sa.select(signals.c.item_id).where(mine, signals.c.item_id != "").distinct()
            ).scalars()
        )
        vectors = self.connection.execute(
            sa.select(sa.func.count()).select_from(signals).where(mine, signals.c.vector.is_not(None))
        ).scalar_one()
        deleted = self.connection.execute(signals.delete().where(mine)).rowcount
        for other in (schema.steerings, schema.merges):
            column = other.c.user_key if other is schema.steerings else other.c.into_key
            self.connection.execute(other.delete().where(column == state.key))
        # A guest id that was merged into somebody else and comes back is erased as itself.
        self.connection.execute(schema.merges.delete().where(schema.merges.c.from_user_id == user_id))
        receipt = Receipt("r-" + uuid.uuid4().hex, deleted, vectors + len(state.profile.interests))
        self.connection.execute(
            table.insert().values(
                id=receipt.id,
                time=time,
                user_digest=proof,
                signals_deleted=receipt.signals_deleted,
                vectors_deleted=receipt.vectors_deleted,
            )
        )
        self._drop_user(state)
        return lambda: receipt

    # -- items -----------------------------------------------------------------------------------------------

    def upsert_items(self, batch: Sequence[tuple[Item, Reading]]) -> Callable[[], None]:
        """Write items; signals that waited for one of them get their vectors."""
        table = schema.items
        waiting = self._waiting_signals([item.id for item, _ in batch])
        for item, reading in batch:
            assert reading.vector is not None  # noqa: S101 - items always have one
            values = rows.item_values(item, reading.language, reading.terms, reading.vector)
            statement = insert(table).values(values)
            self.connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
            self._outbox[ITEM, item.id] = None
            self._commit.upserted.append((item, reading.language, reading.vector))
            if item.id in waiting:
                self._commit.recount.add(item.id)
            for row in waiting.get(item.id, []):
                self._complete(row, reading)
        return lambda: None

    def delete_items(self, ids: Sequence[str]) -> Callable[[], int]:
        """Delete items; signals on them keep the vectors that they have."""
        deleted = 0
        for item_id in dict.fromkeys(ids):
            if self.connection.execute(schema.items.delete().where(schema.items.c.id == item_id)).rowcount:
                deleted += 1
                self._outbox[ITEM, item_id] = None
                self._commit.deleted_items.append(item_id)
        return lambda: deleted

    def _waiting_signals(self, item_ids: list[str]) -> dict[str, list[sa.Row[Any]]]:
        signals = schema.signals
        found: dict[str, list[sa.Row[Any]]] = {}
        for start in range(0, len(item_ids), 500):
            query = (
                sa.select(signals, schema.users.c.user_id)
                .join(schema.users, schema.users.c.key == signals.c.user_key)
                .where(signals.c.item_id.in_(item_ids[start : start + 500]), signals.c.awaits_item)
            )
            for row in self.connection.execute(query):
                found.setdefault(row.item_id, []).append(row)
        return found

    def _complete(self, row: sa.Row[Any], item: Reading) -> None:
        evidence = rows.to_evidence(row)
        own = Reading(evidence.vector, row.language, evidence.terms)
        assert item.vector is not None  # noqa: S101 - items always have one
        reading = _joined(own, item.vector, item.terms, item.language)
        assert reading.vector is not None  # noqa: S101 - joined with the item's
        self.connection.execute(
            schema.signals.update()
            .where(schema.signals.c.seq == row.seq)
            .values(
                vector=reading.vector.tobytes(),
                terms=rows.to_json(list(reading.terms)),
                language=reading.language,
                awaits_item=False,
            )
        )
        state = self._user(row.user_id)
        self._touch(state)
        state.stale = True
        state.version += 1

    # -- users -----------------------------------------------------------------------------------------------

    def refresh(self, user_id: str) -> Callable[[], None]:
        """Replay a profile that another recipe made."""
        state = self._user(user_id)
        self._touch(state)
        return lambda: None

    def _find(self, user_id: str) -> UserState | None:
        state = self._dirty.get(user_id) or self._cache.get(user_id)
        if state is not None:
            return state
        row = self.connection.execute(sa.select(schema.users).where(schema.users.c.user_id == user_id)).first()
        if row is None:
            return None
        current = row.recipe == self._blender.recipe.digest
        state = UserState(
            key=row.key,
            user_id=user_id,
            version=row.version,
            signal_count=row.signal_count,
            latest=(row.latest_time, row.latest_id),
            profile=unpack(row.profile) if current else Profile(),
            stale=not current,
        )
        if not current:
            self._replay(state)
        self._cache[user_id] = state
        return state

    def _user(self, user_id: str, create: bool = False) -> UserState:
        state = self._find(user_id)
        if state is None:
            if not create:
                raise NotFound("user", user_id)
            state = UserState(secrets.randbits(62), user_id, 0, 0, (-(2**62), ""), Profile(), fresh_row=True)
            self.connection.execute(
                schema.users.insert().values(
                    key=state.key,
                    user_id=user_id,
                    version=0,
                    signal_count=0,
                    latest_time=state.latest[0],
                    latest_id="",
                    recipe=self._blender.recipe.digest,
                    profile=b"",
                )
            )
            self._dirty[user_id] = state
        return state

    def _touch(self, state: UserState) -> None:
        if state.user_id not in self._before:
            self._before[state.user_id] = _summary(state.profile)
        self._dirty[state.user_id] = state
        self._outbox[USER, str(state.key)] = None

    def _view(self, state: UserState) -> ProfileView:
        """The profile as it reads now; made in the writer's thread, which alone may change it."""
        if state.user_id not in self._views:
            self._views[state.user_id] = view(state.profile, max(now(), state.profile.updated), self._blender)
        return self._views[state.user_id]

    def _changed(self, state: UserState, taken_by: str | None) -> frozenset[str]:
        """Interests that a signal opened, strengthened or weakened; after a replay, all it left different."""
        if taken_by is not None and state.user_id not in self._replayed:
            return frozenset([taken_by])
        before = self._before.get(state.user_id, {})
        return frozenset(key for key, value in _summary(state.profile).items() if before.get(key) != value)

    def _drop_user(self, state: UserState) -> None:
        self._dirty.pop(state.user_id, None)
        self._cache.pop(state.user_id, None)
        self._outbox[USER, str(state.key)] = None
        self.connection.execute(schema.users.delete().where(schema.users.c.key == state.key))

    def _replay(self, state: UserState) -> None:
        events = rows.user_events(self.connection, state.key)
        state.profile = self._blender.replay(events)
        state.stale = False
        self._replayed.add(state.user_id)
        if any(isinstance(event, Evidence) and event.action is Action.UNDO for event in events):
            self._mark_undone(state, events)

    def _mark_undone(self, state: UserState, events: Sequence[Event]) -> None:
        """Keep the `undone` marks of the user's signals true, for popularity and what counts as seen."""
        signals = schema.signals
        mine = signals.c.user_key == state.key
        undone = undone_ids(events)
        marked = set(self.connection.execute(sa.select(signals.c.id).where(mine, signals.c.undone)).scalars())
        items = {event.id: event.item_id for event in events if isinstance(event, Evidence)}
        for ids, value in ((undone - marked, True), (marked - undone, False)):
            for signal_id in ids:
                self.connection.execute(signals.update().where(signals.c.id == signal_id).values(undone=value))
                self._commit.recount.add(items[signal_id])

    # -- the transaction's life ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Replay what is stale, then write profiles and the outbox."""
        newest = self.connection.execute(sa.select(sa.func.max(schema.signals.c.seq))).scalar()
        self._commit.last_signal = newest or 0
        for state in self._dirty.values():
            if state.stale:
                self._replay(state)
            self._write_back(state)
        if self._outbox:
            entries = [{"kind": kind, "key": key} for kind, key in self._outbox]
            self.connection.execute(schema.outbox.insert(), entries)
            self._commit.outbox = True

    def _write_back(self, state: UserState) -> None:
        packed = pack(state.profile)
        self.connection.execute(
            schema.users.update()
            .where(schema.users.c.key == state.key)
            .values(
                version=state.version,
                signal_count=state.signal_count,
                latest_time=state.latest[0],
                latest_id=state.latest[1],
                recipe=self._blender.recipe.digest,
                profile=packed,
            )
        )
        self._commit.changes.append(Change(state.user_id, state.version, state.signal_count, packed))

    def committed(self) -> None:
        """Keep the profiles at hand and tell the others."""
        for state in self._dirty.values():
            self._cache[state.user_id] = state
        self._on_commit(self._commit)

    def rolled_back(self) -> None:
        """Forget profiles that were changed in memory only."""
        for user_id in self._dirty:
            self._cache.pop(user_id, None)


def _evidence(signal: Signal, time: int, reading: Reading) -> Evidence:
    evidence = signal.evidence
    action = getattr(evidence, "action", None)
    return Evidence(
        id=signal.id,
        time=time,
        vector=reading.vector,
        action=action,
        value=getattr(evidence, "value", None),
        rating=getattr(evidence, "rating", None),
        item_id=signal.item_id,
        terms=reading.terms,
        language=reading.language,
    )


def _joined(own: Reading, vector: Vector, terms: tuple[str, ...], language: str) -> Reading:
    """What the user wrote about an item, with the item: the mean direction, the user's words first."""
    if own.vector is None:
        return Reading(vector, language, terms)
    total = own.vector + vector
    both = tuple(dict.fromkeys([*own.terms, *terms]))[:8]
    return Reading((total / max(float((total @ total) ** 0.5), 1e-12)).astype("float32"), own.language, both)


def _summary(profile: Profile) -> dict[str, tuple[int, int]]:
    return {interest.id: (interest.signal_count, interest.first) for interest in profile.interests}
