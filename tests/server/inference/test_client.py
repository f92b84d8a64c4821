"""Embedders whose models are computed by the inference process, here a service in the same event loop."""

import asyncio
import socket
import threading

import numpy as np
import pytest

from async_tests import in_loop
from embedway import AsyncEmbedder
from embedway.errors import BatchError, DeadlineError, UnavailableError
from embedway.local import encoder as encoder_module
from embedway.server.inference.client import InferenceClient
from inference_service import serving, settings_of, until, worker
from inside import embedder_with
from tiny_models import tiny_encoder, tiny_reranker

TEXTS = [f"text {number} " + "of several words " * (number % 9) for number in range(60)]


# ------------------------------------------------------------ equal results


@in_loop
async def test_vectors_space_and_receipt_are_those_of_a_model_in_this_process(plain):
    async with (
        serving(plain) as (_, path),
        AsyncEmbedder(config=plain) as here,
        worker(plain, path) as there,
    ):
        for input_type in ("query", "document"):
            one, other = [await embedder.embed(TEXTS, input_type=input_type) for embedder in (here, there)]
            assert (one.vectors * other.vectors).sum(axis=1).min() > 0.99999
            assert one.space == other.space
            for fact in ("model", "route", "runtime", "space_id", "tokens", "cost_nanousd", "truncations"):
                assert getattr(one.receipt, fact) == getattr(other.receipt, fact)
        assert (await here.models.describe()).variant == (await there.models.describe()).variant


@in_loop
async def test_cached_vectors_of_one_are_hits_of_the_other(config, tmp_path):
    stored = settings_of(config, tmp_path, **{"cache.backend": "sqlite", "cache.path": str(tmp_path / "cache.db")})
    async with serving(stored) as (service, path):
        async with worker(stored, path) as there:
            first = await there.embed(TEXTS)
        ended = service.progress.ended
        async with AsyncEmbedder(config=stored) as here:
            second = await here.embed([*TEXTS, "one more"])
        assert second.receipt.cache_hits == len(TEXTS)
        np.testing.assert_array_equal(first.vectors, second.vectors[:-1])
        async with worker(stored, path) as there:
            assert (await there.embed("one more")).receipt.cache_hits == 1
        assert service.progress.ended == ended


@in_loop
async def test_the_worker_loads_no_session(plain, monkeypatch):
    loaded = []
    open_session = encoder_module.open_session
    monkeypatch.setattr(
        encoder_module,
        "open_session",
        lambda *args: loaded.append(args) or open_session(*args),
    )
    async with serving(plain) as (_, path), worker(plain, path) as one, worker(plain, path) as other:
        await one.models.warm()
        by_the_process = len(loaded)
        await other.models.warm()
        await other.embed(TEXTS)
    assert loaded
    assert len(loaded) == by_the_process


@in_loop
async def test_vectors_without_normalization(plain, tiny):
    async with serving(plain) as (service, path), AsyncEmbedder(config=plain) as here, worker(plain, path) as there:
        one, other = [await embedder.embed(TEXTS, model=tiny, normalize=False) for embedder in (here, there)]
        assert one.space == other.space
        np.testing.assert_allclose(one.vectors, other.vectors, rtol=2e-2, atol=2e-2)
        assert abs(np.linalg.norm(other.vectors, axis=1) - 1).max() > 0.01
        await there.embed("a", model=tiny)
        assert {state["normalized"] for state in service.residents.states()} == {True, False}


@in_loop
async def test_scores_of_a_reranker(plain, tmp_path, tokenizer):
    model = str(tiny_reranker(tmp_path / "tiny", tokenizer))
    async with serving(plain) as (_, path), AsyncEmbedder(config=plain) as here, worker(plain, path) as there:
        one, other = [await embedder.rerank("which?", TEXTS, model=model) for embedder in (here, there)]
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
        assert np.isfinite(other.scores).all()
        await there.models.warm_reranker(model)


@in_loop
async def test_jobs_of_several_workers_share_batches(plain, held):
    async with serving(plain) as (service, path):
        workers = [worker(plain, path) for _ in range(3)]
        await asyncio.gather(*(one.embed("first") for one in workers))
        held.hold()
        calls = [asyncio.create_task(one.embed(f"text {n}")) for n in range(8) for one in workers]
        await until(lambda: service.jobs == len(calls))
        held.open.set()
        await asyncio.gather(*calls)
        assert sum(held.sizes) == len(calls)
        assert len(held.sizes) < len(calls) / 2
        for one in workers:
            await one.aclose()


@in_loop
async def test_queries_of_all_workers_are_computed_first(plain, held):
    async with serving(plain) as (service, path), worker(plain, path) as bulk, worker(plain, path) as other:
        await asyncio.gather(bulk.embed("first"), other.embed("first"))
        held.hold()
        # Long texts, so that none shares a batch with another.
        documents = asyncio.create_task(bulk.embed([f"{number} word" + " word" * 250 for number in range(80)]))
        await until(lambda: service.jobs > 6)
        query = asyncio.create_task(other.embed("a query", input_type="query"))
        await until(lambda: service.residents.states()[0]["waiting"])
        held.open.set()
        await query
        assert not documents.done()
        await documents


