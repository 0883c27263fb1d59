"""Users and their profiles while a transaction works on them.

Profiles that it touches are kept at hand and written once, at the flush; those that a late signal, an undo or a
merge made stale are replayed there, once however many signals came late. Snapshots of a replay stay at hand: who sends
one signal late sends more, few of them much later, and then only what came after a snapshot is replayed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa
from cachetools import LRUCache
from sqlalchemy import Connection

from penchant_pipelines.errors import NotFound
from penchant_pipelines.interests import (
    Blender,
    Interest,
    Profile,
    ProfileView,
    SteeringEvent,
    Trace,
    pack,
    standing,
    undone_ids,
    unpack,
    view,
)
from penchant_pipelines.interests.terms import is_same
from penchant_pipelines.model import Steering, now
from penchant_pipelines.record import rows, schema
from penchant_pipelines.record.commit import Change, Commit
from penchant_pipelines.record.rows import EARLIEST, Place

ITEM, USER = "item", "user"
Outbox = dict[tuple[str, str], None]
"""Items and users, by kind and key, that the index must hear of, in order."""

SNAPSHOT_LAGS = (512, 16)
"""Events before the newest at which snapshots are taken: a signal that is late by fewer is blended from there."""

# Put together once, as in `rows`.
_BY_ID = sa.select(schema.users).where(schema.users.c.user_id == sa.bindparam("user_id"))
_WRITE_USER = schema.users.update().where(schema.users.c.key == sa.bindparam("user_key"))
_PROFILE = sa.select(schema.profiles).where(
    schema.profiles.c.user_key == sa.bindparam("user_key"), schema.profiles.c.space == sa.bindparam("space")
)
_PUT_PROFILE = rows.put(schema.profiles)


class KeptSpace(Protocol):
    """An embedding space that every write goes into."""

    @property
    def key(self) -> int:
        """Its number in the record."""

    @property
    def space_id(self) -> str:
        """Name of the embedding space."""

    @property
    def blender(self) -> Blender:
        """Makes its profiles."""

    @property
    def keeps_profiles(self) -> bool:
        """False while it is being built: as long as vectors are missing there can be no profiles."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A profile as it stood when all events up to a time (µs, inclusive) were blended."""

    until: int
    packed: bytes


NOTHING = Snapshot(EARLIEST[0], pack(Profile()))


@dataclass(eq=False, slots=True)
class UserState:
    """A user's row while a transaction works on it."""

    key: int
    user_id: str
    version: int
    signal_count: int
    latest: Place
    profiles: dict[int, Profile]
    """By space, for those whose profiles are kept."""
    snapshots: dict[int, dict[int, Snapshot]] = field(default_factory=dict)
    """By space, then by lag; those from `stale_from` on hold no more."""
    stale_from: Place | None = None
    """The earliest event that is not in the profiles as it should be, if there is one."""
    undoing: set[str] = field(default_factory=set)
    """Items on which something else may be taken back than was."""

    def now_stale(self, place: Place) -> None:
        """Say that the profiles lack an event, or hold one that was taken back."""
        self.stale_from = place if self.stale_from is None else min(self.stale_from, place)


ProfileCache = LRUCache[str, UserState]


