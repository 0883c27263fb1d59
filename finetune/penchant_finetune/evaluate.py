"""`evaluate`: runs against the live encoder, by the next items of the later part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penchant_finetune.corpus import TEST
from penchant_finetune.lora import add_lora, load_lora
from penchant_finetune.next_items import (
    METRICS,
    Asked,
    Question,
    Values,
    encode_signals,
    measure,
    questions,
)
from penchant_finetune.pairs import Vectors
from penchant_finetune.prepare import Prepared
from penchant_finetune.run import ADAPTER, TrainSettings, load_run, run_of
from penchant_finetune.sequence import evaluate_sequence, figures
from penchant_finetune.sequence_data import prepared_log
from penchant_pipelines.encoder import Encoder, open_encoder
from penchant_pipelines.encoder.adapter import WEIGHTS
from penchant_pipelines.encoder.sentence import SentenceEncoder, adapter_digest, file_sha256, open_model
from penchant_pipelines.errors import WrongState
from penchant_pipelines.interests import Calibration, calibrate
from penchant_pipelines.recommend.sequence import FILE as SEQUENCE
from penchant_pipelines.recommend.sequence import SequenceModel

EVALUATION = "evaluation.json"
FEW_USERS = 10
"""Below so many, intervals by bootstrap are about a fifth too narrow, or more."""

Report = dict[str, Any]


def evaluate(prepared: Prepared, runs: Sequence[Path]) -> tuple[list[Report], list[Report]]:
    """Measure runs against the live encoder, paired by user; writes evaluation.json into each run's folder.

    Figures are [mean, low, high] with 95 % intervals by bootstrap over users, [mean] of one user; a user's figure is
    the mean over the items asked for, each looked for by itself. Where a run has a sequence model, `sequence` holds
    what that adds to the adapter's figures, and under `next items` how it does against the mean of the last signals:
    there recall and NDCG are of a day's items together, as `penchant_pipelines.metrics` has them. Where a run was
    trained for shorter vectors, too, `shorter` holds its figures by length. Second value: runs that only their seeds
    tell apart, taken together, each seed once; each user's figure is the mean over them.
    Raises WrongState where a run was not trained from this prepared folder, the live adapter was changed since that was
    made, or nothing can be asked.
    """
    loaded = [run_of(prepared, run) for run in runs]
    asked = questions(prepared)
    if not asked.questions:
        raise WrongState(
            "NOTHING_TO_MEASURE",
            f"no user takes to anything new in the test part of {str(prepared.folder)!r}; prepare a longer log, or "
            "with an earlier --test-from",
        )
    live = _measure_live(prepared, asked)
    reports = []
    measured: dict[tuple[TrainSettings, int], dict[int, dict[int, Values]]] = {}
    for folder, run in zip(runs, loaded, strict=True):
        encoder = open_tuned(prepared, folder)
        texts, calibration = _vectors(prepared, asked, encoder), _calibrated(prepared, encoder)
        tuned = measure(prepared, asked, texts, calibration)
        # Threads change nothing but the pace.
        alike = run.settings.model_copy(update={"seed": 0, "threads": 0})
        measured.setdefault((alike, run.processes), {})[run.settings.seed] = tuned
        report: Report = {
            "run": folder.name,
            "control": run.settings.control,
            "adapter": file_sha256(folder / ADAPTER / WEIGHTS),
            "protocol": {
                "split": prepared.manifest.split,
                "users": len(live),
                "days": len(asked.questions),
                "items asked for": sum(len(question.asked) for question in asked.questions),
                "catalogue": len(prepared.items),
            },
            **compare(live, tuned),
            "shorter": _measure_shorter(prepared, asked, encoder, texts, live, run.settings.matryoshka),
            "sequence": None,
        }
        if (folder / SEQUENCE).is_file():
            model = SequenceModel.load(folder / SEQUENCE, encoder.space_id, encoder.dimensions)
            report["sequence"] = {
                "file": file_sha256(folder / SEQUENCE),
                **_measure_sequence(prepared, asked, texts, calibration, tuned, model),
            }
        (folder / EVALUATION).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        reports.append(report)
    together: list[Report] = []
    for (settings, _), seeds in measured.items():
        if len(seeds) > 1:
            means = {user: np.mean([tuned[user] for tuned in seeds.values()], axis=0) for user in live}
            together.append({"run": f"mean of {len(seeds)}", "control": settings.control, **compare(live, means)})
    return reports, together


def _measure_live(prepared: Prepared, asked: Asked) -> dict[int, Values]:
    """Figures of what the server has now: its adapter where the settings name one, else the base encoder."""
    settings = prepared.manifest.encoder
    if settings.adapter is None:
        return measure(prepared, asked, prepared.base, prepared.manifest.calibration)
    encoder = open_encoder(settings)
    if encoder.space_id != prepared.manifest.live_space_id:
        raise WrongState(
            "OTHER_SPACE",
            f"the live adapter {str(settings.adapter)!r} was changed since {str(prepared.folder)!r} was made: its "
            f"space was {prepared.manifest.live_space_id}, is {encoder.space_id}; prepare anew",
        )
    return measure(prepared, asked, _vectors(prepared, asked, encoder), _calibrated(prepared, encoder))


def _calibrated(prepared: Prepared, encoder: Encoder) -> Calibration:
    return calibrate(encoder.encode).chosen(prepared.manifest.interests.similarity)


def _measure_shorter(
    prepared: Prepared,
    asked: Asked,
    encoder: Encoder,
    texts: Vectors,
    live: Mapping[int, Values],
    lengths: Sequence[int],
) -> Report:
    """By length, what vectors cut to it find, and that less what the live encoder's whole ones do."""
    found: Report = {}
    for length in sorted({length for length in lengths if length < encoder.dimensions}, reverse=True):

        def encode(given: Sequence[str], length: int = length) -> Vectors:
            return _shortened(encoder.encode(given), length)

        calibration = calibrate(encode).chosen(prepared.manifest.interests.similarity)
        compared = compare(live, measure(prepared, asked, _shortened(texts, length), calibration))
        found[str(length)] = {name: compared[name] for name in ("tuned", "difference")}
    return found


