"""Who took to what: the same as a dictionary of pairs, however many lie where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant_pipelines.catalog import takers
from penchant_pipelines.catalog.takers import Takers

BATCH = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2**31 - 1) | st.integers(0, 3), st.floats(0.1, 3), st.integers(-9, 9)),
    max_size=8,
)


@settings(deadline=None)
@given(st.lists(st.tuples(BATCH, st.sets(st.integers(0, 3), max_size=2)), max_size=6))
def test_each_pair_is_held_once_by_its_greatest_mass_and_latest_time(
    told: list[tuple[list[tuple[int, int, float, int]], set[int]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(takers, "_RECENT", 3)
        found = Takers()
        expected: dict[tuple[int, int], tuple[float, int]] = {}
        for favours, gone in told:
            users, rows, times = (np.array([one[part] for one in favours], dtype=np.int64) for part in (0, 1, 3))
            before, now = found.take(users, rows, np.array([one[2] for one in favours]), times)
            former = dict(expected)
            for user, row, mass, time in favours:
                held, latest = expected.get((row, user), (mass, time))
                expected[row, user] = max(held, mass), max(latest, time)
            pairs = sorted({(row, user) for user, row, _, _ in favours})
            assert now.rows.tolist() == [row for row, _ in pairs]
            assert list(zip(now.masses, now.times, strict=True)) == [expected[pair] for pair in pairs]
            assert before.masses.tolist() == [former.get(pair, (0.0, 0))[0] for pair in pairs]
            known = [place for place, pair in enumerate(pairs) if pair in former]
            assert before.times[known].tolist() == [former[pairs[place]][1] for place in known]
            found.drop(np.array(sorted(gone), dtype=np.int64))
            expected = {pair: held for pair, held in expected.items() if pair[0] not in gone}
