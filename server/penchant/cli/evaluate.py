"""`evaluate`: how right the interests are, on a real log, against everything simpler; no server takes part."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from penchant.cli.errors import fail
from penchant.cli.files import Assignments, Config, Refusals, read_files, read_settings
from penchant.cli.options import Commands
from penchant.cli.output import print_line, print_table, progress, stderr

_SHOWN = ("ndcg@10", "recall@10", "recall@50", "mrr@50")
_TRAINED_HERE = (
    "an adapter that was trained on this log has seen most of the days that are asked about, and so may be ahead by "
    "memory; only what the single cut asks about came later (see docs/evaluation.md)"
)


def register(app: Commands) -> None:
    """Add the command."""
    app.command()(evaluate)


def _writable(file: Path | None) -> Path | None:
    # Told at the start: the race takes minutes, or hours.
    if file is not None and not file.exists() and not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
        raise typer.BadParameter(f"{file.parent} is no folder that can be written to")
    return file


def evaluate(
    items: Annotated[
        Path, typer.Option("--items", metavar="FILE", exists=True, dir_okay=False, help="Items, JSON Lines or Parquet.")
    ],
    signals: Annotated[
        Path,
        typer.Option("--signals", metavar="FILE", exists=True, dir_okay=False, help="Signals, JSON Lines or Parquet."),
    ],
    report: Annotated[
        Path,
        typer.Option(
            "--report",
            metavar="OUT.json",
            dir_okay=False,
            writable=True,
            callback=_writable,
            help="Where the figures go, as JSON.",
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="OUT.html",
            dir_okay=False,
            writable=True,
            callback=_writable,
            help="The same as a page with plots.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", file_okay=False, help="Folder that keeps vectors for the next run."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Run this method alone; repeatable. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of all that is drawn.")] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Runs, each with a seed of its own, of methods that depend on chance.")
    ] = 2,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Replay a log, day by day, and see who foretells best what users take to next."""
    if find_spec("implicit") is None or find_spec("matplotlib") is None:
        fail("evaluation needs more packages: pip install -e '.[evaluate]'")
    # Here, not above: these take seconds to load, and no other command needs them.
    from penchant_pipelines.encoder.sentence import file_sha256
    from penchant_pipelines.engine import EngineSettings
    from penchant_pipelines.evaluation.lineup import check_names, line_up, open_cached, race
    from penchant_pipelines.evaluation.log import read_log
    from penchant_pipelines.evaluation.protocol import queries
    from penchant_pipelines.evaluation.report import report as compose
    from penchant_pipelines.text import TextPipeline

    settings, refusals = read_settings(config, assignments), Refusals()
    check_names(only or (), settings.encoder)
    warnings = [_TRAINED_HERE] if settings.encoder.adapter is not None else []
    for warning in warnings:
        stderr.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    with TemporaryDirectory(prefix="penchant-evaluate-") as scratch:
        kept = cache or Path(scratch)
        encoder = open_cached(settings.encoder, kept)
        try:
            with progress("encoding", None, counted=True) as moved:
                encoder.report = moved
                log = read_log(
                    *read_files(items, signals, settings, refusals.add),
                    TextPipeline(settings.text, kept),
                    encoder.encode,
                    seed,
                )
        finally:
            encoder.close()
        asked = queries(log)
        engine = EngineSettings(**{name: getattr(settings, name) for name in EngineSettings.model_fields})
        entrants = line_up(log, engine, kept, only or ())
        numbers = range(seed, seed + seeds)
        total = sum(len(numbers) if entrant.by_chance else 1 for entrant in entrants)
        with progress("methods that have replayed the log", total, counted=True) as moved:
            runs = race(log, asked, entrants, numbers, moved)
        about = {
            "version": version("penchant"),
            "sha256": {"items": file_sha256(items), "signals": file_sha256(signals)},
            "warnings": warnings,
            "seeds": seeds,
            "left_out": refusals.count + log.left_out,
            "space_id": encoder.space_id,
            "settings": engine.model_dump(mode="json", exclude={"index"}),
        }
        figures = compose(log, asked, runs, seed, about)
    report.write_text(json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    if html is not None:
        from penchant_pipelines.evaluation.page import page

        html.write_text(page(figures), "utf-8")
    _show(figures)


def _show(figures: dict[str, Any]) -> None:
    from penchant_pipelines.evaluation.report import p_words
    from penchant_pipelines.statistics import FEWEST_USERS

    told = figures["protocol"]
    left_out = f"; left out: {told['left_out']}" if told["left_out"] else ""
    print_line(
        f"{told['users']} users, {told['queries']} queries, {told['items']} items, {told['signals']} signals{left_out}"
    )
    ranked = sorted(figures["methods"].items(), key=lambda pair: -(pair[1]["ndcg@10"][0] or 0.0))
    rows = []
    for name, values in ranked:
        gain = figures["against"].get(name, {}).get("ndcg@10")
        said = "{:+.4f} ({:+.4f} … {:+.4f})".format(*gain[:3]) if gain and None not in gain[:3] else ""
        said += f"  {p_words(gain[3])}" if gain and gain[3] is not None else ""
        rows.append((name, *(f"{values[metric][0]:.4f}" for metric in _SHOWN), said))
    print_table(("method", *_SHOWN, "Penchant's lead in ndcg@10"), rows, empty="")
    if told["users"] < FEWEST_USERS:
        print_line(f"{told['users']} users are too few to call any lead more than chance: others may well be different")
