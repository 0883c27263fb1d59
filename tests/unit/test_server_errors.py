import pickle
from typing import Any

import pytest
import structlog
from google.rpc import code_pb2, error_details_pb2, status_pb2

from penchant.errors import _CODES, Draining, Malformed, to_status
from penchant_pipelines.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    PenchantError,
    Unsupported,
    Violation,
    WrongState,
)


def detail(status: status_pb2.Status, kind: type) -> Any:
    found = kind()
    assert any(packed.Unpack(found) for packed in status.details)
    return found


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidInput.at("user_id", "must be set"), code_pb2.INVALID_ARGUMENT, "INVALID_INPUT"),
        (Malformed(), code_pb2.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
        (NotFound("item", "i1"), code_pb2.NOT_FOUND, "ITEM_NOT_FOUND"),
        (Conflict("SIGNAL_EXISTS", "taken"), code_pb2.ALREADY_EXISTS, "SIGNAL_EXISTS"),
        (WrongState("JOB_RUNNING", "wait"), code_pb2.FAILED_PRECONDITION, "JOB_RUNNING"),
        (Unsupported("NOT_BUILT", "no"), code_pb2.UNIMPLEMENTED, "NOT_BUILT"),
        (Overloaded(0.25), code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED"),
        (Draining(), code_pb2.UNAVAILABLE, "DRAINING"),
    ],
)
def test_domain_errors_keep_their_message_and_reason(error: PenchantError, code: int, reason: str) -> None:
    status = to_status(error)
    # Out of a worker process, too.
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)
    info = detail(status, error_details_pb2.ErrorInfo)
    assert (status.code, status.message) == (code, error.message)
    assert (info.domain, info.reason) == ("penchant", reason)


def test_every_domain_error_has_a_code_of_its_own() -> None:
    assert set(PenchantError.__subclasses__()) <= set(_CODES)


def test_invalid_input_lists_each_field() -> None:
    status = to_status(InvalidInput([Violation("a.b", "must be set"), Violation("c[3]", "must be short")]))
    violations = detail(status, error_details_pb2.BadRequest).field_violations
    assert [(v.field, v.description) for v in violations] == [
        ("a.b", "must be set"),
        ("c[3]", "must be short"),
    ]


def test_not_found_names_the_resource() -> None:
    status = to_status(NotFound("interest", "i7"))
    assert dict(detail(status, error_details_pb2.ErrorInfo).metadata) == {"kind": "interest", "id": "i7"}
    resource = detail(status, error_details_pb2.ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("interest", "i7")


def test_overloaded_says_when_to_return() -> None:
    delay = detail(to_status(Overloaded(1.25)), error_details_pb2.RetryInfo).retry_delay
    assert delay.ToTimedelta().total_seconds() == 1.25


@pytest.mark.parametrize("error", [ValueError("the user's secret"), PenchantError("X", "the user's secret")])
def test_unknown_errors_tell_nothing_but_the_request_id(error: Exception) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        status = to_status(error)
    assert (status.code, status.message) == (code_pb2.INTERNAL, "internal error")
    info = detail(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == ("INTERNAL", "penchant", {"request_id": "r-1"})
    assert b"secret" not in status.SerializeToString()


def test_a_status_fits_into_trailers_however_much_is_wrong() -> None:
    many = InvalidInput([Violation(f"signals[{n}]." + "字" * 900, "必" * 900) for n in range(5_000)])
    status = to_status(many)
    assert len(detail(status, error_details_pb2.BadRequest).field_violations) >= 1
    encoded = len(status.SerializeToString()) * 4 / 3 + len(status.message.encode()) * 3
    assert encoded < 8_000
