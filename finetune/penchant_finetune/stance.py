"""Train the stance head on reviews with ratings, and measure it on authors and times held back.

    python -m penchant_finetune.stance --signals REVIEWS.jsonl.gz … --out FOLDER

Writes `stance.safetensors` and `stance.json`, the report.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from penchant import convert, jsonl
from penchant.v1.signal_pb2 import Signal as SignalMessage
from penchant_finetune.program import told_in_a_line
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.model import Post, Signal
from penchant_pipelines.stance import BUCKETS, COUNTS, FILE, LANGUAGES, Head, Stance, read_words
from penchant_pipelines.statistics import Bootstrap, middle, resamples
from penchant_pipelines.text import TextPipeline, TextSettings
from penchant_pipelines.text.language import resolve_language

Values = NDArray[np.float64]
Report = dict[str, Any]

REPORT = "stance.json"
LIKED = 0.5
"""Ratings from here on like; below 0 they dislike; between they are lukewarm, which trains against."""
LUKEWARM_WEIGHT = 0.4
NO_PRAISE = 0.0
"""A mean rating surely below is no praise: three stars of five."""
STRENGTH = 0.3
"""Inverse of the L2 penalty. All choices here are from cross-validation over authors, see docs."""
FOLDS = 5
LEAST_SURE = 20
"""Reviews that a threshold must rest on."""
RESAMPLES = 1000
HELD_USERS, HELD_TIME = 4, 0.2
"""Every fourth author is held back, and the latest fifth of each language's time span in reviews."""


@dataclass(frozen=True, slots=True)
class Review:
    """A text with its author's rating −1…1. `text` is as the encoder reads it, `words` are its segments."""

    text: str
    words: tuple[str, ...]
    language: str
    user_id: str
    time: int
    rating: float


def read_reviews(signals: Iterable[Signal], text: TextPipeline) -> list[Review]:
    """Reviews in a language that can be learnt; those that declare another language than they are in are left out."""
    found = []
    for signal in signals:
        post = signal.evidence
        if not isinstance(post, Post) or post.rating is None:
            continue
        document = text.read(post.text, post.language)
        if document.text and document.language in LANGUAGES and resolve_language(document.text) == document.language:
            words = tuple(text.segment(document.text))
            found.append(Review(document.text, words, document.language, signal.user_id, signal.time or 0, post.rating))
    return found


@dataclass(frozen=True, slots=True)
class Examples:
    """Reviews of one language as numbers."""

    ngrams: sparse.csr_matrix
    counts: NDArray[np.float32]
    ratings: Values
    users: NDArray[np.str_]
    times: NDArray[np.int64]

    @property
    def liked(self) -> NDArray[np.bool_]:
        """Which ones like."""
        return self.ratings >= LIKED

    @property
    def clear(self) -> NDArray[np.bool_]:
        """Which ones are not lukewarm."""
        return self.liked | (self.ratings < 0)

    def part(self, rows: NDArray[Any]) -> Examples:
        """Some of them."""
        return Examples(
            self.ngrams[rows],
            self.counts[rows],
            self.ratings[rows],
            self.users[rows],
            self.times[rows],
        )


def make_examples(reviews: Sequence[Review], language: str) -> Examples:
    """Turn reviews of one language into numbers. Raises InvalidInput where likes or dislikes are too few to learn."""
    own = [review for review in reviews if review.language == language]
    read = [read_words(review.words) for review in own]
    ngrams = sparse.lil_matrix((len(own), BUCKETS), dtype=np.float64)
    for row, words in enumerate(read):
        ngrams[row, words.buckets] = 1 / np.sqrt(max(len(words.buckets), 1))
    examples = Examples(
        ngrams.tocsr(),
        np.array([words.counts for words in read], dtype=np.float32).reshape(len(own), COUNTS),
        np.array([review.rating for review in own]),
        np.array([review.user_id for review in own]),
        np.array([review.time for review in own], dtype=np.int64),
    )
    likes, dislikes = int(examples.liked.sum()), int((examples.ratings < 0).sum())
    if min(likes, dislikes) < 2 * FOLDS or len(np.unique(examples.users)) < FOLDS:
        raise InvalidInput.at(
            "signals",
            f"hold {likes} liking and {dislikes} disliking reviews of {len(np.unique(examples.users))} authors in "
            f"{language!r}; at least {2 * FOLDS} of each by {FOLDS} authors are needed",
        )
    return examples


