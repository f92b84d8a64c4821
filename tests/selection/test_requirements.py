"""Prices, limits and reasons are the same under any decimal and numpy settings of the caller."""

import asyncio
import decimal

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config, ModelSelectionCriteria
from embedway.errors import ConfigError, NoModelError

PRICE = "0.123456"
BENCHMARK = {
    "model_name": "acme/m",
    "provider": "fake",
    "quality_score": 64.6,
    "avg_latency_ms": 3,
    "tokens_per_second": 100,
    "cost_per_million_tokens": PRICE,
    "embedding_dimensions": 16,
    "max_context_length": 8000,
}
HOSTILE = [
    decimal.Context(prec=1, rounding=decimal.ROUND_UP, Emin=0, Emax=1),
    decimal.Context(prec=2, traps=[decimal.Inexact, decimal.Rounded, decimal.Subnormal, decimal.FloatOperation]),
    decimal.Context(prec=3, traps=[]),
]
CRITERIA = [{"max_cost_per_million": usd} for usd in (PRICE, "0.1234559", "0.12", "0.123456001")] + [
    {"max_total_cost": "0.00000001"},
    {},
]


def load(price=PRICE):
    overrides = {
        "weights.offline": True,
        "cache.backend": "none",
        "ledger.backend": "none",
        "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 8000, "price_usd_per_million_tokens": price},
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "embedding.model_benchmarks": {"acme/m": BENCHMARK},
    }
    return Config.load(environ={}, overrides=overrides)


async def outcomes():
    found = []
    async with AsyncEmbedder(config=load()) as embedder:
        result = await embedder.embed(["hello world " * 50], model="acme/m")
        plan = await embedder.plan(["hello world " * 999], model="acme/m")
        found += [result.receipt.cost_nanousd, result.receipt.cost_usd, plan.cost_nanousd, plan.cost_usd]
        for criteria in CRITERIA:
            try:
                selection = await embedder.select(["hello"], ModelSelectionCriteria(**criteria))
                found.append(selection.model)
            except NoModelError as error:
                found.append(str(error))
    try:
        load("99999")
    except ConfigError as error:
        found.append(str(error))
    return found


@pytest.mark.parametrize("context", HOSTILE, ids=str)
def test_money_is_the_same_in_any_decimal_context(context):
    expected = asyncio.run(outcomes())
    assert "times off" in expected[-1]
    with decimal.localcontext(context), np.errstate(all="raise"):
        assert asyncio.run(outcomes()) == expected
