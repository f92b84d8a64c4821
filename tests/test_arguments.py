"""Texts as users pass them: any iterable of strings, read once. Everything else is refused by type or by row."""

import collections
import io
import sqlite3

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway import Config, Embedder
from embedway.arguments import as_texts
from embedway.errors import InputError, UsageError

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
