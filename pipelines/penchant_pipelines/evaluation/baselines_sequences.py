"""Networks that foretell the next item from the sequence of the user's signals.

They are fitted when the log has grown by a half, which is when Penchant learns its mix, going on from the weights they
have; the user's own sequence is up to date at each question.
"""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from penchant_pipelines.evaluation.log import Past, Rows
from penchant_pipelines.evaluation.methods import Floats, Refit, Scorer
from penchant_pipelines.evaluation.protocol import Question
from penchant_pipelines.precision import in_half

LENGTH = 64
"""The latest signals of a user that a network sees."""
WIDTH = 64
DROPOUT = 0.3
BATCH = 24
NEGATIVES = 1024
STEPS = 150
CHECK_EVERY = 50
HELD_BACK = 0.1
"""The latest share of the signals so far, which tells what weights to keep."""
GROWTH = 1.5


class Network(nn.Module):
    """Reads a sequence of signals, as item ids or as text vectors, and gives for each place what is to come.

    As ids: SASRec (Kang & McAuley 2018), inputs and outputs being one table. As text: the item vectors are frozen, and
    the output starts as the mean of the signals so far, so that training begins at a sound baseline.
    """

    def __init__(
        self, items: NDArray[np.float32], by: Literal["ids", "text"], body: Literal["attention", "gru"]
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(len(items) + 1, WIDTH, padding_idx=0) if by == "ids" else None
        self.vectors = torch.from_numpy(items)
        self.into = nn.Linear(items.shape[1], WIDTH) if by == "text" else None
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, DROPOUT, batch_first=True, norm_first=True)
        self.layers = (
            nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
            if body == "attention"
            else nn.GRU(WIDTH, WIDTH, batch_first=True)
        )
        self.out = nn.Linear(WIDTH, items.shape[1])
        self.log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        nn.init.normal_(self.places.weight, std=0.02)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, rows: Tensor, vectors: Tensor, valid: Tensor) -> Tensor:
        """(b, n) rows, (b, n, d) vectors, (b, n) bool, padded in front → (b, n, d or width)."""
        n = rows.shape[1]
        if self.table is not None:
            state = self.table(rows + 1) * WIDTH**0.5
        else:
            assert self.into is not None  # noqa: S101 - one of both
            state = self.into(vectors) * valid[..., None]
        if isinstance(self.layers, nn.GRU):
            state = self.layers(self.dropout(state))[0]
        else:
            ahead = torch.ones(n, n, dtype=torch.bool).triu(1)
            # Padding is hidden, but for itself, lest a row see nothing.
            hidden = (ahead[None] | ~valid[:, None, :]) & ~torch.eye(n, dtype=torch.bool)
            state = self.layers(self.dropout(state + self.places.weight[-n:]), mask=hidden.repeat_interleave(2, dim=0))
        if self.table is not None:
            left: Tensor = self.dropout(state)
            return left
        counts = valid.cumsum(dim=1).clamp(min=1)
        mean = (vectors * valid[..., None]).cumsum(dim=1) / counts[..., None]
        return functional.normalize(functional.normalize(mean, dim=-1) + self.out(state), dim=-1)

    def logits(self, found: Tensor, rows: Tensor | None = None) -> Tensor:
        """Scores of the items in some rows, or of all: (k, …) · (r,) → (k, r)."""
        if self.table is not None:
            items, scaled = self.table.weight[1:] if rows is None else self.table.weight[rows + 1], found
        else:
            items = self.vectors if rows is None else self.vectors[rows]
            scaled = found * self.log_scale.exp().clamp(max=100)
        scores: Tensor = scaled @ items.T
        return scores


