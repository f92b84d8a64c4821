"""Money is exact in any decimal context of the caller."""

import copy
import decimal
import fractions
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.errors import UsageError
from embedway.money import MOST_USD, NANO, as_number, to_nanousd, to_usd, usd

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


@pytest.mark.parametrize("amount", ["1e-999999999", decimal.Decimal("1e-999999999"), 1e-320, fractions.Fraction(1, 3)])
def test_an_amount_with_too_many_decimals_is_refused_at_once(amount):
    with pytest.raises(UsageError, match="at most nine decimals"):
        to_nanousd(amount, name="max_cost")


@pytest.mark.parametrize("amount", ["0e999999999", "0e-999999999", 0, 0.0, "$0", np.float64(0)])
def test_any_zero_is_zero(amount):
    assert to_nanousd(amount, name="max_cost") == 0


@pytest.mark.parametrize(
    "amount", ["9" * 5000, 10**5000, -(10**400), "1e999999999", float("inf"), float("nan")], ids=lambda _: "amount"
)
def test_a_long_amount_is_not_repeated(amount):
    with pytest.raises(UsageError, match="max_cost is") as caught:
        to_nanousd(amount, name="max_cost")
    assert len(str(caught.value)) < 100


class Number(int):
    """Integer whose methods fail."""

    def fail(self, *_):
        raise RuntimeError

    __index__ = __int__ = __float__ = __str__ = __repr__ = __lt__ = __gt__ = fail


@pytest.mark.parametrize(
    ("value", "number"),
    [(np.int64(5), 5), (np.float32(0.5), 0.5), (Number(5), 5), (fractions.Fraction(1, 2), 0.5)],
    ids=lambda value: type(value).__name__,
)
def test_numbers_of_other_classes_are_plain_numbers(value, number):
    assert as_number(value) == number
    assert type(as_number(value)) is type(number)
    assert to_nanousd(value, name="max_cost") == number * NANO


@pytest.mark.parametrize("value", [True, np.bool_(True), "5", b"5", None, [5], np.array([5]), 1j, decimal.Decimal(5)])
def test_anything_else_is_no_number(value):
    assert as_number(value) is None


def test_what_is_no_number_is_named():
    with pytest.raises(UsageError, match="x is NaN; it must be from 0"):
        to_nanousd(float("nan"), name="x")
