"""Model facts are configuration: shipped rows, overlays, own models, and error messages."""

import datetime as dt
import decimal
import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

import embedway.config
from embedway import Config, ModelBenchmark
from embedway.catalog import default_catalog
from embedway.catalog.services import default_services
from embedway.config.benchmarks import shipped_benchmarks
from embedway.errors import ConfigError, UnknownModelError
from embedway.models.multi_route import served_price
from embedway.providers.names import service_of
from own_benchmark import OWN

SMALL = "text-embedding-3-small"
TABLE = f"embedding.model_benchmarks.{SMALL}"
TEMPLATES = resources.files("embedway.config").joinpath("templates")


def file_of(folder, models, name="benchmarks.json"):
    path = folder / name
    path.write_text(json.dumps({"embedding": {"model_benchmarks": models}}))
    return path


def benchmarks(*files, **options):
    return Config.load(files, environ={}, **options).embedding.model_benchmarks


# ------------------------------------------------------------ shipped rows


@pytest.mark.parametrize("name", shipped_benchmarks())
def test_every_shipped_row(name):
    row = shipped_benchmarks()[name]
    assert row.model_name == name
    assert row.avg_latency_ms > 0
    assert row.tokens_per_second > 0
    assert row.speed_source
    if row.quality_score is not None:
        assert 0 < row.quality_score <= 100
        assert row.quality_source
    service = default_services().get(name.casefold())
    facts = service if service is not None else default_catalog().get(name)
    assert row.embedding_dimensions in facts.sizes
    assert row.max_context_length == facts.max_tokens
    assert row.cost_per_million_tokens == (service.price_usd_per_million_tokens if service else 0)
    assert row.runs_here == (row.provider in {"local", "fastembed", "sentence-transformers"})
    if row.provider not in {"local", "fastembed", "sentence-transformers"}:
        # The project did not measure another party's machines, and the row must not suggest it.
        assert "assumed" in row.speed_source


def test_every_model_that_embeds_has_a_row():
    names = {facts.name for facts in default_catalog() if facts.dimensions}
    names |= {facts.name for facts in default_services().values() if facts.task == "embed"}
    assert set(shipped_benchmarks()) == names
    assert len(names) >= 50


def benchmarks_schema():
    # Single fields suffice for models of the package.
    fields = ModelBenchmark.model_json_schema()
    fields.pop("required")
    fields["title"] = "ModelBenchmark"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "embedway model benchmarks",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "embedding": {
                "type": "object",
                "properties": {
                    "model_benchmarks": {"type": "object", "additionalProperties": {"$ref": "#/$defs/ModelBenchmark"}}
                },
            },
        },
        "$defs": {"ModelBenchmark": fields},
    }


def test_the_template_fits_the_schema_and_loads():
    schema = json.loads(TEMPLATES.joinpath("benchmarks.schema.json").read_text())
    assert schema == benchmarks_schema()
    template = json.loads(TEMPLATES.joinpath("custom-benchmarks.json").read_text())
    jsonschema.validate(template, schema, cls=jsonschema.Draft202012Validator)
    with resources.as_file(TEMPLATES.joinpath("custom-benchmarks.json")) as path:
        found = benchmarks(path)
    for name, fields in template["embedding"]["model_benchmarks"].items():
        for field, value in fields.items():
            held = getattr(found[name], field)
            if field == "measured_on":
                assert held == dt.date.fromisoformat(value)
            elif field == "cost_per_million_tokens":
                assert held == decimal.Decimal(str(value))
            else:
                assert (list(held) if isinstance(held, tuple) else held) == value
    for broken in ({"quality_score": 101}, {"avg_latency_ms": 0}, {"colour": 1}):
        wrong = {"embedding": {"model_benchmarks": {SMALL: broken}}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema, cls=jsonschema.Draft202012Validator)


