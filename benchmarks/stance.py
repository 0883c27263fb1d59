"""The stance head on held-back reviews.

    .venv/bin/python benchmarks/stance.py --signals REVIEWS.jsonl.gz [MORE.jsonl.gz …]

Every fourth author and the latest fifth of the reviews are held back from training and thresholds. Prints
for each language how many reviews there are, the area under the ROC curve with its 95 % interval, and what the reviews
are that the head is sure of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from penchant_finetune.stance import make_examples, measure, read_files
from penchant_pipelines.stance import LANGUAGES
from penchant_pipelines.text import TextPipeline, TextSettings


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=Path, nargs="+", required=True, help="JSON Lines of signals with ratings")
    options = parser.parse_args()
    reviews = read_files(options.signals, TextPipeline(TextSettings()))
    table = Table("language", "part", "reviews", "AUC", "surely no praise")
    for language in LANGUAGES:
        report = measure(make_examples(reviews, language))
        for part, counts, suffix in (("held back", "held_back", ""), ("all", "reviews", "_all_unseen_authors")):
            sure = report["surely_no_praise" + suffix]
            table.add_row(language, part, _sides(report[counts]), _area(report["auc" + suffix]), _sides(sure))
    Console(width=150).print(table)
    return 0


def _area(found: list[float] | None) -> str:
    return "–" if found is None else f"{found[0]:.3f} ({found[1]:.3f}–{found[2]:.3f})"


def _sides(counts: dict[str, int]) -> str:
    return f"{counts['like']} like, {counts['lukewarm']} lukewarm, {counts['dislike']} dislike"


if __name__ == "__main__":
    raise SystemExit(main())
