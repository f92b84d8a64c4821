"""The Prometheus hook: values, bounded labels, forks, threads and cancellation, and prometheus-client's modes."""

import asyncio
import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
import threading

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, Histogram
from prometheus_client.parser import text_string_to_metric_families

from embedway import AsyncEmbedder, Config
from embedway.errors import CacheError, EmbedwayError
from embedway.telemetry import names
from embedway.telemetry import operations as ops
from embedway.telemetry.exposition import own_exposition
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.labels import MOST_NAMES, Labels, outcome_label
from embedway.telemetry.metrics import Metrics, observed
from embedway.telemetry.prometheus import PrometheusHook, exposition
from embedway.telemetry.route_facts import RouteFacts
from serving import serving_app

MODEL = "acme/m"


class Metered:
    """Hooks with metrics of their own, and the values of these metrics."""

    def __init__(self, labels=None):
        self.metrics = Metrics()
        labels = (
            Labels(lambda: {"acme/m": MODEL, "m": MODEL}, {"routes.r": RouteFacts("openai")})
            if labels is None
            else labels
        )
        self.hooks = Hooks([PrometheusHook(labels, lambda: self.metrics)])

    def samples(self):
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.metrics.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def value(self, name, **labels):
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def run(self, details, **outcome):
        with self.hooks.operation(lambda: details) as filled:
            for name, value in outcome.items():
                setattr(filled, name, value)

    def fail(self, details, error):
        with contextlib.suppress(type(error)), self.hooks.operation(lambda: details):
            raise error


def request(texts=5, model="m", task="embed"):
    return ops.RequestDetails(task, model, texts, "document", "secret collection")


def test_the_metrics_of_the_specification():
    metered = Metered()
    metered.run(request(), model=MODEL, routes=("routes.r",), failures=1, unique_texts=4)
    metered.run(ops.BatchDetails(MODEL, "routes.r", 7, 30))
    metered.hooks.event(ops.CostDetails, MODEL, 20_000_000, "reported")
    metered.run(ops.CacheDetails("lookup", MODEL, 5), cache_hits=2)
    metered.run(ops.CacheDetails("store", MODEL, 3))
    found = metered.samples()
    assert metered.value("embedding_generation_latency_seconds_count", model=MODEL, provider="openai") == 1
    assert metered.value("embedding_batch_size_bucket", model=MODEL, le="10.0") == 1
    assert metered.value("embedding_batch_size_sum", model=MODEL) == 7
    assert metered.value("embedding_model_usage_total", model=MODEL, provider="openai") == 4
    assert metered.value("embedding_cost_dollars_total", model=MODEL) == pytest.approx(0.02)
    for operation, status, count in [("lookup", "hit", 2), ("lookup", "miss", 3), ("store", "ok", 3)]:
        assert metered.value("embedding_cache_operations_total", operation=operation, status=status) == count
    buckets = {
        dict(labels).get("le") for name, labels in found if name == "embedding_generation_latency_seconds_bucket"
    }
    assert buckets == {"0.1", "0.5", "1.0", "2.0", "5.0", "10.0", "+Inf"}
    buckets = {dict(labels).get("le") for name, labels in found if name == "embedding_batch_size_bucket"}
    assert buckets == {"1.0", "10.0", "50.0", "100.0", "500.0", "1000.0", "+Inf"}


def test_texts_are_counted_by_source():
    metered = Metered()
    metered.run(request(9), model=MODEL, cache_hits=2, shared=1, failures=1, unique_texts=8, truncations=3, tokens=70)
    values = {
        source: metered.value("embedway_texts_total", model=MODEL, source=source)
        for source in ("cache", "shared", "failed", "computed")
    }
    assert values == {"cache": 2, "shared": 1, "failed": 1, "computed": 4}
    assert metered.value("embedway_truncated_texts_total", model=MODEL) == 3
    assert metered.value("embedway_tokens_total", model=MODEL, kind="text") == 70


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (None, "ok"),
        ("CancelledError", "cancelled"),
        ("DeadlineError", "DeadlineError"),
        ("RateLimitedError", "RateLimitedError"),
        ("Secret", "other"),
        ("ConfigErrör", "other"),
    ],
)
def test_outcomes_are_classes_of_the_tree(error, label):
    assert outcome_label(error) == label


def test_a_caller_that_left_is_no_failure_of_the_cache():
    metered = Metered()
    for action in ("lookup", "store"):
        metered.fail(ops.CacheDetails(action, MODEL, 3), asyncio.CancelledError())
        metered.fail(ops.CacheDetails(action, MODEL, 2), CacheError("no"))
        for status, count in (("cancelled", 3), ("error", 2)):
            assert metered.value("embedding_cache_operations_total", operation=action, status=status) == count


