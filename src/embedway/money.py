"""Money as integer nano-dollars; decimal numbers at the API, never binary fractions."""

from __future__ import annotations

import decimal
import fractions
import numbers
import operator
from typing import Any, TypeAlias

from typing_extensions import override

from embedway.errors import UsageError
from embedway.text import shown

#: Dollars. A float means the decimal number that it is written as.
Amount: TypeAlias = int | str | decimal.Decimal | float

NANO_DECIMALS = 9
NANO = 10**NANO_DECIMALS
#: Maximum amount in dollars. Redis counts in doubles, exact up to 2**53 nano-dollars; this is a round number below.
MOST_USD = 9_000_000


def as_number(value: Any) -> int | float | None:
    """Return an integer or a real number as a plain int or float, those of numpy included; None for anything else.

    Methods of subclasses of int and float are not called: they may return anything, or raise.
    """
    kind = type(value)
    if issubclass(kind, bool):
        return None
    if issubclass(kind, int):
        return int.__index__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    try:
        if issubclass(kind, numbers.Integral):
            return int(operator.index(value))
        return float(value) if issubclass(kind, numbers.Real) else None
    except Exception:  # noqa: BLE001  a class of the caller may raise anything
        return None


def to_nanousd(amount: Amount, *, name: str) -> int:
    """Convert dollars to nano-dollars, exactly.

    Raises UsageError, which names the amount `name`, if it is not a number, is below 0 or above 9,000,000, or has more
    than nine decimals.
    """
    number, is_int = _as_decimal(amount), issubclass(type(amount), int)
    if number is None:
        raise UsageError(f"{name} is {shown(amount)}; it must be dollars, such as 0.05")
    written = shown(amount) if len(text := str(number)) > 32 or is_int else text
    if not number.is_finite() or not 0 <= number <= MOST_USD:
        raise UsageError(f"{name} is {written}; it must be from 0 to {MOST_USD:,} dollars")
    if not number:
        return 0
    _, digits, exponent = number.as_tuple()
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    # Checked before the conversion, because the integers of a fraction such as 1e-999999999 fill the memory.
    if int(exponent) + zeros < -NANO_DECIMALS:
        raise UsageError(f"{name} is {written}; it must have at most nine decimals")
    # A fraction, because the result of decimal arithmetic depends on the caller's context.
    return int(fractions.Fraction(number) * NANO)


def _as_decimal(amount: Any) -> decimal.Decimal | None:
    """Return a number, or the text of one, as a decimal; None for anything else."""
    kind = type(amount)
    if issubclass(kind, str):
        text = str.__str__(amount).strip().removeprefix("$")
    elif issubclass(kind, decimal.Decimal):
        return decimal.Decimal(amount)
    else:
        number = as_number(amount)
        if number is None:
            return None
        # Larger numbers are refused anyway, and Python cannot convert some long integers to text.
        text = "inf" if abs(number) > 10 * MOST_USD else repr(number)
        text = "-inf" if text == "inf" and number < 0 else text
    try:
        return decimal.Decimal(text)
    except (decimal.InvalidOperation, ValueError):
        return None


def usd(nanousd: int) -> str:
    """Format nano-dollars as dollars, exactly, with at least two decimals: `0.0264`, `5.00`."""
    whole, rest = divmod(abs(nanousd), NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanousd < 0 else ''}{whole}.{decimals}"


def to_usd(nanousd: int | None) -> decimal.Decimal | None:
    """Nano-dollars as dollars, exactly, in any decimal context; None for an unknown amount."""
    return None if nanousd is None else Dollars(usd(nanousd))


class Dollars(decimal.Decimal):
    """Decimal that is printed without an exponent: `0.00000002`, not `2E-8`."""

    __slots__ = ()

    @override
    def __str__(self) -> str:
        return super().__format__("f")

    @override
    def __format__(self, specifier: str, context: decimal.Context | None = None, /) -> str:
        return super().__format__(specifier or "f")
