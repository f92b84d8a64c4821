"""Services that report no usage or false usage, over real HTTP: the budget trips, and the ledger shows it."""

import asyncio
import logging

import pytest

from api_servers import KEY, CohereRerankServer, CompatibleRerankServer
from books import MODEL, PRICE, PaidServer, settings_of
from embedway import AsyncEmbedder
from embedway.errors import BudgetExceededError

TEXTS = [f"text number {number} of some words, which is long enough to count" for number in range(20)]
LIMIT = 2_500_000
BUDGET = {"budgets.all": {"usd": "0.0025"}}


async def spend(server, books, calls=12, texts=TEXTS, together=False, **more):
    """Make calls until the budget refuses one, and return their receipts and whether it refused."""
    receipts, refused = [], 0
    async with AsyncEmbedder(config=settings_of(server, books, **{**BUDGET, **more})) as embedder:

        async def call(number):
            result = await embedder.embed([f"{number} {text}" for text in texts], model=MODEL)
            receipts.append(result.receipt)

        if together:
            done = await asyncio.gather(*map(call, range(calls)), return_exceptions=True)
            refused = sum(isinstance(error, BudgetExceededError) for error in done)
            assert all(error is None or isinstance(error, BudgetExceededError) for error in done)
        else:
            for number in range(calls):
                try:
                    await call(number)
                except BudgetExceededError:
                    refused += 1
    return receipts, refused


def report(**usage):
    return lambda tokens: usage


