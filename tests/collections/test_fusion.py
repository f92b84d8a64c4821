"""Reciprocal rank fusion."""

import pytest

from embedway.collections.fusion import RRF_K, fused


def test_scores_are_sums_of_reciprocal_ranks():
    scores = fused({"vector": ["a", "b"], "keyword": ["b", "c"]}, {"keyword": 2.0})
    assert scores == pytest.approx({"b": 1 / (RRF_K + 2) + 2 / (RRF_K + 1), "c": 2 / (RRF_K + 2), "a": 1 / (RRF_K + 1)})
    assert list(scores) == ["b", "c", "a"]


def test_equal_scores_keep_the_order_of_the_first_list():
    assert list(fused({"vector": ["a"], "keyword": ["b"]}, {})) == ["a", "b"]
