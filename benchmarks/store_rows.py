"""Rows for benchmarks of stores, made in batches, and measurements in processes of their own."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedway.collections.chunks import Chunk
from embedway.collections.columns import COLUMNS, values_of
from embedway.collections.record import Record
from embedway.space import Space

BATCH = 512
TEXT = "A chunk of a document has some hundred words about one subject, and a heading above it. " * 8
#: More rows are measured once by default.
_REPEATED_ROWS = 200_000


def record_of(dimensions, vector_type="float32"):
    return Record(Space("benchmark", "ab" * 32, dimensions, "mean", normalized=True), vector_type=vector_type)


def chunk_of(n):
    name = f"folder/{n // 10}.md"
    text = f"{n} {TEXT}"
    return Chunk(
        f"docs/{name}#{n % 10}", name, text, 0, len(text), n % 10 + 1, f"Title {n // 10}", "docs", {}, n % 10, 10,
        headings=f"Title {n // 10}", context=f"Title {n // 10}", fingerprint=f"{n // 10:032x}",
    )  # fmt: skip


def batches(rows, dimensions, size=BATCH):
    """Iterate over chunks and vectors; a document has ten chunks."""
    vectors = np.random.default_rng(0).standard_normal((size * 8, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for first in range(0, rows, size):
        some = range(first, min(first + size, rows))
        yield [chunk_of(n) for n in some], np.roll(vectors, first // size, axis=1)[: len(some)]


def columns_of(chunks):
    """Return rows as loaders take them: a list of values for each column."""
    return dict(zip(COLUMNS, map(list, zip(*map(values_of, chunks), strict=True)), strict=True))


class Timer:
    """Sum of the time of some blocks, as seconds of the clock and of this process's CPUs."""

    def __init__(self):
        self.seconds = self.cpu = 0.0

    @contextmanager
    def running(self):
        started, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - cpu


def fill(store, rows, dimensions, vector_type="float32"):
    """Write rows into a new collection. Return the timer, without the time of making the rows."""
    timer = Timer()
    with timer.running():
        store.begin(record_of(dimensions, vector_type))
    for chunks, vectors in batches(rows, dimensions):
        with timer.running():
            store.write(chunks, vectors)
    with timer.running():
        store.commit()
    return timer


def _measured(connection, action, arguments):
    started, cpu = time.perf_counter(), time.process_time()
    result = action(*arguments)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
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


@dataclass
class Side:
    """Measurements of one of the two writers that are compared."""

    seconds: list
    cpu: list
    memory: float = 0.0

    def add(self, measured):
        timer, _, memory = measured
        self.seconds.append(timer.seconds)
        self.cpu.append(timer.cpu)
        self.memory = max(self.memory, memory)


def compare(name, rows, dimensions, ours, loader, *, repeat, clean=lambda: None):
    """Measure both writers in turn, and print medians. Each is a function and its first arguments.

    Our own first run has a quarter of the rows: its peak memory tells whether memory depends on the rows.
    """
    repeat = repeat or (3 if rows <= _REPEATED_ROWS else 1)
    began = time.perf_counter()
    _, _, small = measure(*ours, rows // 4, dimensions)
    clean()
    sides = {"embedway": (ours, Side([], [])), "loader": (loader, Side([], []))}
    for _ in range(repeat):
        for run, side in sides.values():
            side.add(measure(*run, rows, dimensions))
            clean()
    mine, other = (side for _, side in sides.values())
    wall, own = statistics.median(mine.seconds), statistics.median(other.seconds)
    cpu, own_cpu = statistics.median(mine.cpu), statistics.median(other.cpu)
    print(f"{name}: {rows / wall:,.0f} rows/s ({wall:.1f} s, {cpu:.1f} CPU s); its own loader {rows / own:,.0f} "
          f"rows/s ({own:.1f} s, {own_cpu:.1f} CPU s): {own / wall:.0%} of its speed, "
          f"{own_cpu / cpu:.0%} by CPU seconds")  # fmt: skip
    print(f"{name}: peak memory {small:,.0f} MiB at {rows // 4:,} rows, {mine.memory:,.0f} MiB at {rows:,}; "
          f"the loader's {other.memory:,.0f} MiB; {time.perf_counter() - began:.0f} s in all", flush=True)  # fmt: skip


def check_disk(folder, rows, dimensions):
    """End the program if the folder's disk may be too small."""
    needed, free = rows * (dimensions * 13 + 2 * len(TEXT) + 1000) * 2, shutil.disk_usage(folder).free
    if needed > free:
        raise SystemExit(f"{folder} has {free >> 20:,} MiB free, and {needed >> 20:,} MiB may be needed; set TMPDIR")


def remove(path):
    """Remove a file or folder, if there is one."""
    path = Path(path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
