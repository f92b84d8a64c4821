"""Models without a key are kept, and opened again when the key is available."""

import asyncio

import pytest

from embedway import AsyncEmbedder, Config
from embedway.errors import ConfigError, UnknownModelError, UsageError
from embedway.models import opening
from embedway.providers.fake import Fake
from inside import open_model


def keyless(path):
    route = {"model": "acme/m", "provider": "voyage", "api_key_file": str(path)}
    return Config.load(
        environ={},
        overrides={
            "cache.backend": "memory",
            "ledger.backend": "none",
            "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 50},
            "routes.r": route,
        },
    )


@pytest.fixture
def providers(monkeypatch):
    """Return the keys that providers are made with, and the closed providers."""
    made, closed = [], []

    class Counted(Fake):
        async def aclose(self):
            closed.append(self)

    def make(provider, endpoint):
        made.append(endpoint.secret)
        return Counted()

    monkeypatch.setattr(opening, "make_provider", make)
    return made, closed


def test_a_reranker_that_is_unknown_no_reranker_or_without_a_key_is_refused(tmp_path):
    async def main(name, error, match):
        async with AsyncEmbedder(config=keyless(tmp_path / "key")) as embedder:
            with pytest.raises(error, match=match):
                await embedder.models.warm_reranker(name)

    asyncio.run(main("bge-reranker", UnknownModelError, "nearest: BAAI/bge-reranker-"))
    asyncio.run(main("all-MiniLM-L6-v2", UsageError, "does not score pairs"))
    asyncio.run(main("rerank-v3.5", ConfigError, "set COHERE_API_KEY"))


def test_a_model_without_a_key_is_opened_once_and_again_when_the_key_is_there(tmp_path, providers):
    made, closed = providers
    key = tmp_path / "key"

    async def main():
        async with AsyncEmbedder(config=keyless(key)) as embedder:
            plans = [await embedder.plan("a text", model="acme/m") for _ in range(3)]
            for number in range(3):
                with pytest.raises(ConfigError, match="cannot be read"):
                    await embedder.embed(f"text {number}", model="acme/m")
            blocked = await open_model(embedder)
            key.write_text("k1")
            key.chmod(0o600)
            result = await embedder.embed("a text", model="acme/m")
            assert await open_model(embedder) is not blocked
            return plans, result, list(closed)

    plans, result, closed_meanwhile = asyncio.run(main())
    assert {plan.tokens for plan in plans} == {plans[0].tokens}
    assert result.receipt.attempts == 1
    # The provider with the placeholder is closed when it is replaced.
    assert len(closed_meanwhile) == 1
    assert made.count("none") == 1
    assert made.count("k1") >= 1


def test_a_model_is_closed_by_its_last_owner(tmp_path, providers):
    _, closed = providers
    (tmp_path / "key").write_text("k1")
    (tmp_path / "key").chmod(0o600)

    async def main():
        async with AsyncEmbedder(config=keyless(tmp_path / "key")) as embedder:
            model = await open_model(embedder)
            model.retain()
        before = len(closed)
        await model.close()
        return before, len(closed)

    before, after = asyncio.run(main())
    assert before == 0
    assert after >= 1
