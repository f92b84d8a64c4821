"""`models.verify`: real vectors of two sources over loopback servers, verdict, reasons, and the stored proof."""

import asyncio
import contextlib
import re

import numpy as np
import pytest

from api_servers import KEY, CompatibleServer
from embedway import AsyncEmbedder, Config, Embedder, SpaceProof
from embedway.errors import BadVectorsError, BudgetExceededError, UsageError

NAME = "all-MiniLM-L6-v2"
MODEL = f"sentence-transformers/{NAME}"


class Serving(CompatibleServer):
    """A server of the default model; `change` changes its texts, and `spoil` its vectors."""

    models = frozenset({MODEL, "acme/p"})
    max_tokens = 100_000

    def __init__(self, embedder, change=lambda text: text, spoil=lambda vectors: vectors):
        super().__init__()
        self.embedder, self.change, self.spoil = embedder, change, spoil

    def refusal(self, request, body):
        return None

    def vectors(self, texts, width, *, unit=True):
        return list(self.spoil(self.embedder.embed([self.change(text) for text in texts], model=MODEL).vectors))


@contextlib.asynccontextmanager
async def served(config, tmp_path, **servers):
    with Embedder(config=config) as own:
        async with contextlib.AsyncExitStack() as stack:
            overrides = {
                "weights.directory": str(config.weights.directory),
                "tune.directory": str(config.tune.directory),
                "cache.backend": "none",
                "ledger.path": str(tmp_path / "ledger.sqlite"),
                "embedding.model_benchmarks": {MODEL: {"cost_per_million_tokens": "2"}},
            }
            for name, changes in servers.items():
                server = await stack.enter_async_context(Serving(own, **changes).running())
                route = {"provider": "openai-compatible", "base_url": f"{server.url}/v1", "api_key": KEY}
                overrides[f"routes.{name}"] = {"model": MODEL, **route}
            loaded = Config.load(environ={}, overrides=overrides)
            yield await stack.enter_async_context(AsyncEmbedder(config=loaded))


def permuted(vectors):
    return vectors[::-1]


def int8(vectors):
    scale = np.abs(vectors).max(axis=1, keepdims=True) / 7
    rough = np.round(vectors / scale) * scale
    return (rough / np.linalg.norm(rough, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "same space", ""),
        ({"change": lambda text: text[:300]}, "close but not the same", "only long texts differ.*cuts texts"),
        ({"spoil": int8}, "close but not the same", "approximately"),
        ({"spoil": permuted}, "different", "another order"),
        ({"spoil": lambda vectors: np.roll(vectors, 1, axis=1)}, "different", "another model"),
    ],
    ids=["same", "cuts earlier", "int8", "permuted", "other model"],
)
def test_a_server_is_compared_with_this_machine(config, tmp_path, changes, verdict, reason):
    async def main():
        async with served(config, tmp_path, gpu=changes) as embedder:
            found = await embedder.models.verify(NAME, "routes.gpu")
            return found, await embedder.models.proofs()

    found, stored = asyncio.run(main())
    assert found.proof.verdict == verdict, found
    assert found.is_same == (verdict == "same space")
    if reason:
        assert any(re.search(reason, one) for one in found.proof.reasons), found.proof.reasons
    assert found.tokens > 1000
    assert found.cost_nanousd == found.tokens * 2000
    proof = next(one for one in stored if isinstance(one, SpaceProof))
    assert (proof.verdict, proof.is_measured, proof.texts > 120) == (verdict, True, True)
    assert proof.figures["dimensions"] == [384, 384]
    if verdict == "same space":
        assert found.figures[0].same_share_at_least > 0.97
        assert found.figures[0].top1_agreement == 1.0


def test_dimensions_that_differ_are_different(config, tmp_path):
    async def main():
        async with served(config, tmp_path, gpu={"spoil": lambda vectors: vectors[:, :128]}) as embedder:
            return await embedder.models.verify(NAME, "routes.gpu")

    with pytest.raises(BadVectorsError, match="128 dimensions"):
        asyncio.run(main())


def test_precisions_of_this_machine_are_one_space_and_free(config, tmp_path):
    async def main():
        async with served(config, tmp_path) as embedder:
            return await embedder.models.verify(f"{NAME}#onnxruntime,f32", f"{NAME}#openvino,f32")

    found = asyncio.run(main())
    assert found.is_same
    assert found.cost_nanousd == 0
    assert found.figures[0].lowest_cosine > 0.999


def test_nothing_is_sent_above_the_maximum_cost_or_for_unknown_names(config, tmp_path):
    async def main():
        async with served(config, tmp_path, gpu={}) as embedder:
            with pytest.raises(BudgetExceededError, match="nothing was sent"):
                await embedder.models.verify(NAME, "routes.gpu", max_cost="0.0001")
            for a, b, words in (
                (NAME, "routes.no", "is not a route"),
                (NAME, f"local:{NAME}", "same route"),
                (NAME, f"{NAME}#int3", "no precision"),
                ("routes.gpu", "routes.gpu#f32", "only a model on this machine"),
            ):
                with pytest.raises(UsageError, match=words):
                    await embedder.models.verify(a, b)
            return await embedder.models.proofs(), await embedder.models.remove_proof("none")

    assert asyncio.run(main()) == ([], False)