@pytest.mark.parametrize(
    ("facts", "provider"),
    [
        ({"shared": 2}, "shared"),
        ({"shared": 1, "cache_hits": 1}, "cache"),
        ({"shared": 1, "routes": ("routes.r",)}, "openai"),
        ({}, "none"),
    ],
)
def test_the_provider_of_texts_that_another_call_computed(facts, provider):
    metered = Metered()
    metered.run(request(2), model=MODEL, unique_texts=2, **facts)
    assert metered.value("embedding_model_usage_total", model=MODEL, provider=provider) == 2


def test_counters_begin_at_0_when_a_model_is_opened_and_a_route_is_used():
    metered = Metered()
    metered.run(ops.LoadDetails("m"), model=MODEL)
    assert metered.value("embedding_cost_dollars_total", model=MODEL) == 0
    assert metered.value("embedway_saved_dollars_total", model=MODEL) == 0
    metered.run(ops.AttemptDetails(MODEL, "routes.r", 1, 2, 6))
    found = {
        dict(labels)["outcome"]: value
        for (name, labels), value in metered.samples().items()
        if name == "embedway_attempts_total"
    }
    assert found.pop("ok") == 1
    assert found["AuthenticationError"] == 0
    assert set(found.values()) == {0}
    assert {outcome_label(name) for name in found} == set(found) - {"cancelled"} | {"other"}
    assert metered.value("embedway_retries_total", route="routes.r") == 0
    metered.hooks.event(ops.BudgetStandingDetails, "b", 1, 0, 10, "2026-11")
    assert metered.value("embedway_budget_refusals_total", budget="b") == 0


def test_tokens_of_an_answer_with_too_few_rows_are_billed(tmp_path):
    metered = Metered(Labels(lambda: {"acme/m": MODEL}))

    async def answer(_request):
        rows = [{"index": 0, "embedding": [1.0, 0.0]}]
        return web.json_response({"data": rows, "usage": {"prompt_tokens": 14, "total_tokens": 14}})

    async def main():
        app = web.Application()
        app.router.add_post("/v1/embeddings", answer)
        async with serving_app(app) as port:
            settings = {
                "telemetry.prometheus": False,
                "cache.path": str(tmp_path / "cache"),
                "ledger.path": str(tmp_path / "ledger"),
                "upstream.max_attempts": 1,
                "models.m": {"name": MODEL, "dimensions": 2, "max_tokens": 40},
                "routes.r": {
                    "model": MODEL,
                    "provider": "openai-compatible",
                    "base_url": f"http://127.0.0.1:{port}/v1",
                    "auth": "none",
                },
            }
            hook = PrometheusHook(Labels(lambda: {"acme/m": MODEL}), lambda: metered.metrics)
            config = Config.load(environ={}, overrides=settings)
            async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
                with pytest.raises(EmbedwayError, match="1 vectors for 2 texts"):
                    await embedder.embed(["one", "two"], model=MODEL)

    asyncio.run(main())
    assert metered.value("embedway_tokens_total", model=MODEL, kind="billed") == 14


def test_times_are_in_the_buckets_of_prometheus_client():
    metered, expected = Metered(), Histogram("x", "x", buckets=names.REQUEST_SECONDS.buckets, registry=None)
    add = observed(metered.metrics.child(names.REQUEST_SECONDS, "embed", MODEL))
    for value in (0.0, 0.001, 0.0011, 0.3, 60.0, 61.0):
        add(value)
        expected.observe(value)
    (family,) = expected.collect()
    for one in family.samples:
        if not one.name.endswith("_created"):
            name = f"embedway_request_seconds{one.name.removeprefix('x')}"
            assert metered.value(name, task="embed", model=MODEL, **one.labels) == one.value


def test_attempts_retries_failovers_and_circuits():
    metered = Metered()
    metered.run(ops.AttemptDetails(MODEL, "routes.r", 1, 3, 9), billed_tokens=9)
    metered.fail(ops.AttemptDetails(MODEL, "routes.r", 2, 3, 9), asyncio.CancelledError())
    metered.hooks.event(ops.FailoverDetails, MODEL, "routes.r", "routes.s", 3, "UnavailableError")
    metered.hooks.event(ops.CircuitDetails, "routes.r", "closed", "open")
    assert metered.value("embedway_attempts_total", model=MODEL, route="routes.r", outcome="ok") == 1
    assert metered.value("embedway_attempts_total", model=MODEL, route="routes.r", outcome="cancelled") == 1
    assert metered.value("embedway_retries_total", route="routes.r") == 1
    assert metered.value("embedway_failovers_total", model=MODEL, route="routes.r", next_route="routes.s") == 1
    assert metered.value("embedway_circuit_state", route="routes.r") == 2
    assert metered.value("embedway_tokens_total", model=MODEL, kind="billed") == 9


