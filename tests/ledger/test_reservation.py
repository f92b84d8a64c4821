"""When a reservation is made: with the first amount that is sent, or alone before a long wait; and what it costs."""

import asyncio
import contextlib
import random

import numpy as np
import pytest

from books import MODEL, PRICE, PaidServer, settings_of, sqlite_books
from embedway import AsyncEmbedder
from embedway.dispatch.billing import reserve_for
from embedway.errors import BudgetExceededError, EmbedwayError, LedgerError
from embedway.ledger import reservation
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Limit, Purpose
from embedway.ledger.budgets import Budgets
from embedway.ledger.sqlite import SqliteLedger
from inside import ask_ledger_file, budgets_of, ledger_of

ALL = Limit("all", 1000)


def by_token(tokens, _searches):
    return tokens


def reserving(budgets, spending=None, *, tokens=100, later=True):
    spending = CallBudget(Purpose("m")) if spending is None else spending
    return reserve_for(np.array([tokens], np.int32), budgets, spending, by_token, exact=True, later=later)


async def kept(ledger):
    return [(one.state, one.reserved, one.sent, one.spent) for one in await ledger.entries()]


@pytest.fixture
def at_once(monkeypatch):
    """Let a reservation wait for no first amount."""
    monkeypatch.setattr(reservation, "ALONE_AFTER_S", 0.0)


@pytest.fixture
def never(monkeypatch):
    """Let a reservation wait for its first amount as long as it takes."""
    monkeypatch.setattr(reservation, "ALONE_AFTER_S", 3600.0)


def test_a_reservation_is_made_with_the_first_amount(run, never):
    async def work(ledger):
        budgets = Budgets(ledger, (ALL,))
        async with reserving(budgets) as account:
            assert await kept(ledger) == []
            assert account.call_budget.held == 100
            assert await account.mark_sent(60, 0) == 60
            assert await kept(ledger) == [("open", 40, 60, 0)]
            assert await account.mark_sent(40, 0) == 40
            assert await kept(ledger) == [("open", 0, 100, 0)]
            await account.settle_failure(60, billed=False)
            await account.settle_failure(40, billed=True)
        assert await kept(ledger) == [("done", 0, 0, 40)]
        assert account.call_budget.held == 0

    run(work)


def test_a_request_that_waits_reserves_alone_and_has_nothing_under_way(run, at_once):
    async def work(ledger):
        budgets = Budgets(ledger, (ALL,))
        async with reserving(budgets) as account:
            while account.entry is None:  # noqa: ASYNC110  no event signals a reservation
                await asyncio.sleep(0)
            assert await kept(ledger) == [("open", 100, 0, 0)]
            await account.mark_sent(100, 0)
            assert await kept(ledger) == [("open", 0, 100, 0)]
            await account.settle_failure(100, billed=False)
        assert await kept(ledger) == [("done", 0, 0, 0)]

    run(work)


def test_a_request_that_waits_ends_if_a_limit_refuses_it(run, at_once):
    async def work(ledger):
        budgets = Budgets(ledger, (Limit("all", 99),))
        spending = CallBudget(Purpose("m"))
        with pytest.raises(BudgetExceededError, match="'all'"):
            async with reserving(budgets, spending):
                await asyncio.Event().wait()
        assert (spending.held, spending.spent) == (0, 0)
        assert await kept(ledger) == []
        assert not asyncio.current_task().cancelling()

    run(work)


def test_a_request_that_waits_ends_if_the_ledger_fails(run, at_once):
    async def work(ledger):
        async def fail(*_, **__):
            raise LedgerError("the ledger is away")

        ledger.reserve = fail
        budgets = Budgets(ledger, (ALL,))
        with pytest.raises(LedgerError, match="the ledger is away"):
            async with reserving(budgets):
                await asyncio.Event().wait()

    run(work)


def test_errors_of_rows_do_not_hide_that_nothing_was_reserved(run, never):
    async def work(ledger):
        budgets = Budgets(ledger, (Limit("all", 99),))

        async def call():
            async with reserving(budgets) as account:
                for tokens in (100, 10):  # a partial request goes on
                    with contextlib.suppress(BudgetExceededError):
                        await account.mark_sent(tokens, 0)
                assert account.sent == 0

        with pytest.raises(BudgetExceededError):
            await call()
        assert await kept(ledger) == []

    run(work)


