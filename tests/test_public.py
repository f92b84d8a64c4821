"""Public names: types of public methods are exported under their public module; both embedders are alike."""

import asyncio
import dataclasses
import enum
import gc
import inspect
import pickle
import sys
import types
import typing
import weakref

import pytest

import embedway
from embedway import AsyncEmbedder, Embedder
from embedway.telemetry.operations import Kind
from embedway.weights.types import StoreSettings
from inside import thread_of

PAIRS = [
    (AsyncEmbedder, Embedder),
    (embedway.AsyncCacheAdmin, embedway.CacheAdmin),
    (embedway.AsyncPinAdmin, embedway.PinAdmin),
    (embedway.AsyncQualityAdmin, embedway.QualityAdmin),
    (embedway.AsyncModelAdmin, embedway.ModelAdmin),
]
#: Names of the asynchronous embedder, and their blocking names.
RENAMED = {"aclose": "close"}
#: Parameters of only the asynchronous method: an asynchronous iterable has no blocking form.
ASYNC_ONLY = {"select": {"rest"}}
CLASSES = [value for name in embedway.__all__ if isinstance(value := getattr(embedway, name), type)]


def public_methods(cls):
    found = {name: value for name, value in vars(cls).items() if not name.startswith("_") and callable(value)}
    return {RENAMED.get(name, name): value for name, value in found.items()}


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS, ids=lambda cls: cls.__name__)
def test_the_blocking_methods_are_the_asynchronous_ones(asynchronous, blocking):
    ours, theirs = public_methods(asynchronous), public_methods(blocking)
    assert list(ours) == list(theirs)
    for name, method in ours.items():
        assert inspect.iscoroutinefunction(method)
        assert not inspect.iscoroutinefunction(theirs[name])
        expected = [one for one in parameters(method) if one[0] not in ASYNC_ONLY.get(name, ())]
        assert parameters(theirs[name]) == expected
        assert inspect.signature(theirs[name]).return_annotation == inspect.signature(method).return_annotation
        if name != "close":
            assert theirs[name].__doc__ == method.__doc__


def test_both_embedders_are_made_alike_and_have_the_same_attributes(config):
    assert parameters(AsyncEmbedder.__init__) == parameters(Embedder.__init__)
    asynchronous = AsyncEmbedder(config=config)
    with Embedder(config=config) as blocking:
        shown = [{name for name in vars(one) if not name.startswith("_")} for one in (asynchronous, blocking)]
        assert shown[0] == shown[1] == {"cache", "config", "model", "models", "pins", "quality"}
    asyncio.run(asynchronous.aclose())


def test_an_embedder_has_a_repr_of_one_line(config):
    with Embedder("acme/m", config=config) as embedder:
        assert repr(embedder) == "<embedway.Embedder model='acme/m'>"
    assert repr(AsyncEmbedder(config=config)) == "<embedway.AsyncEmbedder model='auto'>"


def parameters(method):
    return [(one.name, one.kind, one.default, one.annotation) for one in inspect.signature(method).parameters.values()]


def test_what_public_methods_take_and_return_is_exported():
    seen = set()
    pending = [cls for pair in PAIRS for cls in pair]
    while pending:
        cls = pending.pop()
        if cls in seen:
            continue
        seen.add(cls)
        pending += [one for hint in hints_of(cls) for one in classes_in(hint)]
    private = {cls for cls in seen if cls.__module__.startswith("embedway") and not is_public(cls)}
    assert private == set()
    assert {embedway.Receipt, embedway.Timing, embedway.CacheStats, embedway.Reason, embedway.Outcome} <= seen


def is_public(cls):
    return getattr(embedway, cls.__name__, None) is cls or cls.__module__ == "embedway.errors" or is_settings(cls)


def is_settings(cls):
    """Return whether a class is a section of the settings. Only `Config` and the weights store make these."""
    return cls.__module__.startswith("embedway.config.") or cls is StoreSettings


def hints_of(cls):
    """Return the type hints of the public methods, properties and fields of a class."""
    namespace = names_of_all_modules()
    functions = [value for name, value in vars(cls).items() if not name.startswith("_")]
    functions = [getattr(one, "fget", None) or getattr(one, "__func__", one) for one in functions]
    if cls in (AsyncEmbedder, Embedder):  # the library creates the others
        functions.append(cls.__init__)
    for function in functions:
        if isinstance(function, types.FunctionType):
            yield from typing.get_type_hints(function, namespace).values()
    if dataclasses.is_dataclass(cls):
        yield from typing.get_type_hints(cls, namespace).values()


