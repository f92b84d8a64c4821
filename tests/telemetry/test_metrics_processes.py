"""Metrics of four processes together: they equal what the server received, and what the ledger spent.

- attempts by outcome: the server's requests by what it did with them
- retries: the server's requests with a text that it had received before
- texts of the specification's usage: the texts of answered calls
- billed tokens: the tokens of the server's answers that a caller waited for
- cost: the spent amounts of the ledger, with those of failed and cancelled requests
"""

import asyncio
import base64
import collections
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from embedway.ledger.sqlite import SqliteLedger
from embedway.providers import fake
from serving import serving_app

MODEL, WIDTH, CALLS, PROCESSES = "acme/m", 16, 40, 4
#: Three of ten texts meet a fault at their first request; some callers cancel their call.
KINDS = ["plain"] * 12 + ["limited", "broken", "dropped", "slow"] * 2 + ["abandoned"] * 2


class Server:
    """OpenAI's interface with faults: the first word of a text selects the fault of its first request."""

    def __init__(self):
        self.fates = collections.Counter()
        self.requests = collections.Counter()
        self.tokens = 0
        self.arrived = collections.defaultdict(asyncio.Event)
        self.left = collections.defaultdict(asyncio.Event)
        self.app = web.Application()
        self.app.router.add_post("/v1/embeddings", self.embeddings)
        self.app.router.add_get("/arrived", self.arrival)
        self.app.router.add_get("/left", self.departure)

    async def arrival(self, request):
        await self.arrived[request.query["text"]].wait()
        return web.Response()

    async def departure(self, request):
        self.left[request.query["text"]].set()
        return web.Response()

    async def embeddings(self, request):
        body = await request.json()
        (text,) = body["input"]
        kind = text.split()[0]
        self.requests[text] += 1
        fate = kind if kind == "abandoned" or self.requests[text] == 1 else "plain"
        self.fates[fate] += 1
        if fate == "limited":
            return web.json_response({"error": {"code": "rate_limit"}}, status=429, headers={"Retry-After": "0"})
        if fate == "broken":
            return web.json_response({"error": {"code": "server_error"}}, status=500)
        if fate == "dropped":
            request.transport.abort()
            return web.Response()
        if fate == "abandoned":
            self.arrived[text].set()
            await self.left[text].wait()
            return web.Response(status=500)  # nobody receives it
        if fate == "slow":
            await asyncio.sleep(0.02)
        tokens = len(text.split())
        self.tokens += tokens
        vector = fake.vector_of(text, WIDTH)
        vector = (vector / np.linalg.norm(vector)).astype("<f4")
        number = base64.b64encode(vector.tobytes()).decode() if body.get("encoding_format") else vector.tolist()
        data = [{"object": "embedding", "index": 0, "embedding": number}]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})


async def spend(base, folder, ledger, calls):
    """Start a process that makes these calls at once, in multiprocess mode."""
    overrides = {
        "models.m": {
            "name": MODEL,
            "dimensions": WIDTH,
            "max_tokens": 512,
            "tokenizer": "estimate",
            "price_usd_per_million_tokens": "1",
        },
        "routes.r": {"model": MODEL, "provider": "openai-compatible", "base_url": f"{base}/v1", "api_key": "sk-test"},
        "ledger.path": str(ledger),
        "cache.backend": "none",
        "batching.across_callers": False,
        "upstream.first_wait_s": 0.001,
        "upstream.longest_wait_s": 0.002,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parents[1] / "support" / "spender.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
    )
    out, _ = await process.communicate(json.dumps([overrides, base, MODEL, calls]).encode())
    return collections.Counter(json.loads(out))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sums_equal_the_servers_counts_and_the_ledger(seed, tmp_path):
    chance, server = random.Random(seed), Server()
    folder, ledger = tmp_path / "metrics", tmp_path / "ledger.sqlite"
    folder.mkdir()

    def calls(process):
        words = (
            " ".join(chance.choices(["a", "few", "plain", "words"], k=chance.randint(1, 30))) for _ in range(CALLS)
        )
        return [[f"{chance.choice(KINDS)} {process}/{number} {rest}"] for number, rest in enumerate(words)]

    async def main():
        async with serving_app(server.app) as port:
            base = f"http://127.0.0.1:{port}"
            return await asyncio.gather(*(spend(base, folder, ledger, calls(one)) for one in range(PROCESSES)))

    async def spent():
        books = SqliteLedger(ledger)
        entries = await books.entries()
        await books.aclose()
        return sum(entry.spent for entry in entries)

    outcomes = sum(asyncio.run(main()), collections.Counter())
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    samples = [sample for family in registry.collect() for sample in family.samples]

    def total(name, label="", value=""):
        return sum(one.value for one in samples if one.name == name and (not label or one.labels[label] == value))

    fates = server.fates
    attempts = {
        one: total("embedway_attempts_total", "outcome", one)
        for one in ("ok", "RateLimitedError", "UnavailableError", "cancelled")
    }
    assert attempts == {
        "ok": fates["plain"] + fates["slow"],
        "RateLimitedError": fates["limited"],
        "UnavailableError": fates["broken"] + fates["dropped"],
        "cancelled": fates["abandoned"],
    }
    assert total("embedway_attempts_total") == sum(fates.values()) == sum(server.requests.values())
    assert total("embedway_retries_total") == sum(count - 1 for count in server.requests.values())
    assert total("embedding_batch_size_sum") == len(server.requests)
    assert total("embedding_model_usage_total") == outcomes["answered"] == fates["plain"] + fates["slow"]
    assert total("embedway_requests_total", "outcome", "cancelled") == outcomes["abandoned"] == fates["abandoned"]
    assert total("embedway_requests_total") == PROCESSES * CALLS
    assert total("embedway_tokens_total", "kind", "billed") == server.tokens
    assert round(total("embedding_cost_dollars_total") * 1e9) == asyncio.run(spent())
    for name in ("embedway_requests_running", "embedway_waiting"):
        assert {one.value for one in samples if one.name == name} <= {0.0}
    assert min(fates[kind] for kind in ("limited", "broken", "dropped", "slow", "abandoned")) > 0
