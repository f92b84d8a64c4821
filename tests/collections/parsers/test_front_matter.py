"""Front matter: its end, its title, and text that is none."""

import pytest

from embedway.collections.parsers.front_matter import split_front_matter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\ntitle: Pumps\n---\ntext", ("Pumps", 3)),
        ("---\ntitle: Pumps # old\n...\ntext", ("Pumps", 3)),
        ('---\ntitle: "A \\"b\\" # c" # d\n---', ('A "b" # c', 3)),
        ("---\n'title': 'It''s'\n---", ("It's", 3)),
        ("---\ntitle: >-\n  Two\n  lines\nlang: de\n---", ("Two lines", 6)),
        ("---\ntitle:\n  Below\n---", ("Below", 4)),
        ("---\ntitle: ~\n---", (None, 3)),
        ("---\nTags:\n- a\n- b\nx: {{ y }}\n---", (None, 6)),
        ("---\n# comment\n---", (None, 3)),
        ("---\n---", (None, 2)),
        ('+++\ntitle = "Pumps"\n[extra]\n+++\ntext', ("Pumps", 4)),
        ("+++\ntitle = 'Pumps'\n+++", ("Pumps", 3)),
        # No front matter: text between rules, no end, not at the beginning.
        ("---\nSome text.\n---", (None, 0)),
        ("---\ntitle: Pumps\ntext without end", (None, 0)),
        ("\n---\ntitle: Pumps\n---", (None, 0)),
        ("----\ntitle: Pumps\n----", (None, 0)),
        ("", (None, 0)),
    ],
)
def test_title_and_end(text, expected):
    assert split_front_matter(text.split("\n")) == expected


def test_the_end_is_searched_for_in_the_first_lines_only():
    assert split_front_matter(["---", *["a: b"] * 3000, "---"]) == (None, 0)
    assert split_front_matter(["---", "title: " + "x" * 9000, "---"])[0] == "x" * 4096
