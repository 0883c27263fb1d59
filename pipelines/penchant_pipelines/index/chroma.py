"""The vector index on Chroma, embedded or as a server: ids and vectors only, no documents, no metadata."""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from uuid import UUID

import chromadb
import httpx
import numpy as np
from chromadb.api.client import AdminClient, Client
from chromadb.api.fastapi import FastAPI
from chromadb.api.models.Collection import Collection
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings

from penchant_pipelines.index.base import (
    Generation,
    Hit,
    IndexSettings,
    IndexUnavailable,
    Vectors,
    check_limit,
    check_name,
    is_name,
    ranked,
    unique_rows,
    unit_rows,
)

SEAL = "seal.json"
SERVER_BATCH = 250  # a write to the server waits in a socket and stops nobody
SERVER_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
QUERY_TIMEOUT = httpx.Timeout(10.0)  # a caller and a thread wait; a large index may have to be loaded first
PAUSE = 0.002  # seconds between two embedded writes, so that other threads get the interpreter
LASTING = (
    "/add",
    "/update",
    "/upsert",
    "/delete",
    "/get",
)  # requests of a server that go by the size of what they hold
COLLECTIONS = ("items", "interests")
HAIR = 1e-3  # how far a vector is shifted; of much less float32 keeps nothing between two that were equal
SHIFTS = 2**16  # different ones
M_PERTURB = -6  # of glibc's mallopt


def fill_allocations() -> None:
    """Have the C library fill memory as it is handed out; does nothing where it can't.

    Chroma writes whole HNSW buffers to disk, unused rows included, and those hold whatever the process freed
    before: users' texts, found in `data_level0.bin` after their erasure.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_PERTURB, 0xFF)  # handed out as its complement, zeros


def apart(ids: Sequence[str], rows: Vectors) -> Vectors:
    """Shift each vector of (n, d) by a hair, always the same for an id.

    HNSW links vectors that are equal with each other and with nothing else: a few hundred items of one title, or users
    who asked for one topic, are a place out of which a search does not find again.
    """
    dimensions = rows.shape[1]
    noise = _noise(dimensions)
    # A shift begins at the place that an id has.
    places = [zlib.crc32(each.encode()) % SHIFTS for each in ids]
    shifts = [noise[place : place + dimensions] for place in places]
    return unit_rows(rows + np.reshape(shifts, rows.shape), dimensions)


@cache
def _noise(dimensions: int) -> Vectors:
    return np.random.default_rng(0).normal(0, HAIR / dimensions**0.5, SHIFTS + dimensions).astype(np.float32)


class Gate:
    """Lets calls through until it is closed; closing waits for those inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Hold the gate open for one call to Chroma; whatever goes wrong in it becomes IndexUnavailable."""
        with self._changed:
            if self._closed:
                raise IndexUnavailable("the generation is closed")
            self._inside += 1
        try:
            with unavailable("Chroma failed"):
                yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Turn new calls away and wait until the last one is out."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._inside == 0)


@contextmanager
def unavailable(message: str) -> Iterator[None]:
    """Turn any failure inside into IndexUnavailable."""
    try:
        yield
    except IndexUnavailable:
        raise
    except BaseException as error:
        # a panic in Chroma's Rust core is no Exception, and its class can't be imported
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise IndexUnavailable(f"{message}: {type(error).__name__}") from error
        raise


class ChromaIndex:
    """One Chroma collection in cosine space. See VectorIndex."""

    def __init__(self, collection: Collection, dimensions: int, gate: Gate, *, batch_size: int, pause: float) -> None:
        self._collection = collection
        self._dimensions = dimensions
        self._gate = gate
        self._batch_size = batch_size
        self._pause = pause

    def upsert(self, ids: Sequence[str], vectors: Vectors) -> None:
        """See VectorIndex."""
        unique, rows = unique_rows(ids, vectors, self._dimensions)
        rows = apart(unique, rows)

        def write(part: slice) -> None:
            self._collection.upsert(ids=unique[part], embeddings=rows[part])

        self._in_batches(len(unique), write)

    def delete(self, ids: Sequence[str]) -> None:
        """See VectorIndex."""
        unique = list(dict.fromkeys(ids))

        def write(part: slice) -> None:
            self._collection.delete(ids=unique[part])

        self._in_batches(len(unique), write)

    def query(self, vectors: Vectors, limit: int) -> list[list[Hit]]:
        """See VectorIndex."""
        check_limit(limit)
        queries = unit_rows(vectors, self._dimensions)
        if len(queries) == 0:
            return []
        with self._gate.passing():
            found = self._collection.query(query_embeddings=queries, n_results=limit, include=["distances"])
            distances = found["distances"] or []
            return [
                ranked(ids, [1.0 - distance for distance in row])
                for ids, row in zip(found["ids"], distances, strict=True)
            ]

    def count(self) -> int:
        """See VectorIndex."""
        with self._gate.passing():
            return self._collection.count()

    def _in_batches(self, count: int, write: Callable[[slice], None]) -> None:
        for start in range(0, count, self._batch_size):
            with self._gate.passing():
                write(slice(start, start + self._batch_size))
            time.sleep(self._pause)


class EmbeddedStore:
    """Chroma inside this process, a folder per generation. See IndexStore.

    Chroma loads damaged HNSW files without looking: a truncated one kills the process, others lose
    vectors in silence. So a generation is sealed with the digests of its files when it is closed, and opened
    only if they still match. One that was never closed (a crash, a power cut) is rebuilt rather than trusted.
    """

    def __init__(self, settings: IndexSettings, folder: Path) -> None:
        fill_allocations()
        self._settings = settings
        self.recipe = settings.recipe
        self._folder = folder
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Generation, Client, Gate]] = {}
        self._closed = False

    def open(self, name: str, dimensions: int) -> Generation:
        """See IndexStore."""
        path = self._folder / check_name(name)
        with self._lock, unavailable(f"generation {name} can't be opened"):
            if self._closed:
                raise IndexUnavailable("the store is closed")
            if name in self._open:
                generation, client, _ = self._open[name]
                for collection in COLLECTIONS:
                    open_collection(client, collection, dimensions, self._settings)
                return generation
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            break_seal(path)
            client = persistent_client(path)
            try:
                collections = [open_collection(client, kind, dimensions, self._settings) for kind in COLLECTIONS]
                generation, gate = make_generation(
                    name, collections, dimensions, batch_size=self._settings.batch_size, pause=PAUSE
                )
                # an index is loaded by its first query: find out now rather than in front of a caller
                for index in (generation.items, generation.interests):
                    index.query(np.eye(1, dimensions, dtype=np.float32), 1)
            except BaseException:
                client.close()
                raise
            self._open[name] = generation, client, gate
            return generation

    def drop(self, name: str) -> None:
        """See IndexStore."""
        path = self._folder / check_name(name)
        with self._lock, unavailable(f"generation {name} can't be dropped"):
            self._shut(name)
            if path.exists():
                shutil.rmtree(path)

    def names(self) -> list[str]:
        """See IndexStore."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir() and is_name(path.name))

    def close(self) -> None:
        """See IndexStore."""
        # The stack comes to each of them, whatever becomes of another.
        with self._lock, unavailable("the index can't be closed"), ExitStack() as each:
            self._closed = True
            for name in self._open:
                each.callback(self._shut_and_seal, name)

    def _shut_and_seal(self, name: str) -> None:
        self._shut(name)
        seal(self._folder / name)

    def _shut(self, name: str) -> None:
        if name in self._open:
            _, client, gate = self._open.pop(name)
            gate.close()
            client.close()


