"""Whether interests follow subjects: invented users who write on several, each known to the benchmark.

    .venv/bin/python benchmarks/interests.py --topics TOPIC_TEXTS.jsonl.gz … --authors SIGNALS.jsonl.gz … --cache DIR

A user writes ten texts on each of two to four topics (lines with `text` and `topic`), or ten posts in a row of each of
as many authors (signals), a text a day in mixed order. They go through the blend that serves, with the embedded
encoder's vectors. Texts and authors fall into two halves by hash, as in `drift.py`. Prints, with 95 % intervals by
bootstrap over users: interests and subjects of a user; the adjusted Rand index of the two partitions of the signals
(Hubert and Arabie 1985; 1: the same, 0: chance); how far an interest is of one subject, and how far a subject is in one
interest (homogeneity and completeness, Rosenberg and Hirschberg 2007).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from drift import HALVES, Vectors, encoded, read_authors, read_topics
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure
from splices import Source

from penchant_pipelines.encoder import EncoderSettings
from penchant_pipelines.evaluation.lineup import open_cached
from penchant_pipelines.interests import Blender, Evidence, InterestSettings, Profile, Recipe, calibrate
from penchant_pipelines.interests.blend import Trace
from penchant_pipelines.model import MICROS_PER_DAY
from penchant_pipelines.statistics import Bootstrap
from penchant_pipelines.text import TextPipeline, TextSettings

SUBJECTS = (2, 3, 4)
TEXTS = 10


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", type=Path, nargs="+", default=[], help="JSON Lines with text and topic")
    parser.add_argument("--authors", type=Path, nargs="+", default=[], help="JSON Lines of signals")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps vectors for the next run")
    parser.add_argument("--half", choices=HALVES, default=HALVES[1])
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--similarity", type=float, help="another θ than is measured")
    options = parser.parse_args()
    encoder = open_cached(EncoderSettings(), options.cache)
    calibration = calibrate(encoder.encode).chosen(options.similarity)
    blender = Blender(Recipe(InterestSettings(), calibration, encoder.space_id))
    pipeline = TextPipeline(TextSettings(), options.cache)
    table = Table("set", "subjects", "interests", "adjusted Rand", "homogeneity", "completeness")
    for texts in (*map(read_topics, options.topics), *map(read_authors, options.authors)):
        source, vectors = encoded(texts, options.half, pipeline, encoder)
        dice = np.random.default_rng(options.seed)
        found = np.array([figures(*user(source, dice), vectors, blender) for _ in range(options.users)])
        draws = Bootstrap(len(found), options.seed)
        means = [draws.interval(column) for column in found.T]
        cells = [f"{means[0][0]:.1f}", f"{means[1][0]:.1f}"]
        table.add_row(texts.name, *cells, *(f"{mean:.2f} ({low:.2f}–{high:.2f})" for mean, low, high in means[2:]))
    Console(width=120).print(table)
    encoder.close()
    return 0


def user(source: Source, dice: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of a user's texts in order, and the number of each one's subject."""
    names = sorted(name for name, rows in source.groups.items() if len(rows) >= TEXTS)
    chosen = dice.permutation(names)[: dice.choice(SUBJECTS)]
    rows, subjects = [], []
    for number, name in enumerate(chosen):
        own = source.groups[name]
        if source.gaps is None:
            rows.append(dice.permutation(own)[:TEXTS])
        else:
            start = dice.integers(len(own) - TEXTS + 1)
            rows.append(own[start : start + TEXTS])
        subjects.append(np.full(TEXTS, number))
    order = dice.permutation(TEXTS * len(chosen))
    return np.concatenate(rows)[order], np.concatenate(subjects)[order]


def figures(
    rows: NDArray[np.intp], subjects: NDArray[np.intp], vectors: Vectors, blender: Blender
) -> tuple[float, float, float, float, float]:
    """Subjects, interests, adjusted Rand index, homogeneity and completeness of one user."""
    profile, trace = Profile(), Trace()
    for day, row in enumerate(rows):
        blender.add(profile, Evidence(f"{day:04}", day * MICROS_PER_DAY, vectors[row]), trace)
    taken = [trace.last_of(interest_id) for _, interest_id, _ in trace.taken]
    homogeneity, completeness, _ = homogeneity_completeness_v_measure(subjects, taken)
    rand = adjusted_rand_score(subjects, taken)
    return len(set(subjects)), len(profile.interests), rand, homogeneity, completeness


if __name__ == "__main__":
    raise SystemExit(main())
