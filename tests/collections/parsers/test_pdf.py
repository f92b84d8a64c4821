"""PDF: pages, repeated lines, and files that are refused."""

import sys

import pytest

from embedway.collections.parsers.pdf import parse_pdf
from embedway.errors import MissingExtraError, SourceError


def pdf(pages):
    """Return a PDF file; each page is a list of lines."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(count))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        content = f"BT /F1 12 Tf 14 TL 50 700 Td {shown} ET"
        objects += [
            (
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * number} 0 R "
                "/Resources << /Font << /F1 3 0 R >> >> >>"
            ),
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    body = "%PDF-1.4\n"
    offsets = []
    for number, item in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{item}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF"
    return f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def test_pages_are_marked_and_repeated_lines_dropped():
    words = ["alpha", "beta", "gamma", "delta"]
    parsed = parse_pdf(
        pdf([["Manual of pumps", f"The {word} valve", "opens", f"Page {page}"] for page, word in enumerate(words, 1)]),
        "a.pdf",
    )
    assert "Manual" not in parsed.text
    assert "Page" not in parsed.text
    assert [(parsed.text[offset:].split()[1], page) for offset, page in parsed.page_marks] == [
        (word, page) for page, word in enumerate(words, 1)
    ]


def test_a_file_without_text_and_an_invalid_one_are_refused():
    with pytest.raises(SourceError, match="no text layer"):
        parse_pdf(pdf([[]]), "a.pdf")
    with pytest.raises(SourceError, match="no valid PDF"):
        parse_pdf(b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF", "a.pdf")


def encrypted():
    """Return a PDF file that needs a password: its keys do not fit the empty one."""
    plain = pdf([["Secret"]])
    entry = (
        b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> >> "
        b"/ID [<00> <00>] "
    )
    return plain.replace(b"trailer << ", b"trailer << " + entry)


def test_an_encrypted_file_is_refused():
    with pytest.raises(SourceError, match="is encrypted; remove its password"):
        parse_pdf(encrypted(), "a.pdf")


def test_pages_and_characters_are_bounded(monkeypatch):
    data = pdf([["one two three"]] * 3)
    monkeypatch.setattr("embedway.collections.parsers.pdf.MAX_PAGES", 2)
    with pytest.raises(SourceError, match="more than 2 pages"):
        parse_pdf(data, "a.pdf")
    monkeypatch.undo()
    monkeypatch.setattr("embedway.collections.parsers.pdf.MAX_CHARACTERS", 30)
    with pytest.raises(SourceError, match="more than 30 characters"):
        parse_pdf(data, "a.pdf")


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"\0" * 1000, pdf([["a"]])[:300]])
def test_damaged_files_are_refused(data):
    with pytest.raises(SourceError, match=r"a\.pdf: "):
        parse_pdf(data, "a.pdf")


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(MissingExtraError, match=r"embedway\[pdf\]"):
        parse_pdf(b"", "a.pdf")
