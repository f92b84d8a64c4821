"""Conditions: their language, checks of types, and equal results in Python, Arrow and LanceDB."""

import contextlib
import math
import random
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.collections.record import Record
from embedway.collections.where import (
    And,
    Compare,
    In,
    IsNull,
    Not,
    Or,
    condition_columns,
    matches,
    parse_where,
)
from embedway.collections.where_forms import to_arrow, to_sql
from embedway.collections.where_types import check_where
from embedway.errors import UsageError
from embedway.space import Space

KEEP = {
    "lang": "text",
    "year": "int",
    "score": "float",
    "draft": "bool",
    "made": "timestamp",
    "tags": "list",
    "extra": "json",
    'odd name\'s "x"': "text",
}
BUILT_IN_COLUMNS = {
    "source": "text",
    "document_id": "text",
    "title": "text",
    "headings": "text",
    "page": "int",
    "start_line": "int",
    "number": "int",
}
COLUMNS = {**BUILT_IN_COLUMNS, **KEEP}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("lang = 'de'", Compare("lang", "=", "de")),
        ("lang='it''s'", Compare("lang", "=", "it's")),
        ("lang <> ''", Compare("lang", "!=", "")),
        ("NOT lang IN ('a', 'b')", Not(In("lang", ("a", "b")))),
        ("lang not in ('a')", Not(In("lang", ("a",)))),
        ("year>=-2020", Compare("year", ">=", -2020)),
        ("year > 2019.5", Compare("year", ">=", 2020)),
        ("year < 2e3", Compare("year", "<", 2000)),
        ("score <= 1", Compare("score", "<=", 1.0)),
        ("draft = TRUE", Compare("draft", "=", True)),
        ("made < '2026-01-31T13:00:00+01:00'", Compare("made", "<", NOON)),
        ("made = '2026-01-31T12:00:00'", Compare("made", "=", NOON)),
        ("tags contains 'x'", Compare("tags", "contains", "x")),
        ("extra is null", IsNull("extra")),
        ("page is not null", Not(IsNull("page"))),
        ('"odd name\'s ""x""" = \'1\'', Compare('odd name\'s "x"', "=", "1")),
        ("  title='ü'\n", Compare("title", "=", "ü")),
        (
            "lang = 'de' and year >= 2020 or not (lang in ('a','b')) and tags contains 'x' and page is null",
            Or(
                (
                    And((Compare("lang", "=", "de"), Compare("year", ">=", 2020))),
                    And((Not(In("lang", ("a", "b"))), Compare("tags", "contains", "x"), IsNull("page"))),
                )
            ),
        ),
    ],
)
def test_a_condition_is_parsed(text, condition):
    assert parse_where(text, COLUMNS) == condition
    assert check_where(parse_where(text), COLUMNS) == condition


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("lang", "at its end: expected an operator"),
        ("lang = ", "at its end: expected a value"),
        ("lang = de", "at character 8, near 'de': expected a value: a text in single quotes"),
        ('lang = "de"', "expected a value: .*; double quotes are for names of columns"),
        ("lang = 'de", 'at character 8, near "\'de": the closing quote is missing'),
        ("lang == 'de'", "expected a value"),
        ("lang like 'd%'", "expected an operator"),
        ("lang = 'a' lang = 'b'", "at character 12, near \"lang = 'b'\": expected `and`, `or` or the end"),
        ("(lang = 'a'", r"expected `\)`"),
        ("lang = 'a')", "expected `and`"),
        ("year = 1; drop", "near '; drop': is no part"),
        ("year = 1x", "is no part"),
        ("lang in ()", "expected a value"),
        ("lang in ('a',)", "expected a value"),
        ("lang not 'a'", "expected `in`"),
        ("lang = null", "write `lang is null`"),
        ("language = 'de'", "at character 1, .*no column 'language'; known columns: document_id, .*lang, .*year"),
        ("lang = 1", "'lang' has the type text; write the value as a text in single quotes"),
        ("year = '2020'", "'year' has the type int; write a number without quotes"),
        ("year = true", "'year' has the type int"),
        ("year = 2020.5", "2020.5 is no integer"),
        ("year = 9223372036854775808", "64 bits"),
        ("year < 1e999", "finite"),
        ("score < 1e999", "has the type float"),
        ("score = 1" + "0" * 350, "has the type float"),
        ("score = 1" + "0" * 5000, "too many digits"),
        ("draft > false", "type bool, which has no `>`; possible: =, !=, in, is null"),
        ("draft = 'x'", "write true or false"),
        ("made > 'yesterday'", "such as '2026-01-31T12:00:00Z'"),
        ("made > '0001-01-01T00:00:00+14:00'", "outside of the years"),
        ("tags = 'x'", "type list, which has no `=`; possible: contains, is null"),
        ("lang contains 'x'", "type text, which has no `contains`"),
        ("extra = 'x'", "type json, which has no `=`; possible: is null"),
        ("not " * 2000 + "draft = true", "nested deeper"),
        ("(" * 5000 + "draft = true", "nested deeper"),
        ("lang = '" + "x" * 20_000 + "'", "at most 20,000"),
        (" or ".join(["year=1"] * 1001), "more than 1,000 comparisons"),
        ("lang = '\ud800'", "not valid Unicode"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_place(text, said):
    with pytest.raises(UsageError, match=said):
        parse_where(text, COLUMNS)


def test_spaces_are_skipped_in_linear_time():
    with pytest.raises(UsageError, match="is no part"):
        parse_where(" " * 19_000 + ";", COLUMNS)


@given(st.text(alphabet="ab=<>!'\"()., \n1-eé\0", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_condition_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        parse_where(text)


def test_conditions_made_in_python_are_checked():
    deep = IsNull("lang")
    for _ in range(5000):
        deep = Not(deep)
    wide = And((Or((IsNull("lang"),) * 900),) * 2)
    wrong = (deep, wide, And(()), In("lang", ()), Compare("lang", "~", "x"), Compare("lang", "=", None), "lang = 'x'")
    for condition in (*wrong, Compare("score", "=", math.nan), Compare("lang", "=", ["x"])):
        with pytest.raises(UsageError):
            check_where(condition, COLUMNS)
    east = NOON.astimezone(timezone(timedelta(hours=5)))
    assert check_where(Compare("made", "=", east), COLUMNS) == Compare("made", "=", NOON)


def test_columns_of_a_collection_depend_on_its_version():
    record = Record(Space("m", "ab" * 32, 2, "mean", normalized=True), keep={"year": "int"})
    assert condition_columns(record) == {**BUILT_IN_COLUMNS, "year": "int"}
    older = Record(record.space, keep={"year": "text"}, format_version=2)
    assert set(condition_columns(older)) == {"source", "document_id", "title", "start_line", "year"}


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("lang = 'a'", {"lang": None}, False),
        ("not (lang = 'a')", {"lang": None}, False),
        ("not lang in ('a')", {}, False),
        ("lang is null", {}, True),
        ("not lang is null", {"lang": "x"}, True),
        ("lang = 'a' or year = 1", {"year": 1}, True),
        ("not (lang = 'a' and year = 1)", {"year": 2}, True),
        ("not (lang = 'a' and year = 1)", {"year": 1}, False),
        ("tags contains 'a'", {"tags": ["ab"]}, False),
        ("tags contains ''", {"tags": []}, False),
        ("made = '2026-01-31T12:00:00Z'", {"made": NOON.replace(tzinfo=None)}, True),
        ("year < 5", {"year": "4"}, False),
        ("not (year < 5)", {"year": "4"}, False),
    ],
)
def test_null_matches_only_is_null(text, row, expected):
    assert matches(parse_where(text, COLUMNS), row) is expected


VALUES = {
    "text": ["", "a", "b", "ab", "it's", 'q"', "ü", "🙂", "\U0010ffff", "\uffff", "a\\b", "`", "--", "%", "line\nb"],
    "int": [-(1 << 63), (1 << 63) - 1, (1 << 53) + 1, 1 << 53, -1, 0, 1],
    "float": [-0.0, 0.0, 0.1, 1.5, -1.5, 5e-324, 1.7976931348623157e308, -1e-300],
    "bool": [True, False],
    "timestamp": [
        NOON,
        NOON + timedelta(microseconds=1),
        datetime.min.replace(tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
    ],
    "list": [[], [""], ["a"], ["a", "b"], ["a", "a"], ["ab", ""], ["it's"], ["\0", "ü"], ["a\0b"]],
}
TYPES = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "list": pa.list_(pa.string()),
}
NAMES = {
    "text_x": "text",
    "n": "int",
    "f": "float",
    "b": "bool",
    "t": "timestamp",
    "l": "list",
    "o'd \"d": "text",
    "and": "text",
}
TEXTS = [*VALUES["text"], "\0"]


def _leaves():
    one = []
    for name, kind in NAMES.items():
        one.append(st.builds(IsNull, st.just(name)))
        if kind == "list":
            one.append(st.builds(Compare, st.just(name), st.just("contains"), st.sampled_from(TEXTS)))
            continue
        values = st.sampled_from(VALUES[kind])
        signs = st.sampled_from(["=", "!="] if kind == "bool" else ["=", "!=", "<", "<=", ">", ">="])
        one.append(st.builds(Compare, st.just(name), signs, values))
        one.append(st.builds(In, st.just(name), st.lists(values, min_size=1, max_size=3).map(tuple)))
    return st.one_of(one)


def _joined(parts):
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return st.builds(And, several) | st.builds(Or, several) | st.builds(Not, parts)


@pytest.fixture(scope="module")
def rows():
    chosen = random.Random(7)
    draw = {name: [*VALUES[kind], None] for name, kind in NAMES.items()}
    return [{"row": n} | {name: chosen.choice(values) for name, values in draw.items()} for n in range(150)]


@pytest.fixture(scope="module")
def arrow(rows):
    fields = [pa.field("row", pa.int64()), *(pa.field(name, TYPES[kind]) for name, kind in NAMES.items())]
    return pa.Table.from_pylist(rows, pa.schema(fields))


@pytest.fixture(scope="module")
def lance(arrow, tmp_path_factory):
    import lancedb

    return lancedb.connect(str(tmp_path_factory.mktemp("where"))).create_table("rows", arrow)


@pytest.fixture(scope="module")
def found_in(rows, arrow, lance):
    """Return the numbers of the rows that a condition finds in Python, Arrow and LanceDB."""

    def find(condition):
        here = [row["row"] for row in rows if matches(condition, row)]
        table = lance.search().where(to_sql(condition, NAMES)).select(["row"]).limit(1000).to_list()
        return here, arrow.filter(to_arrow(condition)).column("row").to_pylist(), sorted(row["row"] for row in table)

    return find


@settings(deadline=None, max_examples=300)
@given(condition=st.recursive(_leaves(), _joined, max_leaves=8))
def test_python_arrow_and_lancedb_agree(found_in, condition):
    here, arrow, lancedb = found_in(check_where(condition, NAMES))
    assert arrow == here
    assert lancedb == here


def test_the_deepest_and_the_longest_condition_work_everywhere(rows, arrow, lance):
    deep = "not (" * 3 + "n = 1" + ")" * 3
    long = " or ".join(f"n={n}" for n in range(1000))
    for text in (deep, long, f"n in ({','.join(map(str, range(1000)))})"):
        condition = parse_where(text, NAMES)
        expected = sum(matches(condition, row) for row in rows)
        assert arrow.filter(to_arrow(condition)).num_rows == expected
        assert lance.count_rows(to_sql(condition, NAMES)) == expected
    deepest = Compare("n", "=", 1)
    for level in range(16):
        deepest = Not(And((deepest, Or((deepest, IsNull("b")))))) if level % 3 == 0 and level < 10 else Not(deepest)
    assert arrow.filter(to_arrow(deepest)).num_rows == lance.count_rows(to_sql(deepest, NAMES))


def test_a_name_that_lancedb_cannot_quote_is_refused():
    with pytest.raises(UsageError, match="backtick"):
        to_sql(IsNull("a`b"), {"a`b": "text"})
