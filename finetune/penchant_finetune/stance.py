"""Train the stance head on reviews with ratings, and measure it on authors and times held back.

    python -m penchant_finetune.stance --signals REVIEWS.jsonl.gz … --out FOLDER

Writes `stance.safetensors` and `stance.json`, the report.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.model import Post, Signal
from penchant_pipelines.stance import BUCKETS, COUNTS, FILE, LANGUAGES, Head, Stance, read_words
from penchant_pipelines.text import TextPipeline, TextSettings
from penchant_pipelines.text.language import resolve_language

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
Values = NDArray[np.float64]
Report = dict[str, Any]

REPORT = "stance.json"
LIKED = 0.5
"""Ratings from here on like; below 0 they dislike; between they are lukewarm, which trains against."""
LUKEWARM_WEIGHT = 0.4
PRECISION = 0.9
STRENGTH = 0.3
"""Inverse of the L2 penalty. All choices here are from cross-validation over authors, see docs."""
NGRAM_SCALE, AIM_SCALE = 1.0, 0.7
FOLDS = 5
LEAST_SURE = 8
"""Reviews that a threshold must rest on."""
HELD_USERS, HELD_TIME = 4, 0.2
"""Every fourth author is held back, and the latest fifth of each language's time span in reviews."""

PROMPTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        (
            "I loved it",
            "a wonderful, brilliant book",
            "highly recommended",
            "one of the best",
            "I enjoyed every minute",
            "excellent",
            "beautiful and moving",
            "great fun",
        ),
        (
            "I hated it",
            "a terrible, boring book",
            "not recommended",
            "one of the worst",
            "a waste of time",
            "awful",
            "dull and disappointing",
            "I could not finish it",
        ),
    ),
    "zh": (
        ("太好看了", "非常喜欢", "强烈推荐", "最好的作品之一", "精彩极了", "非常感动", "很有意思", "经典之作"),
        ("太难看了", "非常讨厌", "完全不推荐", "最烂的作品之一", "浪费时间", "非常失望", "很无聊", "看不下去"),
    ),
}
"""Plain words of praise and blame: the direction between them in embedding space is a feature."""


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
    """Reviews of one language as numbers. `aim` is the unit direction from blame to praise."""

    ngrams: sparse.csr_matrix
    counts: Vectors
    vectors: Vectors
    aim: Vectors
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
            self.vectors[rows],
            self.aim,
            self.ratings[rows],
            self.users[rows],
            self.times[rows],
        )


