"""How a client reaches its server: channel options and what gRPC itself sends again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from penchant.exceptions import InvalidInputError

DEFAULT_PORT = 50051
SERVER_VARIABLE = "PENCHANT_SERVER"
"""The variable by which the command line finds its server."""
MAX_RECEIVE_BYTES = 64 * 1024 * 1024

_LAST_PORT = 65_535
_RESOLVED = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):")
"""How a target begins that names gRPC's resolver."""
_LOOPBACK = ("127.", "localhost", "[::1]", "unix:")

# Sent twice, these would start a second job, or be refused for what the first attempt did.
_NEVER_RESENT = {
    "penchant.v1.InterestService": ("SteerInterest", "StreamCapture"),
    "penchant.v1.AdminService": (
        "UnloadAdapter",
        "ActivateAdapter",
        "StartExperiment",
        "StopExperiment",
        "LearnMix",
        "RebuildIndex",
        "CancelJob",
    ),
}

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
            {
                "name": [
                    {"service": service, "method": method}
                    for service, methods in _NEVER_RESENT.items()
                    for method in methods
                ]
            },
        ]
    }
)


def address(target: str) -> str:
    """Return `host:port`, by the server's default port where `target` names none: gRPC would take that of https.

    Raises InvalidInputError for what can't be an address.
    """
    wrong = InvalidInputError.at("target", "must be HOST:PORT of a server, such as 127.0.0.1:50051")
    if not isinstance(target, str) or not target.strip():
        raise wrong
    if _RESOLVED.match(target):
        return target
    host, colon, port = target.rpartition(":")
    if not colon or target.endswith("]"):
        host, port = target, str(DEFAULT_PORT)
    # gRPC would take it for a host that is away, and go on trying.
    bare = ":" in host and not host.startswith("[")
    if "/" in host or bare or not (port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        raise wrong
    return f"{host}:{port}"


def channel_options(target: str) -> Sequence[tuple[str, str | int]]:
    """Return the gRPC options for a channel to `target`, `host:port`."""
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ]
    if target.startswith(_LOOPBACK):
        # gRPC follows http_proxy even to this very machine, where no proxy ever leads.
        options.append(("grpc.enable_http_proxy", 0))
    return options
