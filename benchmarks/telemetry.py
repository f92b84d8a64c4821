"""Cost of telemetry: microseconds of the hooks for the operations and events of one query, without the query itself.

    python benchmarks/telemetry.py

Queries: a cache hit, a miss that the default model computes, and one that a priced service computes, with a ledger. A
hook records their operations and events in real calls; these are then repeated without work. Time is processor time.
"""

import asyncio
import collections
import dataclasses
import logging
import os
import subprocess
import sys
import tempfile
import time
import timeit

from embedway import AsyncEmbedder, BaseHook, Config
from embedway.telemetry.alert_hooks import AlertHook
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.json_log import JsonFormatter
from embedway.telemetry.labels import Labels
from embedway.telemetry.operations import LoadDetails, Outcome
from embedway.telemetry.prometheus import PrometheusHook
from embedway.telemetry.request_log import RequestLogHook

COUNT, REPEATS = 1_000, 9
SERVICE = {
    "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 512, "price_usd_per_million_tokens": "1"},
    "routes.r": {"model": "acme/m", "provider": "fake"},
    "budgets.month": {"usd": "100", "period": "month"},
}
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
#: Fields of an outcome that the end of an operation sets.
_OWN = ("duration_s", "error")


class Counting(BaseHook):
    """Hook that records the begin and end of operations, and events."""

    def __init__(self):
        self.steps = []

    def begin(self, operation):
        self.steps.append(("begin", operation.id, operation.details))

    def end(self, operation, outcome):
        default = Outcome()
        fields = [field.name for field in dataclasses.fields(Outcome) if field.name not in _OWN]
        changed = {name: getattr(outcome, name) for name in fields}
        changed = {name: value for name, value in changed.items() if value != getattr(default, name)}
        self.steps.append(("end", operation.id, changed))

    def event(self, operation):
        self.steps.append(("event", operation.id, operation.details))


class Operating(BaseHook):
    """No-op hook for operations: the cost of the dispatch alone."""

    def begin(self, operation):
        pass

    def end(self, operation, outcome):
        pass


class Lines(logging.Handler):
    """Handler that formats lines and drops them."""

    def emit(self, record):
        self.format(record)


async def record(folder):
    """Return the steps of each kind of query."""
    quiet = {"cache.backend": "memory", "telemetry.prometheus": False, "alerts.enabled": False}
    places = {"ledger.path": f"{folder}/ledger.sqlite"}
    found = {}
    for name, model, texts in (
        ("cache hit", None, ("first", "first")),
        ("local miss", None, ("first", "second")),
        ("service miss", "acme/m", ("first", "second")),
    ):
        counting = Counting()
        config = Config.load(environ={}, overrides={**SERVICE, **quiet, **places})
        async with AsyncEmbedder(config=config, hooks=[counting]) as embedder:
            await embedder.embed_query(texts[0], model=model)
            await embedder.cache.stats()  # the vector is stored
            counting.steps.clear()
            await embedder.embed_query(texts[1], model=model)
            await embedder.cache.stats()
            found[name] = list(counting.steps)
    return found


def microseconds(hooks, steps):
    """Return the minimum time of several series for all steps, and the median."""

    def run():
        running = {}
        for what, number, details in steps:
            if what == "begin":
                operation = hooks.operation(lambda details=details: details)
                running[number] = operation, operation.__enter__()
            elif what == "event":
                hooks.event(lambda details=details: details)
            elif number in running:
                operation, outcome = running.pop(number)
                for name, value in details.items():
                    setattr(outcome, name, value)
                operation.__exit__(None, None, None)

    # Processor time, because other programs on the machine must not count.
    series = sorted(timeit.repeat(run, timer=time.process_time, number=COUNT, repeat=REPEATS))
    return series[0] / COUNT * 1e6, series[len(series) // 2] / COUNT * 1e6


def tracing():
    """Return OpenTelemetry's hook without a provider, and with the SDK's and exporters that drop everything."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from embedway.telemetry.opentelemetry import OpenTelemetryHook

    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())
    yield "OpenTelemetry, no provider", OpenTelemetryHook()
    yield "OpenTelemetry, SDK", OpenTelemetryHook(provider, MeterProvider())


def show(queries, name, *hooks):
    """Print the row of some hooks."""
    own = Hooks(hooks)
    for model in ("acme/m", "sentence-transformers/all-MiniLM-L6-v2"):
        with own.operation(LoadDetails, model) as outcome:
            outcome.model = model
    cells = [microseconds(own, steps) for steps in queries.values()]
    each = cells[-1][0] / sum(what != "end" for what, _, _ in queries["service miss"])
    columns = [*(f"{least:.1f} ({median:.1f})" for least, median in cells), f"{each:.1f}"]
    print(f"| {name} | " + " | ".join(columns) + " |", flush=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        queries = asyncio.run(record(folder))
    if MULTIPROCESS in os.environ:
        show(queries, "Prometheus, multiprocess mode", PrometheusHook(Labels()))
        return
    for name, steps in queries.items():
        for what, told in (("begin", "operations"), ("event", "events")):
            kinds = collections.Counter(details.kind for kind, _, details in steps if kind == what)
            print(f"{name}: {kinds.total()} {told}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    log = logging.getLogger("embedway.requests")
    log.propagate = False
    handler = Lines()
    log.addHandler(handler)
    print(
        f"microseconds for each query, fastest (median) of {REPEATS} series of {COUNT}; all rows include the first one"
    )
    print("| hooks | " + " | ".join(queries) + " | an operation or event of the last |")
    print("| --- | ---: | ---: | ---: | ---: |")
    show(queries, "none")
    show(queries, "no-op hook for operations", Operating())
    show(queries, "Prometheus", PrometheusHook(Labels()))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__], env=os.environ | {MULTIPROCESS: folder}, check=True)
    show(queries, "alerts", AlertHook())
    show(queries, "request log, logger off", RequestLogHook())
    log.setLevel(logging.INFO)
    show(queries, "request log, text", RequestLogHook())
    handler.setFormatter(JsonFormatter())
    show(queries, "request log, JsonFormatter", RequestLogHook())
    for name, hook in tracing():
        show(queries, name, hook)


if __name__ == "__main__":
    sys.exit(main())
