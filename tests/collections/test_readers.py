"""Folders and files to documents."""

import io

import pytest

from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import SourceError, UsageError


@pytest.fixture
def read():
    """Read sources to a list; bad rows go to `bad` if given, otherwise they raise."""

    def run(sources, options=None, *, bad=None, counter=None, standard_input=None):
        options = options or ReadOptions()

        def refuse(fault):
            if bad is None:
                raise fault
            bad.append(fault)

        files = find_sources([str(source) for source in sources], options)
        return list(
            read_files(
                files, options, on_bad_row=refuse, counter=counter or ByteCounter(), standard_input=standard_input
            )
        )

    return run


def test_a_folder_is_walked_in_order_and_what_is_not_text_is_passed_over(tmp_path, read):
    for name in (
        "b.md",
        "a.py",
        "sub/z.rst",
        "sub/c.HTML",
        ".git/no.py",
        ".hidden.md",
        "__pycache__/no.py",
        "node_modules/no.js",
        "env/pyvenv.cfg",
        "env/lib/no.py",
        "picture.png",
        "rows.jsonl",
        "rows.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"body": 1}' if name == "rows.jsonl" else "<p>text</p>")
    (tmp_path / "empty.py").write_text("\n \n")
    (tmp_path / "loop").symlink_to(tmp_path)
    documents = read([tmp_path])
    assert [document.key for document in documents] == [
        (tmp_path.name, name) for name in ("a.py", "b.md", "sub/c.HTML", "sub/z.rst")
    ]
    assert [document.kind for document in documents] == ["code", "markdown", "html", "rst"]
    assert documents[2].text == "text"
    assert all(document.line is None for document in documents)


def test_titles(tmp_path, read):
    (tmp_path / "a.md").write_text("# The title #\n\ntext")
    (tmp_path / "b.rst").write_text("=====\nTitle\n=====\n\nText")
    (tmp_path / "c.html").write_text("<title>Page</title>text")
    (tmp_path / "d.txt").write_text("# no title in plain text")
    assert [document.title for document in read([tmp_path])] == ["The title", "Title", "Page", None]


def test_a_byte_order_mark_is_no_text(tmp_path, read):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert read([tmp_path / "a.txt"])[0].text == "hello"


def test_a_file_that_is_not_utf8_is_named_with_its_line_or_skipped(tmp_path, read):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo \xff\n")
    (tmp_path / "b.txt").write_text("fine")
    with pytest.raises(SourceError, match=r"a\.txt:2: is not UTF-8"):
        read([tmp_path])
    bad = []
    assert [document.text for document in read([tmp_path], bad=bad)] == ["fine"]
    assert [(fault.path, fault.line) for fault in bad] == [(str(tmp_path / "a.txt"), 2)]


def test_a_named_empty_file_is_an_error(tmp_path, read):
    (tmp_path / "a.md").write_text("\n")
    with pytest.raises(SourceError, match="is empty"):
        read([tmp_path / "a.md"])


def test_sources_that_cannot_be(tmp_path):
    (tmp_path / "data.bin").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "picture.xyz").write_text("{}")
    for name, reason in (
        ("missing.md", "no such file"),
        ("data.bin", "its ending is not known"),
        ("folder", "no file that can be read.*1 file skipped: 1 unknown ending"),
    ):
        with pytest.raises(SourceError, match=reason):
            find_sources([str(tmp_path / name)], ReadOptions())


def test_a_file_named_twice_is_read_once(tmp_path, read):
    (tmp_path / "a.md").write_text("x")
    assert len(read([tmp_path, tmp_path / "a.md", tmp_path])) == 1


def test_a_format_for_what_has_no_ending(tmp_path, read):
    (tmp_path / "rows").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert [d.text for d in read([tmp_path / "rows"], ReadOptions(format="jsonl"))] == ["a", "b"]
    assert len(read([tmp_path / "rows"], ReadOptions(format="text"))) == 1


def test_standard_input_in_each_format(read):
    lines = read(["-"], standard_input=io.BytesIO(b"one\n\ntwo\r\n"))
    assert [(d.id, d.text, d.line) for d in lines] == [("1", "one", 1), ("3", "two", 3)]
    rows = read(["-"], ReadOptions(format="jsonl"), standard_input=io.BytesIO(b'{"text": "a", "id": 7}'))
    assert [(d.id, d.text) for d in rows] == [("7", "a")]
    cells = read(["-"], ReadOptions(format="csv"), standard_input=io.BytesIO(b"id,text\nx,y\n"))
    assert [(d.id, d.text) for d in cells] == [("x", "y")]


def test_a_line_of_standard_input_that_is_not_utf8(read):
    bad = []
    assert [d.text for d in read(["-"], bad=bad, standard_input=io.BytesIO(b"\xff\nok\n"))] == ["ok"]
    assert [(fault.path, fault.line, fault.reason) for fault in bad] == [("-", 1, "is not UTF-8")]


def test_bytes_are_counted_to_the_end(tmp_path, read):
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.md").write_text("häuser")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n' * 10)
    (tmp_path / "c.csv").write_text("text\na\nb\n")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000))
    pq.write_table(pa.table({"text": ["x"] * 10}), tmp_path / "e.parquet")
    counter = ByteCounter()
    names = ("a.md", "b.jsonl", "c.csv", "d.jsonl.gz", "e.parquet")
    read([tmp_path / name for name in names], counter=counter)
    assert counter.total == sum((tmp_path / name).stat().st_size for name in names)
    assert abs(counter.done - counter.total) <= 10
    read(["-"], counter=counter, standard_input=io.BytesIO(b"a"))
    assert counter.total is None


def test_columns_of_our_own_cannot_be_kept():
    with pytest.raises(UsageError, match="vector"):
        ReadOptions(keep=("topic", "vector"))
    with pytest.raises(UsageError, match="twice"):
        ReadOptions(keep=("topic", "topic"))
