"""Spans and metrics of OpenTelemetry: names, parents, links and attributes, with exporters in memory."""

import asyncio
import contextlib
import contextvars
import logging
import os
import pickle
import subprocess
import sys
import threading

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from api_servers import KEY, CompatibleServer
from embedway import AsyncEmbedder, Config, Embedder, EmbedwayError
from embedway.telemetry.hooks import Hooks, current_operation
from embedway.telemetry.opentelemetry import OpenTelemetryHook
from embedway.telemetry.operations import (
    AttemptDetails,
    BatchDetails,
    BudgetStandingDetails,
    CacheDetails,
    FailoverDetails,
    LoadDetails,
    RequestDetails,
    WaitDetails,
)
from embedway.telemetry.requests import RouteFacts
from own_route import load_routes
from tiny_models import tiny_encoder

REQUEST = RequestDetails, "embed", "acme/m", 2, "query"
SECRETS = ("Ein Geheimnis\x1b[31m", "a secret text", KEY)


class Telemetry:
    """Providers with exporters in memory, and a hook that uses them."""

    def __init__(self, sampler=None):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("app")
        self.hook = OpenTelemetryHook(self.provider, MeterProvider([self.reader]))
        self.hooks = Hooks([self.hook])

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def points(self, name):
        """Return attributes and sum of each data point of a metric."""
        data = self.reader.get_metrics_data()
        metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
        return [
            (dict(one.attributes), one.sum)
            for metric in metrics
            if metric.name == name
            for one in metric.data.data_points
        ]

    def metric(self, name):
        return next(
            one
            for one in self.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
            if one.name == name
        )


@pytest.fixture
def telemetry():
    return Telemetry()


def parent_of(span):
    return None if span.parent is None else span.parent.span_id


def id_of(span):
    return span.context.span_id


# ------------------------------------------------------------------------- calls of an embedder


