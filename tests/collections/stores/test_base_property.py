"""Conditions give the same rows in every store: those of a small reference with SQL's logic of null."""

import operator
import random
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from embedway.collections.chunks import Chunk
from embedway.collections.record import Record
from embedway.collections.stores import create_store
from embedway.collections.stores.qdrant import QdrantStore
from embedway.collections.where import And, Compare, In, IsNull, Not, Or
from embedway.space import Space

pytestmark = pytest.mark.filterwarnings("ignore:Local mode")

STORES = ["parquet", "jsonl", "lancedb", "chroma", "qdrant", "postgres"]
ROWS = 80
SPACE = Space("tiny", "cd" * 32, 4, "mean", normalized=True)
NAMES = {
    "lang": "text",
    "größe": "int",
    "日本 x": "float",
    "b": "bool",
    "t": "timestamp",
    "tags": "list",
    "o'd \"d; --": "text",
    "and": "int",
}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
VALUES = {
    "text": [
        "",
        "a",
        "b",
        "ab",
        "it's",
        'q"',
        "ü",
        "🙂",
        "\U0010ffff",
        "\uffff",
        "a\\b",
        "`",
        "--",
        "%",
        "_",
        "$1",
        "{}",
    ],
    "int": [-(1 << 63), (1 << 63) - 1, (1 << 53) + 1, 1 << 53, -1, 0, 1],
    "float": [-0.0, 0.0, 0.1, 1.0, -1.5, 5e-324, 1.7976931348623157e308, 9007199254740993.0],
    "bool": [True, False],
    "timestamp": [
        NOON,
        NOON + timedelta(microseconds=1),
        NOON - timedelta(seconds=1),
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
    ],
    "list": [[], [""], ["a"], ["a", "b"], ["ab", ""], ["it's"], ["ü", "%"]],
}
ZONES = [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))]


class MemoryClient(QdrantClient):
    """Client in memory, where indexes have no effect."""

    def create_payload_index(self, *_, **__):
        """Do nothing."""


SIGNS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "contains": operator.contains,
}


def reference(condition, row):
    """Return True, False, or None for unknown."""
    if isinstance(condition, Not):
        inner = reference(condition.part, row)
        return None if inner is None else not inner
    if isinstance(condition, (And, Or)):
        found = [reference(part, row) for part in condition.parts]
        decisive = isinstance(condition, Or)
        return decisive if decisive in found else None if None in found else not decisive
    value = row[condition.column]
    if isinstance(condition, IsNull) or value is None:
        return value is None if isinstance(condition, IsNull) else None
    if isinstance(condition, In):
        return value in condition.values
    return SIGNS[condition.operator](value, condition.value)


def leaves():
    one = []
    for name, kind in NAMES.items():
        one.append(st.builds(IsNull, st.just(name)))
        if kind == "list":
            one.append(st.builds(Compare, st.just(name), st.just("contains"), st.sampled_from(VALUES["text"])))
            continue
        values = st.sampled_from(VALUES[kind])
        if kind == "timestamp":
            values = st.builds(in_zone, values, st.sampled_from(ZONES))
        if kind == "float":
            values |= st.sampled_from([0, 1, 1 << 53, -3])  # an integer for a column of floats
        signs = st.sampled_from(["=", "!="] if kind == "bool" else ["=", "!=", "<", "<=", ">", ">="])
        one.append(st.builds(Compare, st.just(name), signs, values))
        one.append(st.builds(In, st.just(name), st.lists(values, min_size=1, max_size=4).map(tuple)))
    return st.one_of(one)


def in_zone(value, zone):
    try:
        return value.astimezone(zone)
    except OverflowError:
        return value


def joined(parts):
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return st.builds(And, several) | st.builds(Or, several) | st.builds(Not, parts)


CONDITIONS = st.recursive(leaves(), joined, max_leaves=7)


@pytest.fixture(scope="module")
def rows():
    chosen = random.Random(11)
    draw = {name: [*VALUES[kind], None, None] for name, kind in NAMES.items()}
    return [{name: chosen.choice(values) for name, values in draw.items()} for _ in range(ROWS)]


@pytest.fixture(scope="module", params=STORES)
def store(request, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("where")
    if request.param == "qdrant":
        made = QdrantStore("qdrant:http://localhost:6333#rows", client=MemoryClient(":memory:"))
        made.prepare(overwrite=False)
    else:
        places = {
            "lancedb": f"lancedb:{folder / 'db'}#rows",
            "chroma": f"chroma:{folder / 'db'}#rows",
            "parquet": str(folder / "c.parquet"),
            "jsonl": str(folder / "c.jsonl"),
        }
        place = places.get(request.param) or f"{request.getfixturevalue('postgres_url')}#where {folder.name}"
        made = create_store(place)
    made.begin(Record(SPACE, keep=dict(NAMES)))
    chunks = [
        Chunk(f"s/d{n}#0", f"d{n}", f"text {n}", 0, 1, n + 1, None, "s", row, fingerprint="f")
        for n, row in enumerate(rows)
    ]
    made.write(chunks, np.random.default_rng(5).standard_normal((ROWS, 4)).astype(np.float32))
    made.commit()
    made.open()
    yield made
    made.close()


def found(store, condition):
    return {hit.id for hit in store.search(np.ones(4, np.float32), ROWS, where=condition)}


def expected(rows, condition):
    return {f"s/d{n}#0" for n, row in enumerate(rows) if reference(condition, row) is True}


@settings(deadline=None, max_examples=60)
@given(condition=CONDITIONS)
def test_every_store_finds_the_rows_of_the_reference(store, rows, condition):
    assert found(store, condition) == expected(rows, condition)


def test_each_single_comparison(store, rows):
    """All pairs of a column and a value, so that no pair depends on chance."""
    for name, kind in NAMES.items():
        signs = {"bool": ["=", "!="], "list": ["contains"]}.get(kind, ["=", "!=", "<", "<=", ">", ">="])
        for value in VALUES["text"] if kind == "list" else VALUES[kind]:
            for sign in signs:
                for condition in (one := Compare(name, sign, value), Not(one)):
                    assert found(store, condition) == expected(rows, condition), condition


@pytest.mark.parametrize(
    "text",
    ["' OR 1=1 --", "'; DROP TABLE rows; --", "\\", "x' UNION SELECT 1 --", "$$", "%s", "\0", "x" * 100_000, "🙂"],
)
def test_a_text_is_a_value_and_never_code(store, rows, text):
    for condition in (Compare("lang", "=", text), In("lang", (text, "a")), Compare("tags", "contains", text)):
        assert found(store, condition) == expected(rows, condition)
    assert found(store, Not(Compare("lang", "=", text))) == expected(rows, Not(Compare("lang", "=", text)))
    assert store.count == ROWS


def test_long_lists(store, rows):
    condition = In("größe", tuple(range(-500, 500)))
    assert found(store, condition) == expected(rows, condition)
    condition = Not(In("lang", (*(f"x{n}" for n in range(999)), "a")))
    assert found(store, condition) == expected(rows, condition)
