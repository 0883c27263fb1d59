"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from penchant_pipelines import metrics

TOP = np.array([7, 3, 9, 1, -1])


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


def test_recall_is_hits_by_what_fits_into_the_list() -> None:
    assert metrics.recall(TOP, rows(3, 1, 8), 10) == pytest.approx(2 / 3)
    assert metrics.recall(TOP, rows(3, 1, 8), 2) == pytest.approx(1 / 2)
    assert math.isnan(metrics.recall(TOP, rows(), 10))


def test_ndcg_discounts_by_place() -> None:
    # hits at places 2 and 4 of two relevant ones
    found = 1 / math.log2(3) + 1 / math.log2(5)
    assert metrics.ndcg(TOP, rows(3, 1), 10) == pytest.approx(found / (1 + 1 / math.log2(3)))
    assert metrics.ndcg(TOP, rows(7, 3, 9), 3) == pytest.approx(1.0)
    assert metrics.ndcg(TOP, rows(5), 10) == 0.0


def test_an_empty_place_is_never_a_hit() -> None:
    assert metrics.recall(np.full(10, -1), rows(0, 1), 10) == 0.0


def test_reciprocal_rank_is_that_of_the_first_hit() -> None:
    assert metrics.reciprocal_rank(TOP, rows(1, 9)) == pytest.approx(1 / 3)
    assert metrics.reciprocal_rank(TOP, rows(2)) == 0.0


def test_diversity_is_the_mean_distance_of_all_pairs() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    assert metrics.intra_list_diversity(vectors) == pytest.approx((1 + 0 + 1) / 3)
    assert math.isnan(metrics.intra_list_diversity(vectors[:1]))


def test_novelty_is_in_bits() -> None:
    # of 7 users, none and three took to the items: 8/1 and 8/4
    assert metrics.novelty(np.array([0.0, 3.0]), 7) == pytest.approx((3 + 1) / 2)


def test_calibration_is_nothing_for_the_users_own_mix_and_grows_with_distance() -> None:
    taste = {"film": 3.0, "book": 1.0}
    assert metrics.calibration_kl(taste, {"film": 6, "book": 2}) == pytest.approx(0.0)
    lopsided = 0.75 * math.log2(0.75 / (0.99 + 0.0075)) + 0.25 * math.log2(0.25 / 0.0025)
    assert metrics.calibration_kl(taste, {"film": 10}) == pytest.approx(lopsided)
    assert math.isnan(metrics.calibration_kl({}, {"film": 1}))


def test_auc_counts_pairs_and_halves_ties() -> None:
    scores = np.array([0.9, 0.4, 0.4, 0.1])
    liked = np.array([True, True, False, False])
    assert metrics.auc(scores, liked) == pytest.approx((2 + 1.5) / 4)
    assert math.isnan(metrics.auc(scores, np.array([True] * 4)))


def test_precision_recall_f1_of_what_was_said() -> None:
    said, liked = np.array([True, True, True, False]), np.array([True, False, True, True])
    assert metrics.precision_recall_f1(said, liked) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert math.isnan(metrics.precision_recall_f1(np.array([False]), np.array([True]))[0])


def test_the_threshold_is_where_likes_were_told_from_dislikes_best() -> None:
    threshold = metrics.Threshold()
    assert threshold.best() == 0.5
    threshold.add(np.array([0.61, 0.8]), np.array([True, True]))
    assert threshold.best() == 0.5
    # .35 is the lowest step that leaves both dislikes out and no like
    threshold.add(np.array([1.0, 0.3, 0.1]), np.array([True, False, False]))
    assert threshold.best() == pytest.approx(0.35)
    # a dislike at .72 weighs a third: leaving it out would lose half of the likes
    threshold.add(np.array([0.72, 0.62]), np.array([False, True]))
    assert threshold.best() == pytest.approx(0.35)
    # three more at .72 outweigh that
    threshold.add(np.full(3, 0.72), np.zeros(3, dtype=bool))
    assert threshold.best() == pytest.approx(0.75)
