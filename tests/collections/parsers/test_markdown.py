"""Markdown: structure, titles, lines, and what is removed."""

import re
import time

import pytest

from embedway.collections.parsers.markdown import parse_markdown
from embedway.collections.parsers.markdown_syntax import has_only_includes

CHARACTERS = 30_000


def parse(text):
    parsed = parse_markdown(text, "x.md")
    starts = [block.start for block in parsed.blocks]
    assert starts == sorted(starts)
    return parsed


def blocks(text):
    parsed = parse(text)
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Getting started with C#\n\nText", "Getting started with C#"),
        ("# Closed ##\n", "Closed"),
        ("Release calendar\n====\n\nText", "Release calendar"),
        ('---\ntitle: "Rotating API keys"\ntags: [a]\n---\n# Other', "Rotating API keys"),
        ("---\n# comment\ntitle: Disk quotas # why\n---\n", "Disk quotas"),
        ("---\ntitle: >-\n  One\n  two\nx: y\n---\ntext", "One two"),
        ("---\ntitle: 'It''s'\n---\ntext", "It's"),
        ("---\ntitle: null\n---\n# Real", "Real"),
        ('+++\ntitle = "Hugo"\n+++\ntext', "Hugo"),
        ("```sh\n# fetch\n```\n\n# Installing the agent\n", "Installing the agent"),
        ("Some intro.\n\n~~~python\n# not a title\n~~~\n", None),
        ('<h1 align="center">Widget server</h1>\n\nText', "Widget server"),
        ("# [Widget](https://x.example) `v2` **manual**", "Widget v2 manual"),
        ("Intro text.\n\n## Revenue\n\nNumbers.", None),
        ("## Install\n\nText\n\n## Use\n", None),
        ("## Alone\n\nText\n\n### Below\n", "Alone"),
        ("---\n\n# Between rules\n\ntext\n\n---\n", "Between rules"),
        ("# Anchored {#here}\n", "Anchored"),
        ("Anchored {: .c #here}\n===\n", "Anchored"),
        ("# Braces {name}\n", "Braces {name}"),
    ],
)
def test_title(text, title):
    assert parse(text).title == title


def test_structure():
    found = blocks(
        "# One\n\nText of\none.\n\n```py x=1\ncode\n```\n\n"
        "- a\n- b\n  1. c\n\n> said\n\n|h|i|\n|-|-|\n|1|2|\n\n    indented\n"
    )
    assert found == [
        ("heading", "One"),
        ("paragraph", "Text of\none."),
        ("code", "code"),
        ("list", "- a\n- b\n  1. c"),
        ("quote", "said"),
        ("table", "h | i\n1 | 2"),
        ("code", "indented"),
    ]


def test_header_rows_and_languages_are_known():
    parsed = parse("|h|i|\n|-|-|\n|1|2|\n\n~~~Python title='x'\ncode\n~~~\n\n```{code-block} rust\nfn\n```")
    table, code, directive = parsed.blocks
    assert parsed.text[table.start : table.header_end] == "h | i"
    assert (code.language, directive.language) == ("python", "rust")


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("See [the **guide**](http://x.example 'title') now.", "See the guide now."),
        ("See [guide][g].\n\n[g]: http://x.example\n", "See guide."),
        ("![shot](data:image/png;base64," + "QUJD" * 100 + ")", "shot"),
        ("![shot](data:image/svg+xml;utf8,%3Csvg" + "a" * 40 + ")", "shot"),
        ("![logo][l]\n\n[l]: data:image/png;base64," + "QUJD" * 100, "logo"),
        ("a <b>bold</b><br>next <!-- no --> <img src=x alt='a &amp; b'>", "a bold\nnext  a & b"),
        ("<div>\nkept <script>no()</script>\n</div>", "kept"),
        ("<!-- a\n\nb -->\n\ntext", "text"),
        ("<style>\np {}\n\n</style>\n\ntext", "text"),
        ("<p>one</p>\n<p>two &lt;</p>", "one\n\ntwo <"),
        ('!!! note "Take care"\n    Inner *text*.\n\n    More.\n\nAfter', "Take care\n\nInner text.\n\nMore.\n\nAfter"),
        ('=== "Linux"\n\n    ```sh\n    ls\n    ```\n', "Linux\n\nls"),
        (":::note\nInner\n:::\nAfter", "Inner\n\nAfter"),
        (":::tip[My title]\n\nInner\n\n:::\n", "My title\n\nInner"),
        ("/// note | Title\nInner\n///\n", "Title\n\nInner"),
        ("::: package.module\n", "package.module"),
        ("> [!NOTE]\n> Useful.", "Useful."),
        ("{% include x.html %}\n\ntext\n{: .class}\n", "text"),
        ('[a](b){:target="_blank"} and `x`{.py}', "a and x"),
        ("(target)=\n# H\n", "H"),
        ("Escaped \\* and &copy;", "Escaped * and ©"),
        ("```{note} Title\n:class: x\nInner *text*\n```", "Title\n\nInner text"),
    ],
)
def test_only_markup_is_removed(markup, text):
    assert parse(markup).text == text


