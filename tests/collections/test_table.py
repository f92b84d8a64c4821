"""Parquet sources of other programs."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedway.collections import table as table_module
from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import SourceError


def read(path, **options):
    bad = []
    read_options = ReadOptions(**options)
    files = find_sources([str(path)], read_options)
    found = list(read_files(files, read_options, on_bad_row=bad.append, counter=ByteCounter()))
    return [(d.line, d.text) for d in found], [(fault.line, fault.field, fault.reason) for fault in bad]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "c"]).dictionary_encode(),
        pa.chunked_array([["a"], [None, "c"]]),
        pa.array(["a", None, "c"], pa.large_string()),
        pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string()),
        pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string()).dictionary_encode(),
    ],
)
def test_rows_keep_their_numbers(tmp_path, column):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column}), path, row_group_size=2)
    rows, bad = read(path)
    assert rows == [(1, "a"), (3, "c")]
    assert [line for line, _, _ in bad] == [2]


@pytest.mark.parametrize(
    "column", [pa.array([1, 2]), pa.array([["a"], ["b"]]), pa.array([b"a", b"b"]), pa.array([{"x": "a"}, {"x": "b"}])]
)
def test_a_column_of_another_type(tmp_path, column):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column}), path)
    rows, bad = read(path)
    assert rows == []
    assert [(line, field) for line, field, _ in bad] == [(1, "text"), (2, "text")]
    assert "must be text, is" in bad[0][2]


def test_times_that_python_cannot_represent(tmp_path):
    path = tmp_path / "a.parquet"
    times = pa.array([0, 2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a", "b"], "time": times}), path)
    rows, ((line, field, reason),) = read(path, keep=("time",))
    assert rows == [(1, "a")]
    assert (line, field) == (2, "time")
    assert reason.startswith("cannot be read: ")


def test_a_column_name_that_occurs_twice(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), path)
    with pytest.raises(SourceError, match="'text': is the name of several columns"):
        read(path)
    (tmp_path / "a.csv").write_text("text,text\na,b\n")
    with pytest.raises(SourceError, match="'text': is the name of several columns"):
        read(tmp_path / "a.csv")


def test_a_large_value_that_is_repeated_is_not_copied(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    value = "x" * (1 << 15)
    pq.write_table(pa.table({"text": [value] * 2000}), path)
    before = pa.total_allocated_bytes()
    options = ReadOptions()
    found = read_files(find_sources([str(path)], options), options, on_bad_row=pytest.fail, counter=ByteCounter())
    assert next(found).text == value
    assert pa.total_allocated_bytes() - before < 8 << 20
    found.close()
    monkeypatch.setattr(table_module, "MAX_ROW_BYTES", 1 << 10)
    assert read(path)[1][0] == (1, "text", "has 32,768 characters; the limit is 1,024: split it")
    monkeypatch.setattr(table_module, "UNCHECKED_BYTES", 1 << 10)
    monkeypatch.setattr(table_module, "MAX_RATIO", 2)
    assert "row group 0 unpacks to more than 2 times" in read(path)[1][0][2]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text\na\n", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_file_that_is_something_else(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    (fault,) = read(path)[1]
    assert "cannot be read as Parquet" in fault[2]


def test_no_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert read(path) == ([], [])
