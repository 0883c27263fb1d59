"""Errors as callers see them: every domain error becomes one `google.rpc.Status` with standard details."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from penchant_pipelines.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    PenchantError,
    Unavailable,
    Unsupported,
    Violation,
    WrongState,
)

DOMAIN = "penchant"

# A Status travels in the trailers, where clients take 8 KiB in all, some of it percent- or base64-encoded.
_MAX_MESSAGE_CHARS = 256
_MAX_FIELD_CHARS = 256
_MAX_VIOLATIONS_BYTES = 2048


class Malformed(PenchantError):
    """The bytes received are not the message that the call takes."""

    def __init__(self) -> None:
        super().__init__("MALFORMED_REQUEST", "the bytes received are not the message that the call takes")


class Draining(PenchantError):
    """The server is shutting down and takes no new calls. Nothing was taken."""

    def __init__(self) -> None:
        super().__init__("DRAINING", "the server is shutting down; try again")


_CODES: dict[type, int] = {
    InvalidInput: code_pb2.INVALID_ARGUMENT,
    Malformed: code_pb2.INVALID_ARGUMENT,
    NotFound: code_pb2.NOT_FOUND,
    Conflict: code_pb2.ALREADY_EXISTS,
    WrongState: code_pb2.FAILED_PRECONDITION,
    Unsupported: code_pb2.UNIMPLEMENTED,
    Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    Draining: code_pb2.UNAVAILABLE,
    Unavailable: code_pb2.UNAVAILABLE,
}


def to_status(error: BaseException) -> status_pb2.Status:
    """Map an error to what the caller is told; an error of no known kind tells nothing but the request id."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None or not isinstance(error, PenchantError):
        return _internal()
    status = status_pb2.Status(code=code, message=_shorten(error.message, _MAX_MESSAGE_CHARS))
    for detail in _details(error):
        status.details.add().Pack(detail)
    return status


def code_of(kind: str) -> int:
    """Return the code of a domain error by the name of its class; INTERNAL where there is none of that name."""
    return next((code for known, code in _CODES.items() if known.__name__ == kind), code_pb2.INTERNAL)


def _internal() -> status_pb2.Status:
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    status = status_pb2.Status(code=code_pb2.INTERNAL, message="internal error")
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id})
    )
    return status


def _details(error: PenchantError) -> Iterator[Message]:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    match error:
        case InvalidInput():
            yield info
            yield _bad_request(error.violations)
        case NotFound():
            info.metadata.update(kind=error.kind, id=error.key)
            yield info
            yield error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.key)
        case Overloaded():
            yield info
            delay = Duration()
            delay.FromNanoseconds(round(error.retry_after * 1e9))
            yield error_details_pb2.RetryInfo(retry_delay=delay)
        case _:
            yield info


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    """List as many violations as fit; the first always does."""
    request = error_details_pb2.BadRequest()
    for violation in violations:
        request.field_violations.add(
            field=_shorten(violation.field, _MAX_FIELD_CHARS),
            description=_shorten(violation.description, _MAX_MESSAGE_CHARS),
        )
        if request.ByteSize() > _MAX_VIOLATIONS_BYTES and len(request.field_violations) > 1:
            del request.field_violations[-1]
            break
    return request


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
