"""The network of the sequence model: causal self-attention over a user's signals. Imports torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

GAP_BUCKETS = 24
"""Buckets of a time gap: bucket k holds gaps of about 2^k minutes; the last, 16 years and more."""
STEP_BUCKETS = 8
"""Buckets of a distance in signals: 0, 1, 2–3, 4–7, … 64 and more."""
ACTION_IDS = 64
"""One id an action of the contract; 0 stands for a post."""
CONTEXT_BUCKETS = 64
"""Hash buckets of surface and device; 0 stands for unknown."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that the shapes of the weights follow from."""

    dimensions: int
    width: int = 256
    heads: int = 4
    layers: int = 2
    outputs: int = 1

    def as_json(self) -> dict[str, int]:
        """The sizes by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded histories, oldest signal first; `valid` marks what is no padding. Every tensor is (b, n) at least."""

    vectors: Tensor
    """(b, n, dimensions) float32"""
    seconds: Tensor
    """(b, n) float64, seconds since 1970, never falling within a row"""
    actions: Tensor
    """(b, n) int64"""
    weights: Tensor
    """(b, n) float32, signed mass of each signal"""
    contexts: Tensor
    """(b, n, 2) int64, buckets of surface and device"""
    valid: Tensor
    """(b, n) bool"""


class Network(nn.Module):
    """Causal self-attention over signals (after Kang & McAuley 2018) and `outputs` places to look.

    Each is a mean of the signals' own vectors, weighed by what the layers make of them and by how long ago they were,
    and then moved by what the layers add. That begins at zero, so that training starts from means of the latest
    signals.
    """

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        width, outputs = shape.width, shape.outputs
        self.vector_in = nn.Linear(shape.dimensions, width)
        self.gap_in = nn.Embedding(GAP_BUCKETS, width)
        self.action_in = nn.Embedding(ACTION_IDS, width)
        self.surface_in = nn.Embedding(CONTEXT_BUCKETS, width, padding_idx=0)
        self.device_in = nn.Embedding(CONTEXT_BUCKETS, width, padding_idx=0)
        self.numbers_in = nn.Linear(5, width)
        self.blocks = nn.ModuleList(Block(width, shape.heads, dropout) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.queries = nn.Linear(width, outputs * width // 4)
        self.keys = nn.Linear(width, width // 4)
        self.pool_by_gap = nn.Embedding(GAP_BUCKETS, outputs)
        self.pool_by_step = nn.Embedding(STEP_BUCKETS, outputs)
        self.shift = nn.Linear(width, outputs * shape.dimensions)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for table in (self.gap_in, self.action_in, self.surface_in, self.device_in):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.pool_by_gap.weight)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        nn.init.zeros_(self.queries.weight)
        nn.init.normal_(self.queries.bias, std=0.02)
        self.start_from(10)

    def start_from(self, length: int) -> None:
        """Begin as the mean of about the latest `length` signals."""
        distances = torch.tensor([0.0] + [1.5 * 2**k - 0.5 for k in range(STEP_BUCKETS - 1)])
        beyond = torch.log2((distances + 1) / length).clamp(min=0)
        with torch.no_grad():
            self.pool_by_step.weight.copy_((-4 * beyond)[:, None].expand(-1, self.shape.outputs))

    def forward(self, batch: Batch, places: Tensor) -> Tensor:
        """Look ahead from some places (b, p) int64 of each history: (b, p, outputs, dimensions) float32 unit vectors.

        What is seen from a place depends on the signals up to it alone.
        """
        n = batch.valid.shape[1]
        order = torch.arange(n, device=places.device)
        steps = _steps(order[:, None] - order[None, :])
        # Padding lies behind, so that looking back from a signal never meets it.
        ahead = torch.zeros(n, n, device=places.device).masked_fill(order[None, :] > order[:, None], float("-inf"))
        state = self.dropout(self._embed(batch))
        for block in self.blocks:
            state = block(state, steps, ahead)
        state = self.norm(state)
        rows = torch.arange(len(places), device=places.device)[:, None]
        here = state[rows, places]
        outputs = self.shape.outputs
        queries = self.queries(here).unflatten(-1, (outputs, -1)).transpose(1, 2)
        scores = queries @ self.keys(state)[:, None].transpose(-1, -2) / math.sqrt(queries.shape[-1])
        gaps = _gaps(batch.seconds[rows, places][:, :, None] - batch.seconds[:, None, :])
        distances = places[:, :, None] - order
        bias = self.pool_by_gap(gaps) + self.pool_by_step(_steps(distances))
        unseen = (distances < 0)[:, None]
        scores = (scores + bias.permute(0, 3, 1, 2)).masked_fill(unseen, float("-inf"))
        mean = (torch.softmax(scores, dim=-1) @ batch.vectors[:, None]).transpose(1, 2)
        moved = mean + self.shift(here).unflatten(-1, (outputs, -1))
        unit: Tensor = functional.normalize(moved, dim=-1)
        return unit

    def _embed(self, batch: Batch) -> Tensor:
        since_last = functional.pad(_gaps(batch.seconds.diff(dim=1)), (1, 0), value=GAP_BUCKETS - 1)
        hour = batch.seconds.remainder(86_400) / 86_400 * 2 * math.pi
        day = batch.seconds.remainder(7 * 86_400) / (7 * 86_400) * 2 * math.pi
        clock = torch.stack([hour.sin(), hour.cos(), day.sin(), day.cos()], dim=-1).float()
        numbers = torch.cat([clock, batch.weights[..., None]], dim=-1)
        places: Tensor = self.surface_in(batch.contexts[..., 0]) + self.device_in(batch.contexts[..., 1])
        embedded: Tensor = self.vector_in(batch.vectors) + self.gap_in(since_last) + self.action_in(batch.actions)
        numbered: Tensor = self.numbers_in(numbers)
        return embedded + numbered + places


class Block(nn.Module):
    """One pre-norm layer: attention with a learnt bias by distance, then a feed-forward net."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.projected = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.by_step = nn.Embedding(STEP_BUCKETS, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.by_step.weight)

    def forward(self, state: Tensor, steps: Tensor, ahead: Tensor) -> Tensor:
        """(b, n, width), distances (n, n) int64, mask of what lies ahead (n, n) → (b, n, width)."""
        projected = self.projected(self.attention_norm(state)).unflatten(-1, (3, self.heads, -1))
        query, key, value = (part.transpose(1, 2) for part in projected.unbind(2))
        bias = self.by_step(steps).permute(2, 0, 1) + ahead
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        state = state + self.dropout(self.joined(seen.transpose(1, 2).flatten(2)))
        fed: Tensor = self.feed(self.feed_norm(state))
        left: Tensor = state + self.dropout(fed)
        return left


def _gaps(seconds: Tensor) -> Tensor:
    """Buckets of time gaps; what lies ahead counts as no gap."""
    return torch.log2(1 + seconds.clamp(min=0) / 60).long().clamp(max=GAP_BUCKETS - 1)


def _steps(distances: Tensor) -> Tensor:
    """Buckets of distances in signals."""
    return torch.ceil(torch.log2(1.0 + distances.clamp(min=0))).long().clamp(max=STEP_BUCKETS - 1)
