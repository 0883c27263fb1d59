"""Paging as in AIP-158: opaque tokens bound to the request that they continue, and pages that fit a message."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from penchant_pipelines.errors import InvalidInput

M = TypeVar("M", bound=Message)

PAGE_BYTES = 3 * 2**20
"""Most of a page of several entries: clients take messages of 4 MiB unless told otherwise."""
_MAC_BYTES = 16
_DEFAULT_SIZE = 20


class PageRequest(Protocol):
    """A request for a page of a listing."""

    page_size: int
    page_token: str


class PageTokens:
    """Signs cursors with `key`, so that a token is only good for the listing that it came from.

    A token holds the cursor in the clear after its signature: opaque, not secret. It outlives a restart
    where the key does.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode_token(self, method: str, parameters: str, cursor: str) -> str:
        """Return the base64url token that continues `method` at `cursor`.

        `parameters` is whatever must stay the same from page to page, as the user or the filter.
        """
        signed = json.dumps([method, parameters, cursor]).encode()
        mac = hmac.digest(self._key, signed, "sha256")[:_MAC_BYTES]
        return base64.urlsafe_b64encode(mac + cursor.encode()).decode().rstrip("=")

    def decode_token(self, token: str, method: str, parameters: str) -> str:
        """Return the cursor in `token`; an empty token is the first page and gives an empty cursor.

        Raises InvalidInput at `page_token` where the token was altered or belongs to another listing.
        """
        if not token:
            return ""
        try:
            padded = token + "=" * (-len(token) % 4)
            cursor = base64.b64decode(padded, altchars=b"-_", validate=True)[_MAC_BYTES:].decode()
            genuine = hmac.compare_digest(self.encode_token(method, parameters, cursor), token)
        except ValueError:
            genuine = False
        if not genuine:
            raise InvalidInput.at(
                "page_token",
                "must be the next_page_token of an earlier page of this same listing, with all other fields "
                "as they were; leave it empty to start from the first page",
            )
        return cursor

    def listing(self, request: PageRequest, maximum: int, parameters: str = "") -> Listing:
        """Read where a listing goes on, and with how many entries. Raises InvalidInput as `decode_token`."""
        method = type(request).__name__.removesuffix("Request")
        cursor = self.decode_token(request.page_token, method, parameters)
        return Listing(self, method, parameters, cursor, coerce_page_size(request.page_size, _DEFAULT_SIZE, maximum))


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing that goes on after `cursor`, which is empty at the first page, with at most `size` entries."""

    tokens: PageTokens
    method: str
    parameters: str
    cursor: str
    size: int

    def page(self, found: Sequence[tuple[str, M]]) -> tuple[list[M], str]:
        """Cut the page from what was found, one entry more than `size` where there are more, and sign the next token.

        Each entry comes with the cursor after which the listing goes on from it.
        """
        count = total = 0
        for _, entry in found[: self.size]:
            total += entry.ByteSize()
            if count and total > PAGE_BYTES:
                break
            count += 1
        entries = [entry for _, entry in found[:count]]
        if count == len(found):
            return entries, ""
        return entries, self.tokens.encode_token(self.method, self.parameters, found[count - 1][0])


def coerce_page_size(requested: int, default: int, maximum: int) -> int:
    """Return the page size to serve: `default` for 0, never more than `maximum`."""
    return min(requested or default, maximum)
