"""Products are the same, whichever comes first and however few rows are asked."""

from __future__ import annotations

import numpy as np
import pytest

from penchant_pipelines.catalog import products


@pytest.mark.parametrize("columns_first", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_products_are_those_of_the_matrices(monkeypatch: pytest.MonkeyPatch, columns_first: bool, count: int) -> None:
    monkeypatch.setattr(products, "_columns_first", lambda: columns_first)
    dice = np.random.default_rng(0)
    vectors, few = (dice.standard_normal((rows, 24)).astype(np.float32) for rows in (500, count))
    found = products.products(vectors, few)
    assert found.shape == (count, 500)
    assert np.allclose(found, few @ vectors.T, atol=1e-4)
    for rows in (np.arange(0, 500, 7), np.arange(499, 0, -1)):
        assert np.allclose(products.products_of(vectors, rows, few), found[:, rows], atol=1e-4)


def test_the_processor_is_asked_once() -> None:
    products._columns_first.cache_clear()
    assert products._columns_first() is products._columns_first()
    assert products._columns_first.cache_info().misses == 1
