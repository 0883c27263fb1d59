"""Does augmentation help? Each kind of synthetic data against none, over several seeds, on one log.

    .venv/bin/python benchmarks/augmentation.py --items ITEMS.jsonl.gz --signals SIGNALS.jsonl.gz --out FOLDER

Prints a Markdown table: next-item recall and NDCG on the test part, each user's figure being the mean over the seeds,
with 95 % intervals by bootstrap over users; and the differences from training without, paired by user. What is done
already in FOLDER is not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from penchant_finetune.augment import AUGMENTATIONS
from penchant_finetune.evaluate import compare, measure_run
from penchant_finetune.next_items import METRICS, Values, questions
from penchant_finetune.prepare import load_prepared


def main() -> int:
    """Prepare and train what is missing, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, help="JSON Lines of items")
    parser.add_argument("--signals", required=True, help="JSON Lines of signals")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is prepared and trained")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--train", default="", help='options of `penchant finetune train`, such as "--epochs 2"')
    options = parser.parse_args()
    figures = {kind: figures_of(kind, options) for kind in ("none", *AUGMENTATIONS)}
    print("| augmentation | " + " | ".join(METRICS) + " |")
    print("|---" * (len(METRICS) + 1) + "|")
    for kind, found in figures.items():
        report = compare(figures["none"], found)
        print(row(kind, [report["tuned"][metric] for metric in METRICS], "{:.4f}"))
        if kind != "none":
            print(row("less none", [report["difference"][metric] for metric in METRICS], "{:+.4f}"))
    return 0


def figures_of(kind: str, options: argparse.Namespace) -> dict[int, Values]:
    """Figures by user of one kind, the mean over the seeds."""
    folder = options.out / kind
    prepared = folder / "prepared"
    if not (prepared / "prepare.json").exists():
        chosen = [] if kind == "none" else ["--augment", kind]
        finetune("prepare", str(prepared), "--items", options.items, "--signals", options.signals, *chosen)
    loaded = load_prepared(prepared)
    asked = questions(loaded)
    found = []
    for seed in range(options.seeds):
        run = folder / f"seed-{seed}"
        if not (run / "run.json").exists():
            finetune("train", str(prepared), str(run), "--seed", str(seed), *options.train.split())
        found.append(measure_run(loaded, asked, run))
    return {user: np.mean([figures[user] for figures in found], axis=0) for user in found[0]}


def finetune(*arguments: str) -> None:
    """Run a `penchant finetune` command."""
    subprocess.run([sys.executable, "-m", "penchant", "finetune", *arguments], check=True)  # noqa: S603


def row(name: str, values: list[list[float]], form: str) -> str:
    """One row of the table: mean and interval of each metric."""
    return f"| {name} | " + " | ".join(f"{form} ({form} … {form})".format(*value) for value in values) + " |"


if __name__ == "__main__":
    sys.exit(main())
