"""Engines of an embedder: pending calls at the end, several event loops, and forks."""

import asyncio
import copy
import pickle
import threading

import numpy as np
import pytest

from embedway import AsyncEmbedder, ClosedError, Embedder, UsageError
from embedway.providers.fake import vector_of
from held_service import PATIENCE_S, WIDTH, config_of, held_service
from inside import cache_of, engine_of, forget_engine, ledger_connection, ledger_of


@pytest.fixture
def service():
    with held_service() as held:
        yield held


@pytest.fixture
def settings(service, tmp_path):
    return config_of(service.url, tmp_path)


async def arrival(service):
    """Wait until one more request has arrived at the service."""
    await asyncio.to_thread(service.wait)


def calls_of(embedder):
    """Return one call of each method, as functions without arguments."""
    return {
        "embed": lambda: embedder.embed(["a", "b"]),
        "embed_query": lambda: embedder.embed_query("c"),
        "embed with a deadline": lambda: embedder.embed("d", deadline_s=PATIENCE_S),
        "embed into a collection": lambda: embedder.embed("e", collection="docs"),
        "embed alone": lambda: embedder.embed("f", priority=9),
        "partial": lambda: embedder.embed(["g"], partial=True),
    }


@pytest.mark.parametrize(
    "name", ["embed", "embed_query", "embed with a deadline", "embed into a collection", "embed alone", "partial"]
)
def test_closing_ends_pending_calls(service, settings, name):
    async def main():
        embedder = AsyncEmbedder(config=settings)
        call = asyncio.create_task(calls_of(embedder)[name]())
        await arrival(service)
        await asyncio.wait_for(embedder.aclose(), PATIENCE_S)
        assert not service.going.is_set()
        with pytest.raises(ClosedError, match="closed before this call ended"):
            await call
        with pytest.raises(ClosedError, match="is closed"):
            await embedder.embed("a")

    asyncio.run(main())


def test_closing_waits_for_pending_calls_if_asked(service, settings):
    async def main():
        embedder = AsyncEmbedder(config=settings)
        call = asyncio.create_task(embedder.embed(["a", "b"]))
        await arrival(service)
        closing = asyncio.create_task(embedder.aclose(drain=True))
        await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await embedder.embed("c")
        assert not closing.done()
        service.going.set()
        await closing
        return (await call).vectors

    np.testing.assert_allclose(asyncio.run(main()), [vector_of(text, WIDTH) for text in "ab"], atol=1e-6)


def test_closing_twice_at_once_ends_a_call_once(service, settings):
    async def main():
        embedder = AsyncEmbedder(config=settings)
        call = asyncio.create_task(embedder.embed("a"))
        await arrival(service)
        await asyncio.gather(embedder.aclose(), embedder.aclose(drain=True), embedder.aclose())
        with pytest.raises(ClosedError):
            await call
        assert call.cancelling() == 0

    asyncio.run(main())


def test_a_task_that_goes_on_after_its_call_does_not_delay_closing(service, settings):
    service.going.set()

    async def work(embedder, done):
        await embedder.embed("a")
        done.set()
        await asyncio.Event().wait()

    async def main():
        embedder, done = AsyncEmbedder(config=settings), asyncio.Event()
        task = asyncio.create_task(work(embedder, done))
        await done.wait()
        await asyncio.wait_for(embedder.aclose(), PATIENCE_S)
        assert not task.done()
        task.cancel()

    asyncio.run(main())


def test_a_cancelled_caller_gets_its_cancellation_and_not_closed_error(service, settings):
    async def main():
        embedder = AsyncEmbedder(config=settings)
        call = asyncio.create_task(embedder.embed("a"))
        await arrival(service)
        call.cancel()
        await embedder.aclose()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())


def test_closing_while_a_model_loads_ends_the_call(config, monkeypatch):
    loading, going = threading.Event(), threading.Event()
    from embedway.models import registry

    def slow(*arguments, **options):
        loading.set()
        assert going.wait(PATIENCE_S)
        return opening(*arguments, **options)

    opening = registry.open_model
    monkeypatch.setattr(registry, "open_model", slow)

    async def main():
        embedder = AsyncEmbedder(config=config)
        call = asyncio.create_task(embedder.embed("a"))
        await asyncio.to_thread(loading.wait, PATIENCE_S)
        await asyncio.wait_for(embedder.aclose(), PATIENCE_S)
        with pytest.raises(ClosedError):
            await call

    try:
        asyncio.run(main())
    finally:
        going.set()


# ---- several event loops


def test_one_embedder_works_in_one_loop_after_another(service, settings):
    service.going.set()
    embedder = AsyncEmbedder(config=settings)
    for text in ("a", "b", "a"):
        vectors = asyncio.run(embedder.embed(text)).vectors
        np.testing.assert_allclose(vectors, [vector_of(text, WIDTH)], atol=1e-6)
    assert service.texts == ["a", "b"]  # the end of each loop stored its vectors
    asyncio.run(embedder.aclose())
    with pytest.raises(ClosedError):
        asyncio.run(embedder.embed("a"))


def test_a_local_model_works_in_one_loop_after_another(config):
    embedder = AsyncEmbedder(config=config)
    first, second = (asyncio.run(embedder.embed(["a", "b"])).vectors for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_running_loop_is_not_shared_with_another(service, settings):
    embedder = AsyncEmbedder(config=settings)

    async def main():
        call = asyncio.create_task(embedder.embed("a"))
        await arrival(service)
        with pytest.raises(UsageError, match="another event loop uses this AsyncEmbedder; create one in each"):
            await asyncio.to_thread(asyncio.run, embedder.embed("b"))
        # Closing works from any loop.
        await asyncio.to_thread(asyncio.run, embedder.aclose())
        with pytest.raises(ClosedError):
            await call

    asyncio.run(main())


def test_a_stopped_loop_is_named(service, settings):
    service.going.set()
    embedder = AsyncEmbedder(config=settings)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(embedder.embed("a"))
        with pytest.raises(UsageError, match="call aclose on that loop"):
            asyncio.run(embedder.aclose())
        loop.run_until_complete(embedder.aclose())
    finally:
        loop.close()


def test_the_end_of_a_loop_closes_the_engine(service, settings):
    service.going.set()
    embedder = AsyncEmbedder(config=settings)
    asyncio.run(embedder.embed("a"))
    assert cache_of(embedder).writes.unstored == {}
    assert ledger_connection(ledger_of(embedder)) is None


# ---- forks, pickle and copies


@pytest.mark.parametrize("cls", [Embedder, AsyncEmbedder])
@pytest.mark.parametrize("change", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_an_embedder_is_neither_pickled_nor_copied(config, cls, change):
    with pytest.raises(UsageError, match="create one in each process"):
        change(cls(config=config))


def test_a_forked_process_gets_a_new_engine(config):
    embedder = AsyncEmbedder(config=config)
    first = asyncio.run(embedder.embed("a")).vectors
    before = engine_of(embedder)
    forget_engine(embedder)  # called in the child by a fork
    second = asyncio.run(embedder.embed("a")).vectors
    assert engine_of(embedder) is not before
    np.testing.assert_array_equal(first, second)
