"""AsciiDoc: structure, text without markup, lines, and time for hostile texts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections.parsers.asciidoc import parse_asciidoc

SOURCE = """\
// comment
= Guide to {product}
Jane Doe <jane@example.org>
v1.0, 2024-01-01
:product: Pump
:url: https://example.org

[[intro]]
The *main* `{product}` is in link:{url}[the docs], at `/users/{id}`. +
See <<timeouts,the section>>. {unknown}

include::other.adoc[]

[#timeouts]
== Timeouts

WARNING: Hot.

====
* one
** inner
+
[source,python]
----
x = 1 # <1>
----
====

[cols="1,2", options="header"]
|===
|Name |Meaning

|timeout_ms
|How *long*
2+|both
|===

CPU:: The brain.

////
hidden
////
"""


def shown(source):
    parsed = parse_asciidoc(source, "a.adoc")
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def test_blocks_of_a_document():
    assert shown(SOURCE) == [
        ("heading", "Guide to Pump"),
        ("paragraph", "The main Pump is in the docs, at /users/{id}.\nSee the section. unknown"),
        ("heading", "Timeouts"),
        ("paragraph", "Hot."),
        ("list", "- one\n  - inner"),
        ("code", "x = 1"),
        ("table", "Name | Meaning\ntimeout_ms | How long\nboth"),
        ("list", "CPU: The brain."),
    ]
    parsed = parse_asciidoc(SOURCE, "a.adoc")
    assert parsed.title == "Guide to Pump"
    code, table = parsed.blocks[5], parsed.blocks[6]
    assert code.language == "python"
    assert parsed.text[table.start : table.header_end] == "Name | Meaning"
    lines = SOURCE.split("\n")
    marks = {parsed.text[offset:].split("\n")[0]: lines[line - 1] for offset, line in parsed.line_marks}
    assert marks["x = 1"] == "x = 1 # <1>"
    assert marks["timeout_ms | How long"] == "|timeout_ms"
    assert marks["See the section. unknown"].startswith("See <<")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Old\n---\n\ntext", [("heading", "Old"), ("paragraph", "text")]),
        ("....\n= no title\n....", [("code", "= no title")]),
        ("```js\nlet a\n```", [("code", "let a")]),
        ("[source]\nline\nnext", [("code", "line\nnext")]),
        (". a\n. b\n\n. c", [("list", "1. a\n2. b\n3. c")]),
        ("[quote]\nSaid", [("quote", "Said")]),
        ("image::x.png[A valve, 300]", [("paragraph", "A valve")]),
        ("std::vector and __wide__ a_b_c", [("paragraph", "std::vector and wide a_b_c")]),
        (",===\na,b\n,===", [("table", "a | b")]),
        ("|===\n|a\n\n2*|x\n.2+|y\n|===", [("table", "a\nx\nx\ny")]),
        ('[format=csv]\n|===\na,"b,c"\n|===', [("table", "a | b,c")]),
        ("a footnote:[aside] kbd:[Ctrl] (((k)))", [("paragraph", "a  (aside) Ctrl")]),
        ("", []),
        ("----\nunclosed", [("code", "unclosed")]),
        ("++++\n<p>Raw</p>\n++++", [("paragraph", "Raw")]),
        ("== A\n\n+\n\n'''\n\n== B ==", [("heading", "A"), ("heading", "B")]),
    ],
)
def test_parts(source, expected):
    assert shown(source) == expected


@pytest.mark.parametrize(
    "part",
    [
        "*a _b `c #d ",
        "link:[",
        "http://a[[",
        "<<a,",
        "((",
        "{a}",
        "|a ",
        "2+|",
        "* a\n+\n",
        "a::\n",
        "====\n",
        "[a]\n",
        "[[a]\n",
        "=====\n--\n****\n",
        "a::a::",
        "\\[",
        "<1> ",
        "++a",
    ],
)
def test_hostile_texts_take_linear_time(part):
    source = part * (200_000 // len(part))
    for text in (source, "= T\n:a: " + "x" * 4000 + "\n\n" + source, "|===\n" + source + "\n|==="):
        begin = time.process_time()
        parsed = parse_asciidoc(text, "a.adoc")
        assert time.process_time() - begin < 5
        assert len(parsed.text) < 10 * len(text) + 100_000


@given(st.text(alphabet="=*_.|-+[]{}:/a \n`#<>~'", max_size=300))
def test_any_text_is_parsed(text):
    parsed = parse_asciidoc(text, "a.adoc")
    end = 0
    for block in parsed.blocks:
        assert end <= block.start < block.end <= len(parsed.text)
        assert parsed.text[block.start : block.end].strip()
        end = block.end
    assert all(1 <= line <= text.count("\n") + 1 for _, line in parsed.line_marks)
