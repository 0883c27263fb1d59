"""Train and evaluate the sequence model, which foretells what a user will take to next."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from penchant_finetune.sequence_data import (
    METRICS,
    Query,
    Scorer,
    SequenceLog,
    UserLog,
    by_user,
    queries,
    rank,
)
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.recommend.sequence import FILE, LATEST, SequenceModel, to_batch
from penchant_pipelines.recommend.sequence_network import Network, Shape
from penchant_pipelines.statistics import Bootstrap

VALIDATION_SHARE = 0.15
_NONE = np.zeros(0, dtype=np.int64)
MEAN_LENGTHS = (1, 2, 3, 5, 10, 20, 50, 100)
"""How many of the latest signals the baseline may average; the best on validation data is taken."""


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """How to train. The defaults were measured on three logs (benchmarks/sequence.py)."""

    seed: int = 0
    width: int = 128
    dropout: float = 0.3
    reach: int = 16
    """Most fresh items of the next day to choose a target from."""
    batch: int = 16
    positions: int = 24
    """Places in each history to foretell from, a step."""
    negatives: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    steps: int = 400
    """Most steps in each of the two stages."""
    check_every: int = 50
    patience: int = 4
    validation_share: float = VALIDATION_SHARE
    """Latest share of the signals that decides when to stop; nothing is fitted to it."""


def train_sequence(
    log: SequenceLog,
    space_id: str,
    folder: Path | None = None,
    settings: SequenceSettings | None = None,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> SequenceModel:
    """Train on a log, keep the state best on its latest part, and write `sequence.safetensors` to a folder.

    `report` hears of the step, its loss and validation NDCG@10, for instance to log them. Deterministic for a seed.
    Raises InvalidInput where the log is too short to learn from or to stop on.
    """
    chosen = settings or SequenceSettings()
    split = log.time_at(1 - chosen.validation_share)
    past = log.before(split)
    checked = _thinned(queries(log, split, 2**62), 300)
    feed = Feed(past, chosen)
    if not checked or not feed.users:
        raise InvalidInput.at(
            "signals", "are too few: some users need two days or more with new items, before and after the split"
        )
    torch.manual_seed(chosen.seed)
    network = Network(Shape(log.items.shape[1], chosen.width), chosen.dropout)
    network.start_from(best_mean(log, split, 2**62))
    items = torch.from_numpy(log.items)
    best, kept = -1.0, copy.deepcopy(network.state_dict())
    step = 0
    # Which signals count comes first; directions beyond those the user showed are learnt where that still helps.
    for shifts in (False, True):
        network.load_state_dict(kept)
        network.shift.requires_grad_(shifts)
        optimizer = torch.optim.AdamW(network.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay)
        since, losses = 0, list[float]()
        for turn in range(chosen.steps + 1):
            if turn % chosen.check_every == 0:
                found = float(by_user(checked, rank(checked, scorer(network.eval(), items)))[:, 2].mean())
                if report is not None:
                    report(step, {"loss": float(np.mean(losses)) if losses else math.nan, "ndcg@10": found})
                losses.clear()
                since = 0 if found > best else since + 1
                if found > best:
                    best, kept = found, copy.deepcopy(network.state_dict())
                if since >= chosen.patience or turn == chosen.steps:
                    break
            network.train()
            for group in optimizer.param_groups:
                group["lr"] = chosen.learning_rate * _pace(turn / chosen.steps, chosen.steps)
            loss = feed.loss(network, items)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            step += 1
    network.load_state_dict(kept)
    model = SequenceModel(network, space_id)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / FILE)
    return model


class Feed:
    """Draws places in users' histories and what came after them, and tells how well a network foretold it."""

    def __init__(self, log: SequenceLog, settings: SequenceSettings) -> None:
        self.settings = settings
        self.dice = np.random.default_rng(settings.seed)
        self.users = [user for user in log.users if _foretells(user)]
        # Users in proportion to the square root of what they do: the busiest would drown the others otherwise.
        shares = np.sqrt([user.fresh.sum() for user in self.users])
        self.shares = shares / shares.sum() if self.users else shares
        counts = np.bincount(
            np.concatenate([_NONE, *(user.rows[user.fresh] for user in log.users)]), minlength=len(log.items)
        )
        self.frequency = counts / max(counts.sum(), 1)

    def loss(self, network: Network, items: Tensor) -> Tensor:
        """Sampled softmax over targets of the batch and random items, corrected for how likely each is drawn.

        The correction (logQ, Yi et al. 2019) makes it an estimate of the softmax over the whole catalogue.
        """
        settings, dice = self.settings, self.dice
        drawn = [self.users[i] for i in dice.choice(len(self.users), settings.batch, p=self.shares)]
        cuts, places, owners, targets = [], [], [], []
        for number, user in enumerate(drawn):
            end = int(dice.integers(2, len(user.rows) + 1))
            start = max(0, end - LATEST)
            cuts.append(user.history.part(start, end))
            found = self._targets(user, start, end)
            places.append([place for place, _ in found])
            owners += [number] * len(found)
            targets += [target for _, target in found]
        if not targets:
            return torch.zeros((), requires_grad=True)
        wanted = np.array(targets)
        pool = np.unique(np.concatenate([wanted, dice.integers(0, len(items), settings.negatives)]))
        expected = len(targets) * self.frequency[pool] + settings.negatives / len(items)
        correction = torch.from_numpy(np.log(-np.expm1(-expected))).float()
        most = max(map(len, places))
        used = torch.tensor([[number < len(line) for number in range(most)] for line in places])
        looked = network(to_batch(cuts), torch.tensor([line + [0] * (most - len(line)) for line in places]))[used]
        logits = (looked @ items[pool].T).amax(dim=1) * network.log_scale.exp().clamp(max=100) - correction
        own = np.stack([np.isin(pool, user.rows[user.fresh]) for user in drawn])[owners]
        labels = np.searchsorted(pool, wanted)
        own[np.arange(len(labels)), labels] = False
        logits = logits.masked_fill(torch.from_numpy(own), float("-inf"))
        return functional.cross_entropy(logits, torch.from_numpy(labels))

    def _targets(self, user: UserLog, start: int, end: int) -> list[tuple[int, int]]:
        """Places within a cut, each with one fresh item of a later day."""
        settings, dice = self.settings, self.dice
        days = user.history.times // MICROS_PER_DAY
        fresh = np.flatnonzero(user.fresh)
        found = []
        count = min(settings.positions, end - start)
        for place in dice.choice(end - start, count, replace=False):
            at = start + int(place)
            ahead = fresh[np.searchsorted(fresh, at + 1) :]
            ahead = ahead[np.searchsorted(days[ahead], days[at] + 1) :]
            if not len(ahead):
                continue
            ahead = ahead[days[ahead] == days[ahead[0]]][: settings.reach]
            found.append((int(place), int(user.rows[dice.choice(ahead)])))
        return found


