"""Concurrent callers of one short text each, with and without batching across callers; and what a lone caller pays.

    python benchmarks/batching.py [--callers 16] [--texts 4000] [--rounds 5]

The built-in runtime with the default model, cache off, all texts unique. Each caller sends its next text when it has
the vector of the last. With and without alternate round by round, in one process. Vectors of both ways are compared.
A lone caller is timed against the same runtime called directly: tokenize, `LocalModel.run`, normalized already.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import time

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
    """Questions of 5 to 15 tokens."""
    return [f"{next(_numbers)} " + " ".join(_chance.choices(WORDS, k=_chance.randint(3, 10))) for _ in range(count)]


def embedder(*, across):
    return AsyncEmbedder(
        Config.load(environ={}, overrides={"batching.across_callers": across, "cache.backend": "none"})
    )


async def load(serving, texts, callers, input_type):
    """Texts a second, each one's seconds, and all vectors in order."""
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
    """Seconds that queries take while one bulk request runs."""
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


async def lone(serving, model, count):
    """Seconds of single queries: through `embed`, and by the runtime directly, one after the other."""
    ours, direct = [], []
    for text, other in zip(texts_of(count), texts_of(count), strict=True):
        began = time.perf_counter()
        await serving.embed([text], input_type="query")
        middle = time.perf_counter()
        tokenized = model.tokenize([other], "query")
        await model.run(tokenized, Batch(np.zeros(1, np.int64), int(tokenized.lengths[0])))
        direct.append(time.perf_counter() - middle)
        ours.append(middle - began)
    return ours, direct


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
        ways = {"batched across callers": with_it, "each by itself": without}
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
            print(f"lowest cosine between both: {lowest:.6f}")
        documents = [" ".join(texts_of(12)) for _ in range(1500)]
        for name, serving in ways.items():
            taken = await mixed(serving, texts_of(3000), documents)
            print(f"queries beside a bulk request, {name:22}: {len(taken)}, {both(taken)}")
    async with embedder(across=True) as serving:
        await serving.embed(texts_of(300))
        model = await serving._open("auto")  # noqa: SLF001  the runtime itself
        ours, direct = await lone(serving, model, 2000)
        ratio = statistics.median(ours) / statistics.median(direct)
        print(f"lone caller: embed p50 {ms(ours, 0.5)} ms, the runtime p50 {ms(direct, 0.5)} ms, ratio {ratio:.3f}")


asyncio.run(main())
