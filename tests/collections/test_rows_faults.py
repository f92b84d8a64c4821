"""Rows of any size: a clear error with the file and the row, and the other rows pass."""

import gzip
import io
import json

import pytest

from embedway.collections import documents, json_rows, lines, row_formats
from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import SourceError

LIMIT = 1 << 10


@pytest.fixture
def read(monkeypatch):
    """Return (texts, bad rows) of one file, with small limits."""
    for module in (row_formats, json_rows):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", LIMIT)
    for module in ("file_reader", "whole_files"):
        monkeypatch.setattr(f"embedway.collections.{module}.MAX_FILE_BYTES", LIMIT)

    def run(path, *, stream=None, **options):
        bad = []
        read_options = ReadOptions(**options)
        files = find_sources([str(path)], read_options)
        found = read_files(files, read_options, on_bad_row=bad.append, counter=ByteCounter(), standard_input=stream)
        return [document.text for document in found], [(fault.line, fault.reason) for fault in bad]

    return run


def test_a_long_line_is_skipped(tmp_path, read):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "x" * 5000 + '"}\n{"text": "b"}\n')
    reason = "the line has more than 1,024 bytes; split it"
    assert read(path) == (["a", "b"], [(2, reason)])
    assert read("-", stream=io.BytesIO(b"a\n" + b"x" * 5000)) == (["a"], [(2, reason)])


def test_a_line_without_an_end_stops(read, monkeypatch):
    monkeypatch.setattr(lines, "MAX_SKIPPED_BYTES", 1 << 22)
    _, bad = read("/dev/zero", format="lines", encoding="latin-1")
    assert bad[-1] == (1, "the line has more than 1,024 bytes; split it")


def test_a_record_of_csv_has_a_limit(tmp_path, read):
    path = tmp_path / "a.csv"
    for record in ('"' + "x\n" * 5000, "x" * 5000 + "\n", "," * 5000 + "\n", '"\n",' * 3000):
        path.write_text("text\na\n" + record)
        _, ((line, reason),) = read(path)
        assert (line, reason[:37]) == (3, "the record has more than 1,024 bytes;")


def test_a_file_that_is_one_document_has_a_limit(tmp_path, read):
    for name in ("a.md", "b.html", "c.py"):
        (tmp_path / name).write_text("x" * 5000)
    (tmp_path / "d.txt").write_text("fine")
    texts, bad = read(tmp_path)
    assert texts == ["fine"]
    assert {line for line, _ in bad} == {None}
    assert all("has more than 1,024 bytes, the limit for one document; split it" in reason for _, reason in bad)


def test_a_gzip_bomb_stops(tmp_path, read, monkeypatch):
    monkeypatch.setattr(lines, "UNCHECKED_BYTES", 1 << 16)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * (1 << 24)))
    assert "unpacks to more than 250 times its size" in read(path)[1][0][1]


def test_ids_and_titles_which_every_chunk_repeats_have_limits(tmp_path, read, monkeypatch):
    for module in (row_formats, json_rows):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a", "id": "i" * 5000}) + "\n" + json.dumps({"text": "b", "title": "t" * 5000}))
    options = ReadOptions()
    bad = []
    found = read_files(find_sources([str(path)], options), options, on_bad_row=bad.append, counter=ByteCounter())
    assert [len(document.title) for document in found] == [documents.MAX_TITLE_CHARACTERS]
    assert [(fault.line, fault.field, fault.reason) for fault in bad] == [
        (1, "id", "has 5,000 characters; an id may have 4,096")
    ]


@pytest.mark.parametrize("value", [b"1" * 5000, b"[" * 100_000, b"1e999", b"NaN", b'"\\ud800"'])
def test_values_that_python_cannot_keep(tmp_path, read, value, monkeypatch):
    for module in (row_formats, json_rows):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a", "x": 1}\n{"text": "b", "x": ' + value + b'}\n{"text": "c"}\n')
    texts, bad = read(path, keep=("x",))
    assert [text for text in texts if text != "b"] == ["a", "c"]
    assert [line for line, _ in bad] in ([], [2])


@pytest.mark.parametrize("beginning", ["# a", "# a #"])
def test_a_heading_with_many_spaces_takes_linear_time(tmp_path, beginning):
    path = tmp_path / "a.md"
    path.write_text(beginning + " " * 4000 + "x")
    options = ReadOptions()
    (document,) = read_files(find_sources([str(path)], options), options, on_bad_row=pytest.fail, counter=ByteCounter())
    assert document.title.startswith("a ")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("pric", "did you mean 'price'?"),
        ("price:number", "'number' is no type; the types of 'price' are text, int, float"),
        ("price:float", "a type is declared as keep={'price': 'float'}"),
    ],
)
def test_a_column_that_cannot_be_kept_has_a_remedy(tmp_path, read, kept, said):
    path = tmp_path / "a.csv"
    path.write_text("text,price\na,1\n")
    with pytest.raises(SourceError) as caught:
        read(path, keep=(kept,))
    assert said in str(caught.value)
    assert "existing columns: 'text', 'price'" in str(caught.value)
