"""Parsing of reStructuredText."""

import pytest

from embedway.collections.parsers.rst import parse_rst
from embedway.collections.parsers.rst_inline import MAX_FILLED_CHARACTERS

PAGE = """\
.. _target:

=====
Title
=====

.. index:: nothing
.. module:: os.path

See :func:`~os.path.join` and ``a_b``.

.. function:: join(path, *paths)

   Join *paths*.

   .. versionadded:: 3.2

Section
=======

== ==
a  b
== ==
1  2
== ==
"""


def test_structure():
    parsed = parse_rst(PAGE, "page.rst")
    assert parsed.title == "Title"
    assert [(block.kind, block.level, parsed.text[block.start : block.end]) for block in parsed.blocks] == [
        ("heading", 1, "Title"),
        ("paragraph", 0, "See join() and a_b."),
        ("definition", 7, "os.path.join(path, *paths)"),
        ("paragraph", 0, "Join paths."),
        ("paragraph", 0, "New in version 3.2."),
        ("heading", 2, "Section"),
        ("table", 0, "a | b\n1 | 2"),
    ]


@pytest.mark.parametrize("unit", ["`a\n", ":a:`b ", "a-", ".. _a\n   b\n", "- a\n", "a\n=\n\n"])
def test_unclosed_markup_takes_linear_time(unit):
    assert parse_rst(unit * (50_000 // len(unit)), "page.rst") is not None


def test_deep_nesting_keeps_the_text():
    assert "x299" in parse_rst("\n\n".join(" " * depth + f"- x{depth}" for depth in range(300)), "page.rst").text


def test_text_after_a_definition_is_not_inside_it():
    parsed = parse_rst(
        "T\n=\n\n.. function:: f()\n\n   Inside.\n\nAfter.\n\nMore.\n\n.. data:: d\n\nEnd.\n", "page.rst"
    )
    assert [(block.kind, block.level) for block in parsed.blocks] == [
        ("heading", 1),
        ("definition", 7),
        ("paragraph", 0),
        ("paragraph", 7),
        ("paragraph", 0),
        ("definition", 7),
        ("paragraph", 7),
    ]


def test_a_page_of_links_has_their_names_as_text():
    parsed = parse_rst(
        "Title\n=====\n\n.. toctree::\n   :maxdepth: 1\n\n   one.rst\n   Second page <two>\n", "page.rst"
    )
    assert parsed.text == "Title\n\n- one\n- Second page"
    assert "one" not in parse_rst("Title\n=====\n\nText.\n\n.. toctree::\n\n   one\n", "page.rst").text


def test_no_other_file_and_no_address_is_read(monkeypatch):
    import builtins
    import urllib.request

    parse_rst("first\n", "a.rst")

    def refuse(*args, **_):
        pytest.fail(f"opened {args}")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    directives = (
        "include:: /etc/passwd",
        "literalinclude:: /etc/passwd",
        "raw:: html\n   :file: /etc/passwd",
        "raw:: html\n   :url: http://127.0.0.1:1/",
        "csv-table:: Rows\n   :file: /etc/passwd",
        "csv-table:: Rows\n   :url: http://127.0.0.1:1/",
        "list-table:: Rows\n   :file: /etc/passwd",
    )
    text = "\n\n".join(f".. {directive}" for directive in directives)
    assert parse_rst(f"{text}\n\nThe end.\n", "a.rst").text.split("\n")[-1] == "The end."
    assert "passwd" not in parse_rst(f"{text}\n\nThe end.\n", "a.rst").text


NAMES = """\
Title
=====

.. |short| replace:: a text
.. |long| replace:: see |short| now

Before |long|. See :ref:`The-Other`, :ref:`own <the-other>` and :ref:`elsewhere`.

.. parsed-literal::

   run |short| :ref:`the-other`

.. _not-a-section:

Text.

.. _alias:
.. _the-other:

Other |short|
-------------

See :ref:`alias` and :ref:`not-a-section`.
"""


def test_names_are_replaced_by_titles_and_texts():
    parsed = parse_rst(NAMES, "page.rst")
    assert [parsed.text[block.start : block.end] for block in parsed.blocks] == [
        "Title",
        "Before see a text now. See Other a text, own and elsewhere.",
        "run a text Other a text",
        "Text.",
        "Other a text",
        "See Other a text and not-a-section.",
    ]


def test_a_repeated_substitution_does_not_grow_without_bound():
    page = f"Title\n=====\n\n.. |s| replace:: {'x' * 20_000}\n\n{'|s| ' * 2_000}\n"
    assert len(parse_rst(page, "page.rst").text) < MAX_FILLED_CHARACTERS + len(page)


@pytest.mark.parametrize("code", ["0x00", "0x02", "U+D800", "0x110000"])
def test_characters_that_a_text_cannot_have_are_dropped(code):
    assert parse_rst(f".. |s| unicode:: {code}\n\na|s|b, |s|c\n", "page.rst").text.isprintable()
