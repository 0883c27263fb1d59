"""Chinese words as tokens: jieba cuts runs of Han characters into words that the encoder has a row for.

A word vocabulary belongs to an adapter, so that its vectors never depend on dictionaries that users change. It is
`words.txt`, a line each `word frequency`, and `words.safetensors`: `rows` uint8 (n, d/2), two numbers of 4 bits in each
byte, the first in the lower half, 8 standing for 0; and `scales` float16 (n, 1). Their product are the words' input
embeddings (n, d).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.errors import WrongState
from penchant_pipelines.text.chinese import to_simplified
from penchant_pipelines.text.quiet_jieba import jieba
from penchant_pipelines.text.scripts import HAN

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch.nn import Embedding
    from transformers import PreTrainedModel

WORDS_FILE = "words.txt"
ROWS_FILE = "words.safetensors"
_HAN_RUN = re.compile(f"[{HAN}]+")
_LEVELS = 7
_CLIPS = np.linspace(0.4, 1, 13)
"""Where a row's numbers are cut off, as shares of the greatest: fewer levels are lost on the rare great ones."""


class WordVocabulary:
    """Words, most frequent first, with how often each occurs. Safe to share among threads."""

    def __init__(self, frequencies: dict[str, int]) -> None:
        self.words = list(frequencies)
        self._frequencies = frequencies
        self._tokenizer = jieba.Tokenizer()
        known = dict(frequencies)
        for word in frequencies:
            for end in range(1, len(word)):
                # jieba wants each beginning of a word in its dictionary too.
                known.setdefault(word[:end], 0)
        self._tokenizer.FREQ, self._tokenizer.total = known, sum(frequencies.values())
        self._tokenizer.initialized = True

    def __len__(self) -> int:
        """Count the words."""
        return len(self.words)

    @classmethod
    def load(cls, file: Path) -> WordVocabulary:
        """Read `words.txt`. Raises WrongState where it is no word vocabulary."""
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
            frequencies = {word: int(count) for word, count in (line.split(" ") for line in lines)}
        except (OSError, ValueError) as error:
            raise WrongState("ADAPTER_UNREADABLE", f"{file} is no word vocabulary: {error}") from error
        if not frequencies or len(frequencies) != len(lines) or not all(map(_HAN_RUN.fullmatch, frequencies)):
            raise WrongState("ADAPTER_UNREADABLE", f"{file} must hold different words of Han characters, one a line")
        return cls(frequencies)

    def save(self, file: Path) -> None:
        """Write `words.txt`."""
        file.write_text("".join(f"{word} {count}\n" for word, count in self._frequencies.items()), encoding="utf-8")

    def segment(self, text: str) -> str:
        """Put spaces around the words of each run of Han characters, in simplified characters."""
        return _HAN_RUN.sub(
            lambda run: f" {' '.join(self._tokenizer.cut(run.group(), HMM=False))} ", to_simplified(text)
        )


def word_embedding(model: SentenceTransformer) -> Embedding:
    """The model's input embedding. Raises WrongState where it has none of the usual kind."""
    import torch

    transformer: PreTrainedModel = model[0].auto_model  # type: ignore[assignment]
    embedding = transformer.get_input_embeddings()
    if not isinstance(embedding, torch.nn.Embedding):
        raise WrongState("ADAPTER_MISMATCH", "a word vocabulary needs a model with one row for each token")
    return embedding


def load_rows(file: Path) -> NDArray[np.float32]:
    """Read `words.safetensors`: float32 (n, d). Raises WrongState where it holds something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(file)
        packed, scales = tensors["rows"], tensors["scales"].astype(np.float32)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise WrongState("ADAPTER_UNREADABLE", f"{file} holds no word rows: {error}") from error
    if (
        packed.ndim != 2
        or packed.dtype != np.uint8
        or scales.shape != (len(packed), 1)
        or not np.isfinite(scales).all()
    ):
        raise WrongState("ADAPTER_UNREADABLE", f"{file} must hold rows uint8 (n, d/2) and finite scales (n, 1)")
    rows = np.empty((len(packed), 2 * packed.shape[1]), dtype=np.float32)
    rows[:, ::2], rows[:, 1::2] = packed & 15, packed >> 4
    rows -= _LEVELS + 1
    rows *= scales
    return rows


def save_rows(file: Path, rows: NDArray[np.float32]) -> None:
    """Write rows (n, d), d even, rounded to 4 bits; each row's scale is the one that loses least of it."""
    from safetensors.numpy import save_file

    scales = np.ones((len(rows), 1), dtype=np.float16)
    levels = np.zeros(rows.shape, dtype=np.int8)
    least = np.full(len(rows), np.inf)
    greatest = np.abs(rows).max(axis=1, keepdims=True)
    for clip in _CLIPS:
        scale = np.maximum(clip * greatest / _LEVELS, 1e-6).astype(np.float16)
        rounded = np.clip(np.rint(rows / scale.astype(np.float32)), -_LEVELS, _LEVELS).astype(np.int8)
        lost = np.square(rounded * scale.astype(np.float32) - rows).sum(axis=1)
        better = lost < least
        scales[better], levels[better], least[better] = scale[better], rounded[better], lost[better]
    shifted = (levels + _LEVELS + 1).astype(np.uint8)
    save_file({"rows": shifted[:, ::2] | (shifted[:, 1::2] << 4), "scales": scales}, file)
