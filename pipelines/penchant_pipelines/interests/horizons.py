"""Horizons: how the liked past fades, by several half-lives side by side, since which is best differs by catalogue.

The short ones go by count: whoever reads through a series has its last volumes in mind, be they marked within an hour
or a month. The long ones go by days.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HALF_LIVES_SIGNALS = (1.0, 3.0, 10.0)
HALF_LIVES_DAYS = (30.0, 365.0)
_SIGNALS, _DAYS = np.array(HALF_LIVES_SIGNALS)[:, None], np.array(HALF_LIVES_DAYS)[:, None]
HORIZONS = (
    *(f"last{signals:g}" for signals in HALF_LIVES_SIGNALS),
    *(f"{days:g}d" for days in HALF_LIVES_DAYS),
)
"""Names, in the order of every array of what fades."""


def faded(signals: Floats, days: Floats) -> Floats:
    """What is left (h, n) of n things after so many liked signals (n,) and so many days (n,)."""
    return np.concatenate([np.exp2(-signals / _SIGNALS), np.exp2(-days / _DAYS)])
