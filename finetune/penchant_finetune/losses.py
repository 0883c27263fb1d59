"""Losses: of pairs, with in-batch negatives less whatever is known to be none; and of graded pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import Tensor, nn
from torch.nn import functional

from penchant_finetune.corpus import Ints

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


_PASS = 32
"""Texts that pass together, all of about one length."""


class BoundedLoss(CachedLossMixin, nn.Module):
    """A loss over a whole batch within a bound of memory, by gradient caching (Gao et al. 2021).

    `tokens_in_memory`: padded tokens that what is needed for the way back is kept of at once. A batch that holds more
    goes through the model twice, 32 texts at a time.

    `dimensions`: lengths that vectors may be cut to (Kusupati et al. 2022, Matryoshka); empty for the whole only.
    """

    def __init__(self, model: SentenceTransformer, tokens_in_memory: int, dimensions: Sequence[int] = ()) -> None:
        super().__init__()
        self.model = model
        self.tokens_in_memory = tokens_in_memory
        self.dimensions = tuple(dimensions)
        self.mini_batch_size = _PASS
        self._orders: list[Tensor] = []

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Embed the columns and compare.

        Texts pass with others of about their length, so that one long text doesn't widen the whole batch.
        """
        orders = []
        columns = []
        tokens = 0
        for column in sentence_features:
            lengths, order = column["attention_mask"].sum(dim=1).sort(stable=True)
            tokens += sum(len(part) * int(part.max()) for part in torch.split(lengths, _PASS))
            orders.append(order.argsort())
            columns.append({name: _sorted(value, order) for name, value in column.items()})
        self._orders = orders
        if tokens > self.tokens_in_memory:
            return self.forward_cached(columns, labels)
        reps = [[vectors for vectors, _ in self.embed_minibatch_iter(column, True, False)] for column in columns]
        return self.calculate_loss(reps, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Loss of a batch from its columns' embeddings, each (b, d) in mini-batches and sorted by length."""
        assert labels is not None  # noqa: S101 - the data set has them
        columns = [torch.cat(column).float()[order] for column, order in zip(reps, self._orders, strict=True)]
        loss = self.compare(columns, labels)
        if with_backward:
            loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def compare(self, columns: list[Tensor], labels: Tensor) -> Tensor:
        """Loss of the columns' embeddings, (b, d) each: the mean over the lengths."""
        raise NotImplementedError


class GradedLoss(BoundedLoss):
    """CoSENT (Huang et al. 2024): of two pairs the one graded higher shall be the nearer.

    Labels are (b,) grades.
    """

    def __init__(self, model: SentenceTransformer, tokens_in_memory: int, dimensions: Sequence[int] = ()) -> None:
        super().__init__(model, tokens_in_memory, dimensions)
        self._cosent = CoSENTLoss(model)

    def compare(self, columns: list[Tensor], labels: Tensor) -> Tensor:
        """Mean loss over the lengths."""
        lengths = self.dimensions or (columns[0].shape[1],)
        cut = ([column[:, :length] for column in columns] for length in lengths)
        return torch.stack([self._cosent.compute_loss_from_embeddings(each, labels) for each in cut]).mean()


class UserAwareRankingLoss(BoundedLoss):
    """Symmetric InfoNCE over a batch (van den Oord et al. 2018).

    sentence-transformers' CachedMultipleNegativesRankingLoss, but a text is no negative for an anchor if the row's
    user touched it in the training part, if some row of the training part pairs the two, or if it is the same text.
    And as texts of many pairs are negatives more often than others, each score is lowered by the log of the text's
    share of the pairs (Yi et al. 2019, logQ correction): without it what is popular is pushed away from everything.
    Labels are int64 (b, 3 or 4): user, anchor, positive and, where there is one, negative.

    `pairs` (n, 3): anchor, positive and negative of each row of the training part, −1 for no negative.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        touched: Ints,
        pairs: Ints,
        text_count: int,
        temperature: float,
        tokens_in_memory: int,
        dimensions: Sequence[int] = (),
    ) -> None:
        super().__init__(model, tokens_in_memory, dimensions)
        self.text_count = text_count
        self.temperature = temperature
        self.touched: Tensor
        self.paired: Tensor
        self.shares: Tensor
        both = torch.from_numpy(pairs[:, :2])
        counts = [np.bincount(column[column >= 0], minlength=text_count) for column in pairs.T]
        shares = np.log(np.maximum(counts, 1) / max(len(pairs), 1)).astype(np.float32)
        self.register_buffer("touched", self._codes(torch.from_numpy(touched)), persistent=False)
        self.register_buffer("paired", self._codes(torch.cat([both, both.flip(1)])), persistent=False)
        self.register_buffer("shares", torch.from_numpy(shares), persistent=False)

    def compare(self, columns: list[Tensor], labels: Tensor) -> Tensor:
        """Mean loss over the lengths."""
        anchors, *documents = columns
        excluded = self.excluded(labels)
        excluded_back = self._excluded_back(labels, excluded)
        asked, *found = (shares[column] for shares, column in zip(self.shares, labels.T[1:], strict=False))
        losses = []
        for length in self.dimensions or (anchors.shape[1],):
            queries = functional.normalize(anchors[:, :length], dim=1)
            answers = functional.normalize(torch.cat(documents)[:, :length], dim=1)
            scores = queries @ answers.T / self.temperature
            target = torch.arange(len(queries), device=scores.device)
            there = functional.cross_entropy((scores - torch.cat(found)).masked_fill(excluded, -torch.inf), target)
            back = (scores[:, : len(queries)].T - asked).masked_fill(excluded_back, -torch.inf)
            losses.append((there + functional.cross_entropy(back, target)) / 2)
        return torch.stack(losses).mean()

    def excluded(self, labels: Tensor) -> Tensor:
        """Which documents (positives, then negatives) are no negatives for which anchors: bool (b, n)."""
        users, anchors = labels[:, :1], labels[:, 1:2]
        documents = labels[:, 2:].T.reshape(1, -1)
        found = self._among(users, documents, self.touched) | self._among(anchors, documents, self.paired)
        found |= (documents == anchors) | (documents == labels[:, 2:3])
        return self._spare_own(found, labels, users == users.T)

    def _excluded_back(self, labels: Tensor, excluded: Tensor) -> Tensor:
        """Which anchors are no negatives for which positives: bool (b, b)."""
        users, anchors = labels[:, :1], labels[:, 1:2]
        found = excluded[:, : len(labels)].T | self._among(users, anchors.T, self.touched)
        return self._spare_own(found | (anchors == anchors.T), labels, users == users.T)

    def _spare_own(self, found: Tensor, labels: Tensor, same_user: Tensor) -> Tensor:
        """Exclude all other rows of the same user; keep each row's own positive in."""
        count = len(labels)
        found[:, :count] |= same_user
        rows = torch.arange(count, device=found.device)
        found[rows, rows] = False
        return found

    def _codes(self, table: Tensor) -> Tensor:
        codes: Tensor = torch.unique(table[:, 0] * self.text_count + table[:, 1])
        return codes

    def _among(self, left: Tensor, right: Tensor, codes: Tensor) -> Tensor:
        found: Tensor = torch.isin(left * self.text_count + right, codes)
        return found


def _sorted(value: Any, order: Tensor) -> Any:
    """Rows of a feature in another order; what is not one row a text stays as it is."""
    return value[order] if isinstance(value, Tensor) and value.ndim and len(value) == len(order) else value
