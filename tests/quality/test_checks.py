"""Faults of a service that no status shows, through the complete path of a request."""

import asyncio
import copy

import numpy as np
import pytest

from embedway import AsyncEmbedder, BadVectorsError, BaseHook, Config, EmbedwayError, VectorCheckDetails
from faulty_model import FAULTS, FaultyModel, constant, constant_after, hash_made, jittering, settings_of

TEXTS = [f"subject{n} verb{n} object{n}" for n in range(64)]


class Events(BaseHook):
    def __init__(self):
        self.seen = []

    def event(self, operation):
        if isinstance(operation.details, VectorCheckDetails):
            self.seen.append(operation.details)


def run(work, fault=None, **more):
    """Run `work(embedder, server, events)` with a server that has a fault."""
    server, events = FaultyModel(fault), Events()

    async def main():
        async with server.running() as url:
            config = Config.load(environ={}, overrides=settings_of(url, **{"cache.backend": "memory", **more}))
            async with AsyncEmbedder(config=config, hooks=[events]) as embedder:
                return await work(embedder, server, events)

    return asyncio.run(main())


async def refused(call):
    with pytest.raises(BadVectorsError) as caught:
        await call
    return caught.value


def test_one_vector_for_all_texts_is_refused_after_two_requests_and_not_stored():
    async def work(embedder, server, events):
        error = await refused(embedder.embed(TEXTS))
        assert error.check == "same_vector"
        assert len(server.requests) == 2  # the second bad answer is the route's fault
        assert copy.copy(error).check == "same_vector"  # by the methods of pickle
        assert {(one.check, one.level, one.texts, one.route) for one in events.seen} == {
            ("same_vector", "refused", 64, "routes.faulty")
        }
        server.fault = None
        result = await embedder.embed(TEXTS)
        assert result.receipt.cache_hits == 0
        np.testing.assert_array_equal(result.vectors, hash_made(TEXTS))

    run(work, constant)


def test_single_queries_find_it_at_the_second_different_text():
    async def work(embedder, server, events):
        await embedder.embed("a first text", input_type="query")
        await embedder.embed("A FIRST TEXT!", input_type="query")
        error = await refused(embedder.embed("something else", input_type="query"))
        assert "which an earlier answer had for another text" in str(error)
        assert len(server.requests) == 4
        assert events.seen[-1].texts == 1

    run(work, constant)


def test_noise_does_not_hide_it():
    async def work(embedder, server, events):
        assert (await refused(embedder.embed(TEXTS))).check == "near_constant"

    run(work, jittering)


def test_concurrent_callers_get_no_vector_of_a_refused_answer():
    async def work(embedder, server, events):
        await embedder.embed("a first text")
        calls = [embedder.embed(text) for text in TEXTS[:16] * 2]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, EmbedwayError) for one in results)
        assert len(server.requests) < 32  # then its circuit is open

    run(work, constant)


def test_windows_of_long_texts_are_checked():
    async def work(embedder, server, events):
        long = [" ".join(f"{kind}{n}" for n in range(900)) for kind in ("alpha", "beta")]
        assert (await refused(embedder.embed(long, on_overflow="mean"))).check == "same_vector"

    run(work, constant)


def test_two_rows_with_one_vector_are_asked_again_and_the_others_kept():
    def swapped(number, texts, right, vectors):
        if len(texts) > 1:
            vectors[5] = vectors[9]
        return vectors

    async def work(embedder, server, events):
        result = await embedder.embed(TEXTS, partial=True)
        # The text that has the vector can only be cleared after the other one has its own.
        assert set(result.errors) <= {9}
        good = [row for row in range(64) if row not in result.errors]
        np.testing.assert_array_equal(result.vectors[good], hash_made(TEXTS)[good])
        assert [len(texts) for texts in server.requests] == [64, 1, 1]
        again = await embedder.embed(TEXTS)
        np.testing.assert_array_equal(again.vectors, hash_made(TEXTS))

    run(work, swapped)


def test_a_server_that_becomes_constant_costs_few_requests():
    async def work(embedder, server, events):
        await embedder.embed(TEXTS[:40])
        await refused(embedder.embed([f"other{n} text{n}" for n in range(64)]))
        assert len(server.requests) == 3

    run(work, constant_after(40))


def test_a_good_route_takes_over():
    async def work(embedder, server, events):
        good = FaultyModel()
        async with good.running() as url:
            settings = settings_of(embedder.config.routes["faulty"].base_url, **{"cache.backend": "none"})
            settings["routes.faulty"] |= {"same_space": True}
            settings["routes.good"] = {**settings["routes.faulty"], "base_url": url}
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=settings)) as both:
                result = await both.embed(TEXTS)
        np.testing.assert_array_equal(result.vectors, hash_made(TEXTS))

    def bad_but_for_probes(number, texts, right, vectors):
        return constant(number, texts, right, vectors) if set(texts) & set(TEXTS) else vectors

    run(work, bad_but_for_probes)


def test_the_check_can_be_switched_off():
    async def work(embedder, server, events):
        assert len((await embedder.embed(TEXTS)).vectors) == 64
        assert [one.level for one in events.seen] == ["warned"]

    run(work, constant, **{"quality.check_diversity": False})


@pytest.mark.parametrize(("fault", "check"), [("a row of zeros", "zero"), ("a row that is not finite", "unreadable")])
def test_other_faults_have_the_name_of_their_check(fault, check):
    async def work(embedder, server, events):
        result = await embedder.embed(TEXTS, partial=True)
        assert set(result.errors) == {63}
        assert result.errors[63].__class__ is BadVectorsError
        assert result.errors[63].check == check
        assert {one.check for one in events.seen} == {check}

    run(work, FAULTS[fault])


def test_the_receipt_has_the_similarity_of_different_texts():
    async def work(embedder, server, events):
        first, again = await embedder.embed(TEXTS + TEXTS), await embedder.embed(TEXTS)
        checks = first.receipt.checks
        assert checks.texts == 64
        similar = hash_made(TEXTS) @ hash_made(TEXTS).T
        off = similar[~np.eye(64, dtype=bool)]
        assert checks.mean_similarity == pytest.approx(off.mean(), abs=1e-6)
        assert checks.greatest_similarity == pytest.approx(off.max(), abs=1e-6)
        assert again.receipt.checks == checks  # also of vectors from the cache
        assert (await embedder.embed(TEXTS[0])).receipt.checks.mean_similarity is None

    run(work)


def test_high_similarity_of_clearly_different_texts_is_a_warning(caplog):
    def narrow(number, texts, right, vectors):
        rows = right(["one"]) + 0.08 * vectors
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    async def work(embedder, server, events):
        for _ in range(2):
            receipt = (await embedder.embed(TEXTS)).receipt
            assert receipt.checks.warnings == ("high_similarity",)
            assert sum("nearly equal" in note for note in receipt.notes) == 1
        assert [(one.check, one.level) for one in events.seen] == [("high_similarity", "warned")] * 2

    run(work, narrow)
    assert sum("nearly equal" in record.message for record in caplog.records) == 1
