"""Events of cost: their sum is what the ledger has as spent, whatever happens to the calls."""

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections import Counter

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config
from embedway.errors import (
    EmbedwayError,
    LedgerError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.ledger.sqlite import SqliteLedger
from embedway.money import usd
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import BudgetStandingDetails, CostDetails, StoreErrorDetails
from inside import budgets_of, routes_of, set_failures, set_faults

NAME = "acme/m"
WAVES, CALLS = 12, 5


class Listening(BaseHook):
    """Hook for events only."""

    def __init__(self):
        self.events = []

    def event(self, operation):
        self.events.append(operation.details)

    def of(self, details):
        return [one for one in self.events if isinstance(one, details)]

    @property
    def cost(self):
        return sum(one.nanousd for one in self.of(CostDetails))


def settings(tmp_path, **overrides):
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": NAME, "dimensions": 16, "max_tokens": 50, "price_usd_per_million_tokens": "1"},
            "routes.r": {"model": NAME, "provider": "fake", "options": {"max_inputs": "8"}},
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.001,
            "ledger.path": str(tmp_path / "ledger.db"),
            **overrides,
        },
    )


async def standing(config):
    """Return what a ledger has as spent and as held."""
    ledger = SqliteLedger(config.ledger.path)
    total = (await ledger.totals())[0]
    await ledger.aclose()
    return total.spent, total.held


class Faults:
    """Faults of three in ten requests."""

    def __init__(self, chance):
        self.chance = chance
        self.counts = Counter()

    def __call__(self, _number, _texts):
        if self.chance.random() > 0.3:
            return None
        kind = self.chance.choice(["unbilled", "billed", "limited", "refused", "nan", "usage"])
        self.counts[kind] += 1
        where = {"route": "routes.r"}
        return {
            "unbilled": UnavailableError("it failed", status=503, **where),
            "billed": UpstreamError("it failed", status=500, billed=True, **where),
            "limited": RateLimitedError("too many", retry_after_s=0.001, **where),
            "refused": RefusedInputError("no", **where),
            "nan": lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32("nan")),
            "usage": lambda answer: dataclasses.replace(answer, tokens=answer.tokens * 50),
        }[kind]


async def call(embedder, number, chance):
    """Call, with some texts that others embed too, and cancel some of the calls. Return the receipt if there is one."""
    texts = [f"text {chance.randrange(1000)} of some words" for _ in range(chance.randint(1, 12))]
    task = asyncio.create_task(embedder.embed(texts, model=NAME, partial=bool(number % 2)))
    if number % 3 == 0:
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        task.cancel()
    with contextlib.suppress(EmbedwayError, asyncio.CancelledError):
        return (await task).receipt
    return None


@pytest.mark.parametrize("limit", [None, 5_000_000])
@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_sum_of_the_costs_is_what_the_ledger_has_as_spent(seed, across, limit, tmp_path):
    """Of failed and cancelled calls too, of retries, and of usage that cannot be right."""
    hook, chance = Listening(), random.Random(seed)
    budgets = {} if limit is None else {"budgets.b": {"usd": usd(limit)}}
    config = settings(tmp_path, **{"batching.across_callers": across, "cache.backend": "memory", **budgets})
    faults = Faults(chance)

    async def main():
        async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
            await embedder.models.describe(NAME)
            (route,) = routes_of(embedder, NAME)
            set_failures(route.circuit, 1_000_000)
            set_faults(route.provider, faults)
            waves = [
                await asyncio.gather(*(call(embedder, number, chance) for number in range(CALLS))) for _ in range(WAVES)
            ]
            return [receipt for wave in waves for receipt in wave]

    receipts = asyncio.run(asyncio.wait_for(main(), 60))
    spent, held = asyncio.run(standing(config))
    assert (hook.cost, held) == (spent, 0)
    assert {one.model for one in hook.of(CostDetails)} == {NAME}
    # The receipts alone may have less: the rest is of calls that failed or were cancelled.
    assert sum(receipt.cost_nanousd for receipt in receipts if receipt is not None) <= spent
    assert {one.source for one in hook.of(CostDetails)} == {"reported", "unsure"}
    if limit is not None:
        assert spent <= limit
        last = hook.of(BudgetStandingDetails)[-1]
        assert last == BudgetStandingDetails("b", spent, 0, limit, "total")
    assert faults.counts