def test_after_a_refusal_calls_of_the_purpose_reserve_before_they_wait(run, never):
    async def work(ledger):
        budgets = Budgets(ledger, (Limit("m", 150, scope="model:m"),))
        with pytest.raises(BudgetExceededError):
            async with reserving(budgets, tokens=200) as account:
                await account.mark_sent(200, 0)
        with pytest.raises(BudgetExceededError):
            async with reserving(budgets, tokens=200):
                pytest.fail("a refused call waits")
        async with reserving(budgets, CallBudget(Purpose("other")), tokens=200):
            assert await kept(ledger) == []
        async with reserving(budgets):
            assert await kept(ledger) == [("open", 100, 0, 0)]
        async with reserving(budgets):
            assert await kept(ledger) == [("done", 0, 0, 0)]

    run(work)


def test_a_request_that_sends_nothing_has_no_entry(run, never):
    async def work(ledger):
        budgets = Budgets(ledger, (ALL,))
        spending = CallBudget(Purpose("m"))
        async with reserving(budgets, spending):
            assert spending.held == 100
        assert await kept(ledger) == []
        assert spending.held == 0

    run(work)


def test_a_limit_that_allows_the_texts_but_not_the_first_amount_keeps_the_reservation(run, never):
    """A probe may cost more than the texts."""

    async def work(ledger):
        budgets = Budgets(ledger, (Limit("all", 150),))
        async with reserving(budgets) as account:
            with pytest.raises(BudgetExceededError):
                await account.mark_sent(200, 0)
            assert await kept(ledger) == [("open", 100, 0, 0)]
            assert await account.mark_sent(100, 0) == 100
            await account.settle_failure(100, billed=True)
        assert await kept(ledger) == [("done", 0, 0, 100)]

    run(work)


@pytest.mark.parametrize("steps", range(12))
def test_a_caller_who_goes_at_any_moment_leaves_nothing_reserved(run, never, steps):
    async def work(ledger):
        budgets = Budgets(ledger, (ALL,))
        spending = CallBudget(Purpose("m"))

        async def call():
            async with reserving(budgets, spending) as account:
                sent = await account.mark_sent(100, 0)
                await account.settle_failure(sent, billed=False)

        task = asyncio.create_task(call())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await budgets.settle()
        assert set(await kept(ledger)) <= {("done", 0, 0, 0)}
        assert (spending.held, spending.spent) == (0, 0)
        assert not budgets.open_accounts

    run(work)


@pytest.mark.parametrize("after", [True, False], ids=["after it was made", "before"])
def test_a_lost_answer_of_a_reservation_books_nothing_as_unsure(run, clock, never, after):
    async def work(ledger):
        budgets, reserve = Budgets(ledger, (ALL,)), ledger.reserve

        async def lose(*arguments, **options):
            if after:
                await reserve(*arguments, **options)
            raise LedgerError("the answer is lost")

        ledger.reserve = lose
        with pytest.raises(LedgerError, match="lost"):
            async with reserving(budgets) as account:
                await account.mark_sent(100, 0)
        assert await kept(ledger) == ([("done", 0, 0, 0)] if after else [])
        clock.now += 61
        assert await ledger.expire() == 0

    run(work)


# ---------------------------------------------------------------- whole calls


async def transactions(ledger):
    return int(await ask_ledger_file(ledger, "SELECT value FROM meta WHERE name = 'changes'"))


@pytest.mark.parametrize("texts", [1, 5])
def test_a_call_that_is_answered_once_takes_two_transactions(tmp_path, never, texts):
    async def main():
        books = sqlite_books(tmp_path)
        async with PaidServer().running() as server, AsyncEmbedder(config=settings_of(server, books)) as embedder:
            await embedder.embed("to open the ledger", model=MODEL)
            ledger, budgets = ledger_of(embedder), budgets_of(embedder)
            await budgets.settle()  # calls do not wait for it
            before = await transactions(ledger)
            for number in range(4):
                await embedder.embed([f"text {number} {row}" for row in range(texts)], model=MODEL)
                await budgets.settle()
            taken = await transactions(ledger) - before
        return taken, server.bill, await books.spent(), await books.entries()

    taken, bill, spent, entries = asyncio.run(main())
    assert taken == 8
    assert spent == (bill * PRICE, 0)
    assert {(one.state, one.route) for one in entries} == {("done", "routes.r")}


def test_an_answer_does_not_wait_for_its_booking(tmp_path, monkeypatch):
    """Until it is booked, its money is under way, so that nothing else can spend it, also after a crash."""
    settle = SqliteLedger.settle

    async def main():
        books, go = sqlite_books(tmp_path), asyncio.Event()

        async def slow(self, *arguments, **options):
            await go.wait()
            return await settle(self, *arguments, **options)

        monkeypatch.setattr(SqliteLedger, "settle", slow)
        async with PaidServer().running() as server, AsyncEmbedder(config=settings_of(server, books)) as embedder:
            receipt = (await embedder.embed("a text", model=MODEL)).receipt
            (before,) = await kept(ledger_of(embedder))
            go.set()
            await budgets_of(embedder).settle()
            (after,) = await kept(ledger_of(embedder))
            return receipt.cost_nanousd, server.bill * PRICE, before, after

    cost, bill, before, after = asyncio.run(main())
    assert cost == bill
    assert before == ("open", 0, 2 * cost, 0)  # estimated tokens are sent twice
    assert after == ("done", 0, 0, cost)


