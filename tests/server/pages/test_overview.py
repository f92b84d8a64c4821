"""Data of the page: sums of all workers, budgets, routes, the inference process, and names that contain HTML."""

import asyncio
import time
from types import SimpleNamespace

import aiohttp
import pytest

from embedway import Config
from embedway.models.base import ModelEnvironment
from embedway.quality.quarantine import RouteState
from embedway.server.route_health import merged_routes
from embedway.server.snapshots import merged, read_snapshots, snapshot_of, write_snapshot
from embedway.server.stats import PERIOD_S, Stats
from gateways import gateway_at

HOSTILE = "<img src=x onerror=alert(1)>"
PAID = {
    "models.m": {
        "name": "acme/m",
        "dimensions": 16,
        "max_tokens": 50,
        "price_usd_per_million_tokens": "1000",
    },
    "routes.r": {"model": "acme/m", "provider": "fake"},
    "server.models": ["acme/m"],
    "embedding.default_model": "acme/m",
}
BUDGETS = {
    "budgets.all": {"usd": "5", "period": "month"},
    "budgets.none": {"usd": "0", "model": "acme/m", "hard": False},
}
FAILING = [
    ("/v1/embeddings", {"model": "acme/m", "input": "one text"}),
    (
        "/v2/embed",
        {"model": "acme/m", "texts": ["one text"], "input_type": "search_query", "embedding_types": ["float"]},
    ),
    ("/api/embed", {"model": "acme/m", "input": "one text"}),
    ("/v1/embeddings", {"model": "acme/m", "input": "long " * 500, "on_overflow": "error"}),
    ("/v1/embeddings", {"model": "acme/m", "input": [[1, 2, 3]]}),
    ("/v1/embeddings", {"model": "acme/m", "input": 5}),
    ("/v1/embeddings", {"model": "unknown", "input": "secret text"}),
]


def overview(requests=(), **settings):
    """Send requests to a gateway with these settings; return the data of its page."""

    async def main():
        config = Config.load([], overrides={**PAID, **settings})
        async with gateway_at(config) as (url, _), aiohttp.ClientSession() as session:
            for body in requests:
                async with session.post(f"{url}/v1/embeddings", json=body) as answer:
                    await answer.read()
            async with session.get(f"{url}/overview.json") as answer:
                assert answer.status == 200
                return await answer.json()

    return asyncio.run(main())


def test_a_gateway_without_requests():
    data = overview()
    assert data["served"] == [{"model": "acme/m", "task": "embed", "kind": "service", "default": True}]
    assert (data["workers"], data["requests"], data["models"], data["remembered"]) == (1, 0, [], [])
    assert data["recent"] == {
        "seconds": 600, "requests": 0, "failed": 0, "texts": 0, "hits": 0, "p50_ms": None, "p99_ms": None
    }  # fmt: skip
    assert len(data["history"]) == 120
    assert data["inference"] is None
    assert data["started"] <= data["time"]


def test_counts_money_and_budgets():
    body = {"model": "acme/m", "input": ["one text", "another"]}
    data = overview([body, body, {"model": "unknown", "input": "secret text"}], **BUDGETS)
    (model,) = data["models"]
    assert (model["model"], model["requests"], model["texts"], model["hits"]) == ("acme/m", 2, 4, 2)
    assert float(model["cost_usd"]) > 0
    assert float(model["saved_usd"]) > 0
    assert (data["recent"]["requests"], data["recent"]["failed"], data["recent"]["hits"]) == (3, 1, 2)
    assert 0 < data["recent"]["p50_ms"] <= data["recent"]["p99_ms"]
    budgets = {one["name"]: one for one in data["budgets"]}
    assert budgets["all"]["spent_usd"] == model["cost_usd"]
    assert (budgets["none"]["limit_usd"], budgets["none"]["hard"]) == ("0.00", False)
    assert {one["spent_usd"] for one in data["spending"]} == {model["cost_usd"]}
    assert [(one["status"], one["path"]) for one in data["remembered"]] == [(404, "/v1/embeddings")]
    assert "text" not in str(data["remembered"]).replace("'texts'", "")


def test_a_request_that_failed_has_its_model_where_it_is_known():
    """Also one that the engine refuses, in each API; not one that was read before its model was known."""
    over_budget = {"budgets.all": {"usd": "0.000001", "period": "month"}}

    async def main():
        config = Config.load([], overrides={**PAID, **over_budget})
        async with gateway_at(config) as (url, gateway), aiohttp.ClientSession() as session:
            for path, body in FAILING:
                async with session.post(url + path, json=body) as answer:
                    await answer.read()
            async with session.get(f"{url}/overview.json") as answer:
                return await answer.json(), gateway.stats.models

    data, models = asyncio.run(main())
    rows = [(one["path"], one["model"], one["code"]) for one in reversed(data["remembered"])]
    assert rows == [
        ("/v1/embeddings", "acme/m", "insufficient_quota"),
        ("/v2/embed", "acme/m", "insufficient_quota"),
        ("/api/embed", "acme/m", "insufficient_quota"),
        ("/v1/embeddings", "acme/m", "context_length_exceeded"),
        ("/v1/embeddings", "acme/m", "invalid_input"),
        ("/v1/embeddings", "", "invalid_request_error"),
        ("/v1/embeddings", "", "model_not_found"),
    ]
    assert models == {}  # counts of models are those of answers


