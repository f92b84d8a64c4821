"""One budget, four processes, two hundred calls; failures, cancellations and a kill; the books are the server's own."""

import asyncio
import base64
import collections
import contextlib
import json
import logging
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import redis
from aiohttp import web

from embedway.ledger.base import Limit
from embedway.ledger.redis import RedisLedger
from embedway.ledger.sqlite import SqliteLedger
from embedway.providers.counting import TiktokenCounter
from embedway.providers.fake import vector_of

KEY = "sk-secret-of-the-test"
PRICE = 20  # nano-dollars a token
CALLS = 50  # of each process
SLOTS = 8  # requests of a process at once
WORDS = ("budget", "holds", "for", "every", "process", "that", "shares", "its", "ledger", "crash", "Straße", "向量")
LIMIT = Limit("shared", 130_000)


class Server:
    """OpenAI's embeddings, with misdeeds by the first word of a text. Counts what it would put on the bill."""

    def __init__(self):
        self.tokens = 0
        self.received = collections.Counter()
        self.arrived = collections.defaultdict(asyncio.Event)
        self.held = 0
        self.all_held = asyncio.Event()
        self.release = asyncio.Event()
        self._counter = TiktokenCounter("cl100k_base", max_tokens=8191)

    async def embeddings(self, request):
        body = await request.json()
        (text,) = body["input"]
        kind = text.split()[0]
        tokens = int(self._counter.count([text]).lengths[0])
        self.received[text] += 1
        first = self.received[text] == 1
        if kind == "limited" and first:
            headers = {"Retry-After": "0"}
            return web.json_response({"error": {"code": "rate_limit_exceeded"}}, status=429, headers=headers)
        if kind == "refused":
            return web.json_response({"error": {"code": "invalid_request_error"}}, status=400)
        # From here on it is carried out, whatever the caller hears of it.
        self.tokens += tokens
        if kind == "broken" and first:
            return web.json_response({"error": {"code": "server_error"}}, status=500)
        if kind == "dropped" and first:
            request.transport.abort()
            return web.Response()
        if kind in {"abandoned", "killed"}:
            self.arrived[text].set()
            self.held += kind == "killed"
            if self.held == SLOTS:
                self.all_held.set()
            await self.release.wait()
        vector = vector_of(text, 1536)
        written = base64.b64encode((vector / np.linalg.norm(vector)).astype("<f4").tobytes()).decode()
        data = [{"object": "embedding", "index": 0, "embedding": written}]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def arrival(self, request):
        await self.arrived[request.query["text"]].wait()
        return web.Response()

    @contextlib.asynccontextmanager
    async def running(self):
        app = web.Application()
        app.router.add_post("/v1/embeddings", self.embeddings)
        app.router.add_get("/arrived", self.arrival)
        runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


@pytest.fixture(params=["sqlite", "redis"])
def books(request, tmp_path):
    """The settings of a ledger, and what opens it at another time."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.sqlite"
        return {"ledger.path": str(path)}, lambda clock: SqliteLedger(path, clock=clock)
    url = request.getfixturevalue("valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return {"ledger.backend": "redis", "ledger.url": url}, lambda clock: RedisLedger(url, clock=clock)


def texts_of(process, chance):
    kinds = ["killed"] if process == 3 else ["plain"] * 6 + ["limited", "refused", "broken", "dropped", "abandoned"]
    return [
        " ".join([chance.choice(kinds), f"{process}/{number}", *chance.choices(WORDS, k=chance.randint(5, 60))])
        for number in range(CALLS)
    ]


async def spend(settings, base, texts):
    """A process that makes these calls at once."""
    overrides = {
        "routes.r": {"model": "text-embedding-3-small", "provider": "openai", "base_url": f"{base}/v1", "api_key": KEY},
        "budgets.shared": {"usd": "0.00013"},
        "cache.backend": "none",
        "batching.across_callers": False,
        "upstream.concurrency": SLOTS,
        "upstream.first_wait_s": 0.001,
        "upstream.longest_wait_s": 0.002,
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("spender.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    process.stdin.write(json.dumps([overrides, base, texts]).encode())
    process.stdin.close()
    return process


@pytest.mark.parametrize("seed", [1, 2])
def test_two_hundred_calls_in_four_processes(books, seed):
    settings, open_ledger = books
    chance = random.Random(seed)

    async def main():
        server = Server()
        samples = []
        async with server.running() as base:
            ledger = open_ledger(time.time)

            async def sample():
                while True:
                    (standing,) = await ledger.standings([LIMIT])
                    samples.append(standing.spent + standing.held)
                    await asyncio.sleep(0)

            sampling = asyncio.create_task(sample())
            doomed = await spend(settings, base, texts_of(3, chance))
            await asyncio.wait_for(server.all_held.wait(), 60)
            # The slots are taken, so that no other request of this process is on its way.
            others = [await spend(settings, base, texts_of(process, chance)) for process in range(3)]
            outputs = [asyncio.create_task(process.communicate()) for process in others]
            doomed.kill()
            await doomed.wait()
            outcomes = collections.Counter()
            for output in outputs:
                outcomes.update(json.loads((await asyncio.wait_for(output, 120))[0]))
            server.release.set()
            sampling.cancel()
            await ledger.aclose()
        later = open_ledger(lambda: time.time() + 3600)
        await later.expire()
        (standing,) = await later.standings([LIMIT])
        entries = await later.entries()
        await later.aclose()
        return server, samples, outcomes, standing, entries

    server, samples, outcomes, standing, entries = asyncio.run(main())
    assert sum(outcomes.values()) == 3 * CALLS
    assert outcomes["answered"] > 0
    assert outcomes["abandoned"] > 0
    assert outcomes["over budget"] > 0
    assert outcomes["RefusedInputError"] > 0
    assert len(samples) > 10
    assert max(samples) <= LIMIT.nanousd
    assert standing.held == 0
    assert standing.spent == server.tokens * PRICE
    assert sum(entry.spent for entry in entries) == standing.spent
    # What the killed process had on its way may be billed, and is told apart.
    killed = [entry for entry in entries if entry.state == "expired"]
    assert sum(entry.unsure > 0 for entry in killed) == server.held == SLOTS
    figures = dict(outcomes), len(samples), max(samples), standing.spent, server.tokens * PRICE
    logging.getLogger(__name__).info("ended %s; %d samples, highest %d; ledger %d, server %d", *figures)
