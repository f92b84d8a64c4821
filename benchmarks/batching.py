"""Concurrent callers of one short text each, with and without batching across callers; and the overhead of one caller.

    python benchmarks/batching.py [--callers 16] [--texts 4000] [--rounds 5]

The built-in runtime with the default model, cache off, all texts unique. Each caller sends its next text when it has
the vector of the last. The variants alternate round by round, in one process, and their vectors are compared. A single
caller is compared with the same runtime called directly: tokenize, then `Encoder.run`, which normalizes. It is measured
without a cache, and with the default SQLite cache in its own folder; the variants alternate.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from embedway import AsyncEmbedder, Config
from embedway.types import Batch

_numbers = itertools.count()
_chance = random.Random(11)  # noqa: S311  texts, no secrets
WORDS = [
    "how",
    "do",
    "i",
    "open",
    "read",
    "write",
    "close",
    "parse",
    "sort",
    "split",
    "join",
    "file",
    "list",
    "dict",
    "queue",
    "socket",
    "thread",
    "task",
    "json",
]


def texts_of(count):
    """Return questions of 5 to 15 tokens."""
    return [f"{next(_numbers)} " + " ".join(_chance.choices(WORDS, k=_chance.randint(3, 10))) for _ in range(count)]


def embedder(*, across, **overrides):
    overrides = {"cache.backend": "none"} | overrides
    return AsyncEmbedder(config=Config.load(environ={}, overrides={"batching.across_callers": across} | overrides))


async def load(serving, texts, callers, input_type):
    """Return texts per second, the seconds of each, and all vectors in order."""
    taken = np.empty(len(texts))
    vectors = [None] * len(texts)
    left = iter(enumerate(texts))

    async def caller():
        for number, text in left:
            began = time.perf_counter()
            vectors[number] = (await serving.embed([text], input_type=input_type)).vectors[0]
            taken[number] = time.perf_counter() - began

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(texts) / (time.perf_counter() - started), taken, np.array(vectors)


async def mixed(serving, texts, documents):
    """Return the seconds of queries while one bulk request runs."""
    bulk = asyncio.create_task(serving.embed(documents))
    await asyncio.sleep(0)
    taken = []
    for text in texts:
        began = time.perf_counter()
        await serving.embed([text], input_type="query")
        taken.append(time.perf_counter() - began)
        if bulk.done():
            break
    await bulk
    return taken


async def lone(ways, *, turns, texts):
    """Return the seconds of single queries for each variant, with this many texts of each per turn."""
    taken = {name: [] for name in ways}
    for turn in range(turns):
        names = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in names:
            for text in texts_of(texts):
                began = time.perf_counter()
                await ways[name](text)
                taken[name].append(time.perf_counter() - began)
            # The vector is stored during this variant's next query. Wait, so that the last is not stored in the next
            # variant's.
            await asyncio.sleep(0.02)
    return taken


async def lone_ways(serving):
    """Return the variants, all on one loaded model: the runtime itself, and `embed` with and without its cache."""
    model, cache = (await serving._models.open("auto")).encoder(), serving._pipeline.cache  # noqa: SLF001  the runtime itself

    async def directly(text):
        tokenized = model.tokenize([text], "query")
        await model.run(tokenized, Batch(np.zeros(1, np.int64), int(tokenized.lengths[0])))

    async def stored(text):
        await serving.embed([text], input_type="query")

    async def without(text):
        serving._pipeline.cache = None  # noqa: SLF001  same state as with `cache.backend` none
        await stored(text)
        serving._pipeline.cache = cache  # noqa: SLF001

    return {"the runtime called directly": directly, "embed without a cache": without, "embed with SQLite": stored}


def ms(seconds, share):
    return f"{np.quantile(seconds, share) * 1000:.2f}" if len(seconds) else "-"


def both(seconds):
    return f"p50 {ms(seconds, 0.5)} ms, p99 {ms(seconds, 0.99)} ms"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    async with embedder(across=True) as with_it, embedder(across=False) as without:
        ways = {"batched across callers": with_it, "each on its own": without}
        for serving in ways.values():
            await serving.embed(texts_of(300))
            await load(serving, texts_of(200), options.callers, "query")
        for kind in ("query", "document"):
            rates = {name: [] for name in ways}
            waits = {name: [] for name in ways}
            lowest = 1.0
            for _ in range(options.rounds):
                texts, seen = texts_of(options.texts), []
                for name, serving in ways.items():
                    rate, taken, vectors = await load(serving, texts, options.callers, kind)
                    rates[name].append(rate)
                    waits[name].append(taken)
                    seen.append(vectors)
                lowest = min(lowest, float((seen[0] * seen[1]).sum(1).min()))
            for name in ways:
                every = np.concatenate(waits[name])
                rate = statistics.median(rates[name])
                print(f"{options.callers} callers, one {kind} each, {name:22}: {rate:7.0f} texts/s, {both(every)}")
            print(f"lowest cosine between both variants: {lowest:.6f}")
        documents = [" ".join(texts_of(12)) for _ in range(1500)]
        for name, serving in ways.items():
            taken = await mixed(serving, texts_of(3000), documents)
            print(f"queries during a bulk request, {name:22}: {len(taken)}, {both(taken)}")
    await one_caller()


async def one_caller():
    with tempfile.TemporaryDirectory() as folder:
        cache = {"cache.backend": "sqlite", "cache.path": str(Path(folder, "vectors.sqlite"))}
        async with embedder(across=True, **cache) as serving:
            await serving.embed(texts_of(300))
            ways = await lone_ways(serving)
            await lone(ways, turns=3, texts=25)
            taken = await lone(ways, turns=80, texts=25)
    least = statistics.median(taken["the runtime called directly"])
    for name, seconds in taken.items():
        print(f"one caller, {name:27}: {both(seconds)}, ratio {statistics.median(seconds) / least:.3f}")


asyncio.run(main())