def names_of_all_modules():
    """Return all names that annotations of the package may use, also those imported for type checkers only."""
    import collections.abc
    import contextlib
    import decimal
    import pathlib

    import numpy as np
    import numpy.typing as npt

    found = {name: getattr(collections.abc, name) for name in collections.abc.__all__}
    found |= {name: getattr(typing, name) for name in typing.__all__ if name not in found}
    # The server and the judge of servers are above the public API, and have classes of the same names.
    above = ("embedway.server", "embedway.conformance", "embedway.cli")
    names = [name for name in sys.modules if name.startswith("embedway.") and not name.startswith(above)]
    for module in [sys.modules[name] for name in names]:
        found |= {name: value for name, value in vars(module).items() if not name.startswith("_")}
    found |= {name: getattr(embedway, name) for name in embedway.__all__}
    # `embedway.collections` has a class of this name too; no annotation of these classes means it.
    found["Collection"] = collections.abc.Collection
    found |= {"Kind": Kind, "npt": npt, "np": np, "decimal": decimal, "Decimal": decimal.Decimal, "Path": pathlib.Path}
    found |= {"AbstractContextManager": contextlib.AbstractContextManager, "TracebackType": types.TracebackType}
    return found


def classes_in(hint):
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        if hint.__module__.startswith("embedway") and not issubclass(hint, enum.Enum | BaseException):
            yield hint
        return
    for part in typing.get_args(hint):
        yield from classes_in(part)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_classes_show_and_pickle_under_the_public_place(cls):
    if issubclass(cls, BaseException):
        assert cls.__module__ == "embedway.errors"
        return
    if typing.is_typeddict(cls):
        return
    assert cls.__module__ == "embedway"
    assert repr(cls) == f"<class 'embedway.{cls.__name__}'>"
    assert pickle.loads(pickle.dumps(cls)) is cls  # noqa: S301


def test_every_exported_name_exists():
    for name in embedway.__all__:
        assert getattr(embedway, name) is not None
    assert sorted(embedway.__all__) == embedway.__all__ == dir(embedway)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        embedway.Nothing  # noqa: B018


def test_the_embedder_works_while_an_event_loop_runs(config):
    async def cell():
        with Embedder(config=config) as embedder:
            return embedder.embed_query("a cell of a notebook")

    assert len(asyncio.run(cell())) == 1


def test_a_group_keeps_its_embedder_open(config):
    def models():
        return Embedder(config=config).models

    group = models()
    gc.collect()
    assert group.describe().model == "sentence-transformers/all-MiniLM-L6-v2"
    assert "sentence-transformers/all-MiniLM-L6-v2" in Embedder(config=config).models.available()
    assert Embedder(config=config).pins.list() == []


def test_an_embedder_that_nobody_closed_ends_its_thread_when_it_is_freed(config):
    embedder = Embedder(config=config)
    assert thread_of(embedder) is None  # it starts with the first call
    assert embedder.pins.list() == []
    thread = thread_of(embedder)
    freed = weakref.ref(embedder)
    gc.disable()  # no cycle may delay it
    try:
        del embedder
        assert freed() is None
        thread.join(30)
    finally:
        gc.enable()
    assert not thread.is_alive()


def test_a_hook_that_calls_its_embedder_gets_an_error_and_no_deadlock(config):
    class Calling(embedway.BaseHook):
        def end(self, operation, outcome):
            if isinstance(operation.details, embedway.RequestDetails):
                with pytest.raises(embedway.UsageError, match="from its own thread, such as from a hook"):
                    embedder.embed_query("b")
                embedder.close()
                seen.append(operation)

    seen = []
    embedder = Embedder(config=config, hooks=[Calling()])
    assert len(embedder.embed_query("a")) == 1
    embedder.close()
    assert len(seen) == 1


def test_administration_after_the_end_is_refused(config):
    async def main():
        embedder = AsyncEmbedder(config=config)
        await embedder.aclose()
        for call in (embedder.cache.stats, embedder.cache.clear, embedder.pins.list, embedder.models.available):
            with pytest.raises(embedway.ClosedError):
                await call()
        with pytest.raises(embedway.ClosedError):
            await embedder.pins.forget("docs")

    asyncio.run(main())


def test_type_hints_of_values_resolve():
    for cls in (embedway.Receipt, embedway.Plan, embedway.Space, embedway.Pin, embedway.Truncation, embedway.Config):
        assert typing.get_type_hints(cls)
