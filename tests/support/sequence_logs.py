"""Users that the sequence model is tested with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penchant_finetune.sequence_data import UserLog
from penchant_pipelines.model import MICROS_PER_DAY, Action
from penchant_pipelines.recommend.sequence import History


def likes_daily(user: int, items: NDArray[np.float32], rows: NDArray[np.int64]) -> UserLog:
    """A user who likes an item a day: these rows of `items`, (m, d) unit rows."""
    days = len(rows)
    first = np.zeros(days, dtype=bool)
    first[np.unique(rows, return_index=True)[1]] = True
    history = History(
        items[rows],
        np.arange(days, dtype=np.int64) * MICROS_PER_DAY,
        np.full(days, int(Action.LIKE)),
        np.ones(days, dtype=np.float32),
        np.zeros((days, 2), dtype=np.int64),
    )
    return UserLog(user, history, rows, first)
