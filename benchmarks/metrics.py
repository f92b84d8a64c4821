"""Cost of the metrics: microseconds of a cache hit with and without them, and of the Prometheus hook alone.

The first lines measure whole calls of `embed`; the others repeat only the operations of a call, so that they are fast.
The second table is for prometheus-client's multiprocess mode, which writes each number to a file.

python benchmarks/metrics.py
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit

from embedway import AsyncEmbedder, Config
from embedway.telemetry.hooks import BaseHook, Hooks
from embedway.telemetry.labels import Labels
from embedway.telemetry.operations import (
    BatchDetails,
    CacheDetails,
    LoadDetails,
    RequestDetails,
    ValidationDetails,
    WaitDetails,
)
from embedway.telemetry.prometheus import PrometheusHook

COUNT, REPEATS = 5_000, 7
#: Rounds of whole calls, and calls of each embedder in a round.
ROUNDS, CALLS = 60, 50
MODEL, ROUTE = "sentence-transformers/all-MiniLM-L6-v2", "local:all-MiniLM-L6-v2"
#: Time of a query that is computed, and of a cache hit, in microseconds.
QUERY_US, HIT_US = 3_000, 50


class Empty(BaseHook):
    """No-op hook for operations."""

    def begin(self, operation):
        pass

    def end(self, operation, outcome):
        pass


def call(hooks, *, is_hit):
    """Run the operations of one call with one text."""
    with hooks.operation(RequestDetails, "embed", MODEL, 1, "query", "") as request:
        with hooks.operation(CacheDetails, "lookup", MODEL, 1) as lookup:
            lookup.cache_hits = int(is_hit)
        if not is_hit:
            with hooks.operation(WaitDetails, "scheduler", ROUTE):
                pass
            with hooks.operation(BatchDetails, MODEL, ROUTE, 1, 8, 8):
                pass
            with hooks.operation(ValidationDetails, ROUTE, 1):
                pass
        request.model, request.routes = MODEL, () if is_hit else (ROUTE,)
        request.cache_hits, request.unique_texts, request.tokens = int(is_hit), 1, 8


def microseconds(hooks, *, is_hit):
    """Return the minimum of several series, per call."""
    # Processor time, because other programs on the machine must not count.
    series = timeit.repeat(lambda: call(hooks, is_hit=is_hit), timer=time.process_time, number=COUNT, repeat=REPEATS)
    return min(series) / COUNT * 1e6


def embedder(folder, name, hooks=(), *, metrics):
    """Open an embedder with a small model that does not compute."""
    settings = {
        "models.m": {"name": "bench/m", "dimensions": 384, "max_tokens": 8192},
        "routes.r": {"model": "bench/m", "provider": "fake", "options": {"width": "384"}},
        "cache.path": f"{folder}/{name}.cache",
        "ledger.path": f"{folder}/{name}.ledger",
        "telemetry.prometheus": metrics,
    }
    return AsyncEmbedder(config=Config.load(environ={}, overrides=settings), hooks=hooks)


async def whole_calls(folder):
    """Print the processor time of a cache hit of `embed`. The embedders take turns, because a machine has its moods."""
    embedders = {
        "without hooks": embedder(folder, "off", metrics=False),
        "a hook that does nothing": embedder(folder, "empty", [Empty()], metrics=False),
        "metrics": embedder(folder, "metrics", metrics=True),
    }
    series = {name: [] for name in embedders}
    for _ in range(ROUNDS):
        for name, one in embedders.items():
            began = time.process_time()
            for _ in range(CALLS):
                await one.embed(["hello world"], model="bench/m", input_type="query")
            series[name].append((time.process_time() - began) / CALLS * 1e6)
    least = min(series["without hooks"])
    for name, found in series.items():
        added = f"{min(found) - least:+.1f}"
        print(f"cache hit, {name:24} {min(found):6.1f} µs ({added}), median {statistics.median(found):.1f}")
    for one in embedders.values():
        await one.aclose()


def main():
    """Print the cost of the hook: less the cost of a hook that does nothing, and less the cost without any hook."""
    without, empty, hooks = Hooks([]), Hooks([Empty()]), Hooks([PrometheusHook(Labels())])
    with hooks.operation(LoadDetails, MODEL) as outcome:
        outcome.model = MODEL
    for name, is_hit, whole in (("cache hit", True, HIT_US), ("computed query", False, QUERY_US)):
        own, none, total = (microseconds(one, is_hit=is_hit) for one in (empty, without, hooks))
        cost = total - none
        shares = f"{cost:5.1f} µs with its calls, {cost / whole:.1%} of {whole:,} µs"
        print(f"{name:15} {total - own:5.1f} µs of the hook; {shares}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(whole_calls(folder))
    main()
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        print("multiprocess mode:", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, __file__], env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": folder}, check=True
            )
