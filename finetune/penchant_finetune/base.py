"""The encoder to start from: the one that a server of the same settings opens, before any adapter."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from penchant_pipelines.encoder import Encoder, EncoderSettings, Vectors
from penchant_pipelines.encoder.batching import cores
from penchant_pipelines.encoder.sentence import SentenceEncoder, open_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_CHUNK = 1024


def open_base(settings: EncoderSettings) -> tuple[SentenceEncoder, SentenceTransformer]:
    """Load the encoder without its adapter, and the model in it, which may be changed. Raises as `open_model` does."""
    model, name, digest = open_model(settings)
    return SentenceEncoder(model, name, "", digest, settings.batch_size), model


def encode_all(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """Encode many texts: float32 (n, d) unit vectors; on a CPU, a thread a core."""
    workers = cores() if encoder.device == "cpu" else 1
    parts = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
    with ThreadPoolExecutor(workers) as pool:
        vectors = list(pool.map(encoder.encode, parts))
    return np.concatenate([np.zeros((0, encoder.dimensions), dtype=np.float32), *vectors])
