"""`export`: a run's adapter as the folder that a server loads, if it is no worse than what it would replace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from penchant_finetune.evaluate import EVALUATION, METRICS
from penchant_finetune.prepare import Prepared
from penchant_finetune.train import ADAPTER, Run, load_run
from penchant_pipelines.encoder.adapter import CONFIG, WEIGHTS, write_manifest
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import WrongState

GATE = "recall@50"
"""The figure that must not fall: the steadiest of those measured."""


def export(prepared: Prepared, run_folder: Path, output: Path) -> None:
    """Write the adapter with its card and manifest into a new folder.

    Raises WrongState where the run was not evaluated, its adapter was changed since, it is a control, it is worse
    than the live encoder, or the folder holds something.
    """
    run = load_run(run_folder)
    try:
        report = json.loads((run_folder / EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WrongState(
            "NOT_EVALUATED", f"{str(run_folder)!r} was not evaluated; run `penchant finetune evaluate` on it"
        ) from error
    weights = run_folder / ADAPTER / WEIGHTS
    if report["adapter"] != file_sha256(weights):
        raise WrongState("NOT_EVALUATED", f"{str(run_folder)!r} was trained anew since it was evaluated; evaluate it")
    reason = refusal(report)
    if reason:
        raise WrongState("ADAPTER_WORSE", f"{run_folder.name} is not exported: {reason}")
    if output.exists() and any(output.iterdir()):
        raise WrongState("FOLDER_NOT_EMPTY", f"{str(output)!r} holds something; name a new folder")
    output.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(run_folder / ADAPTER / name, output / name)
    (output / "README.md").write_text(_card(prepared, run, report), encoding="utf-8")
    figures = {f"{metric}{suffix}": report[part][metric][0] for metric in METRICS for part, suffix in _PARTS.items()}
    write_manifest(output, run.base, prepared.manifest.dimensions, figures)


_PARTS = {"tuned": "", "live": " of live", "difference": " gained"}


def refusal(report: dict[str, Any]) -> str | None:
    """Say why an adapter must not be exported; None where it may.

    The gate's mean difference must not lie below zero, and of no figure the whole interval.
    """
    if report["control"] is not None:
        return f"it is a control ({report['control']}), made to be measured only"
    difference = report["difference"]
    mean, low, high = difference[GATE]
    if mean < 0:
        return f"its {GATE} is {-mean:.4f} lower than the live encoder's (95 % interval {low:+.4f} … {high:+.4f})"
    for metric in METRICS:
        mean, low, high = difference[metric]
        if high < 0:
            return f"its {metric} is surely lower than the live encoder's ({low:+.4f} … {high:+.4f})"
    return None


def _card(prepared: Prepared, run: Run, report: dict[str, Any]) -> str:
    manifest = prepared.manifest
    counts = "\n".join(f"| {name} | {count:,} |" for name, count in manifest.counts.items())
    rows = "\n".join(
        f"| {metric} | {_figure(report['live'][metric])} | {_figure(report['tuned'][metric])} "
        f"| {_figure(report['difference'][metric], signed=True)} |"
        for metric in METRICS
    )
    protocol = report["protocol"]
    split = "one moment for all users" if manifest.split == "time" else "a moment of each user's own"
    settings = run.settings.model_dump_json()
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return f"""# Adapter for {run.base}

A LoRA adapter (rank {run.settings.rank}), fine-tuned with Penchant on one catalogue's own log.

## Data

| | |
|---|---|
{counts}

The log was split by time at {split}: the first {manifest.settings.validation_from:.0%} to train, up to \
{manifest.settings.test_from:.0%} to know when to stop, the rest to measure. The weights were made from what users \
wrote and did; keep them as you keep that.

## Method

Symmetric InfoNCE over pairs that the log says belong together, whatever the same user touched being no negative; \
CoSENT over rated items. {run.steps} steps, {run.seconds:.0f} s; validation loss {run.untuned_loss:.4f} before, \
{run.best_loss:.4f} after. Settings: `{settings}`. Made with {versions}.

## Figures

{protocol["users"]} users, {protocol["days"]} days, {protocol["items asked for"]} items asked for among \
{protocol["catalogue"]:,}; mean and 95 % interval by bootstrap over users.

| | live | tuned | difference |
|---|---|---|---|
{rows}

## Licence

To be filled in by the owner of the data.
"""


def _figure(values: list[float], *, signed: bool = False) -> str:
    form = "{:+.4f} ({:+.4f} … {:+.4f})" if signed else "{:.4f} ({:.4f} … {:.4f})"
    return form.format(*values)
