"""Models of services: what their errors keep on the way to the caller."""

import asyncio

import pytest

from embedway import AsyncEmbedder, Config
from embedway.errors import DeadlineError, RateLimitedError

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20, "price_usd_per_million_tokens": "1"}


@pytest.mark.parametrize("deadline_s", [None, 60.0])
def test_a_deadline_keeps_its_attempts_from_the_route_to_the_caller(tmp_path, deadline_s):
    overrides = {
        "models.m": MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "upstream.deadline_s": 30,
        "cache.path": str(tmp_path / "v.sqlite"),
        "ledger.backend": "none",
    }

    async def main():
        async with AsyncEmbedder("acme/m", config=Config.load(environ={}, overrides=overrides)) as embedder:
            await embedder.models.warm()
            busy = RateLimitedError("too many requests", route="routes.r", retry_after_s=3600)
            embedder._models.opened("acme/m").routes[0].provider._faults = lambda _number, _texts: busy
            await embedder.embed(["a text"], deadline_s=deadline_s)

    with pytest.raises(DeadlineError, match=r"tried again|retried|retry") as caught:
        asyncio.run(main())
    assert caught.value.attempts == 1
    assert isinstance(caught.value, TimeoutError)
