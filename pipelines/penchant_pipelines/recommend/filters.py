r"""The filter language of the contract: a subset of AIP-160 over items.

    category = "movie" AND create_time > "2026-01-01T00:00:00Z" AND NOT attributes.region = "us"

Fields are `id`, `title`, `category` or `categories`, `create_time` and `attributes.<key>`, where the key
may be quoted.

- `category`: `=`, `<`, `:` … hold if they do for any of the item's categories, `!=` if none is equal.
- `create_time` takes RFC 3339 times, compared as instants; nothing holds for an item without one.
- `attributes.<key>` compares numbers where both sides are numbers, else text; only `!=` holds without it.
- `:` asks whether a text is contained, in whatever case, and `field:*` whether there is a value at all.

Operators are `=` `!=` `<` `<=` `>` `>=` `:`; terms combine with AND, OR, NOT, `-` (as NOT) and parentheses.
As AIP-160 has it, OR binds tighter than AND. Values are bare words, or quoted with `\` before a quote.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, UnexpectedToken

from penchant_pipelines.model import Item

MAX_CHARS = 4096
MAX_DEPTH = 64

_GRAMMAR = r"""
start: conjunction
conjunction: disjunction ("AND" disjunction)*
disjunction: _term ("OR" _term)*
_term: negation | _simple
negation: ("NOT" | "-") _simple
_simple: comparison | group
group: LPAR conjunction RPAR
comparison: FIELD OPERATOR (VALUE | STRING | STAR)

