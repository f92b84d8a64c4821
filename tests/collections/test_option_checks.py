"""Wrong arguments of every public call of `embedway.collections`: an EmbedwayError, or a result; never another error.

The calls and their arguments are found by introspection, so that a new argument is tested too.
"""

import asyncio
import inspect
from pathlib import Path

import pytest

import embedway.collections
from embedway import AsyncEmbedder, Config, Embedder
from embedway.collections import AsyncCollection, Collection
from embedway.collections.options import RunOptions, SyncOptions
from embedway.collections.query import SearchOptions
from embedway.collections.run import run_job
from embedway.collections.sync import sync_collection
from embedway.collections.sync_plan import plan_sync
from embedway.collections.sync_settings import SyncSettings, sync_options
from embedway.collections.where import And, Compare, In, IsNull, Not, Or
from embedway.errors import EmbedwayError, UsageError

SETTINGS = {
    "models": {"m": {"name": "acme/m", "dimensions": 16, "max_tokens": 500}},
    "routes": {"r": {"model": "acme/m", "provider": "fake"}},
}


class Hostile:
    """An object whose conversions all raise."""

    def _raises(self, *_):
        raise RuntimeError("hostile")

    __str__ = __repr__ = __len__ = __iter__ = __bool__ = __float__ = __index__ = __fspath__ = _raises
    __hash__ = __eq__ = _raises


WRONG = {
    "None": None,
    "5": 5,
    "-1": -1,
    "1.5": 1.5,
    "nan": float("nan"),
    "huge": 10**30,
    "bytes": b"x",
    "object": object(),
    "list": [],
    "list of int": [1],
    "list of None": ["a", None],
    "dict": {},
    "dict of int": {"a": 5},
    "set": set(),
    "True": True,
    "Path": Path("x"),
    "empty": "",
    "nul": "a\0b",
    "surrogate": "\ud800",
    "word": "nonsense",
    "long": "x" * 100_000,
    "hostile": Hostile(),
}
SETTING_NAMES = sorted(SyncSettings.__annotations__)


@pytest.fixture
def config(tmp_path):
    return Config.load(environ={}, overrides={**SETTINGS, "search.directory": str(tmp_path / "keywords")})


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("The event loop runs tasks.")
    (folder / "b.md").write_text("Glaciers carve valleys.")
    return folder


@pytest.fixture
def place(docs, tmp_path, config, monkeypatch):
    """Return the destination of a collection, in the working directory, whose path is a `Path`."""
    monkeypatch.chdir(tmp_path)
    destination = tmp_path / "c.parquet"
    with embedway.collections.open(destination, config=config, model="acme/m", create=True) as collection:
        assert collection.sync(docs).added == 2
    return destination


@pytest.fixture
def embedder(config):
    with Embedder(config=config) as embedder:
        yield embedder


