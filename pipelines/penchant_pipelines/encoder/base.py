"""The interface of every encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Texts → unit vectors in one embedding space."""

    @property
    def space_id(self) -> str:
        """Name of the embedding space; vectors of different spaces must never be compared."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    @property
    def base_model(self) -> str:
        """Name of the model without adapter."""

    @property
    def adapter_id(self) -> str:
        """Name of the adapter, empty where there is none."""

    @property
    def device(self) -> str:
        """Where the model runs, such as `cpu` or `cuda:0`."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts in order; blocks. Returns (n, dimensions) float32 rows of length 1.

        A text without any content gives a row too: the model's vector for an empty text.
        """
