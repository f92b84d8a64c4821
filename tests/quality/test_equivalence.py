"""Figures of the comparison of two sources, with known values."""

import numpy as np
import pytest

from embedway.quality.equivalence import Embedded, agreement_of_neighbours, bootstrap_interval, measure_agreement
from embedway.quality.equivalence import share_at_least as lower_bound
from embedway.quality.probe_texts import ProbeText


@pytest.mark.parametrize(
    ("successes", "trials", "bound"),
    [
        (154, 154, 0.05 ** (1 / 154)),  # 0.9807
        (1, 1, 0.05),
        (1, 2, 1 - 0.95**0.5),
        (0, 10, 0.0),
        (9, 10, 0.6058),
        (50, 100, 0.4136),
    ],
)
def test_the_lower_bound_of_a_share(successes, trials, bound):
    """All successes: p**n = 0.05; one of two: 1 - (1 - p)**2 = 0.05; the others from the beta distribution."""
    assert lower_bound(successes, trials) == pytest.approx(bound, abs=1e-4)


def test_neighbours_that_swap_by_noise_agree_and_others_do_not():
    angles = np.array([0.0, 0.3, 0.9, 2.0])
    one = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    moved = one[[0, 3, 2, 1]]
    top1, overlaps = agreement_of_neighbours(one, one)
    assert top1.all()
    assert overlaps.tolist() == [1.0] * 4
    top1, _ = agreement_of_neighbours(one, moved)
    assert not top1.all()


def test_the_interval_of_equal_values_is_one_value_and_of_others_contains_the_mean():
    assert bootstrap_interval(np.full(9, 0.5)) == (0.5, 0.5)
    low, high = bootstrap_interval(np.array([0.0, 1.0] * 50))
    assert 0.35 < low < 0.5 < high < 0.65


def test_a_prompt_of_one_input_type_is_named_as_the_cause():
    texts = [ProbeText(f"text {number}", "prose") for number in range(8)]
    vectors = np.eye(8, 16, dtype=np.float32)
    same, moved = Embedded("document", texts, vectors, vectors), Embedded("query", texts, vectors, vectors[:, ::-1])
    found = measure_agreement([same, moved])
    assert found.reasons == ("queries differ, and documents do not: another prompt for them",)
    assert found.verdict == "close but not the same"
    assert measure_agreement([same]).verdict == "same space"
