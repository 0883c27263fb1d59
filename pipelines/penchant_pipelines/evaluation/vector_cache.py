"""An encoder that encodes each text once and keeps its vector on disk."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from penchant_pipelines.encoder import Encoder, Vectors, encode_all
from penchant_pipelines.errors import WrongState

_AT_ONCE = 500


class CachedEncoder:
    """Looks texts up by hash in `vectors.sqlite3`, a table an embedding space; see Encoder. Safe among threads.

    The file holds no text. Vectors are kept bit by bit, so that a run from the cache equals the one that filled it.
    Raises WrongState where the file is damaged or can't be used.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "vectors.sqlite3"
        self._encoder = encoder
        self.report: Callable[[int, str, int], None] | None = None
        """Hears how many of how many texts are encoded."""
        self._lock = threading.Lock()
        with self._reading():
            self._file = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self._table = "space_" + hashlib.sha256(encoder.space_id.encode()).hexdigest()[:16]
        columns = "(key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
        try:
            with self._lock, self._reading():
                self._file.execute("PRAGMA journal_mode = WAL")
                self._file.execute(f"CREATE TABLE IF NOT EXISTS {self._table} {columns} WITHOUT ROWID")
        except WrongState:
            self.close()
            raise
        self.space_id = encoder.space_id
        self.dimensions = encoder.dimensions
        self.base_model = encoder.base_model
        self.adapter_id = encoder.adapter_id
        self.device = encoder.device

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        found = self._look_up(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        left, done = iter(missing), 0
        with closing(encode_all(self._encoder, list(missing.values()))) as parts:
            for vectors in parts:
                lines = [(key, vector.tobytes()) for vector, key in zip(vectors, left, strict=False)]
                with self._lock, self._reading():
                    self._file.executemany(f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?)", lines)  # noqa: S608 - our own name
                found.update(lines)
                done += len(lines)
                if self.report is not None:
                    self.report(done, "encoding", len(missing))
        joined = b"".join(found[key] for key in keys)
        return np.frombuffer(joined, dtype=np.float32).reshape(len(texts), self.dimensions).copy()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise WrongState(
                "CACHE_UNREADABLE",
                f"{self._path} can't be used as a cache of vectors ({error}); delete it, or name another folder",
            ) from error

    def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._lock, self._reading():
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, vector FROM {self._table} WHERE key IN ({marks})"  # noqa: S608 - marks only
                found.update(self._file.execute(query, part).fetchall())
        return found