def test_the_templates_lie_where_the_documentation_says():
    root = Path(embedway.config.__file__).parents[3]
    if (root / "pyproject.toml").is_file():  # a checkout
        beside = root / "config" / "templates" / "custom-benchmarks.json"
        assert beside.read_text() == TEMPLATES.joinpath("custom-benchmarks.json").read_text()


# ------------------------------------------------------------------- overlays


def test_single_fields_are_laid_over_the_base(tmp_path):
    base = file_of(tmp_path, {SMALL: {"avg_latency_ms": 95, "speed_source": "ours"}, "acme": OWN}, "base.json")
    production = tmp_path / "production.toml"
    production.write_text(
        f"[embedding.model_benchmarks.{SMALL}]\navg_latency_ms = 80.5\n"
        "[embedding.model_benchmarks.acme]\ncost_per_million_tokens = 0.1\nmeasured_on = 2026-11-01\n"
    )
    shipped = shipped_benchmarks()[SMALL]
    config = Config.load([base, production], environ={})
    small, acme = config.embedding.model_benchmarks[SMALL], config.embedding.model_benchmarks["acme"]
    assert small.avg_latency_ms == 80.5
    assert small.speed_source == f"avg_latency_ms: settings: {production}; tokens_per_second: ours"
    assert (small.quality_score, small.quality_source) == (shipped.quality_score, shipped.quality_source)
    assert (acme.cost_per_million_tokens, acme.measured_on) == (decimal.Decimal("0.1"), dt.date(2026, 11, 1))
    assert acme.quality_score == 64.5
    assert config.sources[f"{TABLE}.avg_latency_ms"] == str(production)
    assert config.sources[f"{TABLE}.speed_source"] == str(base)
    assert len(config.embedding.model_benchmarks) == len(shipped_benchmarks()) + 1
    assert benchmarks(production, base)[SMALL].avg_latency_ms == 95


def test_a_score_that_is_changed_does_not_keep_the_boards_name(tmp_path):
    changed = benchmarks(file_of(tmp_path, {SMALL: {"quality_score": 70}}))[SMALL]
    assert changed.quality_score == 70
    assert changed.quality_source != shipped_benchmarks()[SMALL].quality_source


def test_changes_in_python():
    config = Config()
    changed = config.with_benchmarks({SMALL: {"quality_score": 87}, "acme": ModelBenchmark(**OWN)})
    assert changed.embedding.model_benchmarks[SMALL].quality_score == 87
    sources = {"quality_source": "settings: arguments", "speed_source": "settings: arguments"}
    assert changed.embedding.model_benchmarks["acme"] == ModelBenchmark(**{**sources, **OWN})
    assert config.embedding.model_benchmarks[SMALL].quality_score != 87
    with pytest.raises(ConfigError, match="quality_score"):
        config.with_benchmarks({SMALL: {"quality_score": 187}})


def test_the_customization_examples_of_the_specification():
    config = Config().with_benchmarks(
        {
            "my-model": ModelBenchmark(
                model_name="my-model",
                provider="custom",
                avg_latency_ms=60,
                quality_score=88,
                tokens_per_second=18000,
                cost_per_million_tokens=5.0,
                max_context_length=2048,
                embedding_dimensions=1024,
            ),
            SMALL: {"avg_latency_ms": 65, "quality_score": 87},
        }
    )
    held = config.embedding.model_benchmarks
    assert (held["my-model"].quality_score, held["my-model"].cost_per_million_tokens) == (88, 5)
    assert (held[SMALL].avg_latency_ms, held[SMALL].quality_score) == (65, 87)
    assert config.sources[f"{TABLE}.avg_latency_ms"] == "arguments"
    again = config.with_benchmarks({"my-model": {"quality_score": 90}})
    assert again.embedding.model_benchmarks["my-model"].quality_score == 90
    assert config.embedding.model_benchmarks["my-model"].quality_score == 88


