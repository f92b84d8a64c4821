"""Alerts on routes: to the log, the metrics and a webhook, once for each episode, without texts and secrets."""

import asyncio
import contextlib
import logging
import threading
from dataclasses import replace

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from api_servers import KEY, CompatibleServer
from embedway import AsyncEmbedder, BaseHook, Config, ErrorRateDetails, UnavailableError
from embedway.telemetry import HookSettings, open_hooks
from embedway.telemetry.alert_hooks import QUIET_S, REPEAT_S, AlertHook
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import (
    BudgetWarningDetails,
    CircuitDetails,
    DriftDetails,
    StoreErrorDetails,
    VectorCheckDetails,
)
from serving import serving_app

RAISED = ErrorRateDetails("routes.r", "raised", 3, 12, 0.25, 300.0, (("UnavailableError 503", 3),))
CLEARED = ErrorRateDetails("routes.r", "cleared", 1, 40, 0.025, 300.0, (("UnavailableError 503", 1),))
WARNING = BudgetWarningDetails("b", 50, 5, 10, "*", "total", hard=True)


@pytest.fixture
def logged(caplog):
    """Return a function that returns the alerts in the log so far."""
    caplog.set_level(logging.INFO, "embedway.alerts")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "embedway.alerts"]


@contextlib.asynccontextmanager
async def receiving(status=200):
    """Run a receiver of webhooks, and yield its URL and the documents."""
    documents = []

    async def receive(request):
        documents.append(await request.json())
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/secret-token", receive)
    async with serving_app(app) as port:
        yield f"http://127.0.0.1:{port}/secret-token", documents


def tell(hooks, *all_details):
    for details in all_details:
        hooks.event(lambda details=details: details)


def circuit(*states):
    """Return the changes of a circuit that is closed at first."""
    befores = ("closed", *states[:-1])
    return [CircuitDetails("routes.r", before, after) for before, after in zip(befores, states, strict=True)]


def test_an_error_rate_is_logged_with_its_counts(logged):
    tell(open_hooks((), HookSettings(alerts=True)), RAISED, CLEARED)
    remedy = RATE_DOCUMENT["remedy"]
    assert logged() == [
        f"route routes.r: 3 of 12 requests failed in the last 300 s (UnavailableError 503: 3). {remedy}",
        "route routes.r works again: 1 of 40 requests failed in the last 300 s",
    ]


def test_a_circuit_is_one_alert_until_it_closes():
    async def main():
        async with receiving() as (url, documents):
            hooks, probes = open_hooks((), HookSettings(alerts=True, alert_webhook=url)), ["half-open", "open"] * 5
            tell(hooks, *circuit("open", *probes, "half-open", "closed", "open"))
            await hooks.flush()
            return documents

    assert [one["level"] for one in asyncio.run(main())] == ["raised", "cleared", "raised"]


def test_a_circuit_is_not_logged_twice(logged):
    """Circuits are logged without alerts too, by `embedway.dispatch`."""
    tell(open_hooks((), HookSettings(alerts=True)), *circuit("open", "half-open", "closed"))
    assert logged() == []


def test_alerts_are_counted(logged):
    def counted(kind):
        return REGISTRY.get_sample_value("embedway_route_alerts_total", {"kind": kind, "route": "routes.r"}) or 0

    before = counted("error_rate"), counted("circuit")
    tell(open_hooks((), HookSettings(alerts=True)), RAISED, CLEARED, *circuit("open", "half-open", "closed"))
    assert (counted("error_rate"), counted("circuit")) == (before[0] + 1, before[1] + 1)
    before = counted("vectors"), counted("drift")
    tell(open_hooks((), HookSettings(alerts=True)), VECTORS, VECTORS, DRIFT, replace(DRIFT, level="cleared"))
    assert (counted("vectors"), counted("drift")) == (before[0] + 1, before[1] + 1)


def test_without_alerts_nothing_is_sent(logged):
    tell(open_hooks((), HookSettings(alert_webhook="http://127.0.0.1:1/secret")), RAISED, *circuit("open"))
    assert logged() == []


