"""The sequence model of a run: trained on its adapter's vectors, measured with it, exported and loaded beside it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from penchant_finetune.base import open_base
from penchant_finetune.corpus import TEST
from penchant_finetune.evaluate import EVALUATION, evaluate, open_tuned
from penchant_finetune.export import export
from penchant_finetune.log import read_log
from penchant_finetune.next_items import METRICS, encode_signals
from penchant_finetune.prepare import Prepared, PrepareSettings, load_prepared, prepare
from penchant_finetune.run import TrainSettings
from penchant_finetune.sequence import SequenceSettings
from penchant_finetune.sequence_data import prepared_log, queries
from penchant_finetune.sequence_run import ABOUT, train_run_sequence
from penchant_finetune.train import train
from penchant_pipelines.encoder import EncoderSettings
from penchant_pipelines.encoder.adapter import read_manifest
from penchant_pipelines.errors import WrongState
from penchant_pipelines.interests import InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.recommend.sequence import FILE, context_buckets
from penchant_pipelines.spaces.stock import open_folder
from penchant_pipelines.text import TextPipeline, TextSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

SHORT = partial(SequenceSettings, width=16, batch=8, positions=8, negatives=64, steps=10, check_every=5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    settings = EncoderSettings(model=str(tiny_models.tiny_bert(folder / "tiny-bert")), device="cpu")
    encoder, _ = open_base(settings)
    text = TextPipeline(TextSettings())
    items, signals = tiny_models.small_log()
    signals = [replace(signal, context={"device": "phone", "other": "x"}) for signal in signals]
    chosen = PrepareSettings(max_pairs=500, validation_from=0.7, test_from=0.8)
    log = read_log(items, signals, text)
    prepare(log, encoder, settings, InterestSettings(), chosen, folder / "prepared")
    return load_prepared(folder / "prepared")


@pytest.fixture(scope="module")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(prepared, TrainSettings(epochs=2, batch_size=64, learning_rate=5e-3, threads=1), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penchant_finetune.sequence_run.SequenceSettings", SHORT)
        train_run_sequence(prepared, folder, seed=3, threads=1)
    return folder


@pytest.fixture(scope="module")
def report(prepared: Prepared, trained: Path) -> dict[str, Any]:
    return evaluate(prepared, [trained])[0][0]


@pytest.fixture
def run(trained: Path, report: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the measured run; `report` gains nothing and loses nothing by the sequence model."""
    copied = shutil.copytree(trained, tmp_path / "run")
    say(copied, report, dict.fromkeys(METRICS, 0.0))
    return copied


def say(run: Path, report: dict[str, Any], gained: dict[str, float]) -> None:
    """Write an evaluation in which the adapter is better, and the sequence model gains so much."""
    better = {metric: [0.1, 0.05, 0.2] for metric in METRICS}
    difference = {metric: [value, value - 0.01, value + 0.01] for metric, value in gained.items()}
    told = {**report, "difference": better, "sequence": {**report["sequence"], "difference": difference}}
    (run / EVALUATION).write_text(json.dumps(told))


def test_a_run_tells_how_its_sequence_model_was_made(prepared: Prepared, trained: Path) -> None:
    about = json.loads((trained / ABOUT).read_text())
    # The part after the training part, as a share of all that lies before the test part.
    assert about["settings"]["validation_share"] == pytest.approx(0.1 / 0.8)
    assert about["settings"]["seed"] == 3
    assert about["space_id"] != prepared.manifest.space_id
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    assert {"sequence/loss", "sequence/ndcg@10"} <= set(events.Tags()["scalars"])


