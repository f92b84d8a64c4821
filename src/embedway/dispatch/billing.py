"""Billing of requests: reservations, the cost of each attempt, and the bill."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedway.errors import LedgerError
from embedway.types import Bill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import numpy.typing as npt

    from embedway.dispatch.request import Rows, UpstreamRequest, UpstreamResponse
    from embedway.ledger.account import Account, CallBudget, Prices
    from embedway.ledger.budgets import Budgets
    from embedway.providers.base import Answer


_log = logging.getLogger(__name__)

#: A reranking service counts 100 documents as one search. It splits a document of more than 500 tokens, those of the
#: query included, into several (https://docs.cohere.com/docs/how-does-cohere-pricing-work, read 2026-11-24). Their
#: number depends on the query: for a query of up to half that length, it is at most one per half.
_DOCUMENTS_A_SEARCH, _DOCUMENT_TOKENS = 100, 500


@contextlib.asynccontextmanager
async def reserve_for(
    request: UpstreamRequest,
    budgets: Budgets | None,
    spending: CallBudget,
    prices: Prices,
    *,
    exact: bool,
) -> AsyncIterator[Account | None]:
    """Reserve the possible cost of a request, and release the rest afterwards; None without `budgets`.

    `prices` returns nano-dollars for tokens and searches, None if no price is known. `exact` is true if the tokens were
    counted with the model's own tokenizer. Raises BudgetExceededError and LedgerError.
    """
    if budgets is None:
        yield None
        return
    account = await budgets.open(
        spending,
        prices,
        tokens=int(request.lengths.sum(dtype=np.int64)),
        texts=len(request.texts),
        searches=searches_of(request.lengths) if request.by_search else 0,
        exact=exact,
    )
    try:
        yield account
    finally:
        # Shielded: the account is closed even if the caller is cancelled.
        await asyncio.shield(budgets.run_in_background(account.close()))


def make_bill(response: UpstreamResponse, prices: Prices, account: Account | None = None) -> Bill:
    """Return the bill of a response: from the account of its request, or from the reported usage and the prices."""
    if account is not None:
        return Bill(
            account.totals.tokens,
            None if account.totals.unpriced else account.totals.spent,
            response.attempts,
            tuple(response.routes),
            estimated=account.totals.estimated,
            searches=account.totals.searches,
            unsure=account.totals.unsure,
            entries=() if account.entry is None else (account.entry,),
            notes=tuple(dict.fromkeys(response.notes)),
        )
    tokens, searches = response.billed_tokens + response.unreported_tokens, response.searches
    return Bill(
        tokens,
        prices(tokens, searches) if tokens or searches else 0,
        response.attempts,
        tuple(response.routes),
        estimated=response.unreported_tokens > 0,
        searches=searches,
        notes=tuple(dict.fromkeys(response.notes)),
    )


@dataclass(frozen=True, slots=True)
class Charge:
    """One caller's share of an attempt: its money under way, and the tokens and searches that it pays for."""

    account: Account
    sent_nanousd: int
    tokens: int
    searches: int


async def mark_under_way(request: UpstreamRequest, rows: Rows, charges: list[Charge]) -> None:
    """Mark the possible cost of an attempt as under way, and add a charge for each caller with texts in it.

    Raises BudgetExceededError and LedgerError; the charges added so far must then be booked as not billed.
    """

    async def mark(caller: int, own: Rows) -> None:
        account, lengths = request.accounts[caller], request.lengths[own]
        tokens, searches = int(lengths.sum(dtype=np.int64)), searches_of(lengths) if request.by_search else 0
        charges.append(Charge(account, await account.mark_sent(tokens, searches), tokens, searches))

    # All at once, so that the ledger can book them together.
    callers = [(0, rows)] if request.callers is None else request.by_caller(rows)
    marked = (mark(caller, own) for caller, own in callers)
    for error in await asyncio.gather(*marked, return_exceptions=True):
        if error is not None:
            raise error


async def book(charges: Sequence[Charge], answer: Answer | None, *, billed: bool) -> None:
    """Book a finished attempt for every caller, even if the waiting caller is cancelled.

    Without an answer, `billed` is true if the attempt may be on the bill.
    """
    await asyncio.shield(charges[0].account.budgets.run_in_background(_book_each(charges, answer, billed=billed)))


async def _book_each(charges: Sequence[Charge], answer: Answer | None, *, billed: bool) -> None:
    if answer is None:
        bookings = [charge.account.settle_failure(charge.sent_nanousd, billed=billed) for charge in charges]
    else:
        # The service's own counts, split in proportion to ours; else our counts.
        tokens, searches = [charge.tokens for charge in charges], [charge.searches for charge in charges]
        if answer.tokens is not None:
            tokens = split_by_weight(answer.tokens, tokens)
        elif answer.searches is not None and charges[0].account.prices(0, 1) != 0:
            # The service bills searches, not tokens.
            tokens = [0] * len(charges)
        if answer.searches is not None:
            searches = split_by_weight(answer.searches, searches)
        bookings = [
            charge.account.settle_answer(
                charge.sent_nanousd,
                tokens=own_tokens,
                searches=own_searches,
                tokens_reported=answer.tokens is not None,
                searches_reported=answer.searches is not None,
            )
            for charge, own_tokens, own_searches in zip(charges, tokens, searches, strict=True)
        ]
    for error in await asyncio.gather(*bookings, return_exceptions=True):
        if isinstance(error, LedgerError):
            # The answer is here and paid for. A missing booking is booked as unsure when the lease expires.
            _log.warning("the cost of a request could not be booked yet: %s", error)
        elif error is not None:
            raise error


def searches_of(lengths: npt.NDArray[np.int32]) -> int:
    """Return the searches billed for documents of these lengths, each with its query; never too few."""
    documents = np.where(lengths > _DOCUMENT_TOKENS, -(-2 * lengths.astype(np.int64) // _DOCUMENT_TOKENS), 1)
    return -(-int(documents.sum()) // _DOCUMENTS_A_SEARCH)


def split_by_weight(total: int, weights: Sequence[int]) -> list[int]:
    """Split an integer in proportion to weights; the parts sum to it."""
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
