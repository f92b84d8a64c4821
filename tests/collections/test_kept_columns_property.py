"""Kept columns of every type and format: a sync of unchanged sources changes nothing, and gives the same values."""

import asyncio
import csv
import json
import tempfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import get_args
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.collections import job
from embedway.collections.options import SyncOptions
from embedway.collections.sync import sync_collection
from embedway.collections.values import ColumnType
from fake_embedder import FakeEmbedder
from memory_store import PLACES, MemoryStore

#: Texts that are read as another type where texts are parsed.
TEXTS = st.sampled_from(["", "hello", "5", "5.0", "null", "true", "nan", '["a"]', '{"a":1}', "2026-01-02", " 7 "])
INTS = st.integers(-3, 3)
FLOATS = st.sampled_from([0.5, 5.0, -2.0, 1e300])
TIMES = st.sampled_from([datetime.fromisoformat("2026-01-02"), datetime(2026, 1, 2, 3, tzinfo=UTC)])
JSON_VALUES = [
    TEXTS,
    INTS,
    FLOATS,
    INTS | FLOATS,
    st.booleans(),
    st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, INTS | TEXTS, max_size=2),
    st.lists(INTS | TEXTS, max_size=2),
    TEXTS | INTS | st.booleans() | FLOATS,
]
ARROW_VALUES = [
    (pa.string(), TEXTS),
    (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    (pa.int8(), INTS),
    (pa.float32(), FLOATS.filter(lambda value: value < 1e30) | st.just(float("nan"))),
    (pa.float64(), FLOATS),
    (pa.decimal128(5, 2), st.sampled_from([Decimal("1.50"), Decimal("2.00")])),
    (pa.bool_(), st.booleans()),
    (pa.timestamp("us"), TIMES.filter(lambda value: value.tzinfo is None)),
    (pa.timestamp("us", tz="UTC"), TIMES.filter(lambda value: value.tzinfo is not None)),
    (pa.date32(), st.just(date(2026, 1, 2))),
    (pa.list_(pa.string()), st.lists(TEXTS, max_size=2)),
    (pa.struct([("a", pa.int64()), ("b", pa.string())]), st.fixed_dictionaries({"a": INTS, "b": TEXTS})),
    (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(st.sampled_from("ab"), INTS), max_size=2)),
]


#: Endings of files, types of Arrow, and values of one column.
COLUMNS = [
    *((ending, None, values) for ending in ("jsonl", "json") for values in JSON_VALUES),
    *((ending, None, TEXTS) for ending in ("csv", "tsv")),
    *(("parquet", kind, values) for kind, values in ARROW_VALUES),
]


def write(folder, ending, values, kind=None):
    path = folder / f"rows.{ending}"
    texts = [f"the event loop {number}" for number in range(len(values))]
    rows = [{"text": text, "x": value} for text, value in zip(texts, values, strict=True)]
    if ending == "parquet":
        pq.write_table(pa.table({"text": texts, "x": pa.array(values, kind)}), path)
    elif ending == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif ending == "json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "x"], delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def sync(embedder, named=(), **options):
    task = sync_collection(embedder, MemoryStore("memory:a"), named, SyncOptions(on_error="skip", **options))
    return asyncio.run(task)


def kept():
    record, rows = PLACES["memory:a"]
    # The texts of values tell 5 from 5.0 and True.
    return record.keep, {fields["document_id"]: repr(fields["x"]) for fields, _ in rows.values()}


@pytest.mark.parametrize(("ending", "kind", "values"), COLUMNS)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), declared=st.none() | st.sampled_from(get_args(ColumnType)))
def test_a_sync_of_unchanged_sources_gives_the_same_values(ending, kind, values, data, declared):
    PLACES.clear()
    # A row with null fits every type.
    drawn = [None, *data.draw(st.lists(values | st.none(), min_size=1, max_size=6))]
    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch.object(job, "journal_path", lambda store: Path(place) / store.destination),
        mock.patch.object(MemoryStore, "rejects_path", Path(place) / "rejects"),
    ):
        path = write(Path(place), ending, drawn, kind)
        first = sync(FakeEmbedder(), [path], keep=("x",), keep_types={} if declared is None else {"x": declared})
        found = kept()
        for options in ({}, {"keep": ("x",)}):
            embedder = FakeEmbedder()
            again = sync(embedder, **options)
            assert (again.unchanged, again.updated, again.removed) == (len(found[1]), 0, 0)
            assert (again.rejected, embedder.calls, kept()) == (first.rejected, [], found)
        # All rows are written again, with the types of the record.
        recut = sync(FakeEmbedder(), context="{title}")
        assert (recut.updated, recut.rejected, kept()) == (len(found[1]), first.rejected, found)


@pytest.mark.parametrize("declared", [{}, {"x": "json"}])
def test_texts_of_json_stay_texts(tmp_path, monkeypatch, declared):
    monkeypatch.chdir(tmp_path)
    PLACES.clear()
    path = write(tmp_path, "jsonl", [5, "123", "hello", "null", ""])
    sync(FakeEmbedder(), [path], keep=("x",), keep_types=declared)
    expected = {"1": "5", "2": "'123'", "3": "'hello'", "4": "'null'", "5": "''"}
    assert kept() == ({"x": "json"}, expected)
    assert sync(FakeEmbedder()).unchanged == 5
    assert sync(FakeEmbedder(), context="none").updated == 5
    assert kept() == ({"x": "json"}, expected)


def test_a_declared_type_of_csv_holds_in_later_syncs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PLACES.clear()
    path = write(tmp_path, "csv", ["5", '{"a": 1}'])
    sync(FakeEmbedder(), [path], keep=("x",), keep_types={"x": "json"})
    write(tmp_path, "csv", ["5", '{"a": 1}', "[2]"])
    assert sync(FakeEmbedder(), keep=("x",)).added == 1
    assert kept() == ({"x": "json"}, {"2": "5", "3": "{'a': 1}", "4": "[2]"})
