"""User-defined models in the settings: any server with OpenAI's interface."""

import asyncio

import numpy as np
import pytest

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.errors import ConfigError, DimensionsError, UnknownModelError
from embedway.providers.fake import vector_of

MODEL = {
    "name": "acme/docs-v1.5",
    "dimensions": 16,
    "matryoshka": [8, 4],
    "max_tokens": 100,
    "query_prompt": "query: ",
    "price_usd_per_million_tokens": "0.5",
}


class Acme(OpenAIServer):
    def refusal(self, request, body):
        return None


def embed(texts, *, model=None, route=None, **options):
    async def main():
        server = Acme()
        async with server.running():
            way = {"model": "Acme/Docs-v1.5", "provider": "openai-compatible", "base_url": f"{server.url}/v1"}
            overrides = {
                "models.acme": {**MODEL, **(model or {})},
                "routes.r": {**way, "api_key": KEY, **(route or {})},
            }
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
                return server, await embedder.embed(texts, model="acme/docs-v1.5", **options)

    return asyncio.run(main())


def test_it_is_used_by_its_name_with_its_prompt_price_and_sizes():
    server, result = embed(["a text", "another"], input_type="query")
    assert server.bodies[0]["input"] == ["query: a text", "query: another"]
    assert server.bodies[0]["model"] == "acme/docs-v1.5"
    np.testing.assert_allclose(result.vectors[0], vector_of("query: a text", 16), atol=1e-6)
    assert (result.receipt.cost_nanousd, result.receipt.billed_tokens) == (2500, 5)
    assert result.receipt.tokens_estimated
    assert result.space.id.startswith("docs-v1.5@")
    _, narrow = embed(["a text"], dimensions=8)
    cut = vector_of("a text", 16)[:8]
    np.testing.assert_allclose(narrow.vectors[0], cut / np.linalg.norm(cut), atol=1e-6)
    with pytest.raises(DimensionsError, match="16, 8, 4"):
        embed(["a text"], dimensions=12)


def test_a_model_of_the_user_has_every_size_down_to_a_smallest_one():
    _, result = embed(["a text"], model={"min_dimensions": 3}, dimensions=7)
    cut = vector_of("a text", 16)[:7]
    np.testing.assert_allclose(result.vectors[0], cut / np.linalg.norm(cut), atol=1e-6)
    assert "the vector size 7 is not one that its maker trained or evaluated (16, 8, 4)" in result.receipt.notes[0]
    with pytest.raises(DimensionsError, match="3 to 16 dimensions, not 2"):
        embed(["a text"], model={"min_dimensions": 3}, dimensions=2)
    server, asked = embed(
        ["another"], model={"min_dimensions": 3}, route={"options": {"dimensions": True}}, dimensions=7
    )
    assert asked.vectors.shape == (1, 7)
    assert "dimensions" not in server.bodies[0]  # the cache stores vectors of full width


def test_the_upstream_s_own_name_and_no_price():
    server, result = embed(["a"], model={"price_usd_per_million_tokens": None}, route={"upstream_model": "m-7"})
    assert server.bodies[0]["model"] == "m-7"
    assert result.receipt.cost_nanousd is None


def test_prompts_that_differ_are_another_space():
    _, one = embed(["a"])
    _, two = embed(["a"], model={"query_prompt": "ask: "})
    assert one.space.id != two.space.id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"matryoshka": [4, 8]}, r"models\.acme\.matryoshka: is \[4, 8\]; must be in descending order"),
        ({"matryoshka": [16]}, "must be in descending order and below dimensions, which is 16"),
        ({"min_dimensions": 16}, r"models\.acme\.min_dimensions: is 16; must be below dimensions, which is 16"),
        ({"min_dimensions": 5}, "must not be above the smallest size of matryoshka, which is 4"),
        ({"min_dimensions": 0}, r"models\.acme\.min_dimensions"),
        ({"tokenizer": "guess"}, r"models\.acme\.tokenizer"),
        ({"price_usd_per_million_tokens": "cheap"}, r"models\.acme\.price"),
        ({"price_usd_per_million_tokens": 0.0000001}, r"models\.acme\.price"),
        ({"price_usd_per_million_tokens": True}, r"models\.acme\.price"),
        ({"price": 1}, r"models\.acme\.price: is not a setting; the nearest is models\.acme\.price_usd_per_million_"),
        ({"dimension": 3}, r"models\.acme\.dimension: is not a setting; the nearest is models\.acme\.dimensions"),
    ],
)
def test_mistakes_are_reported_with_their_key(change, said):
    with pytest.raises(ConfigError, match=said):
        embed(["a"], model=change)


@pytest.mark.parametrize(
    ("price", "text"), [(0, "0"), (0.02, "0.02"), (1, "1"), (0.000001, "0.000001"), ("0.5", "0.5")]
)
def test_a_price_is_a_number_or_a_text(price, text):
    model = {"name": "acme/m", "dimensions": 8, "max_tokens": 9, "price_usd_per_million_tokens": price}
    config = Config.load(environ={}, overrides={"models.acme": model})
    assert config.models["acme"].price_usd_per_million_tokens == text


@pytest.mark.parametrize("name", ["text-embedding-3-small", "all-MiniLM-L6-v2", "BAAI/bge-m3"])
def test_a_name_of_the_catalog_is_not_available(name):
    with pytest.raises(ConfigError, match=r"models\.acme: name: the name '.*' belongs to another model"):
        embed(["a"], model={"name": name})


def test_without_a_route_it_says_what_to_add():
    async def main(name):
        async with AsyncEmbedder(config=Config.load(environ={}, overrides={"models.acme": MODEL})) as embedder:
            await embedder.embed(["a"], model=name)

    with pytest.raises(ConfigError, match=r"no route to this model; add \[routes\.NAME\]"):
        asyncio.run(main("acme/docs-v1.5"))
    with pytest.raises(UnknownModelError, match="acme/docs-v1"):
        asyncio.run(main("acme/docs-v1"))
