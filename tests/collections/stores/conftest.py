"""A space, rows, and one destination of each form."""

import numpy as np
import pytest

from embedway.collections.stores.base import Chunk
from embedway.types import Space

DIMENSIONS = 6


@pytest.fixture
def space():
    return Space("tiny", "cd" * 32, DIMENSIONS, "mean", normalized=True, query_prompt="q: ", document_prompt="p: ü")


@pytest.fixture
def make_rows():
    """(chunks, vectors) of n rows that differ."""

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
    """Every file below a folder, as a sorted list of relative paths."""

    def files(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    return files
