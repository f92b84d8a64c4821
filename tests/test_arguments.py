"""Texts as users pass them: any iterable of strings, read once. Everything else is refused by type or by row."""

import collections
import datetime as dt
import enum
import io
import itertools
import sqlite3
import traceback

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway import Config, Embedder
from embedway.arguments import as_texts
from embedway.errors import EmbedwayError, InputError, UsageError

WORDS = ("a b", "c d")


class Text(str):
    """Text with its own class."""

    __slots__ = ()

    def __str__(self):
        return "not this"


@pytest.fixture(scope="module")
def embedder(default_model_directory, tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    own = {f"{table}.path": str(place / table) for table in ("ledger", "pins")} | {"cache.backend": "none"}
    settings = {"weights.directory": str(default_model_directory), **own}
    with Embedder(config=Config.load(environ={}, overrides=settings)) as made:
        yield made


@pytest.mark.parametrize(
    "texts",
    [
        list(WORDS),
        WORDS,
        collections.deque(WORDS),
        dict.fromkeys(WORDS).keys(),
        dict(enumerate(WORDS)).values(),
        np.array(WORDS),
        np.array(WORDS, object),
        np.ma.array(WORDS, mask=False),
        pd.Series(WORDS),
        pd.Series(WORDS, dtype="string[pyarrow]", index=[7, 3]),
        pd.Index(WORDS),
        pd.Series(WORDS).array,
        pl.Series(WORDS),
        pa.array(WORDS),
        pa.chunked_array([[WORDS[0]], [WORDS[1]]]),
        [Text(word) for word in WORDS],
        [np.str_(word) for word in WORDS],
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_any_list_of_texts_is_accepted_in_its_order(embedder, texts):
    expected = embedder.embed_documents(list(WORDS)).vectors
    assert np.array_equal(embedder.embed_documents(texts).vectors, expected)


@pytest.mark.parametrize(
    "texts",
    [
        lambda: (word for word in WORDS),
        lambda: map(str.strip, WORDS),
        lambda: iter(WORDS),
        lambda: (line.strip() for line in io.StringIO("a b\nc d\n")),
    ],
)
@pytest.mark.parametrize("method", ["embed", "embed_documents", "embed_query", "plan", "plans", "select", "rerank"])
def test_an_iterator_is_read_once_and_whole(embedder, texts, method):
    if method == "rerank":
        with pytest.raises(UsageError, match="no reranker is named"):
            embedder.rerank("query", texts())
        return
    result = getattr(embedder, method)(texts())
    count = {
        "plan": lambda: result.texts,
        "plans": lambda: result[0].texts,
        "select": lambda: result.analysis.texts,
    }.get(method, lambda: len(result))
    assert count() == 2


@pytest.mark.parametrize("label", ["columns", "to_pylist", "ndim"])
def test_labels_of_a_series_are_not_its_attributes(embedder, label):
    series = pd.Series(WORDS, index=[label, "x"])
    assert np.array_equal(embedder.embed_documents(series).vectors, embedder.embed_documents(WORDS).vectors)


@pytest.mark.parametrize("text", ["a b", Text("a b"), np.str_("a b")], ids=lambda text: type(text).__name__)
def test_one_text_is_one_row(embedder, text):
    result = embedder.embed_documents(text)
    assert np.array_equal(result.vectors, embedder.embed_documents(["a b"]).vectors)


@pytest.mark.parametrize(
    "texts",
    [
        None,
        5,
        object(),
        b"a b",
        bytearray(b"a b"),
        memoryview(b"a b"),
        set(WORDS),
        frozenset(WORDS),
        dict.fromkeys(WORDS),
        dict.fromkeys(WORDS).items(),
        np.array([WORDS]),
        np.array("a b"),
        pd.DataFrame({"a": WORDS}),
        pl.DataFrame({"a": WORDS}),
        pa.table({"a": WORDS}),
        pa.record_batch({"a": WORDS}),
    ],
    ids=lambda texts: type(texts).__name__,
)
@pytest.mark.parametrize(
    "method", ["embed", "embed_documents", "embed_query", "plan", "plans", "select", "cache.verify", "rerank"]
)
def test_what_is_no_list_of_texts_is_refused_by_its_type(embedder, texts, method):
    if method == "cache.verify":
        with pytest.raises(UsageError, match=r"there is no cache|texts is"):
            embedder.cache.verify(texts)
        return
    name = "documents" if method == "rerank" else "texts"
    call = getattr(embedder, method)
    with pytest.raises(UsageError, match=rf"{name} is .*{type(texts).__name__}") as caught:
        call("query", texts) if method == "rerank" else call(texts)
    assert isinstance(caught.value, ValueError)
    assert "a b" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (None, "NoneType, not a string; drop or fill missing"),
        (5, "int"),
        (float("nan"), "float, not a string; drop or fill missing"),
        (b"ab", "bytes, not a string; decode it"),
        (["a b"], "list"),
        (("a", 1), "tuple"),
        ({"a": 1}, "dict"),
        (np.array(["a"]), "ndarray"),
        (pd.NA, "NAType, not a string; drop or fill missing"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_a_wrong_element_is_refused_by_its_row_and_type(embedder, wrong, kind):
    with pytest.raises(InputError, match=f"text 1: it is of type {kind}") as caught:
        embedder.embed_documents(["a b", wrong, "c d"])
    assert caught.value.row == 1
    result = embedder.embed_documents(["a b", wrong, "c d"], partial=True)
    assert list(result.errors) == [1]
    assert np.isnan(result[1]).all()
    assert np.array_equal(result[[0, 2]], embedder.embed_documents(["a b", "c d"]).vectors)


def test_columns_with_gaps_name_the_row(embedder):
    for column in (
        pd.Series(["a", None]),
        pl.Series(["a", None]),
        pa.array(["a", None]),
        np.ma.array(["a", "b"], mask=[0, 1]),
    ):
        with pytest.raises(InputError, match="text 1: it is of type"):
            embedder.embed_documents(column)


def test_an_iterator_is_read_in_the_callers_thread(embedder, tmp_path):
    database = sqlite3.connect(tmp_path / "rows.sqlite")  # a connection refuses other threads
    database.execute("create table rows (text)")
    database.executemany("insert into rows values (?)", [(word,) for word in WORDS])
    rows = (text for (text,) in database.execute("select text from rows"))
    assert len(embedder.embed_documents(rows)) == 2
    database.close()


def test_an_iterator_may_use_the_embedder_itself(embedder):
    assert len(embedder.embed_documents(str(len(embedder.embed_query(word))) for word in WORDS)) == 2


def test_an_error_of_the_callers_iterator_is_the_callers(embedder):
    def failing():
        yield "a b"
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        embedder.embed_documents(failing())


@given(st.lists(st.text()))
def test_a_list_is_unchanged(texts):
    assert as_texts(texts, "texts") == tuple(texts)
    assert as_texts(iter(texts), "texts") == tuple(texts)
    assert as_texts(np.array(texts, object), "texts") == tuple(texts)


class Proxy:
    """Object that claims to be a string, as lazy proxies and mocks do."""

    @property
    def __class__(self):
        return str


class Failing:
    """Object whose class, truth and conversions fail."""

    def fail(self, *_):
        raise RuntimeError("a text of the user")

    __class__ = property(fail)
    __bool__ = __float__ = __index__ = __eq__ = __iter__ = __array__ = __str__ = __repr__ = fail
    __hash__ = object.__hash__


class FailingNumber(Failing):
    """Object like it, whose iteration is not defined."""

    __iter__ = None


class FailingText(str):
    """String whose methods fail."""

    __slots__ = ()
    __str__ = __repr__ = encode = isspace = isascii = strip = __eq__ = Failing.fail
    __hash__ = str.__hash__


class Choice(enum.StrEnum):
    QUERY = "query"


@pytest.mark.parametrize("texts", [itertools.repeat("a"), (str(number) for number in itertools.count())])
def test_endless_texts_are_refused(monkeypatch, embedder, texts):
    monkeypatch.setattr("embedway.arguments.MOST_TEXTS", 1000)
    with pytest.raises(UsageError, match="texts has more than 1,000 texts; embed them in several calls"):
        embedder.embed(texts)


@pytest.mark.parametrize("models", [lambda: itertools.repeat("a"), Failing, lambda: {"a": 1}, lambda: b"a"])
def test_names_are_a_list_with_an_end(embedder, models):
    with pytest.raises(UsageError, match="models"):
        embedder.plans(["a"], models=models())


@pytest.mark.parametrize("made", [Proxy, FailingNumber])
def test_an_object_that_claims_to_be_a_text_is_refused_by_its_class(embedder, made):
    text, kind = made(), made.__name__
    with pytest.raises(InputError, match=f"text 0: it is of type {kind}"):
        embedder.embed([text])
    with pytest.raises(UsageError, match=f"texts is of type {kind}"):
        embedder.embed(text)
    with pytest.raises(InputError, match=f"the query: it is of type {kind}"):
        embedder.rerank(text, ["a"], model="cross-encoder/ms-marco-MiniLM-L6-v2")


def test_methods_of_a_string_s_class_are_not_called(embedder):
    expected = embedder.embed(["a b"]).vectors
    assert np.array_equal(embedder.embed([FailingText("a b")]).vectors, expected)
    assert np.array_equal(embedder.embed(FailingText("a b"), input_type=Choice.QUERY).vectors, expected)
    with pytest.raises(EmbedwayError, match="no model is called 'nothing'") as caught:
        embedder.embed(["a"], model=FailingText("nothing"), collection=FailingText("c"))
    assert "user" not in str(caught.value)


OPTIONS = ["dimensions", "priority", "deadline_s", "max_cost", "partial", "input_type", "on_overflow", "model"]


@pytest.mark.parametrize("option", [*OPTIONS, "collection", "api_key_name", "criteria"])
def test_an_object_whose_conversionsfail_is_refused_by_its_option(embedder, option):
    with pytest.raises(UsageError, match=f"{option} is of type Failing") as caught:
        embedder.embed(["a"], **{option: Failing()})
    assert "user" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), np.array(3)])
def test_integers_of_numpy_are_integers_everywhere(embedder, number):
    result = embedder.embed(["a"], priority=number, deadline_s=np.float32(60))
    assert len(result) == 1
    assert embedder.models.available(dimensions=np.int64(384))
    with pytest.raises(UsageError, match="no reranker is named"):
        embedder.rerank("a", ["b"], top_n=number)


@pytest.mark.parametrize("option", ["dimensions", "priority"])
@pytest.mark.parametrize("number", [3.0, np.float64(3), np.bool_(True), True, "3", b"3", np.array([3])])
def test_anything_else_is_no_integer_anywhere(embedder, option, number):
    with pytest.raises(UsageError, match=f"{option} is .*; it must be an integer"):
        embedder.embed(["a"], **{option: number})


@pytest.mark.parametrize("seconds", [True, np.bool_(True), b"5", "5", np.array([5.0]), dt.timedelta(seconds=5)])
def test_seconds_are_one_number(embedder, seconds):
    with pytest.raises(UsageError, match=r"deadline_s is .*; it must be a number of seconds"):
        embedder.embed(["a"], deadline_s=seconds)


@pytest.mark.parametrize("option", ["model", "collection", "api_key_name"])
@pytest.mark.parametrize(
    ("name", "rule"),
    [("a\0b", "must not contain a NUL"), ("x" * 5000, "has 5,000 characters"), ("\ud800", "surrogate")],
)
def test_a_name_is_short_and_can_be_written(embedder, option, name, rule):
    with pytest.raises(UsageError, match=f"{option}.*{rule}") as caught:
        embedder.embed(["a"], **{option: name})
    assert len(str(caught.value)) < 200


def test_a_text_in_place_of_a_model_is_not_repeated(embedder):
    text = "minutes of a confidential meeting, which the caller passed in the place of a model's name"
    for call in (lambda: embedder.embed(["a"], model=text), lambda: embedder.embed(["a"], model=text, criteria="fast")):
        with pytest.raises(EmbedwayError, match=rf"a name of {len(text)} characters") as caught:
            call()
        assert "confidential" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", ["false", 1, None, Failing, np.array([True])])
def test_flags_are_true_or_false(embedder, value):
    value = Failing() if value is Failing else value
    with pytest.raises(UsageError, match=r"anywhere is .*; it must be True or False"):
        embedder.select(["a"], anywhere=value)


@pytest.mark.parametrize("vectors", [Failing, "a", [[1], [2, 3]], None, 10**400, [[[[1]]]]])
def test_vectors_are_numbers(embedder, vectors):
    vectors = [Failing()] if vectors is Failing else vectors
    embedder.embed(["a"], collection="proved")
    with pytest.raises(UsageError, match=r"vectors must be an array of numbers|came with vectors of shape"):
        embedder.pins.prove("proved", ["a"], vectors)


@pytest.mark.parametrize("progress", [5, "a", Failing, print])
def test_progress_is_a_sink(config, progress):
    progress = Failing() if progress is Failing else progress
    with pytest.raises(UsageError, match=r"progress is of type .*; it must be a ProgressSink"):
        Embedder(config=config, progress=progress)