REPORTS = {
    "nothing": (lambda tokens: None, "estimated"),
    "null": (report(prompt_tokens=None, total_tokens=None), "estimated"),
    "0": (report(prompt_tokens=0, total_tokens=0), "estimated"),
    "negative": (report(prompt_tokens=-5, total_tokens=-5), "estimated"),
    "true": (report(total_tokens=True), "estimated"),
    "1": (report(prompt_tokens=1, total_tokens=1), "unsure"),
    "one for each text": (report(total_tokens=20), "unsure"),
    "a quarter": (lambda tokens: {"total_tokens": tokens // 4}, "unsure"),
    "10**12": (report(prompt_tokens=10**12, total_tokens=10**12), "unsure"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_budget_trips_although_the_service_reports_too_little_or_nonsense(name, books):
    reports, source = REPORTS[name]

    async def main():
        async with PaidServer(reports).running() as server:
            receipts, refused = await spend(server, books)
            return server, receipts, refused, await books.spent(), await books.entries()

    server, receipts, refused, spent, entries = asyncio.run(main())
    assert receipts
    assert refused
    assert spent == (server.bill * PRICE, 0)
    assert server.bill * PRICE == sum(receipt.cost_nanousd for receipt in receipts) <= LIMIT
    for receipt, entry in zip(receipts, entries, strict=True):
        assert receipt.estimated
        assert receipt.billed_tokens * PRICE == receipt.cost_nanousd == entry.spent
        unsure = receipt.cost_nanousd if source == "unsure" else 0
        assert (receipt.unsure_nanousd, entry.unsure) == (unsure, unsure)
        assert entry.estimated == entry.spent - unsure
        assert bool(receipt.notes) == bool(unsure)


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": "{}"}, {"input_tokens": 0.0}, {"prompt_tokens": 0, "total_tokens": 0}]
)
@pytest.mark.parametrize("together", [False, True])
def test_other_names_and_types_of_usage_are_reported(usage, together, books):
    def reports(tokens):
        name = next(name for name, value in usage.items() if name != "total_tokens")
        written = str(tokens) if isinstance(usage[name], str) else float(tokens)
        return {**usage, name: written}

    async def main():
        async with PaidServer(reports).running() as server:
            receipts, refused = await spend(server, books, together=together)
            return server.bill, receipts, refused, await books.spent()

    bill, receipts, refused, spent = asyncio.run(main())
    assert refused
    assert spent == (bill * PRICE, 0)
    assert spent[0] <= LIMIT
    assert all(not receipt.estimated and not receipt.unsure_nanousd for receipt in receipts)


@pytest.mark.parametrize("together", [False, True])
def test_a_report_far_above_our_count_uses_up_hard_limits_and_does_not_exceed_them(together, books):
    async def main():
        async with PaidServer(lambda tokens: {"total_tokens": 10**6}).running() as server:
            receipts, refused = await spend(server, books, together=together)
            return server.bill, receipts, refused, await books.spent(), await books.entries()

    bill, receipts, refused, spent, entries = asyncio.run(main())
    assert receipts
    assert refused
    assert spent == (LIMIT, 0)
    assert bill * PRICE < LIMIT
    for costs in ([entry.spent for entry in entries], [entry.unsure for entry in entries]):
        assert sum(costs) == LIMIT
    for costs in ([one.cost_nanousd for one in receipts], [one.unsure_nanousd for one in receipts]):
        assert sum(costs) == LIMIT
    assert all("more than ten times" in note for receipt in receipts for note in receipt.notes)


def test_a_report_far_above_our_count_is_booked_where_no_limit_applies(books):
    async def main():
        async with PaidServer(lambda tokens: {"total_tokens": 10**6}).running() as server:
            soft = {"budgets.all": {"usd": "0.0025", "hard": False}}
            receipts, _ = await spend(server, books, calls=1, **soft)
            return receipts, await books.spent()

    (receipt,), spent = asyncio.run(main())
    assert spent[0] == receipt.cost_nanousd == receipt.unsure_nanousd == 10**6 * PRICE
    assert receipt.billed_tokens == 10**6


def test_a_call_s_own_limit_holds_too(books):
    async def main():
        server = PaidServer(lambda tokens: {"total_tokens": 10**6})
        async with server.running(), AsyncEmbedder(config=settings_of(server, books)) as embedder:
            return (await embedder.embed(TEXTS, model=MODEL, max_cost="0.01")).receipt

    receipt = asyncio.run(main())
    assert receipt.cost_nanousd == receipt.unsure_nanousd == 10_000_000


def test_it_is_reported_once_in_the_log_and_in_each_receipt(books, caplog):
    async def main():
        async with PaidServer(lambda tokens: {"total_tokens": 1}).running() as server:
            return await spend(server, books, calls=5, **{"budgets.all": {"usd": "5"}})

    with caplog.at_level(logging.WARNING, "embedway"):
        receipts, _ = asyncio.run(main())
    note = "routes.r: its reported tokens are less than a third of embedway's own count; the cost is booked as unsure"
    assert [receipt.notes for receipt in receipts] == [(note,)] * 5
    assert [line.getMessage().startswith(note) for line in caplog.records if line.name == "embedway.budget"] == [True]
    assert "some words" not in caplog.text


def test_texts_of_several_callers_in_one_request_each_pay_their_own(books):
    async def main():
        async with PaidServer(report(total_tokens=2)).running() as server:
            merged = {"budgets.all": {"usd": "5"}, "batching.max_wait_ms": 50}
            receipts, _ = await spend(server, books, calls=8, texts=TEXTS[:3], together=True, **merged)
            return server, receipts, await books.spent()

    server, receipts, spent = asyncio.run(main())
    assert len(server.bodies) < 8
    assert sum(receipt.cost_nanousd for receipt in receipts) == spent[0] == server.bill * PRICE


#: A model that is billed by search, at 0.002 dollars.
COHERE = "rerank-v3.5"


@pytest.mark.parametrize(("units", "unsure"), [(0, False), (None, False), ("0", False), (10**12, True), (-1, False)])
def test_searches_that_are_not_reported_are_not_free(units, unsure, books):
    class Server(CohereRerankServer):
        def framed(self, results, tokens):
            return {**super().framed(results, tokens), "meta": {"billed_units": {"search_units": units}}}

    async def main():
        async with Server().running() as server:
            way = {"model": COHERE, "provider": "cohere", "base_url": server.url, "api_key": KEY}
            made = settings_of(server, books, **{"budgets.all": {"usd": "0.0101"}, "routes.r": way})
            receipts = []
            async with AsyncEmbedder(config=made) as embedder:
                for _ in range(9):
                    done = await asyncio.gather(embedder.rerank("query", TEXTS, model=COHERE), return_exceptions=True)
                    receipts += [one.receipt for one in done if not isinstance(one, BudgetExceededError)]
            return receipts, await books.spent()

    receipts, spent = asyncio.run(main())
    assert len(receipts) == 5
    assert spent == (10_000_000, 0)
    for receipt in receipts:
        assert (receipt.cost_nanousd, receipt.billed_searches, receipt.estimated) == (2_000_000, 1, True)
        assert receipt.unsure_nanousd == (2_000_000 if unsure else 0)


def test_tokens_of_a_reranker_that_are_not_reported_are_not_free(books):
    class Server(CompatibleRerankServer):
        model = MODEL

        def framed(self, results, tokens):
            return super().framed(results, 0)

    async def main():
        async with Server().running() as server:
            by_token = {"name": MODEL, "task": "rerank", "max_tokens": 512, "price_usd_per_million_tokens": "1"}
            made = settings_of(server, books, **{"models.m": by_token})
            async with AsyncEmbedder(config=made) as embedder:
                return (await embedder.rerank("a query", TEXTS, model=MODEL)).receipt

    receipt = asyncio.run(main())
    assert receipt.estimated
    assert receipt.cost_nanousd == receipt.billed_tokens * PRICE > 0
    assert receipt.billed_searches == 0
