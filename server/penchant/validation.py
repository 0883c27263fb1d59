"""Validation of requests: the rules written in the protos, and those that depend on limits or the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import protovalidate
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from penchant.v1.catalog_service_pb2 import DeleteItemsRequest, Item, UpsertItemsRequest
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    CaptureRequest,
    GetProfileRequest,
    MergeUsersRequest,
    SteerInterestRequest,
)
from penchant.v1.recommendation_service_pb2 import FindUsersRequest, RecommendRequest, RerankRequest
from penchant.v1.signal_pb2 import ACTION_UNDO, Signal
from penchant_pipelines.errors import InvalidInput, Violation

# Seconds since 1970, UTC.
_YEAR_1 = -62_135_596_800
_YEAR_1900 = -2_208_988_800
_END_OF_9998 = 253_370_764_799

_MAX_THOROUGH_BYTES = 65_536

# Keys in paths are the caller's own, of any length; a path has to stay readable.
_MAX_KEY_CHARS = 40

_PATTERNS = {
    "^[^\\x00-\\x1f\\x7f]+$": "must not contain control characters",
    "^[^\\x00-\\x1f\\x7f]*$": "must not contain control characters",
    "^[^\\x00]*$": "must not contain the character U+0000",
    "^([A-Za-z]{2,3}|x|i)?([-_][A-Za-z0-9]{1,8})*$": "must be a BCP-47 tag such as en or zh-Hans, or empty",
}

_BATCHES: dict[type[Message], str] = {
    BatchCaptureRequest: "signals",
    DeleteItemsRequest: "item_ids",
    RerankRequest: "candidates",
    UpsertItemsRequest: "items",
}

# Path within the message, and what to change.
_Finding = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes: UTF-8 bytes a text, elements a batch, seconds ahead of now."""

    max_text_bytes: int
    max_batch_size: int
    max_future_seconds: int = 86_400