def test_padding_and_money_and_checks():
    metered = Metered()
    metered.run(ops.BatchDetails(MODEL, "local:m", 2, 30, 40))
    metered.run(ops.ReservationDetails(MODEL, 5_000_000_000))
    metered.hooks.event(ops.BudgetStandingDetails, "b", 3_000_000_000, 1_000_000_000, 10_000_000_000, "day")
    metered.hooks.event(ops.BudgetRefusalDetails, "b", 1, 2)
    metered.hooks.event(ops.BudgetWarningDetails, "b", 50, 5, 10, "*", "total", hard=True)
    metered.hooks.event(ops.VectorCheckDetails, MODEL, "routes.r", "zero", "refused", 1)
    metered.hooks.event(ops.VectorCheckDetails, MODEL, "routes.r", "script", "warned", 1)
    metered.hooks.event(ops.StoreErrorDetails, "cache", "read", "disk")
    metered.hooks.event(ops.DriftDetails, MODEL, "space", "routes.r", "raised", True, 0.9, 0.8)
    where = {"model": MODEL, "route": "routes.r"}
    for name, labels, value in [
        ("embedway_batch_tokens_total", {"model": MODEL, "kind": "padding"}, 10),
        ("embedway_batch_tokens_total", {"model": MODEL, "kind": "text"}, 30),
        ("embedway_reservations_total", {"outcome": "ok"}, 1),
        ("embedway_reserved_dollars_total", {"model": MODEL}, 5),
        ("embedway_budget_spent_dollars", {"budget": "b"}, 3),
        ("embedway_budget_left_dollars", {"budget": "b"}, 6),
        ("embedway_budget_spent_ratio", {"budget": "b"}, 0.5),
        ("embedway_budget_refusals_total", {"budget": "b"}, 1),
        ("embedway_budget_warnings_total", {"budget": "b", "level": "50"}, 1),
        ("embedway_validation_failures_total", {"route": "routes.r", "check": "zero"}, 1),
        ("embedway_vector_warnings_total", {"model": MODEL, "check": "script"}, 1),
        ("embedway_store_errors_total", {"store": "cache", "action": "read"}, 1),
        ("embedway_quarantined", where, 1),
        ("embedway_canary_cosine", where, 0.9),
        ("embedway_accuracy_ratio", where, 0.8),
        ("embedway_drift_checks_total", {**where, "result": "failed"}, 1),
    ]:
        assert metered.value(name, **labels) == value, name


NASTY = ["a\nb", 'a"b', "a\\b", "https://user:sk-secret@host/m", "/home/alice/model", "sk-" + "x" * 300, "", "é", "a b"]


@given(st.sampled_from(NASTY) | st.text(max_size=200))
def test_no_label_is_a_hostile_name(name):
    metered = Metered()
    for error in (None, ValueError(name)):
        every = [
            request(model=name),
            ops.AttemptDetails(name, name, 1, 1, 1),
            ops.BatchDetails(name, name, 1, 1),
            ops.LoadDetails(name),
            ops.ReservationDetails(name, 1),
            ops.WaitDetails("retry", name),
        ]
        for details in every:
            metered.run(details) if error is None else metered.fail(details, error)
    metered.hooks.event(ops.CostDetails, name, 1, "reported")
    metered.hooks.event(ops.VectorCheckDetails, name, name, name, "warned", 1)
    values = {value for _, labels in metered.samples() for key, value in labels if key not in {"le", "budget"}}
    plain = re.compile(r"[A-Za-z0-9_.+:@/ -]*", re.ASCII)
    assert all(plain.fullmatch(value) for value in values)
    assert not any("secret" in value or "alice" in value for value in values)
    if len(name) > 1 and name.casefold() not in {"acme/m", "m", "auto"}:
        models = {value for _, labels in metered.samples() for key, value in labels if key == "model"}
        assert models <= {"other"}


def test_the_number_of_names_is_bounded():
    """Ten thousand models that the engine opens, and as many routes and budgets."""
    metered = Metered()
    for number in range(10_000):
        name = f"acme/m{number}"
        metered.run(ops.LoadDetails(name), model=name)
        metered.run(request(model=name), model=name)
        metered.run(ops.WaitDetails("retry", f"routes.r{number}"))
        metered.hooks.event(ops.BudgetRefusalDetails, f"b{number}", 1, 2)
    for label in ("model", "route", "budget"):
        values = {value for _, labels in metered.samples() for key, value in labels if key == label}
        assert len(values) == MOST_NAMES + 1
        assert "other" in values


