"""Texts to unit vectors: one interface, any sentence-transformers model, an embedded default.

`open_encoder` loads a model (blocking, seconds); `BatchingEncoder` shares it between concurrent requests,
`encode_all` is for whole files.
"""

from penchant_pipelines.encoder.adapter import open_encoder
from penchant_pipelines.encoder.base import Encoder, Vectors
from penchant_pipelines.encoder.batching import BatchingEncoder
from penchant_pipelines.encoder.bulk import encode_all
from penchant_pipelines.encoder.settings import EncoderSettings

__all__ = ["BatchingEncoder", "Encoder", "EncoderSettings", "Vectors", "encode_all", "open_encoder"]
