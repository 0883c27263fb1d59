"""Arguments of the clients' methods: what can't be sent is refused by the argument's name, before anything is."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf.message import Message

from penchant.exceptions import InvalidInputError
from penchant.v1.signal_pb2 import Signal

P = ParamSpec("P")
T = TypeVar("T")
Request = TypeVar("Request", bound=Message)


def checked(build: Callable[P, Request]) -> Callable[P, Request]:
    """Let a function that builds a request say which argument it can't take, by an InvalidInputError.

    Types are looked at only where the request could not be built: what can be sent is not worth a check.
    """

    @functools.wraps(build)
    def request(*args: P.args, **kwargs: P.kwargs) -> Request:
        try:
            return build(*args, **kwargs)
        except (TypeError, ValueError, OverflowError) as error:
            try:
                given = inspect.signature(build).bind(*args, **kwargs).arguments
            except TypeError:  # arguments that the method does not have: Python's own words say so
                raise error from None
            hints = get_type_hints(build)
            for name, value in given.items():
                if problem := _problem(value, hints[name]):
                    raise InvalidInputError.at(name, problem) from error
            raise

    return request


def collection(name: str, values: T) -> T:
    """Return a collection as it is. Raises InvalidInputError for a single thing, such as a string: its letters."""
    single = isinstance(values, str | bytes | Mapping | Message)
    if single or not (hasattr(values, "__iter__") or hasattr(values, "__aiter__")):
        raise InvalidInputError.at(name, f"must be a list, is {_kind(values)}; put a single one into a list")
    return values


def member(name: str, value: Any, kind: type[T]) -> T:
    """Return a member of a collection. Raises InvalidInputError if it is not of this kind."""
    if not isinstance(value, kind):
        raise InvalidInputError.at(name, f"must hold penchant.{kind.__name__} only, holds {_kind(value)}")
    return value


def strings(name: str, values: Iterable[str]) -> list[str]:
    """Return the strings of a collection. Raises InvalidInputError if anything else is among them."""
    return [string(f"{name}[{index}]", value) for index, value in enumerate(collection(name, values))]


def string(name: str, value: str) -> str:
    """Return a string. Raises InvalidInputError for what is none, or can't be sent as one."""
    if problem := _problem(value, str):
        raise InvalidInputError.at(name, problem)
    return value


def seconds(name: str, value: Any) -> float:
    """Return a time span. Raises InvalidInputError for what no call can end within: it must be finite and above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise InvalidInputError.at(name, f"must be a number of seconds above 0, such as 10.0, is {value!r}")
    return float(value)


def zoned(name: str, time: Any) -> datetime | None:
    """Return a time, or None. Raises InvalidInputError for one without a zone, or what is none."""
    if time is None or (isinstance(time, datetime) and time.tzinfo is not None):
        return time
    problem = "must have a time zone, such as datetime.now(UTC)"
    if not isinstance(time, datetime):
        problem = f"must be a datetime with a time zone, such as datetime.now(UTC), is {_kind(time)}"
        if isinstance(time, str):
            problem += "; datetime.fromisoformat reads one"
    raise InvalidInputError.at(name, problem)


def _problem(value: Any, hint: Any) -> str | None:
    """Say what is wrong with a value that its argument's declared type does not allow."""
    kinds = [kind for kind in (get_args(hint) if isinstance(hint, UnionType) else [hint]) if kind is not NoneType]
    known = [_KINDS[origin] for kind in kinds if (origin := get_origin(kind) or kind) in _KINDS]
    # None stands for a field left unset; other collections are checked where they are read.
    if value is None or not known or any(fits(value) for fits, _ in known):
        return None
    if isinstance(value, str) and str in kinds:
        return "holds half a character (a lone surrogate), which can't be sent; leave it out"
    return f"must be {' or '.join(name for _, name in known)}, is {_kind(value)}"


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


_KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    str: (_is_text, "a string"),
    int: (lambda value: isinstance(value, Integral) and -(2**31) <= int(value) < 2**31, "a whole number of 32 bits"),
    float: (lambda value: isinstance(value, Real), "a number"),
    bool: (lambda value: isinstance(value, Integral), "True or False"),
    Mapping: (
        lambda value: isinstance(value, Mapping) and all(map(_is_text, [*value.keys(), *value.values()])),
        "a dict of whole strings",
    ),
    Signal: (lambda value: isinstance(value, Signal), "a penchant.Signal"),
}


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