def test_what_a_service_receives_is_marked_as_under_way(tmp_path):
    """Whatever happens then, it is booked."""
    books, found = sqlite_books(tmp_path), []

    class Looking(PaidServer):
        async def handle(self, request):
            found.append([(one.sent, one.reserved) for one in await books.entries() if one.state == "open"])
            return await super().handle(request)

    async def main():
        async with Looking().running() as server, AsyncEmbedder(config=settings_of(server, books)) as embedder:
            return [(await embedder.embed(f"text {number}", model=MODEL)).receipt for number in range(3)]

    receipts = asyncio.run(main())
    # Estimated tokens are sent twice.
    assert [sent for ((sent, _),) in found] == [2 * receipt.cost_nanousd for receipt in receipts]


def test_refused_calls_do_not_keep_other_callers_from_one_request(tmp_path):
    """A budget that is used up costs the other callers of a batch at most one request for each of them."""

    async def main():
        books = sqlite_books(tmp_path)
        poor = {"budgets.poor": {"usd": 0, "api_key": "poor"}, "upstream.concurrency": 1}
        async with PaidServer().running() as server:
            async with AsyncEmbedder(config=settings_of(server, books, **poor)) as embedder:
                refused = requests = 0
                for wave in range(4):
                    before = len(server.bodies)
                    names = ["poor", *["rich"] * 6, "poor"]
                    calls = [
                        embedder.embed(f"wave {wave} text {n}", model=MODEL, api_key_name=name)
                        for n, name in enumerate(names)
                    ]
                    ended = await asyncio.gather(*calls, return_exceptions=True)
                    refused += sum(isinstance(one, BudgetExceededError) for one in ended)
                    assert sum(isinstance(one, EmbedwayError) for one in ended) == 2
                    requests = len(server.bodies) - before
                await budgets_of(embedder).settle()  # calls do not wait for it
                assert not budgets_of(embedder).open_accounts
            return refused, requests, server.bill, await books.spent()

    refused, requests, bill, spent = asyncio.run(main())
    assert refused == 8
    assert requests <= 3  # the first caller alone, then the others together
    assert spent == (bill * PRICE, 0)


@pytest.mark.parametrize("seed", range(6))
def test_money_stays_right_whenever_callers_go(seed, tmp_path):
    """Spent and held money never exceeds the limit, and the sums are right to the nano-dollar."""
    chance, limit = random.Random(seed), 400_000
    books = sqlite_books(tmp_path)

    async def call(embedder, number):
        texts = [f"call {number} text {row} " + "w" * chance.randint(1, 20) for row in range(chance.randint(1, 3))]
        task = asyncio.create_task(embedder.embed(texts, model=MODEL, partial=bool(number % 2)))
        if chance.random() < 0.5:
            for _ in range(chance.randrange(80)):
                await asyncio.sleep(0)
            task.cancel()
        with contextlib.suppress(EmbedwayError, asyncio.CancelledError):
            return (await task).receipt
        return None

    async def main():
        samples = []
        async with PaidServer().running() as server:
            made = settings_of(server, books, **{"budgets.b": {"usd": f"{limit / 1e9:.9f}"}})
            async with AsyncEmbedder(config=made) as embedder:
                # The embedder then has the file open, so that no sample closes its last connection.
                receipts = [(await embedder.embed("the first text", model=MODEL)).receipt]
                for _ in range(8):
                    wave = asyncio.gather(*(call(embedder, number) for number in range(8)))
                    while not wave.done():
                        samples.append(sum(await books.spent()))
                    receipts += await wave
            return server, receipts, samples

    server, receipts, samples = asyncio.run(asyncio.wait_for(main(), 60))
    spent, held = asyncio.run(books.spent())
    entries = asyncio.run(books.entries())
    assert held == 0
    assert max([*samples, spent]) <= limit
    assert spent == sum(one.spent for one in entries)
    assert {one.state for one in entries} == {"done"}
    # What was answered to callers who went is booked as unsure.
    assert sum(one.spent - one.unsure for one in entries) <= server.bill * PRICE <= spent
    paid = {one.id: one.spent for one in entries}
    for receipt in filter(None, receipts):
        assert receipt.cost_nanousd == sum(paid[entry] for entry in receipt.ledger_entries)
