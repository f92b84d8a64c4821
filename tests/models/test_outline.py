"""Plans and descriptions of models whose weights are not here: exact where the tokenizer is, and no weights fetched."""

import asyncio
import json
import socket

import pytest

from embedway import Config, Embedder
from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.errors import RuntimeUnavailableError, UnsupportedModelError, UsageError, WeightsUnavailableError
from embedway.local import outline
from embedway.providers import requirements
from tiny_models import CONFIG

TEXTS = ["one text", "and another text", "one text", "word " * 400]
REPOSITORY = "acme/tiny"


@pytest.fixture
def settings_for(tmp_path):
    """Return a function that makes the settings of an empty store, with a hub if there is a URL."""

    def make(url="", **overrides):
        places = {"weights.hub_endpoint": url, "weights.places": ["hub"]} if url else {"weights.offline": True}
        return Config.load(
            environ={},
            overrides={
                "weights.directory": str(tmp_path / "store"),
                "weights.hub_cache": str(tmp_path / "hub"),
                "cache.backend": "memory",
                "ledger.backend": "none",
                **places,
                **overrides,
            },
        )

    return make


def weights_fetched(hub):
    return [path for _, path, _ in hub.requests if path.endswith((".safetensors", ".onnx", ".bin"))]


@pytest.fixture
def default_files(default_model_directory):
    """Return the files of the default model by path."""
    folder = next(default_model_directory.glob("models/*/*/tokenizer.json")).parent
    names = [file.path for file in default_catalog().get(DEFAULT_MODEL).weights.files]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("model", ["BAAI/bge-m3", "bge-m3", DEFAULT_MODEL, "hf:BAAI/bge-m3"])
def test_a_model_is_planned_from_its_catalog_row_if_nothing_is_here(settings_for, model, tmp_path):
    with Embedder(config=settings_for()) as embedder:
        plan = embedder.plan(TEXTS, model=model)
        assert (plan.texts, plan.unique_texts, plan.cost_nanousd, plan.requests) == (4, 3, 0, 0)
        assert plan.estimated
        assert plan.tokens > 0
        assert embedder.plans(TEXTS, models=[model])[0] == plan
        described = embedder.models.describe(model)
        row = default_catalog().get(model.removeprefix("hf:"))
        assert (described.max_tokens, described.space.dimensions) == (row.max_tokens, row.dimensions)
        assert described.runtime == "not loaded"
        with pytest.raises(WeightsUnavailableError):
            embedder.embed(TEXTS, model=model)
        with pytest.raises(WeightsUnavailableError):
            embedder.models.describe(model, load=True)
    assert not list((tmp_path / "store").glob("models/*/*"))


def test_the_tokenizer_is_fetched_without_the_weights(settings_for, config, hub, default_files):
    row = default_catalog().get(DEFAULT_MODEL)
    hub.repositories[row.weights.repository] = default_files
    hub.refs = {"main": row.weights.revision}
    with Embedder(config=config) as embedder:
        loaded, known = embedder.plan(TEXTS), embedder.models.describe()
    with Embedder(config=settings_for(hub.url)) as embedder:
        plan, described = embedder.plan(TEXTS), embedder.models.describe()
    assert (plan.tokens, plan.truncations, plan.space) == (loaded.tokens, loaded.truncations, loaded.space)
    assert (plan.batches, plan.padded_tokens, plan.estimated) == (loaded.batches, loaded.padded_tokens, False)
    assert (described.space, described.max_tokens, described.sizes) == (known.space, known.max_tokens, known.sizes)
    assert hub.gets("tokenizer.json")
    assert not weights_fetched(hub)
    # It is in the store then, also offline, and for a selection.
    hub.requests.clear()
    with Embedder(config=settings_for(**{"weights.offline": True})) as embedder:
        assert embedder.plan(TEXTS).tokens == loaded.tokens
        tokens = {one.model: one.candidate.tokens for one in embedder.select(TEXTS, anywhere=True).table}
        assert tokens[DEFAULT_MODEL].own
    assert not hub.requests


def test_a_tokenizer_with_other_bytes_is_not_used(settings_for, hub, default_files):
    row = default_catalog().get(DEFAULT_MODEL)
    hub.repositories[row.weights.repository] = {**default_files, "tokenizer.json": b"{}"}
    hub.refs = {"main": row.weights.revision}
    with Embedder(config=settings_for(hub.url)) as embedder:
        assert embedder.plan(TEXTS).estimated


