"""Who took to what, without any text: neighbours, and factors of the matrix of users and items."""

from __future__ import annotations

import itertools

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from penchant_pipelines.catalog.ease import Ease
from penchant_pipelines.evaluation.baselines_vectors import faded
from penchant_pipelines.evaluation.log import Past
from penchant_pipelines.evaluation.methods import Floats, Refit, Scorer
from penchant_pipelines.evaluation.protocol import Question
from penchant_pipelines.model import MICROS_PER_DAY


class UserNeighbours(Scorer):
    """What the most similar users took to, the newer the more (Herlocker et al. 1999, by cosine)."""

    name = "user-knn"
    neighbours = (20, 100)
    half_lives = (30.0, 365.0, np.inf)
    settings = tuple(f"k={k} half_life_days={days:g}" for k, days in itertools.product(neighbours, half_lives))

    def learn(self, past: Past) -> None:
        """Let what everybody took to fade."""
        taken = past.favours
        places = (past.users[taken], past.rows[taken])
        shape = (past.user_count, len(past.catalogue))
        age = (past.times[-1] - past.times[taken]) / MICROS_PER_DAY if len(past) else np.zeros(0)
        self._faded = [sparse.csr_array((2.0 ** (-age / days), places), shape=shape) for days in self.half_lives]

    def score(self, past: Past, question: Question) -> Floats:
        """Sum over the nearest users."""
        matrix = past.matrix
        sizes = matrix.sum(axis=1)
        own = matrix[[question.user]]
        cosines = (matrix @ own.T).toarray()[:, 0] / np.sqrt(np.maximum(sizes * sizes[question.user], 1.0))
        cosines[question.user] = 0.0
        order = np.argsort(-cosines, kind="stable")
        lines = []
        for count in self.neighbours:
            nearest = order[:count]
            lines += [cosines[nearest] @ taken[nearest] for taken in self._faded]
        return np.stack(lines)


class ItemNeighbours(Scorer):
    """Items taken to by the same users as the user's own, the newer of these the more (Sarwar et al. 2001).

    Cosines are shrunk, by `h` in their denominator: of few users they are chance (Dacrema et al. 2021).
    """

    name = "item-knn"
    shrinkages = (0.0, 10.0, 50.0)
    half_lives = (30.0, 365.0, np.inf)
    settings = tuple(f"h={h:g} half_life_days={days:g}" for h, days in itertools.product(shrinkages, half_lives))

    def score(self, past: Past, question: Question) -> Floats:
        """Sum cosines with the user's items."""
        liked = past.liked(question.user)
        liked = liked[past.rows[liked] >= 0]
        own, places = np.unique(past.rows[liked], return_inverse=True)
        masses = faded(past, liked, question.present, self.half_lives)
        norms = np.sqrt(np.maximum(past.matrix.sum(axis=0), 1.0))
        # Norms are roots of few numbers: own items of one norm are summed up before they are compared with all others.
        lengths, kinds = np.unique(norms[own], return_inverse=True)
        history = np.zeros((len(own), len(lengths) * len(masses)))
        for line, mass in enumerate(masses):
            np.add.at(history, (places, kinds[places] * len(masses) + line), mass)
        common = past.matrix.T @ (past.matrix[:, own] @ history)
        common = common.reshape(len(norms), len(lengths), len(masses))
        scales = norms[:, None] * lengths
        lines = [np.einsum("ivl,iv->li", common, 1 / (scales + shrinkage)) for shrinkage in self.shrinkages]
        return np.concatenate(lines)


class EaseForAll(Scorer):
    """A linear autoencoder with a zero diagonal, in closed form (Steck 2019), learnt from all users; no fading."""

    name = "ease"
    strengths = (10.0, 100.0, 1000.0)
    settings = tuple(f"lambda={strength:g}" for strength in strengths)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._refit = Refit(1.01)

    def learn(self, past: Past) -> None:
        """Invert, once the log has grown by a hundredth."""
        if self._refit.due(len(past)):
            everybody = past.matrix.shape[0]
            self._models = [Ease(past.matrix, ridge=strength, most_users=everybody) for strength in self.strengths]

    def score(self, past: Past, question: Question) -> Floats:
        """Reconstruct the user's row."""
        own = past.matrix[[question.user]].toarray()
        return np.concatenate([model.scores(own) for model in self._models])


class Als(Scorer):
    """Factors by alternating least squares for implicit feedback (Hu, Koren & Volinsky 2008), by `implicit`.

    Items' factors are fitted when the log has grown by a tenth; the user's own follow from them at each question.
    """

    name = "als"
    factors = (16, 64)
    strengths = (0.01, 1.0)
    settings = tuple(f"factors={f} lambda={s:g}" for f, s in itertools.product(factors, strengths))

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._refit = Refit(1.1)

    def learn(self, past: Past) -> None:
        """Fit, if it is time."""
        if not self._refit.due(len(past)):
            return
        matrix = sparse.csr_matrix(past.matrix, dtype=np.float32)
        self._models = []
        # The library warns where both it and BLAS have threads; problems this small want none.
        with threadpool_limits(1, "blas"):
            for factors, strength in itertools.product(self.factors, self.strengths):
                model = AlternatingLeastSquares(
                    factors=factors, regularization=strength, alpha=10.0, random_state=self.seed, num_threads=1
                )
                model.fit(matrix, show_progress=False)
                self._models.append(model)

    def score(self, past: Past, question: Question) -> Floats:
        """Multiply the user's factors with the items'."""
        own = sparse.csr_matrix(past.matrix[[question.user]], dtype=np.float32)
        lines = [model.item_factors @ model.recalculate_user(question.user, own).ravel() for model in self._models]
        return np.stack(lines).astype(np.float64)
