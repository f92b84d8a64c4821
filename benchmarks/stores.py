"""Time and memory of local stores: writing, changing, and searching.

    python benchmarks/stores.py --rows 1000000 --stores parquet,jsonl,lancedb   # rows/s and peak memory, beside loaders
    python benchmarks/stores.py --rows 200000 --search              # first search, and median of later ones
    python benchmarks/stores.py --rows 20000 --types                # size, and error of the cosine by vector type

Each measurement runs in a process of its own, so that its peak memory is its own. Loaders are pyarrow, the module json,
and LanceDB's own library, with the same columns. Files are written below TMPDIR.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import store_loaders as loaders
from embedway.collections.documents import DocumentKey
from embedway.collections.record import VECTOR_TYPES
from embedway.collections.stores import create_store, open_store
from store_rows import check_disk, chunk_of, compare, fill, measure, remove

_LOADERS = {"parquet": loaders.parquet, "jsonl": loaders.jsonl, "lancedb": loaders.lancedb}


def write(path, rows, dimensions, vector_type="float32"):
    """Write rows. The library is imported first, so that its import is no part of the time, as for the loaders."""
    importlib.import_module("lancedb" if path.startswith("lancedb:") else "pyarrow.parquet")
    return fill(create_store(path, overwrite=True), rows, dimensions, vector_type)


def change(path, rows, dimensions):
    """Replace a hundredth of the documents."""
    store = open_store(path)
    store.begin_update(store.record)
    for first in range(0, rows, 1000):
        chunks = [chunk_of(n) for n in range(first, min(first + 10, rows))]
        store.remove([DocumentKey("docs", chunks[0].document_id)])
        store.write(chunks, np.ones((len(chunks), dimensions), np.float32))
    store.commit()
    store.close()


def list_documents(path, rows, dimensions):  # noqa: ARG001  as the others
    store = open_store(path)
    assert sum(1 for _ in store.documents()) == -(-rows // 10)
    store.close()


def search(path, rows, dimensions):  # noqa: ARG001  as the others
    """Return seconds of the first and second search, and the median of later ones."""
    queries = np.random.default_rng(1).standard_normal((22, dimensions)).astype(np.float32)
    store = open_store(path)
    seconds = []
    for query in queries:
        start, cpu = time.perf_counter(), time.process_time()
        store.search(query, 10)
        seconds.append((time.perf_counter() - start, time.process_time() - cpu))
    return seconds[0], seconds[1], [statistics.median(one) for one in zip(*seconds[2:], strict=True)]


def cosine_errors(path, rows, dimensions):
    """Return the mean and the largest difference of the cosine to float32, and the share of the best ten found."""
    exact, vectors = open_store(f"{path}.exact.parquet"), open_store(path)
    wrong, found = [], []
    for query in np.random.default_rng(2).standard_normal((50, dimensions)).astype(np.float32):
        best = {hit.id: hit.score for hit in exact.search(query, rows)}
        own = vectors.search(query, rows)
        wrong += [abs(hit.score - best[hit.id]) for hit in own]
        found.append(len({hit.id for hit in own[:10]} & set(list(best)[:10])) / 10)
    return statistics.mean(wrong), max(wrong), statistics.mean(found)


def scan(path, rows, dimensions):
    """Return the seconds of a search that reads all rows plainly, as a program without an index of the file does."""
    import pyarrow.parquet as pq

    query = np.random.default_rng(1).standard_normal(dimensions).astype(np.float32)
    best = []
    started, cpu = time.perf_counter(), time.process_time()
    if path.endswith(".jsonl"):
        with Path(path).open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                vector = np.array(row.pop("vector"), np.float32)
                best = sorted([*best, (float(vector @ query), row["id"])])[-10:]
    else:
        for batch in pq.ParquetFile(path).iter_batches():
            vectors = batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, dimensions)
            found = zip((vectors @ query).tolist(), batch.column("id").to_pylist(), strict=True)
            best = sorted([*best, *found])[-10:]
    assert len(best) == min(10, rows)
    return time.perf_counter() - started, time.process_time() - cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--stores", default="parquet,jsonl", help="of parquet, jsonl and lancedb")
    parser.add_argument("--repeat", type=int, help="runs of each side; by default 3, and 1 above 200,000 rows")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--types", action="store_true")
    options = parser.parse_args()
    rows, dimensions = options.rows, options.dimensions
    with tempfile.TemporaryDirectory() as folder:
        check_disk(folder, rows, dimensions)
        if options.types:
            report_types(folder, min(rows, 20_000), dimensions)
            return
        for store in options.stores.split(","):
            path = f"lancedb:{folder}#rows" if store == "lancedb" else f"{folder}/rows.{store}"
            file = Path(f"{folder}/rows.lance") if store == "lancedb" else Path(path)
            if options.search:
                measure(write, path, rows, dimensions)
                report_search(store, path, rows, dimensions)
            else:
                report_writing(store, path, file, options)
            remove(file)


def report_writing(store, path, file, options):
    rows, dimensions = options.rows, options.dimensions
    clean = lambda: remove(file)  # noqa: E731  one path
    compare(store, rows, dimensions, (write, path), (_LOADERS[store], path), repeat=options.repeat, clean=clean)
    measure(write, path, rows, dimensions)
    report(f"{store}: replace 1 % of the documents", rows, measure(change, path, rows, dimensions))
    report(f"{store}: list the documents", rows, measure(list_documents, path, rows, dimensions))


def report_search(store, path, rows, dimensions):
    if store != "lancedb":
        (wall, cpu), _, _ = measure(scan, path, rows, dimensions)
        print(f"{store}: plain scan of {rows:,} rows: {wall:.3f} s, {cpu:.3f} CPU s")
    (first, second, later), _, memory = measure(search, path, rows, dimensions)
    for name, (wall, cpu) in (("first", first), ("second", second), ("median of later", later)):
        print(f"{store}: {name} search: {wall:.3f} s, {cpu:.3f} CPU s")
    print(f"{store}: peak of the searches {memory:,.0f} MiB", flush=True)


def report_types(folder, rows, dimensions):
    write(f"{folder}/exact.parquet", rows, dimensions)
    for kind in VECTOR_TYPES:
        path = f"{folder}/{kind}.parquet"
        write(path, rows, dimensions, kind)
        write(f"{path}.exact.parquet", rows, dimensions)
        (mean, largest, found), _, _ = measure(cosine_errors, path, rows, dimensions)
        size = Path(path).stat().st_size / rows
        print(f"{kind}: {size:,.0f} bytes a row, cosine error mean {mean:.1e}, largest {largest:.1e}, "
              f"best ten found {found:.0%}")  # fmt: skip


def report(name, rows, measured):
    _, (seconds, cpu), memory = measured
    print(f"{name}: {rows / cpu:,.0f} rows per CPU second ({seconds:.1f} s, {cpu:.1f} CPU s), peak {memory:,.0f} MiB",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
