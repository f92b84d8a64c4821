"""PDF: pages, repeated lines, and files that are refused."""

import pytest

from embedway.collections.parsers.pdf import parse_pdf
from embedway.errors import SourceError


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
