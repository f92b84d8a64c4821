"""Time of searches in a session over a large collection: p50 by mode, with and without highlighting by meaning.

    python benchmarks/interactive.py --text PASSAGES.jsonl.gz --rows 200000 --to parquet

The rows have the passages as texts, each with its number, and random vectors in the space of all-MiniLM-L6-v2: the
time of a search does not depend on what the vectors mean. The first search of each mode, which reads the collection or
builds the keyword index, has a number of its own. Every question occurs once, so that neither queries nor sentences are
cached, except in the last row.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from embedway import AsyncEmbedder, Config
from embedway.collections import open_async
from embedway.collections.chunks import Chunk
from embedway.collections.record import Record
from embedway.collections.stores import create_store

MODEL = "all-MiniLM-L6-v2"
HERE = Path(__file__).parent
BATCH = 1_000


def passages(path):
    read = gzip.open if path.suffix == ".gz" else open
    with read(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def write(destination, texts, rows, space):
    rng = np.random.default_rng(0)
    store = create_store(destination, overwrite=True)
    store.begin(Record(space))
    for first in range(0, rows, BATCH):
        chunks = [
            Chunk(f"docs/{n}.md#0", f"{n}.md", f"{texts[n % len(texts)]} Number {n}.", 0, 9, 1, None, "docs", {}, 0, 1)
            for n in range(first, min(first + BATCH, rows))
        ]
        vectors = rng.standard_normal((len(chunks), space.dimensions)).astype(np.float32)
        store.write(chunks, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    store.commit()
    store.close()


async def measure(destination, config, questions):
    async with AsyncEmbedder(config=config) as embedder, open_async(destination, embedder=embedder) as collection:
        await embedder.models.warm(MODEL)
        parts = [questions[start::5] for start in range(5)]
        ways = [
            ("vector", False),
            ("keyword", False),
            ("hybrid", False),
            ("vector", True),
            ("hybrid", True),
        ]
        for (mode, highlight), part in zip(ways, parts, strict=True):
            await timed(collection, part, mode, highlight=highlight)
        await timed(collection, parts[4], "hybrid", highlight=True, note=", asked again")


async def timed(collection, questions, mode, *, highlight, note=""):
    times_ms = []
    for question in questions:
        started = time.perf_counter()
        await collection.search(question, mode=mode, highlight=highlight)
        times_ms.append((time.perf_counter() - started) * 1000)
    first, later = times_ms[0], times_ms[1:]
    way = f"{mode}, highlight by {'meaning' if highlight else 'words'}{note}"
    p90 = statistics.quantiles(later, n=10)[-1]
    print(
        f"{way}: first {first:,.0f} ms; {len(later)} later ones: p50 {statistics.median(later):.1f} ms, p90 {p90:.1f}"
    )


async def space_of(config):
    async with AsyncEmbedder(config=config) as embedder:
        return (await embedder.models.describe(MODEL, load=True)).space


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="passages, .jsonl or .jsonl.gz with `text`")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--to", default="parquet,jsonl", help="of parquet, jsonl and lancedb")
    options = parser.parse_args()
    lines = (HERE / "retrieval_questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        config = Config.load(environ={}, overrides={"cache.backend": "none", "search.directory": f"{folder}/keywords"})
        space = asyncio.run(space_of(config))
        for kind in options.to.split(","):
            destination = f"lancedb:{folder}/db#rows" if kind == "lancedb" else f"{folder}/rows.{kind}"
            write(destination, passages(options.text), options.rows, space)
            print(f"{kind}, {options.rows:,} rows", flush=True)
            asyncio.run(measure(destination, config, questions))


if __name__ == "__main__":
    main()
