"""What a call can raise in a client, as one small tree; every leaf is something the caller can act on.

PenchantError
├── InvalidInputError   change the request; `violations` says which fields
├── NotFoundError       the user, item, interest, topic, job, adapter, mix or experiment does not exist
├── ConflictError       the id is taken by different content
├── WrongStateError     the request is fine, the server's state does not allow it (yet)
├── OverloadedError     nothing was taken; send it again after `retry_after` seconds
├── UnavailableError    nobody answers, the server is shutting down, or lacks what it needs, such as room on its disk
├── DeadlineError       no answer in time; the call may have taken effect
├── CancelledError      the call was given up on this side or the other
├── AccessError         the credentials are missing or do not reach this far
├── UnsupportedError    this server does not serve the call
└── ServerError         the server failed; its log knows more
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Violation(NamedTuple):
    """One field that must change: its path in the request (`signal.post.text`) and what is wrong with it."""

    field: str
    description: str


class PenchantError(Exception):
    """Base of all errors that a call raises.

    `code` is the gRPC status code, `reason` a stable UPPER_SNAKE_CASE word for machines (empty where the
    error did not come from a Penchant server), `message` a sentence for people.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, reason: str = "", code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code or self.default_code


class InvalidInputError(PenchantError):
    """The request can't be served as it stands; `violations` has an entry per field that must change."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT
    violations: tuple[Violation, ...] = ()

    @classmethod
    def at(cls, field: str, description: str) -> Self:
        """Build the error for a single field."""
        error = cls(f"{field}: {description}", reason="INVALID_INPUT")
        error.violations = (Violation(field, description),)
        return error


class NotFoundError(PenchantError):
    """The user, item, interest, topic, job, adapter, mix or experiment named does not exist."""

    default_code = grpc.StatusCode.NOT_FOUND


class ConflictError(PenchantError):
    """The id was used before, with different content."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class WrongStateError(PenchantError):
    """The state of the server or of the thing named does not allow this now."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class OverloadedError(PenchantError):
    """Nothing was taken. `retry_after` is in seconds; None where whoever refused doesn't say."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    retry_after: float | None = None


class UnavailableError(PenchantError):
    """No server answers at the address, or it is shutting down, or lacks what it needs. Nothing was taken."""

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineError(PenchantError):
    """No answer came in time. The call may have taken effect all the same."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class CancelledError(PenchantError):
    """The call was given up before it ended."""

    default_code = grpc.StatusCode.CANCELLED


class AccessError(PenchantError):
    """The credentials are missing, not known, or do not reach this far."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class UnsupportedError(PenchantError):
    """The server does not serve this call."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class ServerError(PenchantError):
    """The server failed at something that was not the caller's doing."""

    default_code = grpc.StatusCode.INTERNAL


_KINDS: dict[grpc.StatusCode, type[PenchantError]] = {
    **{kind.default_code: kind for kind in PenchantError.__subclasses__()},
    grpc.StatusCode.OUT_OF_RANGE: InvalidInputError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.DATA_LOSS: ServerError,
}


def from_status(status: status_pb2.Status) -> PenchantError:
    """Turn a `google.rpc.Status`, such as that of one element of a batch, into the error to raise."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    error = _KINDS.get(code, ServerError)(status.message or code.name, code=code)
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        if detail.Unpack(info):
            error.reason = info.reason
        elif detail.Unpack(bad_request) and isinstance(error, InvalidInputError):
            error.violations = tuple(Violation(v.field, v.description) for v in bad_request.field_violations)
        elif detail.Unpack(retry) and isinstance(error, OverloadedError):
            error.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return error


def from_rpc_error(error: grpc.RpcError) -> PenchantError:
    """Turn what gRPC raised, sync or asyncio, into the error to raise in its place."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # Details that contradict the call's own code come from someone in between: the code is what counts.
        status = None
    # gRPC's own words: it tells by the code of an overload what no wait ever helps.
    if status is None and "message larger than max" in (error.details() or ""):
        return InvalidInputError(
            f"a message is too large ({error.details()}); send less at once, or ask for less",
            reason="MESSAGE_TOO_LARGE",
            code=error.code(),
        )
    return from_status(status or status_pb2.Status(code=error.code().value[0], message=error.details() or ""))