RATE_DOCUMENT = {
    "kind": "error_rate",
    "level": "raised",
    "route": "routes.r",
    "failed": 3,
    "requests": 12,
    "rate": 0.25,
    "window_s": 300.0,
    "errors": {"UnavailableError 503": 3},
    "remedy": "Check the key, the quota and the status of the service, or add another route to its model.",
}
CIRCUIT_DOCUMENT = {
    "kind": "circuit",
    "level": "raised",
    "route": "routes.r",
    "remedy": "Check that the service of the route can be reached, or add another route to its model.",
}
BUDGET_DOCUMENT = {
    "budget": "b",
    "level": 50,
    "spent_usd": "0.000000005",
    "limit_usd": "0.00000001",
    "scope": "*",
    "period": "total",
    "hard": True,
    "remedy": "Raise the limit with `embedway budget set`, or use a cheaper model.",
}
VECTORS = VectorCheckDetails("acme/m", "routes.r", "same_vector", "refused", 32)
DRIFT = DriftDetails("acme/m", "acme-m-1", "routes.r", "raised", True, 0.91, 0.9, ("cosine", "accuracy"))
STORE = StoreErrorDetails("ledger", "reserve", "LedgerError")
VECTORS_DOCUMENT = {
    "kind": "vectors",
    "level": "raised",
    "route": "routes.r",
    "model": "acme/m",
    "check": "same_vector",
    "texts": 32,
    "refusals": 1,
    "remedy": "Check which model the route serves, and remove the route from the settings while it is wrong.",
}
DRIFT_DOCUMENT = {
    "kind": "drift",
    "level": "raised",
    "route": "routes.r",
    "model": "acme/m",
    "space_id": "acme-m-1",
    "quarantined": True,
    "cosine": 0.91,
    "accuracy_ratio": 0.9,
    "reasons": ["cosine", "accuracy"],
    "remedy": "Check which model and version the route serves; `embedway quality check --model acme/m` compares it "
    "again. Only if the change is intended, `embedway quality baseline --model acme/m --replace` records a new "
    "baseline.",
}
STORE_DOCUMENT = {
    "kind": "store",
    "level": "raised",
    "store": "ledger",
    "action": "reserve",
    "error": "LedgerError",
    "failures": 1,
    "remedy": "Check that the server or disk of the ledger works; until then calls under hard limits are refused.",
}


@pytest.mark.parametrize("own", [True, False])
def test_one_webhook_receives_alerts_and_warnings_of_budgets(own):
    """With `ledger.webhook`, warnings of budgets go only there, in their own form."""

    async def main():
        async with receiving() as (url, documents), receiving() as (ledgers, warnings):
            hooks = open_hooks((), HookSettings(ledgers if own else None, alerts=True, alert_webhook=url))
            tell(hooks, RAISED, WARNING, *circuit("open"))
            await hooks.flush()
            return documents, warnings

    documents, warnings = asyncio.run(main())
    budget = {"kind": "budget", **BUDGET_DOCUMENT}
    wanted = [RATE_DOCUMENT, *([] if own else [budget]), CIRCUIT_DOCUMENT]
    assert documents == wanted
    assert warnings == ([BUDGET_DOCUMENT] if own else [])


def test_refused_vectors_drift_and_failing_stores_are_alerts(logged):
    async def main():
        async with receiving() as (url, documents):
            hooks = open_hooks((), HookSettings(alerts=True, alert_webhook=url))
            tell(hooks, VECTORS, replace(VECTORS, level="warned"), DRIFT, replace(DRIFT, level="passed"), STORE)
            tell(hooks, replace(DRIFT, level="cleared", quarantined=False, cosine=float("nan"), reasons=()))
            await hooks.flush()
            return documents

    documents = asyncio.run(main())
    cleared = {
        **DRIFT_DOCUMENT,
        "level": "cleared",
        "quarantined": False,
        "cosine": None,
        "reasons": [],
        "remedy": "Nothing needs to be done.",
    }
    wanted = [VECTORS_DOCUMENT, DRIFT_DOCUMENT, STORE_DOCUMENT, cleared]
    assert documents == wanted  # in order
    assert logged() == [
        "route routes.r: the check same_vector refused vectors (32 texts in the last of 1 refusals). "
        + VECTORS_DOCUMENT["remedy"],
        "route routes.r: its vectors differ from the baseline of space acme-m-1 (cosine, accuracy), and the route is "
        "not used any more. " + DRIFT_DOCUMENT["remedy"],
        "route routes.r: its vectors agree with the baseline of space acme-m-1 again",
    ]


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("details", [VECTORS, STORE], ids=["vectors", "store"])
def test_an_event_that_goes_on_is_an_alert_each_hour_with_its_count(details):
    async def main():
        clock = Time()
        async with receiving() as (url, documents):
            hooks = Hooks([AlertHook(url, clock=clock)])
            while clock.now < 2.5 * REPEAT_S:
                tell(hooks, details)
                clock.now += 60
            clock.now += QUIET_S
            tell(hooks, details, details)
            await hooks.flush()
            return documents

    counts = [one.get("refusals", one.get("failures")) for one in asyncio.run(main())]
    # At once; then each hour; then the rest with the first event after a quiet time.
    assert counts == [1, 60, 60, 29 + 1]


def test_routes_and_checks_have_alerts_of_their_own(logged):
    hooks = open_hooks((), HookSettings(alerts=True))
    for details in (VECTORS, replace(VECTORS, route="routes.s"), replace(VECTORS, check="zero")):
        tell(hooks, details, details)
    assert len(logged()) == 3