class ServerStore:
    """A Chroma server: collections `<name>-items` and `<name>-interests`. See IndexStore.

    The collections of one server belong to one store: `names` lists all that look like its own.
    """

    def __init__(self, settings: IndexSettings) -> None:
        self._settings = settings
        self.recipe = settings.recipe
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._open: dict[str, tuple[Generation, list[UUID], Gate]] = {}
        self._closed = False

    def open(self, name: str, dimensions: int) -> Generation:
        """See IndexStore."""
        check_name(name)
        with self._lock, unavailable(f"generation {name} can't be opened"):
            client = self._connected()
            collections = [
                open_collection(client, f"{name}-{kind}", dimensions, self._settings) for kind in COLLECTIONS
            ]
            uuids = [collection.id for collection in collections]
            if name not in self._open or self._open[name][1] != uuids:  # the server may have lost its data
                generation, gate = make_generation(name, collections, dimensions, batch_size=SERVER_BATCH, pause=0.0)
                self._open[name] = generation, uuids, gate
            return self._open[name][0]

    def drop(self, name: str) -> None:
        """See IndexStore."""
        check_name(name)
        with self._lock, unavailable(f"generation {name} can't be dropped"):
            client = self._connected()
            if name in self._open:
                self._open.pop(name)[2].close()
            existing = set(collection_names(client))
            for kind in COLLECTIONS:
                if f"{name}-{kind}" in existing:
                    client.delete_collection(f"{name}-{kind}")

    def names(self) -> list[str]:
        """See IndexStore."""
        with self._lock, unavailable("generations can't be listed"):
            existing = [name.rpartition("-") for name in collection_names(self._connected())]
            return sorted({name for name, _, kind in existing if kind in COLLECTIONS and is_name(name)})

    def close(self) -> None:
        """See IndexStore."""
        with self._lock, unavailable("the index can't be closed"):
            self._closed = True
            while self._open:
                self._open.popitem()[1][2].close()
            if self._client is not None:
                self._client.close()
                for session in http_sessions(self._client):
                    session.close()  # Chroma leaves its connections open

    def _connected(self) -> Client:
        if self._closed:
            raise IndexUnavailable("the store is closed")
        if self._client is None:
            url = urlsplit(self._settings.url)
            ssl = url.scheme == "https"
            # Chroma waits for ever for a server that does not answer, and has no setting for it
            httpx.get(f"{url.geturl().rstrip('/')}/api/v2/heartbeat", timeout=QUERY_TIMEOUT).raise_for_status()
            client = chromadb.HttpClient(
                host=url.hostname or "",
                port=url.port or (443 if ssl else 80),
                ssl=ssl,
                settings=chroma_settings(),
            )
            self._client = cast(Client, client)
            for session in http_sessions(self._client):
                session.timeout = SERVER_TIMEOUT
                session.event_hooks["request"] = [hasten]
        return self._client