def _shortened(vectors: Vectors, dimensions: int) -> Vectors:
    """The first so many dimensions of (n, d) rows, each brought to length 1 again; rows of zeros stay as they are."""
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    short: Vectors = cut / np.maximum(lengths, np.finfo(np.float32).tiny)
    return short


def _measure_sequence(
    prepared: Prepared,
    asked: Asked,
    texts: Vectors,
    calibration: Calibration,
    tuned: Mapping[int, Values],
    model: SequenceModel,
) -> Report:
    log = prepared_log(prepared, texts, np.concatenate(list(asked.signals.values())))
    histories = {user.user: user.history for user in log.users}

    def ahead(question: Question) -> Vectors | None:
        history = histories.get(question.user)
        if history is None:
            return None
        return model.next_vectors(history.part(0, int(np.searchsorted(history.times, question.start))))

    compared = compare(tuned, measure(prepared, asked, texts, calibration, ahead))
    parts = np.array(prepared.signals["part"], dtype=np.int64)
    times = np.array(prepared.signals["time"], dtype=np.int64)
    starts = {user: int(times[rows[parts[rows] == TEST]].min()) for user, rows in asked.signals.items()}
    return {
        "tuned": compared["tuned"],
        "difference": compared["difference"],
        "next items": evaluate_sequence(model, log, starts),
    }


def compare(live: Mapping[int, Values], tuned: Mapping[int, Values]) -> dict[str, dict[str, list[float]]]:
    """Means of both with intervals, and of their difference, paired by user."""
    users = sorted(live)
    before, after = (np.stack([by_user[user] for user in users]) for by_user in (live, tuned))
    named = {"live": before, "tuned": after, "difference": after - before}
    return {
        name: {metric: [round(value, 6) for value in values] for metric, values in figures(rows, METRICS).items()}
        for name, rows in named.items()
    }


def caution(users: int) -> str:
    """Say what intervals over so few users are worth; empty where they may be taken as they are."""
    if users < 2:
        return "one user to measure by: there is no interval"
    # Resampling few users makes up for neither the spread they miss nor its own uncertainty (Hesterberg 2015).
    return f"only {users} users to measure by: the intervals are too narrow" if users < FEW_USERS else ""


def open_tuned(prepared: Prepared, run: Path) -> Encoder:
    """The base encoder with a run's adapter in it; its space is the one that the exported adapter will have."""
    settings = prepared.manifest.encoder
    model, name, digest = open_model(settings)
    add_lora(model, load_run(run).settings.rank, dropout=0.0)
    load_lora(model, run / ADAPTER)
    model.eval()
    return SentenceEncoder(model, name, "", digest + adapter_digest(run / ADAPTER), settings.batch_size)


def _vectors(prepared: Prepared, asked: Asked, encoder: Encoder) -> Vectors:
    return encode_signals(prepared, np.concatenate(list(asked.signals.values())), encoder)
