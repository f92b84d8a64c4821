"""The Python interface of collections, with a Parquet store, a model of a fake provider, and real readers."""

import asyncio
import contextlib
import copy
import dataclasses
import inspect
import os
import pickle
import threading

import pytest

import embedway.collections
from embedway import AsyncEmbedder, Config, Embedder
from embedway.collections import AsyncCollection, Collection
from embedway.collections.inventory import source_texts
from embedway.collections.options import SyncOptions
from embedway.collections.query import SearchOptions, SearchSettings
from embedway.collections.sync_settings import SyncSettings, sync_options
from embedway.collections.where import Compare
from embedway.errors import ClosedError, SinkError, SpaceMismatchError, UsageError
from scripts import run_script

TEXTS = {
    "loop.md": "The event loop runs tasks. The error E1133 stops it.",
    "ice.md": "Glaciers carve valleys.",
    "retry.md": "The connector retries tasks after a timeout.",
}
SETTINGS = {
    "models": {"m": {"name": "acme/m", "dimensions": 16, "max_tokens": 500}},
    "routes": {"r": {"model": "acme/m", "provider": "fake"}},
}


@pytest.fixture
def config(tmp_path):
    return Config.load(environ={}, overrides={**SETTINGS, "search.directory": str(tmp_path / "keywords")})


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in TEXTS.items():
        # The fake provider puts this before a query, so a text is the nearest one to itself.
        (folder / name).write_text(f"query: {text}")
    return folder


@pytest.fixture
def place(docs, tmp_path, config):
    """Return the destination of a collection of the documents."""
    destination = str(tmp_path / "c.parquet")
    with embedway.collections.open(destination, config=config, model="acme/m", create=True) as collection:
        assert collection.sync(str(docs), context="none").added == 3
    return destination


def run(destination, work, config, **options):
    """Return the result of a coroutine function on an open collection."""

    async def main():
        async with await embedway.collections.open_async(destination, config=config, **options) as collection:
            return await work(collection)

    return asyncio.run(main())


def names(answer):
    return [found.hit.document_id for found in answer.hits]


class Progress:
    def __init__(self):
        self.seen = []

    def update(self, status):
        self.seen.append(status.chunks_done)


def test_a_text_has_one_answer_and_several_have_a_list(place, config):
    async def work(collection):
        one = await collection.search(TEXTS["ice.md"])
        assert names(one)[0] == "ice.md"
        assert one.hits[0].vector_score == pytest.approx(1, abs=1e-5)
        assert one.receipt.model == "acme/m"
        several = await collection.search(iter([TEXTS["ice.md"], TEXTS["loop.md"]]), top=1)
        assert [names(answer) for answer in several] == [["ice.md"], ["loop.md"]]
        assert await collection.search([]) == []
        with pytest.raises(UsageError, match="query is of type dict"):
            await collection.search({"a": 1})

    run(place, work, config)


def test_modes_conditions_and_facts(place, config):
    async def work(collection):
        assert (collection.count, collection.exists, collection.destination) == (3, True, place)
        assert (collection.space.model, collection.record.space.dimensions) == ("m", 16)
        assert {found.key.document_id for found in await collection.documents()} == set(TEXTS)
        assert names(await collection.search("E1133", mode="keyword")) == ["loop.md"]
        hybrid = await collection.search(TEXTS["ice.md"] + " E1133")
        assert set(names(hybrid)) == set(TEXTS)
        best = hybrid.hits[0]
        assert best.score == max(one.score for one in hybrid.hits)
        assert "E1133" in best.text
        condition = "document_id != 'loop.md'"
        for mode in ("vector", "keyword", "hybrid"):
            found = await collection.search("tasks", mode=mode, where=condition)
            assert "retry.md" in names(found), mode
            assert "loop.md" not in names(found), mode
        same = await collection.search("tasks", where=Compare("document_id", "=", "ice.md"))
        assert names(same) == ["ice.md"]
        for wrong in ("nothing = 1", Compare("nothing", "=", 1), "start_line = 'a'", "document_id ="):
            with pytest.raises(UsageError):
                await collection.search("tasks", where=wrong)

    run(place, work, config)


