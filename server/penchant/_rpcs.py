"""Every call of the contract, found by name or by the request that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penchant.exceptions import InvalidInputError
from penchant.v1 import (
    admin_service_pb2,
    catalog_service_pb2,
    interest_service_pb2,
    recommendation_service_pb2,
)


@dataclass(frozen=True, slots=True)
class Rpc:
    """One call of the contract. `path` is `/penchant.v1.InterestService/GetProfile`."""

    path: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool

    def open(self, channel: Any) -> Any:
        """Return the callable that makes this call on a `grpc.Channel` or a `grpc.aio.Channel`."""
        kind = "_".join("stream" if s else "unary" for s in (self.client_streaming, self.server_streaming))
        return getattr(channel, kind)(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )


def _rpcs() -> list[Rpc]:
    return [
        Rpc(
            path=f"/{service.full_name}/{method.name}",
            request=GetMessageClass(method.input_type),
            response=GetMessageClass(method.output_type),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )
        for file in (interest_service_pb2, recommendation_service_pb2, catalog_service_pb2, admin_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


_ALL = _rpcs()

# Each request message belongs to one call, so the request says where it goes.
BY_REQUEST: Mapping[type[Message], Rpc] = {rpc.request: rpc for rpc in _ALL}
BY_NAME: Mapping[str, Rpc] = {rpc.path.rpartition("/")[2]: rpc for rpc in _ALL}


def unary_rpc_of(request: Any) -> Rpc:
    """Return the call with one response that takes this request. Raises InvalidInputError."""
    rpc = _rpc_of(request)
    if rpc.server_streaming:
        raise InvalidInputError.at("request", f"must be of a call with one response; `stream` makes {rpc.path}")
    return rpc


def streaming_rpc_of(requests: Sequence[Any]) -> Rpc:
    """Return the call that takes these requests and streams its responses. Raises InvalidInputError."""
    if not requests:
        raise InvalidInputError.at("requests", "must hold one request message at least")
    rpc = _rpc_of(requests[0])
    if not rpc.server_streaming:
        raise InvalidInputError.at("request", f"must be of a call that streams; `call` makes {rpc.path}")
    if len(requests) > 1 and not rpc.client_streaming:
        raise InvalidInputError.at("requests", f"must hold one request message only: {rpc.path} takes no stream")
    if any(type(request) is not rpc.request for request in requests):
        raise InvalidInputError.at("requests", f"must all be {rpc.request.__name__}, as the first is")
    return rpc


def _rpc_of(request: Any) -> Rpc:
    rpc = BY_REQUEST.get(type(request))
    if rpc is None:
        wanted = "the request message of a call, such as penchant.v1's GetProfileRequest"
        raise InvalidInputError.at("request", f"must be {wanted}, is {type(request).__name__}")
    return rpc
