"""Odd arguments by name. Each is a factory, because iterators and recursive lists serve one call."""

import datetime as dt
import decimal
import enum
import fractions
import itertools
import pathlib
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from cases import TEXT, CallersError

HUGE = 10**400


def fail(*_args, **_options):
    raise CallersError("mine")


class Text(str):
    """String whose methods all fail or lie."""

    __slots__ = ()
    __str__ = __repr__ = __len__ = __eq__ = __iter__ = __contains__ = __format__ = fail
    encode = strip = isspace = isascii = casefold = startswith = split = lower = replace = fail

    def __hash__(self):
        return 7


class LyingText(str):
    """String that claims to be another one."""

    __slots__ = ()

    def __str__(self):
        return "not this"

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


class Number(int):
    """Integer whose conversions fail."""

    __index__ = __int__ = __float__ = __str__ = __repr__ = __lt__ = __le__ = __eq__ = __ge__ = __gt__ = fail

    def __hash__(self):
        return 7


class Index:
    """Object that is an integer only for indexing."""

    def __init__(self, value):
        self._value = value

    def __index__(self):
        return self._value() if callable(self._value) else self._value


def raising(*names):
    """Return an object whose special methods `names` raise."""
    return type("Raising", (), dict.fromkeys(names, fail))()


class NoClass:
    """Object whose `__class__` cannot be read."""

    @property
    def __class__(self):
        raise CallersError("mine")


class NoAttributes:
    """Object whose every attribute raises."""

    def __getattribute__(self, name):
        raise CallersError("mine")


class Choice(enum.StrEnum):
    QUERY = "query"


def recursive():
    value = []
    value.append(value)
    return value


def recursive_table():
    value = {}
    value["a"] = value
    return value


def late():
    yield "a b"
    raise CallersError("mine")


def nested(depth):
    value = "a"
    for _ in range(depth):
        value = [value]
    return value


