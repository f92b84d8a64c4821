"""Several processes over one cache: each text is computed once, and no process hangs when another ends."""

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import redis

from embedway.cache.base import Group
from embedway.cache.key import KeyMaker
from embedway.cache.redis import RedisCache
from embedway.cache.vector_cache import VectorCache
from embedway.compute import Computed, ComputeRequest
from embedway.errors import RefusedInputError
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.providers.fake import vector_of
from embedway.types import Bill, Space, TextMeta
from inside import variables

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20}
#: A process that embeds in concurrent calls on command, and prints the texts that its provider received.
WORKER = """
import asyncio, json, sys
from embedway import AsyncEmbedder, Config
from inside import provider_of

overrides, requests = json.loads(sys.stdin.readline())

async def main():
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        await embedder.models.warm("acme/m")
        print("ready", flush=True)
        sys.stdin.readline()
        results = await asyncio.gather(*(embedder.embed(texts, model="acme/m") for texts in requests))
        calls = provider_of(embedder).calls
        vectors = [result.vectors.tolist() for result in results]
        print(json.dumps([[text for call in calls for text in call], vectors]), flush=True)

asyncio.run(main())
"""
_namespaces = itertools.count()


@contextlib.contextmanager
def process(overrides, requests):
    command = [sys.executable, "-c", WORKER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=variables(), text=True, **pipes) as running:
        try:
            running.stdin.write(json.dumps([overrides, requests]) + "\n")
            running.stdin.flush()
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


def go(running):
    running.stdin.write("go\n")
    running.stdin.flush()


def overrides_for(url, **more):
    return {
        "models.m": MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake", "options": {"max_inputs": "4", "delay_s": "0.02"}},
        "cache.backend": "redis",
        "cache.url": url,
        "cache.namespace": f"processes{next(_namespaces)}",
        **more,
    }


def overlapping(number):
    """Eight requests; other processes need some of their texts too."""
    return [[f"text {(number * 5 + request * 3 + n) % 40}" for n in range(10)] for request in range(8)]


def finished(processes):
    """Return the texts that all processes requested from their providers, after a check of the vectors."""
    sent = []
    for number, running in processes:
        calls, vectors = json.loads(running.stdout.readline())
        sent += calls
        for texts, rows in zip(overlapping(number), vectors, strict=True):
            np.testing.assert_allclose(rows, [vector_of(text, 16) for text in texts], atol=1e-6)
    return sent


@pytest.mark.parametrize("tiered", [True, False])
def test_four_processes_over_one_valkey_compute_each_text_once(valkey, tiered):
    overrides = overrides_for(valkey, **{"cache.tiered": tiered})
    with contextlib.ExitStack() as stack:
        processes = [(number, stack.enter_context(process(overrides, overlapping(number)))) for number in range(4)]
        for _, running in processes:
            go(running)
        sent = finished(processes)
    wanted = {text for number in range(4) for texts in overlapping(number) for text in texts}
    assert sorted(sent) == sorted(wanted)


def test_when_the_leading_process_is_killed_the_others_compute_each_text_once(valkey):
    overrides = overrides_for(valkey, **{"cache.lease_s": 1.0})
    slow = overrides | {"routes.r": overrides["routes.r"] | {"options": {"delay_s": "600"}}}
    with contextlib.ExitStack() as stack:
        leader = stack.enter_context(process(slow, overlapping(0)))
        followers = [(number, stack.enter_context(process(overrides, overlapping(number)))) for number in range(1, 4)]
        go(leader)
        client = stack.enter_context(contextlib.closing(redis.Redis.from_url(valkey)))
        wanted = {text for texts in overlapping(0) for text in texts}
        while len(list(client.scan_iter("embedway:lease:*"))) < len(wanted):
            assert leader.poll() is None
        for _, running in followers:
            go(running)
        leader.kill()
        sent = finished(followers)
    assert sorted(sent) == sorted({text for n in range(1, 4) for texts in overlapping(n) for text in texts})


def test_four_processes_over_one_sqlite_file_lose_nothing(tmp_path):
    overrides = overrides_for("", **{"cache.backend": "sqlite", "cache.path": str(tmp_path / "v.sqlite")})
    del overrides["cache.url"]
    with contextlib.ExitStack() as stack:
        processes = [(number, stack.enter_context(process(overrides, overlapping(number)))) for number in range(4)]
        for _, running in processes:
            go(running)
        sent = finished(processes)
        wanted = {text for number in range(4) for texts in overlapping(number) for text in texts}
        assert set(sent) == wanted
        late = stack.enter_context(process(overrides, overlapping(2)))
        go(late)
        assert finished([(2, late)]) == []


class Computing:
    """Model of two texts, for a cache alone."""

    name, max_tokens, variant = "m", 9, ""
    space = Space("m", "1", 4, "mean", (), True)

    def __init__(self):
        self.namespace = f"lease{next(_namespaces)}"
        self.group = Group(self.name, self.space.id, self.namespace)
        self.keys = KeyMaker(
            self.space,
            variant="",
            input_type="document",
            on_overflow="truncate",
            max_tokens=9,
            namespace=self.namespace,
        ).keys(["a", "b"])

    def request(self):
        return ComputeRequest(("a", "b"), self.space, CallBudget(Purpose("m")), partial=True)

    def computed(self, metas, errors=None):
        return Computed({"dense": np.ones((2, 4), np.float32) / 2}, metas, Bill(0, 0, 0, ()), errors or {})

    def cost_nanousd(self, tokens, dimensions=None):
        return 0


def test_a_lease_is_renewed_during_the_computation_and_released(valkey):
    model = Computing()
    renewals, enough = [], asyncio.Event()

    async def sleep(seconds):
        renewals.append(seconds)
        if len(renewals) == 4:
            enough.set()
        await asyncio.sleep(0.3)

    async def main():
        cache, other = (
            VectorCache(RedisCache(valkey), namespace=model.namespace, lease_s=0.6, sleep=sleep),
            RedisCache(valkey),
        )
        granted = []

        async def compute(request):
            await enough.wait()  # three sleeps: longer than a lease
            granted.extend(await other.lease(model.group, model.keys, 1))
            return model.computed([TextMeta(1), TextMeta(1)])

        model.compute = compute
        await cache.wrap(model).compute(model.request())
        await cache.settle()
        granted += await other.lease(model.group, model.keys, 1)
        await other.release(model.group, model.keys)
        await other.aclose()
        await cache.aclose()
        return granted

    assert asyncio.run(main()) == [False, False, True, True]
    assert renewals[0] == pytest.approx(0.2)


def test_leases_of_failed_texts_are_released_at_once(valkey):
    refused = RefusedInputError("no", route="r")
    model = Computing()

    async def main():
        cache, other = VectorCache(RedisCache(valkey), namespace=model.namespace, lease_s=600), RedisCache(valkey)

        async def compute(request):
            return model.computed([TextMeta(1), None], {1: refused})

        model.compute = compute
        found = await cache.wrap(model).compute(model.request())
        await cache.settle()
        granted = await other.lease(model.group, model.keys, 1)
        await other.release(model.group, model.keys)
        await other.aclose()
        await cache.aclose()
        return found, granted

    found, granted = asyncio.run(main())
    assert found.errors == {1: refused}
    assert granted == [True, True]