def fit(examples: Examples) -> Head:
    """Fit a head, sure of nothing; likes and dislikes weigh alike."""
    known = np.unique(examples.ngrams.indices)
    matrix = sparse.hstack([sparse.csr_matrix(examples.counts[:, 1:]), examples.ngrams[:, known]]).tocsr()
    weights = np.where(examples.clear, 1.0, LUKEWARM_WEIGHT)
    for side in (examples.liked, ~examples.liked):
        weights[side] *= 200 / weights[side].sum()
    # Problems this small only lose by sharing them among threads.
    with threadpool_limits(1):
        model = LogisticRegression(C=STRENGTH, max_iter=2000).fit(matrix, examples.liked, sample_weight=weights)
    learnt = model.coef_[0]
    counts = np.array([model.intercept_[0], *learnt[: COUNTS - 1]], dtype=np.float32)
    ngrams = np.zeros(BUCKETS, dtype=np.float16)
    ngrams[known] = learnt[COUNTS - 1 :]
    return Head(ngrams, counts, np.array([-np.inf, 0], dtype=np.float32))


def scores(head: Head, examples: Examples) -> Values:
    """Scores of a head."""
    return np.asarray(examples.ngrams @ head.ngrams.astype(np.float64) + examples.counts @ head.counts, np.float64)


def unseen_scores(examples: Examples) -> Values:
    """Scores of each review by a head that was fitted without its author."""
    found = np.zeros(len(examples.ratings))
    for train, test in GroupKFold(FOLDS).split(found, groups=examples.users):
        if len(np.unique(examples.liked[train])) == 2:
            found[test] = scores(fit(examples.part(train)), examples.part(test))
    return found


def fit_with_blame(examples: Examples) -> Head:
    """Fit a head, and find where it is sure on scores of unseen authors' reviews."""
    blame = sure_blame(unseen_scores(examples), examples.ratings)
    return replace(fit(examples), blame=np.array(blame, dtype=np.float32))


def unseen_sure(examples: Examples) -> NDArray[np.bool_]:
    """Reviews that a head is sure of whose weights and threshold were both found without their author."""
    found = np.zeros(len(examples.ratings), dtype=bool)
    for train, test in GroupKFold(FOLDS).split(found, groups=examples.users):
        if len(np.unique(examples.liked[train])) == 2:
            head = fit_with_blame(examples.part(train))
            found[test] = scores(head, examples.part(test)) <= head.blame[0]
    return found


def sure_blame(values: Values, ratings: Values) -> tuple[float, float]:
    """Score up to which ratings are, on the mean, surely no praise, and that mean; (−inf, 0) where there is none.

    Ratings come as frequently as in life: most are praise, so few texts are surely none.
    """
    order = np.argsort(values, kind="stable")
    told, count = ratings[order], np.arange(1, len(order) + 1)
    mean = np.cumsum(told) / count
    spread = np.sqrt(np.maximum(np.cumsum(told**2) / count - mean**2, 0.05) / count)
    sound = np.flatnonzero((mean + 1.96 * spread < NO_PRAISE) & (count >= LEAST_SURE))
    if not len(sound):
        return float("-inf"), 0.0
    last = int(sound[-1])
    return float(values[order[last]]), float(mean[last])


def held_back(examples: Examples) -> NDArray[np.bool_]:
    """Reviews to measure on: all of every fourth author, and everybody's latest."""
    users = np.array([zlib.crc32(user.encode()) % HELD_USERS == 0 for user in examples.users])
    return users | (examples.times > np.quantile(examples.times, 1 - HELD_TIME))


