"""One transaction on the record: every change of the truth goes through here.

Vectors and profiles are written in every space that is kept current, in the same transaction.
"""

from __future__ import annotations

import hmac
import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from penchant_pipelines.errors import NotFound, Overloaded, WrongState
from penchant_pipelines.interests import Interest, ProfileView, SteeringEvent, best_terms, unweighed_view
from penchant_pipelines.model import Action, Behavior, Item, Signal, Steering
from penchant_pipelines.record import rows, schema
from penchant_pipelines.record.carry import carried
from penchant_pipelines.record.commit import Captured, Commit, Receipt, Steered
from penchant_pipelines.record.reading import Reading, joined
from penchant_pipelines.record.rows import Vector
from penchant_pipelines.record.users import ITEM, KeptSpace, Outbox, ProfileCache, Users, UserState
from penchant_pipelines.record.writer import nothing

LATEST = 2**62
"""Later than any time (µs)."""
LAST = "\U0010ffff"
"""Begins the place of an UNDO among signals of one time: whatever comes later of that time may be what it undoes."""

# Put together once, as in `rows`.
_NEW_SIGNAL = schema.signals.insert()
_NEW_SIGNAL_VECTORS = schema.signal_vectors.insert()
_PUT_ITEM = rows.put(schema.items)
_PUT_ITEM_VECTOR = rows.put(schema.item_vectors)
_NEWEST_SIGNAL = sa.select(sa.func.max(schema.signals.c.seq))


class SpacesChanged(Overloaded):
    """A space is kept current now that the texts were not encoded in: encode them anew and come again."""

    def __init__(self) -> None:
        super().__init__(retry_after=0.0)


