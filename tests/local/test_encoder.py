"""Sessions of an encoder: which one computes a request, and when each is loaded."""

import asyncio
import threading
from collections import Counter

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config
from embedway.errors import RuntimeUnavailableError
from embedway.local import encoder as encoder_module
from embedway.local.encoder import Encoder
from inside import second_session_of

SMALL = [f"a text of some words, number {number}" for number in range(9)]
LARGE = [f"{number} is the number of a text " + "with many words " * 30 for number in range(24)]
BACKENDS = pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])


@pytest.fixture
def settings(config):
    """Return settings of a machine with two threads and without a cache."""

    def make(backend, **more):
        local = {"backend": backend, "threads": 2, **more}
        overrides = {f"local.{key}": value for key, value in local.items()}
        stored = {"weights.directory": str(config.weights.directory), "tune.directory": str(config.tune.directory)}
        return Config.load(environ={}, overrides={**stored, "cache.backend": "none", **overrides})

    return make


class Sessions:
    """Records the session of each batch, and each session that is loaded; holds or fails the loading on request."""

    def __init__(self, monkeypatch):
        self.batches, self.loaded = [], Counter()
        self.gate, self.failing = None, 0
        compute, open_session = Encoder.compute, encoder_module.open_session

        def recorded(encoder, options, rows, width, types=None):
            self.batches.append((options.streams, len(rows)))
            return compute(encoder, options, rows, width, types)

        def opened(recipe, options):
            if self.loaded and self.gate is not None:
                self.gate.wait(60)
            if self.loaded and self.failing:
                self.failing -= 1
                raise RuntimeUnavailableError("no memory for a second session")
            self.loaded[options.streams] += 1
            return open_session(recipe, options)

        monkeypatch.setattr(Encoder, "compute", recorded)
        monkeypatch.setattr(encoder_module, "open_session", opened)

    def take(self):
        """Return the batches since the last call, as (streams of the session, texts)."""
        taken, self.batches = self.batches, []
        return taken


@pytest.fixture
def sessions(monkeypatch):
    return Sessions(monkeypatch)


def run(main):
    asyncio.run(asyncio.wait_for(main(), 120))


@BACKENDS
def test_warming_loads_every_session_that_a_later_request_uses(settings, sessions, backend):
    async def main():
        async with AsyncEmbedder(config=settings(backend)) as embedder:
            await embedder.models.warm()
            assert sessions.loaded == {1: 1, 2: 1}
            sessions.take()
            await embedder.embed(SMALL)
            assert sessions.take() == [(1, 9)]
            await embedder.embed(LARGE)
            assert {streams for streams, _ in sessions.take()} == {2}
            await embedder.embed("one query", input_type="query")
            assert sessions.take() == [(1, 1)]
            await embedder.models.warm()
        assert sessions.loaded == {1: 1, 2: 1}

    run(main)


@BACKENDS
def test_a_vector_does_not_depend_on_the_session(settings, sessions, backend):
    async def main():
        async with AsyncEmbedder(config=settings(backend)) as embedder:
            small = (await embedder.embed(LARGE[:9])).vectors
            assert {streams for streams, _ in sessions.take()} == {1}
            large = (await embedder.embed(LARGE)).vectors
            await asyncio.wrap_future(second_session_of(embedder))
            sessions.take()
            large = (await embedder.embed(LARGE)).vectors
            assert {streams for streams, _ in sessions.take()} == {2}
        cosines = np.einsum("ij,ij->i", small, large[:9])
        assert cosines.min() > 0.9995

    run(main)


def test_a_request_does_not_wait_for_a_second_session(settings, sessions):
    async def main():
        sessions.gate = threading.Event()
        async with AsyncEmbedder(config=settings("onnxruntime")) as embedder:
            await embedder.embed(LARGE)
            sessions.take()
            await embedder.embed("a query while the session for queries is loaded")
            await embedder.embed("another query")
            assert sessions.take() == [(2, 1), (2, 1)]
            sessions.gate.set()
            await asyncio.wrap_future(second_session_of(embedder))
            await embedder.embed("a query on its own session")
            assert sessions.take() == [(1, 1)]
        assert sessions.loaded == {1: 1, 2: 1}

    run(main)


def test_a_query_alone_loads_one_session(settings, sessions):
    async def main():
        async with AsyncEmbedder(config=settings("onnxruntime")) as embedder:
            await embedder.embed("one query")
            await embedder.embed("another query")
        assert sessions.loaded == {1: 1}

    run(main)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_second_session_that_cannot_be_loaded(settings, sessions, failures):
    async def main():
        async with AsyncEmbedder(config=settings("onnxruntime")) as embedder:
            await embedder.embed(LARGE)
            sessions.failing = failures
            await embedder.embed("computed on the first session")
            with pytest.raises(RuntimeUnavailableError, match="no memory"):
                await asyncio.wrap_future(second_session_of(embedder))
            if failures == 2:
                with pytest.raises(RuntimeUnavailableError, match="no memory"):
                    await embedder.embed("the error is shown")
            await embedder.embed("then it is loaded")
        assert sessions.loaded == {1: 1, 2: 1}

    run(main)


def test_closing_waits_for_a_session_that_is_being_loaded(settings, sessions):
    async def main():
        sessions.gate = threading.Event()
        embedder = AsyncEmbedder(config=settings("onnxruntime"))
        await embedder.embed(LARGE)
        await embedder.embed("a query")
        loading = second_session_of(embedder)
        closing = asyncio.create_task(embedder.aclose())
        await asyncio.sleep(0)
        assert not loading.done()
        sessions.gate.set()
        await closing
        assert loading.done()

    run(main)


@BACKENDS
def test_few_texts_fill_all_streams_if_the_streams_are_set(settings, sessions, backend):
    async def main():
        async with AsyncEmbedder(config=settings(backend, streams=2)) as embedder:
            await embedder.embed(LARGE[:9])
        assert sorted(sessions.take()) == [(2, 4), (2, 5)]

    run(main)
