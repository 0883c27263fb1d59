"""SASRec by item ids (Kang & McAuley 2018, Self-Attentive Sequential Recommendation), to measure against.

With the softmax over all items as loss in place of one random negative: stronger, and what later comparisons use
(Klenitskiy & Vasilev 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from penchant_finetune.sequence_data import Query, Scorer, SequenceLog, by_user, queries, rank

LENGTH = 128


class SASRec(nn.Module):
    """Two layers of causal attention over embedded item ids; id 0 is padding."""

    def __init__(self, items: int, width: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, width, padding_idx=0)
        self.places = nn.Embedding(LENGTH, width)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(width, 2, width * 2, dropout, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """(b, n) ids, padded in front → (b, n, width)."""
        n = ids.shape[1]
        state = self.dropout(self.items(ids) * self.items.embedding_dim**0.5 + self.places.weight[-n:])
        ahead = torch.ones(n, n, dtype=torch.bool).triu(1)
        # Padding is in front: hidden, but for itself, lest a row see nothing.
        mask = (ahead[None] | (ids == 0)[:, None, :]) & ~torch.eye(n, dtype=torch.bool)
        found: Tensor = self.layers(state, mask=mask.repeat_interleave(2, dim=0))
        return found


def sequences(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids of the latest items, padded in front to LENGTH + 1."""
    ids = rows[rows >= 0][-(LENGTH + 1) :] + 1
    return np.pad(ids, (LENGTH + 1 - len(ids), 0))


def train(log: SequenceLog, split: int, end: int, seed: int, steps: int = 1000, patience: int = 4) -> SASRec:
    """Train on what lies before `split` (µs), stop on the queries from there to `end`."""
    torch.manual_seed(seed)
    dice = np.random.default_rng(seed)
    users = [user.rows[(user.rows >= 0) & (user.history.weights > 0)] for user in log.before(split).users]
    users = [rows for rows in users if len(rows) > 1]
    shares = np.array([len(rows) for rows in users]) / sum(len(rows) for rows in users)
    asked = queries(log, split, end)
    asked = [asked[i] for i in np.linspace(0, len(asked) - 1, min(600, len(asked))).astype(int)]
    model = SASRec(len(log.items))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    best, kept, since = -1.0, copy.deepcopy(model.state_dict()), 0
    for step in range(1, steps + 1):
        model.train()
        drawn = [users[i] for i in dice.choice(len(users), 16, p=shares)]
        cut = [rows[: int(dice.integers(2, len(rows) + 1))] for rows in drawn]
        ids = torch.from_numpy(np.stack([sequences(rows) for rows in cut]))
        wanted = ids[:, 1:][ids[:, 1:] > 0]
        state = model(ids[:, :-1])[ids[:, 1:] > 0]
        picked = torch.randperm(len(wanted))[:512]
        loss = functional.cross_entropy(state[picked] @ model.items.weight[1:].T, wanted[picked] - 1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 100 == 0:
            found = float(by_user(asked, rank(asked, scorer(model)))[:, 2].mean())
            since = 0 if found > best else since + 1
            if found > best:
                best, kept = found, copy.deepcopy(model.state_dict())
            if since >= patience:
                break
    model.load_state_dict(kept)
    return model


def scorer(model: SASRec) -> Scorer:
    """Scores of all items from the state after the last one."""
    model.eval()

    def scores(asked: Sequence[Query]) -> NDArray[np.float32]:
        ids = np.stack([sequences(q.user.rows[: q.end][q.user.history.weights[: q.end] > 0])[1:] for q in asked])
        with torch.inference_mode():
            found: NDArray[np.float32] = (model(torch.from_numpy(ids))[:, -1] @ model.items.weight[1:].T).numpy()
        return found

    return scores
