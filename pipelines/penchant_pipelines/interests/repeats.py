"""What a user says again: a near-duplicate of a text of late counts only what has faded of the former."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests.evidence import Vector

SAME = 0.95
"""Cosine from which two texts count as one: a template whose numbers change reaches it, a paraphrase does not."""
REMEMBERED = 16
"""Distinct texts of late that a new one is compared with."""


class Repeats(msgspec.Struct):
    """The distinct texts of late and what they still count, in the order in which they came."""

    vectors: NDArray[np.float16] = msgspec.field(default_factory=lambda: np.empty(0, np.float16))
    """(n · d,): one row after the other."""
    masses: list[float] = []
    """Signed, each as of its time."""
    times: list[int] = []

    def take(self, vector: Vector, mass: float, time: int, half_life: float) -> tuple[float, bool]:
        """Take in a text of signed mass: what it adds (≥ 0) to what it counts already, and whether it was known.

        `time` and `half_life` are in µs.
        """
        known = self._find(vector, mass)
        if known is not None:
            held = abs(self.masses[known]) * 2.0 ** (-max(time - self.times[known], 0) / half_life)
            added = max(abs(mass) - held, 0.0)
            self.masses[known] = float(np.copysign(held + added, mass))
            self.times[known] = time
            return added, True
        self.vectors = np.concatenate([self.vectors, vector.astype(np.float16)])[-REMEMBERED * len(vector) :]
        self.masses = [*self.masses, mass][-REMEMBERED:]
        self.times = [*self.times, time][-REMEMBERED:]
        return abs(mass), False

    def liked(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
        """The newest that speak for something, newest first: vectors (n, d), masses (n,), n ≤ `count`; None: none."""
        rows = [row for row in reversed(range(len(self.masses))) if self.masses[row] > 0][:count]
        if not rows:
            return None
        vectors = self.vectors.reshape(len(self.masses), -1)[rows]
        return vectors.astype(np.float32), np.array([self.masses[row] for row in rows])

    def _find(self, vector: Vector, mass: float) -> int | None:
        """Index of the nearest text of the same sign that is as good as this one."""
        cosines = self.vectors.reshape(-1, len(vector)).astype(np.float32) @ vector
        # Liking a thing and then disliking it is no repetition.
        same = [int(row) for row in np.flatnonzero(cosines >= SAME) if self.masses[row] * mass > 0]
        return max(same, key=lambda row: float(cosines[row]), default=None)