def make_generation(
    name: str, collections: Sequence[Collection], dimensions: int, *, batch_size: int, pause: float
) -> tuple[Generation, Gate]:
    """Put the two collections of a generation behind one gate."""
    gate = Gate()
    items, interests = (
        ChromaIndex(collection, dimensions, gate, batch_size=batch_size, pause=pause) for collection in collections
    )
    return Generation(name, items, interests), gate


def chroma_settings() -> Settings:
    """Build Chroma's settings: no telemetry, and no reading of an `.env` that belongs to somebody else."""
    return Settings(_env_file=None, anonymized_telemetry=False)  # type: ignore[call-arg]


def persistent_client(path: Path) -> Client:
    """Open Chroma's files in `path`."""
    try:
        return cast(Client, chromadb.PersistentClient(path=str(path), settings=chroma_settings()))
    except BaseException:
        # Chroma registers a client under its path before starting it, and would keep handing out the dead one
        SharedSystemClient._identifier_to_system.pop(str(path), None)
        raise


def http_sessions(client: Client) -> list[httpx.Client]:
    """Reach the connection pools inside a client of a server: its own and that of its check at the start."""
    servers = client._server, cast(AdminClient, client._admin_client)._server
    return [cast(FastAPI, server)._session for server in servers]


def hasten(request: httpx.Request) -> None:
    """Have what is soon answered given up sooner, as a caller or a stop waits; Chroma's client knows one timeout."""
    if not (request.method == "DELETE" or request.url.path.endswith(LASTING)):
        request.extensions["timeout"] = QUERY_TIMEOUT.as_dict()


def open_collection(client: Client, name: str, dimensions: int, settings: IndexSettings) -> Collection:
    """Open or create a collection; one that exists keeps the HNSW values it was created with."""
    collection = client.get_or_create_collection(
        name,
        metadata={"dimensions": dimensions},
        embedding_function=None,  # the default one fetches a model
        configuration={
            "hnsw": {
                "space": "cosine",
                "max_neighbors": settings.max_neighbors,
                "ef_construction": settings.ef_construction,
                "ef_search": settings.ef_search,
            }
        },
    )
    held = (collection.metadata or {}).get("dimensions")
    if held != dimensions:
        raise IndexUnavailable(f"collection {name} holds {held} dimensions, not {dimensions}")
    return collection


def collection_names(client: Client) -> list[str]:
    """Names of all collections of a server."""
    names: list[str] = []
    while page := client.list_collections(limit=100, offset=len(names)):
        names += [collection.name for collection in page]
    return names


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file under `path` but the seal, by relative name."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != SEAL:
            with file.open("rb") as content:
                found[file.relative_to(path).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def seal(path: Path) -> None:
    """Note what the files of a closed generation contain."""
    (path / SEAL).write_text(json.dumps(digests(path), indent=1))


def break_seal(path: Path) -> None:
    """Check a generation that is about to be opened and take its seal off; an empty folder needs none."""
    found = digests(path)
    if found:
        sealed = path / SEAL
        if not sealed.exists():
            raise IndexUnavailable(f"generation {path.name} was not closed")
        if json.loads(sealed.read_text()) != found:
            raise IndexUnavailable(f"the files of generation {path.name} are damaged")
        sealed.unlink()