def test_a_price_of_a_call_is_that_of_the_servers_of_a_local_model():
    model = "sentence-transformers/all-MiniLM-L6-v2"
    assert served_price(model, Config()) is None
    assert served_price(model, Config().with_benchmarks({model: {"avg_latency_ms": 3}})) is None
    changed = Config().with_benchmarks({model.upper(): {"cost_per_million_tokens": "0.01"}})
    assert served_price(model, changed) == decimal.Decimal("0.01")


@pytest.mark.parametrize("changes", [None, 5, "acme", ["acme"], {5: {}}, {"acme": 5}, {"acme": {5: 1}}, {"acme": None}])
def test_changes_that_are_no_benchmarks_are_refused(changes):
    with pytest.raises(ConfigError, match="benchmarks: must be a mapping of model names"):
        Config().with_benchmarks(changes)


def test_the_price_of_the_settings_is_the_price(tmp_path):
    path = file_of(tmp_path, {SMALL: {"cost_per_million_tokens": "0.015"}})
    facts = service_of(SMALL, Config.load([path], environ={}))
    assert facts.cost_nanousd(1_000_000) == 15_000_000


def test_an_unknown_price_is_unknown_and_not_free(tmp_path):
    path = file_of(tmp_path, {SMALL: {"cost_per_million_tokens": "unknown"}})
    assert benchmarks(path)[SMALL].cost_per_million_tokens is None
    assert service_of(SMALL, Config.load([path], environ={})).cost_nanousd(1000) is None


@pytest.mark.parametrize("price", [0.00002, 2.0, "2", 0])
def test_a_price_of_the_wrong_unit_needs_confirmation(tmp_path, price):
    with pytest.raises(
        ConfigError, match=r"the catalog's price is 0\.02, .*; if it is correct, set cost_confirmed = true beside it"
    ):
        benchmarks(file_of(tmp_path, {SMALL: {"cost_per_million_tokens": price}}))
    confirmed = {SMALL: {"cost_per_million_tokens": price, "cost_confirmed": True}}
    assert benchmarks(file_of(tmp_path, confirmed))[SMALL].cost_per_million_tokens == decimal.Decimal(str(price))
    assert benchmarks(file_of(tmp_path, {SMALL: {"cost_per_million_tokens": 1.99}}))[SMALL].cost_per_million_tokens


def test_a_confirmation_is_of_the_price_beside_it(tmp_path):
    base = file_of(tmp_path, {SMALL: {"cost_per_million_tokens": 3, "cost_confirmed": True}}, "base.json")

    def over(**fields):
        return file_of(tmp_path, {SMALL: fields}, "over.json")

    with pytest.raises(ConfigError, match=r"over\.json: .*: is 20\.0; .*1,000 times off; .*set cost_confirmed"):
        benchmarks(base, over(cost_per_million_tokens=20.0))
    for fields, price in (
        ({"cost_per_million_tokens": 20.0, "cost_confirmed": True}, 20),
        ({"cost_per_million_tokens": 3}, 3),
        ({"avg_latency_ms": 5}, 3),
    ):
        assert benchmarks(base, over(**fields))[SMALL].cost_per_million_tokens == price
    assert not benchmarks(base, over(cost_per_million_tokens=0.03))[SMALL].cost_confirmed
    confirmed = Config.load([base], environ={})
    with pytest.raises(ConfigError, match="1,000 times off"):
        confirmed.with_benchmarks({SMALL: {"cost_per_million_tokens": 20}})
    assert confirmed.with_benchmarks({SMALL: {"avg_latency_ms": 5}}).embedding.model_benchmarks[SMALL].cost_confirmed