FIELD: /(?!(?:AND|OR|NOT)\b)[A-Za-z_]\w*(?:\."(?:[^"\\]|\\.)*"|(?:\.[\w-]+)*)/
OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">" | ":"
STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/
VALUE: /(?!(?:AND|OR|NOT)\b)[^\s()"'*<>=!:][^\s()"']*/
STAR: "*"
LPAR: "("
RPAR: ")"
%ignore /\s+/
"""
_NAMES = {
    "AND": "AND", "OR": "OR", "NOT": "NOT", "MINUS": "-", "LPAR": "(", "RPAR": ")", "FIELD": "a field",
    "OPERATOR": "an operator", "STRING": "a quoted text", "VALUE": "a value", "STAR": "*", "$END": "the end",
}  # fmt: skip

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Predicate = Callable[[Item], bool]
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class FilterError(ValueError):
    """The expression is no filter. The message says what is wrong, and at which column, counted from 1."""


class Filter:
    """A parsed filter expression; immutable, to be shared among threads."""

    def __init__(self, predicate: _Predicate | None) -> None:
        self._predicate = predicate

    @classmethod
    def parse(cls, expression: str) -> Filter:
        """Compile `expression`; an empty one matches every item. Raises FilterError."""
        if len(expression) > MAX_CHARS:
            raise FilterError(f"longer than {MAX_CHARS} characters ({len(expression)})")
        if not expression.strip():
            return cls(None)
        try:
            compiled: _Compiled = _PARSER.parse(expression)  # type: ignore[assignment]
        except UnexpectedInput as error:
            raise FilterError(_explain(error, expression)) from None
        return cls(compiled.predicate)

    @property
    def is_empty(self) -> bool:
        """Whether every item matches because nothing was asked for."""
        return self._predicate is None

    def matches(self, item: Item) -> bool:
        """Whether `item` passes the filter."""
        return self._predicate is None or self._predicate(item)


@dataclass(frozen=True, slots=True)
class _Compiled:
    predicate: _Predicate
    depth: int = 0


@v_args(inline=True)
class _Compiler(Transformer[Token, _Compiled]):
    """Turns each rule, as it is reduced, into a closure: no tree, no recursion."""

    def start(self, inner: _Compiled) -> _Compiled:
        return inner

    def conjunction(self, *parts: _Compiled) -> _Compiled:
        if len(parts) == 1:
            return parts[0]
        predicates = tuple(part.predicate for part in parts)

        def every(item: Item) -> bool:
            for predicate in predicates:  # noqa: SIM110 - all() over a generator takes twice the time
                if not predicate(item):
                    return False
            return True

        return _Compiled(every, max(part.depth for part in parts))

    def disjunction(self, *parts: _Compiled) -> _Compiled:
        if len(parts) == 1:
            return parts[0]
        predicates = tuple(part.predicate for part in parts)

        def some(item: Item) -> bool:
            for predicate in predicates:  # noqa: SIM110 - as above
                if predicate(item):
                    return True
            return False

        return _Compiled(some, max(part.depth for part in parts))

    def negation(self, inner: _Compiled) -> _Compiled:
        predicate = inner.predicate
        return _Compiled(lambda item: not predicate(item), inner.depth)

    def group(self, opening: Token, inner: _Compiled, _closing: Token) -> _Compiled:
        if inner.depth >= MAX_DEPTH:
            raise _error(f"nested deeper than {MAX_DEPTH} parentheses", opening)
        return _Compiled(inner.predicate, inner.depth + 1)

    def comparison(self, field: Token, sign: Token, value: Token) -> _Compiled:
        if value.type == "STAR":
            return _Compiled(_presence(field, sign))
        return _Compiled(_comparison(field, sign, value, _unquote(value)))


_PARSER = Lark(_GRAMMAR, parser="lalr", transformer=_Compiler())


def _comparison(field: Token, sign: Token, token: Token, value: str) -> _Predicate:
    match _path(field):
        case ["create_time"]:
            return _compare_time(sign, token, value)
        case ["attributes", key]:
            return _compare_attribute(key, sign, value)
        case ["category"]:
            if sign == "!=":
                return lambda item: value not in item.categories
            test = _text_test(sign, value)
            return lambda item: any(map(test, item.categories))
        case _:
            test, read = _text_test(sign, value), operator.attrgetter(field)
            return lambda item: test(read(item))


def _presence(field: Token, sign: Token) -> _Predicate:
    if sign != ":":
        raise _error("* goes with `:` only; quote it to compare with it", sign)
    match _path(field):
        case ["create_time"]:
            return lambda item: item.create_time is not None
        case ["attributes", key]:
            return lambda item: key in item.attributes
        case ["category"]:
            return lambda item: bool(item.categories)
        case _:
            read = operator.attrgetter(field)
            return lambda item: bool(read(item))


def _path(field: Token) -> list[str]:
    name, dot, key = field.partition(".")
    if name == "attributes" and dot:
        return [name, _unquote(key)]
    if not dot and name in {"id", "title", "create_time"}:
        return [name]
    if not dot and name in {"category", "categories"}:
        return ["category"]
    known = "id, title, category, create_time and attributes.<key>"
    raise _error(f"there is no field {str(field)[:64]!r}; fields are {known}", field)


def _text_test(sign: str, value: str) -> Callable[[str], bool]:
    if sign == ":":
        folded = value.casefold()
        return lambda text: folded in text.casefold()
    compare = _COMPARISONS[sign]
    return lambda text: compare(text, value)


def _compare_time(sign: Token, token: Token, value: str) -> _Predicate:
    if sign == ":":
        raise _error("create_time can be compared, or asked for with `:*`, but not searched with `:`", sign)
    instant = _micros(value)
    if instant is None:
        raise _error(f"{value[:64]!r} is not an RFC 3339 time such as 2026-01-01T00:00:00Z", token)
    compare = _COMPARISONS[sign]
    return lambda item: item.create_time is not None and compare(item.create_time, instant)


def _compare_attribute(key: str, sign: str, value: str) -> _Predicate:
    text_test = _text_test(sign, value)
    number = _number(value) if sign != ":" else None
    missing = sign == "!="
    if number is None:
        return lambda item: text_test(item.attributes[key]) if key in item.attributes else missing
    compare = _COMPARISONS[sign]

    def holds(item: Item) -> bool:
        text = item.attributes.get(key)
        if text is None:
            return missing
        other = _number(text)
        return text_test(text) if other is None else compare(other, number)

    return holds


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _micros(text: str) -> int | None:
    if not _TIME.fullmatch(text):
        return None
    try:
        return (datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):  # a 31st of June
        return None


def _unquote(text: str) -> str:
    return _ESCAPE.sub(r"\1", text[1:-1]) if text[:1] in {'"', "'"} else str(text)


def _error(message: str, token: Token) -> FilterError:
    return FilterError(f"column {(token.start_pos or 0) + 1}: {message}")


def _explain(error: UnexpectedInput, expression: str) -> str:
    position = error.pos_in_stream or 0
    found, expected = repr(expression[position]), getattr(error, "allowed", None)
    if isinstance(error, UnexpectedToken):
        expected = error.accepts or error.expected
        found = repr(str(error.token)[:64])
        if error.token.type == "$END":
            position, found = len(expression), "the end"
    wanted = ", ".join(sorted(_NAMES.get(name, name) for name in expected or ()))
    return f"column {position + 1}: found {found} where one of these should stand: {wanted}"
