"""The user as the words of what they wrote and liked, cut by the text pipeline."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise

import bm25s
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from penchant_pipelines.evaluation.baselines_vectors import HALF_LIVES, faded
from penchant_pipelines.evaluation.log import Past, Rows
from penchant_pipelines.evaluation.methods import Floats, Refit, Scorer
from penchant_pipelines.evaluation.protocol import Question

MOST_WORDS = 20_000
LENGTHS = (1, 3, 10, 30, 100)
LATEST = 200
"""Signals of a user that a classifier learns from."""
NEGATIVES = 3
"""Random items that it learns not to like, for each that it learns to."""
DIMENSIONS = 64
GROWTH_OF_A_USER = 1.2


class Bm25(Scorer):
    """Items as documents, the words of the last N signals in favour as the search (Robertson & Zaragoza 2009)."""

    name = "bm25"
    settings = tuple(f"N={length}" for length in LENGTHS)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._words: Mapping[str, int] = {}
        self._scores: sparse.csc_array | None = None

    def learn(self, past: Past) -> None:
        """Index the catalogue, once."""
        if self._scores is None:
            index = bm25s.BM25()
            # An item may have no word at all, and the library wants one.
            index.index([list(words) or [""] for words in past.catalogue.words], show_progress=False)
            self._words = index.vocab_dict
            parts = tuple(index.scores[name] for name in ("data", "indices", "indptr"))
            self._scores = sparse.csc_array(parts, shape=(len(past.catalogue), len(parts[2]) - 1))

    def score(self, past: Past, question: Question) -> Floats:
        """Search for the words: each adds to the score, so that more signals add to what fewer found."""
        assert self._scores is not None  # noqa: S101 - learn comes first
        newest = past.liked(question.user)[::-1]
        asked: list[tuple[int, int]] = []
        for line, (begin, end) in enumerate(pairwise((0, *LENGTHS))):
            words = (word for place in newest[begin:end] for word in past.words[place])
            asked += [(self._words[word], line) for word in words if word in self._words]
        held, counts = np.unique(np.array(asked, dtype=np.int64).reshape(-1, 2), axis=0, return_counts=True)
        columns, places = np.unique(held[:, 0], return_inverse=True)
        masses = np.zeros((len(columns), len(LENGTHS)))
        masses[places, held[:, 1]] = counts
        found: Floats = (self._scores[:, columns] @ masses).T.cumsum(axis=0)
        return found


class _Tfidf(Scorer):
    """Items and signals as TF-IDF, its frequencies those of the catalogue."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._vectorizer = TfidfVectorizer(analyzer=list, max_features=MOST_WORDS, sublinear_tf=True)
        self._items: sparse.csr_array | None = None
        self._signals: sparse.csr_array | None = None

    def learn(self, past: Past) -> None:
        """Turn new signals into TF-IDF."""
        if self._items is None:
            self._items = sparse.csr_array(self._vectorizer.fit_transform(past.catalogue.words))
            self._signals = sparse.csr_array((0, self._items.shape[1]))
        known = self.signals.shape[0]
        if len(past) > known:
            new = self._vectorizer.transform(past.words[known:])
            self._signals = sparse.csr_array(sparse.vstack([self.signals, new]))

    @property
    def items(self) -> sparse.csr_array:
        """(m, words) rows of length 1."""
        assert self._items is not None  # noqa: S101 - learn comes first
        return self._items

    @property
    def signals(self) -> sparse.csr_array:
        """(n, words) rows of length 1."""
        assert self._signals is not None  # noqa: S101 - learn comes first
        return self._signals


class TfidfEwma(_Tfidf):
    """A single vector of words that fades exponentially with time."""

    name = "tfidf"
    settings = tuple(f"half_life_days={days}" for days in HALF_LIVES)

    def score(self, past: Past, question: Question) -> Floats:
        """Compare the faded sum with every item."""
        liked = past.liked(question.user)
        profiles = faded(past, liked, question.present) @ self.signals[liked]
        profiles /= np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), 1e-12)
        found: Floats = (self.items @ profiles.T).T
        return found


