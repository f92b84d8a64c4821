"""Fusion of scores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections.fusion import RRF_K, fused_by_ranks, fused_by_scores

LISTS = st.lists(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-100, 100), max_size=8).map(
        lambda found: sorted(found.items(), key=lambda item: -item[1])
    ),
    max_size=3,
)


def test_a_score_is_the_mean_of_the_scaled_scores_of_the_lists():
    # Means 2 and 5, standard deviations 1 and 5.
    scores = fused_by_scores([[("a", 3.0), ("b", 1.0)], [("c", 10.0), ("a", 0.0)]])
    assert scores == pytest.approx(
        {
            "a": ((0.5 + 1 / 6) + (0.5 - 1 / 6)) / 2,
            "b": (0.5 - 1 / 6) / 2,
            "c": (0.5 + 1 / 6) / 2,
        }
    )
    assert list(scores) == ["a", "c", "b"]


def test_the_only_row_of_a_list_is_before_the_best_of_a_long_list_of_similar_scores():
    similar = [(str(number), 0.5 - number / 1000) for number in range(50)]
    assert next(iter(fused_by_scores([similar, [("named", 12.0)]]))) == "named"


def test_equal_scores_keep_the_order_of_the_first_list():
    assert fused_by_scores([[("a", 1.0), ("b", 1.0)]]) == {"a": 0.5, "b": 0.5}
    assert list(fused_by_scores([[("a", 1.0)], [("b", 1.0)]])) == ["a", "b"]
    assert fused_by_scores([]) == fused_by_scores([[]]) == {}


@given(LISTS)
def test_all_rows_are_fused_best_first(lists):
    scores = fused_by_scores(lists)
    assert set(scores) == {row for rows in lists for row, _ in rows}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


@given(LISTS, st.floats(0.1, 10))
def test_another_scale_of_a_list_changes_no_score(lists, factor):
    scaled = [[(row, score * factor) for row, score in rows] for rows in lists]
    assert fused_by_scores(scaled) == pytest.approx(fused_by_scores(lists), abs=1e-6)


def test_ranks_are_fused_as_sums_of_reciprocals():
    scores = fused_by_ranks([[("a", 9.0), ("b", 1.0)], [("b", 0.5)]])
    assert scores == pytest.approx({"b": 1 / (RRF_K + 2) + 1 / (RRF_K + 1), "a": 1 / (RRF_K + 1)})
    assert list(scores) == ["b", "a"]
