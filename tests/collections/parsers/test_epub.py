"""EPUB books: order, title, chapters as pages, and files that are refused."""

import io
import zipfile

import pytest

from embedway.collections.parsers.epub import parse_epub
from embedway.errors import SourceError

CONTAINER = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
OPF = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title> The
 pump </dc:title></metadata>
<manifest><item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="b" href="text/second%20part.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/first.xhtml" media-type="application/xhtml+xml"/>
<item id="p" href="x.png" media-type="image/png"/></manifest>
<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/><itemref idref="p"/><itemref idref="none"/></spine>
</package>"""
PAGE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html><head><title>Page</title></head><body>
<h1>{0}</h1>
<p>Text of {0}.</p><img src="data:image/png;base64,{1}" alt="A valve"/>
<table><tr><th>Name</th><th>Limit</th></tr><tr><td>flow</td><td>9</td></tr></table></body></html>"""


def book(**changes):
    entries = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": OPF,
        "OEBPS/nav.xhtml": PAGE.format("Contents", ""),
        "OEBPS/text/first.xhtml": PAGE.format("First", "QUJD" * 200),
        "OEBPS/text/second part.xhtml": PAGE.format("Second", ""),
    }
    names = {"container": "META-INF/container.xml", "opf": "OEBPS/book.opf", "first": "OEBPS/text/first.xhtml"}
    entries |= {names.get(name, f"META-INF/{name}.xml"): content for name, content in changes.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)
    return file.getvalue()


def test_chapters_are_in_reading_order():
    parsed = parse_epub(book(), "a.epub")
    assert parsed.title == "The pump"
    headings = [parsed.text[block.start : block.end] for block in parsed.blocks if block.kind == "heading"]
    assert headings == ["First", "Second"]
    assert [(parsed.text[offset:].split()[0], page) for offset, page in parsed.page_marks] == [
        ("First", 1),
        ("Second", 2),
    ]
    assert dict(parsed.line_marks)[0] == 4
    assert "A valve" in parsed.text
    assert "QUJD" not in parsed.text
    table = next(block for block in parsed.blocks if block.kind == "table")
    assert parsed.text[table.start : table.header_end] == "Name | Limit"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"container": None}, "no entry 'META-INF/container.xml'"),
        ({"container": "<container/>"}, "no entry ''"),
        ({"opf": None}, "no entry 'OEBPS/book.opf'"),
        ({"opf": "<package>"}, "no valid XML"),
        ({"opf": "<?xml version='1.0' encoding='nonsense'?><package/>"}, "no valid XML"),
        ({"opf": "<package/>"}, "chapters is empty"),
        ({"opf": '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}, "defines entities"),
        ({"first": None}, "no entry 'OEBPS/text/first.xhtml'"),
        ({"first": b"\xff\xfe\xff"}, "is not"),
        ({"first": "<p/>" * (17 << 20)}, "too large"),
        ({"encryption": '<a><CipherReference URI="OEBPS/text/first.xhtml"/></a>'}, "is encrypted"),
    ],
)
def test_bad_books_are_refused(changes, reason):
    with pytest.raises(SourceError, match=reason):
        parse_epub(book(**changes), "a.epub")


def test_encrypted_fonts_are_no_matter():
    assert parse_epub(book(encryption='<a><CipherReference URI="font.ttf"/></a>'), "a.epub").title == "The pump"


def test_no_package_is_refused():
    with pytest.raises(SourceError, match="no valid EPUB"):
        parse_epub(b"PK", "a.epub")
