"""Embedders with one store of the cache, for tests of the store's faults."""

import numpy as np

from embedway import Config
from embedway.cache.base import Group
from embedway.providers.fake import vector_of
from inside import set_store_clock, settle, store_of

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20}
GROUP = Group("m", "m@1/4")
TEXTS = [f"text {n}" for n in range(40)]


def config_for(**cache):
    overrides = {
        "models.m": MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "cache.tiered": False,
        "ledger.backend": "none",
        **{f"cache.{name}": value for name, value in cache.items()},
    }
    return Config.load(environ={}, overrides=overrides)


def clocked(embedder, clock):
    """Return the store of an embedder's cache, with a simulated clock."""
    set_store_clock(store_of(embedder), clock)
    return store_of(embedder)


async def embedded(embedder, texts=TEXTS):
    """Embed texts, check the vectors, and return the receipt."""
    result = await embedder.embed(texts, model="acme/m")
    await settle(embedder)
    np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
    return result.receipt
