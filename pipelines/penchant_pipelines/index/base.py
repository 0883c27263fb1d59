"""What every vector index can do, whichever engine stands behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator

from penchant_pipelines.settings import Section

Vectors: TypeAlias = NDArray[np.float32]
"""float32 (n, d), unit rows."""

UNIT_TOLERANCE = 0.01  # a unit vector that was stored as bfloat16 is still one
DECIMALS = 5  # of a cosine: what equals the query has 1, for all that float32 rounds and Chroma's vectors are shifted
GENERATION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class IndexUnavailable(Exception):
    """The index can't answer: damaged, closed or out of reach. The cause is chained where there is one."""


class IndexSettings(Section):
    """Where the vector index lives and how hard it tries."""

    url: str = Field(
        default="",
        description=(
            "A Chroma server for this data folder alone, http://host:port: others' collections `…-items` and "
            "`…-interests` are removed; empty: Chroma embedded in the data folder."
        ),
    )
    max_neighbors: int = Field(
        default=16, ge=2, le=128, description="HNSW M: links per vector; more finds more and costs memory."
    )
    ef_construction: int = Field(
        default=100, ge=10, le=2000, description="HNSW: candidates looked at when a vector is added."
    )
    ef_search: int = Field(default=100, ge=10, le=2000, description="HNSW: candidates looked at by a query.")
    batch_size: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Vectors per write to the embedded index; a write stops the whole process while it lasts.",
    )

    @property
    def recipe(self) -> str:
        """What an index is built by; Chroma keeps for good what a collection was created with."""
        return f"hnsw {self.max_neighbors} {self.ef_construction} {self.ef_search}"

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            rest = url.path.strip("/") or url.query or url.fragment or any(map(str.isspace, value))
            sound = not value or (url.scheme in ("http", "https") and url.hostname and url.port != 0 and not rest)
        except ValueError:  # a port that is no number
            sound = False
        if not sound:
            raise ValueError("must be a URL without a path, such as http://127.0.0.1:8000, or empty")
        return value


class Hit(NamedTuple):
    """A vector found: its id and the cosine between it and the query, −1…1, rounded to `DECIMALS`."""

    id: str
    similarity: float


class VectorIndex(Protocol):
    """One collection of (id, vector). Safe to use from many threads; every method blocks.

    Raises:
        ValueError: vectors that are not finite unit rows of the index's dimensions, or don't match the ids.
        IndexUnavailable: the engine failed, or its generation was dropped or closed (never the exact index).

    """

    def upsert(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Add or replace any number of vectors, (n, d) for n ids; of a repeated id the last one counts.

        Large calls are written in batches: when one fails, those before it stay written.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Remove vectors; ids that are not there are no error."""

    def query(self, vectors: Vectors, limit: int) -> list[list[Hit]]:
        """Find up to `limit` nearest for each row of (n, d), best first, ties by id."""

    def count(self) -> int:
        """How many vectors are held."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One build of the index: everything in one embedding space."""

    name: str
    items: VectorIndex
    interests: VectorIndex


class IndexStore(Protocol):
    """Owns the generations. Names are letters, digits, `-` and `_`, at most 100 (ValueError otherwise)."""

    @property
    def recipe(self) -> str:
        """How it builds a generation: one that was built otherwise is to be built anew."""

    def open(self, name: str, dimensions: int) -> Generation:
        """Open a generation, creating it if it is missing; open twice, it is the same one.

        Raises:
            IndexUnavailable: it is damaged, was not closed, has other dimensions, or the engine is away.
                `drop` followed by `open` gives an empty one.

        """

    def drop(self, name: str) -> None:
        """Remove a generation and all its bytes; a name that does not exist is no error."""

    def names(self) -> list[str]:
        """Names of the generations that exist, sorted."""

    def close(self) -> None:
        """Let running calls end, then release files and connections. Nothing can be used afterwards.

        Raises IndexUnavailable where one of them could not be closed as it should; all others were.
        """


def is_name(name: str) -> bool:
    """Tell whether this may be the name of a generation."""
    return GENERATION_NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return a generation's name; ValueError if it is not fit to be part of a path."""
    if not is_name(name):
        raise ValueError(f"not a name for an index generation: {name!r}")
    return name


def unit_rows(vectors: ArrayLike, dimensions: int) -> Vectors:
    """Return (n, dimensions) as float32 rows of length 1; ValueError if they are not close to that."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimensions:
        raise ValueError(f"vectors are {rows.shape}, expected (n, {dimensions})")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    # written so that NaN fails too
    if not np.all(np.abs(lengths - 1) <= UNIT_TOLERANCE):
        raise ValueError("vectors are not finite rows of length 1")
    normalised: Vectors = rows / lengths
    return normalised


def unique_rows(ids: Sequence[str], vectors: ArrayLike, dimensions: int) -> tuple[list[str], Vectors]:
    """Check what is to be written and keep the last of each repeated id."""
    if not all(ids):
        raise ValueError("an id is empty")
    rows = unit_rows(vectors, dimensions)
    if len(ids) != len(rows):
        raise ValueError(f"{len(ids)} ids for {len(rows)} vectors")
    last = {id_: row for row, id_ in enumerate(ids)}
    return list(last), rows if len(last) == len(ids) else rows[list(last.values())]


def ranked(ids: Sequence[str], similarities: Sequence[float]) -> list[Hit]:
    """Hits best first, ties by id, cosines rounded to `DECIMALS`."""
    rounded = np.round(np.asarray(similarities, dtype=np.float64), DECIMALS)
    order = sorted(zip((-rounded).tolist(), ids, strict=True))
    return [Hit(id_, -distance) for distance, id_ in order]


def check_limit(limit: int) -> None:
    """ValueError if a query asks for less than one hit."""
    if limit < 1:
        raise ValueError(f"limit is {limit}, expected 1 or more")
