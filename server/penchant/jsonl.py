"""JSON Lines of the contract's messages: a line is the proto3 JSON of a `Signal` or an `Item`.

Names may be camelCase or snake_case. Files may be gzipped (`.gz`) or Parquet (`.parquet`, with columns named
as the fields). A line that can't be read is reported with its number, and does not stop the others.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penchant.exceptions import InvalidInputError

M = TypeVar("M", bound=Message)
T = TypeVar("T")

STDIN = Path("-")
LONGEST_LINE = 1 << 26
"""Bytes of a line, its end included: JSON may take several for one of the message's."""

_TIME = "google.protobuf.Timestamp"
_LOADING = "Failed to load JSON: "
_SCALARS = {
    FieldDescriptor.CPPTYPE_STRING: "a string of valid Unicode",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a finite number",
    FieldDescriptor.CPPTYPE_FLOAT: "a finite number",
}


@dataclass(frozen=True, slots=True)
class Line(Generic[T]):
    """A line of a file, numbered from 1: its content, or why it can't be read."""

    number: int
    content: T | InvalidInputError


@dataclass(slots=True)
class Source:
    """An opened file of lines; `position` of `size` bytes are read, `size` being None where it is unknown."""

    file: BinaryIO
    raw: BinaryIO
    size: int | None
    parquet: bool

    @property
    def position(self) -> int:
        """Bytes read so far of the file as it lies on disk."""
        return self.raw.tell() if self.size is not None else 0


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a file for reading; `-` is standard input. Raises OSError."""
    if path == STDIN:
        yield Source(sys.stdin.buffer, sys.stdin.buffer, None, parquet=False)
        return
    with path.open("rb") as raw:
        size = path.stat().st_size if path.is_file() else None
        file = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        yield Source(file, raw, size, parquet=path.suffix == ".parquet")


def read_messages(source: Source, kind: type[M]) -> Iterator[Line[M]]:
    """Read messages one by one; blank lines are passed over. A file that breaks off ends in a bad line."""
    if source.parquet:
        return _lines(_parquet_rows(source.file), lambda row: _parse_row(row, kind))
    return _lines(_text_lines(source.file), lambda line: parse_message(line, kind))


def read_objects(source: Source) -> Iterator[Line[dict[str, Any]]]:
    """Read JSON objects one by one, whatever their fields; else as `read_messages`."""
    return _lines(_text_lines(source.file), _parse_object)


def parse_message(text: bytes | str, kind: type[M]) -> M:
    """Parse the proto3 JSON of one message. Raises InvalidInputError naming the field."""
    try:
        return json_format.Parse(text, kind())
    except UnicodeDecodeError:
        raise InvalidInputError.at("line", "is not UTF-8") from None
    except json_format.ParseError as error:
        raise _explain(str(error), text, kind) from None


def to_json(message: Message, *, defaults: bool = False, indent: int | None = None) -> str:
    """Write a message as proto3 JSON with snake_case names, on one line unless `indent` is given.

    `defaults` writes fields that are empty or 0, too.
    """
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=defaults,
        ensure_ascii=False,
        indent=indent,
    )


def _lines(raw: Iterator[tuple[int, Any]], parse: Callable[[Any], T]) -> Iterator[Line[T]]:
    for number, content in raw:
        if isinstance(content, InvalidInputError):
            yield Line(number, content)
            continue
        try:
            yield Line(number, parse(content))
        except InvalidInputError as error:
            yield Line(number, error)


def _text_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | InvalidInputError]]:
    number = 0
    try:
        # A line that is longer than any message may be must not fill the memory.
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                yield (
                    number,
                    InvalidInputError.at("file", f"has a line of more than {LONGEST_LINE >> 20} MiB; none is read on"),
                )
                return
            content = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if content:
                yield number, content
    except (OSError, EOFError, zlib.error) as error:
        yield number + 1, InvalidInputError.at("file", f"can't be read on: {error}")


def _parse_object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except UnicodeDecodeError:
        raise InvalidInputError.at("line", "is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError.at("line", f"is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidInputError.at("line", "is not a JSON object")
    return content


def _explain(message: str, text: bytes | str, kind: type[Message]) -> InvalidInputError:
    """Say in our words what `json_format` found wrong: which field, and what it should be."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        return InvalidInputError.at("line", f"is not JSON: {error}")
    if not isinstance(content, dict):
        return InvalidInputError.at("line", "is not a JSON object")
    violation = next(_violations(content, kind), None)
    return violation or InvalidInputError.at("line", message.replace(_LOADING, "").rstrip("."))


