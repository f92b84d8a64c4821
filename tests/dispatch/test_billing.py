"""Cost of attempts: reported, counted, and split between callers."""

import asyncio
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.dispatch.billing import searches_of, split_by_weight
from embedway.dispatch.request import UpstreamRequest
from embedway.errors import BadVectorsError
from embedway.ledger.account import Share
from embedway.providers.fake import Fake, vector_of
from failing_services import SPACE, WIDTH, FakeUpstream, on_calls


class SlowAccount:
    """Account whose bookings wait for `go`."""

    ledger = "a ledger"

    def __init__(self):
        self.budgets = self
        self.booking, self.go = asyncio.Event(), asyncio.Event()

    def run_in_background(self, work):
        return asyncio.create_task(work)

    async def mark_sent(self, tokens, searches):
        return 1

    def prices(self, tokens, searches):
        return tokens

    def settle_last(self, sent, share, route):
        return False

    async def settle_answer(self, sent, share, *, last_route):
        self.booking.set()
        await self.go.wait()


def test_an_answer_is_reported_before_it_is_booked():
    told = []

    async def main():
        account, upstream = SlowAccount(), FakeUpstream(Fake())
        request = UpstreamRequest(
            ["a"],
            np.ones(1, np.int32),
            "document",
            SPACE,
            WIDTH,
            accounts=(account,),
            on_ready=lambda rows, vectors: told.extend(zip(rows.tolist(), vectors, strict=True)),
        )
        task = asyncio.create_task(upstream.client.send(request, upstream.routes()))
        await account.booking.wait()
        task.cancel()
        account.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    ((row, vector),) = told
    assert row == 0
    np.testing.assert_allclose(vector, vector_of("a", WIDTH), atol=1e-6)


class RecordingAccount:
    """Account that records its bookings; each attempt has 7 nano-dollars under way."""

    ledger = "a ledger"

    def __init__(self, prices):
        self.budgets, self.prices = self, prices
        self.answers, self.failures = [], []

    def run_in_background(self, work):
        return asyncio.create_task(work)

    async def mark_sent(self, tokens, searches):
        return 7

    def settle_last(self, sent, share, route):
        return False

    async def settle_answer(self, sent, share, *, last_route):
        self.answers.append(share)

    async def settle_failure(self, sent, *, billed):
        self.failures.append((sent, billed))


def send_for(account, fake, **more):
    return FakeUpstream(fake).send(["one two", "three"], accounts=(account,), partial=True, **more)


def test_an_answer_with_unreadable_vectors_may_be_on_the_bill():
    account = RecordingAccount(lambda tokens, searches: tokens)
    response = send_for(account, Fake(faults=on_calls(BadVectorsError("no vectors", route="fake"))))
    assert not response.errors
    assert account.failures == [(7, True)]


@pytest.mark.parametrize(
    ("prices", "tokens"),
    [(lambda tokens, searches: tokens, 3), (lambda tokens, searches: searches, 0)],
    ids=["by token", "by search"],
)
def test_a_count_of_searches_replaces_no_tokens_that_have_a_price(prices, tokens):
    account = RecordingAccount(prices)
    only_searches = Fake(faults=lambda *_: lambda answer: dataclasses.replace(answer, tokens=None, searches=1))
    send_for(account, only_searches, by_search=True)
    by_token, by_search = Share(3, 1, 3, "estimated", is_own=True), Share(0, 1, 1, "reported", is_own=False)
    assert account.answers == [by_token if tokens else by_search]


def test_searches_are_never_too_few():
    assert searches_of(np.full(100, 500, np.int32)) == 1
    assert searches_of(np.full(101, 20, np.int32)) == 2
    # A document of 760 tokens with a query of 250 makes ceil(510 / 250) parts.
    assert searches_of(np.full(100, 760, np.int32)) == 4


def test_answers_that_do_not_say_what_they_cost_are_counted_apart():
    fake = Fake(faults=on_calls(lambda answer: dataclasses.replace(answer, tokens=None)))
    response = FakeUpstream(fake).send(["one two", "three"])
    assert (response.billed_tokens, response.unreported_tokens) == (0, 3)


TOTALS = st.tuples(st.integers(0, 10**12), st.lists(st.integers(0, 5000), min_size=1, max_size=30))


@given(TOTALS)
def test_shares_add_up_and_are_fair(case):
    total, weights = case
    parts = split_by_weight(total, weights)
    assert sum(parts) == total
    whole = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        exact = total * weight / whole if whole else total / len(weights)
        assert abs(part - exact) <= 1 + exact * 1e-9
