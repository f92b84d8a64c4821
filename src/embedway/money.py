"""Money as integer nano-dollars; decimal numbers at the API, never binary fractions."""

from __future__ import annotations

import decimal
import fractions
from typing import TypeAlias

from typing_extensions import override

from embedway.errors import UsageError
from embedway.text import shown

#: Dollars. A float means the decimal number that it is written as.
Amount: TypeAlias = int | str | decimal.Decimal | float

NANO = 10**9
#: Maximum amount in dollars. Redis counts in doubles, exact up to 2**53 nano-dollars; this is a round number below.
MOST_USD = 9_000_000


def to_nanousd(amount: Amount, *, name: str) -> int:
    """Convert dollars to nano-dollars, exactly.

    Raises UsageError, which names the amount `name`, if it is not a number, is below 0 or above 9,000,000, or has more
    than nine decimals.
    """
    if isinstance(amount, bool) or not isinstance(amount, (int, str, float, decimal.Decimal)):
        raise UsageError(f"{name} is {shown(amount)}; it must be dollars, such as 0.05")
    try:
        number = decimal.Decimal(str(amount).strip().removeprefix("$"))
    except (decimal.InvalidOperation, ValueError):  # ValueError for an integer of thousands of digits
        raise UsageError(f"{name} is {shown(amount)}; it must be dollars, such as 0.05") from None
    if not number.is_finite() or not 0 <= number <= MOST_USD:
        raise UsageError(f"{name} is {amount}; it must be from 0 to {MOST_USD:,} dollars")
    # A fraction, because the result of decimal arithmetic depends on the caller's context.
    nano = fractions.Fraction(number) * NANO
    if nano.denominator != 1:
        raise UsageError(f"{name} is {amount}; it must have at most nine decimals")
    return int(nano)


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
