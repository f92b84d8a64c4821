"""A selection is limited to models by name, alias, hub name or the user's own name."""

import asyncio
import dataclasses

import pytest

from embedway import AsyncEmbedder, Config, Embedder, ModelSelectionCriteria
from embedway.errors import ConfigError, NoModelError, UnknownModelError, UsageError

MINI, SMALL, M3 = "sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small", "BAAI/bge-m3"
OWN = {
    "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 8000},
    "routes.r": {"model": "acme/m", "provider": "fake"},
}
HUB = {
    "model_name": "hf:acme/encoder",
    "provider": "local",
    "quality_score": 99,
    "avg_latency_ms": 3,
    "tokens_per_second": 100,
    "cost_per_million_tokens": 0,
    "embedding_dimensions": 16,
    "max_context_length": 8000,
}


def load(config, **more):
    places = {"weights.directory": str(config.weights.directory), "weights.offline": True}
    stores = {"cache.backend": "none", "ledger.backend": "none"}
    return Config.load(environ={}, overrides={**stores, **places, **OWN, **more})


def names(table):
    return {row.model for row in table}


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ("all-MiniLM-L6-v2", MINI),
        ("ALL-minilm-l6-V2", MINI),
        (MINI.upper(), MINI),
        (f"hf:{MINI}", MINI),
        ("bge-m3", M3),
        ("hf:baai/bge-m3", M3),
        (SMALL.upper(), SMALL),
        ("nv-embed-v2", "nvidia/NV-Embed-v2"),
        ("ACME/m", "acme/m"),
        ("hf:acme/encoder", "hf:acme/encoder"),
    ],
)
def test_every_name_of_a_model(config, given, model):
    settings = load(config, **{"embedding.model_benchmarks": {"hf:acme/encoder": HUB}})
    with Embedder(config=settings) as embedder:
        wanted = ModelSelectionCriteria(models=[given, MINI], licences=["any"])
        table = embedder.select(["a text"], wanted, anywhere=True).table
        assert names(table) == {model, MINI}
        assert names(embedder.select(["a text"], models=[MINI, given], anywhere=True).table) == {model, MINI}


def test_settings_limit_and_an_argument_replaces_the_limit(config):
    settings = load(config, **{"selection.models": ["all-minilm-l6-v2", SMALL]})
    with Embedder(config=settings) as embedder:
        assert names(embedder.select(["a text"]).table) == {MINI, SMALL}
        assert names(embedder.select(["a text"], models=["bge-m3", MINI]).table) == {M3, MINI}
        assert len(embedder.select(["a text"], models=[]).table) > 50
        selected = embedder.embed(["a text"], collection="docs").receipt.selected
        assert selected.model == MINI
        assert selected.criteria["models"] == ["all-minilm-l6-v2", SMALL]
        # A preset's name replaces the criteria of the settings.
        assert len(embedder.select(["a text"], "balanced").table) > 50


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("tex-embeding-3-small", r"no model is called 'tex-embeding-3-small'; nearest: text-embedding-3-small"),
        ("bge_m3", r"no model is called 'bge_m3'; nearest: .*bge-m3"),
        ("acme/n", r"no model is called 'acme/n'; nearest: acme/m"),
        ("", r"no model is called ''"),
    ],
)
def test_an_unknown_name_names_the_nearest(config, given, told):
    with Embedder(config=load(config)) as embedder:
        for select in (
            lambda: embedder.select(["a text"], models=[MINI, given]),
            lambda: embedder.embed(["a text"], criteria=ModelSelectionCriteria(models=[given])),
            lambda: embedder.select(["a text"], ModelSelectionCriteria(models=[given], max_total_cost=1)),
        ):
            with pytest.raises(UnknownModelError, match=told):
                select()


def test_models_that_cannot_be_compared(config):
    with Embedder(config=load(config)) as embedder:
        with pytest.raises(UsageError, match=r"bge-reranker-base is a reranker: it returns no vectors"):
            embedder.select(["a text"], models=["bge-reranker-base"])
        with pytest.raises(UsageError, match=r"rerank-v3\.5 is a reranker"):
            embedder.select(["a text"], models=["rerank-v3.5"])
        with pytest.raises(UsageError, match=r'has no benchmark.*\[embedding.model_benchmarks."hf:acme/other"\]'):
            embedder.select(["a text"], models=["hf:acme/other"])
        with pytest.raises(UsageError, match="models is 'bge-m3'; it must be a list of strings"):
            embedder.select(["a text"], models="bge-m3")
        with pytest.raises(UsageError, match="models"):
            embedder.select(["a text"], models=[3])


def test_a_named_model_that_is_out_keeps_its_reason(config):
    with Embedder(config=load(config)) as embedder:
        with pytest.raises(NoModelError) as caught:
            embedder.select(["a text"], models=["text-embedding-3-small", "acme/m", "nv-embed-v2"])
        table = {row.model: [reason.requirement for reason in row.reasons] for row in caught.value.table}
        assert table == {
            SMALL: ["runs here"],
            "acme/m": ["quality_score"],
            "nvidia/NV-Embed-v2": ["runs here", "licences"],
        }
        assert "config.with_benchmarks({'acme/m': {'model_name': 'acme/m', " in str(caught.value)
        assert "OPENAI_API_KEY" in str(caught.value)


def test_a_repository_of_the_hub_with_a_benchmark_runs_if_it_was_pulled(config):
    settings = load(config, **{"embedding.model_benchmarks": {"hf:acme/encoder": HUB}})
    with Embedder(config=settings) as embedder, pytest.raises(NoModelError, match="models pull hf:acme/encoder"):
        embedder.select(["a text"], models=["hf:acme/encoder"])


def test_a_pinned_collection_is_of_a_named_model_or_refused(config):
    async def main():
        async with AsyncEmbedder(config=load(config)) as embedder:
            await embedder.embed(["a text"], model=MINI, collection="docs")
            allowed = ModelSelectionCriteria(models=["all-minilm-l6-v2"])
            assert (await embedder.embed(["b"], criteria=allowed, collection="docs")).receipt.model == MINI
            other = dataclasses.replace(allowed, models=["bge-m3"])
            told = rf"collection 'docs' has vectors of {MINI}, and models allows only"
            for call in (embedder.embed, embedder.plan):
                with pytest.raises(UsageError, match=told):
                    await call(["b"], criteria=other, collection="docs")

    asyncio.run(main())


def test_names_in_settings_are_a_list(config):
    with pytest.raises(ConfigError, match=r"selection\.models"):
        load(config, **{"selection.models": 3})
