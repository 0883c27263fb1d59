"""The encoder to start from: the one that a server of the same settings opens, before any adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penchant_pipelines.encoder import EncoderSettings
from penchant_pipelines.encoder.sentence import SentenceEncoder, open_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def open_base(settings: EncoderSettings) -> tuple[SentenceEncoder, SentenceTransformer]:
    """Load the encoder without its adapter, and the model in it, which may be changed. Raises as `open_model` does."""
    model, name, digest = open_model(settings)
    return SentenceEncoder(model, name, "", digest, settings.batch_size), model
