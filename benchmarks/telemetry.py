"""Cost of the hooks for traces, logs and alerts: time for the operations of one query, without the query itself.

python benchmarks/telemetry.py

The operations are those that a hook counts in a real call; they are then repeated without work.
"""

import asyncio
import collections
import logging
import sys
import timeit

from embedway import AsyncEmbedder, BaseHook, Config
from embedway.telemetry.alert_hooks import AlertHook
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.json_log import JsonFormatter
from embedway.telemetry.operations import RequestDetails
from embedway.telemetry.request_log import RequestLogHook

COUNT = 2_000


class Counting(BaseHook):
    """Hook that records the begin and end of operations, and events."""

    def __init__(self):
        self.steps = []

    def begin(self, operation):
        self.steps.append(("begin", operation.details))

    def end(self, operation, outcome):  # noqa: ARG002  the order of operations is that of their ends
        self.steps.append(("end", outcome))

    def event(self, operation):
        self.steps.append(("event", operation.details))


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


def record(backend):
    """Return the steps of a query after the first: a computed one, or a hit without store."""
    routes = {"routes.r": {"model": "acme/m", "provider": "fake"}, "models.m": {"name": "acme/m", "dimensions": 16}}
    quiet = {"cache.backend": backend, "ledger.backend": "none", "telemetry.prometheus": False, "alerts.enabled": False}
    config = Config.load(environ={}, overrides={**routes, "models.m.max_tokens": 512, **quiet})

    async def main():
        counting = Counting()
        async with AsyncEmbedder("acme/m", config=config, hooks=[counting]) as embedder:
            await embedder.embed_query("first")
            await embedder.cache.stats() if backend != "none" else None  # the vectors are stored
            counting.steps.clear()
            await embedder.embed_query("second" if backend == "none" else "first")
            return list(counting.steps)

    return asyncio.run(main())


def microseconds(hooks, steps):
    """Return the minimum time of seven series for all steps."""

    def run():
        running = []
        for what, details in steps:
            if what == "begin":
                operation = hooks.operation(lambda details=details: details)
                running.append((operation, operation.__enter__(), details))
            elif what == "end":
                operation, outcome, begun = running.pop()
                if isinstance(begun, RequestDetails):
                    for name in ("model", "routes", "dimensions", "attempts", "tokens", "billed_tokens", "cache_hits"):
                        setattr(outcome, name, getattr(details, name))
                operation.__exit__(None, None, None)
            else:
                hooks.event(lambda details=details: details)

    return min(timeit.repeat(run, number=COUNT, repeat=7)) / COUNT * 1e6


def tracing():
    """Return OpenTelemetry's hook without a provider, and with the SDK's and exporters that drop everything."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from embedway.telemetry.opentelemetry import OpenTelemetryHook

    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())
    yield "OpenTelemetry, no provider", OpenTelemetryHook()
    yield "OpenTelemetry, SDK", OpenTelemetryHook(provider, MeterProvider())


def main():
    queries = {"computed": record("none"), "cache hit": record("memory")}
    for name, steps in queries.items():
        kinds = collections.Counter(details.kind for what, details in steps if what != "end")
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        print(f"{name}: {sum(kinds.values())} operations ({counts})")
    log = logging.getLogger("embedway.requests")
    log.propagate = False
    handler = Lines()
    log.addHandler(handler)
    print(f"\n{'µs for each query':38}" + "".join(f"{name:>12}" for name in queries))

    def show(name, *hooks):
        print(f"{name:38}" + "".join(f"{microseconds(Hooks(hooks), steps):12.1f}" for steps in queries.values()))

    show("no hook")
    show("no-op hook", Operating())
    show("alerts", AlertHook())
    show("request log, logger off", RequestLogHook())
    log.setLevel(logging.INFO)
    show("request log, text", RequestLogHook())
    handler.setFormatter(JsonFormatter())
    show("request log, JsonFormatter", RequestLogHook())
    for name, hook in tracing():
        show(name, hook)


if __name__ == "__main__":
    sys.exit(main())
