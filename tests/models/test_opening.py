"""Limits of a request and of a batch: of the service, of a route's options and of the settings, for every caller."""

import asyncio
import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_servers import KEY, CompatibleRerankServer, CompatibleServer, score_of
from embedway import AsyncEmbedder, Config
from embedway.errors import ConfigError
from embedway.local.encoder import Encoder
from embedway.providers.fake import vector_of
from tiny_models import tiny_reranker

MODEL, RERANKER, LOCAL = "acme/m", "acme/r", "sentence-transformers/all-MiniLM-L6-v2"
NO_STORES = {"cache.backend": "none", "ledger.backend": "none"}
#: Limit: none, or a number of texts.
LIMIT = st.none() | st.integers(1, 12)


class Own(CompatibleServer):
    models = frozenset({MODEL})
    width = 16


@contextlib.asynccontextmanager
async def embedder_for(*servers, options=None, **overrides):
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server.running())
        routes = {
            f"routes.r{number}": {
                "model": RERANKER if isinstance(server, CompatibleRerankServer) else MODEL,
                "provider": "openai-compatible",
                "upstream_model": server.model if isinstance(server, CompatibleRerankServer) else MODEL,
                "base_url": f"{server.url}/v1",
                "api_key": KEY,
                "options": options or {},
            }
            for number, server in enumerate(servers)
        }
        models = {
            "models.m": {"name": MODEL, "dimensions": 16, "max_tokens": 500},
            "models.r": {"name": RERANKER, "task": "rerank", "max_tokens": 500},
        }
        config = Config.load(environ={}, overrides={**models, **routes, **NO_STORES, **overrides})
        yield await stack.enter_async_context(AsyncEmbedder(config=config))


def options_of(max_inputs, batch_size):
    given_ = {"max_inputs": max_inputs, "batch_size": batch_size}
    return {name: value for name, value in given_.items() if value is not None}


@settings(max_examples=25)
@given(
    callers=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    max_batch_size=LIMIT,
    max_inputs=LIMIT,
    batch_size=LIMIT,
    merged=st.booleans(),
)
def test_no_request_has_more_texts_than_any_limit(callers, max_batch_size, max_inputs, batch_size, merged):
    batching = {"batching.across_callers": merged, "batching.max_batch_size": max_batch_size or 1000}
    calls = [[f"text {caller}.{number}" for number in range(count)] for caller, count in enumerate(callers)]

    async def main():
        server = Own()
        async with embedder_for(server, options=options_of(max_inputs, batch_size), **batching) as embedder:
            return server, await asyncio.gather(*(embedder.embed(texts, model=MODEL) for texts in calls))

    server, results = asyncio.run(main())
    for texts, result in zip(calls, results, strict=True):
        np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
    most = min(limit for limit in (max_batch_size, max_inputs, batch_size, 32) if limit is not None)
    assert max(len(body["input"]) for body in server.bodies) <= most


@settings(max_examples=15)
@given(st.integers(1, 30), LIMIT, LIMIT, LIMIT)
def test_no_request_has_more_documents_than_any_limit(count, max_batch_size, max_inputs, batch_size):
    documents = [f"document {number}" for number in range(count)]
    batching = {"batching.max_batch_size": max_batch_size or 1000}

    async def main():
        server = CompatibleRerankServer()
        async with embedder_for(server, options=options_of(max_inputs, batch_size), **batching) as embedder:
            return server, await embedder.rerank("which one?", documents, model=RERANKER)

    server, result = asyncio.run(main())
    np.testing.assert_allclose(result.scores, [score_of("which one?", text) for text in documents], atol=1e-6)
    most = min(limit for limit in (max_batch_size, max_inputs, batch_size, 32) if limit is not None)
    assert max(len(body["documents"]) for body in server.bodies) <= most