def test_prices_of_what_runs_here_and_of_own_models(tmp_path):
    # A local model costs its owner something, and no embedding model costs twenty dollars per million tokens.
    local = "BAAI/bge-m3"
    assert benchmarks(file_of(tmp_path, {local: {"cost_per_million_tokens": 0.7}}))[local].cost_per_million_tokens
    meant = {local: {"cost_per_million_tokens": 20, "cost_confirmed": True}}
    assert benchmarks(file_of(tmp_path, meant))[local].cost_per_million_tokens == 20
    own = {"models.m": {"name": "acme", "dimensions": 1024, "max_tokens": 99, "price_usd_per_million_tokens": "0.02"}}
    path = file_of(tmp_path, {"acme": {**OWN, "cost_per_million_tokens": 2}})
    with pytest.raises(ConfigError) as caught:
        Config.load([path], environ={}, overrides=own)
    assert str(caught.value) == (
        f"{path}: embedding.model_benchmarks.acme.cost_per_million_tokens: is 2; must be dollars per million tokens; "
        "models.m has 0.02, 100 times off; if it is correct, set cost_confirmed = true beside it"
    )
    config = Config.load([file_of(tmp_path, {"acme": OWN})], environ={}, overrides=own)
    with pytest.raises(ConfigError, match=r"models\.m has 0\.02, 1,000 times off"):
        config.with_benchmarks({"acme": {"cost_per_million_tokens": "0.00002"}})
    sure = {"acme": {"cost_per_million_tokens": 2, "cost_confirmed": True}}
    assert config.with_benchmarks(sure).embedding.model_benchmarks["acme"].cost_per_million_tokens == 2


def test_names_of_models_are_the_same_in_any_case(tmp_path):
    first = file_of(
        tmp_path, {"Acme/M": {**OWN, "model_name": "Acme/M"}, SMALL.upper(): {"avg_latency_ms": 7}}, "1.json"
    )
    second = file_of(tmp_path, {"ACME/m": {"avg_latency_ms": 8}}, "2.json")
    own = {"models.m": {"name": "acme/m", "dimensions": 1024, "max_tokens": 99}}
    config = Config.load([first, second], environ={}, overrides=own)
    held = config.embedding.model_benchmarks
    assert len(held) == len(shipped_benchmarks()) + 1
    assert held[SMALL].avg_latency_ms == 7
    assert (held["acme/m"].avg_latency_ms, held["acme/m"].model_name) == (8, "acme/m")
    assert service_of("ACME/M", config).cost_nanousd(1_000_000) == 50_000_000
    assert config.sources["embedding.model_benchmarks.acme/m.avg_latency_ms"] == str(second)
    changed = config.with_benchmarks({"ACME/M": {"avg_latency_ms": 9, "model_name": "ACME/M"}})
    assert changed.embedding.model_benchmarks["acme/m"].avg_latency_ms == 9
    assert len(changed.embedding.model_benchmarks) == len(held)


# ------------------------------------------------------------------- mistakes