def test_without_a_ledger_spending_is_not_known():
    data = overview(**{"ledger.backend": "none"})
    assert (data["ledger"], data["budgets"], data["spending"]) == (False, [], [])


def test_names_are_data_as_they_are():
    renamed = {**PAID["models.m"], "name": HOSTILE}
    more = {"models.m": renamed, "routes.r": {"model": HOSTILE, "provider": "fake"}, "server.models": [HOSTILE]}
    data = overview([{"model": HOSTILE, "input": "a"}], **more, **{"embedding.default_model": HOSTILE})
    assert [one["model"] for one in data["models"]] == [HOSTILE]
    assert [one["model"] for one in data["served"]] == [HOSTILE]


def test_a_route_without_a_key_and_a_route_that_fails():
    dead = {"model": "acme/m", "provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1"}
    settings = {"routes.r": {**dead, "upstream_model": "x", "api_key": "k" * 20}, "upstream.max_attempts": 1}
    requests = [{"model": "acme/m", "input": f"text {number}"} for number in range(12)]
    data = overview(requests, **settings)
    assert [(one["route"], one["circuit"], one["blocked"]) for one in data["routes"]] == [("routes.r", "open", "")]
    assert data["recent"]["failed"] == 12
    keyless = {"model": "acme/m", "provider": "cohere", "upstream_model": "x"}
    data = overview([{"model": "acme/m", "input": "a"}], **{"routes.r": keyless})
    assert [one["blocked"] for one in data["routes"]] == ["no key"]


def test_a_route_in_quarantine():
    async def main():
        config = Config.load([], overrides=PAID)
        async with gateway_at(config) as (url, gateway), aiohttp.ClientSession() as session:
            engine = await gateway.engines.current()
            space = (await engine.models.open("acme/m")).baseline_space_id
            now = time.time()
            state = RouteState("acme/m", space, "routes.r", True, True, now, now, now, ("cosine 0.5",))
            await engine.records.put(state.to_record())
            await engine.environment.quarantines.read()
            async with session.get(f"{url}/overview.json") as answer:
                return (await answer.json())["routes"]

    (route,) = asyncio.run(main())
    assert "cosine 0.5" in route["quarantine"]


def gateway_of(clock, routes=()):
    """Return the parts of a gateway that a snapshot reads."""
    models = SimpleNamespace(open_embedding_models=lambda: list(routes))
    engine = SimpleNamespace(environment=ModelEnvironment(Config.load([])), models=models)
    queue = SimpleNamespace(state=lambda: SimpleNamespace(running=2, waiting=3))
    return SimpleNamespace(stats=Stats(metrics=False, clock=clock), queue=queue, engines=SimpleNamespace(engine=engine))


def exchange(model, texts=1):
    return SimpleNamespace(
        model=model, texts=texts, tokens=4, cache_hits=0, cost_nanousd=5, saved_nanousd=0, request_id="r",
        caller=SimpleNamespace(key_name="", tenant=""),
    )  # fmt: skip


def test_two_workers_are_added_up(tmp_path):
    now = time.time()
    for number, count in enumerate((3, 5)):
        gateway = gateway_of(lambda: now)
        for at in range(count):
            gateway.stats.end(None, exchange("m"), 500 if at == 0 else 200, 0.01 * (at + 1))
        write_snapshot(tmp_path, snapshot_of(gateway, number))
    data = merged(read_snapshots(tmp_path), now=now)
    assert (data["workers"], data["requests"], data["failed"]) == (2, 8, 2)
    assert (data["running"], data["waiting"]) == (4, 6)
    assert data["models"][0]["requests"] == 8
    assert data["recent"]["requests"] == 8
    (busy,) = (one for one in data["history"] if one["requests"])
    assert busy["start"] == int(now) // PERIOD_S * PERIOD_S
    assert (busy["p50_ms"], busy["p99_ms"]) == (data["recent"]["p50_ms"], data["recent"]["p99_ms"])


def test_snapshots_of_ended_workers_and_damaged_ones_do_not_count(tmp_path):
    old = {**snapshot_of(gateway_of(time.time), 0), "written": time.time() - 60}
    write_snapshot(tmp_path, old)
    (tmp_path / "stats-1.json").write_bytes(b'{"worker"')
    data = merged(read_snapshots(tmp_path), now=time.time())
    assert (data["workers"], data["started"], data["routes"]) == (0, None, [])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_route_has_the_worst_state_of_all_workers(order):
    good = {"model": "m", "route": "r", "circuit": "closed", "quarantine": "", "blocked": ""}
    bad = {"model": "m", "route": "r", "circuit": "open", "quarantine": "it differs", "blocked": "no key"}
    both = [good, bad]
    assert merged_routes([both[at] for at in order]) == [bad]
