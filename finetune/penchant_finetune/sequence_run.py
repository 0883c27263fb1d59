"""`train --sequence`: the sequence model of a run, on the vectors of the run's adapter."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from penchant_finetune.corpus import VALIDATION
from penchant_finetune.evaluate import open_tuned
from penchant_finetune.next_items import encode_signals
from penchant_finetune.prepare import Prepared, standing
from penchant_finetune.run import held, run_of
from penchant_finetune.sequence import SequenceSettings, train_sequence
from penchant_finetune.sequence_data import prepared_log
from penchant_pipelines.encoder.batching import cores
from penchant_pipelines.recommend.sequence import FILE

ABOUT = "sequence.json"


@dataclass(frozen=True, slots=True)
class Gain:
    """NDCG@10 on the validation part before training, where it is the mean of the last signals, and of the best state.

    Equal where no step beat the start, which was kept.
    """

    start: float
    best: float


def train_run_sequence(prepared: Prepared, folder: Path, seed: int = 0, threads: int = 0) -> Gain:
    """Train on all but the test part and write sequence.safetensors and sequence.json into the run's folder.

    The validation part says when to stop; a model that is there by the same settings is not trained anew. Raises
    WrongState where the folder holds no run of this prepared folder, or another `train` works on it, InvalidInput where
    the log is too short.
    """
    with held(folder):
        return _train_run_sequence(prepared, folder, seed, threads)


def _train_run_sequence(prepared: Prepared, folder: Path, seed: int, threads: int) -> Gain:
    started = time.monotonic()
    run_of(prepared, folder)
    encoder = open_tuned(prepared, folder)
    chosen = prepared.manifest.settings
    settings = SequenceSettings(seed=seed, validation_share=1 - chosen.validation_from / chosen.test_from)
    asked = {"settings": asdict(settings), "space_id": encoder.space_id}
    if (folder / FILE).is_file() and (folder / ABOUT).is_file():
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if all(about.get(name) == value for name, value in asked.items()) and "validation" in about:
            return Gain(**about["validation"])
    rows = np.flatnonzero(standing(prepared, VALIDATION))
    log = prepared_log(prepared, encode_signals(prepared, rows, encoder), rows)
    torch.set_num_threads(threads or cores())
    # Were this interrupted while it writes, a half model or another's would pass for the one told of there.
    (folder / ABOUT).unlink(missing_ok=True)
    found: list[float] = []
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def report(step: int, values: dict[str, float]) -> None:
            found.append(values["ndcg@10"])
            for name, value in values.items():
                writer.add_scalar(f"sequence/{name}", value, step)

        train_sequence(log, encoder.space_id, folder, settings, report)
    gain = Gain(found[0], max(found))
    about = {**asked, "users": len(log.users), "validation": asdict(gain)}
    about["seconds"] = round(time.monotonic() - started, 1)
    whole = folder / f"{ABOUT}.new"
    whole.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    whole.replace(folder / ABOUT)
    return gain
