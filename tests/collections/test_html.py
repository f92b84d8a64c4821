"""HTML to text."""

from embedway.collections.html import html_to_text


def test_blocks_become_lines_and_markup_goes():
    text, title, _ = html_to_text(
        "<html><head><title> A  page </title><style>p {}</style></head><body>"
        "<nav>skip me</nav><h1>Head</h1><p>One <b>bold</b>,\n two &amp; more.</p>"
        "<ul><li>first<li>second</ul><script>var x = 1;</script>end</body></html>"
    )
    assert title == "A page"
    assert text == "Head\n\nOne bold, two & more.\n\nfirst\nsecond\n\nend"


def test_preformatted_text_keeps_its_lines_and_indentation():
    text, _, _ = html_to_text("<p>see</p><pre>def f():\n    return 1\n\nf()</pre><p>done</p>")
    assert text == "see\n\ndef f():\n    return 1\n\nf()\n\ndone"


def test_words_in_neighbouring_cells_and_inline_tags():
    text, _, _ = html_to_text("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>x<i>y</i>z")
    assert text == "a b\nc\n\nxyz"


def test_marks_say_where_text_came_from():
    text, _, marks = html_to_text("<body>\n<p>one\n</p>\n\n<pre>two\nthree</pre>")
    assert [(text[offset:].split("\n")[0], line) for offset, line in marks] == [
        ("one", 2),
        ("two", 5),
        ("three", 6),
    ]


def test_an_empty_navigation_tag_skips_nothing():
    assert html_to_text("<nav/>all of this")[0] == "all of this"


def test_no_text_at_all():
    assert html_to_text("<script>x</script>") == ("", None, ())
