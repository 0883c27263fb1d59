"""Products of many vectors with a few: what lists, lessons and EASE spend most of their time on."""

from __future__ import annotations

import timeit
from functools import cache

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
GATHERED_SHARE = 0.25
"""Of more rows than this share of an array all are multiplied: gathering them costs more."""
_FEW = 6
"""Columns up to which the processor decides what comes first; of more the rows do."""
_PROBE = (16_384, 384)
"""Larger than what a processor keeps close to a core."""


def products(vectors: Vectors, few: Vectors) -> Vectors:
    """Products of float32 rows (n, d) with a few others (k, d): (k, n).

    By torch: its kernels take half the time of numpy's, if they are asked in the order that suits the processor
    (22,230 × 384 with 3, one thread: columns first 2.0 and 10.3 ms on two of them, rows first 7 and 2.4, numpy 12.0
    and 5.1).
    """
    # torch takes seconds to import: whoever imports this package for its types shouldn't wait for it.
    import torch

    many, columns = (torch.from_numpy(np.ascontiguousarray(each)) for each in (vectors, few))
    columns_first = len(few) <= _FEW and _columns_first()
    found: Vectors = (columns @ many.T if columns_first else (many @ columns.T).T).numpy()
    return found


@cache
def _columns_first() -> bool:
    """Whether this processor multiplies many rows with three columns faster where the columns come first.

    The one takes a third of the time of the other, or less, so that a run need not fear to be told otherwise than the
    one before, whose last bits it should repeat.
    """
    import torch

    many, columns = torch.ones(_PROBE), torch.ones(3, _PROBE[1])
    by_columns, by_rows = (
        min(timeit.repeat(product, number=1, repeat=5))
        for product in (lambda: columns @ many.T, lambda: many @ columns.T)
    )
    return by_columns < by_rows


def products_of(vectors: Vectors, rows: NDArray[np.intp], few: Vectors) -> Vectors:
    """Products of some rows (r,) of float32 vectors (n, d) with a few others (k, d): (k, r)."""
    if len(rows) > GATHERED_SHARE * len(vectors):
        return products(vectors, few)[:, rows]
    return products(vectors[rows], few)
