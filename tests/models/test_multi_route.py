"""A local model that servers run too: one space, checked before a server's first vector is used."""

import asyncio
import base64
import contextlib

import numpy as np
import pytest

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import BadVectorsError, BudgetExceededError, NoRouteError

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["What is a coroutine?", "def f(): pass", "What is a coroutine?", "a third"]


class Elsewhere(OpenAIServer):
    """Server that runs the default model in simulated half precision: with a little noise."""

    def __init__(self, config, spoil=lambda vectors: vectors):
        super().__init__()
        self.embedder = Embedder(config=config)
        self.spoil = spoil

    @contextlib.asynccontextmanager
    async def running(self):
        with self.embedder:
            async with super().running():
                yield self

    def refusal(self, request, body):
        return None

    def answer(self, body):
        embedded = self.embedder.embed(body["input"], model=MODEL)
        vectors, tokens = self.spoil(embedded.vectors), embedded.receipt.tokens
        noisy = vectors + np.random.default_rng(1).normal(0, 1e-4, vectors.shape)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        rows = [
            {"index": n, "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()}
            for n, row in enumerate(noisy)
        ]
        return {"data": rows, "model": "m", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


@contextlib.asynccontextmanager
async def embedder_for(config, *servers, name=MODEL, **more):
    async with contextlib.AsyncExitStack() as stack:
        overrides = {
            "weights.directory": str(config.weights.directory),
            "tune.directory": str(config.tune.directory),
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.001,
            "upstream.max_attempts": 3,
            "cache.backend": "none",
            **more,
        }
        for number, server in enumerate(servers):
            await stack.enter_async_context(server.running())
            route = {"model": name, "provider": "openai-compatible", "base_url": f"{server.url}/v1", "api_key": KEY}
            overrides.setdefault(f"routes.r{number}", route)
        yield await stack.enter_async_context(AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)))


def ours(config):
    with Embedder(config=config) as embedder:
        return embedder.embed(TEXTS)


@pytest.mark.parametrize("name", [MODEL, "all-minilm-l6-v2"])
def test_a_server_of_the_same_model_is_used_once_it_has_shown_so(config, name):
    async def main():
        server = Elsewhere(config)
        async with embedder_for(config, server, name=name) as embedder:
            first = await embedder.embed(TEXTS)
            again = await embedder.embed(TEXTS)
        return server, first, again

    server, first, again = asyncio.run(main())
    local = ours(config)
    assert first.space == local.space
    assert first.receipt.routes == ("routes.r0",)
    cosines = np.einsum("ij,ij->i", first.vectors, local.vectors)
    assert cosines.min() > 0.9999
    sent = [len(body["input"]) for body in server.bodies]
    assert sent == [25, 3, 3]  # one request of probes, because queries and documents have no prompts, then the texts
    assert again.receipt.billed_tokens == again.receipt.tokens
    assert again.receipt.cost_nanousd is None


@pytest.mark.parametrize(
    "spoil",
    [lambda v: -v, lambda v: np.roll(v, 1, axis=1), lambda v: v[:, :200], lambda v: v + 0.08],
    ids=["turned", "rolled", "narrow", "moved"],
)
def test_a_server_of_another_space_is_never_used(config, spoil):
    async def main():
        server = Elsewhere(config, spoil)
        async with embedder_for(config, server) as embedder:
            return server, await embedder.embed(TEXTS), await embedder.embed(TEXTS)

    server, first, again = asyncio.run(main())
    local = ours(config)
    np.testing.assert_array_equal(first.vectors, local.vectors)
    assert first.receipt.routes == again.receipt.routes == ("local:all-MiniLM-L6-v2",)
    # The probes are booked like any request; a server's price is unknown.
    assert first.receipt.billed_tokens > 300
    assert (first.receipt.attempts, first.receipt.cost_nanousd) == (2, None)
    assert (again.receipt.billed_tokens, again.receipt.attempts, again.receipt.cost_nanousd) == (0, 1, 0)
    assert not any(set(body["input"]) & set(TEXTS) for body in server.bodies)  # no user text was sent there


def test_the_local_model_takes_over_from_a_server_that_is_down(config):
    async def main():
        server = Elsewhere(config)
        async with embedder_for(config, server) as embedder:
            first = await embedder.embed(TEXTS)
            server.misdeeds = ["503"] * 9
            return first, await embedder.embed(TEXTS)

    first, second = asyncio.run(main())
    assert first.receipt.routes == ("routes.r0",)
    assert second.receipt.routes == ("local:all-MiniLM-L6-v2",)
    assert first.space == second.space
    assert np.einsum("ij,ij->i", first.vectors, second.vectors).min() > 0.9999