def test_a_hub_that_does_not_answer_is_not_waited_for(settings_for, monkeypatch):
    monkeypatch.setattr(outline, "_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Embedder(config=settings_for(url)) as embedder:
            assert embedder.plan(TEXTS, model="BAAI/bge-m3").estimated
    with Embedder(config=settings_for(url)) as embedder:  # nothing listens there now
        assert embedder.plan(TEXTS, model="BAAI/bge-m3").estimated


def test_a_pull_of_another_process_is_not_waited_for(settings_for, hub, monkeypatch, tmp_path):
    from embedway.weights.blobs import BlobStore

    monkeypatch.setattr(outline, "_MAX_FETCH_S", 0.05)
    with BlobStore(tmp_path / "store").lock("repository-BAAI--bge-m3"), Embedder(config=settings_for(hub.url)) as made:
        assert made.plan(TEXTS, model="BAAI/bge-m3").estimated


def test_a_hub_with_errors_gets_one_request(settings_for, hub):
    hub.failures = {name: [(503, {"Retry-After": "30"})] * 9 for name in ("tokenizer.json", "config.json")}
    row = default_catalog().get(DEFAULT_MODEL)
    hub.repositories[row.weights.repository] = {}
    hub.refs = {"main": row.weights.revision}
    with Embedder(config=settings_for(hub.url)) as embedder:
        for _ in range(3):
            assert embedder.plan(TEXTS).estimated
    assert len(hub.requests) <= 2


def test_an_unknown_repository_is_planned_by_its_small_files(settings_for, hub, default_files):
    config = json.dumps({**CONFIG, "architectures": ["BertModel"]}).encode()
    hub.repositories[REPOSITORY] |= {"config.json": config, "tokenizer.json": default_files["tokenizer.json"]}
    with Embedder(config=settings_for(hub.url)) as embedder:
        plan = embedder.plan(TEXTS, model=f"hf:{REPOSITORY}")
        assert (plan.space.dimensions, plan.estimated, plan.cost_nanousd) == (CONFIG["hidden_size"], False, 0)
        assert plan.space.id == "tiny@unpulled/16"
        assert embedder.models.describe(f"hf:{REPOSITORY}").max_tokens == CONFIG["max_position_embeddings"]
    assert not weights_fetched(hub)
    with Embedder(config=settings_for()) as embedder, pytest.raises(WeightsUnavailableError):
        embedder.plan(TEXTS, model="hf:acme/other")


@pytest.mark.parametrize(
    "name", ["BAAI/bge-reranker-base", "hf:BAAI/bge-reranker-base", "fastembed:BAAI/bge-reranker-base"]
)
def test_a_reranker_that_is_to_embed_is_refused_without_a_request(settings_for, hub, name):
    with Embedder(config=settings_for(hub.url)) as embedder:
        for call in (embedder.embed, embedder.embed_query, embedder.plan):
            with pytest.raises(UnsupportedModelError, match="is a reranker"):
                call("a text", model=name)
        with pytest.raises(UnsupportedModelError, match="is a reranker"):
            embedder.models.describe(name)
    assert not hub.requests


@pytest.mark.parametrize("name", ["BAAI/bge-m3", "hf:BAAI/bge-m3", "fastembed:BAAI/bge-m3"])
def test_an_embedding_model_that_is_to_rerank_is_refused_without_a_request(settings_for, hub, name):
    with Embedder(config=settings_for(hub.url)) as embedder, pytest.raises(UsageError, match="does not score pairs"):
        embedder.rerank("a query", ["a text"], model=name)
    assert not hub.requests


def test_an_unknown_repository_of_the_other_task_is_refused_by_its_small_files(settings_for, hub, default_files):
    small = {"config.json": json.dumps({**CONFIG, "architectures": ["BertForSequenceClassification"]}).encode()}
    small["tokenizer.json"] = default_files["tokenizer.json"]
    weights = hub.repositories[REPOSITORY]["model.safetensors"]
    hub.repositories[REPOSITORY] = {**small, "model.safetensors": weights}
    with Embedder(config=settings_for(hub.url)) as embedder:
        for call in (embedder.embed, embedder.plan):
            with pytest.raises(UnsupportedModelError, match="is a reranker"):
                call("a text", model=f"hf:{REPOSITORY}")
    hub.repositories["acme/embeds"] = {**small, "modules.json": b"[]", "model.safetensors": weights}
    with Embedder(config=settings_for(hub.url)) as embedder, pytest.raises(UsageError, match="does not score pairs"):
        embedder.rerank("a query", ["a text"], model="hf:acme/embeds")
    assert not weights_fetched(hub)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("fastembed:BAAI/bge-small-en-v1.5", 512),
        ("fastembed-bge-small-en-v1.5", 512),
        (f"sentence-transformers:{DEFAULT_MODEL}", 256),
    ],
)
def test_a_model_of_a_library_is_planned_without_the_library(settings_for, monkeypatch, name, limit):
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda _: None)
    with Embedder(config=settings_for()) as embedder:
        plan = embedder.plan(TEXTS, model=name)
        assert (plan.model, plan.cost_nanousd, plan.estimated) == (name, 0, True)
        assert embedder.models.describe(name).max_tokens == limit
        with pytest.raises(RuntimeUnavailableError, match="pip install"):
            embedder.embed(TEXTS, model=name)


def test_a_library_model_that_cannot_be_planned_says_why(settings_for, monkeypatch, caplog):
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda _: None)
    with Embedder(config=settings_for()) as embedder, pytest.raises(RuntimeUnavailableError, match="pip install"):
        embedder.plan(TEXTS, model="sentence-transformers:acme/none")
    (told,) = [one.getMessage() for one in caplog.records if one.name == "embedway.models.outline"]
    assert told.startswith("sentence-transformers:acme/none cannot be planned from its repository: the files of acme/")


def test_a_plan_for_a_collection_of_a_model_that_is_not_here(settings_for, config, tmp_path):
    ledger = {"ledger.backend": "sqlite", "ledger.path": str(tmp_path / "ledger.sqlite")}
    here = Config.load(
        environ={}, overrides={"weights.directory": str(config.weights.directory), "weights.offline": True, **ledger}
    )
    with Embedder(config=here) as embedder:
        space = embedder.embed(TEXTS, model=DEFAULT_MODEL, collection="docs").space
    with Embedder(config=settings_for(**ledger)) as embedder:
        plan = embedder.plan(TEXTS, collection="docs")
        assert (plan.model, plan.space.dimensions) == (DEFAULT_MODEL, space.dimensions)


def test_a_model_that_was_opened_is_planned_as_opened(config):
    async def main():
        from embedway import AsyncEmbedder

        async with AsyncEmbedder(config=config) as embedder:
            plans = await asyncio.gather(*(embedder.plan(TEXTS) for _ in range(4)), embedder.models.describe())
            await embedder.embed(TEXTS)
            assert {plan.tokens for plan in plans[:4]} == {(await embedder.plan(TEXTS)).tokens}
            assert (await embedder.plan(TEXTS)).cached_texts == 3

    asyncio.run(main())
