"""Which texts go through the model together. A text gets the same vector, to the last bit, in whatever company.

Apart from `sentence`, since importing transformers takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, AttentionMaskInterface, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Features = dict[str, Any]
"""What `SentenceTransformer.preprocess` makes of texts: `input_ids` and `attention_mask` (texts, width), and more."""
Passes = Iterator[tuple[NDArray[np.intp], Features]]
"""Positions of texts, and features of these texts alone."""

PASS_TOKENS = 2048
"""Most tokens of a packed pass: what is larger falls out of the processor's cache."""
LEAST_TOKENS = 16
"""Fewer rows take another path in the matrix library, whose last bits differ: than 16 by AVX-512, than 4 elsewhere."""
WIDTH_STEP = 8
"""Token counts are padded to a multiple of this: wide enough to share passes, narrow enough to waste little."""


def takes_packed(model: SentenceTransformer) -> bool:
    """Teach a model to read packed passes, where it can: a BERT on a CPU. Tells whether it does."""
    bert = next((module for module in model.modules() if isinstance(module, BertModel)), None)
    if bert is None or bert.config.is_decoder or model.device.type != "cpu":
        return False
    AttentionInterface.register("packed", _attention)
    AttentionMaskInterface.register("packed", sdpa_mask)
    bert.set_attn_implementation("packed")
    return True


def packed(features: Features, most_texts: int) -> Passes:
    """Lay texts end to end, short ones first, so that nothing is padded.

    Attention looks at one text at a time, texts of equal length at once; all else sees one long row of tokens. Few
    operations then do much each, which matters where other threads want the interpreter between any two of them. The
    way of FlashAttention's `varlen` calls (Dao 2023), for a CPU. A text stands in a pass more than once where that
    would be too small otherwise.
    """
    mask = features["attention_mask"].bool()
    lengths = mask.sum(dim=1).numpy()
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        tokens = np.cumsum(lengths[order[start : start + most_texts]])
        count = max(1, int(np.searchsorted(tokens, PASS_TOKENS, side="right")))
        rows = np.repeat(order[start : start + count], -(-LEAST_TOKENS // int(tokens[count - 1])))
        taken = lengths[rows]
        part = {name: value for name, value in features.items() if getattr(value, "shape", None) != mask.shape}
        part["input_ids"] = features["input_ids"][rows][mask[rows]][None]
        part["position_ids"] = torch.from_numpy(np.concatenate([np.arange(length) for length in taken]))[None]
        part["cu_seq_lens_q"] = torch.from_numpy(np.concatenate([[0], np.cumsum(taken)]))
        part["runs"] = [(len(list(same)), length) for length, same in groupby(taken.tolist())]
        yield rows, part
        start += count


def padded(features: Features, most_texts: int, pad_token: int) -> Passes:
    """Put texts with others of about their length, each padded to a width that follows from the text alone."""
    mask = features["attention_mask"]
    lengths = mask.sum(dim=1).numpy()
    left_padded = bool((mask[:, 0] == 0).any())
    widths = -(-lengths // WIDTH_STEP) * WIDTH_STEP
    # Where nothing is masked the model takes another path, which may differ in the last bit.
    for width, full in sorted(set(zip(widths.tolist(), (lengths == widths).tolist(), strict=True))):
        alike = np.flatnonzero((widths == width) & ((lengths == widths) == full))
        for start in range(0, len(alike), most_texts):
            rows = alike[start : start + most_texts]
            yield rows, _cut(features, rows, width, left_padded, pad_token)


def _cut(features: Features, rows: NDArray[np.intp], width: int, left_padded: bool, pad_token: int) -> Features:
    """Take rows of the features, cut or padded to a width."""
    shape = features["attention_mask"].shape
    missing = max(width - shape[1], 0)
    filling = {"input_ids": pad_token}
    taken = {}
    for name, value in features.items():
        if getattr(value, "shape", None) == shape:
            part = value[rows, -width:] if left_padded else value[rows, :width]
            sides = (missing, 0) if left_padded else (0, missing)
            value = torch.nn.functional.pad(part, sides, value=filling.get(name, 0))
        taken[name] = value
    return taken


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    runs: list[tuple[int, int]] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention within each text of a packed pass: (1, heads, tokens, size) each → (1, tokens, heads, size).

    `runs` are (texts, tokens of each), in order. Without them texts are padded, which is the library's own matter.
    """
    if runs is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    heads, size = query.shape[1], query.shape[3]
    found = []
    start = 0
    for count, length in runs:
        end = start + count * length
        run = [part[0, :, start:end].view(heads, count, length, size) for part in (query, key, value)]
        q, k, v = (part.transpose(0, 1) for part in run)
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        found.append(seen.transpose(1, 2).reshape(count * length, heads, size))
        start = end
    return torch.cat(found)[None], None