LACKS = "provider, avg_latency_ms, tokens_per_second, cost_per_million_tokens, max_context_length, embedding_dimensions"
MALFORMED = {
    "negative latency": (
        {SMALL: {"avg_latency_ms": -1}},
        f"FILE: {TABLE}.avg_latency_ms: is -1; must be greater than 0",
    ),
    "a score above 100": (
        {SMALL: {"quality_score": 101}},
        f"FILE: {TABLE}.quality_score: is 101; must be less than or equal to 100",
    ),
    "a price per thousand tokens": (
        {SMALL: {"cost_per_million_tokens": 0.00002}},
        (
            f"FILE: {TABLE}.cost_per_million_tokens: is 2e-05; must be dollars per million tokens; the catalog's price "
            "is 0.02, 1,000 times off; if it is correct, set cost_confirmed = true beside it"
        ),
    ),
    "a size that the model was not trained for": (
        {SMALL: {"embedding_dimensions": 2000}},
        f"FILE: {TABLE}.embedding_dimensions: is 2000; must be a size that {SMALL} supports: 1 to 1536",
    ),
    "texts for numbers": (
        {SMALL: {"tokens_per_second": "fast", "max_context_length": 8191.5}},
        (
            "2 settings are invalid:\n"
            f"  - FILE: {TABLE}.tokens_per_second: is 'fast'; must be a number\n"
            f"  - FILE: {TABLE}.max_context_length: is 8191.5; must be an integer"
        ),
    ),
    "a field that is none": (
        {SMALL: {"latency_ms": 5}},
        f"FILE: {TABLE}.latency_ms: is not a setting; the nearest is {TABLE}.avg_latency_ms",
    ),
    "a part of a field's name": (
        {SMALL: {"latency": 5}},
        f"FILE: {TABLE}.latency: is not a setting; the nearest is {TABLE}.avg_latency_ms",
    ),
    "a model whose name is misspelt": (
        {"Text-Embedding-3-smal": {"quality_score": 50}},
        (
            f"FILE: embedding.model_benchmarks.Text-Embedding-3-smal: lacks model_name, {LACKS}; "
            f"a new model needs every field; the nearest known model is {SMALL}"
        ),
    ),
    "a catalog model without its owner": (
        {"all-MiniLM-L6-v": {"quality_score": 50}},
        (
            f"FILE: embedding.model_benchmarks.all-MiniLM-L6-v: lacks model_name, {LACKS}; "
            "a new model needs every field; the nearest known model is sentence-transformers/all-MiniLM-L6-v2"
        ),
    ),
    "a new model without its fields": (
        {"acme": {"quality_score": 50}},
        f"FILE: embedding.model_benchmarks.acme: lacks model_name, {LACKS}; a new model needs every field",
    ),
    "all mistakes at once": (
        {
            SMALL: {"avg_latency_ms": 0, "quality_score": -3, "cost_per_million_tokens": -1},
            "acme": {**OWN, "tokens_per_second": 0, "embedding_dimensions": 0},
        },
        (
            "5 settings are invalid:\n"
            f"  - FILE: {TABLE}.avg_latency_ms: is 0; must be greater than 0\n"
            f"  - FILE: {TABLE}.quality_score: is -3; must be greater than or equal to 0\n"
            f"  - FILE: {TABLE}.cost_per_million_tokens: is -1; must be greater than or equal to 0\n"
            "  - FILE: embedding.model_benchmarks.acme.tokens_per_second: is 0; must be greater than 0\n"
            "  - FILE: embedding.model_benchmarks.acme.embedding_dimensions: is 0; must be greater than 0"
        ),
    ),
    "a number for a model": ({SMALL: 5}, f"FILE: {TABLE}: is 5; must be a table of settings"),
    "NaN beside other mistakes": (
        f'{{"embedding": {{"model_benchmarks": {{"{SMALL}": {{"quality_score": NaN, "tokens_per_second": 0}}}}}}}}',
        (
            "2 settings are invalid:\n"
            f"  - FILE: {TABLE}.quality_score: is NaN; must be a finite number\n"
            f"  - FILE: {TABLE}.tokens_per_second: is 0; must be greater than 0"
        ),
    ),
    "a field that is there twice, and another mistake": (
        (
            f'{{"embedding": {{"model_benchmarks": {{"{SMALL}": {{"quality_score": 5, "quality_score": 60, '
            '"avg_latency_ms": 0}}}}'
        ),
        (
            "2 settings are invalid:\n"
            f"  - FILE: {TABLE}.quality_score: is set twice, as 5 and 60; set it once\n"
            f"  - FILE: {TABLE}.avg_latency_ms: is 0; must be greater than 0"
        ),
    ),
    "null for numbers": (
        {SMALL: {"avg_latency_ms": None, "multilingual": None}},
        (
            "2 settings are invalid:\n"
            f"  - FILE: {TABLE}.avg_latency_ms: is null; must be a number\n"
            f"  - FILE: {TABLE}.multilingual: is null; must be true or false"
        ),
    ),
    "a list for the models": ([], "FILE: embedding.model_benchmarks: is []; must be a table of settings"),
    "no table of models": (None, "FILE: embedding.model_benchmarks: is null; must be a table of settings"),
    "a list for the section": (
        '{"embedding": []}',
        "FILE: embedding: is []; must be a table of settings",
    ),
    "models at the top": (
        '{"model_benchmarks": {}}',
        "FILE: model_benchmarks: is not a setting; the nearest is embedding.model_benchmarks",
    ),
    "a model that is there twice": (
        {"acme": OWN, "ACME": {**OWN, "model_name": "ACME"}},
        "FILE: embedding.model_benchmarks.ACME: is set twice, in different case",
    ),
    "a price per thousand for a free model": (
        {"BAAI/bge-m3": {"cost_per_million_tokens": 20.0}},
        (
            "FILE: embedding.model_benchmarks.BAAI/bge-m3.cost_per_million_tokens: is 20.0; must be dollars per "
            "million tokens; the catalog's highest price is 0.20, 100 times off; "
            "if it is correct, set cost_confirmed = true beside it"
        ),
    ),
    "JSON that breaks off": (
        '{"embedding": {"model_benchmarks": {',
        "FILE:1:37: is not JSON: Expecting property name enclosed in double quotes",
    ),
    "another model's name inside": (
        {"acme": {**OWN, "model_name": "other"}},
        "FILE: embedding.model_benchmarks.acme.model_name: is 'other'; must be the table's name, 'acme'",
    ),
}