def test_costs_without_a_ledger_are_reported_too(tmp_path):
    hook = Listening()

    async def main():
        config = settings(tmp_path, **{"ledger.backend": "none", "cache.backend": "none"})
        async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
            return (await embedder.embed(["one two three"], model=NAME)).receipt

    receipt = asyncio.run(main())
    assert hook.of(CostDetails) == [CostDetails(NAME, receipt.cost_nanousd, "reported")]
    assert not hook.of(BudgetStandingDetails)


def test_budgets_are_read_once_for_many_calls_and_only_those_that_changed(tmp_path, monkeypatch):
    hook, reads = Listening(), []
    standings = SqliteLedger.standings

    def counted(self, *arguments):
        reads.append(arguments)
        return standings(self, *arguments)

    monkeypatch.setattr(SqliteLedger, "standings", counted)
    config = settings(
        tmp_path,
        **{
            "cache.backend": "none",
            "budgets.all": {"usd": "1"},
            "budgets.day": {"usd": "2", "period": "day"},
            "budgets.docs": {"usd": "1", "collection": "docs"},
        },
    )

    async def main():
        async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
            # The timer of the first call cannot end before the last one.
            asyncio.get_running_loop().slow_callback_duration = 60
            for number in range(5):
                await embedder.embed([f"text {number}"], model=NAME)

    asyncio.run(main())
    found = {one.budget: one for one in hook.of(BudgetStandingDetails)}
    assert set(found) == {"all", "day"}
    assert {one.spent_nanousd for one in found.values()} == {hook.cost}
    assert (found["day"].limit_nanousd, found["all"].period) == (2_000_000_000, "total")
    assert len(reads) == len(hook.of(BudgetStandingDetails)) / 2


def test_a_ledger_that_fails_is_reported_and_logged_once(tmp_path, monkeypatch, caplog):
    hook, is_broken = Listening(), [True]
    settle = SqliteLedger.settle

    async def failing(self, *arguments, **options):
        if is_broken[0]:
            raise LedgerError("the disk is full")
        return await settle(self, *arguments, **options)

    monkeypatch.setattr(SqliteLedger, "settle", failing)
    config = settings(tmp_path, **{"cache.backend": "none", "budgets.b": {"usd": "1"}})

    async def main():
        async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
            receipts = [(await embedder.embed([f"text {number}"], model=NAME)).receipt for number in range(5)]
            await budgets_of(embedder).settle()  # calls do not wait for it
            is_broken[0] = False
            return [*receipts, (await embedder.embed(["more"], model=NAME)).receipt]

    with caplog.at_level(logging.WARNING, "embedway.budget"):
        receipts = asyncio.run(main())
    assert hook.of(StoreErrorDetails) == [StoreErrorDetails("ledger", "settle", "LedgerError")] * 5
    # Money that is spent is counted, though the ledger has it only when the leases expire.
    assert hook.cost == sum(receipt.cost_nanousd for receipt in receipts)
    lines = [one.getMessage() for one in caplog.records if "booked" in one.getMessage()]
    assert len(lines) == 2
    assert "the disk is full" in lines[0]
    assert lines[1] == "costs are booked again; those of 5 requests could not be booked"


def test_a_ledger_whose_budgets_cannot_be_read_fails_no_call(tmp_path, monkeypatch):
    hook = Listening()

    async def failing(_self, *_arguments):
        raise LedgerError("the disk is full")

    monkeypatch.setattr(SqliteLedger, "standings", failing)

    async def main():
        config = settings(tmp_path, **{"cache.backend": "none", "budgets.b": {"usd": "1"}})
        async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
            await embedder.embed(["text"], model=NAME)

    asyncio.run(main())
    assert hook.of(StoreErrorDetails) == [StoreErrorDetails("ledger", "standings", "LedgerError")]
