"""JSON Lines, CSV and Parquet: accepted rows, and the message for each kind of bad row."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import SourceError

PRIVATE = "the user's own words"


@pytest.fixture
def read():
    """Return (documents, bad rows) of one file."""

    def run(path, **options):
        bad = []
        read_options = ReadOptions(**options)
        files = find_sources([str(path)], read_options)
        return list(read_files(files, read_options, on_bad_row=bad.append, counter=ByteCounter())), bad

    return run


def test_jsonl_rows_with_every_option(tmp_path, read):
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"body": "one", "key": 7, "topic": "x", "tags": ["a", "ü"], "title": "T"})
        + "\n\n"
        + json.dumps({"body": " two ", "topic": None})
    )
    documents, bad = read(path, text_field="body", id_field="key", keep=("topic", "tags"))
    assert not bad
    assert [(d.id, d.text, d.line, d.title) for d in documents] == [
        ("7", "one", 1, "T"),
        ("3", " two ", 3, None),
    ]
    assert [dict(d.metadata) for d in documents] == [
        {"topic": "x", "tags": ["a", "ü"]},
        {"topic": None, "tags": None},
    ]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (PRIVATE.encode(), None, "is not JSON"),
        (b'{"text": "' + PRIVATE.encode(), None, "is not JSON"),
        (b"[" * 100_000, None, "is nested too deeply"),
        (b'{"text": "a", "n": %s}' % (b"9" * 5000), None, "has an integer with too many digits; write it as text"),
        (b"{", None, "each object must be on one line, or all in an array in a file .json"),
        (b"[1]", None, "must be a JSON object, is list"),
        (b'"%s"' % PRIVATE.encode(), None, "must be a JSON object, is str"),
        (b'{"other": "%s"}' % PRIVATE.encode(), "text", "is missing"),
        (b'{"text": null}', "text", "is missing"),
        (b'{"text": 5}', "text", "must be text, is int"),
        (b'{"text": ""}', "text", "is empty"),
        (b'{"text": " \\n\\u3000"}', "text", "is empty"),
        (b'{"text": "%s \\ud800"}' % PRIVATE.encode(), "text", "lone surrogate"),
        (b'{"text": "%s \xff"}' % PRIVATE.encode(), None, "is not UTF-8"),
        (b'{"text": "a", "id": 1.5}', "id", "must be text or an integer, is float"),
        (b'{"text": "a", "id": true}', "id", "must be text or an integer, is bool"),
        (b'{"text": "a", "id": "\\udfff"}', "id", "lone surrogate"),
    ],
)
def test_a_bad_jsonl_row_is_named_and_the_others_pass(tmp_path, read, row, field, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "first"}\n' + row + b'\n{"text": "last"}\n')
    documents, bad = read(path)
    assert [d.text for d in documents] == ["first", "last"]
    assert [(fault.path, fault.line, fault.field) for fault in bad] == [(str(path), 2, field)]
    assert reason in str(bad[0])
    assert PRIVATE not in str(bad[0])
    assert bad[0].__cause__ is None


def test_gzipped_jsonl_and_one_that_is_cut_off(tmp_path, read):
    packed = gzip.compress(b"".join(b'{"text": "row %d"}\n' % n for n in range(5000)))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    assert len(read(path)[0]) == 5000
    for content in (packed[:-100], b"not gzip"):
        path.write_bytes(content)
        (fault,) = read(path)[1]
        assert "cannot be read completely" in str(fault)
        assert (fault.key, fault.key_is_prefix) == (("a.jsonl.gz", ""), True)


def test_csv_with_quoted_lines(tmp_path, read):
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text,topic\r\na,"one\r\nline, two",x\r\n\r\nb,three,\r\n')
    documents, bad = read(path, keep=("topic",))
    assert not bad
    assert [(d.id, d.text, d.line) for d in documents] == [("a", "one\r\nline, two", 2), ("b", "three", 5)]
    assert [dict(d.metadata) for d in documents] == [{"topic": "x"}, {"topic": ""}]


def test_bad_csv_rows(tmp_path, read):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\na,ok\nb\nc,d,e\nf,\xff\ng, \nh,last\n")
    documents, bad = read(path)
    assert [d.text for d in documents] == ["ok", "last"]
    assert [(fault.line, fault.field, fault.reason) for fault in bad] == [
        (3, "text", "is missing"),
        (4, None, "has more cells than the header"),
        (5, "text", "is not UTF-8"),
        (6, "text", "is empty"),
    ]


def test_tsv_and_long_cells(tmp_path, read):
    path = tmp_path / "a.tsv"
    path.write_text("text\tid\n" + "x" * 300_000 + "\t1\n")
    documents, _ = read(path)
    assert len(documents[0].text) == 300_000


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_wrong_field_name_stops_even_when_rows_are_skipped(tmp_path, read, name):
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("id,body\n1,x\n")
    else:
        pq.write_table(pa.table({"body": ["x"]}), path)
    with pytest.raises(SourceError, match=r"'text': the (header|file) has no such column"):
        read(path)


def test_parquet_rows(tmp_path, read):
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "text": pa.array(["one", None, " ", "four"], pa.large_string()),
            "id": pa.array([1, 2, 3, None]),
            "score": [0.5, 1.0, 2.0, None],
            "vector": [[1.0]] * 4,
        }
    )
    pq.write_table(table, path)
    documents, bad = read(path, keep=("score",))
    assert [(d.id, d.text, d.line, d.metadata["score"]) for d in documents] == [
        ("1", "one", 1, 0.5),
        ("4", "four", 4, None),
    ]
    assert [(fault.line, fault.reason) for fault in bad] == [(2, "is missing"), (3, "is empty")]


def test_parquet_text_that_is_not_utf8(tmp_path, read):
    path = tmp_path / "a.parquet"
    raw = pa.array([b"fine", b"\xff", b"good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": raw}), path)
    documents, bad = read(path)
    assert [d.text for d in documents] == ["fine", "good"]
    assert [(fault.line, fault.reason) for fault in bad] == [(2, "is not UTF-8")]


def test_a_file_that_is_no_parquet(tmp_path, read):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"hello")
    assert "cannot be read as Parquet" in str(read(path)[1][0])


def test_a_first_row_without_text_in_a_folder_is_one_bad_row(tmp_path, read):
    (tmp_path / "docs").mkdir()
    rows = [{"text": None}, {"text": "two"}]
    (tmp_path / "docs" / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "docs" / "b.json").write_text(json.dumps(rows))
    (tmp_path / "docs" / "c.jsonl").write_text('{"other": "no texts here"}\n')
    documents, bad = read(tmp_path / "docs")
    assert [d.text for d in documents] == ["two", "two"]
    assert [(fault.line, fault.field, fault.reason) for fault in bad] == [
        (1, "text", "is missing; the row has 'text': text_field names the right one"),
        (1, "text", "is missing; the row has 'text': text_field names the right one"),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
@pytest.mark.parametrize("in_folder", [True, False])
def test_a_kept_column_that_no_row_has_is_an_error(tmp_path, read, name, in_folder):
    path = tmp_path / "docs" / name
    path.parent.mkdir()
    rows = [{"text": "one", "lang": "de"}, {"text": "two", "lang": None}]
    if name == "a.parquet":
        pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), path)
    elif name == "a.csv":
        path.write_text("text,lang\none,de\ntwo,\n")
    else:
        path.write_text(json.dumps(rows) if name == "a.json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    source = path.parent if in_folder else path
    reason = r"'lnag': is not a column .* \(did you mean 'lang'\?\); existing columns: 'text', 'lang'"
    with pytest.raises(SourceError, match=reason) as caught:
        read(source, keep=("lang", "lnag"))
    assert caught.value.path == str(path)
    assert [d.metadata["lang"] or None for d in read(source, keep=("lang",))[0]] == ["de", None]


def test_some_rows_and_files_may_lack_a_kept_column(tmp_path, read):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two", "url": "x"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n')
    (tmp_path / "c.md").write_text("four")
    found, bad = read(tmp_path, keep=("url",))
    assert [dict(d.metadata) for d in found] == [{"url": None}, {"url": "x"}, {"url": None}, {}]
    assert not bad
