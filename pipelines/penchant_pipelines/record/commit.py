"""What comes of a transaction: answers to those who asked for it, and what others must hear of."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penchant_pipelines.interests import Evidence, InterestView, ProfileView
from penchant_pipelines.model import Item
from penchant_pipelines.record.rows import Vector


@dataclass(frozen=True, slots=True)
class Captured:
    """What became of a signal."""

    signal_id: str
    duplicate: bool
    user_id: str
    version: int
    view: ProfileView
    """The profile right after the commit, in the space that serves the user."""
    space_id: str
    changed_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Steered:
    """An interest as the user's word left it, with the profile and the space that it is of."""

    interest: InterestView
    view: ProfileView
    """With the interest as its last, where the word took it away."""
    space_id: str


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
    """0 where the user is no more: erased, or merged into another."""
    signal_count: int
    profiles: Mapping[int, bytes]
    """Packed, by space."""
    told: dict[int, Task[Any]] = field(default_factory=dict, compare=False, repr=False)
    """What watchers are told, by space: made once for all of them, and gone with the change."""


Touched = tuple[str, int, Evidence, Mapping[int, Vector]]
"""Item id, user key, evidence, and vectors by space, of a new signal that names an item."""


@dataclass(slots=True)
class Commit:
    """All that others want to know of a committed transaction."""

    changes: list[Change] = field(default_factory=list)
    upserted: list[tuple[Item, str, Mapping[int, Vector], tuple[str, ...]]] = field(default_factory=list)
    """Item, language, vectors by space, words."""
    embedded: list[tuple[int, str, Vector]] = field(default_factory=list)
    """Space, item id and vector of items that were brought into a space."""
    deleted_items: dict[str, None] = field(default_factory=dict)
    """Those that did not come again after that."""
    touched: list[Touched] = field(default_factory=list)
    recount: set[str] = field(default_factory=set)
    """Items whose favours must be counted again: signals on them were undone, erased or became another user's."""
    erased: set[str] = field(default_factory=set)
    """Those among them that an erased user's signals named."""
    last_signal: int = 0
    """Number of the newest signal in the record as of this commit: what such a count goes up to."""
    outbox: bool = False
