"""What can go wrong in the domain, as one small tree; each transport maps it once.

PenchantError
├── InvalidInput      the caller must change the request; lists a violation per field
├── NotFound          the thing named does not exist
├── Conflict          the id is taken by different content
├── WrongState        the request is fine, the server's state does not allow it (yet)
├── Unsupported       this model or this installation cannot do it
├── Overloaded        come back after `retry_after` seconds
└── Unavailable       something that the server needs is out of order; nothing was taken
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that must change: its path in the request (`signal.post.text`) and what is wrong."""

    field: str
    description: str


class PenchantError(Exception):
    """Base of all errors that a caller may see. `reason` is stable, UPPER_SNAKE_CASE, for machines."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[Callable[..., PenchantError], tuple[Any, ...]]:
        """Copy what it holds: another process would call the class with the message alone."""
        return _copied, (type(self), self.args, self.__dict__)


class InvalidInput(PenchantError):
    """The request can't be served as it stands."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("INVALID_INPUT", "; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)

    @classmethod
    def at(cls, field: str, description: str) -> InvalidInput:
        """Build the error for a single field."""
        return cls([Violation(field, description)])


class NotFound(PenchantError):
    """No `kind` (user, item, interest, topic, job, adapter, mix, experiment) has this id; empty: there is none."""

    def __init__(self, kind: str, key: str) -> None:
        message = f"{kind} {key!r} does not exist" if key else f"there is no {kind} yet"
        super().__init__(f"{kind.upper()}_NOT_FOUND", message)
        self.kind = kind
        self.key = key


class Conflict(PenchantError):
    """The id was used before, with different content."""


class WrongState(PenchantError):
    """The state of the server or of the thing named does not allow this now."""


class Unsupported(PenchantError):
    """What is asked for is beyond this model or what is installed; raised by fine-tuning alone."""


class Overloaded(PenchantError):
    """Queues are full. Nothing was taken; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("OVERLOADED", f"the server is busy; try again in {retry_after:g} s")
        self.retry_after = retry_after


class Unavailable(PenchantError):
    """Something that the server needs, such as room on its disk, is not to be had. Nothing was taken."""


def _copied(kind: type[PenchantError], args: tuple[Any, ...], held: dict[str, Any]) -> PenchantError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(held)
    return error
