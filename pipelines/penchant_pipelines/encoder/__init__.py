"""Texts to unit vectors: one interface, any sentence-transformers model, an embedded default.

`open_encoder` loads a model (blocking, seconds); `BatchingEncoder` shares it between concurrent requests.
"""

from penchant_pipelines.encoder.adapter import open_encoder
from penchant_pipelines.encoder.base import Encoder, Vectors
from penchant_pipelines.encoder.batching import BatchingEncoder
from penchant_pipelines.encoder.settings import EncoderSettings

__all__ = ["BatchingEncoder", "Encoder", "EncoderSettings", "Vectors", "open_encoder"]