class Validator:
    """Checks a message against the rules in its proto and against `limits`. Safe to share between tasks."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._rules = protovalidate.Validator()

    def check(self, message: Message, prefix: str = "") -> None:
        """Raise InvalidInput with a violation per field that must change; `prefix` stands before each path.

        Elements of BatchCaptureRequest.signals and UpsertItemsRequest.items succeed or fail alone: check
        each by itself, with a prefix such as `signals[3]`.
        """
        self._check_batch_size(message, prefix)
        # A large message may break rules millions of times; listing all of them would stall every other call.
        broken = self._rules.collect_violations(message, fail_fast=message.ByteSize() > _MAX_THOROUGH_BYTES)
        found: dict[str, list[str]] = {}
        for field, description in (*_from_rules(message, broken), *self._beyond_rules(message)):
            found.setdefault(_join(prefix, field), []).append(description)
        if found:
            raise InvalidInput([Violation(path, "; ".join(texts)) for path, texts in found.items()])

    def _check_batch_size(self, message: Message, prefix: str) -> None:
        field = _BATCHES.get(type(message))
        limit = self.limits.max_batch_size
        if field and (size := len(getattr(message, field))) > limit:
            raise InvalidInput.at(
                _join(prefix, field), f"must hold at most {limit} elements, holds {size}; send it in parts"
            )

    def _beyond_rules(self, message: Message) -> Iterator[_Finding]:
        match message:
            case CaptureRequest():
                if message.HasField("signal"):
                    yield from self._signal(message.signal, "signal.")
            case Signal():
                yield from self._signal(message)
            case Item():
                yield from self._text("title", message.title)
                yield from self._text("text", message.text)
                if message.HasField("create_time"):
                    yield from _time("create_time", message.create_time, _YEAR_1900, _END_OF_9998)
            case GetProfileRequest():
                if message.HasField("as_of"):
                    yield from _time("as_of", message.as_of, _YEAR_1, self._latest())
            case SteerInterestRequest():
                yield from self._text("topic", message.topic)
                if message.interest_id and message.topic:
                    yield ("topic", "must be empty where interest_id is set; name one of the two")
                elif not message.interest_id and not message.topic.strip():
                    yield ("interest_id", "must be set, or topic in its place")
            case MergeUsersRequest():
                if message.from_user_id == message.into_user_id:
                    yield ("into_user_id", "must differ from from_user_id")
            case RecommendRequest():
                yield from self._text("query", message.query)
            case RerankRequest():
                yield from self._rerank(message)
            case FindUsersRequest():
                yield from self._text("text", message.text)
                if message.HasField("text") and not message.text.strip():
                    yield ("text", "must not be blank")

    def _signal(self, signal: Signal, path: str = "") -> Iterator[_Finding]:
        if signal.HasField("time"):
            yield from _time(f"{path}time", signal.time, _YEAR_1900, self._latest())
        if signal.HasField("post"):
            post = signal.post
            yield from self._text(f"{path}post.text", post.text)
            if not post.item_id and not post.text.strip():
                yield (f"{path}post.text", "must not be blank unless item_id is set")
        if signal.behavior.action == ACTION_UNDO and not signal.behavior.item_id:
            yield (f"{path}behavior.item_id", "must name the item whose latest action is taken back")

    def _rerank(self, request: RerankRequest) -> Iterator[_Finding]:
        yield from self._text("query", request.query)
        for index, candidate in enumerate(request.candidates):
            yield from self._text(f"candidates[{index}].text", candidate.text)
            if not candidate.item_id and not candidate.text.strip():
                yield (f"candidates[{index}].item_id", "must be set, or text in its place")

    def _text(self, path: str, text: str) -> Iterator[_Finding]:
        limit = self.limits.max_text_bytes
        # A character takes at most 4 bytes: most texts need no encoding to be found short enough.
        if len(text) * 4 > limit and (size := len(text.encode())) > limit:
            yield (path, f"must be at most {limit} bytes of UTF-8, is {size}; shorten it")

    def _latest(self) -> float:
        return time.time() + self.limits.max_future_seconds


def _time(path: str, timestamp: Timestamp, earliest: int, latest: float) -> Iterator[_Finding]:
    """Check a time against bounds in seconds since 1970; both are allowed."""
    if not 0 <= timestamp.nanos < 1_000_000_000:
        yield (path, "must have nanos from 0 to 999,999,999")
    elif not earliest <= timestamp.seconds <= latest:
        first, last = (_format_time(bound) for bound in (earliest, latest))
        yield (path, f"must be from {first} to {last}; seconds count from 1970, UTC")


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix else path


def _from_rules(message: Message, broken: Sequence[protovalidate.Violation]) -> Iterator[_Finding]:
    for violation in broken:
        # An empty string breaks its pattern too, which says nothing new.
        if violation.proto.rule_id == "string.pattern" and not violation.field_value:
            continue
        path = ".".join(map(_path_element, _elements(violation)))
        subject = "its key " if violation.proto.for_key else ""
        yield path, subject + _description(message, violation)


def _elements(violation: protovalidate.Violation) -> Sequence[protovalidate.FieldPathElementPb]:
    return violation.proto.field.elements if violation.proto.field else ()


def _path_element(element: protovalidate.FieldPathElementPb) -> str:
    if element.subscript is None:
        return element.field_name
    at = element.subscript.value
    if isinstance(at, str):
        return f'{element.field_name}["{at[:_MAX_KEY_CHARS]}"]'
    return f"{element.field_name}[{at}]"


def _description(message: Message, violation: protovalidate.Violation) -> str:
    rule, value = violation.rule_value, violation.field_value
    match violation.proto.rule_id:
        case "required":
            choices = _choices(message, violation)
            return f"must be set: one of {', '.join(choices)}" if choices else "must be set"
        case "string.min_bytes":
            return "must not be empty"
        case "string.max_bytes":
            return f"must be at most {rule} bytes of UTF-8, is {len(str(value).encode())}; shorten it"
        case "string.pattern" if rule in _PATTERNS:
            return _PATTERNS[rule]
        case "enum.defined_only" | "enum.not_in":
            return "must be a value that the contract names, other than the unspecified one"
        case _:
            return violation.proto.message


def _choices(message: Message, violation: protovalidate.Violation) -> list[str]:
    """Name the fields of the oneof that was left unset; none where it is a field that was."""
    *parents, last = [element.field_name for element in _elements(violation)]
    owner: Any = message.DESCRIPTOR
    for name in parents:
        owner = owner.fields_by_name[name].message_type
    oneof = owner.oneofs_by_name.get(last)
    return [field.name for field in oneof.fields] if oneof else []
