"""Encodings of documents and rows, and content that is no text."""

import gzip
import io
import json
import time

import pytest

from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import UsageError

TEXT = "Größe: 5 € für 東京"


@pytest.fixture
def read(tmp_path):
    """Write a file and read it; return its texts and the reasons of bad rows."""

    def run(name, content, **options):
        bad = []
        read_options = ReadOptions(**options)
        path = "-"
        stream = io.BytesIO(content)
        if name != "-":
            path = tmp_path / name
            path.write_bytes(content)
        inventory = find_sources([str(path)], read_options)
        found = read_files(inventory, read_options, on_bad_row=bad.append, counter=ByteCounter(), standard_input=stream)
        return [document.text for document in found], [fault.reason for fault in bad]

    return run


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", TEXT),
        ("a.md", TEXT),
        ("a.html", f"<p>{TEXT}</p>"),
        ("a.csv", f"id,text\n1,{TEXT}\n"),
        ("a.tsv", f"id\ttext\n1\t{TEXT}\n"),
        ("a.jsonl", json.dumps({"text": TEXT}, ensure_ascii=False)),
        ("a.json", json.dumps([{"text": TEXT}], ensure_ascii=False)),
        ("-", TEXT),
    ],
)
def test_a_byte_order_mark_decides_in_every_format(read, name, content, encoding):
    data = content.encode(encoding)
    assert read(name, data) == ([TEXT], [])
    if name not in {"-", "a.html"}:
        assert read(f"{name}.gz", gzip.compress(data)) == ([TEXT], [])


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "-"])
def test_the_encoding_of_the_option(read, name):
    content = ("text\nGröße\n" if name == "a.csv" else "Größe").encode("cp1252")
    assert read(name, content, encoding="cp1252") == (["Größe"], [])
    texts, bad = read(name, content)
    assert texts == []
    assert bad[0].startswith("is not UTF-8")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.csv", "a.jsonl", "-"])
def test_files_in_utf8_stay_readable_beside_the_option(read, name):
    content = {"a.csv": f"text\n{TEXT}\n", "a.jsonl": json.dumps({"text": TEXT}, ensure_ascii=False)}.get(name, TEXT)
    for encoding in ("cp1252", "latin-1", "shift_jis", "utf-16-le"):
        assert read(name, content.encode(), encoding=encoding) == ([TEXT], [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xml", '<?xml version="1.0" encoding="iso-8859-15"?><p>{}</p>'),
        ("a.py", "# -*- coding: iso-8859-15 -*-\n# {}\n"),
        ("a.rb", "#!/usr/bin/ruby\n# encoding: iso-8859-15\n# {}\n"),
        ("a.vim", '" x\n'),
    ],
)
def test_an_encoding_that_a_file_declares(read, name, content):
    (text,), bad = read(name, content.format("Größe 5 €").encode("iso-8859-15"), encoding="cp1252")
    assert (text, bad) == (content.format("Größe 5 €"), [])


NO_ENCODINGS = [
    "punycode",
    "unicode_escape",
    "raw-unicode-escape",
    "utf-7",
    "idna",
    "undefined",
    "hz",
    "cp037",
    "rot13",
]


@pytest.mark.parametrize("name", [*NO_ENCODINGS, "klingon"])
def test_a_declared_encoding_that_changes_ascii_is_not_used(read, name):
    comment = f"# coding: {name}\na = r'C:\\new \\x41' + b - c  # ~{{ab~}} é\n"
    assert read("a.py", comment.encode()) == ([comment], [])
    assert read("a.py", comment.replace("é", "e").encode()) == ([comment.replace("é", "e")], [])
    xml = f'<?xml version="1.0" encoding="{name}"?><p>C:\\new + a+b-</p>\n'
    assert read("a.xml", xml.encode()) == ([xml], [])
    for head in (f"<meta charset={name}>", f'<?xml version="1.0" encoding="{name}"?>'):
        page = f"{head}<p>C:\\new + a+b-</p>".encode()
        assert read("a.html", page) == ([], [f"declares the unknown encoding {name!r}; convert the file to UTF-8"])