class _Classifier(_Tfidf):
    """A classifier a user: what the user liked against random items and what the user disliked.

    It is fitted when the user's signals have grown by a fifth.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._refits: dict[int, Refit] = {}
        self._scores: LRUCache[int, Floats] = LRUCache(maxsize=500)

    def score(self, past: Past, question: Question) -> Floats:
        """Score by the user's classifier."""
        user, liked = question.user, past.liked(question.user)[-LATEST:]
        if not len(liked):
            return np.zeros((len(self.settings), len(past.catalogue)))
        due = self._refits.setdefault(user, Refit(GROWTH_OF_A_USER)).due(len(past.of(user)))
        if due or user not in self._scores:
            own = past.of(user)
            disliked = own[past.weights[own] < 0][-LATEST:]
            dice = np.random.default_rng([self.seed, user])
            drawn = dice.integers(0, len(past.catalogue), NEGATIVES * len(liked))
            labels = np.repeat([1, 0], [len(liked), len(disliked) + len(drawn)])
            # float32: what is kept for many users should be small
            self._scores[user] = self.fit(liked, disliked, drawn, labels).astype(np.float32)
        return self._scores[user]

    @abstractmethod
    def fit(self, liked: Rows, disliked: Rows, drawn: Rows, labels: NDArray[np.int64]) -> Floats:
        """Fit on signals liked and disliked and on items drawn, labelled in this order; scores (s, m)."""


class Svm(_Classifier):
    """A linear SVM on TF-IDF."""

    name = "svm"
    strengths = (0.1, 1.0, 10.0)
    settings = tuple(f"C={strength:g}" for strength in strengths)

    def fit(self, liked: Rows, disliked: Rows, drawn: Rows, labels: NDArray[np.int64]) -> Floats:
        """Fit and score."""
        examples = sparse.vstack([self.signals[liked], self.signals[disliked], self.items[drawn]]).tocsr()
        lines = []
        for strength in self.strengths:
            model = LinearSVC(C=strength, class_weight="balanced", random_state=self.seed, max_iter=2000, tol=1e-3)
            lines.append(model.fit(examples, labels).decision_function(self.items))
        return np.stack(lines)


class Trees(_Classifier):
    """Gradient-boosted trees on the 64 greatest components of TF-IDF: trees on thousands of words are hopeless."""

    name = "trees"
    counts = (8, 16, 32)
    settings = tuple(f"trees={count}" for count in counts)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._dense_items: NDArray[np.float32] | None = None
        self._dense_signals = np.zeros((0, DIMENSIONS), dtype=np.float32)

    def learn(self, past: Past) -> None:
        """Turn new signals into components."""
        super().learn(past)
        if self._dense_items is None:
            dimensions = min(DIMENSIONS, min(self.items.shape) - 1)
            self._components = TruncatedSVD(max(dimensions, 1), random_state=self.seed).fit(self.items)
            self._dense_items = self._components.transform(self.items).astype(np.float32)
            self._dense_signals = np.zeros((0, self._dense_items.shape[1]), dtype=np.float32)
        known = len(self._dense_signals)
        if len(past) > known:
            new = self._components.transform(self.signals[known:]).astype(np.float32)
            self._dense_signals = np.concatenate([self._dense_signals, new])

    def fit(self, liked: Rows, disliked: Rows, drawn: Rows, labels: NDArray[np.int64]) -> Floats:
        """Fit and score."""
        assert self._dense_items is not None  # noqa: S101 - learn comes first
        parts: Sequence[NDArray[np.float32]] = [
            self._dense_signals[liked],
            self._dense_signals[disliked],
            self._dense_items[drawn],
        ]
        model = HistGradientBoostingClassifier(
            max_leaf_nodes=8,
            max_iter=max(self.counts),
            learning_rate=0.2,
            min_samples_leaf=5,
            early_stopping=False,
            random_state=self.seed,
        )
        # Of so few rows threads do nothing but wait for each other.
        with threadpool_limits(1, "openmp"):
            model.fit(np.concatenate(parts), labels)
            stages = list(model.staged_decision_function(self._dense_items))
        return np.stack([stages[count - 1] for count in self.counts])
