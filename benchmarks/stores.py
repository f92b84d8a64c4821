"""Time and memory of local stores: writing, changing, and searching.

    python benchmarks/stores.py --rows 1000000 --stores parquet     # rows and peak memory, beside pyarrow alone
    python benchmarks/stores.py --rows 200000 --search              # first search, and median of later ones
    python benchmarks/stores.py --rows 20000 --types                # size, and error of the cosine by vector type

Each measurement runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from embedway.collections.documents import DocumentKey
from embedway.collections.record import VECTOR_TYPES, Record
from embedway.collections.stores import create_store, open_store
from embedway.collections.stores.arrow import ROW_GROUP_ROWS, batch_of, schema_of
from embedway.collections.stores.base import Chunk
from embedway.space import Space

BATCH = 512
TEXT = "A chunk of a document has some hundred words about one subject, and a heading above it. " * 8


def space_of(dimensions):
    return Space("benchmark", "ab" * 32, dimensions, "mean", normalized=True)


def batches(rows, dimensions):
    """Iterate over chunks and vectors; a document has ten chunks."""
    vectors = np.random.default_rng(0).standard_normal((BATCH * 8, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for first in range(0, rows, BATCH):
        some = range(first, min(first + BATCH, rows))
        yield [chunk_of(n) for n in some], np.roll(vectors, first // BATCH, axis=1)[: len(some)]


def chunk_of(n):
    name = f"folder/{n // 10}.md"
    text = f"{n} {TEXT}"
    return Chunk(
        f"docs/{name}#{n % 10}", name, text, 0, len(text), n % 10 + 1, f"Title {n // 10}", "docs", {}, n % 10, 10,
        headings=f"Title {n // 10}", context=f"Title {n // 10}", fingerprint=f"{n // 10:032x}",
    )  # fmt: skip


def write(path, rows, dimensions, vector_type="float32"):
    store = create_store(path, overwrite=True)
    store.begin(Record(space_of(dimensions), vector_type=vector_type))
    for chunks, vectors in batches(rows, dimensions):
        store.write(chunks, vectors)
    store.commit()


def write_with_arrow(path, rows, dimensions):
    """Write the same table with pyarrow alone, in row groups of the same size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = Record(space_of(dimensions))
    schema = schema_of(record)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["document_id", "source"]) as writer:
        buffered = []
        for chunks, vectors in batches(rows, dimensions):
            buffered.append(batch_of(chunks, vectors, record, schema))
            if len(buffered) * BATCH >= ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(buffered, schema))
                buffered = []
        if buffered:
            writer.write_table(pa.Table.from_batches(buffered, schema))


def only_rows(path, rows, dimensions):  # noqa: ARG001  as the others
    """Make the rows and write nothing."""
    for _ in batches(rows, dimensions):
        pass


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


def _measured(connection, action, arguments):
    start, cpu = time.perf_counter(), time.process_time()
    result = action(*arguments)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    connection.send((result, (seconds, cpu), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(action, *arguments):
    """Return the result of an action in a new process, its seconds (of time, of CPUs), and its peak memory in MiB."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(there, action, arguments))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--stores", default="parquet,jsonl")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--types", action="store_true")
    options = parser.parse_args()
    rows, dimensions = options.rows, options.dimensions
    with tempfile.TemporaryDirectory() as folder:
        if options.types:
            report_types(folder, min(rows, 20_000), dimensions)
            return
        _, (_, bare), _ = measure(only_rows, "", rows, dimensions)
        print(f"{rows:,} rows of {dimensions} dimensions; making them takes {bare:.1f} CPU s, which is subtracted")
        if "parquet" in options.stores and not options.search:
            report("pyarrow alone", rows, bare, measure(write_with_arrow, f"{folder}/arrow.parquet", rows, dimensions))
            Path(f"{folder}/arrow.parquet").unlink()
        for store in options.stores.split(","):
            path = f"{folder}/rows.{store}"
            report(f"{store}: write", rows, bare, measure(write, path, rows, dimensions))
            if options.search:
                (first, second, later), _, memory = measure(search, path, rows, dimensions)
                for name, (wall, cpu) in (("first", first), ("second", second), ("median of later", later)):
                    print(f"{store}: {name} search: {wall:.3f} s, {cpu:.3f} CPU s")
                print(f"{store}: peak of the searches {memory:,.0f} MiB")
            else:
                report(f"{store}: replace 1 % of the documents", rows, 0, measure(change, path, rows, dimensions))
                report(f"{store}: list the documents", rows, 0, measure(list_documents, path, rows, dimensions))
            Path(path).unlink()


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


def report(name, rows, bare, measured):
    _, (seconds, cpu), memory = measured
    rate = rows / max(cpu - bare, 1e-9)
    print(f"{name}: {rate:,.0f} rows per CPU second ({seconds:.1f} s, {cpu:.1f} CPU s in all), peak {memory:,.0f} MiB")


if __name__ == "__main__":
    main()