class SequenceBaseline(Scorer):
    """A network over sequences of item ids or of text vectors."""

    def __init__(
        self, seed: int, name: str, by: Literal["ids", "text"], body: Literal["attention", "gru"] = "attention"
    ) -> None:
        super().__init__(seed)
        self.name = name
        self._by: Literal["ids", "text"] = by
        self._body: Literal["attention", "gru"] = body
        self._refit = Refit(GROWTH)
        self._network: Network | None = None
        # More threads than one wait for each other in layers as small as these, and sums depend on their number.
        torch.set_num_threads(1)

    def learn(self, past: Past) -> None:
        """Train, if it is time."""
        if self._refit.due(len(past)):
            torch.manual_seed(self.seed)
            self._network = self._network or Network(past.catalogue.vectors, self._by, self._body)
            self._train(self._network, past)

    def score(self, past: Past, question: Question) -> Floats:
        """Score by what is to come after the last signal."""
        places = self._sequence(past, question.user)
        if self._network is None or not len(places):
            return np.zeros((1, len(past.catalogue)))
        with torch.inference_mode():
            found = self._network(*_batch(past, [places[-LENGTH:]]))[:, -1]
            scores: Floats = self._network.logits(found).double().numpy()
        return scores

    def _sequence(self, past: Past, user: int) -> Rows:
        liked = past.liked(user)
        return liked[past.rows[liked] >= 0] if self._by == "ids" else liked

    def _train(self, network: Network, past: Past) -> None:
        """Next item by sampled softmax; keeps the state of least loss on what is held back."""
        held_from = int((1 - HELD_BACK) * len(past))
        whole = [self._sequence(past, user) for user in range(past.user_count)]
        early = [places[places < held_from] for places in whole]
        early = [places for places in early if len(places) > 1]
        late = [places[-LENGTH - 1 :] for places in whole if len(places) > 1 and places[-1] >= held_from][:200]
        if not early or not late:
            return
        dice = np.random.default_rng([self.seed, len(past)])
        # By the square root of what they do: the busiest would drown the others otherwise.
        shares = np.sqrt([len(places) for places in early])
        frequency = _frequency(past, early, shares)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
        best, kept = np.inf, copy.deepcopy(network.state_dict())
        for step in range(STEPS + 1):
            if step % CHECK_EVERY == 0:
                network.eval()
                with torch.inference_mode():
                    held = np.random.default_rng(self.seed)
                    found = float(self._loss(network, past, late, frequency, held, held_from))
                if found < best:
                    best, kept = found, copy.deepcopy(network.state_dict())
                network.train()
            drawn = [early[i] for i in dice.choice(len(early), BATCH, p=shares / shares.sum())]
            ends = [int(dice.integers(2, len(places) + 1)) for places in drawn]
            cut = [places[max(0, end - LENGTH - 1) : end] for places, end in zip(drawn, ends, strict=True)]
            loss = self._loss(network, past, cut, frequency, dice, 0)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        network.load_state_dict(kept)
        network.eval()

    def _loss(
        self,
        network: Network,
        past: Past,
        sequences: list[Rows],
        frequency: NDArray[np.float64],
        dice: np.random.Generator,
        start: int,
    ) -> Tensor:
        """Cross entropy of each next item, from the signal at `start` on, against the others' and random items.

        Corrected for how likely each is drawn (logQ, Yi et al. 2019): popular items would be pushed down otherwise.
        """
        rows, vectors, valid = _batch(past, [places[:-1] for places in sequences])
        targets = np.full(rows.shape, -1)
        for line, places in zip(targets, sequences, strict=True):
            later = places[1:]
            line[len(line) - len(later) :] = np.where(later >= start, past.rows[later], -1)
        asked = torch.from_numpy(targets >= 0)
        wanted = targets[targets >= 0]
        if not len(wanted):
            return torch.zeros((), requires_grad=True)
        pool = np.unique(np.concatenate([wanted, dice.integers(0, len(past.catalogue), NEGATIVES)]))
        expected = len(wanted) * frequency[pool] + NEGATIVES / len(past.catalogue)
        correction = torch.from_numpy(np.log(-np.expm1(-expected))).float()
        found = network(rows, vectors, valid)[asked]
        # Most of a step, and what tells them apart is far above what is lost.
        with in_half("cpu"):
            logits = network.logits(found, torch.from_numpy(pool))
        return functional.cross_entropy(logits.float() - correction, torch.from_numpy(np.searchsorted(pool, wanted)))


def _frequency(past: Past, sequences: list[Rows], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often each item is a target, (catalogue,) of sum 1, where sequences are drawn in proportion to `shares`."""
    counts = np.zeros(len(past.catalogue))
    for places, share in zip(sequences, shares, strict=True):
        rows = past.rows[places[1:]]
        np.add.at(counts, rows[rows >= 0], share / len(rows))
    frequency: NDArray[np.float64] = counts / max(counts.sum(), 1e-12)
    return frequency


def _batch(past: Past, sequences: list[Rows]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, vectors and validity of some sequences of places, padded in front."""
    longest = max(len(places) for places in sequences)
    padded = np.stack([np.pad(places, (longest - len(places), 0), constant_values=-1) for places in sequences])
    valid = padded >= 0
    rows = np.where(valid, past.rows[padded], -1)
    vectors = past.vectors[padded] * valid[..., None].astype(np.float32)
    return torch.from_numpy(rows), torch.from_numpy(vectors), torch.from_numpy(valid)
