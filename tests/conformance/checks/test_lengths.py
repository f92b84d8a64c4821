"""Headers and fields that tell of a truncated text."""

import pytest

from embedway.conformance.checks.lengths import told_truncation
from embedway.conformance.client import Answer


@pytest.mark.parametrize(
    ("headers", "body", "place"),
    [
        ({"X-Embedway-Truncated": "1"}, {}, "the header x-embedway-truncated"),
        ({"Warning": "299 - truncated"}, {}, "the header warning"),
        ({"X-Embedway-Truncated": "0"}, {}, ""),
        ({"X-Truncated": " False "}, {}, ""),
        ({}, {"warnings": ["cut"]}, "the field warnings"),
        ({}, {"warnings": []}, ""),
        ({}, {"usage": {"truncated_tokens": 3}}, "the field truncated_tokens"),
        ({}, {"data": [{"is_truncated": True}]}, "the field is_truncated"),
        ({}, {"data": [{"is_truncated": False}], "usage": 5, "meta": None}, ""),
        ({}, [], ""),
    ],
)
def test_a_header_or_a_field(headers, body, place):
    assert told_truncation(Answer(200, headers, body, "", 0.1, is_reused=False)) == place
