"""A program whose metrics a Prometheus server scrapes: it embeds while services, stores and budgets fail.

Run as a script with a folder and the folder of the default model's weights. It prints the port of its metrics, and
works until its standard input ends.

Faults are real where that is cheap. Durations of minutes are reported to the hooks directly.
"""

import asyncio
import contextlib
import itertools
import sys
import threading
from pathlib import Path

import numpy as np
from aiohttp import web
from prometheus_client import start_http_server

from embedway import AsyncEmbedder, Config
from embedway.errors import EmbedwayError
from embedway.providers.fake import vector_of
from embedway.quality.pairs import built_in_pairs
from embedway.server.caller import Caller
from embedway.server.endpoint import Exchange
from embedway.server.health import ENDPOINTS
from embedway.server.stats import Stats, count_start
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.labels import Labels
from embedway.telemetry.operations import RequestDetails, WaitDetails
from embedway.telemetry.prometheus import PrometheusHook
from embedway.telemetry.run_metrics import Run
from serving import serving_app

#: Models by the fault of their services. Requests of `acme/m` fail over from a route that fails to a good one.
MODELS = {
    "m": ("broken", "good"),
    "down": ("down",),
    "locked": ("locked",),
    "slow": ("slow",),
    "limited": ("limited",),
    "flaky": ("flaky",),
    "refused": ("refused",),
    "dear": ("dear",),
    "constant": ("constant",),
    "changed": ("changed",),
}
LOCAL = "sentence-transformers/all-MiniLM-L6-v2"
#: Requests to the routes `limited` and `flaky`: every second one fails, so that their circuits stay closed.
LIMITED, FLAKY = itertools.count(), itertools.count()
#: The right answer to each text of the pairs: a query is near its passage.
TOPICS = {text: pair.id for pair in built_in_pairs() for text in (pair.query, pair.passage)}
#: Services whose model was replaced.
REPLACED = set()
CLOSED = "redis://127.0.0.1:1/0"


def vector(route, text):
    """Return the vector of a text: one for all texts, one of another model, or the right one."""
    if route == "constant":
        return vector_of("", 16)
    if route in REPLACED:
        return vector_of(f"another model {text}", 16)
    right = vector_of(TOPICS.get(text, text), 16) + 0.1 * vector_of(text, 16)
    return right / np.linalg.norm(right)


async def answer(request):
    """Answer as OpenAI does, or fail as the route of the URL says."""
    route = request.match_info["route"]
    texts = (await request.json())["input"]
    if route in {"broken", "down"} or (route == "flaky" and next(FLAKY) % 2 == 0):
        return web.json_response({"error": {"message": "it failed"}}, status=500)
    if route == "locked":
        return web.json_response({"error": {"message": "invalid key"}}, status=401)
    if route == "refused":
        return web.json_response({"error": {"message": "invalid input"}}, status=400)
    if route == "slow":
        await asyncio.sleep(3600)
    if route == "limited" and next(LIMITED) % 2 == 0:
        return web.json_response({"error": {"message": "too many requests"}}, status=429, headers={"retry-after": "1"})
    rows = [{"index": n, "embedding": vector(route, text).tolist()} for n, text in enumerate(texts)]
    tokens = sum(len(text.split()) for text in texts)
    return web.json_response({"data": rows, "model": "m", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})


def settings(folder, weights, port, **more):
    """Return the settings of an embedder, with all models and routes."""
    values = {
        "weights.directory": str(weights),
        "tune.directory": f"{folder}/tune",
        "cache.path": f"{folder}/cache.sqlite",
        "ledger.path": f"{folder}/ledger.sqlite",
        "upstream.first_wait_s": 0.01,
        "upstream.longest_wait_s": 0.05,
        "upstream.max_attempts": 3,
        "upstream.concurrency": 1,
        # The first call costs 0.75 cents: it uses the soft budget up, and leaves too little for a second one.
        "budgets.small": {"usd": "0.025", "model": "acme/dear"},
        "budgets.soft": {"usd": "0.005", "model": "acme/dear", "hard": False},
    }
    for name, routes in MODELS.items():
        values[f"models.{name}"] = {
            "name": f"acme/{name}",
            "dimensions": 16,
            # The texts of pairs are longer than the others.
            "max_tokens": 2000 if name == "changed" else 20,
            "price_usd_per_million_tokens": "2500" if name == "dear" else "1",
        }
        for route in routes:
            values[f"routes.{route}"] = {
                "model": f"acme/{name}",
                "provider": "openai-compatible",
                "base_url": f"http://127.0.0.1:{port}/{route}/v1",
                "auth": "none",
            }
    return Config.load(environ={}, overrides={**values, **more})


