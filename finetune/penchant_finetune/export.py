"""`export`: a run's adapter as the folder that a server loads, if it is no worse than what it would replace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from penchant_finetune.evaluate import EVALUATION, caution
from penchant_finetune.folder import new_folder
from penchant_finetune.lora import changes_nothing
from penchant_finetune.next_items import METRICS
from penchant_finetune.prepare import Prepared
from penchant_finetune.run import ADAPTER, Run, run_of
from penchant_pipelines.encoder.adapter import CONFIG, WEIGHTS, write_manifest
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import WrongState
from penchant_pipelines.recommend.sequence import FILE as SEQUENCE

GATES = ("recall@50", "ndcg@10")
"""The figure that must not fall: the steadiest of those measured; where both have as much of it, as in a catalogue of
which nearly all is among the first 50, the one that decides among equals in training, too."""


def export(prepared: Prepared, run_folder: Path, output: Path) -> str | None:
    """Write the adapter with its card and manifest into a new folder, and the run's sequence model unless it is worse.

    An adapter that changes nothing is written for the sake of a sequence model that is surely better than none, where
    the live encoder has no adapter. Returns why the sequence model was left out; None where it was not, or there is
    none. Raises WrongState where the run was not trained from this prepared folder, was not evaluated, was changed
    since, is a control, changes nothing, is worse than the live encoder or was measured on one user alone, or where the
    folder holds something.
    """
    run = run_of(prepared, run_folder)
    try:
        report = json.loads((run_folder / EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WrongState(
            "NOT_EVALUATED", f"{str(run_folder)!r} was not evaluated; run `penchant finetune evaluate` on it"
        ) from error
    sequence = run_folder / SEQUENCE
    found = file_sha256(sequence) if sequence.is_file() else None
    measured = (report.get("sequence") or {}).get("file")
    if report["adapter"] != file_sha256(run_folder / ADAPTER / WEIGHTS) or measured != found:
        raise WrongState("NOT_EVALUATED", f"{str(run_folder)!r} was trained anew since it was evaluated; evaluate it")
    reason, bare = _control(report), None
    if run.best_step == 0:
        bare = "nothing beat the untuned encoder on the validation part"
    elif changes_nothing(run_folder / ADAPTER):
        bare = "it changes nothing: the B of all its LoRA layers are zero"
    if bare is None:
        reason = refusal(report)
    elif not (found and prepared.manifest.encoder.adapter is None and _is_surely_better(report["sequence"])):
        reason = reason or bare
    if reason:
        raise WrongState("ADAPTER_WORSE", f"{run_folder.name} is not exported: {reason}")
    left_out = worse(report["sequence"]["difference"], "the adapter's alone") if found else None
    figures: dict[str, Any] = {
        f"{metric}{suffix}": report[part][metric][0] for metric in METRICS for part, suffix in _PARTS.items()
    }
    figures |= {f"{metric} gained, {end}": report["difference"][metric][i] for metric in METRICS for i, end in _ENDS}
    figures["live"] = prepared.manifest.live_space_id
    card = _card(prepared, run, report)
    if bare:
        card += _bare_card(bare)
    if shorter := report.get("shorter"):
        card += _shorter_card(shorter, prepared.manifest.dimensions)
    files = [run_folder / ADAPTER / CONFIG, run_folder / ADAPTER / WEIGHTS]
    if found and not left_out:
        files.append(sequence)
        figures |= {f"{metric} gained by sequence": report["sequence"]["difference"][metric][0] for metric in METRICS}
        card += _sequence_card(report["sequence"])
    with new_folder(output) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_manifest(folder, run.base, prepared.manifest.dimensions, figures)
    return left_out


_PARTS = {"tuned": "", "live": " of live", "difference": " gained"}
_ENDS = ((1, "low"), (2, "high"))
"""Ends of the 95 % interval."""


def refusal(report: dict[str, Any]) -> str | None:
    """Say why an adapter must not be exported; None where it may."""
    return _control(report) or worse(report["difference"], "the live encoder's")


def _control(report: dict[str, Any]) -> str | None:
    control = report["control"]
    return None if control is None else f"it is a control ({control}), made to be measured only"


def _is_surely_better(sequence: dict[str, Any]) -> bool:
    difference = sequence["difference"]
    return worse(difference, "") is None and difference[_gate(difference)][1] > 0


def _gate(difference: dict[str, list[float]]) -> str:
    return next((metric for metric in GATES if difference[metric][0]), GATES[0])


def worse(difference: dict[str, list[float]], other: str) -> str | None:
    """Say what is worse, by paired differences, or that they can't tell; None where nothing is.

    The gate's mean difference must not lie below zero, and of no figure the whole interval.
    """
    gate = _gate(difference)
    if len(difference[gate]) == 1:
        return "it was measured on one user, which tells nothing of others; prepare a log that leaves more of them"
    mean, low, high = difference[gate]
    if mean < 0:
        return f"its {gate} is {-mean:.4f} lower than {other} (95 % interval {low:+.4f} … {high:+.4f})"
    for metric in METRICS:
        mean, low, high = difference[metric]
        if high < 0:
            return f"its {metric} is surely lower than {other} ({low:+.4f} … {high:+.4f})"
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
    few = f" ({told})" if (told := caution(protocol["users"])) else ""
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
CoSENT over rated items. {run.steps} steps, {run.seconds:.0f} s; the weights after step {run.best_step} \
found most next items of the validation part: recall {run.best_recall:.4f}, untuned {run.untuned_recall:.4f}. \
Settings: `{settings}`. Made with {versions}.

## Figures

{protocol["users"]} users, {protocol["days"]} days, {protocol["items asked for"]} items asked for among \
{protocol["catalogue"]:,}, each looked for by itself: recall is the share of them that is found. "Live" is \
{manifest.live_space_id}, which was so when the log was prepared. Mean and 95 % interval by bootstrap over users{few}.

| | live | tuned | difference |
|---|---|---|---|
{rows}

## Licence

To be filled in by the owner of the data.
"""


