"""A gateway for tests of its APIs: it serves the default model, a tiny reranker, and models of a fake service."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config, Embedder
from gateways import gateway_in_thread
from tiny_models import tiny_reranker

#: A served model, and texts for it; two of them are the same.
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["A cat sits on the mat.", "Steuern in Österreich", "A cat sits on the mat.", "x"]
#: Models of a provider that returns vectors of 16 numbers from the text, at once. The second has OpenAI's tokenizer.
FAKE, FAKE_OF_OPENAI = "tests/fake", "tests/fake-of-openai"
_FAKE = {"dimensions": 16, "min_dimensions": 1, "max_tokens": 512, "price_usd_per_million_tokens": "1"}
_ROUTE = {"provider": "fake", "options": {"width": 16}}
FAKE_SETTINGS = {
    "models": {
        "fake": {**_FAKE, "name": FAKE, "tokenizer": "estimate"},
        "fake-of-openai": {**_FAKE, "name": FAKE_OF_OPENAI, "tokenizer": "tiktoken:cl100k_base"},
    },
    "routes": {"fake": {**_ROUTE, "model": FAKE}, "fake-of-openai": {**_ROUTE, "model": FAKE_OF_OPENAI}},
}


def settings_of(store, folder):
    """Return settings of a gateway with the default model of a store, a tiny reranker, and models of a fake service."""
    (tokenizer,) = store.glob("models/*MiniLM*/*/tokenizer.json")
    return {
        **FAKE_SETTINGS,
        "weights.directory": str(store),
        "weights.offline": True,
        "tune.directory": str(folder / "tune"),
        "rerank.default_model": str(tiny_reranker(folder / "reranker", tokenizer)),
        "cache.backend": "memory",
        "ledger.backend": "none",
    }


def fake_settings(store, folder):
    """Return settings whose default model is that of the fake service, without a cache."""
    return {**settings_of(store, folder), "embedding.default_model": FAKE, "cache.backend": "none"}


@pytest.fixture(scope="module")
def gateway_settings(default_model_directory, tmp_path_factory):
    """Return settings of a gateway."""
    return settings_of(default_model_directory, tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="module")
def gateway(gateway_settings):
    """Return a running gateway."""
    with running(gateway_settings) as url:
        yield SimpleNamespace(url=url)


def running(settings):
    """Run a gateway in a thread, and yield its URL."""
    return gateway_in_thread(Config.load(environ={}, overrides=settings))


@pytest.fixture(scope="module")
def library(gateway_settings):
    """Return an embedder with the settings of the gateway."""
    with Embedder(config=Config.load(environ={}, overrides=gateway_settings)) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def expected(library):
    """Return the vectors of the library."""
    return library.embed(TEXTS, model=MODEL).vectors


def same(vectors, expected):
    """Return whether each row has a cosine of at least 0.99999 with that of the library."""
    rows = np.asarray(vectors, np.float64)
    cosines = (rows * expected).sum(axis=1) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1))
    return rows.shape == expected.shape and bool((cosines >= 0.99999).all())


def embed_far(texts, **route):
    """Return the vectors of texts by our own provider of the API of a gateway."""

    async def run():
        async with AsyncEmbedder(config=_far({"dimensions": 384, "max_tokens": 256}, route)) as embedder:
            return (await embedder.embed(texts, model="far")).vectors

    return asyncio.run(run())


def rerank_far(query, documents, **route):
    """Return the result of our own provider of an API of reranking of a gateway."""

    async def run():
        async with AsyncEmbedder(config=_far({"task": "rerank", "max_tokens": 512}, route)) as embedder:
            return await embedder.rerank(query, documents, model="far")

    return asyncio.run(run())


def _far(model, route):
    return Config.load(
        environ={},
        overrides={
            "models": {"far": {"name": "far", "tokenizer": "estimate", **model}},
            "routes": {"far": {"model": "far", **route}},
            "ledger.backend": "none",
            "cache.backend": "none",
        },
    )
