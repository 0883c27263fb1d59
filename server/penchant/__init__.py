"""Live, explainable interests from what people write and do.

This package holds the clients (`Client`, `AsyncClient`), the contract's messages (`penchant.v1`) and the
server. Importing it loads none of the server's weight.
"""

from penchant._bulk import CaptureResult, ItemError, ItemResult, UpsertResult
from penchant.async_client import AsyncClient
from penchant.client import Client
from penchant.exceptions import (
    AccessError,
    CancelledError,
    ConflictError,
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PenchantError,
    ServerError,
    UnavailableError,
    UnsupportedError,
    Violation,
    WrongStateError,
)
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.recommendation_service_pb2 import Candidate
from penchant.v1.signal_pb2 import Action, Behavior, Post, Signal

__all__ = [
    "AccessError",
    "Action",
    "AsyncClient",
    "Behavior",
    "CancelledError",
    "Candidate",
    "CaptureResult",
    "Client",
    "ConflictError",
    "DeadlineError",
    "InvalidInputError",
    "Item",
    "ItemError",
    "ItemResult",
    "NotFoundError",
    "OverloadedError",
    "PenchantError",
    "Post",
    "ServerError",
    "Signal",
    "UnavailableError",
    "UnsupportedError",
    "UpsertResult",
    "Violation",
    "WrongStateError",
]