def measure(examples: Examples) -> Report:
    """Fit on what is not held back, and report on the rest; intervals 95 % by bootstrap over authors.

    `surely_no_praise_threshold` are the reviews, of all, that the threshold of a head fitted on all rests on: it was
    chosen so that their mean rating is low. How it does is told by the other two.
    """
    held = held_back(examples)
    train, test = examples.part(~held), examples.part(held)
    try:
        head, sure = fit_with_blame(train), unseen_sure(examples)
    except ValueError as error:
        raise InvalidInput.at("signals", f"leave too few likes or dislikes to train on: {error}") from error
    found, unseen = scores(head, test), unseen_scores(examples)
    return {
        "reviews": _counts(examples),
        "trained_on": _counts(train),
        "held_back": _counts(test),
        "auc": auc(test, found),
        "auc_all_unseen_authors": auc(examples, unseen),
        "surely_no_praise": _sure(found <= head.blame[0], test),
        "surely_no_praise_all_unseen_authors": _sure(sure, examples),
        "surely_no_praise_threshold": _sure(unseen <= sure_blame(unseen, examples.ratings)[0], examples),
    }


def auc(examples: Examples, values: Values) -> list[float] | None:
    """Area under the ROC curve with its interval, lukewarm reviews left out; None where one side is missing."""
    clear = examples.part(examples.clear)
    liked, told = clear.liked, values[examples.clear]
    if liked.all() or not liked.any():
        return None
    # The area is the mean over pairs of one that likes and one that does not (Mann & Whitney 1947).
    good, bad = told[liked][:, None], told[~liked][None, :]
    right = (good > bad) + 0.5 * (good == bad)
    authors, own = np.unique(clear.users, return_inverse=True)
    drawn = []
    for times in resamples(len(authors), 0, RESAMPLES):
        rows, columns = times[own[liked]], times[own[~liked]]
        # Authors of one side alone tell nothing of the order of both.
        if rows.any() and columns.any():
            drawn.append(rows @ right @ columns / (rows.sum() * columns.sum()))
    return [round(number, 3) for number in (float(right.mean()), *middle(np.array(drawn), len(authors)))]


def _sure(sure: NDArray[np.bool_], examples: Examples) -> Report:
    """What the reviews are that a head is sure of, most of one author, and their mean rating with its interval."""
    part = examples.part(sure)
    authors, own = np.unique(part.users, return_inverse=True)
    if not len(authors):
        return {**_counts(part), "most_of_one_author": 0, "rating": None}
    sums, counts = (np.bincount(own, weights).astype(np.float64) for weights in (part.ratings, None))
    rating = Bootstrap(len(authors), draws=RESAMPLES).ratio(sums, counts)
    return {
        **_counts(part),
        "most_of_one_author": int(counts.max()),
        "rating": [round(number, 3) for number in rating],
    }


def _counts(examples: Examples) -> dict[str, int]:
    return {
        "authors": len(np.unique(examples.users)),
        "like": int(examples.liked.sum()),
        "lukewarm": int((~examples.clear).sum()),
        "dislike": int((examples.ratings < 0).sum()),
    }


def train_stance(reviews: Sequence[Review], folder: Path | None = None) -> tuple[Stance, Report]:
    """Train a head for each language with enough reviews, and measure it on what is held back.

    The figures are of heads fitted without what they are measured on; the weights returned are then fitted on all.
    Raises InvalidInput where no language has enough.
    """
    heads, report = {}, {}
    refused: InvalidInput | None = None
    for language in LANGUAGES:
        try:
            examples = make_examples(reviews, language)
            report[language] = measure(examples)
        except InvalidInput as error:
            report[language] = {"refused": error.message}
            refused = error
            continue
        heads[language] = fit_with_blame(examples)
    if not heads and refused is not None:
        raise refused
    stance = Stance(heads)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        stance.save(folder / FILE)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    return stance, report


def read_files(files: Sequence[Path], text: TextPipeline) -> list[Review]:
    """Reviews of JSON Lines files. Raises InvalidInput where a line can't be read."""
    reviews: list[Review] = []
    for file in files:
        with jsonl.open_source(file) as source:
            signals = []
            for line in jsonl.read_messages(source, SignalMessage):
                if not isinstance(line.content, SignalMessage):
                    raise InvalidInput.at("signals", f"{file.name}, line {line.number}: {line.content}")
                signals.append(convert.to_signal(line.content))
        reviews += read_reviews(signals, text)
    return reviews


@told_in_a_line()
def main() -> None:
    """Train, write and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=Path, nargs="+", required=True, help="JSON Lines of signals with ratings")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and report")
    options = parser.parse_args()
    reviews = read_files(options.signals, TextPipeline(TextSettings()))
    _, report = train_stance(reviews, options.out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