class Ledger:
    """Works on the truth through one connection; see `Writer` for its life."""

    def __init__(
        self,
        connection: Connection,
        spaces: Sequence[KeptSpace],
        serving: Callable[[str], KeptSpace],
        cache: ProfileCache,
        secret: bytes,
        numbers: Iterator[int],
        on_commit: Callable[[Commit], None],
    ) -> None:
        self.connection = connection
        self._spaces = spaces
        self._serving = serving
        self._secret = secret
        self._numbers = numbers
        self._on_commit = on_commit
        self._outbox: Outbox = {}
        self._commit = Commit()
        self.users = Users(connection, spaces, serving, cache, self._commit, self._outbox)

    def expect(self, spaces: frozenset[int]) -> None:
        """Check that texts were encoded in every space that is kept now. Raises SpacesChanged."""
        if any(space.key not in spaces for space in self._spaces):
            raise SpacesChanged

    # -- signals ---------------------------------------------------------------------------------------------

    def capture(self, signal: Signal, time: int, reading: Reading) -> Callable[[], Captured]:
        """Take in a signal at its event time (µs). Raises Conflict if its id is taken by other content.

        An UNDO that names no time is later than what it undoes, whatever the clock that dated that.
        """
        known = self._known(signal)
        if known is not None:
            return known
        state = self.users.get(signal.user_id, create=True)
        reading, spaces, awaits_item = self._with_item(signal, reading)
        undoes = getattr(signal.evidence, "action", None) is Action.UNDO
        if undoes and signal.time is None:
            time = max(time, self._latest_on(state.key, signal.item_id))
        seq = next(self._numbers)
        values = rows.signal_values(signal, time, state.key) | {
            "seq": seq,
            "language": reading.language,
            "terms": rows.to_json(list(reading.terms)),
            "awaits_item": awaits_item,
            "undone": False,
        }
        self.connection.execute(_NEW_SIGNAL, values)
        if spaces:
            vectors = [{"seq": seq, "space": key, "vector": rows.to_blob(reading.vectors.get(key))} for key in spaces]
            self.connection.execute(_NEW_SIGNAL_VECTORS, vectors)
        self.users.touch(state)
        state.version += 1
        state.signal_count += 1
        position = (time, LAST + signal.id if undoes else signal.id)
        taken_by: str | None = None
        serving = self._serving(state.user_id)
        if signal.item_id:
            evidence = reading.evidence(signal, time, serving.key)
            self._commit.touched.append((signal.item_id, state.key, evidence, reading.vectors))
        # An id, too, may begin like the place of an UNDO.
        of_an_undo = time == state.latest[0] and state.latest[1].startswith(LAST)
        if position < state.latest or undoes or of_an_undo:
            state.now_stale(position)
            if isinstance(signal.evidence, Behavior):
                state.undoing.add(signal.item_id)
        if state.stale_from is None:
            for space in self.users.with_profiles():
                evidence = reading.evidence(signal, time, space.key)
                taken = space.blender.add(state.profiles[space.key], evidence)
                taken_by = taken if space.key == serving.key else taken_by
        state.latest = max(state.latest, position)
        # The version that this signal made; later ones of the same group are not its own.
        version = state.version
        return lambda: Captured(
            signal.id,
            False,
            state.user_id,
            version,
            self.users.view(state),
            serving.space_id,
            self.users.changed(state, taken_by),
        )

    def _latest_on(self, user_key: int, item_id: str) -> int:
        signals = schema.signals
        query = sa.select(sa.func.max(signals.c.time)).where(
            signals.c.user_key == user_key, signals.c.item_id == item_id
        )
        return self.connection.execute(query).scalar() or 0

    def knows(self, signal_id: str) -> bool:
        """Tell whether a signal with this id is in the record."""
        query = sa.select(schema.signals.c.seq).where(schema.signals.c.id == signal_id)
        return self.connection.execute(query).first() is not None

    def _known(self, signal: Signal) -> Callable[[], Captured] | None:
        """Answer for an id that was captured before."""
        user_id = rows.user_of(self.connection, signal)
        if user_id is None:
            return None
        state = self.users.get(user_id)
        space_id = self._serving(state.user_id).space_id
        return lambda: Captured(
            signal.id, True, state.user_id, state.version, self.users.view(state), space_id, frozenset()
        )

    def _with_item(self, signal: Signal, reading: Reading) -> tuple[Reading, list[int], bool]:
        """Add what the item says to what the user wrote: the whole, the spaces it is known in, is the item unknown.

        A space that is being built may lack the item as yet; the builder comes to the signal after the items.
        """
        kept = [space.key for space in self._spaces]
        words = rows.item_words(self.connection, signal.item_id) if signal.item_id else None
        if words is None:
            return reading, kept, bool(signal.item_id)
        item = Reading(rows.vectors_of_item(self.connection, signal.item_id), words[1], words[0])
        return joined(reading, item), [key for key in kept if key in item.vectors], False

    # -- steering --------------------------------------------------------------------------------------------

    def steer(
        self,
        user_id: str,
        time: int,
        steering: Steering,
        interest_id: str,
        topic: str,
        reading: Reading,
        elsewhere: Mapping[int, Vector | None] | None = None,
    ) -> Callable[[], Steered]:
        """Record the user's word about an interest (by id) or a topic (by its reading, and the id it may mean).

        It is said at `time` (µs), or right after all else of the user's where clocks ran ahead: it is about that.
        `elsewhere` is where `carried` puts a word about an interest in other spaces; one that it lacks is looked for
        here, which holds up all who write for as long as a replay takes. Raises NotFound for an interest that is not
        there, and where there is nothing of a topic to take back.
        """
        taken_back = steering == Steering()
        by_id, sign, terms = not topic, 0, reading.terms
        state = self.users.get(user_id, create=not by_id and not taken_back)
        time = max(time, state.latest[0] + 1)
        serving = self._serving(user_id)
        if taken_back:
            self.users.freshen(state)  # to find what is meant among what came late, too
        vectors: dict[int, Vector | None] = dict(reading.vectors)
        if by_id:
            interest = state.profiles[serving.key].find(interest_id)
            if interest is None:
                raise NotFound("interest", interest_id)
            vectors = {serving.key: interest.centroid}
            sign, terms = interest.sign, best_terms(interest)
        vector = vectors[serving.key]
        assert vector is not None  # noqa: S101 - the caller encodes the topic
        event = SteeringEvent("", time, vector, steering, topic, terms, interest_id, sign)
        gone: Interest | None = None
        if taken_back:
            hit = serving.blender.meant(self.users.served(state), event)
            if hit is None:
                raise NotFound("topic", topic)
            if self.users.unsay(state, hit, topic, time):
                gone = hit
        inserted = self.connection.execute(
            schema.steerings.insert().values(
                user_key=state.key,
                time=time,
                topic=topic,
                interest_id=interest_id,
                terms=rows.to_json(list(terms)),
                sign=sign,
                taken_back=time if gone else None,
                muted=steering.muted,
                pinned=steering.pinned,
                bias=steering.bias,
            )
        )
        seq = inserted.inserted_primary_key[0]  # type: ignore[index]
        event = replace(event, id=rows.steering_event_id(seq))
        if by_id and not gone:
            for space in self.users.with_profiles():
                if space.key == serving.key:
                    continue
                if elsewhere is not None and space.key in elsewhere:
                    vectors[space.key] = elsewhere[space.key]
                else:
                    vectors[space.key] = carried(
                        self.connection, serving.key, serving.blender, space.key, state.key, event
                    )
        kept = [space.key for space in self._spaces if space.key in vectors]
        self.connection.execute(
            schema.steering_vectors.insert(),
            [{"seq": seq, "space": key, "vector": rows.to_blob(vectors[key])} for key in kept],
        )
        self.users.touch(state)
        state.version += 1
        state.latest = (time, event.id)
        steered: Interest | None = None
        if state.stale_from is None:
            for space in self.users.with_profiles():
                there = vectors[space.key]
                if there is not None:
                    hit = space.blender.steer(state.profiles[space.key], replace(event, vector=there))
                    steered = hit if space.key == serving.key else steered

        def finish() -> Steered:
            whole, blender = self.users.view(state), serving.blender
            # Only a replay knows it where there was one; and what was taken back may be gone.
            hit = steered or gone or blender.meant(self.users.served(state), event) or blender.opened_by(event)
            found = next((interest for interest in whole.interests if interest.id == hit.id), None)
            if found is None:
                found = unweighed_view(hit)
                whole = replace(whole, interests=(*whole.interests, found))
            return Steered(found, whole, serving.space_id)

        return finish

    # -- whole users -----------------------------------------------------------------------------------------

    def merge(self, from_user_id: str, into_user_id: str) -> Callable[[], tuple[ProfileView, int, int, str]]:
        """Move all signals and steering of one user to another. Repeating it changes nothing.

        Gives the view, version, signal count and space of the result.
        """
        into = self.users.find(into_user_id)
        source = self.users.find(from_user_id)
        if source is None:
            done = self.connection.execute(
                sa.select(schema.merges.c.into_key).where(schema.merges.c.from_user_id == from_user_id)
            ).scalar()
            if into is None or done != into.key:
                raise NotFound("user", from_user_id)
            merged = into
            return lambda: self._merged(merged)
        if into is None:
            into = self.users.get(into_user_id, create=True)
        joined_items = self.users.items_of(source.key)
        self._commit.recount |= joined_items
        into.undoing |= joined_items
        for table in (schema.signals, schema.steerings):
            self.connection.execute(table.update().where(table.c.user_key == source.key).values(user_key=into.key))
        merges = schema.merges
        self.connection.execute(merges.update().where(merges.c.into_key == source.key).values(into_key=into.key))
        # There and back again: nobody is merged into oneself.
        itself = (merges.c.from_user_id == into_user_id) & (merges.c.into_key == into.key)
        self.connection.execute(merges.delete().where(itself))
        self.connection.execute(rows.put(merges), {"from_user_id": from_user_id, "into_key": into.key})
        self.users.drop(source)
        self.users.touch(into)
        into.version += source.version
        into.signal_count += source.signal_count
        into.latest = max(into.latest, source.latest)
        into.now_stale(rows.EARLIEST)
        merged = into
        return lambda: self._merged(merged)

    def _merged(self, state: UserState) -> tuple[ProfileView, int, int, str]:
        return self.users.view(state), state.version, state.signal_count, self._serving(state.user_id).space_id

    def erase(self, user_id: str, time: int) -> Callable[[], Receipt]:
        """Erase a user. A repeated call gives the same receipt.

        Raises NotFound for an id that was never erased, WrongState for one whose history another user has.
        """
        proof = hmac.new(self._secret, user_id.encode(), "sha256").hexdigest()
        state = self.users.find(user_id)
        table = schema.receipts
        if state is None:
            row = self.connection.execute(
                sa.select(table).where(table.c.user_digest == proof).order_by(table.c.time.desc())
            ).first()
            merges, users = schema.merges, schema.users
            merged = sa.select(users.c.user_id).join(merges, merges.c.into_key == users.c.key)
            into = self.connection.execute(merged.where(merges.c.from_user_id == user_id)).scalar()
            if into is not None:
                raise WrongState(
                    "USER_MERGED", f"the history of {user_id!r} is a part of that of {into!r}: erase that user"
                )
            if row is None:
                raise NotFound("user", user_id)
            again = Receipt(row.id, row.signals_deleted, row.vectors_deleted)
            return lambda: again
        deleted, vectors = self._delete_signals(schema.signals.c.user_key == state.key, self.users.items_of(state.key))
        vectors += sum(len(profile.interests) for profile in state.profiles.values())
        for other in (schema.steerings, schema.merges):
            column = other.c.user_key if other is schema.steerings else other.c.into_key
            self.connection.execute(other.delete().where(column == state.key))
        # A guest id that was merged into somebody else and comes back is erased as itself.
        self.connection.execute(schema.merges.delete().where(schema.merges.c.from_user_id == user_id))
        receipt = self._receipt(time, proof, deleted, vectors)
        self.users.drop(state)
        return lambda: receipt

    def erase_signals(self, user_id: str, ids: Sequence[str], time: int) -> Callable[[], Receipt]:
        """Erase those of a user's signals that are there, at a time (µs); the profile is made anew without them.

        Of none the receipt has no id. Raises NotFound for an unknown user.
        """
        state = self.users.get(user_id, create=False)
        signals = schema.signals
        query = sa.select(signals.c.seq, signals.c.id, signals.c.time, signals.c.item_id, signals.c.terms)
        mine = signals.c.user_key == state.key
        found = [
            row for some in rows.among(signals.c.id, ids) for row in self.connection.execute(query.where(mine, some))
        ]
        if not found:
            return lambda: Receipt("", 0, 0)
        items = {row.item_id for row in found if row.item_id}
        deleted = vectors = 0
        for some in rows.among(signals.c.seq, [row.seq for row in found]):
            gone = self._delete_signals(some, items)
            deleted, vectors = deleted + gone[0], vectors + gone[1]
        first = min((row.time, row.id) for row in found)
        first = min(
            first, self._forget_terms(state, first[0], {term for row in found for term in json.loads(row.terms)})
        )
        self.connection.execute(schema.summaries.delete().where(schema.summaries.c.user_key == state.key))
        # It tells nobody that this user was here: by it no erasure of the whole user is found again.
        proof = hmac.new(self._secret, f"signals of {user_id}".encode(), "sha256").hexdigest()
        receipt = self._receipt(time, proof, deleted, vectors)
        self.users.touch(state)
        state.undoing |= items
        state.signal_count -= deleted
        state.version += 1
        state.now_stale(first)
        return lambda: receipt

    def _forget_terms(self, state: UserState, since: int, erased: set[str]) -> rows.Place:
        """Take terms of erased signals out of what interests were called when the user spoke of them after a time (µs).

        Terms that other signals of the user have, too, stay. Tells the place of the first word that was changed, else
        the last there can be.
        """
        table, signals, first = schema.steerings, schema.signals, (LATEST, "")
        words = sa.select(table).where(table.c.user_key == state.key, table.c.topic == "", table.c.time > since)
        named = [row for row in self.connection.execute(words) if erased.intersection(json.loads(row.terms))]
        if not named:
            return first
        left = self.connection.execute(sa.select(signals.c.terms).where(signals.c.user_key == state.key)).scalars()
        gone = erased.difference(*map(json.loads, left))
        for row in named:
            terms = [term for term in json.loads(row.terms) if term not in gone]
            self.connection.execute(table.update().where(table.c.seq == row.seq).values(terms=rows.to_json(terms)))
            first = min(first, (row.time, rows.steering_event_id(row.seq)))
        return first

    def _delete_signals(self, which: sa.ColumnElement[bool], items: set[str]) -> tuple[int, int]:
        """Delete signals on these items, with their vectors in every space; tells how many of both."""
        self._commit.recount |= items
        self._commit.erased |= items
        signals, held = schema.signals, schema.signal_vectors
        vectors = self.connection.execute(
            sa.select(sa.func.count())
            .select_from(signals.join(held, held.c.seq == signals.c.seq))
            .where(which, held.c.vector.is_not(None))
        ).scalar_one()
        deleted = self.connection.execute(signals.delete().where(which)).rowcount
        self.connection.execute(schema.generations.update().values(holds_erased=True))
        return deleted, int(vectors)

    def _receipt(self, time: int, proof: str, signals_deleted: int, vectors_deleted: int) -> Receipt:
        receipt = Receipt("r-" + uuid.uuid4().hex, signals_deleted, vectors_deleted)
        self.connection.execute(
            schema.receipts.insert().values(
                id=receipt.id,
                time=time,
                user_digest=proof,
                signals_deleted=signals_deleted,
                vectors_deleted=vectors_deleted,
            )
        )
        return receipt

    # -- items -----------------------------------------------------------------------------------------------

    def upsert_items(self, batch: Sequence[tuple[Item, Reading]]) -> Callable[[], None]:
        """Write items, each as it came last; signals that wait for one of them are left to `complete`."""
        latest = {item.id: (item, reading) for item, reading in batch}
        told = [
            rows.item_values(item, reading.language, reading.terms, reading.words) for item, reading in latest.values()
        ]
        self.connection.execute(_PUT_ITEM, told)
        vectors = {
            item.id: {space.key: reading.vectors[space.key] for space in self._spaces}
            for item, reading in latest.values()
        }
        self._put_item_vectors(
            (item_id, space, vector) for item_id, by_space in vectors.items() for space, vector in by_space.items()
        )
        for item, reading in latest.values():
            self._outbox[ITEM, item.id] = None
            self._commit.upserted.append((item, reading.language, vectors[item.id], reading.words))
            self._commit.deleted_items.pop(item.id, None)
        return nothing

    def embed_item(self, space: int, item_id: str, vector: Vector) -> None:
        """Bring an item that is known into a space that is being built."""
        self._put_item_vectors([(item_id, space, vector)])
        self._commit.embedded.append((space, item_id, vector))

    def _put_item_vectors(self, vectors: Iterable[tuple[str, int, Vector]]) -> None:
        told = [{"item_id": item_id, "space": space, "vector": vector.tobytes()} for item_id, space, vector in vectors]
        self.connection.execute(_PUT_ITEM_VECTOR, told)

    def delete_items(self, ids: Sequence[str]) -> Callable[[], int]:
        """Delete items; signals on them keep the vectors that they have."""
        deleted = 0
        for item_id in dict.fromkeys(ids):
            if self.connection.execute(schema.items.delete().where(schema.items.c.id == item_id)).rowcount:
                deleted += 1
                self._outbox[ITEM, item_id] = None
                self._commit.deleted_items[item_id] = None
        return lambda: deleted

    def complete(self, user_key: int) -> Callable[[], None]:
        """Join a user's signals that wait for an item with those items that are there by now, in each space."""
        signals, items, users = schema.signals, schema.items, schema.users
        query = (
            sa.select(
                signals,
                users.c.user_id,
                items.c.terms.label("terms_of_item"),
                items.c.language.label("language_of_item"),
            )
            .join(users, users.c.key == signals.c.user_key)
            .join(items, items.c.id == signals.c.item_id)
            .where(signals.c.user_key == user_key, signals.c.awaits_item)
        )
        waiting = self.connection.execute(query).all()
        if not waiting:
            return nothing  # another's by now, erased, or completed before
        held = self._with_item_vectors(user_key)
        vectors, readings = [], []
        for row in waiting:
            mine = held[row.seq]
            # One of these: the user wrote nothing. Where it has a vector all the same it was read with its item then.
            unread = [each.space for each in mine if each.vector is None]
            own = {} if unread else {each.space: np.frombuffer(each.vector, np.float32) for each in mine}
            there = {each.space: np.frombuffer(each.of_item, np.float32) for each in mine if each.of_item is not None}
            reading = joined(
                Reading(own, row.language, tuple(json.loads(row.terms))),
                Reading(there, row.language_of_item, tuple(json.loads(row.terms_of_item))),
            )
            vectors += [
                {"of": row.seq, "in": space, "vector": reading.vectors[space].tobytes()}
                for space in unread or own
                if space in reading.vectors
            ]
            terms = rows.to_json(list(reading.terms))
            readings.append({"of": row.seq, "terms": terms, "language": reading.language, "awaits_item": False})
            if row.action is None:
                self._commit.recount.add(row.item_id)
        self.connection.execute(signals.update().where(signals.c.seq == sa.bindparam("of")), readings)
        if vectors:
            table = schema.signal_vectors
            place = (table.c.seq == sa.bindparam("of")) & (table.c.space == sa.bindparam("in"))
            self.connection.execute(table.update().where(place), vectors)
        state = self.users.get(waiting[0].user_id)
        self.users.touch(state)
        state.now_stale(min((row.time, row.id) for row in waiting))
        state.version += 1
        return nothing

    def _with_item_vectors(self, user_key: int) -> Mapping[int, list[sa.Row[Any]]]:
        """Vectors of a user's signals that wait, by number, each beside that of the item in the same space."""
        signals, held, of_item = schema.signals, schema.signal_vectors, schema.item_vectors
        query = (
            sa.select(held, of_item.c.vector.label("of_item"))
            .join(signals, signals.c.seq == held.c.seq)
            .outerjoin(of_item, (of_item.c.item_id == signals.c.item_id) & (of_item.c.space == held.c.space))
            .where(signals.c.user_key == user_key, signals.c.awaits_item)
        )
        found: dict[int, list[sa.Row[Any]]] = defaultdict(list)
        for row in self.connection.execute(query):
            found[row.seq].append(row)
        return found

    # -- the transaction's life ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Replay what is stale, then write profiles and the outbox."""
        newest = self.connection.execute(_NEWEST_SIGNAL).scalar()
        self._commit.last_signal = newest or 0
        self.users.flush()
        if self._outbox:
            entries = [{"kind": kind, "key": key} for kind, key in self._outbox]
            self.connection.execute(schema.outbox.insert(), entries)
            self._commit.outbox = True

    def committed(self) -> None:
        """Keep the profiles at hand and tell the others."""
        self.users.committed()
        self._on_commit(self._commit)

    def rolled_back(self) -> None:
        """Forget profiles that were changed in memory only."""
        self.users.rolled_back()
