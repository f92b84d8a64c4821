"""Variants of CSV, JSON and standard input."""

import csv
import gzip
import io
import json
import time
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections import json_rows, lines, row_formats
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
    with pytest.raises(
        SourceError, match=r"field 'text': .*did you mean 'Text'\?; .*with text_field; columns: 'ID', 'Text'"
    ):
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
    assert reason == "is not CSV: a quote is not closed, so all lines to the end of the file, 2, are one record"


def test_an_array_of_objects_has_rows_and_other_json_is_a_text(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[\n {"id": 1, "text": "red"},\n {"id": 2},\n 7,\n {"id": 3, "text": "blue"}]')
    found, bad = read(path)
    assert found == [("1", "red", 2), ("3", "blue", 5)]
    assert [line for line, _ in bad] == [3, 4]
    for text in ('{"text": "an object"}', '[1, "é"]', '"a text"'):
        path.write_text(text)
        assert read(path) == ([("a.json", text, None)], [])
    for text in ("[1, 2]", "[" * 100_000, "{}"):
        path.write_text(text)
        assert read(path) == ([], [(None, "has no letter, so it is no text")])
        assert read(tmp_path) == ([], [])


def test_json_that_is_cut_off_gives_the_rows_before(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"text": "red"},\n{"text": "bl')
    found, bad = read(path)
    assert [text for _, text, _ in found] == ["red"]
    assert bad == [(2, "is not JSON from here on")]
    path.write_text('[{"text": "red"},\n')
    assert read(path) == ([("1", "red", 1)], [(2, "the JSON array is not closed")])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ('{"text": %s}' % ("[" * 100_000), "is nested too deeply to be read as JSON"),
        ('{"text": "a", "n": %s}' % ("9" * 5000), "has an integer with too many digits; write it as text"),
        ("]\n[]", "has text after the end of its JSON array, which is not read"),
    ],
)
def test_what_ends_an_array_is_told(tmp_path, item, reason):
    path = tmp_path / "a.json"
    path.write_text('[{"text": "red"},\n' + item)
    assert [(line, why.removesuffix(" ")) for line, why in read(path)[1]][-1] in {(2, reason), (3, reason)}
    assert read(path)[0] == [("1", "red", 1)]


def test_small_items_after_a_large_one_take_linear_time():
    def seconds(count):
        content = '[{"text": "%s"}' % ("a " * (1 << 20)) + ',{"text": "b"}' * count + "]"
        started = time.process_time()
        assert len(read(None, content.encode(), format="json")[0]) == count + 1
        return time.process_time() - started

    seconds(10)
    small = seconds(10_000)
    assert seconds(40_000) < 8 * small + 1


@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["text", "x"]), st.text(max_size=40), min_size=1), max_size=30),
    indent=st.sampled_from([None, 1]),
    block=st.sampled_from([8, 64, 1 << 16]),
)
def test_an_array_is_read_as_json_reads_it(rows, indent, block):
    old, json_rows.HEAD_BYTES = json_rows.HEAD_BYTES, block
    try:
        content = json.dumps([{"text": "first"}, *rows], indent=indent, ensure_ascii=False)
        found, _ = read(None, content.encode(), format="json")
    finally:
        json_rows.HEAD_BYTES = old
    usable = [row["text"] for row in rows if row.get("text", "").strip() and "\0" not in row["text"]]
    assert [text for _, text, _ in found] == ["first", *usable]


def test_an_array_in_a_file_of_lines_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    for text in ('[{"text": "red"}, {"text": "blue"}]\n', '[\n  {"text": "red"},\n  {"text": "blue"}\n]\n'):
        path.write_text(text)
        assert [text for _, text, _ in read(path)[0]] == ["red", "blue"]
    path.write_text('[{"text": "red"}]\n[{"text": "blue"}]\n')
    assert read(path)[1] == [(2, "has text after the end of its JSON array, which is not read")]


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


def test_a_file_that_only_has_the_name_of_a_gzipped_one(tmp_path):
    for name in ("a.md.gz", "a.jsonl.gz"):
        (tmp_path / name).write_text('{"text": "private"}')
        reason = "cannot be read completely: it is not a gzip file, or is damaged"
        assert read(tmp_path / name) == ([], [(None, reason)])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('id,text\n1,"open\n2,b\n', 2),
        ('id,text\n1,"two\nlines"\n2,"open\n3,c\n', 4),
        ('id,text\n"1\n2\n","a ""quoted"" word\nand ""one\n""more""\n', 4),
        ('id,text\n1,5" disk\n2,"""open""\n\n\n', 3),
    ],
)
def test_the_line_where_an_unclosed_quote_begins_is_named(tmp_path, content, line):
    path = tmp_path / "a.csv"
    path.write_text(content)
    ((found, reason),) = read(path)[1]
    assert found == line
    assert reason.startswith("is not CSV: a quote is not closed, so all lines to the end of the file, ")


@pytest.mark.parametrize("line", [b"\n", b'a ""quoted"" word\n', b"1,the event loop\n"])
def test_an_unclosed_quote_takes_linear_time(line):
    def seconds(size):
        content = b'text\n"open\n' + line * (size // len(line))
        started = time.process_time()
        assert read(None, content, format="csv")[1][0][0] == 2
        return time.process_time() - started

    seconds(1 << 16)
    assert seconds(8 << 20) < 16 * seconds(1 << 20) + 1


@given(
    rows=st.lists(st.lists(st.text('a"\n,;ü ', max_size=12), min_size=2, max_size=2), max_size=20),
    block=st.sampled_from([16, 64, 1 << 16]),
)
def test_csv_is_read_as_its_library_reads_it(rows, block):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["text", "x"], *rows])
    bad = []
    with mock.patch.object(lines, "HEAD_BYTES", block), mock.patch.object(row_formats, "HEAD_BYTES", block):
        options = ReadOptions(format="csv", keep=("x",))
        found = read_files(
            find_sources(["-"], options),
            options,
            on_bad_row=bad.append,
            counter=ByteCounter(),
            standard_input=io.BytesIO(stream.getvalue().encode()),
        )
        values = [(document.text, document.metadata["x"]) for document in found]
    assert values == [(text, x) for text, x in rows if text.strip()]
    assert len(bad) == len(rows) - len(values)


def test_a_job_that_stops_reads_no_more_bad_rows_than_it_names():
    def refuse(fault):
        raise fault

    def content():
        nonlocal lines_read
        for lines_read in range(1000):  # noqa: B007  it is asserted below
            yield b"{}\n"

    lines_read = 0
    options = ReadOptions(format="jsonl")
    found = read_files(
        find_sources(["-"], options), options, on_bad_row=refuse, counter=ByteCounter(), standard_input=content()
    )
    with pytest.raises(SourceError, match="is missing"):
        list(found)
    assert lines_read < 100