@pytest.mark.parametrize(("opened", "label"), [("acme/own", "acme/own"), ("my model", "folder"), ("/home/x", "folder")])
def test_a_model_that_was_opened_has_its_name(opened, label):
    metered = Metered()
    metered.run(request(1), model=opened)
    metered.run(ops.LoadDetails("./somewhere"), model=opened)
    metered.run(request(1), model=opened)
    for name in ("other", label):
        assert metered.value("embedway_requests_total", task="embed", model=name, outcome="ok") == 1


def test_gauges_return_to_zero():
    """After errors and cancellations, in several threads and event loops."""
    metered = Metered()

    async def call(number):
        with metered.hooks.operation(request), metered.hooks.operation(ops.WaitDetails, "semaphore", "routes.r"):
            if number % 3 == 0:
                raise ValueError(number)
            await asyncio.sleep(3600)

    async def main():
        tasks = [asyncio.create_task(call(number)) for number in range(30)]
        await asyncio.sleep(0)
        running.append(metered.value("embedway_requests_running", task="embed"))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    running = []
    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(running) >= 20
    assert metered.value("embedway_requests_running", task="embed") == 0
    assert metered.value("embedway_waiting", reason="semaphore", route="routes.r") == 0
    done = [
        metered.value("embedway_requests_total", task="embed", model=MODEL, outcome=one)
        for one in ("cancelled", "other")
    ]
    assert done == [80, 40]


def _count_in_child(hooks, sending):
    before = REGISTRY.get_sample_value("embedway_requests_running", {"task": "rerank"})
    with hooks.operation(request, task="rerank"):
        running = REGISTRY.get_sample_value("embedway_requests_running", {"task": "rerank"})
    sending.send((before, running, REGISTRY.get_sample_value("embedway_requests_running", {"task": "rerank"})))
    sending.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_counts_only_its_own_calls():
    hooks = Hooks([PrometheusHook(Labels())])
    receiving, sending = multiprocessing.Pipe()
    with hooks.operation(request, task="rerank"):
        child = multiprocessing.get_context("fork").Process(target=_count_in_child, args=(hooks, sending))
        child.start()
        found = receiving.recv()
        child.join()
        assert REGISTRY.get_sample_value("embedway_requests_running", {"task": "rerank"}) == 1
    assert found == (None, 1, 0)


def test_memory_is_measured_once_a_second(monkeypatch):
    now, read = [10.0], []
    metrics = Metrics()
    hooks = Hooks([PrometheusHook(Labels(), lambda: metrics, clock=lambda: now[0])])
    monkeypatch.setattr("embedway.telemetry.metrics.resident_bytes", lambda: read.append(1) or 7)
    for moment in (10.0, 10.5, 10.9, 11.0, 11.5):
        now[0] = moment
        with hooks.operation(request):
            pass
    assert len(read) == 2


def test_several_embedders_share_the_metrics():
    config = Config.load(environ={}, overrides={"cache.backend": "none", "ledger.backend": "none"})

    async def main():
        async with AsyncEmbedder(config=config) as one, AsyncEmbedder(config=config) as two:
            await asyncio.gather(one.embed([]), two.embed([]), return_exceptions=True)

    asyncio.run(main())
    asyncio.run(main())
    families = [family.name for family in text_string_to_metric_families(exposition().decode())]
    assert len(families) == len(set(families))
    assert "embedway_requests" in families


def test_the_own_exposition_has_only_the_table():
    families = {family.name for family in text_string_to_metric_families(own_exposition().decode())}
    assert "embedway_resident_memory_bytes" in families
    assert families <= {metric.name for metric in names.METRICS}


@pytest.mark.parametrize(("wanted", "imported"), [(False, "[]"), (True, "[]")])
def test_the_library_is_imported_with_the_first_metric(wanted, imported):
    code = (
        "import sys; from embedway import AsyncEmbedder, Config\n"
        f"config = Config.load(environ={{}}, overrides={{'telemetry.prometheus': {wanted}}})\n"
        "embedder = AsyncEmbedder(config=config)\n"
        "print([name for name in sys.modules if name.startswith('prometheus_client')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == imported


def test_names_of_the_table_are_unique_and_valid():
    exposed = [metric.exposed for metric in names.METRICS]
    assert len(exposed) == len(set(exposed))
    assert all(re.fullmatch(r"(embedding|embedway)_[a-z_]+", name) for name in exposed)


def test_without_metrics_nothing_of_prometheus_is_imported():
    code = (
        "import sys, asyncio; from embedway import AsyncEmbedder, Config\n"
        "config = Config.load(environ={}, overrides={'telemetry.prometheus': False, 'cache.backend': 'none'})\n"
        "async def main():\n"
        "    async with AsyncEmbedder(config=config) as embedder:\n"
        "        try: await embedder.embed(['a'], model='no/such-model')\n"
        "        except Exception as error: print(type(error).__name__)\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('prometheus_client')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["UnknownModelError", "[]"]
