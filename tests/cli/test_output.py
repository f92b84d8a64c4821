"""Tables, numbers and lines as people read them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from embedway.cli.embed import vector_json
from embedway.cli.output import count, duration, one_line, print_table, size


@given(st.text(), st.integers(1, 40))
def test_one_line_is_short_and_harmless(text, width):
    line = one_line(text, width)
    assert len(line) <= width
    assert line.isprintable()
    assert line == line.strip()


def test_one_line_keeps_escape_sequences_from_the_terminal():
    assert one_line("a\x1b[31mred\nb\tc\x07") == "a [31mred b c"


@pytest.mark.parametrize(("number", "text"), [(1234.5, "1,234"), (99.94, "99.9"), (3, "3"), (0.25, "0.2")])
def test_count(number, text):
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (75, "75 s"), (750, "12 min 30 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999 bytes"), (90_900_000, "90.9 MB"), (2.3e9, "2.3 GB"), (5e13, "50.0 TB")]
)
def test_size(number, text):
    assert size(number) == text


def test_a_table_that_is_not_on_a_terminal_is_plain_and_whole(capsys):
    print_table(("rank", "text"), [("1", "x" * 300), ("10", "[bold]y[/bold]\nz")], right=(0,))
    assert capsys.readouterr().out.splitlines() == [
        "rank  text",
        f"   1  {'x' * 300}",
        "  10  [bold]y[/bold] z",
    ]


@given(numpy_strategies.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_vectors_in_json_are_exact(vector):
    back = np.array(json.loads(vector_json(vector)), dtype=np.float32)
    assert np.array_equal(back, vector)


def test_columns_of_wide_characters_are_aligned(capsys):
    print_table(("name", "n"), [("日本語", "1"), ("abc", "22"), ("e\u0301", "3")], right=(1,))
    assert capsys.readouterr().out.splitlines() == ["name     n", "日本語   1", "abc     22", "e\u0301        3"]
