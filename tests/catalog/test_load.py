"""Names resolve or fail with a clear error, files add and replace rows, and bad rows are refused with a reason."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.catalog import Catalog, default_catalog
from embedway.catalog.rows import INPUT_TYPES, POOLINGS
from embedway.errors import ConfigError, UnknownModelError
from embedway.types import InputType, Pooling


def test_full_names_resolve_exactly_and_aliases_in_any_case():
    catalog = default_catalog()
    assert catalog.get("BAAI/bge-m3") is catalog.get("bge-m3") is catalog.get("BGE-M3")
    # Only listed spellings: this one of the owner is an alias, the next one is not.
    assert catalog.get("snowflake/snowflake-arctic-embed-m").name == "Snowflake/snowflake-arctic-embed-m"
    with pytest.raises(UnknownModelError) as caught:
        catalog.get("baai/bge-m3")
    assert caught.value.nearest[0] in {"BAAI/bge-m3", "bge-m3"}


def test_choices_are_those_of_the_types():
    assert get_args(Pooling) == (*POOLINGS, "service")  # which local weights never have
    assert get_args(InputType) == INPUT_TYPES


def test_default_catalog_is_read_once():
    assert default_catalog() is default_catalog()
    assert repr(default_catalog()) == f"Catalog({len(default_catalog())} models)"


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("all-MiniLM-L6-v3", "all-MiniLM-L6-v2"),
        ("ALL-MINILM-L6V2", "all-MiniLM-L6-v2"),
        ("BAAI/bge-smal-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("intfloat/e5-small", "intfloat/e5-small-v2"),
    ],
)
def test_a_typo_names_the_nearest(typo, meant):
    with pytest.raises(UnknownModelError) as caught:
        default_catalog().get(typo)
    nearest = caught.value.nearest
    assert nearest[0] == meant
    assert len(nearest) <= 5
    models = [default_catalog().get(name).name for name in nearest]
    assert len(set(models)) == len(models)


@given(st.text(max_size=40) | st.sampled_from(["bge-M3", "minilm", "e5", "gte-large "]))
def test_any_text_resolves_or_fails_with_known_names(name):
    catalog = default_catalog()
    if name in catalog:
        assert name.casefold() in {spelling.casefold() for spelling in (name, *catalog.get(name).aliases)}
        return
    with pytest.raises(UnknownModelError) as caught:
        catalog.get(name)
    assert len(caught.value.nearest) <= 5
    assert all(near in catalog for near in caught.value.nearest)


def test_a_file_adds_models(load_with, embed_row, rerank_row):
    catalog = load_with(embed_row, rerank_row)
    assert len(catalog) == len(default_catalog()) + 2
    tiny = catalog.get("Tiny")
    assert tiny.sizes == (64, 32, 16)
    assert tiny.weights.wheels[0].prefix == "acme_tiny/model"
    assert (tiny.weights.files[0].size, tiny.weights.files[1].sha256) == (4000, None)
    assert catalog.by_weights("AA11" * 16) is tiny
    assert catalog.get("judge").prompts == {}
    assert "tiny" not in default_catalog()


def test_a_later_file_replaces_a_model_by_name(load_with, embed_row):
    mine = embed_row.replace("acme/tiny", "BAAI/bge-m3").replace('"tiny", "acme-tiny"', '"bge-m3"')
    catalog = load_with(embed_row, embed_row.replace("max_tokens = 128", "max_tokens = 99"), mine)
    assert catalog.get("tiny").max_tokens == 99
    assert catalog.get("bge-m3").dimensions == 64
    assert len(catalog) == len(default_catalog()) + 1
    assert [facts.name for facts in catalog][:-1] == [facts.name for facts in default_catalog()]


def test_prompts_cannot_be_changed():
    with pytest.raises(TypeError):
        default_catalog().get("bge-m3").prompts["query"] = "x"


def test_weights_shared_by_two_models_mean_the_first(load_with, embed_row):
    other = embed_row.replace("acme/tiny", "acme/other").replace('"tiny", "acme-tiny"', '"other"')
    assert load_with(embed_row, other).by_weights("aa11" * 16).name == "acme/tiny"


@pytest.mark.parametrize("alias", ["bge-m3", "BGE-M3", "baai/BGE-m3"])
def test_two_models_cannot_share_a_name(load_with, embed_row, alias):
    with pytest.raises(ConfigError) as caught:
        load_with(embed_row.replace('", "acme-tiny"', f'", "{alias}"'))
    text = str(caught.value)
    for part in ("1.toml", "acme/tiny", "aliases", "'BAAI/bge-m3'", "embedway/catalog/models/bge.toml"):
        assert part in text


def test_a_new_name_cannot_be_anothers_alias(load_with, embed_row):
    with pytest.raises(ConfigError, match=r"1\.toml: model 'Bge-M3': name: .*'BAAI/bge-m3'.*bge\.toml"):
        load_with(embed_row.replace('name = "acme/tiny"', 'name = "Bge-M3"'))


def test_one_file_cannot_hold_a_model_twice(load_with, embed_row):
    with pytest.raises(ConfigError, match=r"1\.toml: model 'acme/tiny': name: .*already in .*1\.toml"):
        load_with(embed_row + embed_row)


def test_files_that_cannot_be_read(tmp_path, load_with):
    with pytest.raises(ConfigError, match=r"none\.toml: the catalog file cannot be read"):
        Catalog.load([tmp_path / "none.toml"])
    with pytest.raises(ConfigError, match=r"1\.toml: not a TOML file: .*line 2"):
        load_with("[[model]]\nname =\n")
    with pytest.raises(ConfigError, match=r"1\.toml: models: unknown field; .*'model'"):
        load_with("[[models]]\n")
    with pytest.raises(ConfigError, match=r"1\.toml: model: missing"):
        load_with("")


BROKEN = [
    # valid text, its replacement, the field in the error, part of the error
    ('pooling = "mean"\n', "", "pooling", "missing; it must be a text"),
    ('licence = "MIT"\n', "", "licence", "missing"),
    (
        "max_tokens = 128",
        "max_token = 128",
        "max_token",
        "unknown field; the nearest known field is 'max_tokens'",
    ),
    ('repository = "acme/tiny"\n', "", "weights.repository", "missing"),
    (
        "max_tokens = 128",
        'max_tokens = "128"',
        "max_tokens",
        "'128' is not allowed: it must be an integer",
    ),
    ("max_tokens = 128", "max_tokens = true", "max_tokens", "True is not allowed: it must be an integer"),
    ("max_tokens = 128", "max_tokens = 0", "max_tokens", "0 is not allowed: it must be greater than 0"),
    ("dimensions = 64", "dimensions = -1", "dimensions", "-1 is not allowed"),
    ("normalized = true", "normalized = 1", "normalized", "1 is not allowed: it must be true or false"),
    ("[32, 16]", "[64, 16]", "matryoshka", "64 is not allowed: a size must be between 1 and 63"),
    ("[32, 16]", "[0]", "matryoshka", "0 is not allowed"),
    ("[32, 16]", "[16, 32]", "matryoshka", "[16, 32] is not allowed: sizes must descend"),
    ("[32, 16]", "[32, 32]", "matryoshka", "sizes must descend"),
    ("[32, 16]", "[32.0]", "matryoshka", "each member must be an integer"),
    (
        'pooling = "mean"',
        'pooling = "max"',
        "pooling",
        "'max' is not allowed: it must be one of mean, cls, last",
    ),
    ('"bert"', '"llama"', "architecture", "'llama' is not allowed: it must be one of bert, distilbert"),
    ('task = "embed"', 'task = "chat"', "task", "'chat' is not allowed: it must be one of embed, rerank"),
    ('name = "acme/tiny"', 'name = "../tiny"', "name", "'../tiny' is not allowed"),
    ('", "acme-tiny"', '", "TINY"', "aliases", "it is a duplicate"),
    ('", "acme-tiny"', '", "a b"', "aliases", "an alias must be"),
    ('["en", "pt-BR"]', "[]", "languages", "name the languages"),
    ('["en", "pt-BR"]', '["en", "mul"]', "languages", "only `mul`"),
    ('["en", "pt-BR"]', '["English"]', "languages", "'English' is not allowed"),
    ('document = ""', 'documents = ""', "prompts.documents", "the nearest known field is 'document'"),
    (', document = ""', "", "prompts.document", "missing"),
    ('01234567"', '0123456"', "weights.revision", "it must be a commit hash of 40 hex digits"),
    ('sha256 = "aa', 'sha256 = "a', "weights.files[1].sha256", "it must be 64 hex digits"),
    ('sha256 = "aa', 'sha256 = "zz', "weights.files[1].sha256", "it must be 64 hex digits"),
    ("size = 4000", "size = 0", "weights.files[1].size", "0 is not allowed"),
    (
        '"tokenizer.json"',
        '"../x"',
        "weights.files[2].path",
        "'../x' is not allowed: it must be a relative path",
    ),
    ('"tokenizer.json"', '"/etc/x"', "weights.files[2].path", "it must be a relative path"),
    ('"tokenizer.json"', '"C:/x"', "weights.files[2].path", "it must be a relative path"),
    ('"tokenizer.json"', '"model.safetensors"', "weights.files", "it is a duplicate"),
    ('"model.safetensors"', '"model.bin"', "weights.files", "at least one file must contain weights"),
    (', prefix = "acme_tiny/model"', "", "weights.wheels[1].prefix", "missing"),
    (
        'prefix = "acme_tiny/model"',
        'prefix = "a/../.."',
        "weights.wheels[1].prefix",
        "it must be a relative path",
    ),
    ("date = 2026-01-31", 'date = "2026-01-31"', "sources[1].date", "it must be a date"),
    ("date = 2026-01-31", "date = 2026-01-31T00:00:00", "sources[1].date", "it must be a date"),
    ('"https://example.org/tiny"', '"example.org"', "sources[1].url", "it must begin with https://"),
    (
        '"prompts", ',
        '"prompt", ',
        "sources[1].facts",
        "'prompt' is not allowed: unknown fact; the nearest is 'prompts'",
    ),
    (
        '"licence", "parameters"',
        '"licence"',
        "parameters",
        "1000 is not allowed: no source of this row lists it",
    ),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken[2]}: {broken[1]}")
def test_a_broken_row_names_file_model_field_value_and_rule(load_with, embed_row, broken):
    there, instead, field, says = broken
    assert embed_row.count(there) == 1
    with pytest.raises(ConfigError) as caught:
        load_with(embed_row.replace(there, instead))
    error = caught.value
    assert error.where.endswith("1.toml")
    model = "../tiny" if field == "name" else "acme/tiny"
    assert error.key == f"model '{model}': {field}"
    assert says in str(error)
    assert str(error).startswith(f"{error.where}: {error.key}: ")


def test_a_row_without_a_name_is_named_by_its_number(load_with, embed_row):
    with pytest.raises(ConfigError, match=r"1\.toml: model 1: name: missing"):
        load_with(embed_row.replace('name = "acme/tiny"\n', ""))


@pytest.mark.parametrize(
    "field", ["dimensions = 8", "matryoshka = []", 'pooling = "cls"', "normalized = true", "prompts = {}"]
)
def test_a_reranker_has_no_facts_about_vectors(load_with, rerank_row, field):
    name = field.split(" =")[0]
    with pytest.raises(ConfigError, match=rf"model 'acme/judge': {name}: .*a reranker has no vectors"):
        load_with(rerank_row.replace("max_tokens", f"{field}\nmax_tokens", 1))
