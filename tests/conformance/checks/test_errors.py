"""The shape of errors."""

import pytest

from embedway.conformance.checks.errors import shape_problem
from embedway.conformance.client import Answer

WHOLE = {"message": "m", "type": "t", "param": None, "code": None}


@pytest.mark.parametrize(
    ("body", "problem", "lacks"),
    [
        ({"error": WHOLE}, "", ""),
        ({"error": {"message": "m", "code": 1}}, "", "type, param"),
        ({"error": {**WHOLE, "message": ""}}, "the error of 400 has no message", ""),
        ({"error": {**WHOLE, "message": None}}, "the error of 400 has no message", ""),
        ({"error": "m"}, "the body of 400 has no object error", ""),
        ({"detail": []}, "the body of 400 has no object error", ""),
        (None, "the body of 400 is no JSON", ""),
    ],
)
def test_an_error_has_a_message_and_three_more_fields(body, problem, lacks):
    seen = Answer(400, {}, body, "" if body else "the answer is empty", 0.1, is_reused=False)
    assert shape_problem(seen) == (problem, lacks)