def files_of(folder):
    """Return the files below a folder, with their contents; indexes and locks of searches are not data."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "keywords" not in path.parts and path.suffix != ".lock"
    }


def outcomes(call, arguments):
    """Return the results of the call with each wrong value of each argument, and what was raised but may not be."""
    accepted, leaked = [], []
    for argument in arguments:
        for name, value in WRONG.items():
            try:
                call(argument, value)
            except EmbedwayError as error:
                if not str(error):
                    leaked.append((argument, name, error))
            except Exception as error:  # noqa: BLE001  the test lists all of them
                leaked.append((argument, name, error))
            else:
                accepted.append((argument, name))
    return accepted, leaked


def parameters(function, *without):
    return [name for name in inspect.signature(function).parameters if name not in {"self", *without}]


def test_wrong_arguments_of_open(place, config, embedder, tmp_path):
    before = files_of(tmp_path)

    def call(argument, value):
        given = {"destination": place, "embedder": None, "config": config, "create": True, argument: value}
        if argument == "embedder":
            given.pop("config")
        embedway.collections.open(**given).close()

    def call_async(argument, value):
        async def work():
            given = {"destination": place, "config": config, "create": True, argument: value}
            async with embedway.collections.open_async(**given):
                pass

        asyncio.run(work())

    for one, function in ((call, embedway.collections.open), (call_async, embedway.collections.open_async)):
        assert parameters(function) == ["destination", "embedder", "config", "model", "create"]
        accepted, leaked = outcomes(one, parameters(function))
        assert leaked == []
        assert {argument for argument, _ in accepted} <= {"embedder", "config", "model", "create"}
        assert [name for argument, name in accepted if argument == "create"] == ["True"]
    assert files_of(tmp_path) == before


@pytest.fixture
def collection(place, embedder):
    with embedway.collections.open(place, embedder=embedder) as collection:
        yield collection


#: Wrong values that a method accepts, because they are right: None as the default, and names of nothing.
RIGHT = {
    "search": {
        *(("query", name) for name in ("list", "set", "word", "long", "nul")),
        *((name, "None") for name in ("where", "rerank", "highlight")),
        *((name, value) for name in ("top", "candidates", "neighbours") for value in ("5",)),
        *((name, "True") for name in ("group", "highlight", "merge")),
    },
    "verify": {("max_cost", "None"), ("sample", "5"), ("repair", "True"), ("progress", "None")},
}


def test_wrong_arguments_of_search(collection, tmp_path):
    before = files_of(tmp_path)
    accepted, leaked = outcomes(
        lambda name, value: collection.search(**{"query": "a", "mode": "keyword", name: value}),
        parameters(Collection.search),
    )
    # An error of the caller's own iteration is raised as it is.
    assert [(name, value) for name, value, _ in leaked] == [("query", "hostile")]
    assert set(accepted) - {("rerank", name) for name in WRONG} <= RIGHT["search"]
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("method", ["verify", "plan_verify"])
def test_wrong_arguments_of_verify(collection, tmp_path, method):
    before = files_of(tmp_path)
    call = getattr(collection, method)
    accepted, leaked = outcomes(lambda name, value: call(**{name: value}), parameters(getattr(Collection, method)))
    assert leaked == []
    assert set(accepted) <= RIGHT["verify"]
    assert files_of(tmp_path) == before


def test_wrong_arguments_of_forget(collection, tmp_path):
    before = files_of(tmp_path)

    def call(argument, value):
        if argument == "documents":
            collection.forget(value)
        else:
            collection.forget("no such document", source=value)

    assert outcomes(call, parameters(Collection.forget)) == ([], [])
    assert files_of(tmp_path) == before


def test_wrong_arguments_of_export(collection, tmp_path):
    before = files_of(tmp_path)

    def call(argument, value):
        collection.export(**{"destination": tmp_path / "e.parquet", argument: value})
        (tmp_path / "e.parquet").unlink()

    accepted, leaked = outcomes(call, parameters(Collection.export))
    assert leaked == []
    assert set(accepted) <= {("overwrite", "True"), ("vector_type", "None")}
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("method", ["sync", "dry_run"])
def test_wrong_sources(collection, method, tmp_path):
    before = files_of(tmp_path)
    assert outcomes(lambda _, value: getattr(collection, method)(value), ["sources"]) == ([], [])
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", [*SETTING_NAMES, "progress"])
def test_wrong_options_of_sync(collection, embedder, docs, name, tmp_path):
    before = files_of(tmp_path)

    def call(argument, value):
        collection.sync(docs, **{argument: value})

    accepted, leaked = outcomes(call, [name])
    assert leaked == []
    if name in {"on_error", "on_overflow", "format", "allow_empty", "wait", "follow_links", "chunk", "model"}:
        assert {value for _, value in accepted} <= {"None", "True"}
    if not accepted:
        assert files_of(tmp_path) == before
    with embedway.collections.open(tmp_path / "c.parquet", embedder=embedder) as again:
        assert again.count == 2  # what was written can be read


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_wrong_options_of_a_dry_run(collection, docs, name, tmp_path):
    before = files_of(tmp_path)
    _, leaked = outcomes(lambda argument, value: collection.dry_run(docs, **{argument: value}), [name])
    assert leaked == []
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("function", "options"), [(run_job, RunOptions()), (sync_collection, SyncOptions()), (plan_sync, SyncOptions())]
)
def test_wrong_arguments_of_jobs(config, tmp_path, docs, monkeypatch, function, options):
    monkeypatch.chdir(tmp_path)
    before = files_of(tmp_path)

    async def work(argument, value):
        right = {"sources": [docs], "destination": tmp_path / "n.parquet", "options": options}
        async with AsyncEmbedder(config=config) as embedder:
            await function(embedder, **{**right, argument: value})

    accepted, leaked = outcomes(
        lambda argument, value: asyncio.run(work(argument, value)), ["sources", "destination", "options"]
    )
    assert leaked == []
    assert set(accepted) <= {("options", "None")}
    if not accepted:
        assert files_of(tmp_path) == before


@pytest.mark.parametrize("options", [RunOptions, SyncOptions, SearchOptions])
def test_fields_of_options(options):
    accepted, leaked = outcomes(lambda name, value: options(**{name: value}), options.__dataclass_fields__)
    assert leaked == []
    assert all(WRONG[value] is not WRONG["hostile"] for _, value in accepted)
    assert not {value for _, value in accepted} & {"1.5", "nan", "bytes", "object", "list of int", "hostile"}


def test_options_of_sync_are_checked_before_anything_is_read():
    _, leaked = outcomes(lambda name, value: sync_options({name: value}), SETTING_NAMES)
    assert leaked == []


CONDITIONS = {
    "column": lambda value: Compare(value, "=", "a"),
    "operator": lambda value: Compare("source", value, "a"),
    "value": lambda value: Compare("source", "=", value),
    "number": lambda value: Compare("start_line", ">", value),
    "column of in": lambda value: In(value, ("a",)),
    "values": lambda value: In("source", value),
    "a value": lambda value: In("source", (value,)),
    "column of null": IsNull,
    "parts of and": And,
    "a part of or": lambda value: Or((value,)),
    "part of not": Not,
}


def test_conditions(collection):
    accepted, leaked = outcomes(lambda name, value: collection.search("a", where=CONDITIONS[name](value)), CONDITIONS)
    assert leaked == []
    assert {argument for argument, _ in accepted} <= {"value", "number", "a value"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.search("a", where=5), "where is of type int; it must be a text such as"),
        (lambda one: one.search(["a", 5], mode="keyword"), "query 2 is of type int; it must be a text"),
        (lambda one: one.sync(5), "a source is of type int; it must be a path, or a text NAME=PATH"),
        (lambda one: one.sync(allow_empty="no"), "allow_empty is 'no'; it must be True or False"),
        (lambda one: one.sync(overlap_tokens=True), "overlap_tokens is True; it must be an integer"),
        (lambda one: one.verify(sample=1.5), "sample is 1.5; it must be an integer"),
        (lambda one: one.forget(["a"]), r"documents\[0\] is of type list; it must be a string"),
        (lambda one: one.export(5), "destination is of type int; it must be a text or a path"),
        (lambda one: one.sync(progress={}), "progress is of type dict; it must be a function"),
    ],
)
def test_messages(collection, call, message):
    with pytest.raises(UsageError, match=message):
        call(collection)


def test_methods_are_all_tested():
    methods = {name for name in vars(AsyncCollection) if not name.startswith("_")}
    tested = {"open", "search", "sync", "dry_run", "verify", "plan_verify", "forget", "export"}
    without_arguments = {"documents", "refresh", "aclose", "close_store"}
    properties = {name for name in methods if isinstance(vars(AsyncCollection)[name], property)}
    assert methods == tested | without_arguments | properties


def test_an_unknown_option_of_sync_is_named_with_the_nearest_one(collection, tmp_path):
    with pytest.raises(
        TypeError, match=r"sync\(\) got an unexpected keyword argument 'includ'; did you mean 'include'"
    ):
        collection.sync(str(tmp_path), includ=["*.md"])
