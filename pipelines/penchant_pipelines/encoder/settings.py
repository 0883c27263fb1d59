"""Settings of the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field


class EncoderSettings(BaseModel):
    """Which model makes the vectors, where it runs, and how much may wait for it."""

    model: str = Field(
        default="",
        description="A sentence-transformers folder or hub name. Empty: the embedded all-MiniLM-L6-v2.",
    )
    adapter: Path | None = Field(
        default=None, description="Folder of a PEFT LoRA adapter (safetensors) made for the model."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the model runs. auto: CUDA where there is one, else the CPU."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Most texts in one forward pass.")
    cache_size: int = Field(
        default=50_000, ge=0, description="Texts whose vectors are kept in memory (1.5 KB each at 384 dimensions)."
    )
    max_pending: int = Field(
        default=20_000, ge=1, description="Texts that may wait to be encoded; more are refused, to be sent later."
    )