def test_a_declared_codec_takes_no_quadratic_time(read):
    started = time.process_time()
    assert read("a.html", b"<meta charset=punycode><p>" + b"a" * 400_000 + b"-" + b"ab" * 200_000)[0] == []
    assert read("a.html", f"<meta charset={'x' * 3000}><p>words</p>".encode())[0] == []
    assert time.process_time() - started < 5


def test_only_code_declares_its_encoding_in_a_comment(read):
    for name in ("a.md", "a.txt", "a.rst"):
        text = "# About file encoding: latin-1\n\nЮля\n"
        (found,), bad = read(name, text.encode("cp1251"), encoding="cp1251")
        assert ("Юля" in found, bad) == (True, [])


def test_a_false_declaration_of_utf8_is_no_reason_to_refuse_the_option(read):
    page = '<meta charset="utf-8"><p>Größe</p>'.encode("cp1252")
    assert read("a.html", page, encoding="cp1252") == (["Größe"], [])
    assert read("a.html", b'<meta charset="utf-16"><p>Size</p>') == (["Size"], [])
    text = '<?xml version="1.0" encoding="utf-8"?><p>Größe</p>'
    assert read("a.xml", text.encode("cp1252"), encoding="cp1252") == ([text], [])


def test_an_unknown_encoding_is_refused():
    for name in ("klingon", "base64", "a\0b", "punycode", "unicode_escape", "U7", "idna", "utf-8" * 1000):
        with pytest.raises(UsageError, match="no encoding is called"):
            ReadOptions(encoding=name)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "-"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_utf16_without_a_mark_is_named(read, name, encoding):
    content = {"a.csv": "text\nplain words\n", "a.jsonl": '{"text": "plain words"}'}.get(name, "plain words")
    data = content.encode(encoding)
    assert read(name, data)[1] == [
        f"looks like UTF-16{encoding[-2:].upper()} without a byte order mark; read it with encoding={encoding!r}"
    ]
    assert read(name, data, encoding=encoding) == (["plain words"], [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\nxx", "is a PNG image, not text"),
        (b"PK\x03\x04\0\0ok", "is a ZIP archive or office document, not text"),
        (b"\x7fELF\x02\x01\x01", "is a program (ELF), not text"),
        (b"text \0 more text", "contains NUL bytes, so it is binary, not text"),
    ],
)
@pytest.mark.parametrize("name", ["a.md", "a.csv", "a.jsonl", "-"])
def test_binary_content_is_refused_by_name(read, name, content, reason):
    assert read(name, content) == ([], [reason])


def test_invalid_text_after_a_mark(read):
    reasons = read("a.txt", b"\xff\xfe" + "fine\n".encode("utf-16-le") + b"\x00\xd8a\0")[1]
    assert reasons == ["is not valid UTF-16-LE, which its byte order mark declares; convert the file to UTF-8"]
    texts, reasons = read("a.csv", b"\xff\xfe" + "text\nfine\n".encode("utf-16-le") + b"\x00\xd8a\0")
    assert reasons == ["is not valid utf-16-le; is encoding right?"]
    assert texts == []


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.html", "a.csv", "a.jsonl", "a.json", "-"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "UTF16", "utf_32_be"])
def test_ascii_files_stay_readable_beside_an_encoding_of_wide_characters(read, name, encoding):
    text = "plain ASCII words"
    content = {"a.csv": f"text\n{text}\n", "a.jsonl": json.dumps({"text": text})}.get(name, text)
    assert read(name, content.encode(), encoding=encoding) == ([text], [])


def test_ascii_bytes_of_another_encoding_are_decoded(read):
    for encoding in ("iso-2022-jp", "hz"):
        for name in ("a.txt", "-"):
            assert read(name, "中文".encode(encoding), encoding=encoding) == (["中文"], [])


@pytest.mark.parametrize("text", ['{"name": "Größe 東京"}', '{"name": "plain words"}', '{"sum": "1 +AGE- 2"}'])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32-be", "gb18030", "iso2022_jp_2"])
def test_json_that_is_one_text_is_decoded_once(read, text, encoding):
    assert read("a.json", text.encode(encoding), encoding=encoding) == ([text], [])