@pytest.mark.parametrize("mistake", MALFORMED)
def test_malformed_files_say_file_model_field_value_and_rule(tmp_path, mistake):
    content, told = MALFORMED[mistake]
    if isinstance(content, str):
        path = tmp_path / "benchmarks.json"
        path.write_text(content)
    else:
        path = file_of(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        Config.load([path], environ={})
    assert str(caught.value) == told.replace("FILE", str(path))


def test_toml_that_breaks_off(tmp_path):
    path = tmp_path / "benchmarks.toml"
    path.write_text("[embedding.model_benchmarks.acme\nquality_score = 5\n")
    with pytest.raises(ConfigError, match=r"benchmarks\.toml:1:33: is not TOML"):
        Config.load([path], environ={})


ALIAS, FULL = "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"


def test_an_alias_is_its_model(tmp_path):
    table = json.dumps({ALIAS.upper(): {"quality_score": 50, "model_name": ALIAS}})
    variable = {"EMBEDWAY_EMBEDDING__MODEL_BENCHMARKS": table}
    by_variable = Config.load(environ=variable)
    by_file = Config.load([file_of(tmp_path, {ALIAS: {"quality_score": 50, "model_name": ALIAS}})], environ={})
    in_code = Config().with_benchmarks({ALIAS.upper(): {"quality_score": 50, "model_name": ALIAS}})
    complete = shipped_benchmarks()[FULL].model_copy(update={"model_name": ALIAS, "quality_score": 50})
    for config in (by_variable, by_file, in_code, Config().with_benchmarks({ALIAS: complete})):
        held = config.embedding.model_benchmarks
        assert (held[FULL].quality_score, held[FULL].model_name) == (50, FULL)
        assert len(held) == len(shipped_benchmarks())
    assert by_variable.sources[f"embedding.model_benchmarks.{FULL}.quality_score"].startswith("environment: EMBEDWAY_")
    twice = {ALIAS: {"quality_score": 50}, FULL: {"quality_score": 60}}
    with pytest.raises(ConfigError, match=rf"is set twice, as it is an alias of {FULL}|{FULL}: is set twice"):
        benchmarks(file_of(tmp_path, twice))
    with pytest.raises(ConfigError, match=f"{FULL}: is the same model as {ALIAS}; name it once"):
        Config().with_benchmarks(twice)
    own = {"models.m": {"name": "acme/m", "dimensions": 1024, "max_tokens": 99}}
    held = Config.load(environ={}, overrides=own).with_benchmarks({"ACME/M": {**OWN, "model_name": "ACME/M"}})
    assert held.embedding.model_benchmarks["acme/m"].model_name == "acme/m"


def test_sources_are_the_layers_that_set_the_numbers(tmp_path):
    shipped = shipped_benchmarks()[SMALL]
    assert shipped.quality_scale == "mteb-en"
    score = file_of(tmp_path, {SMALL: {"quality_score": 70}}, "score.json")
    latency = file_of(tmp_path, {SMALL: {"avg_latency_ms": 7}}, "latency.json")
    for files in ([score, latency], [latency, score]):
        small = Config.load(files, environ={}).embedding.model_benchmarks[SMALL]
        assert (small.quality_source, small.quality_scale) == (f"settings: {score}", "own")
        assert small.speed_source == f"avg_latency_ms: settings: {latency}; tokens_per_second: {shipped.speed_source}"
    name = f"EMBEDWAY_EMBEDDING__MODEL_BENCHMARKS__{SMALL.upper()}__"
    environ = {f"{name}QUALITY_SCORE": "71", f"{name}TOKENS_PER_SECOND": "50"}
    config = Config.load([score, latency], environ=environ)
    small = config.embedding.model_benchmarks[SMALL]
    assert small.quality_source == f"settings: environment: {name}QUALITY_SCORE"
    assert small.speed_source == (
        f"avg_latency_ms: settings: {latency}; tokens_per_second: settings: environment: {name}TOKENS_PER_SECOND"
    )
    small = config.with_benchmarks({SMALL: {"avg_latency_ms": 8}}).embedding.model_benchmarks[SMALL]
    assert small.quality_source == f"settings: environment: {name}QUALITY_SCORE"
    assert small.speed_source == (
        f"avg_latency_ms: settings: arguments; tokens_per_second: settings: environment: {name}TOKENS_PER_SECOND"
    )
    again = config.with_benchmarks({SMALL: {"quality_score": 72, "quality_scale": "mteb-en", "quality_source": "MTEB"}})
    small = again.embedding.model_benchmarks[SMALL]
    assert (small.quality_source, small.quality_scale) == ("MTEB", "mteb-en")
    small = again.with_benchmarks({SMALL: {"quality_score": 73}}).embedding.model_benchmarks[SMALL]
    assert (small.quality_source, small.quality_scale) == ("settings: arguments", "own")


def test_a_copy_with_other_numbers_does_not_keep_the_sources_of_the_former_ones():
    name = "gemini-embedding-001"
    shipped = shipped_benchmarks()[name]
    assert (shipped.quality_scale, shipped.is_compared) == ("mmteb", False)

    def changed(**numbers):
        return Config().with_benchmarks({name: shipped.model_copy(update=numbers)}).embedding.model_benchmarks[name]

    assert changed() == shipped
    score = changed(quality_score=70)
    assert (score.quality_source, score.quality_scale, score.is_compared) == ("settings: arguments", "own", True)
    assert (score.speed_source, score.strengths_source) == (shipped.speed_source, shipped.strengths_source)
    latency = changed(avg_latency_ms=9)
    assert latency.speed_source == f"avg_latency_ms: settings: arguments; tokens_per_second: {shipped.speed_source}"
    assert (latency.quality_source, latency.quality_scale) == (shipped.quality_source, "mmteb")
    assert changed(strengths=("code", "law")).strengths_source == "settings: arguments"
    named = changed(quality_score=70, quality_source="our judgements", quality_scale="bench")
    assert (named.quality_source, named.quality_scale, named.is_compared) == ("our judgements", "bench", True)


def test_scales_of_scores(tmp_path):
    assert ModelBenchmark(**OWN).quality_scale == "own"
    for given, held, is_compared in (
        ("", "own", True),
        ("own", "own", True),
        (" MTEB-EN ", "mteb-en", True),
        ("bench", "bench", True),
        ("our nDCG", "our ndcg", False),
    ):
        row = benchmarks(file_of(tmp_path, {"acme": {**OWN, "quality_scale": given}}))["acme"]
        assert (row.quality_scale, row.is_compared) == (held, is_compared)
    # The score of another board becomes the user's own by one field.
    row = benchmarks(file_of(tmp_path, {"gemini-embedding-001": {"quality_scale": "own"}}))["gemini-embedding-001"]
    assert (row.quality_score, row.is_compared) == (68.32, True)


@pytest.mark.parametrize("field", ["quality_scale", "licence", "quality_source", "speed_source", "strengths_source"])
@pytest.mark.parametrize("text", ["x" * 100_000, "two\nlines", "\x1b[31m", "\ud800"])
def test_words_and_sources_are_short_lines(field, text):
    with pytest.raises(ConfigError) as caught:
        Config().with_benchmarks({SMALL: {field: text}})
    assert f"{TABLE}.{field}: " in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["n" * 250, "a\nb", "\x1b"])
