"""Whole numbers, shared out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import numpy as np

from embedway.types import Bill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from embedway.dispatch.recovery import UpstreamRequest, UpstreamResponse
    from embedway.ledger.budgets import Account, Budgets, Prices, Spending


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """A whole number, shared out by weights; the shares add up to it."""
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    given = passed = 0
    parts = []
    for weight in weights:
        passed += weight
        upto = total * passed // whole
        parts.append(upto - given)
        given = upto
    return parts


@contextlib.asynccontextmanager
async def reserved(
    request: UpstreamRequest, prices: Prices, budgets: Budgets, spending: Spending, *, exact: bool, searches: int = 0
) -> AsyncIterator[Account | None]:
    """Reserve what a request may cost, and give back what of it is left; None where nothing is billed."""
    if not request.texts or prices(1_000_000, 1000) == 0:
        yield None
        return
    account = await budgets.open(
        spending,
        prices,
        tokens=int(request.lengths.sum(dtype=np.int64)),
        texts=len(request.texts),
        searches=searches,
        exact=exact,
    )
    try:
        yield account
    finally:
        # Also when the caller is cancelled meanwhile.
        await asyncio.shield(budgets.beside(account.close()))


def bill_of(response: UpstreamResponse, prices: Prices, account: Account | None) -> Bill:
    """The bill of a request: as its account has it, or as the service told and its prices are known."""
    if account is not None:
        return Bill(
            account.tokens,
            None if account.unpriced else account.spent,
            response.attempts,
            tuple(response.routes),
            estimated=account.estimated,
            searches=account.searches,
            unsure=account.unsure,
            entries=() if account.entry is None else (account.entry,),
        )
    tokens, searches = response.billed_tokens + response.unreported_tokens, response.searches
    return Bill(
        tokens,
        prices(tokens, searches) if tokens or searches else 0,
        response.attempts,
        tuple(response.routes),
        estimated=response.unreported_tokens > 0,
        searches=searches,
    )
