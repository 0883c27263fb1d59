"""Reading the record: profiles as of any moment, evidence, history; in one space. Everything here blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection

from penchant_pipelines.errors import NotFound
from penchant_pipelines.interests import Blender, Contribution, Evidence, ProfileView, explain, unpack, view
from penchant_pipelines.model import Action, Signal, Steering, now
from penchant_pipelines.record import Record, rows, schema

SNIPPET_LENGTH = 160
LONGEST_WORD = 30
"""Characters of a word that a snippet may leave out rather than cut."""
NEARNESS = 1e-3
"""Cosine that a reason counts for at least."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A user's profile as read from the record."""

    key: int
    user_id: str
    version: int
    signal_count: int
    view: ProfileView


@dataclass(frozen=True, slots=True)
class Reason:
    """A signal behind an interest or a recommendation; `share` of what is explained."""

    signal_id: str
    item_id: str
    snippet: str
    time: int
    share: float


@dataclass(frozen=True, slots=True)
class PastSteering:
    """A word of the user's as it was taken, about an interest or a topic."""

    time: int
    interest_id: str
    topic: str
    steering: Steering


@dataclass(frozen=True, slots=True)
class _Behind:
    """What is behind an interest: `vectors` (n, d), `least` (n,) cosines from which a part speaks for an item.

    Vectors are as seen from the middle of the space: what has no more in common with an item than any two texts have
    doesn't speak for it where anything has more.
    """

    parts: Sequence[Contribution]
    vectors: NDArray[np.float32]
    least: NDArray[np.float64]
    shares: NDArray[np.float64]

    def speak_for(self, vector: NDArray[np.float32], own: float, limit: int) -> list[Contribution]:
        """Parts that speak most for an item (d,), greatest share first; the shares of all would sum to `own`."""
        closeness = self.vectors @ vector
        speaks = closeness > self.least
        signals = self.least == 0
        if not speaks.any() and signals.any():
            # Ranking is by more than what they are about: the nearest is the best reason there is.
            speaks = signals & (closeness == closeness[signals].max())
        spoken = np.where(speaks, self.shares * np.maximum(closeness, NEARNESS), 0.0)
        told = own * spoken / (spoken.sum() or 1.0)
        order = np.argsort(-told, kind="stable")[: min(limit, int((spoken > 0).sum()))]
        return [replace(self.parts[place], share=float(told[place])) for place in order]