def test_a_file_of_any_name_is_a_valid_source(tmp_path, name):
    folder = tmp_path / name / name / name
    folder.mkdir(parents=True)
    fields = {"quality_score": 60, "avg_latency_ms": 50, "strengths": ["code"]}
    changed = benchmarks(file_of(folder, {SMALL: fields}))[SMALL]
    assert changed.quality_source.startswith("settings: ")
    assert Config().with_benchmarks({SMALL: dict(changed)}).embedding.model_benchmarks[SMALL].quality_score == 60


def test_the_former_field_says_what_to_write_instead(tmp_path):
    told = "is not a setting; instead of true, write quality_scale = 'mteb-en'; instead of false, nothing"
    with pytest.raises(ConfigError) as caught:
        benchmarks(file_of(tmp_path, {SMALL: {"quality_comparable": True}}))
    assert f"benchmarks.json: {TABLE}.quality_comparable: {told}" in str(caught.value)
    variable = f"EMBEDWAY_EMBEDDING__MODEL_BENCHMARKS__{SMALL.upper()}__QUALITY_COMPARABLE"
    for environ in (
        {variable: "true"},
        {"EMBEDWAY_EMBEDDING__MODEL_BENCHMARKS": json.dumps({SMALL: {"quality_comparable": True}})},
    ):
        with pytest.raises(ConfigError) as caught:
            Config.load(environ=environ)
        assert told in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        Config().with_benchmarks({SMALL: {"quality_comparable": True}})
    assert told in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        ModelBenchmark(**OWN, quality_comparable=True)
    assert told in str(caught.value)


