"""Watching profiles: commits are handed to whoever listens, each listener at its own pace."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from penchant_pipelines.record.commit import Change

SWITCHED = Change("", 0, 0, {})
"""Some users, or all, are served from another space from here on."""


class Watcher:
    """One listener's queue. A slow listener gets the newest state of each user instead of every step."""

    LIMIT = 1000
    """Changes that are queued one by one, with their profiles.

    Beyond, of each user the newest version is kept, and an end that came before it; its profile is read when told.
    """

    def __init__(self, user_ids: frozenset[str]) -> None:
        self._user_ids = user_ids
        self._changes: OrderedDict[tuple[str, int], Change] = OrderedDict()
        self._most = self.LIMIT
        self._told: dict[str, int] = {}
        self._arrived = asyncio.Event()

    def offer(self, change: Change) -> None:
        """Queue a change if it is wanted."""
        if self._user_ids and change != SWITCHED and change.user_id not in self._user_ids:
            return
        if not change.version:
            # What was queued of somebody who is no more is told to nobody any more.
            for key in [key for key in self._changes if key[0] == change.user_id]:
                del self._changes[key]
        if len(self._changes) >= self._most:
            # Fall back to the newest of each user: none of that is lost and memory stays bounded by the users.
            # Who came back is not told of without the end before: their versions begin anew.
            newest = {queued.user_id: queued for queued in self._changes.values()}
            self._changes = OrderedDict(
                (key, queued)
                for key, queued in self._changes.items()
                if not queued.version or queued is newest[queued.user_id]
            )
            # Twice the users until the next time: done at every change it would stall the event loop.
            self._most = max(self.LIMIT, 2 * len(self._changes))
        if len(self._changes) >= self.LIMIT:
            # Profiles of all users would fill the memory.
            change = replace(change, profiles={})
        self._changes[change.user_id, change.version] = change
        self._arrived.set()

    def told(self, user_id: str, version: int) -> None:
        """Say that the listener knows a profile as of this version: what led there is not told any more."""
        self._told[user_id] = version

    async def next(self) -> Change:
        """Wait for the next change that the listener doesn't know."""
        while True:
            while not self._changes:
                self._arrived.clear()
                await self._arrived.wait()
            change = self._changes.popitem(last=False)[1]
            known = self._told.get(change.user_id, 0)
            if change.version > known or not change.version:
                # Versions only grow from here on, but for those of who comes back after an erasure.
                self._told.pop(change.user_id, None)
                return change


class Watchers:
    """All listeners. Belongs to the event loop."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    @contextmanager
    def listen(self, user_ids: Iterable[str]) -> Iterator[Watcher]:
        """Listen to some users, or to all where none is named."""
        watcher = Watcher(frozenset(user_ids))
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def publish(self, changes: Iterable[Change]) -> None:
        """Hand committed changes to the listeners."""
        for change in changes:
            for watcher in self._watchers:
                watcher.offer(change)

    def switched(self) -> None:
        """Tell every listener that other spaces serve."""
        self.publish([SWITCHED])
