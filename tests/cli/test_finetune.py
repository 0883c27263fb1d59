"""`finetune` and the recipe that runs all of it, on a tiny model and a log that can be learnt from."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from command_line import run, write_small_log

from penchant_finetune.export import worse
from penchant_finetune.sequence import SequenceSettings
from penchant_pipelines.encoder.adapter import WEIGHTS
from penchant_pipelines.encoder.sentence import file_sha256

ROOT = Path(__file__).parents[2]
ONE_OF_SEVERAL = ROOT / "tests/support/one_of_several.py"
QUICK = ["--epochs", "6", "--batch-size", "64", "--learning-rate", "5e-3", "--threads", "1"]
EARLY = ["--validation-from", "0.7", "--test-from", "0.8", "--max-pairs", "1000"]

finetune = partial(run, "finetune")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and the small log as files."""
    folder = tmp_path_factory.mktemp("finetune")
    write_small_log(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prepare"], "PREPARED"),
        (["prepare", "out"], "--data"),
        (["prepare", "out", "--items", "no-such-file.jsonl"], "does not exist"),
        (["prepare", "out", "--data", ".", "--test-from", "1.5"], "--test-from"),
        (["prepare", "out", "--data", ".", "--window-days", "inf"], "--window-days"),
        (["prepare", "out", "--data", ".", "--window-days", "1e12"], "--window-days"),
        (["prepare", "out", "--data", ".", "--set", "encoder.model"], "KEY=VALUE"),
        (["prepare", "out", "--data", ".", "--seed", "-1"], "--seed"),
        (["train", "no-such-folder", "run"], "does not exist"),
        (["train", ".", "run", "--matryoshka", "half"], "384,256,128"),
        (["train", ".", "run", "--matryoshka", "32,0"], "--matryoshka"),
        (["train", ".", "run", "--matryoshka", "-5"], "--matryoshka"),
        (["train", ".", "run", "--seed", "-1"], "--seed"),
        (["train", ".", "run", "--seed", str(2**32)], "--seed"),
        (["train", ".", "run", "--rank", "0"], "--rank"),
        (["train", ".", "run", "--epochs", "inf"], "finite number"),
        (["train", ".", "run", "--learning-rate", "inf"], "--learning-rate"),
        (["train", ".", "run", "--temperature", "inf"], "--temperature"),
        (["train", ".", "run", "--control", "none"], "random-pairs"),
        (["evaluate", "."], "RUN"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    code, out, err = finetune(*arguments)
    assert code == 2
    assert said in err
    assert out == ""


def test_what_is_not_there_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[str | Path], str]] = [
        (["train", tmp_path, tmp_path / "run"], "no prepared folder"),
        (["prepare", tmp_path / "out", "--data", tmp_path], "no record.sqlite3"),
    ]
    for arguments, said in cases:
        code, _, err = finetune(*arguments)
        assert code == 1
        assert said in err
        assert len(err.splitlines()) == 1
    broken = tmp_path / "signals.jsonl"
    broken.write_text('{"id": "s", "user_id": "", "time": "2026-01-01T00:00:00Z", "post": {"text": "hi"}}\n')
    code, _, err = finetune("prepare", tmp_path / "out", "--items", folder / "items.jsonl", "--signals", broken)
    assert code == 1
    assert "left out: signals.jsonl line 1: user_id: must not be empty" in err
    assert "signals: are none: there is nothing to learn from" in err
    assert not (tmp_path / "out").exists()