@pytest.mark.parametrize(("score", "meant"), [(0.85, "85"), (1, "100"), (0.575, "57.5")])
def test_a_score_of_0_to_1_is_refused_with_the_score_that_it_means(tmp_path, score, meant):
    message = f"is {score}; must be on a scale of 0 to 100: is it {meant}?"
    with pytest.raises(ConfigError) as caught:
        benchmarks(file_of(tmp_path, {SMALL: {"quality_score": score}}))
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match="must be on a scale of 0 to 100"):
        Config().with_benchmarks({SMALL: {"quality_score": score}})
    assert Config().with_benchmarks({SMALL: {"quality_score": 0}}).embedding.model_benchmarks[SMALL].quality_score == 0


def test_an_unknown_name_is_an_error():
    with pytest.raises(UnknownModelError):
        default_catalog().get("acme")


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        (["german"], "one is 'german', not a BCP 47 tag; write de"),
        (["en", "xx"], "one is 'xx', not a BCP 47 tag of a language, such as en or pt-BR; or use `mul` alone"),
        (["en", "mul"], "one is 'mul', not a BCP 47 tag"),
    ],
)
def test_languages_are_tags_of_languages(tags, told):
    with pytest.raises(ConfigError, match=f"languages.*{told}"):
        Config().with_benchmarks({"text-embedding-3-small": {"languages": tags}})
    for right in (["mul"], ["de", "pt-BR"], []):
        found = Config().with_benchmarks({"text-embedding-3-small": {"languages": right}})
        assert list(found.embedding.model_benchmarks["text-embedding-3-small"].languages) == right
