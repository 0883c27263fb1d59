"""From what a user typed to what the encoder reads: cleaning, language, segmentation, candidate keywords."""

from penchant_pipelines.text.clean import TextError
from penchant_pipelines.text.pipeline import Document, TextPipeline, TextSettings

__all__ = ["Document", "TextError", "TextPipeline", "TextSettings"]