def call(telemetry, calls, misdeeds=(), *, servers=1, **overrides):
    """Run calls of an AsyncEmbedder with a server; return the server."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            running = [CompatibleServer() for _ in range(servers)]
            for server in running:
                await stack.enter_async_context(server.running())
            config = load_routes(*running, **overrides)
            async with AsyncEmbedder(config=config, hooks=[telemetry.hook]) as embedder:
                running[0].misdeeds = list(misdeeds)
                await calls(embedder)
            return running[0]

    return asyncio.run(main())


def test_a_call_is_a_span_of_the_conventions_below_the_callers(telemetry):
    async def calls(embedder):
        with telemetry.tracer.start_as_current_span("app"):
            receipts.append((await embedder.embed(["a secret text"], model="acme/m")).receipt)

    receipts = []
    server = call(telemetry, calls)
    (app,), (span,) = telemetry.named("app"), telemetry.named("embeddings acme/m")
    assert (span.kind, parent_of(span), span.status.status_code) == (SpanKind.CLIENT, id_of(app), StatusCode.UNSET)
    attributes = dict(span.attributes)
    assert attributes.pop("embedway.request.id")
    assert attributes.pop("embedway.space.id").endswith("/16")
    assert attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai-compatible",
        "gen_ai.request.model": "acme/m",
        "gen_ai.response.model": "acme/m",
        "gen_ai.embeddings.dimension.count": 16,
        "gen_ai.usage.input_tokens": receipts[0].billed_tokens,
        "server.address": "127.0.0.1",
        "server.port": int(server.url.rpartition(":")[2]),
        "embedway.input_type": "document",
        "embedway.texts": 1,
        "embedway.unique_texts": 1,
        "embedway.tokens": receipts[0].tokens,
        "embedway.attempts": 1,
        "embedway.cache.hits": 0,
        "embedway.routes": ("routes.r0",),
        "embedway.failures": 0,
        "embedway.truncations": 0,
        "embedway.saved_usd": 0.0,
    }


def test_the_operations_of_a_call_are_spans_below_it(telemetry):
    async def calls(embedder):
        await embedder.embed(["a"], model="acme/m")

    call(telemetry, calls, **{"cache.backend": "memory"})
    names = {id_of(span): span.name for span in telemetry.spans}
    parents = {span.name: names.get(parent_of(span)) for span in telemetry.spans}
    request = "embeddings acme/m"
    assert parents == {
        request: None,
        "embedway.load": request,
        "embedway.cache.lookup": request,
        "embedway.reservation": request,
        "embedway.batch": request,
        "embedway.attempt": "embedway.batch",
        "embedway.validation": "embedway.attempt",
        "embedway.cache.store": request,
    }
    assert len({span.context.trace_id for span in telemetry.spans}) == 1
    (attempt,) = telemetry.named("embedway.attempt")
    assert (attempt.kind, attempt.attributes["server.address"]) == (SpanKind.CLIENT, "127.0.0.1")
    assert all(span.start_time <= span.end_time for span in telemetry.spans)


def test_metrics_have_the_names_units_and_buckets_of_the_conventions(telemetry):
    async def calls(embedder):
        await embedder.embed(["a b c"], model="acme/m")

    server = call(telemetry, calls)
    labels = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai-compatible",
        "gen_ai.request.model": "acme/m",
        "gen_ai.response.model": "acme/m",
        "server.address": "127.0.0.1",
        "server.port": int(server.url.rpartition(":")[2]),
    }
    (span,) = telemetry.named("embeddings acme/m")
    duration = telemetry.metric("gen_ai.client.embeddings.duration")
    (point,) = duration.data.data_points
    assert (duration.unit, dict(point.attributes)) == ("s", labels)
    assert point.sum == pytest.approx((span.end_time - span.start_time) / 1e9, abs=1e-8)
    assert point.explicit_bounds == (
        0.01,
        0.02,
        0.04,
        0.08,
        0.16,
        0.32,
        0.64,
        1.28,
        2.56,
        5.12,
        10.24,
        20.48,
        40.96,
        81.92,
    )
    assert point.exemplars[0].span_id == id_of(span)
    tokens = telemetry.metric("gen_ai.client.embeddings.operation.input_tokens")
    (point,) = tokens.data.data_points
    assert (tokens.unit, dict(point.attributes)) == ("{token}", labels)
    assert point.sum == span.attributes["gen_ai.usage.input_tokens"]
    assert point.explicit_bounds == tuple(4**power for power in range(14))


def test_a_hit_has_no_tokens_and_no_service(telemetry):
    async def calls(embedder):
        for _ in range(2):
            await embedder.embed(["a"], model="acme/m")

    call(telemetry, calls, **{"cache.backend": "memory"})
    hit = telemetry.named("embeddings acme/m")[1].attributes
    assert (hit["gen_ai.provider.name"], hit["gen_ai.usage.input_tokens"]) == ("embedway", 0)
    assert (hit["embedway.cache.hits"], hit["embedway.attempts"], hit["embedway.cost_usd"]) == (1, 0, 0.0)
    assert "server.address" not in hit
    assert telemetry.named("embedway.cache.lookup")[1].attributes["embedway.cache.hits"] == 1


def test_an_error_is_a_status_and_a_class(telemetry):
    async def calls(embedder):
        with pytest.raises(EmbedwayError):
            await embedder.embed(["a secret text"], model="acme/m")

    call(telemetry, calls, ["401"])
    (span,) = telemetry.named("embeddings acme/m")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.attributes["error.type"] == "AuthenticationError"
    assert (span.attributes["gen_ai.provider.name"], span.attributes["embedway.attempts"]) == ("openai-compatible", 1)
    assert telemetry.named("embedway.attempt")[0].attributes["error.type"] == "AuthenticationError"
    ((labels, _),) = telemetry.points("gen_ai.client.embeddings.duration")
    assert (labels["error.type"], labels["gen_ai.request.model"]) == ("AuthenticationError", "acme/m")
    assert telemetry.points("gen_ai.client.embeddings.operation.input_tokens") == []


def test_retries_and_their_waits_are_below_the_batch(telemetry):
    async def calls(embedder):
        await embedder.embed(["a"], model="acme/m")

    call(telemetry, calls, ["500"], **{"upstream.max_attempts": 2})
    (batch,) = telemetry.named("embedway.batch")
    below = [span for span in telemetry.spans if parent_of(span) == id_of(batch)]
    assert [span.name for span in below] == ["embedway.attempt", "embedway.wait.retry", "embedway.attempt"]
    assert telemetry.named("embeddings acme/m")[0].attributes["embedway.attempts"] == 2


def test_a_failover_names_no_server_but_both_routes(telemetry):
    """The routes are those that answered."""

    async def calls(embedder):
        await embedder.embed(["a"], model="acme/m")

    call(telemetry, calls, ["401"], servers=2, **{"upstream.max_attempts": 3})
    attempts = telemetry.named("embedway.attempt")
    assert {span.attributes["embedway.route"] for span in attempts} == {"routes.r0", "routes.r1"}
    (span,) = telemetry.named("embeddings acme/m")
    assert span.attributes["embedway.routes"] == ("routes.r1",)


@pytest.mark.parametrize("name", ["no/model", "a secret text", KEY])
def test_an_unknown_name_of_a_model_is_in_no_span_and_no_metric(telemetry, name):
    async def calls(embedder):
        with pytest.raises(EmbedwayError):
            await embedder.embed(["a"], model=name)

    call(telemetry, calls)
    (span,) = telemetry.spans if len(telemetry.spans) == 1 else telemetry.named("embeddings")
    assert span.attributes["error.type"] == "UnknownModelError"
    assert name not in shown(telemetry)


def shown(telemetry):
    """Return everything that was exported, as text."""
    return "".join(span.to_json() for span in telemetry.spans) + telemetry.reader.get_metrics_data().to_json()


@pytest.mark.parametrize("misdeeds", [[], ["500"], ["401"], ["400"], ["429"], ["not json"]], ids=str)
def test_no_text_key_or_url_is_exported(telemetry, misdeeds):
    async def calls(embedder):
        for texts in (SECRETS[:1], SECRETS[:2], ["", "a secret text"]):
            with contextlib.suppress(EmbedwayError):
                await embedder.embed(texts, model="acme/m", collection="a secret text")

    server = call(telemetry, calls, misdeeds)
    exported = shown(telemetry)
    assert len(telemetry.spans) > 3
    for secret in (*SECRETS, "Geheimnis", "secret", server.url):
        assert secret not in exported


def test_the_path_of_a_folder_is_not_exported(telemetry, tmp_path, tokenizer, caplog):
    folder = tmp_path / "a-customer" / "our-model"
    folder.mkdir(parents=True)
    tiny_encoder(folder, tokenizer)
    caplog.set_level(logging.INFO, "embedway.requests")
    config = Config.load(environ={}, overrides={"cache.backend": "none", "telemetry.log_requests": True})
    with Embedder(str(folder), config=config, hooks=[telemetry.hook]) as embedder:
        embedder.embed("a text")
    (span,) = telemetry.named("embeddings our-model")
    assert (span.attributes["gen_ai.provider.name"], span.attributes["embedway.routes"]) == (
        "embedway",
        ("local:our-model",),
    )
    assert span.attributes["gen_ai.usage.input_tokens"] == span.attributes["embedway.tokens"] > 0
    assert "our-model" in caplog.text
    assert "a-customer" not in shown(telemetry) + caplog.text


# ------------------------------------------------------------------------- the blocking embedder


def test_the_callers_span_is_the_parent_in_the_blocking_embedder(telemetry):
    """Each thread of the caller has its own current span, and the embedder runs in a thread of its own."""
    ready, url, done = threading.Event(), [], threading.Event()

    def serve():
        async def main():
            server = CompatibleServer()
            async with server.running():
                url.append(server)
                ready.set()
                await asyncio.to_thread(done.wait)

        asyncio.run(main())

    server = threading.Thread(target=serve)
    server.start()
    ready.wait()
    try:
        with Embedder("acme/m", config=load_routes(*url), hooks=[telemetry.hook]) as embedder:

            def work(number):
                with telemetry.tracer.start_as_current_span(f"app {number}"):
                    embedder.embed([f"text {number}"])

            threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            embedder.embed(["without a span"])
    finally:
        done.set()
        server.join()
    calls = telemetry.named("embeddings acme/m")
    apps = {id_of(span) for span in telemetry.spans if span.name.startswith("app")}
    assert {parent_of(span) for span in calls} == apps | {None}
    assert len(calls) == 9


# ------------------------------------------------------------------------- parents and links


def test_a_merged_batch_is_below_the_first_call_and_linked_to_the_others(telemetry):
    hooks = telemetry.hooks
    with contextlib.ExitStack() as stack:
        ids, started = [], []
        for _ in range(3):
            stack.enter_context(telemetry.tracer.start_as_current_span("app"))
            stack.enter_context(hooks.operation(*REQUEST))
            ids.append(current_operation.get())
            started.append(trace.get_current_span().get_span_context())
        # The task of the scheduler was created in the context of any call.
        stack.enter_context(hooks.merged_operation(ids, BatchDetails, "acme/m", "routes.r", 3, 9))
        stack.enter_context(hooks.operation(AttemptDetails, "acme/m", "routes.r", 1, 3, 9))
    (batch,), (attempt,) = telemetry.named("embedway.batch"), telemetry.named("embedway.attempt")
    assert batch.parent == started[0]
    assert [link.context for link in batch.links] == started[1:]
    assert parent_of(attempt) == id_of(batch)


def test_concurrent_calls_of_an_embedder_keep_their_traces(telemetry):
    async def calls(embedder):
        async def one(number):
            with telemetry.tracer.start_as_current_span("app"):
                await embedder.embed([f"text {number}", f"other {number}"], model="acme/m")

        await asyncio.gather(*(one(number) for number in range(20)))

    call(telemetry, calls)
    apps = {id_of(span): span.context.trace_id for span in telemetry.named("app")}
    requests = {id_of(span): span for span in telemetry.named("embeddings acme/m")}
    assert sorted(parent_of(span) for span in requests.values()) == sorted(apps)
    linked = set()
    for batch in telemetry.named("embedway.batch"):
        assert batch.context.trace_id == requests[parent_of(batch)].context.trace_id
        linked |= {parent_of(batch), *(link.context.span_id for link in batch.links)}
    assert linked == set(requests)
    for name in ("embedway.attempt", "embedway.validation"):
        traces = {span.context.trace_id for span in telemetry.named(name)}
        assert traces <= {span.context.trace_id for span in telemetry.named("embedway.batch")}


def test_a_store_after_its_request_is_below_it_in_its_own_trace(telemetry):
    hooks = telemetry.hooks
    with hooks.operation(*REQUEST):
        request = current_operation.get()
        span = trace.get_current_span().get_span_context()

    def store():
        stored = hooks.merged_operation([request, 10**9], CacheDetails, "store", "acme/m", 1)
        with telemetry.tracer.start_as_current_span("another call"), stored:
            pass

    contextvars.copy_context().run(store)
    (stored,) = telemetry.named("embedway.cache.store")
    assert (stored.parent, stored.links) == (span, ())


def test_work_without_a_known_parent_is_in_the_callers_span_or_a_trace_of_its_own(telemetry):
    hooks = telemetry.hooks
    with telemetry.tracer.start_as_current_span("app"):
        with hooks.operation(LoadDetails, "acme/m"):
            pass
        with hooks.merged_operation([10**9], BatchDetails, "acme/m", "local", 1, 1):
            pass
    assert parent_of(telemetry.named("embedway.load")[0]) == id_of(telemetry.named("app")[0])
    assert telemetry.named("embedway.batch")[0].parent is None


def test_spans_and_baggage_of_other_libraries_nest(telemetry):
    """An instrumented HTTP client creates its spans below the attempt."""
    hooks = telemetry.hooks
    before = context.attach(baggage.set_baggage("tenant", "7"))
    try:
        with hooks.operation(*REQUEST), hooks.operation(AttemptDetails, "acme/m", "routes.r", 1, 2, 6):
            assert baggage.get_baggage("tenant") == "7"
            with telemetry.tracer.start_as_current_span("POST"):
                pass
        assert trace.get_current_span() is trace.INVALID_SPAN
    finally:
        context.detach(before)
    assert parent_of(telemetry.named("POST")[0]) == id_of(telemetry.named("embedway.attempt")[0])


def test_an_operation_that_ends_in_another_task_restores_nothing_wrong(telemetry):
    """As the block of an asynchronous generator, which another task closes."""

    async def generate():
        with telemetry.hooks.operation(WaitDetails, "retry", "routes.r"):
            yield

    async def main():
        generator = generate()
        await asyncio.create_task(anext(generator))
        await asyncio.create_task(generator.aclose())
        return trace.get_current_span()

    assert asyncio.run(main()) is trace.INVALID_SPAN
    assert [span.name for span in telemetry.spans] == ["embedway.wait.retry"]


def test_a_cancelled_call_is_an_error_with_the_class_of_the_cancellation(telemetry):
    async def main():
        async def wait():
            with telemetry.hooks.operation(*REQUEST):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (span,) = telemetry.spans
    assert (span.attributes["error.type"], span.status.status_code) == ("CancelledError", StatusCode.ERROR)
    ((labels, _),) = telemetry.points("gen_ai.client.embeddings.duration")
    assert labels["error.type"] == "CancelledError"


def test_events_are_in_the_span_in_which_they_occur(telemetry):
    hooks = telemetry.hooks
    with hooks.operation(*REQUEST):
        hooks.event(FailoverDetails, "acme/m", "routes.r", "routes.s", 3, "UnavailableError")
        hooks.event(BudgetStandingDetails, "b", 1, 2, 3, "month")
    hooks.event(FailoverDetails, "acme/m", "routes.r", "routes.s", 3, "UnavailableError")
    (span,) = telemetry.spans
    ((name, attributes),) = [(event.name, dict(event.attributes)) for event in span.events]
    assert name == "embedway.failover"
    assert attributes == {
        "embedway.model": "acme/m",
        "embedway.route": "routes.r",
        "embedway.next_route": "routes.s",
        "embedway.texts": 3,
        "error.type": "UnavailableError",
    }


def test_a_sampled_out_call_has_no_span_but_its_metrics_and_its_trace():
    telemetry = Telemetry(ALWAYS_OFF)
    with telemetry.hooks.operation(*REQUEST):
        assert trace.get_current_span().get_span_context().is_valid
        with telemetry.hooks.operation(LoadDetails, "acme/m"):
            pass
    assert telemetry.spans == ()
    assert len(telemetry.points("gen_ai.client.embeddings.duration")) == 1


@pytest.mark.parametrize(
    ("route", "provider", "expected"),
    [
        ("routes.r", "azure-openai", "azure.ai.openai"),
        ("routes.r", "gemini", "gcp.gemini"),
        ("routes.r", "mistral", "mistral_ai"),
        ("routes.r", "voyage", "voyage"),
        ("routes.r", "local", "embedway"),
        ("openai:text-embedding-3-small", "", "openai"),
        ("openvino", "", "embedway"),
        ("routes.unknown", "", "other"),
    ],
)
def test_providers_have_the_names_of_the_conventions(telemetry, route, provider, expected):
    telemetry.hook.use_settings(dict, {"routes.r": RouteFacts(provider, "h", 443)} if provider else {})
    with telemetry.hooks.operation(*REQUEST) as outcome:
        outcome.routes, outcome.model = (route,), "acme/m"
    assert telemetry.spans[0].attributes["gen_ai.provider.name"] == expected


def test_a_known_model_is_in_the_name_from_the_begin(telemetry):
    """Samplers see it."""
    telemetry.hook.use_settings(lambda: {"acme/m": "acme/m"}, {})
    with telemetry.hooks.operation(*REQUEST):
        assert trace.get_current_span().name == "embeddings acme/m"
    with telemetry.hooks.operation(RequestDetails, "rerank", "auto", 1):
        assert trace.get_current_span().name == "rerank"
    assert len(telemetry.points("gen_ai.client.embeddings.duration")) == 1


def test_nothing_is_kept_of_ended_operations_but_a_bounded_number_of_ids(telemetry):
    for _ in range(600):
        with telemetry.hooks.operation(*REQUEST), telemetry.hooks.operation(LoadDetails, "acme/m"):
            pass
    kept = [value for value in vars(telemetry.hook).values() if isinstance(value, (dict, list))]
    assert sorted(map(len, kept)) == [0, 0, 512]


# ------------------------------------------------------------------------- settings, extra, fork


PROGRAM = """
import asyncio, sys
sys.path[:0] = {path!r}
from embedway import AsyncEmbedder, Config

