"""Settings of the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.settings import Section

ADAPTERS = "adapters"
"""Folder of adapters within a data folder."""


class EncoderSettings(Section):
    """Which model makes the vectors, where it runs, and how much may wait for it."""

    model: str = Field(
        default="",
        description="A sentence-transformers folder or hub name. Empty: the embedded bilingual one (zh, en).",
    )
    prompt: str = Field(
        default="",
        description=(
            "What is put before each text: the name of one of the model's prompts, or else the text itself, such as "
            "'query: ', the space included. Empty: the model's own default."
        ),
    )
    dimensions: int = Field(
        default=0,
        ge=0,
        description="Length that vectors are cut to, for models that were trained for it (Matryoshka). 0: the whole.",
    )
    adapter: Path | None = Field(
        default=None,
        description="Folder of an adapter made for the model, its manifest included. While it is set, no other can be "
        "loaded at runtime.",
    )
    adapters: Path | None = Field(
        default=None,
        description="Folder of the adapters that can be loaded at runtime. Unset: adapters in the data folder.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the model runs. auto: CUDA where there is one, else the CPU."
    )
    workers: int = Field(
        default=0, ge=0, le=64, description="Threads that run the model. 0: one a core, on a GPU a single one."
    )
    batch_size: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Most texts that a worker takes at once; those of about equal length share a pass.",
    )
    cache_size: int = Field(
        default=50_000,
        ge=0,
        description="Texts whose vectors are kept in memory (1.5 KB each at 384 dimensions).",
    )
    max_wait_seconds: float = Field(
        default=3.0,
        gt=0,
        allow_inf_nan=False,
        description=(
            "How long a request's texts may have to wait for those of others; one that would wait longer is refused at "
            "once, with the time to come back."
        ),
    )

    def adapter_folder(self, data: Path) -> Path:
        """Where the adapters lie that a server of this data folder can load.

        Raises InvalidInput where the settings name a folder that is not there: all that was made by its adapters would
        be taken for lost.
        """
        if self.adapters is not None and not self.adapters.is_dir():
            raise InvalidInput.at("encoder.adapters", f"there is no folder {str(self.adapters)!r}")
        return self.adapters or data / ADAPTERS