# ------------------------------------------------------------ failures


@in_loop
async def test_a_cancelled_job_is_dropped(plain, held):
    async with serving(plain) as (service, path), worker(plain, path) as there:
        await there.embed("first")
        held.hold()
        long = "word " * 250
        calls = [asyncio.create_task(there.embed(f"{number} {long}")) for number in range(64)]
        await until(lambda: service.jobs == len(calls))
        for call in calls[4:]:
            call.cancel()
        await until(lambda: service.jobs == 4)
        held.open.set()
        await asyncio.gather(*calls[:4])
        # Of 8 such texts in a batch, three batches may have started.
        assert sum(held.sizes) <= 24


@in_loop
async def test_the_deadline_of_a_call_ends_its_job(small, held):
    async with serving(small) as (service, path), worker(small, path) as there:
        await there.embed("first")
        held.hold()
        with pytest.raises(DeadlineError):
            await there.embed("second", deadline_s=0.05)
        await until(lambda: not service.jobs)
        held.open.set()


@in_loop
async def test_a_lost_client_ends_its_jobs(small, held):
    async with serving(small) as (service, path):
        client = InferenceClient(path)
        async with embedder_with(lambda: client, small) as there:
            await there.embed("first")
            held.hold()
            call = asyncio.create_task(there.embed("second"))
            await until(lambda: service.jobs == 1)
            await client.aclose()
            await asyncio.wait([call])
            await until(lambda: not service.jobs)
        held.open.set()


@in_loop
async def test_a_failing_batch_is_an_error_of_its_texts(small, held):
    async with serving(small) as (_, path), worker(small, path) as there:
        await there.embed("first")
        held.failing = ValueError("a text")
        held.open.set()
        held.hold()
        with pytest.raises(BatchError, match="ValueError") as caught:
            await there.embed(["a", "b"])
        assert "a text" not in str(caught.value)
        result = await there.embed(["a", "b"], partial=True)
        assert set(result.errors) == {0, 1}


@in_loop
async def test_a_cold_model_is_an_error_with_a_wait_while_it_is_loaded(small, monkeypatch):
    gate, waited = threading.Event(), []
    open_session = encoder_module.open_session

    def held(*args):
        waited.append(gate.wait(60))
        return open_session(*args)

    monkeypatch.setattr(encoder_module, "open_session", held)
    async with serving(small, load_wait_s=0.01) as (service, path), worker(small, path) as there:
        # Also for partial requests: no text is at fault.
        for options in ({}, {"partial": True}):
            with pytest.raises(UnavailableError, match="still being loaded") as caught:
                await there.embed(["a", "b"], **options)
            assert caught.value.loading
            assert caught.value.retry_after_s >= 1
        warming = asyncio.create_task(there.models.warm())
        gate.set()
        await warming
        await there.embed(["a", "b"])
        assert service.state()["models"][0]["state"] == "loaded"


@in_loop
async def test_a_process_that_never_starts_is_an_error_in_time(small, tmp_path):
    async with worker(small, tmp_path / "missing", connect_s=0.1) as there:
        with pytest.raises(UnavailableError, match="does not answer"):
            await there.embed("a")


@in_loop
async def test_a_process_that_accepts_and_is_silent_is_an_error_in_time(small, tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen(4)
    async with worker(small, tmp_path / "s", ping_every_s=0.02, silent_s=0.1) as there:
        with pytest.raises(UnavailableError, match="ended"):
            await there.embed("a")
    listener.close()


@in_loop
async def test_files_that_changed_since_the_worker_opened_them_are_refused(small, tmp_path, tokenizer):
    folder = tmp_path / "tiny"
    tiny_encoder(folder, tokenizer, seed=1)
    async with serving(small) as (_, path), worker(small, path) as there:
        await there.models.describe(str(folder), load=True)
        (folder / "model.safetensors").unlink()
        tiny_encoder(folder, tokenizer, seed=2)
        with pytest.raises(Exception, match="have changed since"):
            await there.embed("a", model=str(folder))


# ------------------------------------------------------------ memory


@in_loop
async def test_a_model_is_unloaded_on_request_and_loaded_again(plain):
    async with serving(plain) as (service, path), worker(plain, path) as there:
        first = await there.embed("a")
        client = InferenceClient(path)
        (state,) = (await client.state())["models"]
        assert state["model"] == first.receipt.model
        assert state["state"] == "loaded"
        assert state["bytes"] > 20 << 20
        assert await client.keep(first.receipt.model, 0.0) == 1
        await until(lambda: not service.residents.states())
        again = await there.embed("a")
        assert (first.vectors * again.vectors).sum() > 0.99999
        await client.aclose()
