"""Money is exact in any decimal context of the caller."""

import copy
import decimal
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.errors import UsageError
from embedway.money import MOST_USD, NANO, to_nanousd, to_usd, usd

CONTEXTS = [
    decimal.Context(prec=1, rounding=decimal.ROUND_UP),
    decimal.Context(prec=2, rounding=decimal.ROUND_DOWN),
    decimal.Context(prec=3, traps=[decimal.Inexact, decimal.Rounded, decimal.Subnormal, decimal.InvalidOperation]),
    decimal.Context(prec=28, Emax=1, Emin=-1),
]


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@given(st.integers(0, MOST_USD * NANO))
def test_amounts_survive_both_ways_in_any_context(context, nanousd):
    with decimal.localcontext(context):
        assert to_nanousd(usd(nanousd), name="amount") == nanousd
        assert to_nanousd(to_usd(nanousd), name="amount") == nanousd
        assert to_usd(nanousd).as_tuple() == decimal.Decimal(usd(nanousd)).as_tuple()


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize(
    "wrong",
    [
        "0.0000000001",
        "-1",
        "9000001",
        "nan",
        "sNaN",
        "inf",
        "",
        "a private text",
        True,
        None,
        [],
        pytest.param(10**5000, id="huge"),
    ],
)
def test_what_is_no_amount_is_refused_in_any_context(context, wrong):
    with decimal.localcontext(context), pytest.raises(UsageError, match="max_cost is") as caught:
        to_nanousd(wrong, name="max_cost")
    assert "private" not in str(caught.value)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("nanousd", [0, 1, 20, 999, 10_000, 1_500_000_000, MOST_USD * NANO])
def test_dollars_are_written_without_an_exponent(nanousd):
    amount = to_usd(nanousd)
    assert str(amount) == f"{amount}" == f"{amount:f}" == usd(nanousd)
    assert pickle.loads(pickle.dumps(amount)) == amount  # noqa: S301
    assert str(copy.deepcopy(amount)) == usd(nanousd)
