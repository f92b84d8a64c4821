"""Parsing of HTML."""

from embedway.collections.parsers.html import decode_html, parse_html


def test_the_main_part_is_preferred():
    page = "<title>T</title><div role=navigation>menu</div><main><h1>Head</h1><p>Water plants.</main><footer>x</footer>"
    parsed = parse_html(page, "page.html")
    assert (parsed.title, parsed.text) == ("T", "Head\n\nWater plants.")


def test_cells_are_separated():
    parsed = parse_html("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "page.html")
    assert parsed.text == "a | b\n1 | 2"
    assert parsed.blocks[0].header_end == len("a | b")


def test_declared_charset():
    assert decode_html(b'<meta charset="latin-1">\x93a', "page.html", None).endswith("\u201ca")
