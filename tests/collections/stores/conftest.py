"""A space, rows, and one destination of each form."""

import subprocess
import sys

import numpy as np
import pytest

from embedway.collections.record import ChunkSettings, Record
from embedway.collections.stores import create_store
from embedway.collections.stores.base import Chunk
from embedway.types import Space

DIMENSIONS = 6


@pytest.fixture
def space():
    return Space("tiny", "cd" * 32, DIMENSIONS, "mean", normalized=True, query_prompt="q: ", document_prompt="p: ü")


@pytest.fixture
def make_rows():
    """Return (chunks, vectors) of n different rows."""

    def make(n, first=0, seed=0):
        chunks = [
            Chunk(
                id=f"d{i}#0",
                document_id=f"d{i}",
                text=f'text "{i}" — ünï\ncode\u2028 🙂',
                start_char=0,
                end_char=5,
                start_line=i + 1,
                title=None if i % 2 else f"Title {i}",
                source="a/b.md",
                metadata={"topic": f"t{i}" if i % 3 else None, "unasked": "x"},
            )
            for i in range(first, first + n)
        ]
        vectors = np.random.default_rng(seed + first).standard_normal((n, DIMENSIONS)).astype(np.float32)
        return chunks, vectors

    return make


@pytest.fixture(params=["parquet", "jsonl", "lancedb"])
def destination(request, tmp_path):
    if request.param == "lancedb":
        return f"lancedb:{tmp_path / 'db'}#rows"
    return str(tmp_path / f"out.{request.param}")


@pytest.fixture
def files_in():
    """Return every file below a folder, as a sorted list of relative paths."""

    def files(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    return files


@pytest.fixture
def write(space, make_rows):
    def run(destination, counts=(5,), *, overwrite=False, seed=0, into=space):
        store = create_store(destination, overwrite=overwrite)
        store.begin(Record(into, ChunkSettings(chunk_tokens=7), {"topic": "text"}))
        first = 0
        for count in counts:
            store.write(*make_rows(count, first, seed))
            first += count
        store.commit()

    return run


@pytest.fixture
def dead_process():
    """Return the number of a process that has ended."""
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True, text=True
    )
    return int(process.stdout)