READY = next(endpoint for endpoint in ENDPOINTS if endpoint.path == "/health/ready")


class Program:
    """Embedders with failing services and stores, and the calls to them."""

    def __init__(self, folder, weights, port):
        def embedder(**more):
            return AsyncEmbedder(config=settings(folder, weights, port, **more))

        self.usual = embedder()
        self.stores = {
            "cache": embedder(**{"cache.backend": "redis", "cache.url": CLOSED, "cache.tiered": False}),
            "ledger": embedder(**{"ledger.backend": "redis", "ledger.url": CLOSED, "cache.backend": "none"}),
        }
        #: Each operation of these hooks takes 20 s, by their clock.
        self.hooks = Hooks(
            [PrometheusHook(Labels({"acme/m": "acme/m", "acme/slow": "acme/slow"}.copy))],
            clock=itertools.count(0, 20).__next__,
        )
        #: Of a gateway that fails, whose queue is full, and whose worker ends again and again.
        self.gateway = Stats()
        #: Checks a route, and puts it in quarantine.
        self.checking = embedder(**{"quality.on_drift": "quarantine"})
        self.tasks = set()
        self.numbers = itertools.count()

    def call(self, embedder, model, *texts):
        """Embed in the background."""

        async def run():
            with contextlib.suppress(EmbedwayError):
                await embedder.embed(list(texts), model=model)

        task = asyncio.create_task(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def step(self):
        """Start calls, and report what takes too long to happen."""
        new = next(self.numbers)
        for name in MODELS:
            # The service never answers, and has one stream: the queue grows.
            count = 5 if name == "slow" else 1
            for one in range(count):
                self.call(self.usual, f"acme/{name}", f"text {new} {one}", "a known text", "too long " * 30)
        self.call(self.usual, LOCAL, f"a short text {new}", f"a longer text of more words, number {new} " * 3)
        self.call(self.usual, LOCAL, "a known text")
        self.call(self.usual, LOCAL, "ข้อความ ภาษาไทย")
        for embedder in self.stores.values():
            self.call(embedder, "acme/m", f"text {new}")
        self.report()

    def report(self):
        """Report long durations, and a job that failed long ago."""
        job = Run("nightly", clock=lambda: 0.0)
        job.rejected = 3
        with job:
            job.end(succeeded=False)
        exchange = Exchange(None, Caller(), b"", "request")
        self.gateway.end(None, exchange, 200, 0.01)
        self.gateway.end(None, exchange, 502, 0.01, "upstream_error")
        self.gateway.end(None, exchange, 503, 0.01, "overloaded")
        self.gateway.end(READY, exchange, 503, 0.01)
        count_start("worker0")
        self.gateway.report_queue(running=1, waiting=2)
        with self.hooks.operation(RequestDetails, "embed", "acme/slow", 1):
            pass
        with self.hooks.operation(WaitDetails, "retry", "routes.slow"):
            pass

    async def check(self):
        """Compare a service with its baseline before and after its model is replaced, and then again and again."""
        quality = self.checking.quality
        await quality.baseline("acme/changed")
        await quality.check("acme/changed")
        REPLACED.add("changed")
        while True:
            await quality.check("acme/changed")
            await asyncio.sleep(0.5)

    async def run(self, stopped):
        """Work until the event is set."""
        self.tasks.add(asyncio.create_task(self.check()))
        while not stopped.is_set():
            self.step()
            await asyncio.sleep(0.2)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for embedder in (self.usual, self.checking, *self.stores.values()):
            await embedder.aclose()


async def main(folder, weights):
    """Serve the metrics on a free port, print it, and work until standard input ends."""
    app = web.Application()
    app.router.add_post("/{route}/v1/embeddings", answer)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_end():
        sys.stdin.read()
        loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    async with serving_app(app) as port:
        program = Program(folder, weights, port)
        server, thread = start_http_server(0, addr="127.0.0.1")
        print(server.server_port, flush=True)  # noqa: T201  the parent reads it
        await program.run(stopped)
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:])))
