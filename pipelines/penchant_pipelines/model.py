"""The nouns of the domain: signals, items, steering. Times are integer microseconds since 1970, UTC."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

MICROS_PER_SECOND = 1_000_000
MICROS_PER_DAY = 86_400 * MICROS_PER_SECOND


def now() -> int:
    """The present in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


class Action(enum.IntEnum):
    """What a user did with an item; the numbers are those of the contract's `Action`."""

    VIEW = 1
    CLICK = 2
    DWELL = 3
    LIKE = 4
    SAVE = 5
    SHARE = 6
    FOLLOW = 7
    PURCHASE = 8
    SKIP = 20
    HIDE = 21
    DISLIKE = 22
    NOT_INTERESTED = 23
    REPORT = 24
    UNDO = 40


@dataclass(frozen=True, slots=True)
class Post:
    """Text in the user's own words.

    `rating` is the author's verdict, −1…+1, None where not given; `inferred_rating` what the text tells of it then,
    None where that is not sure.
    """

    text: str
    language: str = ""
    item_id: str = ""
    rating: float | None = None
    inferred_rating: float | None = None

    @property
    def verdict(self) -> float | None:
        """The author's own rating, else the one inferred."""
        return self.inferred_rating if self.rating is None else self.rating


@dataclass(frozen=True, slots=True)
class Behavior:
    """What a user did with an item. `value` as in the contract: seconds, rating −1…+1 or share 0…1."""

    item_id: str
    action: Action
    value: float | None = None
    attribution_token: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """Something a user wrote or did. `time` is event time (µs); None until the server fills it in."""

    id: str
    user_id: str
    evidence: Post | Behavior
    time: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)

    @property
    def item_id(self) -> str:
        """The catalogue item that the signal touches, or an empty string."""
        return self.evidence.item_id


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be recommended. `create_time` in µs, None where unknown."""

    id: str
    title: str = ""
    text: str = ""
    categories: tuple[str, ...] = ()
    create_time: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Steering:
    """The user's own word about an interest. `bias` −1 (less) … +1 (more), 0 = as inferred."""

    muted: bool = False
    pinned: bool = False
    bias: float = 0.0

    @property
    def for_more(self) -> bool:
        """Whether it asks for more of something."""
        return self.bias > 0 or (self.pinned and self.bias == 0)