def test_a_server_that_returns_with_another_model_is_found(config):
    """The failed request takes all attempts, so the circuit stays closed and the server is asked again at once."""

    async def main():
        server = Elsewhere(config)
        async with embedder_for(config, server) as embedder:
            before = await embedder.embed(TEXTS)
            server.misdeeds = ["503"] * 3
            during = await embedder.embed(TEXTS)
            server.spoil = lambda vectors: np.roll(vectors, 1, axis=1)
            return before, during, await embedder.embed(TEXTS), server

    before, during, after, server = asyncio.run(main())
    assert before.receipt.routes == ("routes.r0",)
    assert during.receipt.routes == after.receipt.routes == ("local:all-MiniLM-L6-v2",)
    np.testing.assert_array_equal(after.vectors, ours(config).vectors)
    assert len(server.bodies[-1]["input"]) == 1  # a probe, and no text of the user


def test_the_local_model_goes_first_where_the_settings_say_so(config):
    async def main():
        more = {
            "routes.a": {"model": MODEL, "provider": "local"},
            "routes.b": {"model": MODEL, "provider": "openai-compatible", "base_url": "http://127.0.0.1:1/v1"},
        }
        async with embedder_for(config, **more) as embedder:
            return await embedder.embed(TEXTS)

    assert asyncio.run(main()).receipt.routes == ("routes.a",)


def test_the_check_can_be_left_out(config):
    async def main():
        server = Elsewhere(config, lambda vectors: -vectors)
        async with server.running():
            options = {"verify": "false"}
            route = {
                "model": MODEL,
                "provider": "openai-compatible",
                "base_url": f"{server.url}/v1",
                "options": options,
            }
            async with embedder_for(config, **{"routes.r": route}) as embedder:
                return server, await embedder.embed(TEXTS)

    server, result = asyncio.run(main())
    assert len(server.bodies) == 1
    assert result.vectors[0] @ ours(config).vectors[0] < -0.99


def test_long_texts_and_queries_keep_their_limits_and_prompts(config):
    async def main():
        server = Elsewhere(config)
        async with embedder_for(config, server) as embedder:
            plan = await embedder.plan(["word " * 1000])
            described = await embedder.models.describe()
            narrow = await embedder.embed(["word " * 1000], on_overflow="mean")
        return plan, described, narrow

    plan, described, averaged = asyncio.run(main())
    with Embedder(config=config) as embedder:
        assert plan.truncations == embedder.plan(["word " * 1000]).truncations
        assert described.max_tokens == embedder.models.describe().max_tokens
        local = embedder.embed(["word " * 1000], on_overflow="mean")
    assert local.receipt.averaged == averaged.receipt.averaged
    assert float(local.vectors[0] @ averaged.vectors[0]) > 0.9999


def test_when_all_is_lost_the_error_names_what_else_there_is(config):
    async def main():
        first, second = OpenAIServer(), OpenAIServer()
        first.misdeeds, second.misdeeds = ["401"] * 9, ["404"] * 9
        route = {"model": "text-embedding-3-small", "provider": "openai", "api_key": KEY}
        async with first.running(), second.running():
            more = {
                "routes.x": {**route, "base_url": f"{first.url}/v1"},
                "routes.y": {**route, "base_url": f"{second.url}/v1"},
            }
            async with embedder_for(config, **more) as embedder:
                await embedder.embed(TEXTS, model="text-embedding-3-small")

    with pytest.raises(NoRouteError, match=r"each with its own space: .*all-MiniLM-L6-v2") as caught:
        asyncio.run(main())
    assert [route for route, _ in caught.value.failed] == ["routes.x", "routes.y"]
    assert not isinstance(caught.value, BadVectorsError)


def test_a_servers_price_is_the_settings_and_unknown_without_one(config):
    full = "sentence-transformers/all-MiniLM-L6-v2"

    async def under_a_budget(**benchmark):
        server = Elsewhere(config)
        more = {"budgets.b": {"usd": "1"}}
        if benchmark:
            more["embedding.model_benchmarks"] = {full: benchmark}
        async with embedder_for(config, server, **more) as embedder:
            return (await embedder.embed(TEXTS)).receipt

    with pytest.raises(BudgetExceededError, match=r"has no known price.*set a price for the model"):
        asyncio.run(under_a_budget())
    priced = asyncio.run(under_a_budget(cost_per_million_tokens="2"))
    assert (priced.cost_nanousd, priced.attempts) == (priced.billed_tokens * 2000, 2)
    assert priced.billed_tokens > priced.tokens + 300  # the probes included
    own = asyncio.run(under_a_budget(cost_per_million_tokens=0))
    assert (own.cost_nanousd, own.ledger_entries) == (0, ())
