"""Hard negatives: items that the base encoder takes for near, and that nothing says belong to the anchor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penchant_finetune.corpus import Ints
from penchant_finetune.pairs import Pairs, Vectors
from penchant_pipelines.highest import highest

FIRST_RANK, LAST_RANK = 10, 50
"""Nearer items are too often the same thing in other words; further ones teach little."""
MARGIN = 0.95
"""An item whose cosine to the anchor exceeds this share of the positive's is taken for a positive nobody marked."""
_CHUNK = 256


def mine(pairs: Pairs, vectors: Vectors, items: Ints, touched: Ints, seed: int) -> Pairs:
    """Give pairs a negative where there is one; −1 stays where none of the ranks qualifies.

    `vectors` (t, d): the texts' by the base encoder; anchors and positives beyond them get none. `items`: rows of
    texts that are items. `touched` (n, 2): what each user touched, which is never a negative of theirs; nor is any
    text paired with the anchor.
    """
    rng = np.random.default_rng(seed)
    catalogue = np.unique(items)
    known = set(zip(pairs.anchors.tolist(), pairs.positives.tolist(), strict=True))
    known |= {(positive, anchor) for anchor, positive in known}
    own = set(map(tuple, touched.tolist()))
    negatives = pairs.negatives.copy()
    readable = np.flatnonzero(np.maximum(pairs.anchors, pairs.positives) < len(vectors))
    for start in range(0, len(readable), _CHUNK):
        rows = readable[start : start + _CHUNK]
        anchors = vectors[pairs.anchors[rows]]
        cosines = anchors @ vectors[catalogue].T
        limits = MARGIN * np.einsum("nd,nd->n", anchors, vectors[pairs.positives[rows]])
        nearest = np.stack([highest(line, LAST_RANK) for line in cosines])
        order = np.argsort(-np.take_along_axis(cosines, nearest, 1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, 1)
        for place, row in enumerate(rows.tolist()):
            anchor, user = int(pairs.anchors[row]), int(pairs.users[row])
            columns = nearest[place, FIRST_RANK - 1 :]
            columns = columns[cosines[place, columns] < limits[place]]
            for text in rng.permutation(catalogue[columns]).tolist():
                if text != anchor and (anchor, text) not in known and (user, text) not in own:
                    negatives[row] = text
                    break
    return replace(pairs, negatives=negatives)
