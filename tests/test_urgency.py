"""Urgency: whose caller is assumed to wait."""

import pytest

from embedway.urgency import is_interactive


@pytest.mark.parametrize(
    ("texts", "input_type", "expected"),
    [
        (["a text"], "document", True),
        (["a text", "another"], "document", False),
        (["a" * 5000], "document", False),
        (["a text"] * 16, "query", True),
        (["a text"] * 17, "query", False),
    ],
)
def test_one_text_or_some_queries_are_interactive(texts, input_type, expected):
    assert is_interactive(texts, input_type) is expected
