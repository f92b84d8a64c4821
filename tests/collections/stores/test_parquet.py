"""Parquet files."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedway._version import __version__
from embedway.collections.columns import COLUMNS
from embedway.collections.record import Record
from embedway.collections.stores import create_store, open_store
from inside import rows_in_buffer


def test_parquet_holds_fixed_size_vectors_and_says_what_it_is(tmp_path, write, make_rows, space):
    path = tmp_path / "out.parquet"
    write(str(path))
    table = pq.read_table(path)
    assert table.column_names == [*COLUMNS, "topic", "vector"]
    assert str(table.schema.field("vector").type).startswith("fixed_size_list<element: float")
    assert table.schema.field("vector").type.list_size == 6
    chunks, vectors = make_rows(5)
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert table["topic"].to_pylist() == [chunk.metadata["topic"] for chunk in chunks]
    metadata = table.schema.metadata
    assert json.loads(metadata[b"embedway.space"]) == space.to_json()
    assert json.loads(metadata[b"embedway.record"])["chunking"]["chunk_tokens"] == 7
    assert metadata[b"embedway.version"] == __version__.encode()
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_parquet_streams_row_groups(tmp_path, space, make_rows, monkeypatch):
    monkeypatch.setattr("embedway.collections.stores.arrow.ROW_GROUP_ROWS", 10)
    store = create_store(str(tmp_path / "out.parquet"))
    store.begin(Record(space))
    for first in range(0, 36, 4):
        store.write(*make_rows(4, first))
        assert rows_in_buffer(store) < 10
    store.commit()
    assert [pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(n).num_rows for n in range(3)] == [
        12,
        12,
        12,
    ]


def test_a_change_writes_full_row_groups(tmp_path, space, make_rows, monkeypatch):
    monkeypatch.setattr("embedway.collections.stores.arrow.ROW_GROUP_ROWS", 10)
    path = tmp_path / "out.parquet"
    store = create_store(str(path))
    store.begin(Record(space))
    for first in range(0, 40, 10):
        store.write(*make_rows(10, first))
    store.commit()
    store.begin_update(store.record)
    store.remove({("a/b.md", f"d{n}") for n in range(0, 40, 2)})
    store.write(*make_rows(3, 50))
    store.commit()
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [10, 10, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize(("kind", "largest"), [("float16", 1e-3), ("int8", 1e-2), ("bits", 1)])
def test_smaller_vectors_are_read_as_floats(tmp_path, space, make_rows, kind, largest):
    path = str(tmp_path / "out.parquet")
    chunks, vectors = make_rows(40)
    vectors[3] = 0
    store = create_store(path)
    store.begin(Record(space, vector_type=kind))
    store.write(chunks, vectors)
    store.commit()
    store = open_store(path)
    assert store.record.vector_type == kind
    found = np.concatenate([rows.vectors for rows in store.read()])
    assert "vector_scale" not in store.fetch(["d0#0"])["d0#0"]
    if kind == "bits":
        assert np.array_equal(found, np.where(vectors >= 0, 1, -1))
    else:
        assert np.abs(found - vectors).max() < largest * np.abs(vectors).max()
    assert store.search(vectors[7], 1)[0].score > 0.7
    store.begin_update(store.record)
    store.remove({("a/b.md", "d1")})
    store.commit()
    assert np.array_equal(np.concatenate([rows.vectors for rows in open_store(path).read()]), np.delete(found, 1, 0))