def test_a_collection_that_does_not_exist_yet(docs, tmp_path, config):
    destination = str(tmp_path / "new.parquet")
    with pytest.raises(SinkError, match=r"no such file; .*create=True"):
        embedway.collections.open(destination, config=config)

    async def work(collection):
        assert (collection.exists, collection.count) == (False, 0)
        for call in (collection.search("a"), collection.documents(), collection.verify(), collection.forget("a")):
            with pytest.raises(UsageError, match="call sync first"):
                await call
        with pytest.raises(UsageError, match="call sync first"):
            _ = collection.space
        progress = Progress()
        summary = await collection.sync(str(docs), progress=progress, context="none")
        assert (summary.added, collection.count, collection.exists) == (3, 3, True)
        assert progress.seen[-1] == 3
        assert names(await collection.search(TEXTS["ice.md"], top=1)) == ["ice.md"]

    run(destination, work, config, model="acme/m", create=True)


def test_a_sync_and_a_forget_are_seen_by_later_searches(place, docs, config):
    async def work(collection):
        (docs / "new.md").write_text("Kiwis do not fly. See E4711.")
        (docs / "ice.md").unlink()
        summary = await collection.sync()
        assert (summary.added, summary.removed, collection.count) == (1, 1, 3)
        assert names(await collection.search("E4711", mode="keyword")) == ["new.md"]
        assert names(await collection.search("glaciers", mode="keyword")) == []
        report = await collection.forget("new.md")
        assert (report.documents, collection.count) == (["docs/new.md"], 2)
        assert names(await collection.search("E4711", mode="keyword")) == []
        with pytest.raises(UsageError, match=r"no document 'new\.md'"):
            await collection.forget("new.md")
        report = await collection.verify()
        assert (report.rows, report.wrong, report.bound) == (2, 0, 0.0)
        assert (await collection.verify(sample=1, repair=True)).sampled == 1

    run(place, work, config)


def test_searches_go_on_while_the_collection_changes(place, docs, config):
    async def work(collection):
        for number in range(5):
            (docs / f"{number}.md").write_text(f"Number {number} is a number.")
            searches = [collection.search("E1133", mode=mode) for mode in ("keyword", "hybrid", "vector")] * 3
            summary, *answers = await asyncio.gather(collection.sync(), *searches)
            assert summary.added == 1
            assert all("loop.md" in names(answer) for answer in answers)
        assert collection.count == 8

    run(place, work, config)


def test_a_dry_run_tells_what_a_sync_would_do(place, docs, config):
    async def work(collection):
        (docs / "new.md").write_text("Kiwis do not fly.")
        (docs / "ice.md").unlink()
        plan = await collection.dry_run()
        assert (plan.added, plan.removed, plan.unchanged, plan.chunks) == (1, 1, 2, 1)
        assert collection.count == 3
        summary = await collection.sync()
        assert (summary.added, summary.removed) == (plan.added, plan.removed)

    run(place, work, config)
    with embedway.collections.open(place, config=config) as collection:
        assert collection.dry_run().unchanged == 3


def test_progress_may_be_functions(place, docs, config):
    async def work(collection):
        (docs / "new.md").write_text("Kiwis do not fly.")
        seen, compared = [], []
        await collection.sync(progress=lambda status: seen.append(status.chunks_done))
        await collection.verify(progress=lambda done, total: compared.append((done, total)))
        assert (seen[-1], compared[-1]) == (1, (4, 4))

    run(place, work, config)


def test_open_async_is_awaited_or_a_block(place, config):
    async def main():
        async with embedway.collections.open_async(place, config=config) as collection:
            answer = await collection.search("E1133", mode="keyword")
            assert [found.document_id for found in answer] == ["loop.md"]
            assert len(answer) == 1
        with pytest.raises(ClosedError):
            await collection.search("E1133")
        other = await embedway.collections.open_async(place, config=config)
        await other.aclose()
        await other.aclose()
        with pytest.raises(UsageError, match="use `async with`"), embedway.collections.open_async(place):
            pass
        with pytest.raises(SinkError):
            async with embedway.collections.open_async("nothing.parquet"):
                pass

    asyncio.run(main())


def test_the_blocking_form_works_while_an_event_loop_runs(place, config):
    async def main():
        with embedway.collections.open(place, config=config) as collection:
            return names(collection.search("E1133", mode="keyword"))

    assert asyncio.run(main()) == ["loop.md"]


def test_the_blocking_form_is_refused_in_its_own_thread(place, docs, config):
    (docs / "new.md").write_text("Kiwis do not fly.")
    collection = embedway.collections.open(place, config=config)
    with contextlib.closing(collection), pytest.raises(UsageError, match="from its own thread"):
        collection.sync(progress=lambda _: collection.search("a"))


