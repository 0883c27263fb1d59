"""`evaluate`: next items on the later part, by the profiles and scores that the server would make of each encoder.

Asked once a user and day of the test part, with the profile as it stood before that day: bulk marks of one day would
otherwise foretell each other. Every item is ranked but those the user touched before; a day's other new items stand
aside while one is looked for. Popularity is left out: it is the same for both encoders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant_finetune.base import encode_all, open_base
from penchant_finetune.corpus import TEST
from penchant_finetune.lora import add_lora, load_lora
from penchant_finetune.pairs import Vectors
from penchant_finetune.prepare import MANIFEST, Prepared
from penchant_finetune.train import ADAPTER, load_run
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.encoder.adapter import WEIGHTS, open_adapter
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import WrongState
from penchant_pipelines.interests import Blender, Evidence, Profile, Recipe, view
from penchant_pipelines.interests.calibration import calibrate
from penchant_pipelines.model import MICROS_PER_DAY, Action
from penchant_pipelines.recommend.ranking import Taste, score
from penchant_pipelines.recommend.settings import RecommendSettings

METRICS = ("recall@10", "recall@50", "ndcg@10", "mrr")
EVALUATION = "evaluation.json"
MOST_A_DAY = 20
"""Most new items of one user and day that are looked for."""
RESAMPLES = 2000

Values = NDArray[np.float64]
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One user's day: all signals before it, the new items of the day, and those among them to look for."""

    user: int
    start: int
    """Beginning of the day, µs."""
    known: int
    """How many of the user's signals lie before it."""
    new: NDArray[np.int64]
    asked: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Asked:
    """Users of the test part: rows of their signals in order of time, and questions about them."""

    signals: dict[int, NDArray[np.intp]]
    questions: list[Question]


def evaluate(prepared: Prepared, runs: Sequence[Path]) -> tuple[list[Report], list[Report]]:
    """Measure runs against the live encoder, paired by user; writes evaluation.json into each run's folder.

    Figures are [mean, low, high] with 95 % intervals by bootstrap over users; a user's figure is the mean over what
    was asked. Second value: runs of several seeds taken together, each user's figure being the mean over them.
    Raises WrongState where a run was not trained from this prepared folder, or nothing can be asked.
    """
    loaded = [load_run(run) for run in runs]
    digest = file_sha256(prepared.folder / MANIFEST)
    for folder, run in zip(runs, loaded, strict=True):
        if run.prepared != digest:
            raise WrongState("OTHER_PREPARED", f"{str(folder)!r} was not trained from {str(prepared.folder)!r}")
    asked = questions(prepared)
    live = _measure_live(prepared, asked)
    reports = []
    measured: dict[str | None, list[dict[int, Values]]] = {}
    for folder, run in zip(runs, loaded, strict=True):
        tuned = measure_run(prepared, asked, folder)
        measured.setdefault(run.settings.control, []).append(tuned)
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
        }
        (folder / EVALUATION).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        reports.append(report)
    together: list[Report] = []
    for control, several in measured.items():
        if len(several) > 1:
            means = {user: np.mean([tuned[user] for tuned in several], axis=0) for user in live}
            together.append({"run": f"mean of {len(several)}", "control": control, **compare(live, means)})
    return reports, together


def measure_run(prepared: Prepared, asked: Asked, run: Path) -> dict[int, Values]:
    """Figures of a run by user, as `measure` gives them."""
    return _measure_encoder(prepared, asked, open_tuned(prepared, run))


def _measure_live(prepared: Prepared, asked: Asked) -> dict[int, Values]:
    """Figures of what the server has now: its adapter where the settings name one, else the base encoder."""
    settings = prepared.manifest.encoder
    if settings.adapter is None:
        return measure(prepared, asked, prepared.base, prepared.manifest.similarity)
    return _measure_encoder(prepared, asked, open_adapter(settings, settings.adapter))


def _measure_encoder(prepared: Prepared, asked: Asked, encoder: Encoder) -> dict[int, Values]:
    similarity = prepared.manifest.interests.similarity
    if similarity is None:
        similarity = calibrate(encoder.encode)
    return measure(prepared, asked, _vectors(prepared, asked, encoder), similarity)


def questions(prepared: Prepared) -> Asked:
    """What to ask: each day of the test part on which a user with a history took to new items of the catalogue."""
    columns = {name: np.array(prepared.signals[name], dtype=np.int64) for name in ("user", "time", "item", "part")}
    new = np.array(prepared.signals["new"], dtype=bool)
    rng = np.random.default_rng(prepared.manifest.settings.seed)
    signals: dict[int, NDArray[np.intp]] = {}
    found: list[Question] = []
    for user in np.unique(columns["user"][new & (columns["part"] == TEST)]):
        own = np.flatnonzero(columns["user"] == user)
        days = columns["time"][own] // MICROS_PER_DAY
        for day in np.unique(days[new[own] & (columns["part"][own] == TEST)]):
            rows = own[new[own] & (columns["part"][own] == TEST) & (days == day)]
            known = int(np.searchsorted(days, day))
            if known:
                items = columns["item"][rows]
                chosen = rng.permutation(items)[:MOST_A_DAY]
                signals[int(user)] = own
                found.append(Question(int(user), int(day) * MICROS_PER_DAY, known, items, chosen))
    return Asked(signals, found)