SCALARS = {
    repr(value): (lambda value=value: value)
    for value in (None, True, False, 0, 1, 2, -1, 7, 2**31, 2**63, 2**64, 0.0, 0.5, 1.0, 1.5, -0.5, 16.0, 1e308, 1e-320)
}
NUMBERS = {
    **SCALARS,
    "10**400": lambda: HUGE,
    "-10**400": lambda: -HUGE,
    "10**5000": lambda: 10**5000,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: float("-inf"),
    "complex": lambda: 1 + 2j,
    "Decimal NaN": lambda: decimal.Decimal("NaN"),
    "Decimal sNaN": lambda: decimal.Decimal("sNaN"),
    "Decimal huge": lambda: decimal.Decimal("1e999999"),
    "Decimal tiny": lambda: decimal.Decimal("1e-999999"),
    "Fraction": lambda: fractions.Fraction(1, 3),
    "int64": lambda: np.int64(16),
    "uint64": lambda: np.uint64(2**64 - 1),
    "float32": lambda: np.float32(16),
    "float64 nan": lambda: np.float64("nan"),
    "longdouble": lambda: np.longdouble("1e400"),
    "bool_": lambda: np.bool_(True),
    "0-d integer": lambda: np.array(16),
    "0-d float": lambda: np.array(16.0),
    "0-d text": lambda: np.array("a b"),
    "0-d object": lambda: np.array(None, object),
    "array of one": lambda: np.array([16]),
    "datetime64": lambda: np.datetime64("2026-01-01"),
    "NaT": lambda: np.datetime64("NaT"),
    "timedelta": lambda: dt.timedelta(seconds=1),
    "date": lambda: dt.date(2026, 1, 1),
    "int subclass": lambda: Number(16),
    "index": lambda: Index(16),
    "index raises": lambda: Index(fail),
    "index is huge": lambda: Index(HUGE),
    "number texts": lambda: "16",
    "huge number text": lambda: "9" * 5000,
    "exponent text": lambda: "1e999999999",
    "infinity text": lambda: "Infinity",
}
TEXTS = {
    "empty": lambda: "",
    "space": lambda: " \t\n",
    "NUL": lambda: "\0",
    "NUL inside": lambda: "a\0b",
    "lone surrogate": lambda: "\ud800",
    "surrogate inside": lambda: "a\udfffb",
    "control": lambda: "\x1b[31m\x07\r\n",
    "right to left": lambda: "\u202ea",
    "user's text": lambda: TEXT,
    "long name": lambda: "x" * 100_000,
    "long path": lambda: "/" + "x" * 5000,
    "long relative path": lambda: "./" + "x/" * 5000,
    "dots": lambda: "..",
    "root": lambda: "/",
    "null device": lambda: "/dev/null",
    "home of nobody": lambda: "~nobody-has-this-name/x",
    "hub name": lambda: "hf:",
    "odd hub name": lambda: "hf:a/b/c@../..",
    "hub name with NUL": lambda: "hf:a/\0@\0",
    "hub name with surrogate": lambda: "hf:\ud800/b",
    "library name": lambda: "fastembed:\0",
    "url": lambda: "https://user:pass@example.com/x",
    "format": lambda: "{0.__class__} %s %n",
    "evil subclass": lambda: Text(TEXT),
    "lying subclass": lambda: LyingText("a b"),
    "numpy text": lambda: np.str_("a b"),
    "enum": lambda: Choice.QUERY,
    "bytes": lambda: b"a b",
    "bytearray": lambda: bytearray(b"a b"),
    "memoryview": lambda: memoryview(b"a b"),
    "path": lambda: pathlib.Path("a"),
    "path with NUL": lambda: pathlib.Path("a\0b"),
}
CONTAINERS = {
    "[]": list,
    "()": tuple,
    "{}": dict,
    "set()": set,
    "[None]": lambda: [None],
    "[[]]": lambda: [[]],
    "list of lists": lambda: [["a"], ["b"]],
    "list of numbers": lambda: [1, 2.5],
    "token ids": lambda: [[1, 2], [3]],
    "huge token ids": lambda: [[HUGE, -1]],
    "many token ids": lambda: [[2**31] * 3],
    "mixed": lambda: ["a", 1, None, b"b", "\ud800"],
    "texts with one evil": lambda: ["a", Text(TEXT)],
    "texts with one that has no class": lambda: ["a", NoClass()],
    "texts with one without attributes": lambda: ["a", NoAttributes()],
    "texts with surrogates": lambda: ["a", "b\ud800"],
    "mapping": lambda: {"a": TEXT},
    "odd keys": lambda: {1: 2, None: None, ("a",): object()},
    "evil keys": lambda: {Text("a"): 1},
    "set": lambda: {"a", "b"},
    "range": lambda: range(3),
    "recursive list": recursive,
    "recursive mapping": recursive_table,
    "nested list": lambda: nested(10_000),
    "nested tuple": lambda: (((("a",),),),),
    "generator": lambda: (word for word in ["a b", "c"]),
    "empty generator": lambda: iter(()),
    "endless generator": lambda: itertools.repeat("a"),
    "endless numbers": itertools.count,
    "raises late": late,
    "array of texts": lambda: np.array(["a", "b"]),
    "array of objects": lambda: np.array(["a", None], object),
    "2-d array": lambda: np.zeros((2, 16), np.float32),
    "array of nan": lambda: np.full((1, 16), np.nan),
    "structured array": lambda: np.zeros(2, [("a", "i4")]),
    "masked array": lambda: np.ma.array(["a", "b"], mask=[0, 1]),
    "Series": lambda: pd.Series(["a", None]),
    "Series of numbers": lambda: pd.Series([1.0]),
    "DataFrame": lambda: pd.DataFrame({"a": ["b"]}),
    "polars Series": lambda: pl.Series(["a", None]),
    "LazyFrame": lambda: pl.LazyFrame({"a": ["b"]}),
    "arrow array": lambda: pa.array(["a", None]),
    "arrow table": lambda: pa.table({"a": ["b"]}),
    "arrow scalar": lambda: pa.scalar("a"),
    "NA": lambda: pd.NA,
}
OBJECTS = {
    "object": object,
    "class": lambda: str,
    "function": lambda: fail,
    "module": lambda: itertools,
    "exception": lambda: ValueError(TEXT),
    "ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "slice": lambda: slice(1, 2),
    "uuid": lambda: uuid.UUID(int=1),
    "raising iteration": lambda: raising("__iter__"),
    "raising next": type("Endless", (), {"__iter__": lambda self: self, "__next__": fail}),
    "raising length": lambda: raising("__len__", "__length_hint__", "__iter__"),
    "raising truth": lambda: raising("__bool__"),
    "raising array": lambda: raising("__array__", "__array_interface__"),
    "raising comparison": lambda: raising("__eq__", "__hash__", "__lt__", "__gt__"),
    "raising text": lambda: raising("__str__", "__repr__", "__format__"),
    "raising number": lambda: raising("__index__", "__int__", "__float__"),
    "raising path": lambda: raising("__fspath__"),
    "raising call": lambda: raising("__call__"),
    "no class": NoClass,
    "no attributes": NoAttributes,
}
#: All odd values, by name.
VALUES = {**NUMBERS, **TEXTS, **CONTAINERS, **OBJECTS}
#: Values whose own error may reach the caller, if they are passed as texts.
RAISING_TEXTS = frozenset({"raising iteration", "raising next", "raising length", "raises late"})