def test_the_steps_one_by_one(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(SequenceSettings, width=16, batch=8, positions=8, negatives=64, steps=10, check_every=5)
    monkeypatch.setattr("penchant_finetune.sequence_run.SequenceSettings", short)
    with_one_more = tmp_path / "signals.jsonl"
    with_one_more.write_text((folder / "signals.jsonl").read_text() + '{"user_id": "ann"}\n')
    files: list[str | Path] = ["--items", folder / "items.jsonl", "--signals", with_one_more]
    model = ["--set", f"encoder.model={folder / 'model'}", "--set", "encoder.device=cpu"]
    with monkeypatch.context() as strict:
        strict.setattr("penchant_finetune.evaluate.FEW_USERS", 10_000)
        code, out, err = finetune("prepare", tmp_path / "prepared", *files, *model, *EARLY)
    assert code == 0, err
    assert "co-engagement pairs" in out
    assert re.search(r"left out +1\n", out)
    assert "left out: signals.jsonl line " in err
    assert "users to measure by: the intervals are too narrow" in out
    assert "split by time, for model-" in out
    assert stat.S_IMODE((tmp_path / "prepared").stat().st_mode) == 0o700
    made = (tmp_path / "prepared" / "prepare.json").read_bytes()
    code, _, err = finetune("prepare", tmp_path / "prepared", *files, *model, *EARLY, "--seed", "3")
    assert (code, err.count("holds something; name a new folder")) == (1, 1)
    assert (tmp_path / "prepared" / "prepare.json").read_bytes() == made
    code, out, err = finetune("train", tmp_path / "prepared", tmp_path / "run", *QUICK)
    assert code == 0, err
    assert "next items found" in out
    assert "too small" not in out
    assert "try a lower" not in out
    fast = [*QUICK[:4], "--learning-rate", "1", *QUICK[6:]]
    code, out, err = finetune("train", tmp_path / "prepared", tmp_path / "fast", *fast)
    assert code == 0, err
    assert "no step beat it" in out
    assert "took away what the encoder knew; try a lower --learning-rate, such as 0.25, in another folder" in out
    monkeypatch.setattr("penchant_finetune.validation.SATURATED", 0.0)  # in force, were every item found
    code, out, err = finetune("train", tmp_path / "prepared", tmp_path / "run", *QUICK)
    assert code == 0, err
    assert "the catalogue is too small for recall@50" in out
    code, _, err = finetune("export", tmp_path / "prepared", tmp_path / "run", tmp_path / "adapter")
    assert code == 1
    assert "was not evaluated" in err
    adapter = file_sha256(tmp_path / "run" / "adapter" / WEIGHTS)
    code, _, err = finetune("train", tmp_path / "prepared", tmp_path / "run", *QUICK, "--rank", "8", "--sequence")
    assert code == 1
    assert "rank was 16, is 8" in err
    code, out, err = finetune("train", tmp_path / "prepared", tmp_path / "run", *QUICK, "--sequence")
    assert code == 0, err
    assert re.search(r"sequence model: NDCG@10 on the validation part 0\.\d{4} by the mean of the last signals, ", out)
    about = json.loads((tmp_path / "run" / "sequence.json").read_text())
    assert about["validation"]["best"] >= about["validation"]["start"] > 0
    assert finetune("train", tmp_path / "prepared", tmp_path / "run", *QUICK, "--sequence")[1] == out
    assert file_sha256(tmp_path / "run" / "adapter" / WEIGHTS) == adapter
    code, out, err = finetune("evaluate", tmp_path / "prepared", tmp_path / "run", "--json")
    assert code == 0, err
    (report,) = json.loads(out)["runs"]
    assert report["difference"]["recall@10"][1] > 0
    with_sequence = report["sequence"]
    assert with_sequence["next items"]["users"] == report["protocol"]["users"]
    assert with_sequence["next items"]["queries"] == report["protocol"]["days"]
    assert with_sequence["tuned"]["mrr"] != report["tuned"]["mrr"]
    code, out, err = finetune("export", tmp_path / "prepared", tmp_path / "run", tmp_path / "adapter")
    assert code == 0, err
    expected = {"adapter_config.json", "adapter_model.safetensors", "penchant.json", "README.md"}
    if worse(with_sequence["difference"], "the adapter's alone"):
        assert "without the sequence model: its " in out
    else:
        expected.add("sequence.safetensors")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == expected
    (tmp_path / "prepared" / "pairs.parquet").write_bytes(b"")
    code, _, err = finetune("evaluate", tmp_path / "prepared", tmp_path / "run")
    assert code == 1
    assert "pairs.parquet" in err


@pytest.mark.parametrize("name", ["bilingual", "domain", "stance"])
def test_recipes_run_what_is_installed_in_the_clone_or_else_on_the_path(name: str, tmp_path: Path) -> None:
    runs = tmp_path / "finetune" / "runs"
    runs.mkdir(parents=True)
    recipe = Path(shutil.copy(ROOT / f"finetune/runs/{name}.sh", runs))
    log = [tmp_path / "items.jsonl", tmp_path / "signals.jsonl"]
    for file in log:
        file.touch()
    for where in ("path", ".venv/bin"):
        folder = tmp_path / where
        folder.mkdir(parents=True)
        for command in ("python", "penchant"):
            (folder / command).write_text('#!/bin/sh\nmkdir -p "$OUT"; echo "$0 $@" >>"$OUT/called"\n')
            (folder / command).chmod(0o755)
        out = tmp_path / f"out of {where}"
        arguments: dict[str, list[str | Path]] = {
            "bilingual": ["data", out],
            "domain": [*log, out],
            "stance": [out, "reviews.jsonl"],
        }
        environment = os.environ | {"PATH": f"{tmp_path / 'path'}:{os.environ['PATH']}", "OUT": str(out)}
        done = subprocess.run([recipe, *arguments[name]], env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        called = [line.split()[0] for line in (out / "called").read_text().splitlines()]
        assert {Path(program).resolve().parent for program in called} == {folder}
    asked = subprocess.run([recipe], capture_output=True, text=True, timeout=30)
    assert asked.returncode == 2
    assert f"finetune/runs/{name}.sh" in asked.stderr


def test_the_recipe_leaves_out_only_what_was_done(tmp_path: Path) -> None:
    """With a command that only notes what it is asked for, and makes what tells that a step is done."""
    recipe = tmp_path / "finetune" / "runs" / "domain.sh"
    recipe.parent.mkdir(parents=True)
    shutil.copy(ROOT / "finetune/runs/domain.sh", recipe)
    command = tmp_path / "penchant"
    command.write_text(
        """#!/bin/sh
        echo "$2 ${3##*/} ${4##*/}" >>"$CALLED"
        case $2 in
          prepare) mkdir "$3" && touch "$3/prepare.json" ;;
          train) mkdir -p "$4" && touch "$4/run.json" ;;
          export) mkdir "$5" && touch "$5/penchant.json" ;;
        esac
        """
    )
    command.chmod(0o755)
    items, signals, out = tmp_path / "items.jsonl", tmp_path / "signals.jsonl", tmp_path / "out"
    items.write_text("items")
    signals.write_text("signals")
    called = tmp_path / "called"

    def play(**options: str) -> tuple[int, list[str], str]:
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLED": str(called)} | options
        called.write_text("")
        done = subprocess.run(
            [recipe, items, signals, out, "5"], env=environment, capture_output=True, text=True, timeout=30
        )
        return done.returncode, called.read_text().splitlines(), done.stderr

    trained = ["train prepared seed-5", "train prepared control-5", "evaluate prepared seed-5"]
    assert play() == (0, ["prepare prepared --items", *trained, "export prepared seed-5"], "")
    # Whether a run is finished, and by the same options, is for `train` to tell.
    assert play() == (0, trained, "")
    shutil.rmtree(out / "adapter-5")
    assert play() == (0, [*trained, "export prepared seed-5"], "")
    (out / "adapter-5" / "README.md").write_text("filled in")
    (out / "seed-5" / "sequence.json").touch()
    assert play() == (0, [*trained, "export prepared seed-5"], "")
    assert [card.read_text() for card in out.glob("adapter-5-*/README.md")] == ["filled in"]
    code, calls, said = play(PREPARE="--negatives")
    assert (code, calls) == (1, [])
    assert "another PREPARE" in said
    signals.write_text("other signals")
    code, calls, said = play()
    assert (code, calls) == (1, [])
    assert "other files" in said


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_recipe(folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "PREPARE": f"--set encoder.model={folder / 'model'} --set encoder.device=cpu {' '.join(EARLY)}",
        "TRAIN": " ".join(QUICK),
        "NO_COLOR": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    recipe: list[str | Path] = [
        ROOT / "finetune/runs/domain.sh",
        folder / "items.jsonl",
        folder / "signals.jsonl",
        tmp_path,
        "5",
    ]
    done = subprocess.run(recipe, env=environment, capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "evaluation.txt").read_text()
    for line in ("live", "seed-5", "less live", "control-5 (random-pairs)"):
        assert line in table
    assert "1 of 1 exported" in done.stdout
    assert (tmp_path / "adapter-5" / "penchant.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_several_processes_train_one_run(folder: Path, tmp_path: Path) -> None:
    files: list[str | Path] = ["--items", folder / "items.jsonl", "--signals", folder / "signals.jsonl"]
    model = ["--set", f"encoder.model={folder / 'model'}", "--set", "encoder.device=cpu"]
    code, _, err = finetune("prepare", tmp_path / "prepared", *files, *model, *EARLY)
    assert code == 0, err
    # `accelerate launch` starts several processes on GPUs only; on them it sets the same variables as torchrun.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    options = [*QUICK, "--batch-size", "32", "--tokens-in-memory", "64"]
    done = subprocess.run(
        [*launch, ONE_OF_SEVERAL, "finetune", "train", tmp_path / "prepared", tmp_path / "run", *options],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=190,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # One that is left is the last to own the group, and may wait for it for good.
    assert done.stdout.count("wrapped models left: 0") == 2
    saved = json.loads((tmp_path / "run" / "run.json").read_text())
    assert saved["best_recall"] > saved["untuned_recall"]
    assert saved["processes"] == 2