def test_events_of_threads_reach_the_webhook():
    """Before the first document of the event loop, and after it."""

    async def main():
        async with receiving() as (url, documents):
            hooks = open_hooks((), HookSettings(alerts=True, alert_webhook=url))
            for details in (STORE, VECTORS, replace(STORE, store="cache")):
                if details is VECTORS:
                    tell(hooks, details)
                    continue
                thread = threading.Thread(target=tell, args=[hooks, details])
                thread.start()
                thread.join()
            await asyncio.sleep(0)  # the loop starts what the thread handed over
            await hooks.flush()
            alone = open_hooks((), HookSettings(alerts=True, alert_webhook=url))
            await asyncio.to_thread(tell, alone, DRIFT)
            await alone.flush()
            return documents

    documents = asyncio.run(main())
    assert sorted(one["kind"] for one in documents) == ["drift", "store", "store", "vectors"]


@contextlib.asynccontextmanager
async def hanging():
    """Run a receiver that reads documents and never answers."""
    release = asyncio.Event()

    async def receive(request):
        await request.read()
        await release.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/secret-token", receive)
    async with serving_app(app) as port:
        yield f"http://127.0.0.1:{port}/secret-token"
        release.set()


def test_a_webhook_that_hangs_delays_the_end_briefly(logged, monkeypatch):
    monkeypatch.setattr("embedway.telemetry.webhook._FLUSH_S", 0.05)

    async def main():
        async with hanging() as url:
            hooks = open_hooks((), HookSettings(alerts=True, alert_webhook=url))
            tell(hooks, VECTORS, DRIFT)
            await hooks.flush()

    asyncio.run(main())
    assert logged()[2] == "alerts.webhook: it is too slow: an alert was not sent before the end (2 times)"
    assert "secret-token" not in str(logged())


def test_a_webhook_that_refuses_is_logged_without_its_url(logged):
    async def main():
        async with receiving() as (url, _):
            pass  # its port is closed now
        hooks = open_hooks((), HookSettings(alerts=True, alert_webhook=url))
        tell(hooks, VECTORS)
        await hooks.flush()

    asyncio.run(main())
    assert logged()[1] == "alerts.webhook: it refuses the connection; an alert could not be sent"
    assert "secret-token" not in str(logged())


@pytest.mark.parametrize("status", [302, 500])
def test_a_webhook_that_fails_is_logged_without_its_url(status, logged):
    async def main():
        async with receiving(status) as (url, documents):
            hooks = open_hooks((), HookSettings(alerts=True, alert_webhook=url))
            tell(hooks, RAISED)
            await hooks.flush()
            assert len(documents) == 1

    asyncio.run(main())
    assert logged()[1] == f"alerts.webhook: it answered an alert with HTTP {status}"
    assert "secret-token" not in str(logged())


class Listener(BaseHook):
    def __init__(self):
        self.rates = []

    def event(self, operation):
        if isinstance(operation.details, ErrorRateDetails):
            self.rates.append(operation.details)


def load(server, **overrides):
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 50},
            "routes.r": {
                "model": "acme/m",
                "provider": "openai-compatible",
                "base_url": server.url + "/v1",
                "upstream_model": "text-embedding-3-small",
                "api_key": KEY,
            },
            "cache.backend": "none",
            "ledger.backend": "none",
            "upstream.max_attempts": 1,
            **overrides,
        },
    )


@pytest.mark.parametrize("enabled", [True, False])
def test_a_service_that_fails_raises_an_alert_and_clears_it(enabled, logged):
    """From a real server over the settings to a real receiver."""

    async def main():
        server, listener = CompatibleServer(), Listener()
        async with receiving() as (url, documents), server.running():
            settings = {"alerts.webhook": url, "alerts.min_requests": 5, "alerts.error_rate": 0.5}
            config = load(server, **settings, **{"alerts.enabled": enabled})
            async with AsyncEmbedder(config=config, hooks=[listener]) as embedder:
                server.misdeeds = ["500"] * 5
                for number in range(20):
                    with contextlib.suppress(UnavailableError):
                        await embedder.embed([f"secret text {number}"], model="acme/m")
                assert len(server.bodies) == 20
        return documents, listener.rates

    documents, rates = asyncio.run(main())
    if not enabled:
        assert (documents, rates, logged()) == ([], [], [])
        return
    raised = ErrorRateDetails("routes.r", "raised", 5, 5, 1.0, 300.0, (("UnavailableError 500", 5),))
    assert rates == [raised, ErrorRateDetails("routes.r", "cleared", 5, 20, 0.25, 300.0, raised.errors)]
    assert [(one["level"], one["failed"], one["requests"]) for one in documents] == [
        ("raised", 5, 5),
        ("cleared", 5, 20),
    ]
    assert len(logged()) == 2
    assert "secret" not in f"{documents} {rates} {logged()}"
    assert KEY not in f"{documents} {rates} {logged()}"
