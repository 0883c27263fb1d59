"""The highest of many values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from penchant_pipelines.highest import highest


@given(
    # Few values, so that most tie.
    arrays.arrays(np.float64, st.integers(0, 400), elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf])),
    st.integers(0, 450),
)
def test_it_tells_the_places_of_the_highest_the_first_of_equals(values: NDArray[np.float64], count: int) -> None:
    wanted = np.argsort(-values, kind="stable")[:count]

    assert highest(values, count).tolist() == sorted(wanted.tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 49, 50, 51, 399, 400, 401, 5_003])
def test_it_is_right_for_any_number_of_values(size: int, dtype: type[np.floating]) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(dtype)

    found = highest(values, 50)

    assert found.tolist() == sorted(np.argsort(-values)[:50].tolist())
