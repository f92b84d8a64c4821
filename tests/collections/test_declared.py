"""Declared spaces of Parquet files whose columns another program wrote or changed."""

import asyncio
import contextlib
import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedway import AsyncEmbedder, Config
from embedway.collections.chunks import Chunk
from embedway.collections.declared import open_declared
from embedway.collections.declared_columns import column_type_of, convert
from embedway.collections.record import Record
from embedway.collections.stores import create_store
from embedway.errors import SinkError

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


@pytest.fixture
def declare(tmp_path):
    """Return a function that writes a file of four rows without record, changed by `edit`, and reads it declared."""
    config = Config.load(environ={}, overrides={"cache.path": tmp_path / "cache.sqlite"})
    path = tmp_path / "lost.parquet"

    def run(edit=lambda table: table):
        async def work():
            async with AsyncEmbedder(config=config) as embedder:
                texts = [f"Shard {n} waits before it retries." for n in range(4)]
                result = await embedder.embed(texts, model=MODEL)
                with contextlib.closing(create_store(str(path), overwrite=True)) as store:
                    store.begin(Record(result.space))
                    chunks = [
                        Chunk(f"s/d{n}#0", f"d{n}", text, 0, len(text), 1, None, "s", {}, fingerprint="ab")
                        for n, text in enumerate(texts)
                    ]
                    store.write(chunks, result.vectors)
                    store.commit()
                pq.write_table(edit(pq.read_table(path)).replace_schema_metadata(None), path)
                async with open_declared(embedder, str(path), MODEL) as store:
                    return store.record.keep, [row for rows in store.read() for row in rows.fields]

        return asyncio.run(work())

    return run


def with_vectors(change):
    """Return an edit of the vectors."""

    def edit(table):
        vectors = change(np.array(table.column("vector").to_pylist(), np.float32)).tolist()
        place = table.schema.get_field_index("vector")
        return table.set_column(place, "vector", pa.array(vectors, pa.list_(pa.float32())))

    return edit


COLUMNS = {
    "small": (pa.array([1, None, -3, 4], pa.int32()), "int", [1, None, -3, 4]),
    "unsigned": (pa.array([1, 2, 3, 4], pa.uint64()), "int", [1, 2, 3, 4]),
    "half": (pa.array([0.5, None, 2.0, float("nan")], pa.float32()), "float", [0.5, None, 2.0, None]),
    "price": (pa.array([Decimal("12.30"), None] * 2, pa.decimal128(9, 2)), "float", [12.3, None] * 2),
    "whole": (pa.array([Decimal(12), None] * 2, pa.decimal128(9, 0)), "int", [12, None] * 2),
    "day": (pa.array([dt.date(2026, 1, 31)] * 4), "timestamp", [NOON.replace(hour=0)] * 4),
    "local": (pa.array([NOON.replace(tzinfo=None)] * 4, pa.timestamp("ns")), "timestamp", [NOON] * 4),
    "numbers": (pa.array([[1, 2], None, [], [3]], pa.list_(pa.int16())), "json", [[1, 2], None, [], [3]]),
    "tags": (pa.array([["a"], None, [], ["b"]], pa.large_list(pa.string())), "list", [["a"], None, [], ["b"]]),
    "struct": (pa.array([{"x": 1}] * 4), "json", [{"x": 1}] * 4),
    "word": (pa.array(["a", "b", "a", None]).dictionary_encode(), "text", ["a", "b", "a", None]),
    "nothing": (pa.nulls(4), "text", [None] * 4),
}


def test_columns_of_other_types_are_converted(declare):
    def edit(table):
        for name, (values, _, _) in COLUMNS.items():
            table = table.append_column(name, values)
        return table

    keep, rows = declare(edit)
    assert keep == {name: kind for name, (_, kind, _) in COLUMNS.items()}
    assert {name: [row[name] for row in rows] for name in COLUMNS} == {
        name: values for name, (_, _, values) in COLUMNS.items()
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([1 << 63] * 4, pa.uint64()), "'n' of type uint64 has a value that is not exact as int"),
        (pa.array([Decimal("0.12345678901234567890")] * 4), "is not exact as float"),
        (pa.array([1] * 4, pa.timestamp("ns")), "is not exact as timestamp"),
        (pa.array([b"a"] * 4), "'n' has the type binary"),
    ],
)
def test_value_that_would_change_is_refused_with_the_users_file(declare, tmp_path, values, message):
    with pytest.raises(SinkError, match=message) as caught:
        declare(lambda table: table.append_column("n", values))
    assert str(caught.value).startswith(f"{tmp_path / 'lost.parquet'}: ")


def test_row_without_vector_is_named(declare, tmp_path):
    def edit(table):
        place = table.schema.get_field_index("vector")
        vectors = [None, *table.column("vector").to_pylist()[1:]]
        return table.set_column(place, "vector", pa.array(vectors, pa.list_(pa.float32())))

    with pytest.raises(SinkError, match="the vector of row 1 is missing") as caught:
        declare(edit)
    assert str(tmp_path / "lost.parquet") in str(caught.value)


def test_vectors_of_another_length_are_refused(declare):
    def third(vectors):
        vectors[2] *= 3
        return vectors

    with pytest.raises(SinkError, match="the vector of row 3 has the length 3, and this model gives"):
        declare(with_vectors(third))
    assert len(declare(with_vectors(lambda vectors: vectors.astype(np.float16)))[1]) == 4


def test_json_without_a_form_is_refused():
    column = pa.chunked_array([pa.array([[float("inf")]])])
    assert column_type_of(column.type, "n", destination="x") == "json"
    with pytest.raises(SinkError, match="is not exact as json"):
        convert(column, "json", "n", destination="x")
    assert convert(pa.chunked_array([pa.array([[1]])]), "json", "n", destination="x").to_pylist() == [json.dumps([1])]
