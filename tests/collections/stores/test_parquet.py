"""Parquet files."""

import json

import numpy as np
import pyarrow.parquet as pq

from embedway._version import __version__
from embedway.collections.record import Record
from embedway.collections.stores import create_store
from inside import rows_in_group


def test_parquet_holds_fixed_size_vectors_and_says_what_it_is(tmp_path, write, make_rows, space):
    path = tmp_path / "out.parquet"
    write(str(path))
    table = pq.read_table(path)
    assert table.column_names == [
        "id",
        "document_id",
        "source",
        "start_line",
        "title",
        "text",
        "topic",
        "vector",
    ]
    assert str(table.schema.field("vector").type).startswith("fixed_size_list<element: float")
    assert table.schema.field("vector").type.list_size == 6
    chunks, vectors = make_rows(5)
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert table["topic"].to_pylist() == [chunk.metadata["topic"] for chunk in chunks]
    metadata = table.schema.metadata
    assert json.loads(metadata[b"embedway.space"]) == space.to_json()
    assert json.loads(metadata[b"embedway.settings"]) == {"chunk_tokens": 7}
    assert metadata[b"embedway.version"] == __version__.encode()
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_parquet_streams_row_groups(tmp_path, space, make_rows, monkeypatch):
    monkeypatch.setattr("embedway.collections.stores.arrow.ROW_GROUP_ROWS", 10)
    store = create_store(str(tmp_path / "out.parquet"))
    store.begin(Record(space))
    for first in range(0, 36, 4):
        store.write(*make_rows(4, first))
        assert rows_in_group(store) < 10
    store.commit()
    assert [pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(n).num_rows for n in range(3)] == [
        12,
        12,
        12,
    ]