def measure(prepared: Prepared, asked: Asked, texts: Vectors, similarity: float) -> dict[int, Values]:
    """Figures of an encoder by user, each (4,) as in METRICS; `texts` (t, d) are its vectors of the texts."""
    manifest = prepared.manifest
    blender = Blender(Recipe(manifest.interests, similarity, manifest.space_id))
    items = texts[prepared.items]
    ranking = RecommendSettings()
    unpopular = np.zeros(len(items))
    collected: dict[int, list[Values]] = {}
    touched = np.array(prepared.signals["item"], dtype=np.int64)
    profile, blended, user = Profile(), 0, -1
    for question in asked.questions:
        own = asked.signals[question.user]
        if question.user != user:
            profile, blended, user = Profile(), 0, question.user
        for row in own[blended : question.known]:
            blender.add(profile, _evidence(prepared, int(row), texts, items))
        blended = question.known
        taste = Taste.of(view(profile, question.start, blender), items.shape[1])
        scores = score(taste, items, None, prepared.created, unpopular, question.start, ranking).scores
        seen = touched[own[: question.known]]
        collected.setdefault(user, []).extend(_figures(rank) for rank in _ranks(scores, question, seen[seen >= 0]))
    return {user: np.mean(figures, axis=0) for user, figures in collected.items()}


def compare(live: Mapping[int, Values], tuned: Mapping[int, Values]) -> dict[str, dict[str, list[float]]]:
    """Means of both with intervals, and of their difference, paired by user."""
    users = sorted(live)
    before, after = (np.stack([figures[user] for user in users]) for figures in (live, tuned))
    named = {"live": before, "tuned": after, "difference": after - before}
    return {
        name: {metric: interval(values[:, column]) for column, metric in enumerate(METRICS)}
        for name, values in named.items()
    }


def interval(values: Values) -> list[float]:
    """Mean of (u,) users' figures, and a 95 % interval by bootstrap over them (percentiles)."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(value), 6) for value in (values.mean(), low, high)]


def open_tuned(prepared: Prepared, run: Path) -> Encoder:
    """The base encoder with a run's adapter in it."""
    encoder, model = open_base(prepared.manifest.encoder)
    add_lora(model, load_run(run).settings.rank, dropout=0.0)
    load_lora(model, run / ADAPTER)
    model.eval()
    return encoder


def _vectors(prepared: Prepared, asked: Asked, encoder: Encoder) -> Vectors:
    """Vectors of the catalogue and of what the users asked about wrote; zeros for all other texts."""
    columns = [prepared.items]
    texts = np.array(prepared.signals["text"], dtype=np.int64)
    columns += [texts[rows] for rows in asked.signals.values()]
    needed = np.unique(np.concatenate(columns))
    needed = needed[needed >= 0]
    vectors = np.zeros((len(prepared.base), encoder.dimensions), dtype=np.float32)
    vectors[needed] = encode_all(encoder, [prepared.texts[row] for row in needed])
    return vectors


def _evidence(prepared: Prepared, row: int, texts: Vectors, items: Vectors) -> Evidence:
    """A signal as capture would have blended it: what was written joined with what it is about."""
    columns = prepared.signals
    item, text, action = columns["item"][row], columns["text"][row], columns["action"][row]
    parts = [texts[text]] if text >= 0 else []
    parts += [items[item]] if item >= 0 else []
    vector = np.sum(parts, axis=0) if parts else None
    if vector is not None:
        vector = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
    return Evidence(
        id=columns["id"][row],
        time=columns["time"][row],
        vector=vector,
        action=None if action is None else Action(action),
        value=columns["value"][row],
        rating=columns["rating"][row],
    )


def _ranks(scores: Values, question: Question, seen: NDArray[np.int64]) -> list[int]:
    """Place of each item asked for among those that are neither seen nor new that day; ties count against it."""
    others = scores.copy()
    others[seen] = -np.inf
    others[question.new] = -np.inf
    ordered = np.sort(others)
    return [int(1 + len(ordered) - np.searchsorted(ordered, scores[item], side="left")) for item in question.asked]


def _figures(rank: int) -> Values:
    gain = 1 / np.log2(1 + rank) if rank <= 10 else 0.0
    return np.array([float(rank <= 10), float(rank <= 50), gain, 1 / rank])
