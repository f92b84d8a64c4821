"""Several processes over one cache: each text is computed once, and the end of one hangs nobody."""

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
from embedway.cache.vector_cache import Made, VectorCache
from embedway.errors import RefusedInputError
from embedway.providers.fake import vector_of
from embedway.types import Space, TextMeta

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20}
#: A process that embeds in several concurrent calls when told to, and tells what its provider was asked for.
WORKER = """
import asyncio, json, sys
from embedway import AsyncEmbedder, Config

overrides, requests = json.loads(sys.stdin.readline())

async def main():
    async with AsyncEmbedder(Config.load(environ={}, overrides=overrides)) as embedder:
        await embedder.warm("acme/m")
        print("ready", flush=True)
        sys.stdin.readline()
        results = await asyncio.gather(*(embedder.embed(texts, model="acme/m") for texts in requests))
        calls = embedder._models.routes["acme/m"][0].provider.calls
        vectors = [result.vectors.tolist() for result in results]
        print(json.dumps([[text for call in calls for text in call], vectors]), flush=True)

asyncio.run(main())
"""
_namespaces = itertools.count()


@contextlib.contextmanager
def process(overrides, requests):
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
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
    """Eight requests, with texts that other processes want too."""
    return [[f"text {(number * 5 + request * 3 + n) % 40}" for n in range(10)] for request in range(8)]


def finished(processes):
    """What all of them asked their providers for; their vectors are checked."""
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


def test_a_lease_is_renewed_for_as_long_as_computing_takes_and_given_back(valkey):
    group, space = Group("m", "m@1/4", f"renewed{next(_namespaces)}"), Space("m", "1", 4, "mean", (), True)
    maker = KeyMaker(space, variant="", input_type="document", on_overflow="truncate", max_tokens=9, namespace="n")
    renewals, enough = [], asyncio.Event()

    async def sleep(seconds):
        renewals.append(seconds)
        if len(renewals) == 4:
            enough.set()
        await asyncio.sleep(0.3)

    async def main():
        recall, other = VectorCache(RedisCache(valkey), lease_s=0.6, sleep=sleep), RedisCache(valkey)
        granted = []

        async def compute(rows, landed):
            await enough.wait()  # three sleeps: more than a lease
            granted.extend(await other.lease(group, keys, 1))
            return Made(np.ones((len(rows), 4), np.float32), [TextMeta(1, None, 0) for _ in rows])

        keys = maker.keys(["a", "b"])
        await recall.vectors(["a", "b"], maker, group, space, compute)
        await recall.settle()
        granted += await other.lease(group, keys, 1)
        await other.release(group, keys)
        await other.aclose()
        await recall.aclose()
        return granted

    assert asyncio.run(main()) == [False, False, True, True]
    assert renewals[0] == pytest.approx(0.2)


def test_what_could_not_be_computed_is_given_back_at_once(valkey):
    refused = RefusedInputError("no", route="r")
    group, space = Group("m", "m@1/4", f"refused{next(_namespaces)}"), Space("m", "1", 4, "mean", (), True)
    maker = KeyMaker(space, variant="", input_type="document", on_overflow="truncate", max_tokens=9, namespace="n")

    async def main():
        recall, other = VectorCache(RedisCache(valkey), lease_s=600), RedisCache(valkey)

        async def compute(rows, landed):
            return Made(np.ones((len(rows), 4), np.float32), [TextMeta(1), None], {1: refused})

        found = await recall.vectors(["a", "b"], maker, group, space, compute)
        await recall.settle()
        granted = await other.lease(group, maker.keys(["a", "b"]), 1)
        await other.release(group, maker.keys(["a", "b"]))
        await other.aclose()
        await recall.aclose()
        return found, granted

    found, granted = asyncio.run(main())
    assert found.errors == {1: refused}
    assert granted == [True, True]
