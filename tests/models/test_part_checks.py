"""Equal vectors of different texts on this machine: batches, windows, and requests after one another."""

import asyncio

import numpy as np
import pytest

from embedway import AsyncEmbedder, BadVectorsError, BaseHook, VectorCheckDetails
from embedway.local.encoder import Encoder

TEXTS = [f"a text about subject {n} and object {n * 7}" for n in range(200)]


class Events(BaseHook):
    def __init__(self):
        self.seen = []

    def event(self, operation):
        if isinstance(operation.details, VectorCheckDetails):
            self.seen.append(operation.details)


def broken(monkeypatch, *, width=0):
    """Let batches over a width return one vector for all texts."""
    compute = Encoder.compute

    def faulty(self, options, rows, padded, types=None):
        vectors = compute(self, options, rows, padded, types)
        return np.repeat(vectors[:1] * 0 + 384**-0.5, len(vectors), axis=0) if padded > width else vectors

    monkeypatch.setattr(Encoder, "compute", faulty)


def run(config, work, **cache):
    config = replace_cache(config, **cache)

    async def main():
        events = Events()
        async with AsyncEmbedder(config=config, hooks=[events]) as embedder:
            return await work(embedder, events)

    return asyncio.run(main())


def replace_cache(config, **cache):
    return config.model_copy(update={"cache": config.cache.model_copy(update=cache)})


@pytest.mark.parametrize("backend", ["none", "memory"])
@pytest.mark.parametrize("count", [2, 200])
def test_one_vector_for_all_texts_is_refused_and_not_stored(config, monkeypatch, backend, count):
    broken(monkeypatch)

    async def work(embedder, events):
        with pytest.raises(BadVectorsError) as caught:
            await embedder.embed(TEXTS[:count])
        assert (caught.value.check, caught.value.row) == ("same_vector", 0)
        assert {(one.check, one.level) for one in events.seen} == {("same_vector", "refused")}
        if backend == "memory":
            assert sum(model.entries for model in (await embedder.cache.stats()).models.values()) <= 1

    run(config, work, backend=backend)


def test_queries_after_one_another(config, monkeypatch):
    broken(monkeypatch)

    async def work(embedder, events):
        await embedder.embed_query("Polish")
        await embedder.embed_query("polish")  # one text for a model that ignores case
        with pytest.raises(BadVectorsError, match="an earlier answer had for another text"):
            await embedder.embed_query("German")

    run(config, work, backend="none")


def test_the_other_texts_of_a_partial_request_keep_their_vectors(config, monkeypatch):
    broken(monkeypatch, width=100)
    long = ["alpha " * 150, "beta " * 150, "gamma " * 150]

    async def work(embedder, events):
        result = await embedder.embed([*TEXTS[:8], *long], partial=True)
        assert set(result.errors) == {8, 9, 10}
        assert all(error.row == row for row, error in result.errors.items())
        assert np.isfinite(result.vectors[:8]).all()
        assert (await embedder.embed(TEXTS[:8])).receipt.cache_hits == 8

    run(config, work, backend="memory")


def test_windows_of_long_texts(config, monkeypatch):
    broken(monkeypatch)
    long = [" ".join(f"{kind}{n}" for n in range(400)) for kind in ("alpha", "beta")]

    async def work(embedder, events):
        with pytest.raises(BadVectorsError) as caught:
            await embedder.embed(long, on_overflow="mean")
        assert caught.value.check == "same_vector"

    run(config, work, backend="memory")


def test_texts_of_unknown_words_and_in_other_order_and_case_are_right(config):
    texts = ["Polish", "polish", "\u0e01\u0e02", "\u0e03\u0e04", "w " * 300 + "a", "w " * 300 + "b", "x y", "y x"]

    async def work(embedder, events):
        result = await embedder.embed(texts)
        np.testing.assert_array_equal(result.vectors[0], result.vectors[1])
        assert events.seen == []

    run(config, work, backend="memory")
