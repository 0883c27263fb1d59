"""`finetune`: from one's own log to an adapter that is proven no worse; no server takes part."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from penchant.cli.errors import fail
from penchant.cli.files import Assignments, Config, Refusals, read_files, read_settings
from penchant.cli.options import Commands, Json
from penchant.cli.output import print_line, print_table, progress, write_line

T = TypeVar("T")

# The training libraries take seconds to load and may not be installed: every command imports them for itself.
finetune = typer.Typer(
    no_args_is_help=True,
    help="Fine-tune the encoder on your own log: prepare, train, evaluate, export. "
    "On several GPUs: accelerate launch -m penchant finetune train …",
)


class Split(StrEnum):
    """How a log is split in time."""

    AUTO = "auto"
    TIME = "time"
    USER = "user"


class Control(StrEnum):
    """Runs that must not win."""

    RANDOM_PAIRS = "random-pairs"


Prepared = Annotated[
    Path, typer.Argument(metavar="PREPARED", exists=True, file_okay=False, help="Folder that `prepare` made.")
]


def register(app: Commands) -> None:
    """Add the commands."""
    app.add_typer(finetune, name="finetune")


@finetune.callback()
def _installed() -> None:
    if find_spec("datasets") is None or find_spec("penchant_finetune") is None:
        fail("fine-tuning needs more packages: pip install -e '.[finetune]'")


@finetune.command()
def prepare(
    output: Annotated[Path, typer.Argument(metavar="PREPARED", file_okay=False, help="New folder to make.")],
    items: Annotated[
        Path | None,
        typer.Option("--items", metavar="FILE", exists=True, dir_okay=False, help="Items, JSON Lines or Parquet."),
    ] = None,
    signals: Annotated[
        Path | None,
        typer.Option("--signals", metavar="FILE", exists=True, dir_okay=False, help="Signals, JSON Lines or Parquet."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="A server's data folder in their place; the server may run."),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(help="time: one moment for all users. user: a moment of each. auto: user where few users remain."),
    ] = Split.AUTO,
    validation_from: Annotated[float, typer.Option(help="Share of the log before validation.")] = 0.8,
    test_from: Annotated[float, typer.Option(help="Share of the log before the test part.")] = 0.9,
    window_days: Annotated[float, typer.Option(help="Days within which two items count as taken to together.")] = 7.0,
    max_pairs: Annotated[int, typer.Option(min=8, help="Most pairs to train on.")] = 10_000,
    negatives: Annotated[bool, typer.Option(help="Mine hard negatives.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 0,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Make pairs to train on from items and signals, or from a server's data folder."""
    from penchant_finetune.base import open_base
    from penchant_finetune.evaluate import caution
    from penchant_finetune.folder import new_folder
    from penchant_finetune.log import live_encoder, read_log, read_record
    from penchant_finetune.prepare import PrepareSettings
    from penchant_finetune.prepare import prepare as make
    from penchant_pipelines.text import TextPipeline

    given = read_settings(config, assignments)
    wanted = _checked(
        PrepareSettings,
        split=None if split is Split.AUTO else split.value,
        validation_from=validation_from,
        test_from=test_from,
        window_days=window_days,
        negatives=negatives,
        max_pairs=max_pairs,
        seed=seed,
    )
    text, refusals = TextPipeline(given.text), Refusals()
    with new_folder(output) as folder:
        folder.chmod(0o700)  # what users wrote is nobody else's
        if data is not None and not (items or signals):
            log = read_record(data, given.text)
            live, served = live_encoder(data, given.encoder)
        elif items and signals and data is None:
            files = read_files(items, signals, given, refusals.add)
            log = read_log(*files, text, lambda error: refusals.tell(error.message))
            live, served = given.encoder, None
        else:
            raise typer.BadParameter("give --items and --signals, or --data", param_hint="--items")
        encoder, _ = open_base(given.encoder)
        manifest = make(log, encoder, live, given.interests, wanted, folder, served)
    counts = manifest.counts | ({"left out": refusals.count} if refusals.count else {})
    print_table(("what", "count"), counts.items(), empty="")
    print_line(f"in {output}, split by {manifest.split}, for {manifest.space_id}")
    if few := caution(manifest.counts["users measured"]):
        print_line(few)


