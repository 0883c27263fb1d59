"""The sequence model against the mean of the last signals and against SASRec by item ids.

    .venv/bin/python benchmarks/sequence.py --items ITEMS.jsonl.gz --signals SIGNALS.jsonl.gz --seeds 3

One split by time for all: nothing is fitted on the latest 20 % of the signals, the 15 % before it decide when training
stops. Asked day by day with all that lies before the day; ranked over the whole catalogue less what the user has seen.
Prints JSON: recall@10, recall@50 and NDCG@10 of each method with 95 % intervals by bootstrap over users, and paired
differences. Vectors are kept in .cache/benchmarks, by embedding space.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sasrec
import torch
from numpy.typing import NDArray
from serving import read

from penchant import convert
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.signal_pb2 import Signal
from penchant_finetune.log import read_log
from penchant_finetune.prepare import joined
from penchant_finetune.sequence import (
    SequenceSettings,
    best_mean,
    figures,
    mean_scorer,
    scorer,
    train_sequence,
)
from penchant_finetune.sequence_data import SequenceLog, by_user, queries, rank, sequence_log
from penchant_pipelines.encoder import Encoder, EncoderSettings, open_encoder
from penchant_pipelines.interests.settings import InterestSettings
from penchant_pipelines.text import TextPipeline, TextSettings

CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks"
TEST_SHARE = 0.2
SPLIT_SHARE = 0.15


def main() -> int:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, required=True, help="JSON Lines of items")
    parser.add_argument("--signals", type=Path, required=True, help="JSON Lines of signals")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each learnt model")
    parser.add_argument("--adapter", type=Path, help="adapter of the encoder (default: the embedded one)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a training setting")
    options = parser.parse_args()
    encoder = open_encoder(EncoderSettings(adapter=options.adapter))
    log = read_files(options.items, options.signals, encoder)
    changes = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in options.set)}
    print(json.dumps(measure(log, encoder.space_id, options.seeds, changes), indent=1))
    return 0


def measure(log: SequenceLog, space_id: str, seeds: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Train and measure every method on one log."""
    end = log.time_at(1 - TEST_SHARE)
    past = log.before(end)
    split = past.time_at(1 - SPLIT_SHARE)
    asked = queries(log, end, 2**62)
    length = best_mean(past, split, end)
    items = torch.from_numpy(log.items)

    def users(method: Any) -> NDArray[np.float64]:
        return by_user(asked, rank(asked, method))

    popularity = np.bincount(np.concatenate([user.rows[user.fresh] for user in past.users]), minlength=len(log.items))
    found = {
        "mean": users(mean_scorer(log.items, length)),
        "popularity": users(lambda part: np.repeat(popularity[None].astype(np.float32), len(part), axis=0)),
    }
    ours, ids = [], []
    for seed in range(seeds):
        settings = SequenceSettings(**{"seed": seed, "validation_share": SPLIT_SHARE, **changes})
        model = train_sequence(past, space_id, settings=settings, report=_tell)
        ours.append(users(scorer(model.network, items)))
        ids.append(users(sasrec.scorer(sasrec.train(past, split, end, seed))))
    found |= {"sequence": np.mean(ours, axis=0), "sasrec": np.mean(ids, axis=0)}
    return {
        "queries": len(asked),
        "users": len(found["mean"]),
        "items": len(log.items),
        "space_id": space_id,
        "mean_length": length,
        "methods": {name: _rounded(figures(values)) for name, values in found.items()},
        "sequence_by_seed_ndcg@10": [round(float(values[:, 2].mean()), 4) for values in ours],
        "sequence_against": {
            name: _rounded(figures(found["sequence"] - values)) for name, values in found.items() if name != "sequence"
        },
    }


def read_files(items_file: Path, signals_file: Path, encoder: Encoder) -> SequenceLog:
    """Read and encode a log."""
    items = (convert.to_item(message) for message in read(items_file, Item))
    signals = (convert.to_signal(message) for message in read(signals_file, Signal))
    log = read_log(items, signals, TextPipeline(TextSettings(), CACHE))
    written = [item.text for item in log.items] + [signal.text for signal in log.signals if signal.text]
    texts = list(dict.fromkeys(written))
    by_text = dict(zip(texts, encode(encoder, texts), strict=True))
    by_item = {item.id: by_text[item.text] for item in log.items}
    events = (
        (signal.user, replace(signal.evidence, vector=joined(by_text.get(signal.text), by_item.get(signal.item_id))))
        for signal in log.signals
    )
    contexts = {signal.id: {"surface": signal.surface, "device": signal.device} for signal in log.signals}
    catalogue = np.stack(list(by_item.values()))
    return sequence_log(list(by_item), catalogue, events, InterestSettings(), contexts)


def encode(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of texts, from the cache where these texts were encoded in this space before."""
    key = hashlib.sha256("\0".join([encoder.space_id, *texts]).encode()).hexdigest()[:24]
    path = CACHE / f"{key}.npy"
    if path.is_file():
        kept: NDArray[np.float32] = np.load(path)
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    blocks = []
    for start in range(0, len(texts), 2048):
        blocks.append(encoder.encode(texts[start : start + 2048]))
        print(f"encoded {start} of {len(texts)}", file=sys.stderr)
    vectors = np.concatenate(blocks)
    np.save(path, vectors)
    return vectors


def _tell(step: int, values: dict[str, float]) -> None:
    print(step, {name: round(value, 4) for name, value in values.items()}, file=sys.stderr)


def _rounded(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(value, 4) for value in numbers] for name, numbers in values.items()}


if __name__ == "__main__":
    raise SystemExit(main())