def _violations(content: dict[str, Any], kind: type[Message], path: str = "") -> Iterator[InvalidInputError]:
    descriptor: Any = kind.DESCRIPTOR
    fields: dict[str, Any] = {**{f.json_name: f for f in descriptor.fields}, **descriptor.fields_by_name}
    for name, value in content.items():
        field = fields.get(name)
        place = path + (field.name if field else name)
        if field is None:
            yield InvalidInputError.at(place, "is not a field of the contract")
        elif field.message_type and isinstance(value, dict) and not _is_leaf(field):
            yield from _violations(value, GetMessageClass(field.message_type), f"{place}.")
        else:
            try:
                json_format.ParseDict({name: value}, kind())
            except json_format.ParseError:
                yield InvalidInputError.at(place, f"must be {_expected(field)}")
    for oneof in descriptor.oneofs:
        given = [field.name for field in oneof.fields if {field.name, field.json_name} & content.keys()]
        if len(given) > 1:
            yield InvalidInputError.at(path + oneof.name, f"give only one of {' and '.join(given)}")


def _is_leaf(field: Any) -> bool:
    return bool(field.is_repeated or field.message_type.full_name == _TIME)


def _expected(field: Any) -> str:
    """Describe the JSON that a field takes, for people."""
    if field.message_type and field.message_type.GetOptions().map_entry:
        return "an object of strings"
    if field.message_type and field.message_type.full_name == _TIME:
        single = "a time such as 2026-01-31T12:00:00Z"
    elif field.message_type:
        single = "an object"
    elif field.enum_type:
        single = f"one of {', '.join(value.name for value in field.enum_type.values[1:])}"
    else:
        single = _SCALARS.get(field.cpp_type, "a whole number")
    return f"a list, each {single}" if field.is_repeated else single


def _parquet_rows(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | InvalidInputError]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InvalidInputError.at("file", "Parquet needs pyarrow: pip install -e '.[parquet]'") from None
    try:
        table = parquet.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError.at("file", f"is not Parquet: {error}") from None
    number = 0
    try:
        for batch in table.iter_batches(batch_size=1024):
            for row in _in_microseconds(batch, pa).to_pylist(maps_as_pydicts="strict"):
                number += 1
                yield number, row
    # What is damaged may unpack into text that is none, or into a map that holds a key twice.
    except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as error:
        yield number + 1, InvalidInputError.at("file", f"can't be read on: {error}")


def _in_microseconds(batch: Any, pa: Any) -> Any:
    """Return the batch with times cut to microseconds, the finest that Python holds."""
    schema = pa.schema(
        pa.field(column.name, pa.timestamp("us", tz=column.type.tz)) if pa.types.is_timestamp(column.type) else column
        for column in batch.schema
    )
    return batch.cast(schema, safe=False)


def _parse_row(row: dict[str, Any], kind: type[M]) -> M:
    try:
        return parse_message(json.dumps(_as_json(row)), kind)
    except TypeError as error:
        raise InvalidInputError.at("row", str(error)) from None


def _as_json(value: Any) -> Any:
    """Turn a Parquet value into what proto3 JSON takes: no nulls, times as text; naive ones are UTC."""
    match value:
        case dict():
            return {key: _as_json(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_as_json(inner) for inner in value]
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case _:
            return value
