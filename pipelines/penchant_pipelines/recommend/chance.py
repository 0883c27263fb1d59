"""From a score to a chance: how likely a user takes to an item on the next day on which they take to anything new.

By a logistic curve (Platt 1999), fitted to days that the mix was not learnt from. It is over the inverse hyperbolic
sine of the mix's scores: the odds of what stands out far grow with a power of how far, and not exponentially.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chance:
    """1 / (1 + e^−(base + slope · arsinh(score)))."""

    base: float
    slope: float
    """At least 0."""

    def of(self, scores: Floats) -> Floats:
        """Chances, 0…1, of scores (n,)."""
        found: Floats = expit(self.base + self.slope * np.arcsinh(scores))
        return found


def fit(scores: Floats, taken: NDArray[np.bool_]) -> Chance:
    """Find the curve under which what was taken to, of scores (n,), is likeliest.

    With Platt's targets, a little off 0 and 1, so that few examples leave no certainty.
    """
    liked, left = float(taken.sum()), float((~taken).sum())
    targets = np.where(taken, (liked + 1) / (liked + 2), 1 / (left + 2))
    usual, heights = float(targets.mean()), np.arcsinh(scores)

    def loss(curve: Floats) -> tuple[float, Floats]:
        logits = curve[0] + curve[1] * heights
        away = (expit(logits) - targets) / len(targets)
        value = float(np.mean(np.logaddexp(0.0, logits) - targets * logits))
        return value, np.array([away.sum(), away @ heights])

    start = np.array([np.log(usual / (1 - usual)), 0.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None), (0.0, None)])
    return Chance(float(found.x[0]), float(found.x[1]))
