"""Paging as in AIP-158: opaque tokens bound to the request that they continue, and page sizes that fit."""

from __future__ import annotations

import base64
import hmac
import json

from penchant_pipelines.errors import InvalidInput

_MAC_BYTES = 16


class PageTokens:
    """Signs cursors with `key`, so that a token is only good for the listing that it came from.

    A token holds the cursor in the clear after its signature: opaque, not secret. It outlives a restart
    where the key does.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode_token(self, method: str, parameters: str, cursor: str) -> str:
        """Return the base64url token that continues `method` at `cursor`.

        `parameters` is whatever must stay the same from page to page: tenant, user, filter.
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


def coerce_page_size(requested: int, default: int, maximum: int) -> int:
    """Return the page size to serve: `default` for 0, never more than `maximum`."""
    return min(requested or default, maximum)
