"""Scanning of HTML."""

import pytest

from embedway.collections.parsers.html import parse_html

CHARACTERS = 1_000_000
#: Constructs without an end. With `html.parser`, each of these pages takes minutes; now, tenths of a second.
UNCLOSED = ["<!--", "<a ", "</", "<![CDATA[", "<", "<?", "<!", "&#", '<a b="', "<a b='>' ", "</script", "<a ="]


@pytest.mark.parametrize("unit", UNCLOSED)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("", ">"), ("<script>", ""), ('<a b="', '">'), ("&#9", ";")])
def test_unclosed_constructs_take_linear_time(unit, before, after):
    parse_html(before + unit * (CHARACTERS // len(unit)) + after, "page.html")


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("one <!-- two > three", "one three"),
        ("one <!-- two --> three", "one three"),
        ("one <b two", "one <b two"),
        ("<a href='x>y'>one</a>", "one"),
        ('<a href="x>one</a> two', "one two"),
        ("one < two <= three", "one < two <= three"),
        ("<![CDATA[ a > b ]]>one", "one"),
        ("<!DOCTYPE html><?php x ?>one", "one"),
        ("<script>if (a</b>1) '<p>'</SCRIPT >one", "one"),
        ("<script>a</script", ""),
        ("</p one>two</>three", "twothree"),
        ("&#65; &amp; &lt;b&gt; &#" + "9" * 5000 + ";", "A & <b> \ufffd"),
    ],
)
def test_only_markup_is_dropped(markup, text):
    assert parse_html(markup, "page.html").text == text


def test_lines_are_those_of_the_source():
    parsed = parse_html("<!-- a\nb -->one\n<p\nid=x>two<p>\n\nthree", "page.html")
    text, marks = parsed.text, parsed.line_marks
    assert [(text[offset:].split("\n")[0], line) for offset, line in marks] == [("one", 2), ("two", 4), ("three", 6)]
