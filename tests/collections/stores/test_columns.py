"""Types of kept columns."""

from datetime import UTC, datetime

import pytest

from embedway.collections.stores.columns import coerce, infer_types


def test_types_are_inferred():
    rows = [
        {"i": 1, "f": 1, "b": True, "t": "x", "l": ["a"], "m": 1, "d": datetime(2026, 1, 1, tzinfo=UTC), "j": {"a": 1}},
        {"i": None, "f": 2.5, "m": "x", "l": [], "big": 1 << 63},
    ]
    assert infer_types(rows, ["i", "f", "b", "t", "l", "m", "d", "j", "none", "big"]) == {
        "i": "int",
        "f": "float",
        "b": "bool",
        "t": "text",
        "l": "list",
        "m": "json",
        "d": "timestamp",
        "j": "json",
        "none": "text",
        "big": "json",
    }


def test_values_are_converted_only_without_loss():
    assert coerce(3, "float") == 3.0
    assert coerce(float("nan"), "float") is None
    assert coerce("2026-01-02", "timestamp") == datetime(2026, 1, 2, tzinfo=UTC)
    assert coerce({"a": [1]}, "json") == {"a": [1]}


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1", "int"), (1.5, "int"), (True, "int"), (1, "bool"), (1, "text"), ([1], "list"), ("x", "timestamp"),
     (float("inf"), "float"), ("\ud800", "text"), (["\ud800"], "list"), ({"a": float("inf")}, "json"), (b"x", "json")],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused(value, kind):
    with pytest.raises(ValueError, match=r"must be|is not"):
        coerce(value, kind)