def make_examples(reviews: Sequence[Review], language: str, encode: Encode) -> Examples:
    """Turn reviews of one language into numbers. Raises InvalidInput where likes or dislikes are too few to learn."""
    own = [review for review in reviews if review.language == language]
    read = [read_words(review.words) for review in own]
    ngrams = sparse.lil_matrix((len(own), BUCKETS), dtype=np.float64)
    for row, words in enumerate(read):
        ngrams[row, words.buckets] = 1 / np.sqrt(max(len(words.buckets), 1))
    praise, blame = (encode(list(texts)).mean(axis=0) for texts in PROMPTS[language])
    aim = praise - blame
    examples = Examples(
        ngrams.tocsr(),
        np.array([words.counts for words in read], dtype=np.float32).reshape(len(own), COUNTS),
        encode([review.text for review in own]),
        (aim / max(float(np.linalg.norm(aim)), 1e-9)).astype(np.float32),
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


def fit(examples: Examples, use_words: bool = True, use_vector: bool = True) -> Head:
    """Fit a head, uncalibrated; likes and dislikes weigh alike."""
    rows, aim = examples.vectors @ examples.aim, examples.aim
    middle, spread = float(rows.mean()), max(float(rows.std()), 1e-6)
    blocks = []
    known = np.unique(examples.ngrams.indices)
    if use_words:
        blocks += [examples.counts[:, 1:], examples.ngrams[:, known] * NGRAM_SCALE]
    if use_vector:
        blocks.append(((rows - middle) / spread * AIM_SCALE)[:, None])
    matrix = sparse.hstack([sparse.csr_matrix(block, dtype=np.float64) for block in blocks]).tocsr()
    weights = np.where(examples.clear, 1.0, LUKEWARM_WEIGHT)
    for side in (examples.liked, ~examples.liked):
        weights[side] *= 200 / weights[side].sum()
    # Problems this small only lose by sharing them among threads.
    with threadpool_limits(1):
        model = LogisticRegression(C=STRENGTH, max_iter=2000).fit(matrix, examples.liked, sample_weight=weights)
    learnt, constant = model.coef_[0], float(model.intercept_[0])
    counts = np.zeros(examples.counts.shape[1], dtype=np.float32)
    ngrams = np.zeros(BUCKETS, dtype=np.float16)
    vector = np.zeros(0, dtype=np.float32)
    if use_words:
        counted = len(counts) - 1
        counts[1:] = learnt[:counted]
        ngrams[known] = learnt[counted : counted + len(known)] * NGRAM_SCALE
    if use_vector:
        share = float(learnt[-1]) * AIM_SCALE / spread
        vector = (share * aim).astype(np.float32)
        constant -= share * middle
    counts[0] = constant
    return Head(ngrams, counts, vector, np.array([1, 0], dtype=np.float32), np.array([-1, 2], dtype=np.float32))


def scores(head: Head, examples: Examples) -> Values:
    """Scores of a head before calibration."""
    total = examples.ngrams @ head.ngrams.astype(np.float64) + examples.counts @ head.counts
    return np.asarray(total + (examples.vectors @ head.vector if len(head.vector) else 0.0), dtype=np.float64)


def unseen_scores(examples: Examples, **use: bool) -> Values:
    """Scores of each review by a head that was fitted without its author."""
    found = np.zeros(len(examples.ratings))
    for train, test in GroupKFold(FOLDS).split(found, groups=examples.users):
        if len(np.unique(examples.liked[train])) == 2:
            found[test] = scores(fit(examples.part(train), **use), examples.part(test))
    return found


def calibrated(examples: Examples, **use: bool) -> Head:
    """Fit a head; calibrate it (Platt 1999) and choose its thresholds on scores of unseen authors' reviews."""
    clear = examples.clear
    found, liked = unseen_scores(examples, **use)[clear], examples.liked[clear]
    # Platt's targets keep few examples from making it over-sure.
    weights = np.where(liked, 0.5 / liked.sum(), 0.5 / (~liked).sum()) * len(liked)
    model = LogisticRegression(C=1.0).fit(found[:, None], liked, sample_weight=weights)
    slope, offset = max(float(model.coef_[0, 0]), 0.0), float(model.intercept_[0])
    probability = 1 / (1 + np.exp(-(slope * found + offset)))
    low, high = -_sure_from(-probability, ~liked, weights), _sure_from(probability, liked, weights)
    head = fit(examples, **use)
    # Doubt lies in the middle, whatever few reviews say.
    thresholds = [min(low, 0.5 - 1e-3), max(high, 0.5 + 1e-3)]
    return Head(
        head.ngrams,
        head.counts,
        head.vector,
        np.array([slope, offset], dtype=np.float32),
        np.array(thresholds, dtype=np.float32),
    )


def _sure_from(values: Values, right: NDArray[np.bool_], weights: Values) -> float:
    """Least value from which on PRECISION are right at even odds, and more right than wrong as they come."""
    order = np.argsort(-values, kind="stable")
    right, weights = right[order], weights[order]
    count = np.arange(1, len(order) + 1)
    even = np.cumsum(weights * right) / np.cumsum(weights)
    sound = (even >= PRECISION) & (np.cumsum(right) / count > 0.5) & (count >= LEAST_SURE)
    return float(values[order[np.flatnonzero(sound)[-1]]]) if sound.any() else 2.0


def held_back(examples: Examples) -> NDArray[np.bool_]:
    """Reviews to measure on: all of every fourth author, and everybody's latest."""
    users = np.array([zlib.crc32(user.encode()) % HELD_USERS == 0 for user in examples.users])
    return users | (examples.times > np.quantile(examples.times, 1 - HELD_TIME))


def measure(examples: Examples) -> Report:
    """Fit on what is not held back, and report on the rest; intervals 95 % by bootstrap over reviews."""
    held = held_back(examples)
    train, test = examples.part(~held), examples.part(held)
    report: Report = {"reviews": _counts(examples), "trained_on": _counts(train), "held_back": _counts(test)}
    for name, use in USES.items():
        try:
            head = calibrated(train, **use)
        except ValueError as error:
            raise InvalidInput.at("signals", f"leave too few likes or dislikes to train on: {error}") from error
        slope, offset = head.calibration.tolist()
        probability = 1 / (1 + np.exp(-(slope * scores(head, test) + offset)))
        clear = test.clear
        low, high = head.thresholds.tolist()
        report[name] = {
            "auc": auc(test.liked[clear], probability[clear]),
            "auc_with_lukewarm": auc(test.liked, probability),
            "auc_all_unseen_authors": auc(
                examples.liked[examples.clear], unseen_scores(examples, **use)[examples.clear]
            ),
            "sure_like": _sure(probability >= high, test),
            "sure_dislike": _sure(probability <= low, test),
        }
    return report


USES = {
    "words": {"use_words": True, "use_vector": False},
    "vector": {"use_words": False, "use_vector": True},
    "both": {"use_words": True, "use_vector": True},
}


def auc(liked: NDArray[np.bool_], values: Values, draws: int = 1000) -> list[float] | None:
    """Area under the ROC curve with its interval, None where one side is missing."""
    if liked.all() or not liked.any():
        return None
    dice = np.random.default_rng(0)
    # The area is the mean over pairs of one that likes and one that does not (Mann & Whitney 1947).
    good, bad = values[liked][:, None], values[~liked][None, :]
    right = (good > bad) + 0.5 * (good == bad)
    found = []
    for _ in range(draws):
        rows = dice.multinomial(right.shape[0], np.full(right.shape[0], 1 / right.shape[0]))
        columns = dice.multinomial(right.shape[1], np.full(right.shape[1], 1 / right.shape[1]))
        found.append(rows @ right @ columns / right.size)
    low, high = np.quantile(found, (0.025, 0.975))
    return [round(float(number), 3) for number in (right.mean(), low, high)]


def _sure(sure: NDArray[np.bool_], examples: Examples) -> Report:
    """What the reviews are that a head is sure of, and the share of likes among them were they as frequent."""
    liked, disliked = examples.liked, examples.ratings < 0
    likes, dislikes = (sure & liked).sum() / max(liked.sum(), 1), (sure & disliked).sum() / max(disliked.sum(), 1)
    return {
        **_counts(examples.part(sure)),
        "like_at_even_odds": round(float(likes / (likes + dislikes)), 3) if likes + dislikes else None,
    }


def _counts(examples: Examples) -> dict[str, int]:
    return {
        "authors": len(np.unique(examples.users)),
        "like": int(examples.liked.sum()),
        "lukewarm": int((~examples.clear).sum()),
        "dislike": int((examples.ratings < 0).sum()),
    }


def train_stance(
    reviews: Sequence[Review], encode: Encode, space_id: str, folder: Path | None = None
) -> tuple[Stance, Report]:
    """Train a head for each language with enough reviews, and measure it on what is held back.

    The figures are of heads fitted without what they are measured on; the weights returned are then fitted on all.
    Raises InvalidInput where no language has enough.
    """
    heads, plain, report = {}, {}, {}
    refused: InvalidInput | None = None
    for language in LANGUAGES:
        try:
            examples = make_examples(reviews, language, encode)
            report[language] = measure(examples)
        except InvalidInput as error:
            report[language] = {"refused": error.message}
            refused = error
            continue
        heads[language] = calibrated(examples)
        plain[language] = calibrated(examples, use_words=True, use_vector=False)
    if not heads and refused is not None:
        raise refused
    stance = Stance(heads, plain, space_id)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        stance.save(folder / FILE)
        (folder / REPORT).write_text(json.dumps({"space_id": space_id, **report}, indent=1) + "\n")
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


def main() -> int:
    """Train, write and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=Path, nargs="+", required=True, help="JSON Lines of signals with ratings")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and report")
    options = parser.parse_args()
    encoder = open_encoder(EncoderSettings())
    reviews = read_files(options.signals, TextPipeline(TextSettings()))
    _, report = train_stance(reviews, encoder.encode, encoder.space_id, options.out)
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