def _bare_card(why: str) -> str:
    return f"""
## For its sequence model alone

The adapter leaves all vectors as they were ({why}): it is here for the sake of the sequence model beside it.
"""


def _shorter_card(report: dict[str, Any], dimensions: int) -> str:
    rows = "\n".join(
        f"| {length} | {metric} | {_figure(cut['tuned'][metric])} | {_figure(cut['difference'][metric], signed=True)} |"
        for length, cut in report.items()
        for metric in METRICS
    )
    return f"""
## Shorter vectors

It was trained for vectors that are cut, too; this adapter serves all {dimensions} dimensions. Against the live \
encoder's whole vectors:

| dimensions | | tuned, cut | less live |
|---|---|---|---|
{rows}
"""


def _sequence_card(report: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {metric} | {_figure(report['tuned'][metric])} | {_figure(report['difference'][metric], signed=True)} |"
        for metric in METRICS
    )
    alone = report["next items"]
    figures = "\n".join(
        f"| {metric} | {_figure(alone['methods']['mean'][metric])} | {_figure(alone['methods']['sequence'][metric])} "
        f"| {_figure(alone['against']['mean'][metric], signed=True)} |"
        for metric in alone["methods"]["mean"]
    )
    return f"""
## Sequence model

`{SEQUENCE}` says where a user's next signals are to be expected. What the same questions gain with it as a further \
source of candidates:

| | tuned, with it | gained |
|---|---|---|
{rows}

By itself, against the mean of the last {alone["mean_length"]} signals: one question a user and day \
({alone["queries"]} of {alone["users"]} users), the whole catalogue ranked. A day's items are looked for together \
here: recall is the share of as many as the list has room for.

| | mean | sequence model | difference |
|---|---|---|---|
{figures}
"""


def _figure(values: list[float], *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, *ends = (f"{value:{sign}.4f}" for value in values)
    return f"{mean} ({' … '.join(ends)})" if ends else mean
