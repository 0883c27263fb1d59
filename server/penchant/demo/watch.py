"""Listening to the server's stream of drifting profiles while something else is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from penchant.client import Client
from penchant.exceptions import CancelledError, PenchantError

OPEN_SECONDS = 30.0


class DriftWatch:
    """Gathers the users of whom the stream tells drift, in the order of the telling."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._told: dict[str, None] = {}
        self._error: PenchantError | None = None
        self._changed = threading.Condition()
        self._open = False

    def wait_for(self, user_ids: set[str], seconds: float) -> list[str]:
        """Wait up to `seconds` until the stream has told of these users. Returns all that it told of."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or user_ids <= self._told.keys(), seconds)
            if self._error is not None:
                raise self._error
            return list(self._told)

    def wait_open(self) -> None:
        """Wait until no change can be missed any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._open, OPEN_SECONDS)

    def listen(self) -> None:
        """Listen until the client is closed."""
        try:
            for profile in self._client.watch(drift_only=True):
                with self._changed:
                    self._open = True
                    # The first message names no user: it says that the watch is on.
                    if profile.user_id:
                        self._told[profile.user_id] = None
                    self._changed.notify_all()
        except CancelledError:
            pass
        except PenchantError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()


@contextmanager
def drift_watch(address: str) -> Iterator[DriftWatch]:
    """Watch the server at `address` (`host:port`) from a thread for as long as the context lasts."""
    client = Client(address)
    watch = DriftWatch(client)
    thread = threading.Thread(target=watch.listen, name="drift-watch", daemon=True)
    thread.start()
    try:
        watch.wait_open()
        yield watch
    finally:
        client.close()
        thread.join()
