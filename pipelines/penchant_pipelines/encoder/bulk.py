"""Many texts at once, where nobody else waits for the encoder."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

from penchant_pipelines.encoder.base import Encoder, Vectors
from penchant_pipelines.encoder.batching import cores

CHUNK = 512


def encode_all(encoder: Encoder, texts: Sequence[str]) -> Generator[Vectors, None, None]:
    """Encode texts in order, CHUNK of them at a time: (c, d) float32 unit rows. On a CPU, with a thread a core.

    Who closes it waits for no more than is in the model.
    """
    parts = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    pool = ThreadPoolExecutor(cores() if encoder.device == "cpu" else 1, thread_name_prefix="encode")
    try:
        yield from pool.map(encoder.encode, parts)
    finally:
        pool.shutdown(cancel_futures=True)