@pytest.mark.parametrize(
    "line",
    [
        '--8<-- "file.md"',
        "-8<- 'a b.md:intro'",
        "{! file.md !}",
        "{!> ../../docs_src/x.py!}",
        "{* ../../docs_src/x.py ln[1:3] hl[2] *}",
        "--8<--\nfile.md\n; other.md\n\nthird.md\n--8<--",
    ],
)
def test_lines_that_include_files_are_no_text(line):
    indented = line.replace("\n", "\n  ")
    source = f"One\n\n{line}\n\n- two\n\n  {indented}\n\nthree\n{line}\nfour"
    assert parse(source).text == "One\n\n- two\n\nthree\n\nfour"
    if "\n" not in line:
        assert parse(f"One\n\n```python hl_lines='1'\n{line}\n\n{line}\n```\n\ntwo").text == "One\n\ntwo"
    # Other code, which may show how to include, stays as it is.
    assert parse(f"```\n{line}\nx = 1\n```").text == f"{line}\nx = 1"


def test_lines_that_include_files_take_linear_time():
    started = time.process_time()
    for line in ("--8<--", "--8<-- a" + " " * 1000, "{!" + "!" * 1000, "{*"):
        text = f"{line}\n" * (300_000 // len(line))
        parse(text[:100_000])
        has_only_includes(text + "x")
    assert time.process_time() - started < 10


def test_text_around_marks_of_includes_stays():
    for text in ("a --8<-- b", "Use {! x !} here.", "{! x !} is the mark.", "```\n\n\n```", "{! a {b} !}"):
        assert parse(text).text == text.strip("`\n")
    assert parse('```jinja\n{% include "x.html" %}\n```').text == '{% include "x.html" %}'
    assert parse("--8<--\n\nNo list.\n\nText.").text == "No list.\n\nText."
    assert parse("---8<---\nA cut text.\n---8<---\nText.").text == "A cut text.\n\nText."
    assert parse("- --8<--\n  a.md\n\nText.\n\n--8<--").text == "- a.md\n\nText."


def test_headings_of_lists_and_quotes_begin_no_section():
    assert [kind for kind, _ in blocks("> # Quoted\n\n- # Item\n\n# Real")] == ["quote", "list", "heading"]


def test_lines_are_those_of_the_source():
    words = [f"word{number}" for number in range(1, 60)]
    source = (
        "---\ntitle: t\n---\n\n# word1\n\nword2 `a\nb` word3\nword4 [l](\nx) word5\nword6\n\n"
        "- word7\n  word8\n\n  - word9\n"
        "\n> word10\nword11\n\n```py\nword12\n\nword13\n```\n\n|word14|\n|-|\n|word15|\n"
        "|word16|\n\n<div>\n<p>\nword17\n</p>"
        "\nword18</div>\n\n!!! note\n    word19\n    word20\n\n    word21\n\n:::tip\nword22\n:::\n\nword23\n---\n\n"
        "    word24\n    word25\n\nword26 <b\nc='d'>word27</b>\nword28\n"
    )
    parsed = parse(source)
    marks = list(parsed.line_marks)
    seen = 0
    for word in words:
        if found := re.search(rf"{word}\b", parsed.text):
            line = max(mark for mark in marks if mark[0] <= found.start())[1]
            if word not in {"word3", "word5"}:
                assert line == source[: re.search(rf"{word}\b", source).start()].count("\n") + 1, word
            seen += 1
    assert seen == 28


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_all_line_ends_are_read(newline):
    parsed = parse(newline.join(["# A", "", "b", "c"]))
    assert (parsed.text, parsed.title, list(parsed.line_marks)) == ("A\n\nb\nc", "A", [(0, 1), (3, 3), (5, 4)])


def test_deep_text_is_kept():
    assert "deep" in parse(">" * 200 + " deep").text
    assert "deep" in parse("- " * 200 + "deep").text
    assert "last" in parse("".join("  " * depth + "- a\n" for depth in range(60)) + "\nlast").text


UNITS = [
    *(">", "> ", "- ", "1. ", "[", "![", "[a](", "[a]: x\n", "[a\n", "*a ", "*a_ ", "<", "<a ", "<!--", "&a", "<?"),
    *("~~~a\n", "|a|b|\n|-|-|\n", "word\n", "# ", "<div>\n<a ", ":::a\n", "{.", "{%\n", "!!! a\n", "# a" + " " * 500),
    *("```{note}\n", "a{#", '<a b="', "|a"),
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("# ", ""), ("<div>\n", ">"), ("---\na: ", "\n---\n")])
def test_hostile_markdown_takes_seconds(unit, before, after):
    begun = time.process_time()
    parse(before + unit * (CHARACTERS // len(unit)) + after)
    assert time.process_time() - begun < 10


def test_long_texts_are_parsed_in_segments_with_equal_results(monkeypatch):
    source = "# A\n\ntext *b*\n\n```\n# no heading\n```\n\n- item\n\n## B\n\n| a |\n|---|\n| c |\n\n" * 20
    whole = parse_markdown(source, "a.md")
    monkeypatch.setattr("embedway.collections.parsers.markdown._MAX_SEGMENT", 100)
    parts = parse_markdown(source, "a.md")
    assert (parts.text, parts.blocks, parts.title) == (whole.text, whole.blocks, whole.title)
    assert list(parts.line_marks) == list(whole.line_marks)


def test_comments_of_mdx_in_markdown_are_removed():
    found = parse_markdown(
        "## Keynote {/*key-note*/}\n\nOne {/* two\nlines */} three\nfour.\n\n`{/*code*/}` {/*open", "a.md"
    )
    assert found.text == "Keynote\n\nOne  three\nfour.\n\n{/*code*/} {/*open"
    assert found.line_marks[-1][1] == 7


@pytest.mark.parametrize(
    "source",
    [
        "https://img.shields.io/pypi/v/x.svg",
        "https://badge.fury.io/py/x.svg",
        "https://github.com/a/b/actions/workflows/test.yml/badge.svg",
        "https://github.com/a/b/workflows/Test%20all/badge.svg?branch=main",
        "https://codecov.io/gh/a/b/graph/badge.svg",
        "https://readthedocs.org/projects/x/badge/?version=latest",
        "https://coverage-badge.example.dev/a/b.svg",
        "http://img.shields.io/badge/a-b-green",
        "https://badges.gitter.im/a/b.svg",
        "https://ci.appveyor.com/api/projects/status/x?svg=true",
        "https://gitlab.com/a/b/badges/main/pipeline.svg",
        "https://api.travis-ci.com/a/b.svg?branch=main",
        "https://results.pre-commit.ci/badge/github/a/b/main.svg",
        "https://mybinder.org/badge_logo.svg",
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://x.example/badge.svg",
    ],
)
def test_badges_are_no_text(source):
    for image in (
        f"[![build passing]({source})](https://x.example)",
        f'<a href="x"><img src="{source}" alt="build"></a>',
    ):
        assert parse_markdown(f"# {image} Pump\n\n{image}\n\nA pump.", "a.md").text == "Pump\n\nA pump."


@pytest.mark.parametrize(
    "source",
    [
        "honour.png",
        "/img/workflows/release.svg",
        "../badges/gold.png",
        "/images/badge.svg",
        "img/x-badge.svg",
        "https://x.example/badges/gold.png",
        "https://x.example/workflows/release.svg",
        "https://x.example/to//badge.png/codecov.io/a.png",
        "https://github.com/a/b/raw/main/docs/workflows/release.svg",
        "https://github.com/a/b/raw/main/status/badges.png",
        "https://notshields.io/a.png",
    ],
)
def test_pictures_that_only_look_like_badges_are_text(source):
    assert parse_markdown(f"![badge of honour]({source})", "a.md").text == "badge of honour"
    assert parse_markdown(f'<img src="{source}" alt="badge of honour">', "a.md").text == "badge of honour"


def test_an_address_is_checked_for_a_badge_in_linear_time():
    started = time.process_time()
    for path in ("-" * 100_000, "/badge" * 20_000, "workflows/" * 20_000):
        parse_markdown(f"![x](https://github.com/{path})\n\n![x](https://{'a.' * 50_000})", "a.md")
    assert time.process_time() - started < 5