async def main():
    config = Config.load(environ={{}}, overrides={{"telemetry.opentelemetry": {wanted}}})
    async with AsyncEmbedder(config=config):
        pass

{before}
asyncio.run(main())
print(sorted(name for name in {names} if name in sys.modules))
"""
NAMES = [
    "opentelemetry",
    "embedway.telemetry.opentelemetry",
    "embedway.telemetry.request_log",
]


def run(wanted, before=""):
    source = PROGRAM.format(path=[], wanted=wanted, before=before, names=NAMES)
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)


def test_the_library_is_imported_only_if_it_is_used():
    assert run(wanted=False).stdout.strip() == "[]"
    assert run(wanted=True).stdout.strip() == str(sorted(NAMES[:2]))


def test_without_the_library_the_error_names_the_extra():
    done = run(wanted=True, before="sys.modules['opentelemetry'] = None")
    assert done.returncode == 1
    assert "MissingExtraError" in done.stderr
    assert "pip install 'embedway[opentelemetry]'" in done.stderr


GLOBAL = """
import asyncio, sys
sys.path[:0] = {path!r}
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from api_servers import CompatibleServer
from embedway import AsyncEmbedder
from own_route import load_routes

async def main():
    server = CompatibleServer()
    async with server.running():
        config = load_routes(server, **{{"telemetry.opentelemetry": True}})
        async with AsyncEmbedder("acme/m", config=config) as embedder:
            exporter, provider = InMemorySpanExporter(), TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)  # after the embedder was created
            await embedder.embed(["a"])
            print([one.name for one in exporter.get_finished_spans()][-1])

asyncio.run(main())
"""


def test_the_global_providers_are_used_also_if_they_are_set_later():
    source = GLOBAL.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("embeddings acme/m", 0), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_ids_of_its_own(telemetry):
    read, write = os.pipe()
    with telemetry.hooks.operation(*REQUEST):
        child = os.fork()
        if child == 0:
            with telemetry.hooks.operation(*REQUEST):
                pass
            os.write(write, pickle.dumps(dict(telemetry.spans[0].attributes)))
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        theirs = pickle.loads(stream.read())  # noqa: S301  of our child
    assert os.waitpid(child, 0)[1] == 0
    with telemetry.hooks.operation(*REQUEST):
        pass
    ours = [span.attributes["embedway.request.id"] for span in telemetry.spans]
    assert theirs["embedway.request.id"].partition("-")[0] != ours[0].partition("-")[0]
    assert len(set(ours)) == 2