@finetune.command()
def train(
    prepared: Prepared,
    run: Annotated[Path, typer.Argument(metavar="RUN", file_okay=False, help="Folder of the run; resumed if begun.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and order.")] = 0,
    epochs: Annotated[float, typer.Option(help="Times through all pairs, at most.")] = 4.0,
    batch_size: Annotated[int, typer.Option(help="Pairs that are each other's negatives.")] = 256,
    tokens_in_memory: Annotated[
        int,
        typer.Option(
            help="Tokens learnt from at once, 0.7 MB each in the embedded model; larger batches are read twice."
        ),
    ] = 8192,
    learning_rate: Annotated[float, typer.Option(help="Highest rate of learning.")] = 2e-3,
    temperature: Annotated[float, typer.Option(help="Temperature of the contrastive loss.")] = 0.05,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA layers.")] = 16,
    matryoshka: Annotated[
        str, typer.Option(metavar="N,…", help="Lengths that vectors may be cut to beside the whole, such as 256,128.")
    ] = "",
    bf16: Annotated[
        bool | None, typer.Option(help="Compute in bfloat16 (default: where the hardware has it).", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads on a CPU; 0: one a core.")] = 0,
    control: Annotated[
        Control | None, typer.Option(help="Train on pairs shuffled at random, which must not help.")
    ] = None,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="Then a model of users' next signals; a finished run keeps its adapter.")
    ] = False,
) -> None:
    """Train LoRA layers; writes RUN/adapter, run.json and TensorBoard logs, with --sequence sequence.safetensors."""
    from penchant_finetune.prepare import load_prepared
    from penchant_finetune.run import TrainSettings, is_first
    from penchant_finetune.train import train as make
    from penchant_finetune.validation import COLLAPSED, SATURATED

    try:
        lengths = tuple(int(length) for length in matryoshka.split(",") if length)
    except ValueError:
        raise typer.BadParameter(
            f"{matryoshka!r} is not a list such as 384,256,128", param_hint="--matryoshka"
        ) from None
    settings = _checked(
        TrainSettings,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        tokens_in_memory=tokens_in_memory,
        learning_rate=learning_rate,
        temperature=temperature,
        rank=rank,
        matryoshka=lengths,
        bf16=bf16,
        threads=threads,
        control=control.value if control else None,
    )
    loaded = load_prepared(prepared)
    with progress("steps", None, counted=True) as moved:
        done = make(loaded, settings, run, moved)
    tuned = f"{done.best_recall:.4f} after step {done.best_step}" if done.best_step else "no step beat it"
    print_line(
        f"{done.steps} steps in {done.seconds:.0f} s; next items found in the validation part: "
        f"{done.untuned_recall:.4f} untuned, {tuned}; in {run}"
    )
    last = done.untuned_recall if done.last_recall is None else done.last_recall
    if not done.best_step and last < COLLAPSED * done.untuned_recall:
        print_line(
            f"the last state finds {last:.4f}: training took away what the encoder knew; try a lower "
            f"--learning-rate, such as {settings.learning_rate / 4:g}, in another folder"
        )
    if done.untuned_recall > SATURATED:
        print_line(
            "the catalogue is too small for recall@50 to tell encoders apart: NDCG@10 decided among equals; "
            "see what `penchant finetune evaluate` says of it, and train on more items if you can"
        )
    # Of several processes one is enough: the model is small.
    if sequence and is_first():
        from penchant_finetune.sequence_run import train_run_sequence

        found = train_run_sequence(loaded, run, seed, threads)
        gained = f"{found.best:.4f} after training" if found.best > found.start else "no step of training beat it"
        print_line(
            f"sequence model: NDCG@10 on the validation part {found.start:.4f} by the mean of the last signals, "
            f"{gained}; in {run}"
        )


@finetune.command()
def evaluate(
    prepared: Prepared,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", exists=True, file_okay=False, help="Runs to measure.")],
    as_json: Json = False,
) -> None:
    """Measure runs against the live encoder on the test part: next items, ranked among the whole catalogue."""
    from penchant_finetune.evaluate import caution
    from penchant_finetune.evaluate import evaluate as measure
    from penchant_finetune.next_items import METRICS
    from penchant_finetune.prepare import load_prepared

    reports, together = measure(load_prepared(prepared), runs)
    if as_json:
        write_line(json.dumps({"runs": reports, "together": together}))
        return
    print_line(", ".join(f"{count} {name}" for name, count in reports[0]["protocol"].items() if name != "split"))
    rows = [("live", *(_mean(reports[0]["live"][metric]) for metric in METRICS))]
    for report in [*reports, *together]:
        name = str(report["run"]) + (f" ({report['control']})" if report["control"] else "")
        rows.append((name, *(_mean(report["tuned"][metric]) for metric in METRICS)))
        rows.append(("  less live", *(_difference(report["difference"][metric]) for metric in METRICS)))
        for length, cut in report.get("shorter", {}).items():
            rows.append((f"  of {length} dimensions", *(_mean(cut["tuned"][metric]) for metric in METRICS)))
            rows.append(("    less live", *(_difference(cut["difference"][metric]) for metric in METRICS)))
        with_sequence = report.get("sequence")
        if with_sequence:
            rows.append(("  with sequence", *(_mean(with_sequence["tuned"][metric]) for metric in METRICS)))
            rows.append(("  less without", *(_difference(with_sequence["difference"][metric]) for metric in METRICS)))
    print_table(("run", *METRICS), rows, empty="")
    few = caution(reports[0]["protocol"]["users"])
    if few:
        print_line(few)
    for report in reports:
        if report["sequence"]:
            alone = report["sequence"]["next items"]
            print_line(
                f"{report['run']}: sequence model by itself, less the mean of the last {alone['mean_length']} signals: "
                + ", ".join(f"{name} {_difference(values)}" for name, values in alone["against"]["mean"].items())
            )


@finetune.command()
def export(
    prepared: Prepared,
    run: Annotated[Path, typer.Argument(metavar="RUN", exists=True, file_okay=False, help="Folder of the run.")],
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", file_okay=False, help="Adapter folder to make.")],
) -> None:
    """Make the adapter folder that a server loads; refused where the run was measured to be worse than the live one."""
    from penchant_finetune.export import export as make
    from penchant_finetune.prepare import load_prepared

    left_out = make(load_prepared(prepared), run, adapter)
    if left_out:
        print_line(f"without the sequence model: {left_out}")
    print_line(f"adapter in {adapter}; fill in the licence in its README.md")


def _checked(kind: Callable[..., T], **values: Any) -> T:
    from pydantic import ValidationError

    try:
        return kind(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]).replace("_", "-")
        raise typer.BadParameter(problem["msg"], param_hint=f"--{name}") from None


def _mean(values: list[float]) -> str:
    return f"{values[0]:.4f}"


def _difference(values: list[float]) -> str:
    mean, *ends = (f"{value:+.4f}" for value in values)
    return f"{mean} ({' … '.join(ends)})" if ends else mean
