"""Billing of requests: reservations, the cost of each attempt, and the bill."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import EmbedwayError, LedgerError
from embedway.ledger.account import Share
from embedway.providers.base import sum_of
from embedway.types import Bill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    import numpy.typing as npt

    from embedway.dispatch.request import Rows, UpstreamRequest, UpstreamResponse
    from embedway.dispatch.usage import Usage
    from embedway.ledger.account import Account, CallBudget, Prices
    from embedway.ledger.budgets import Budgets

#: A reranking service counts 100 documents as one search. It splits a document of more than 500 tokens, those of the
#: query included, into several (https://docs.cohere.com/docs/how-does-cohere-pricing-work, read 2026-11-24). Their
#: number depends on the query: for a query of up to half that length, it is at most one per half.
DOCUMENTS_A_SEARCH, _DOCUMENT_TOKENS = 100, 500


@contextlib.asynccontextmanager
async def reserve_for(
    lengths: npt.NDArray[np.int32],
    budgets: Budgets | None,
    spending: CallBudget,
    prices: Prices,
    *,
    exact: bool,
    by_search: bool = False,
    later: bool = False,
) -> AsyncIterator[Account | None]:
    """Reserve the possible cost of texts of these lengths, and release the rest afterwards; None without `budgets`.

    `prices` returns nano-dollars for tokens and searches, None if no price is known. `exact` is true if the tokens were
    counted with the model's own tokenizer. With `later`, the reservation may be made when the first texts are sent; if
    it cannot be made, the block is cancelled or fails. Raises BudgetExceededError and LedgerError.
    """
    if budgets is None:
        yield None
        return
    account = await budgets.open(
        spending,
        prices,
        tokens=sum_of(lengths),
        texts=len(lengths),
        searches=searches_of(lengths) if by_search else 0,
        exact=exact,
        later=later,
    )
    try:
        if account.reservation is None:
            yield account
        else:
            async with asyncio.timeout(None) as wait:
                with account.reservation.awaited(wait):
                    yield account
    except (EmbedwayError, TimeoutError):
        if account.failure is None:
            raise
    finally:
        if budgets.ledger is None:
            await account.close()  # does not wait
        elif not account.is_closed:
            # Shielded: the account is closed even if the caller is cancelled.
            await asyncio.shield(budgets.run_in_background(account.close()))
    if account.failure is not None:
        # Nothing was sent, so it is the error of the call, not of some of its texts.
        raise account.failure


def make_bill(response: UpstreamResponse, prices: Prices, account: Account | None = None) -> Bill:
    """Return the bill of a response: from the account of its request, or from the reported usage and the prices."""
    if account is not None:
        return Bill(
            account.totals.tokens,
            None if account.totals.unpriced else account.totals.spent + account.sent,
            response.attempts,
            tuple(response.routes),
            estimated=account.totals.estimated,
            searches=account.totals.searches,
            unsure=account.totals.unsure + account.sent,  # a probe may still be under way
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
    #: Whether the attempt contains all texts of the caller's request.
    is_whole: bool = False


async def mark_under_way(request: UpstreamRequest, rows: Rows, charges: list[Charge]) -> None:
    """Mark the possible cost of an attempt as under way, and add a charge for each caller with texts in it.

    Raises BudgetExceededError and LedgerError; the charges added so far must then be booked as not billed.
    """

    async def mark(caller: int, own: Rows) -> None:
        account, lengths = request.accounts[caller], request.lengths[own]
        tokens, searches = sum_of(lengths), searches_of(lengths) if request.by_search else 0
        sent = await account.mark_sent(tokens, searches)
        charges.append(Charge(account, sent, tokens, searches, is_whole=len(own) == request.count_of(caller)))

    if request.callers is None:
        await mark(0, rows)
        return
    # All at once, so that the ledger can book them together.
    marked = (mark(caller, own) for caller, own in request.by_caller(rows))
    for error in await asyncio.gather(*marked, return_exceptions=True):
        if error is not None:
            raise error


async def book(charges: Sequence[Charge], usage: Usage | None, *, billed: bool, last_route: str = "") -> None:
    """Book a finished attempt for every caller, even if the waiting caller is cancelled.

    Without an answer, `billed` is true if the attempt may be on the bill. With `last_route`, the routes that answered,
    the attempt is the last one of each caller whose texts are all in it. Its booking is not waited for.
    """
    if usage is None:
        bookings = [charge.account.settle_failure(charge.sent_nanousd, billed=billed) for charge in charges]
    else:
        bookings = []
        for charge, share in zip(charges, shares_of(charges, usage), strict=True):
            account, route = charge.account, last_route if charge.is_whole else ""
            if not (route and account.settle_last(charge.sent_nanousd, share, route)):
                bookings.append(account.settle_answer(charge.sent_nanousd, share, last_route=route))
    if not bookings:
        return
    budgets, booking = charges[0].account.budgets, _run_bookings(charges, bookings)
    if budgets.ledger is None:
        await booking  # does not wait
    else:
        await asyncio.shield(budgets.run_in_background(booking))


async def _run_bookings(charges: Sequence[Charge], bookings: Sequence[Coroutine[Any, Any, None]]) -> None:
    for error in await _outcomes(bookings):
        if isinstance(error, LedgerError):
            # The answer is here and paid for. A missing booking is booked as unsure when the lease expires.
            charges[0].account.budgets.note_unbooked(error)
        elif error is not None:
            raise error


async def _outcomes(bookings: Sequence[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    """Return the error of each booking; None if it has none. One alone needs no further task."""
    if len(bookings) > 1:
        return await asyncio.gather(*bookings, return_exceptions=True)
    try:
        await bookings[0]
    except LedgerError as error:
        return [error]
    return [None]


def shares_of(charges: Sequence[Charge], usage: Usage) -> list[Share]:
    """Split the usage of an answer between its callers. Their tokens, searches and costs sum to those of the answer."""
    prices = charges[0].account.prices
    by_search = bool(prices(0, 1))
    billed = usage.searches if by_search else usage.tokens
    # Own counts are exact for each caller; reported ones are split in proportion to them.
    tokens, searches = (
        list(own) if count.is_own else split_by_weight(count.booked, own)
        for count, own in (
            (usage.tokens, [charge.tokens for charge in charges]),
            (usage.searches, [charge.searches for charge in charges]),
        )
    )
    # A service bills tokens or searches: the others are not counted unless it reports them.
    if by_search and usage.tokens.source == "estimated" and usage.searches.source != "estimated":
        tokens = [0] * len(charges)
    if not by_search and usage.searches.source == "estimated":
        searches = [0] * len(charges)
    costs = _costs(prices, tokens, searches)
    return [Share(*counts, billed.source, is_own=billed.is_own) for counts in zip(tokens, searches, costs, strict=True)]


def _costs(prices: Prices, tokens: Sequence[int], searches: Sequence[int]) -> list[int | None]:
    """Return the cost of each part. The cost of their sum is rounded up once, and they sum to it."""
    costs: list[int | None] = []
    before: int | None = 0
    for upto in zip(itertools.accumulate(tokens), itertools.accumulate(searches), strict=True):
        cost = prices(*upto)
        costs.append(None if cost is None or before is None else cost - before)
        before = cost
    return costs


def searches_of(lengths: npt.NDArray[np.int32]) -> int:
    """Return the searches billed for documents of these lengths, each with its query; never too few."""
    documents = np.where(lengths > _DOCUMENT_TOKENS, -(-2 * lengths.astype(np.int64) // _DOCUMENT_TOKENS), 1)
    return -(-int(documents.sum()) // DOCUMENTS_A_SEARCH)


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