def test_a_sequence_model_that_is_there_is_not_trained_anew(
    prepared: Prepared, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr("penchant_finetune.sequence_run.SequenceSettings", SHORT)
    written = (run / FILE).stat().st_mtime_ns
    train_run_sequence(prepared, run, seed=3, threads=1)
    assert (run / FILE).stat().st_mtime_ns == written
    train_run_sequence(prepared, run, seed=4, threads=1)
    assert (run / FILE).read_bytes() != (trained / FILE).read_bytes()
    assert json.loads((run / ABOUT).read_text())["settings"]["seed"] == 4

    def killed(*_: object) -> None:
        (run / FILE).write_bytes(b"half of a model")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("penchant_finetune.sequence_run.train_sequence", killed)
        with pytest.raises(KeyboardInterrupt):
            train_run_sequence(prepared, run, seed=5, threads=1)
    train_run_sequence(prepared, run, seed=4, threads=1)
    assert json.loads((run / ABOUT).read_text())["settings"]["seed"] == 4
    assert len((run / FILE).read_bytes()) == len((trained / FILE).read_bytes())


def test_the_log_of_a_part_holds_that_part_with_its_contexts(prepared: Prepared, trained: Path) -> None:
    parts = np.array(prepared.signals["part"])
    rows = np.flatnonzero(parts != TEST)
    vectors = encode_signals(prepared, rows, open_tuned(prepared, trained))
    log = prepared_log(prepared, vectors, rows)
    assert sum(len(user.history) for user in log.users) == len(rows)
    assert max(user.history.times.max() for user in log.users) < min(np.array(prepared.signals["time"])[parts == TEST])
    assert log.users[0].history.contexts[0].tolist() == list(context_buckets({"device": "phone"}))
    np.testing.assert_allclose(np.linalg.norm(log.users[0].history.vectors, axis=1), 1, rtol=1e-5)


def test_each_user_may_be_asked_from_a_time_of_their_own(prepared: Prepared) -> None:
    whole = prepared_log(prepared, prepared.base, np.arange(len(prepared.signals["id"])))
    starts = {user.user: int(user.history.times[4 + user.user % 3]) for user in whole.users}
    asked = queries(whole, starts, 2**62)
    assert {query.user.user for query in asked} == set(starts)
    for user in whole.before(starts).users:
        assert len(user.history) == 4 + user.user % 3
    for query in asked:
        assert query.user.history.times[query.end] // MICROS_PER_DAY >= starts[query.user.user] // MICROS_PER_DAY


def test_it_is_measured_on_the_questions_of_the_adapter(report: dict[str, Any]) -> None:
    found = report["sequence"]
    assert found["next items"]["users"] == report["protocol"]["users"]
    assert found["next items"]["queries"] == report["protocol"]["days"]
    for metric in METRICS:
        gained = found["tuned"][metric][0] - report["tuned"][metric][0]
        assert found["difference"][metric][0] == pytest.approx(gained, abs=2e-6)
    assert any(found["difference"][metric][0] for metric in METRICS)


def test_an_export_that_is_no_worse_is_loaded_under_any_name(prepared: Prepared, run: Path, tmp_path: Path) -> None:
    assert export(prepared, run, tmp_path / "shelf" / "films") is None
    base, _ = open_base(prepared.manifest.encoder)
    adapter = open_folder(prepared.manifest.encoder, tmp_path / "shelf", "films", base)
    assert adapter.sequence is not None
    assert adapter.sequence.dimensions == adapter.encoder.dimensions
    manifest = read_manifest(tmp_path / "shelf" / "films")
    assert manifest.metrics["recall@50 gained by sequence"] == 0
    figures, of_sequence = (tmp_path / "shelf" / "films" / "README.md").read_text().split("## Sequence model")
    assert "each looked for by itself: recall is the share of them that is found" in figures
    assert "looked for together here: recall is the share of as many as the list has room for" in of_sequence


def test_one_that_is_worse_is_left_out(prepared: Prepared, run: Path, report: dict[str, Any], tmp_path: Path) -> None:
    say(run, report, {**dict.fromkeys(METRICS, 0.0), "recall@50": -0.02})
    reason = export(prepared, run, tmp_path / "shelf" / "films")
    assert reason is not None
    assert "recall@50 is 0.0200 lower than the adapter's alone" in reason
    base, _ = open_base(prepared.manifest.encoder)
    assert open_folder(prepared.manifest.encoder, tmp_path / "shelf", "films", base).sequence is None
    assert "## Sequence model" not in (tmp_path / "shelf" / "films" / "README.md").read_text()


def test_what_was_not_measured_is_not_exported(prepared: Prepared, run: Path, tmp_path: Path) -> None:
    (run / FILE).unlink()
    with pytest.raises(WrongState, match="trained anew"):
        export(prepared, run, tmp_path / "adapter")
    (run / EVALUATION).write_text(json.dumps({**json.loads((run / EVALUATION).read_text()), "sequence": None}))
    assert export(prepared, run, tmp_path / "adapter") is None
    shutil.copy(tmp_path / "adapter" / "README.md", run / FILE)
    with pytest.raises(WrongState, match="trained anew"):
        export(prepared, run, tmp_path / "other")


def test_a_model_of_another_adapter_is_not_measured(prepared: Prepared, run: Path) -> None:
    config = run / "adapter" / "adapter_config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(WrongState, match="train it again"):
        evaluate(prepared, [run])