class Users:
    """Reads and writes users through the connection of one transaction."""

    def __init__(
        self,
        connection: Connection,
        spaces: Sequence[KeptSpace],
        serving: Callable[[str], KeptSpace],
        cache: ProfileCache,
        commit: Commit,
        outbox: Outbox,
    ) -> None:
        self._connection = connection
        self._spaces = spaces
        self._serving = serving
        self._cache = cache
        self._commit = commit
        self._outbox = outbox
        self._dirty: dict[str, UserState] = {}
        # By the user's key: who comes back after an erasure in the same group is somebody else.
        self._replayed: set[int] = set()
        self._before: dict[int, dict[str, tuple[int, int]]] = {}
        self._views: dict[int, ProfileView] = {}

    def with_profiles(self) -> Iterator[KeptSpace]:
        """The spaces that keep profiles now."""
        return (space for space in self._spaces if space.keeps_profiles)

    def find(self, user_id: str) -> UserState | None:
        """A user with the profiles that are kept; None for an unknown one."""
        state = self._dirty.get(user_id) or self._cache.get(user_id)
        if state is None:
            row = self._connection.execute(_BY_ID, {"user_id": user_id}).first()
            if row is None:
                return None
            latest = (row.latest_time, row.latest_id)
            state = UserState(row.key, user_id, row.version, row.signal_count, latest, {})
            self._cache[user_id] = state
        for space in self.with_profiles():
            if space.key not in state.profiles:
                self._load(state, space)
        return state

    def get(self, user_id: str, create: bool = False) -> UserState:
        """The same, made where there is none if `create`, else NotFound."""
        state = self.find(user_id)
        if state is None:
            if not create:
                raise NotFound("user", user_id)
            profiles = {space.key: Profile() for space in self.with_profiles()}
            state = UserState(secrets.randbits(62), user_id, 0, 0, EARLIEST, profiles)
            self._connection.execute(
                schema.users.insert().values(
                    key=state.key,
                    user_id=user_id,
                    version=0,
                    signal_count=0,
                    latest_time=state.latest[0],
                    latest_id=state.latest[1],
                )
            )
            self._dirty[user_id] = state
        return state

    def touch(self, state: UserState) -> None:
        """Say that a user is about to be changed: it is written at the flush."""
        if state.key not in self._before:
            self._before[state.key] = _summary(self.served(state))
        self._dirty[state.user_id] = state
        self._outbox[USER, str(state.key)] = None

    def served(self, state: UserState) -> Profile:
        """The profile in the space that serves the user."""
        return state.profiles[self._serving(state.user_id).key]

    def view(self, state: UserState) -> ProfileView:
        """That profile as it reads now; made in the writer's thread, which alone may change it."""
        if state.key not in self._views:
            profile, blender = self.served(state), self._serving(state.user_id).blender
            self._views[state.key] = view(profile, max(now(), profile.updated), blender)
        return self._views[state.key]

    def changed(self, state: UserState, taken_by: str | None) -> frozenset[str]:
        """Interests that a signal opened, strengthened or weakened; after a replay, all it left different."""
        if taken_by is not None and state.key not in self._replayed:
            return frozenset([taken_by])
        before = self._before.get(state.key, {})
        return frozenset(key for key, value in _summary(self.served(state)).items() if before.get(key) != value)

    def items_of(self, user_key: int) -> set[str]:
        """The items that a user's signals name."""
        signals = schema.signals
        query = sa.select(signals.c.item_id).where(signals.c.user_key == user_key, signals.c.item_id != "")
        return set(self._connection.execute(query.distinct()).scalars())

    def drop(self, state: UserState) -> None:
        """Take a user out of the record; what hangs on the user goes with it."""
        self._dirty.pop(state.user_id, None)
        self._cache.pop(state.user_id, None)
        self._outbox[USER, str(state.key)] = None
        self._commit.changes.append(Change(state.user_id, 0, 0, {}))
        self._connection.execute(schema.users.delete().where(schema.users.c.key == state.key))

    def flush(self) -> None:
        """Replay what is stale, then write all that was touched."""
        for state in self._dirty.values():
            self.freshen(state)
        if self._dirty:
            self._write_back(list(self._dirty.values()))

    def freshen(self, state: UserState) -> None:
        """Replay a user's profiles if they are stale; else this waits for the flush."""
        if state.stale_from is None:
            return
        self._mark_undone(state)
        for space in self.with_profiles():
            self._replay(state, space)
        state.stale_from = None

    def unsay(self, state: UserState, hit: Interest, topic: str, time: int) -> bool:
        """Note at a time (µs) that the user takes back all words about an interest; False where none is known to be.

        Profiles are made anew as if these had not been said: what they brought about later goes with them.
        """
        serving, topics, trace = self._serving(state.user_id), [*hit.topics, topic], Trace()
        events = rows.user_events(self._connection, serving.key, state.key)
        serving.blender.replay(events, trace)
        # By where they are today: an interest is called otherwise since earlier signals came, or in another space.
        put = {word for word, interest_id in trace.said if trace.last_of(interest_id) == hit.id}
        meant = [
            event
            for event in events
            if isinstance(event, SteeringEvent)
            and event.steering != Steering()
            and (event.id in put or any(is_same(event.topic.strip(), known.strip()) for known in topics if known))
        ]
        if not meant:
            return False
        table = schema.steerings
        numbers = [rows.steering_number(event.id) for event in meant]
        self._connection.execute(table.update().where(table.c.seq.in_(numbers)).values(taken_back=time))
        state.now_stale(rows.place(meant[0]))
        # For who still holds it: in the profile it is made anew.
        hit.steering, hit.steered_time, hit.steered_mass, hit.topics = None, 0, 0.0, {}
        return True

    def put_profile(self, space: KeptSpace, user_key: int, packed: bytes) -> None:
        """Write a profile that this space's recipe made."""
        self._connection.execute(_PUT_PROFILE, _profile_row(space, user_key, packed))

    def committed(self) -> None:
        """Keep the profiles at hand."""
        for state in self._dirty.values():
            self._cache[state.user_id] = state

    def rolled_back(self) -> None:
        """Forget profiles that were changed in memory only."""
        for user_id in self._dirty:
            self._cache.pop(user_id, None)

    def _load(self, state: UserState, space: KeptSpace) -> None:
        """Read a profile as it is stored, or make it where another recipe made it or none yet."""
        row = self._connection.execute(_PROFILE, {"user_key": state.key, "space": space.key}).first()
        if row is not None and row.recipe == space.blender.recipe.digest:
            state.profiles[space.key] = unpack(row.profile)
        else:
            self._replay(state, space)

    def _replay(self, state: UserState, space: KeptSpace) -> None:
        """Make a profile anew: from the last snapshot that holds, if there is one, else from the start."""
        stale_from, _ = EARLIEST if state.stale_from is None else state.stale_from
        found = state.snapshots.get(space.key, {}).items()
        snapshots = {lag: snapshot for lag, snapshot in found if snapshot.until < stale_from}
        base = max(snapshots.values(), key=lambda snapshot: snapshot.until, default=NOTHING)
        # What an UNDO among these takes back of what came before them is not in the snapshot.
        events = standing(rows.user_events(self._connection, space.key, state.key, after=base.until))
        profile, done = unpack(base.packed), 0
        for lag in SNAPSHOT_LAGS:
            cut = len(events) - lag
            # An UNDO is the last of its time, whatever its id: what it undoes must not be on the other side.
            while cut > done and events[cut - 1].time == events[cut].time:
                cut -= 1
            if cut > done:
                profile = space.blender.resume(profile, events[done:cut])
                snapshots[lag] = Snapshot(events[cut - 1].time, pack(profile))
                done = cut
        state.profiles[space.key] = space.blender.resume(profile, events[done:])
        state.snapshots[space.key] = snapshots
        self._replayed.add(state.key)

    def _mark_undone(self, state: UserState) -> None:
        """Keep the `undone` marks of a user's actions true, for popularity, what counts as seen, and replays."""
        signals = schema.signals
        query = (
            sa.select(*rows.EVIDENCE_COLUMNS, signals.c.undone)
            .where(signals.c.user_key == state.key, signals.c.action.is_not(None))
            .order_by(signals.c.time, signals.c.id)
        )
        for some in rows.among(signals.c.item_id, sorted(state.undoing)):
            found = self._connection.execute(query.where(some)).all()
            undone = undone_ids([rows.to_evidence(row) for row in found])
            for row in found:
                if row.undone != (row.id in undone):
                    value = {"undone": row.id in undone}
                    self._connection.execute(signals.update().where(signals.c.id == row.id).values(value))
                    self._commit.recount.add(row.item_id)
                    state.now_stale((row.time, row.id))
        state.undoing.clear()

    def _write_back(self, states: Sequence[UserState]) -> None:
        written = [
            {
                "user_key": state.key,
                "version": state.version,
                "signal_count": state.signal_count,
                "latest_time": state.latest[0],
                "latest_id": state.latest[1],
            }
            for state in states
        ]
        self._connection.execute(_WRITE_USER, written)
        profiles: list[dict[str, Any]] = []
        for state in states:
            packed: dict[int, bytes] = {}
            for space in self.with_profiles():
                # A space may begin to keep profiles within this very transaction; its builder makes what is missing.
                if space.key in state.profiles:
                    packed[space.key] = pack(state.profiles[space.key])
                    profiles.append(_profile_row(space, state.key, packed[space.key]))
            self._commit.changes.append(Change(state.user_id, state.version, state.signal_count, packed))
        if profiles:
            self._connection.execute(_PUT_PROFILE, profiles)


def _profile_row(space: KeptSpace, user_key: int, packed: bytes) -> dict[str, Any]:
    return {"user_key": user_key, "space": space.key, "recipe": space.blender.recipe.digest, "profile": packed}


def _summary(profile: Profile) -> dict[str, tuple[int, int]]:
    return {interest.id: (interest.signal_count, interest.first) for interest in profile.interests}