def test_results_are_readable(place, config):
    with embedway.collections.open(place, config=config) as collection:
        answer = collection.search("what does E1133 mean", mode="hybrid")
    [best, *_] = answer
    assert repr(best).startswith("<SearchHit 0.")
    assert "'docs/loop.md#0' line 1: 'query: The event loop runs tasks. The error E1133 stops it.'" in repr(best)
    assert (best.document_id, best.source, best.line, best.metadata) == ("loop.md", "docs", 1, {})
    assert str(best.highlight) == "The error E1133 stops it."
    assert f"{best.snippet}" == best.text
    assert "Receipt(" not in repr(answer)


def test_refresh_shows_what_another_process_changed(place, docs, config):
    async def work(collection):
        async with await AsyncCollection.open(place, config=config) as other:
            (docs / "ice.md").unlink()
            await other.sync()
        assert collection.count == 3
        await collection.refresh()
        assert collection.count == 2

    run(place, work, config)


def test_another_model_is_refused(place, config):
    two = dict(SETTINGS["models"], n={"name": "acme/n", "dimensions": 16, "max_tokens": 500})
    routes = dict(SETTINGS["routes"], s={"model": "acme/n", "provider": "fake"})
    other = Config.load(environ={}, overrides={"models": two, "routes": routes})
    with pytest.raises(SpaceMismatchError):
        run(place, lambda collection: collection.search("a"), other, model="acme/n")


def test_closing(place, config):
    async def work():
        async with AsyncEmbedder(config=config) as embedder:
            async with await AsyncCollection.open(place, embedder=embedder) as collection:
                pending = [asyncio.create_task(collection.search(f"query {n}", mode="hybrid")) for n in range(20)]
                await asyncio.sleep(0)
            # Each search has ended, with an answer or with this error.
            for result in await asyncio.gather(*pending, return_exceptions=True):
                assert isinstance(result, ClosedError) or result.hits
            await collection.aclose()
            for call in (collection.search("a"), collection.sync(), collection.refresh(), collection.documents()):
                with pytest.raises(ClosedError, match="collection is closed"):
                    await call
            assert len(await embedder.embed_query("a", model="acme/m")) == 1
        own = await AsyncCollection.open(place, config=config)
        await own.search("a")
        await own.aclose()
        with pytest.raises(ClosedError):
            await own.search("a")

    asyncio.run(work())


def test_closing_after_the_embedder(place, config):
    embedder = Embedder(config=config)
    collection = embedway.collections.open(place, embedder=embedder)
    assert names(collection.search("E1133", mode="keyword")) == ["loop.md"]
    embedder.close()
    collection.close()
    collection.close()
    with pytest.raises(ClosedError):
        collection.search("a")


def test_it_works_in_one_event_loop_after_another(place, config):
    embedder = AsyncEmbedder(config=config)
    collection = asyncio.run(AsyncCollection.open(place, embedder=embedder))
    for _ in range(2):
        assert asyncio.run(collection.search("E1133", mode="hybrid")).hits
    asyncio.run(collection.aclose())