def scorer(network: Network, items: Tensor) -> Scorer:
    """Scores by the nearest of a network's outputs."""

    def scores(asked: Sequence[Query]) -> NDArray[np.float32]:
        batch = to_batch([query.history for query in asked])
        with torch.inference_mode():
            outputs = network(batch, batch.valid.sum(dim=1, keepdim=True) - 1)[:, 0]
            found: NDArray[np.float32] = functools.reduce(torch.maximum, (outputs @ items.T).unbind(1)).numpy()
        return found

    return scores


def mean_scorer(items: NDArray[np.float32], length: int) -> Scorer:
    """Scores by the mean of the latest signals that speak in favour."""

    def scores(asked: Sequence[Query]) -> NDArray[np.float32]:
        means = np.zeros((len(asked), items.shape[1]), dtype=np.float32)
        for row, query in enumerate(asked):
            history = query.history
            liked = history.vectors[history.weights > 0][-length:]
            means[row] = liked.mean(axis=0) if len(liked) else history.vectors[-1]
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
        found: NDArray[np.float32] = means @ items.T
        return found

    return scores


def best_mean(log: SequenceLog, start: int, end: int) -> int:
    """How many of the latest signals to average, by NDCG@10 on the queries of a span of time; 100 where none is."""
    asked = _thinned(queries(log, start, end), 1500)
    if not asked:
        return MEAN_LENGTHS[-1]
    found = [by_user(asked, rank(asked, mean_scorer(log.items, n)))[:, 2].mean() for n in MEAN_LENGTHS]
    return MEAN_LENGTHS[int(np.argmax(found))]


def evaluate_sequence(
    model: SequenceModel, log: SequenceLog, start: int | Mapping[int, int], validation_share: float = VALIDATION_SHARE
) -> dict[str, Any]:
    """Measure a model, trained on what lies before `start` (µs), from there on, beside the mean of the last signals.

    `start` may be each user's own.

    Full ranking over the catalogue less what the user has seen; each figure is [mean, low, high], 95 % by bootstrap
    over users, [mean] of one user. `better` says whether the interval of the NDCG@10 difference lies above zero.
    """
    asked = queries(log, start, 2**62)
    if not asked:
        raise InvalidInput.at("signals", "hold no later part to measure on: give a longer log")
    past = log.before(start)
    length = best_mean(past, past.time_at(1 - validation_share), 2**62)
    ours = by_user(asked, rank(asked, scorer(model.network, torch.from_numpy(log.items))))
    mean = by_user(asked, rank(asked, mean_scorer(log.items, length)))
    difference = figures(ours - mean)
    return {
        "queries": len(asked),
        "users": len(ours),
        "mean_length": length,
        "methods": {"sequence": figures(ours), "mean": figures(mean)},
        "against": {"mean": difference},
        "better": len(ours) > 1 and difference["ndcg@10"][1] > 0,
    }


def figures(values: NDArray[np.float64], names: Sequence[str] = METRICS) -> dict[str, list[float]]:
    """Each figure's mean over users, (users, figures), and its 95 % interval; of one user the mean alone."""
    draws, ends = Bootstrap(len(values)), 3 if len(values) > 1 else 1
    return {name: list(draws.interval(values[:, column]))[:ends] for column, name in enumerate(names)}


def _pace(done: float, steps: int) -> float:
    """Share of the learning rate: up over 20 steps, down to nothing as a cosine."""
    return min(1.0, done * steps / 20 + 0.05) * (0.5 + 0.5 * math.cos(math.pi * done))


def _foretells(user: UserLog) -> bool:
    """Whether there is a later day with something fresh."""
    days = user.history.times // MICROS_PER_DAY
    fresh = days[user.fresh]
    return bool(len(fresh)) and bool(fresh[-1] > days[0])


def _thinned(asked: list[Query], most: int) -> list[Query]:
    if len(asked) <= most:
        return asked
    return [asked[i] for i in np.linspace(0, len(asked) - 1, most).astype(int)]
