"""Values of kept columns: their own types, and declared ones."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedway.collections.column_types import coerce, convert_value, infer_types, plain_value, split_keep
from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import UsageError

MOMENT = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))


def test_names_and_types_of_the_option():
    assert split_keep(["lang", "year:int", "dc:title", "dc:date:timestamp", "time:text"]) == (
        ("lang", "year", "dc:title", "dc:date", "time"),
        {"year": "int", "dc:date": "timestamp", "time": "text"},
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("year:integer", "year:int"),
        ("a:b:Boolean", "a:b:bool"),
        ("n:flot", "n:float"),
        ("tags:lists", "tags:list"),
        ("when:datetime", "when:timestamp"),
    ],
)
def test_a_type_that_does_not_exist_is_told(given, meant):
    with pytest.raises(UsageError, match=rf"there is no type .*; did you mean {meant}\? The types are text, int"):
        split_keep([given])
    assert split_keep([f"{given}:text"]) == ((given,), {given: "text"})


def test_names_with_a_colon_are_no_types():
    names = ["dc:date", "dc:format", "geo:long", "og:image", ":int", "a:", "x:test"]
    assert split_keep(names) == (tuple(names), {})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        (math.nan, None),
        (Decimal("1.5"), 1.5),
        (MOMENT, MOMENT),
        (datetime(2026, 3, 1, 12), datetime(2026, 3, 1, 12, tzinfo=UTC)),  # noqa: DTZ001
        (date(2026, 3, 1), datetime(2026, 3, 1, tzinfo=UTC)),
        (["a", "b"], ["a", "b"]),
        ({"a": [1, None]}, {"a": [1, None]}),
    ],
)
def test_values_keep_their_type(value, plain):
    found = plain_value(value)
    assert (found, type(found)) == (plain, type(plain))


@pytest.mark.parametrize("value", [1 << 64, math.inf, b"x", [math.nan]])
def test_values_that_cannot_be_kept(value):
    with pytest.raises(ValueError, match=r"has|is|cannot"):
        plain_value(value)


@pytest.mark.parametrize(
    ("text", "column_type", "value"),
    [
        ("3", "int", 3),
        (" 3.5 ", "float", 3.5),
        ("True", "bool", True),
        ("no", "bool", False),
        ("2026-03-01T12:00:00+02:00", "timestamp", MOMENT),
        ('["a"]', "list", ["a"]),
        ('{"a": 1}', "json", {"a": 1}),
        ("3", "text", "3"),
        ("", "int", None),
        (3, "text", "3"),
        (True, "text", "true"),
        (3, "float", 3.0),
    ],
)
def test_declared_types(text, column_type, value):
    found = convert_value(text, column_type)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "column_type"),
    [
        ("x", "int"),
        ("1.5", "int"),
        ("maybe", "bool"),
        ("soon", "timestamp"),
        ("{", "json"),
        ([1], "list"),
        (True, "int"),
    ],
)
def test_a_value_of_another_type_is_refused(value, column_type):
    with pytest.raises(ValueError, match="is "):
        convert_value(value, column_type)


def read(path, **options):
    bad = []
    read_options = ReadOptions(**options)
    inventory = find_sources([str(path)], read_options)
    found = read_files(inventory, read_options, on_bad_row=bad.append, counter=ByteCounter())
    return [dict(document.metadata) for document in found], [str(fault) for fault in bad]


def test_columns_of_parquet_keep_their_types(tmp_path):
    table = pa.table({"text": ["a"], "n": [3], "ok": [True], "at": pa.array([MOMENT]), "tags": [["x", "y"]]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", keep=("n", "ok", "at", "tags")) == (
        [{"n": 3, "ok": True, "at": MOMENT, "tags": ["x", "y"]}],
        [],
    )


def test_a_value_that_does_not_fit_rejects_its_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,n\na,3\nb,three\nc,\n")
    found, (fault,) = read(path, keep=("n",), keep_types={"n": "int"})
    assert found == [{"n": 3}, {"n": None}]
    assert "a.csv:3: field 'n': is not int; keep={'n': 'text'} keeps any text" in fault


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
