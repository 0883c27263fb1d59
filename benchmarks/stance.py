"""The stance head on held-back reviews.

    .venv/bin/python benchmarks/stance.py --signals REVIEWS.jsonl.gz [MORE.jsonl.gz …]

Prints for each language how many reviews there are, the area under the ROC curve, and what the reviews are that the
head is sure of, with their mean rating; intervals are 95 % by bootstrap over authors.

- held back: every fourth author and the latest fifth of the reviews, read by a head that was trained on the rest.
- unseen: all reviews, each read by a head whose weights and threshold were found without its author.
- threshold: the reviews that the threshold of the head fitted on all rests on. They were chosen for being rated low,
  so that this is no measure of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from penchant_finetune.stance import Report, make_examples, measure, read_files
from penchant_pipelines.stance import LANGUAGES
from penchant_pipelines.text import TextPipeline, TextSettings


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=Path, nargs="+", required=True, help="JSON Lines of signals with ratings")
    options = parser.parse_args()
    reviews = read_files(options.signals, TextPipeline(TextSettings()))
    table = Table("language", "part", "reviews", "AUC", "surely no praise", "their rating")
    for language in LANGUAGES:
        report = measure(make_examples(reviews, language))
        for part, counts, suffix in (
            ("held back", "held_back", ""),
            ("unseen", "reviews", "_all_unseen_authors"),
            ("threshold", "reviews", "_threshold"),
        ):
            sure = report["surely_no_praise" + suffix]
            area = _area(report.get("auc" + suffix))
            table.add_row(language, part, _sides(report[counts]), area, _sides(sure), _rating(sure))
    Console(width=170).print(table)
    return 0


def _area(found: list[float] | None) -> str:
    return "–" if found is None else f"{found[0]:.3f} ({found[1]:.3f}–{found[2]:.3f})"


def _sides(counts: Report) -> str:
    return f"{counts['like']} like, {counts['lukewarm']} lukewarm, {counts['dislike']} dislike"


def _rating(sure: Report) -> str:
    if not sure["rating"]:
        return "–"
    mean, low, high = sure["rating"]
    return f"{mean:.2f} ({low:.2f}–{high:.2f}), {sure['authors']} authors, {sure['most_of_one_author']} of one"


if __name__ == "__main__":
    raise SystemExit(main())
