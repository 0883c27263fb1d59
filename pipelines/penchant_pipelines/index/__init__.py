"""The vector index: nearest items and interests, rebuildable from the record at any time."""

from contextlib import suppress
from pathlib import Path

from penchant_pipelines.index.base import (
    Generation,
    Hit,
    IndexSettings,
    IndexStore,
    IndexUnavailable,
    VectorIndex,
    Vectors,
)
from penchant_pipelines.index.exact import ExactIndex, ExactStore

__all__ = [
    "ExactIndex",
    "ExactStore",
    "Generation",
    "Hit",
    "IndexSettings",
    "IndexStore",
    "IndexUnavailable",
    "VectorIndex",
    "Vectors",
    "open_index_store",
]


def open_index_store(settings: IndexSettings, folder: Path) -> IndexStore:
    """Open the store that `settings` name: a Chroma server, or Chroma embedded with its files in `folder`.

    Nothing is opened or connected before the first call. Of one folder there may be one store at a time,
    in one process: Chroma loses vectors otherwise. What an embedded one left in `folder` is removed once a server is
    named: it would stay there whoever is erased.
    """
    # only here, because chromadb takes half a second to import
    from penchant_pipelines.index.chroma import EmbeddedStore, ServerStore

    embedded = EmbeddedStore(settings, folder)
    if not settings.url:
        return embedded
    for name in embedded.names():
        with suppress(IndexUnavailable):
            embedded.drop(name)
    return ServerStore(settings)
