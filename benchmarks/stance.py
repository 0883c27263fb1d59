"""The stance head on held-back reviews: words alone, the vector alone, and both.

    .venv/bin/python benchmarks/stance.py --signals REVIEWS.jsonl.gz [MORE.jsonl.gz …]

Every fourth author and the latest fifth of the reviews are held back from training, calibration and thresholds. Prints
for each language and choice of features how many reviews there are, the area under the ROC curve with its 95 %
interval, and what the reviews are that the head is sure of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from penchant_finetune.stance import USES, make_examples, measure, read_files
from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.stance import LANGUAGES
from penchant_pipelines.text import TextPipeline, TextSettings


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=Path, nargs="+", required=True, help="JSON Lines of signals with ratings")
    parser.add_argument("--adapter", type=Path, help="adapter of the encoder (default: the embedded one)")
    options = parser.parse_args()
    encoder = open_encoder(EncoderSettings(adapter=options.adapter))
    reviews = read_files(options.signals, TextPipeline(TextSettings()))
    columns = ("language", "features", "AUC held back", "AUC all, author unseen", "sure: like", "sure: dislike")
    table = Table(*columns, title=encoder.space_id)
    for language in LANGUAGES:
        report = measure(make_examples(reviews, language, encoder.encode))
        for use in USES:
            found = report[use]
            told = [_sides(found[side]) for side in ("sure_like", "sure_dislike")]
            areas = [_area(found[name]) for name in ("auc", "auc_all_unseen_authors")]
            table.add_row(language, use, *areas, *told)
        table.add_row(language, "trained on / held back", _sides(report["trained_on"]), _sides(report["held_back"]))
    Console(width=150).print(table)
    return 0


def _area(found: list[float] | None) -> str:
    return "–" if found is None else f"{found[0]:.3f} ({found[1]:.3f}–{found[2]:.3f})"


def _sides(counts: dict[str, int]) -> str:
    return f"{counts['like']} like, {counts['lukewarm']} lukewarm, {counts['dislike']} dislike"


if __name__ == "__main__":
    raise SystemExit(main())