class Profiles:
    """Reads profiles of one embedding space. Safe from any thread."""

    def __init__(self, record: Record, space: int, blender: Blender) -> None:
        self._record = record
        self._space = space
        # Left join: a profile that isn't there is made from the signals.
        profiles = schema.profiles
        self._users = sa.select(schema.users, profiles.c.recipe, profiles.c.profile).outerjoin(
            profiles, (profiles.c.user_key == schema.users.c.key) & (profiles.c.space == space)
        )
        self._blender = blender

    def find(self, user_id: str, as_of: int | None = None, present: int | None = None) -> Stored | None:
        """Read a profile now, or as it stood at a time (µs); None for an unknown user.

        `present` is what to take for now: a caller that rounds it gets equal answers in between.
        """
        with self._record.read() as connection:
            row = connection.execute(self._users.where(schema.users.c.user_id == user_id)).first()
            if row is None:
                return None
            if as_of is None:
                return self._stored(connection, row, present)
            events = rows.user_events(connection, self._space, row.key, until=as_of)
        profile = self._blender.replay(events)
        signals = sum(isinstance(event, Evidence) for event in events)
        return Stored(row.key, user_id, len(events), signals, view(profile, as_of, self._blender))

    def get(self, user_id: str, as_of: int | None = None) -> Stored:
        """Read a profile; raises NotFound for an unknown user."""
        stored = self.find(user_id, as_of)
        if stored is None:
            raise NotFound("user", user_id)
        return stored

    def by_keys(self, keys: Sequence[int] | None) -> Iterator[Stored]:
        """Profiles of the users with these keys (None: of all), as they read now."""
        with self._record.read() as connection:
            query = self._users.order_by(schema.users.c.user_id)
            parts = [sa.true()] if keys is None else rows.among(schema.users.c.key, keys)
            for part in parts:
                for row in connection.execute(query.where(part)):
                    yield self._stored(connection, row)

    def of_packed(self, packed: bytes) -> ProfileView:
        """Read a profile that a commit reported."""
        profile = unpack(packed)
        return view(profile, max(now(), profile.updated), self._blender)

    def seen(self, user_key: int) -> set[str]:
        """Items that a user's signals touched, but for actions taken back."""
        signals = schema.signals
        query = sa.select(signals.c.item_id).where(
            signals.c.user_key == user_key, signals.c.item_id != "", rows.STANDING
        )
        with self._record.read() as connection:
            return set(connection.execute(query.distinct()).scalars())

    def seen_by(self, item_id: str) -> set[int]:
        """Keys of the users whose signals touched an item, but for actions taken back."""
        signals = schema.signals
        query = sa.select(signals.c.user_key).where(signals.c.item_id == item_id, rows.STANDING)
        with self._record.read() as connection:
            return set(connection.execute(query.distinct()).scalars())

    def written_share(self, user_key: int) -> float:
        """Share of a user's signals that are about no item, 0…1: what they write by themselves."""
        signals = schema.signals
        query = sa.select(sa.func.avg(signals.c.item_id == "")).where(signals.c.user_key == user_key)
        with self._record.read() as connection:
            return float(connection.execute(query).scalar() or 0.0)

    def explain(self, user_id: str, interest_id: str, limit: int) -> tuple[Stored, list[Reason]]:
        """Read the signals behind an interest, greatest share first (limit 0: all)."""
        stored = self.get(user_id)
        if not any(interest.id == interest_id for interest in stored.view.interests):
            raise NotFound("interest", interest_id)
        with self._record.read() as connection:
            events = rows.user_events(connection, self._space, stored.key)
            _, contributions = explain(events, self._blender, stored.view.as_of)
            found = contributions.get(interest_id, [])
            sign = next(i.sign for i in stored.view.interests if i.id == interest_id)
            return stored, self._reasons(connection, found[: limit or None], sign)

    def reasons_for(
        self,
        stored: Stored,
        vectors: Sequence[NDArray[np.float32]],
        interest_ids: Sequence[str],
        owned: Sequence[float],
        limit: int,
    ) -> list[list[Reason]]:
        """For each recommended item (vector, interest) the user's own signals that speak most for it.

        Their shares sum to what they have of all that spoke for the item, `owned`, where none is left out. What the
        user asked for is a reason only for items of that very interest.
        """
        if not any(interest_ids):
            return [[] for _ in vectors]
        calibration = self._blender.calibration
        centres = {interest.id: interest.vector for interest in stored.view.interests}
        with self._record.read() as connection:
            events = rows.user_events(connection, self._space, stored.key)
            _, contributions = explain(events, self._blender, stored.view.as_of)
            by_id = {
                event.id: event.vector for event in events if isinstance(event, Evidence) and event.vector is not None
            }
            behind = {
                interest_id: _Behind(
                    parts,
                    calibration.seen(
                        np.stack([by_id[part.signal_id] if part.signal_id else centres[interest_id] for part in parts])
                    ),
                    np.array([0.0 if part.signal_id else calibration.similarity for part in parts]),
                    np.array([part.share for part in parts]),
                )
                for interest_id, parts in contributions.items()
                if parts and interest_id in interest_ids
            }
            seen = calibration.seen(np.stack(vectors)) if vectors else ()
            best = [
                behind[interest_id].speak_for(vector, own, limit) if interest_id in behind else []
                for vector, interest_id, own in zip(seen, interest_ids, owned, strict=True)
            ]
            answers = iter(self._reasons(connection, [part for parts in best for part in parts], 1))
            return [list(itertools.islice(answers, len(parts))) for parts in best]

    def signals(self, user_id: str, after: tuple[int, str] | None, limit: int) -> list[Signal]:
        """A user's signals, newest first, older than a position (time, id)."""
        signals = schema.signals
        with self._record.read() as connection:
            key = self._key(connection, user_id)
            query = sa.select(signals).where(signals.c.user_key == key)
            if after is not None:
                query = query.where(sa.tuple_(signals.c.time, signals.c.id) < after)
            query = query.order_by(signals.c.time.desc(), signals.c.id.desc()).limit(limit)
            return [rows.to_signal(row, user_id) for row in connection.execute(query)]

    def steerings(self, user_id: str) -> list[PastSteering]:
        """All that a user said about interests and topics, oldest first. Raises NotFound."""
        table = schema.steerings
        with self._record.read() as connection:
            key = self._key(connection, user_id)
            query = sa.select(table).where(table.c.user_key == key).order_by(table.c.time, table.c.seq)
            return [
                PastSteering(row.time, row.interest_id, row.topic, Steering(row.muted, row.pinned, row.bias))
                for row in connection.execute(query)
            ]

    def merged_ids(self, user_id: str) -> list[str]:
        """Ids that were merged into a user's, in alphabetical order. Raises NotFound."""
        table = schema.merges
        with self._record.read() as connection:
            key = self._key(connection, user_id)
            query = sa.select(table.c.from_user_id).where(table.c.into_key == key).order_by(table.c.from_user_id)
            return list(connection.execute(query).scalars())

    def _key(self, connection: Connection, user_id: str) -> int:
        key = connection.execute(sa.select(schema.users.c.key).where(schema.users.c.user_id == user_id)).scalar()
        if key is None:
            raise NotFound("user", user_id)
        return int(key)

    def _stored(self, connection: Connection, row: sa.Row, present: int | None = None) -> Stored:  # type: ignore[type-arg]
        profile = rows.user_profile(connection, self._space, self._blender, row.key, row.recipe, row.profile)
        as_of = max(now() if present is None else present, profile.updated)
        return Stored(row.key, row.user_id, row.version, row.signal_count, view(profile, as_of, self._blender))

    def _reasons(self, connection: Connection, contributions: Sequence[Contribution], sign: int) -> list[Reason]:
        ids = [c.signal_id for c in contributions if c.signal_id]
        signals, items = schema.signals, schema.items
        texts: dict[str, str] = {}
        query = sa.select(signals.c.id, signals.c.text, signals.c.action, signals.c.item_id, items.c.title).outerjoin(
            items, items.c.id == signals.c.item_id
        )
        for some in rows.among(signals.c.id, ids):
            for row in connection.execute(query.where(some)):
                texts[row.id] = _snippet(row.text, row.action, row.title or row.item_id)
        return [
            Reason(
                c.signal_id,
                c.item_id,
                texts.get(c.signal_id, "") if c.signal_id else _asked(c.topics, sign),
                c.time,
                sign * c.share,
            )
            for c in contributions
        ]


def _asked(topics: Sequence[str], sign: int) -> str:
    asked = "asked for" if sign > 0 else "asked for less"
    return f"{asked}: {', '.join(topics)}" if topics else asked


def _snippet(text: str, action: int | None, title: str) -> str:
    if text:
        whole = " ".join(text.split())
    elif action is not None:
        whole = f"{Action(action).name.lower().replace('_', ' ')}: {title}"
    else:
        whole = title
    if len(whole) <= SNIPPET_LENGTH:
        return whole
    # Where words are written without spaces, any of them may be the last.
    space = whole.rfind(" ", SNIPPET_LENGTH - LONGEST_WORD, SNIPPET_LENGTH)
    return whole[: space if space > 0 else SNIPPET_LENGTH - 1] + "…"
