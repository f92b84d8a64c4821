"""Variants of CSV, JSON and standard input."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections import row_formats
from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import SourceError


def read(path, content=None, **options):
    """Return ids, texts and lines of a file, or of standard input, and the bad rows."""
    bad = []
    read_options = ReadOptions(**options)
    stream = None
    if content is not None:
        path, stream = "-", io.BytesIO(content)
    inventory = find_sources([str(path)], read_options)
    found = read_files(inventory, read_options, on_bad_row=bad.append, counter=ByteCounter(), standard_input=stream)
    return [(d.id, d.text, d.line) for d in found], [(fault.line, fault.reason) for fault in bad]


@pytest.mark.parametrize(
    "content",
    [
        "id,text\n1,red car\n2,blue car\n",
        "id;text\n1;red car\n2;blue car\n",
        "id\ttext\n1\tred car\n2\tblue car\n",
        "id|text\r\n1|red car\r\n2|blue car\r\n",
        '"id","text"\r"1","red car"\r"2","blue car"\r',
        "id, text\n1, red car\n2, blue car\n",
        'id;text;"a, b, c, d"\n1;red car;\n2;blue car;\n',
    ],
)
def test_the_separator_is_found(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    assert read(path) == ([("1", "red car", 2), ("2", "blue car", 3)], [])
    assert read(None, content.encode(), format="csv")[0] == read(path)[0]
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    assert read(packed) == read(path)


def test_the_line_that_excel_writes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\nid;text\n1;red, or blue\n")
    assert read(path) == ([("1", "red, or blue", 3)], [])


def test_columns_are_named_in_errors(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ID,Text\n1,red\n")
    with pytest.raises(SourceError, match=r"field 'text': .*with text_field; columns: 'ID', 'Text'"):
        read(path)
    with pytest.raises(SourceError, match=r"field 'id': .*with id_field; columns: 'ID', 'Text'"):
        read(path, text_field="Text")
    assert read(path, text_field="Text", id_field="ID")[0] == [("1", "red", 2)]


def test_an_unclosed_quote_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"two\nlines"\n2,stray "quote\n3,"open\n4,lost\n')
    found, ((line, reason),) = read(path)
    assert [text for _, text, _ in found] == ["two\nlines", 'stray "quote']
    assert line == 5
    assert "is a quote not closed?" in reason


def test_an_array_of_objects_has_rows_and_other_json_is_a_text(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[\n {"id": 1, "text": "red"},\n {"id": 2},\n 7,\n {"id": 3, "text": "blue"}]')
    found, bad = read(path)
    assert found == [("1", "red", 2), ("3", "blue", 5)]
    assert [line for line, _ in bad] == [3, 4]
    for text in ('{"text": "an object"}', "[1, 2]", '"a text"'):
        path.write_text(text)
        assert read(path) == ([("a.json", text, None)], [])


def test_json_that_is_cut_off_gives_the_rows_before(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"text": "red"},\n{"text": "bl')
    found, bad = read(path)
    assert [text for _, text, _ in found] == ["red"]
    assert bad == [(2, "is not JSON from here on, or the row is too large")]


@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["text", "x"]), st.text(max_size=40), min_size=1), max_size=30),
    indent=st.sampled_from([None, 1]),
    block=st.sampled_from([8, 64, 1 << 16]),
)
def test_an_array_is_read_as_json_reads_it(rows, indent, block):
    old, row_formats.HEAD_BYTES = row_formats.HEAD_BYTES, block
    try:
        content = json.dumps([{"text": "first"}, *rows], indent=indent, ensure_ascii=False)
        found, _ = read(None, content.encode(), format="json")
    finally:
        row_formats.HEAD_BYTES = old
    usable = [row["text"] for row in rows if row.get("text", "").strip() and "\0" not in row["text"]]
    assert [text for _, text, _ in found] == ["first", *usable]


def test_an_array_in_a_file_of_lines_is_told(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('[{"text": "red"}]\n')
    ((_, reason),) = read(path)[1]
    assert "an array of rows is read with format='json'" in reason


def test_standard_input_is_recognized():
    assert read(None, b"one\ntwo\n")[0] == [("1", "one", 1), ("2", "two", 2)]
    assert read(None, b'{"text": "a", "id": "x"}\n{"text": "b"}\n')[0] == [("x", "a", 1), ("2", "b", 2)]
    assert read(None, b'[\n{"text": "a", "id": "x"}]\n')[0] == [("x", "a", 2)]
    assert read(None, gzip.compress(b'{"text": "a"}\n'))[0] == [("1", "a", 1)]
    assert read(None, b"# Title\n\ntext\n", format="markdown")[0] == [("-", "Title\n\ntext", None)]
    assert read(None, b"{curly} text\n")[0] == [("1", "{curly} text", 1)]


def test_parquet_from_standard_input():
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"], "id": [5, 6]}), stream)
    assert read(None, stream.getvalue(), format="parquet") == ([("5", "a", 1), ("6", "b", 2)], [])


def test_gzipped_documents(tmp_path):
    (tmp_path / "a.md.gz").write_bytes(gzip.compress(b"# Title\n\ntext"))
    assert read(tmp_path / "a.md.gz")[0] == [("a.md.gz", "Title\n\ntext", None)]
    (tmp_path / "a.md.gz").write_bytes(gzip.compress(b"# Title\n\ntext")[:-4])
    assert "cannot be read completely" in read(tmp_path / "a.md.gz")[1][0][1]