def test_threads_share_the_blocking_form(place, config):
    failures = []

    def search(collection, name):
        for mode in ("keyword", "hybrid", "vector"):
            [answer] = collection.search(iter([TEXTS[name]]), mode=mode, top=1)
            if names(answer) != [name]:
                failures.append((name, mode))

    with embedway.collections.open(place, config=config) as collection:
        assert isinstance(collection, Collection)
        threads = [threading.Thread(target=search, args=(collection, name)) for name in [*TEXTS] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_opens_the_collection_again(place, tmp_path):
    script = f"""
import os, sys
import embedway.collections
from embedway import Config
config = Config.load(environ={{}}, overrides={SETTINGS!r} | {{"search.directory": {str(tmp_path / "keywords")!r}}})
collection = embedway.collections.open({place!r}, config=config)
def found():
    return [collection.search("E1133", mode=mode).hits[0].hit.document_id for mode in ("keyword", "vector")]
here = found()
if (child := os.fork()) == 0:
    print(found() == here, collection.count, flush=True)
    collection.close()
    sys.exit()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), found() == here)
collection.close()
"""
    assert run_script(script) == ["True 3", "0 True"]


def test_it_is_exported_into_another_store(place, config, tmp_path):
    with embedway.collections.open(place, config=config) as collection:
        summary = collection.export(str(tmp_path / "c.jsonl"))
        assert (summary.rows, summary.documents, summary.vector_type) == (3, 3, "float32")
        assert collection.export(str(tmp_path / "half.parquet"), vector_type="float16").vector_type == "float16"
        with pytest.raises(SinkError, match="already exists"):
            collection.export(str(tmp_path / "c.jsonl"))
        assert collection.export(str(tmp_path / "c.jsonl"), overwrite=True).rows == 3
        with pytest.raises(UsageError, match="into itself"):
            collection.export(place)
    with pytest.raises(ClosedError):
        collection.export(str(tmp_path / "d.jsonl"))

    async def search(copied):
        return names(await copied.search(TEXTS["ice.md"]))[0]

    assert run(str(tmp_path / "c.jsonl"), search, config, model="acme/m") == "ice.md"


def test_a_new_collection_is_not_exported(config, tmp_path):
    with (
        embedway.collections.open(str(tmp_path / "new.parquet"), config=config, model="acme/m", create=True) as one,
        pytest.raises(UsageError, match="has not been created yet"),
    ):
        one.export(str(tmp_path / "c.jsonl"))


def test_it_cannot_be_pickled_or_copied(place, config):
    awaited = asyncio.run(AsyncCollection.open(place, config=config))
    with embedway.collections.open(place, config=config) as collection:
        for one in (collection, awaited):
            assert place in repr(one)
            for copied in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(UsageError, match="open it in each process"):
                    copied(one)
    asyncio.run(awaited.aclose())


def test_arguments_are_checked(place, config):
    with contextlib.closing(Embedder(config=config)) as embedder:
        with pytest.raises(UsageError, match="must be an AsyncEmbedder"):
            asyncio.run(AsyncCollection.open(place, embedder=embedder))
        with pytest.raises(UsageError, match="both given"):
            embedway.collections.open(place, embedder=embedder, config=config)
    with pytest.raises(UsageError, match="must be an Embedder"):
        embedway.collections.open(place, embedder=AsyncEmbedder(config=config))
    with embedway.collections.open(place, config=config) as collection:
        with pytest.raises(UsageError, match="mode is 'x'"):
            collection.search("a", mode="x")
        with pytest.raises(UsageError, match="top is 0"):
            collection.search("a", top=0)


def test_both_forms_have_the_same_methods_and_options():
    for name in ("search", "sync", "dry_run", "verify", "forget", "refresh", "documents"):
        blocking, awaited = getattr(Collection, name), getattr(AsyncCollection, name)
        assert inspect.signature(blocking).parameters.keys() == inspect.signature(awaited).parameters.keys()
        assert blocking.__doc__ == awaited.__doc__
    options = set(inspect.signature(AsyncCollection.search).parameters) - {"self", "query"}
    assert options == set(SearchSettings.__annotations__)
    assert options | {"model"} == {one.name for one in dataclasses.fields(SearchOptions)}
    fields = {one.name for one in dataclasses.fields(SyncOptions)} - {"notes", "keep_types", "most_nanousd"}
    assert set(SyncSettings.__annotations__) == fields | {"max_cost"}


def test_options_of_sync_are_those_of_python():
    given = sync_options({"max_cost": "0.5", "keep": {"year": "int"}, "include": ["*.md"], "remove": ["docs"]})
    assert (given.most_nanousd, given.include, given.remove) == (500_000_000, ("*.md",), ("docs",))
    assert (given.keep, given.keep_types) == (("year",), {"year": "int"})
    assert sync_options({}) == SyncOptions()
    with pytest.raises(UsageError, match="keep is of type str"):
        sync_options({"keep": "year"})
    with pytest.raises(TypeError, match="chunks"):
        sync_options({"chunks": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore'; it must be"),
        ({"on_error": None}, "on_error is of type NoneType"),
        ({"format": "docs"}, "format is 'docs'"),
        ({"on_overflow": 1}, "on_overflow is 1"),
        ({"keep": {"year": "integer"}}, "keep\\['year'\\] is 'integer'"),
        ({"chunk_tokens": "9"}, "chunk_tokens is '9'"),
        ({"overlap_tokens": -1}, "overlap_tokens is -1"),
        ({"wait": "no"}, "wait is 'no'; it must be True or False"),
        ({"encoding": 3}, "encoding is of type int; it must be a string"),
    ],
    ids=repr,
)
def test_wrong_options_of_sync_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        sync_options(options)


def test_sources_of_sync_are_paths_or_texts(tmp_path):
    assert source_texts([tmp_path, "a=b"]) == [str(tmp_path), "a=b"]
    assert sync_options({"format": None, "follow_links": None, "chunk_tokens": None}) == SyncOptions()
    with pytest.raises(UsageError, match="a source is of type int"):
        source_texts([3])


def test_public_names():
    for name in embedway.collections.__all__:
        assert getattr(embedway.collections, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = embedway.collections.nothing