@pytest.mark.parametrize("limits", [{"options": {"max_inputs": 1}}, {"batching.max_batch_size": 1}])
def test_probes_keep_the_limits_too(limits):
    async def main():
        servers = CompatibleRerankServer(), CompatibleRerankServer()
        async with embedder_for(*servers, **limits) as embedder:
            return servers, await embedder.rerank("which one?", ["a", "b", "c"], model=RERANKER)

    servers, result = asyncio.run(main())
    np.testing.assert_allclose(result.scores, [score_of("which one?", text) for text in "abc"], atol=1e-6)
    assert {len(body["documents"]) for server in servers for body in server.bodies} == {1}


# ------------------------------------------------------------ this machine


@pytest.fixture
def batches(monkeypatch):
    """Return the texts of each batch that this machine computes."""
    sizes = []
    run = Encoder.run

    async def recorded(self, tokenized, batch, *urgency):
        sizes.append(len(batch.rows))
        return await run(self, tokenized, batch, *urgency)

    monkeypatch.setattr(Encoder, "run", recorded)
    return sizes


def embed_here(directory, callers, **overrides):
    async def main():
        overrides.setdefault("weights.directory", str(directory))
        async with AsyncEmbedder(config=Config.load(environ={}, overrides={**NO_STORES, **overrides})) as embedder:
            return await asyncio.gather(*(embedder.embed(texts, model=LOCAL) for texts in callers))

    return asyncio.run(main())


CALLERS = [[f"text {caller}.{number}" for number in range(count)] for caller, count in enumerate((20, 1, 7, 3))]


@pytest.fixture(scope="module")
def plain(default_model_directory):
    """Return the vectors without limits."""
    return embed_here(default_model_directory, CALLERS)


@pytest.mark.parametrize(
    ("merged", "most", "route"),
    [
        (True, 4, None),
        (False, 4, None),
        (True, 1, None),
        (True, 4, {}),
        (False, 1, {"batch_size": 2}),
        (True, 1000, {"batch_size": 2}),
        (False, 1000, {"max_inputs": 3}),
        (True, 1000, {"batch_size": 9, "max_inputs": 5}),
    ],
)
def test_no_batch_of_this_machine_has_more_texts_than_any_limit(
    default_model_directory, plain, batches, merged, most, route
):
    overrides = {"batching.across_callers": merged, "batching.max_batch_size": most}
    if route is not None:
        overrides["routes.here"] = {"model": LOCAL, "provider": "local", "options": route}
    results = embed_here(default_model_directory, CALLERS, **overrides)
    assert max(batches) <= min(most, *(route or {"": 1000}).values())
    for one, other in zip(results, plain, strict=True):
        assert np.einsum("ij,ij->i", one.vectors, other.vectors).min() > 0.999


@pytest.mark.parametrize(("most", "route"), [(2, None), (1000, {"batch_size": 2}), (1000, {"max_inputs": 2}), (2, {})])
def test_no_batch_of_a_local_reranker_has_more_documents(tmp_path, tokenizer, batches, most, route):
    model = str(tiny_reranker(tmp_path / "reranker", tokenizer))
    documents = [f"document number {number}" for number in range(7)]
    routes = {} if route is None else {"routes.here": {"model": model, "provider": "local", "options": route}}

    async def rerank(**overrides):
        async with AsyncEmbedder(config=Config.load(environ={}, overrides={**NO_STORES, **overrides})) as embedder:
            return await embedder.rerank("which one?", documents, model=model)

    limited = asyncio.run(rerank(**{"batching.max_batch_size": most}, **routes))
    assert max(batches) <= 2
    assert sum(batches) == len(documents)
    np.testing.assert_allclose(limited.scores, asyncio.run(rerank()).scores, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batchsize": 3}, "options.batchsize: is not an option; available: max_inputs, batch_size"),
        ({"batch_size": 0}, "options.batch_size: must be an integer greater than 0"),
        ({"max_inputs": "many"}, "options.max_inputs: must be an integer greater than 0"),
    ],
)
def test_options_of_a_route_to_this_machine_are_checked(default_model_directory, options, said):
    route = {"model": LOCAL, "provider": "local", "options": options}
    with pytest.raises(ConfigError, match=f"routes.here: {said}"):
        embed_here(default_model_directory, CALLERS, **{"routes.here": route})
