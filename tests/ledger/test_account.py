"""Shares of an answer: implausible costs use up the limits and do not exceed them, also if the process ends."""

import pytest

from embedway.errors import LedgerError
from embedway.ledger.account import CallBudget, Share
from embedway.ledger.base import Limit, Purpose
from embedway.ledger.budgets import Budgets
from embedway.telemetry.hooks import BaseHook, Hooks

ALL, MODEL = Limit("all", 1000), Limit("of the model", 800, scope="model:m")


def by_token(tokens, _searches):
    return tokens


async def opened(ledger, limits, **budget):
    budgets = Budgets(ledger, limits)
    account = await budgets.open(CallBudget(Purpose("m"), **budget), by_token, tokens=100, texts=1)
    return account, await account.mark_sent(60, 0)


def share(cost, source="unsure"):
    return Share(cost, 0, cost, source, is_own=False)


async def held_and_spent(ledger, limits):
    return [(one.held, one.spent) for one in await ledger.standings(limits)]


@pytest.mark.parametrize(
    ("limits", "most"), [((ALL,), 1000), ((ALL, MODEL), 800), ((MODEL, ALL), 800), ((), 10**6)], ids=str
)
def test_an_implausible_cost_is_booked_up_to_the_lowest_limit(run, limits, most):
    async def work(ledger):
        account, sent = await opened(ledger, limits)
        await account.settle_answer(sent, share(10**6))
        await account.close()
        assert (account.totals.spent, account.totals.unsure) == (most, most)
        assert await held_and_spent(ledger, limits) == [(0, most)] * len(limits)
        (entry,) = await ledger.entries()
        assert (entry.spent, entry.unsure, entry.reserved, entry.sent) == (most, most, 0, 0)

    run(work)


def test_an_implausible_cost_leaves_what_other_calls_hold(run):
    async def work(ledger):
        first, sent = await opened(ledger, (ALL,))
        other, sent_by_other = await opened(ledger, (ALL,))
        await first.settle_answer(sent, share(10**6))
        await first.close()
        assert first.totals.spent == 900
        assert await held_and_spent(ledger, (ALL,)) == [(100, 900)]
        await other.settle_answer(sent_by_other, share(50, "reported"))
        await other.close()
        assert await held_and_spent(ledger, (ALL,)) == [(0, 950)]

    run(work)


def test_an_implausible_cost_is_booked_up_to_the_limit_of_the_call(run):
    async def work(ledger):
        account, sent = await opened(ledger, (), max_nanousd=300)
        await account.settle_answer(sent, share(10**6))
        await account.close()
        assert account.call_budget.left() == 0
        assert account.totals.spent == account.totals.unsure == 300

    run(work)


def test_a_reported_cost_may_exceed_what_is_reserved(run):
    async def work(ledger):
        account, sent = await opened(ledger, (ALL,))
        await account.settle_answer(sent, share(5000, "reported"))
        await account.close()
        assert await held_and_spent(ledger, (ALL,)) == [(0, 5000)]

    run(work)


def test_a_process_that_ends_before_it_books_an_implausible_cost_leaves_it_unsure(run, clock):
    class EndsError(Exception):
        """End of the process."""

    async def work(ledger):
        account, sent = await opened(ledger, (ALL,))

        async def die(*_):
            raise EndsError

        settle, ledger.settle = ledger.settle, die
        with pytest.raises(EndsError):
            await account.settle_answer(sent, share(10**6))
        ledger.settle = settle
        assert await held_and_spent(ledger, (ALL,)) == [(1000, 0)]
        clock.now += 61
        assert await ledger.expire() == 1
        assert await held_and_spent(ledger, (ALL,)) == [(0, 1000)]
        (entry,) = await ledger.entries()
        assert (entry.state, entry.unsure) == ("expired", 1000)

    run(work)


def test_an_implausible_cost_is_cut_to_its_reservation_if_the_ledger_fails(run):
    async def work(ledger):
        account, sent = await opened(ledger, (ALL,))

        async def fail(*_):
            raise LedgerError("the disk is full")

        send, ledger.send = ledger.send, fail
        await account.settle_answer(sent, share(10**6))
        ledger.send = send
        await account.close()
        assert await held_and_spent(ledger, (ALL,)) == [(0, 60)]

    run(work)


def test_an_account_that_is_held_open_is_closed_after_the_last_attempt(run):
    async def work(ledger):
        account, sent = await opened(ledger, (ALL,))
        with account.held_open():
            await account.settle_answer(sent, share(60, "reported"))
            await account.close()
            sent = await account.mark_sent(10, 0)
            assert await held_and_spent(ledger, (ALL,)) == [(40, 60)]
        await account.settle_answer(sent, share(10, "reported"))
        await account.budgets.settle()
        assert await held_and_spent(ledger, (ALL,)) == [(0, 70)]

    run(work)


def test_an_attempt_for_a_call_that_has_ended_is_no_failure_of_the_ledger(run):
    """A batch of several callers goes on without one that was cancelled."""

    class Listening(BaseHook):
        def event(self, operation):
            events.append(operation.details)

    events = []

    async def work(ledger):
        budgets = Budgets(ledger, (ALL,), hooks=Hooks([Listening()]))
        account = await budgets.open(CallBudget(Purpose("m")), by_token, tokens=100, texts=1)
        await account.close()
        with pytest.raises(LedgerError, match="the call of these texts has ended"):
            await account.mark_sent(10, 0)
        assert await held_and_spent(ledger, (ALL,)) == [(0, 0)]

    run(work)
    assert events == []
