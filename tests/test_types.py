"""Results as sequences, arrays and one line of text; money in dollars."""

import copy
import decimal
import pickle

import numpy as np
import pytest

import embedway
from embedway import EmbedResult, Plan, Receipt, RerankResult, Space
from embedway.errors import InputError
from embedway.types import Timing

SPACE = Space("m", "0" * 64, 2, "mean", normalized=True)


def receipt(**facts):
    required = {
        "model": "m",
        "route": "local",
        "space_id": SPACE.id,
        "texts": 3,
        "unique_texts": 3,
        "tokens": 12,
        "billed_tokens": 0,
        "cost_nanousd": 0,
        "cache_hits": 1,
        "attempts": 1,
        "truncations": (),
        "timing": Timing(),
        "runtime": "fake",
    }
    return Receipt(**required | facts)


@pytest.fixture
def result():
    return EmbedResult(np.arange(6, dtype=np.float32).reshape(3, 2), SPACE, receipt())


def test_a_result_is_a_sequence_of_its_vectors(result):
    assert len(result) == 3
    assert result[1].tolist() == [2.0, 3.0]
    assert result[-1].tolist() == [4.0, 5.0]
    assert result[1:].shape == (2, 2)
    assert result[[0, 2]].shape == (2, 2)
    assert [vector.tolist() for vector in result] == result.vectors.tolist()
    with pytest.raises(IndexError):
        result[3]


def test_numpy_takes_a_result_as_an_array(result):
    assert np.asarray(result) is result.vectors or np.shares_memory(np.asarray(result), result.vectors)
    assert np.asarray(result, np.float64).dtype == np.float64
    assert np.stack([result[0], result[1]]).shape == (2, 2)
    copied = np.array(result)
    copied[0, 0] = 99
    assert result.vectors[0, 0] == 0
    with pytest.raises(ValueError, match="another type needs a copy"):
        np.asarray(result, np.float64, copy=False)


def test_a_repr_is_one_short_line_without_vectors(result):
    assert repr(result) == f"<EmbedResult 3 x 2, space {SPACE.id!r}, 12 tokens, 1 of 3 cached, $0.00>"
    failed = EmbedResult(result.vectors, SPACE, receipt(cost_nanousd=None), {1: InputError("it is empty", row=1)})
    assert repr(failed).endswith("unknown cost, 1 failed>")
    ranked = RerankResult(np.array([0.25, 0.5], np.float32), (1, 0), receipt(cost_nanousd=2_000_000))
    assert repr(ranked) == "<RerankResult 2 documents, best 1 with 0.5000, 12 tokens, 1 of 3 cached, $0.002>"
    assert repr(RerankResult(np.empty(0, np.float32), (), receipt())).startswith("<RerankResult 0 documents, 12")


def test_results_are_compared_by_identity_and_travel(result):
    assert result.__eq__(result) is True  # and not an array of booleans
    assert result != copy.copy(result)
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert np.array_equal(again.vectors, result.vectors)
    assert (again.space, again.receipt) == (result.space, result.receipt)


@pytest.mark.parametrize(
    ("nanousd", "dollars"), [(0, "0.00"), (26_400_000, "0.0264"), (1, "0.000000001"), (9_000_000 * 10**9, "9000000.00")]
)
def test_costs_are_exact_dollars_in_any_decimal_context(nanousd, dollars):
    with decimal.localcontext(prec=2):
        cost = receipt(cost_nanousd=nanousd).cost_usd
    assert cost == decimal.Decimal(dollars)
    assert cost * 10**9 == nanousd
    assert receipt(cost_nanousd=None).cost_usd is None


def test_a_plan_has_its_cost_in_dollars_too():
    facts = {"model": "m", "route": "r", "space": SPACE, "input_type": "query", "texts": 1, "unique_texts": 1}
    facts |= {"tokens": 1, "padded_tokens": 1, "batches": 1, "truncations": ()}
    assert Plan(**facts, cost_nanousd=1_500_000_000).cost_usd == decimal.Decimal("1.5")
    assert Plan(**facts, cost_nanousd=None).cost_usd is None


def test_values_show_and_pickle_under_the_public_place():
    assert repr(EmbedResult) == "<class 'embedway.EmbedResult'>"
    assert pickle.loads(pickle.dumps(EmbedResult)) is embedway.EmbedResult  # noqa: S301
    assert pickle.loads(pickle.dumps(SPACE)) == SPACE  # noqa: S301
