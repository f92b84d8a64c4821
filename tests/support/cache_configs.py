"""Settings for one store of the cache and a fake model."""

import contextlib

import redis

from embedway import Config

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20, "price_usd_per_million_tokens": "1"}
TEXTS = [f"text {n}" for n in range(12)]


def empty_server(request, backend):
    """Return the URL of an empty Valkey for "redis" and "redis cluster", otherwise a URL without a server."""
    if not backend.startswith("redis"):
        return "redis://127.0.0.1:1"
    url = request.getfixturevalue("valkey_cluster" if backend == "redis cluster" else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return url


def config_of(backend, folder, url, **overrides):
    """Return settings of a store; `overrides` are dotted keys."""
    settings = {
        "models.m": MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake", "options": {"max_inputs": "4"}},
        "ledger.backend": "none",
        "cache.backend": backend.split()[0],
        "cache.path": str(folder / "v.sqlite"),
        "cache.url": url,
        "cache.cluster": backend == "redis cluster",
    }
    return Config.load(environ={}, overrides={**settings, **overrides})
