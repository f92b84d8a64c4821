"""Numbers of benchmarks that are probably of another unit are refused until they are confirmed."""

import pytest

from embedway import Config, ModelBenchmark
from embedway.errors import ConfigError
from own_benchmark import OWN

SMALL = "text-embedding-3-small"
SHIFTED = [
    ("quality_score", 6.2, "on a scale of 0 to 100: is it 62?"),
    ("quality_score", 0.62, "on a scale of 0 to 100: is it 62?"),
    ("avg_latency_ms", 0.078, "in milliseconds: is it 78?"),
    ("avg_latency_ms", 78_000, "in milliseconds: is it 78?"),
    ("tokens_per_second", 12.8, "in tokens per second: is it 12,800?"),
]


@pytest.mark.parametrize(("field", "value", "told"), SHIFTED)
def test_a_number_of_another_unit_is_refused(field, value, told):
    flag = "quality_confirmed" if field == "quality_score" else "speed_confirmed"
    for changes in ({SMALL: {field: value}}, {"acme": {**OWN, field: value}}):
        with pytest.raises(ConfigError) as caught:
            Config().with_benchmarks(changes)
        assert f"{field}: is {value}; must be {told}" in str(caught.value)
        assert f"if it is correct, set {flag} = true beside it" in str(caught.value)
        sure = {name: {**fields, flag: True} for name, fields in changes.items()}
        held = Config().with_benchmarks(sure).embedding.model_benchmarks
        assert getattr(held[next(iter(changes))], field) == value
    with pytest.raises(ConfigError, match="must be"):
        ModelBenchmark(**{**OWN, field: value})


def test_a_number_far_from_the_catalogs_is_refused():
    for fields in ({"quality_score": 12}, {"tokens_per_second": 12_800_000}, {"avg_latency_ms": 30_000}):
        with pytest.raises(ConfigError, match=r"the catalog|catalog's"):
            Config().with_benchmarks({SMALL: fields})
    near = {"quality_score": 20, "tokens_per_second": 100_000, "avg_latency_ms": 2}
    assert Config().with_benchmarks({SMALL: near}).embedding.model_benchmarks[SMALL].quality_score == 20


def test_a_percentage_names_the_number_to_write():
    for text in ("62.3%", " 62.3 % ", "62.3"):
        with pytest.raises(ConfigError, match=r"must be a number: write 62\.3"):
            Config().with_benchmarks({SMALL: {"quality_score": text}})
    with pytest.raises(ConfigError, match="must be less than or equal to 100"):
        Config().with_benchmarks({SMALL: {"quality_score": 623}})


def test_a_confirmation_is_of_the_number_beside_it():
    config = Config().with_benchmarks({SMALL: {"quality_score": 6.2, "quality_confirmed": True}})
    assert config.with_benchmarks({SMALL: {"avg_latency_ms": 50}}).embedding.model_benchmarks[SMALL].quality_confirmed
    with pytest.raises(ConfigError, match="quality_confirmed"):
        config.with_benchmarks({SMALL: {"quality_score": 6.3}})


def test_a_benchmark_of_another_size_than_its_model_is_refused():
    own = {"models.m": {"name": "acme", "dimensions": 1024, "matryoshka": [512], "max_tokens": 99}}
    config = Config.load(environ={}, overrides=own)
    assert config.with_benchmarks({"acme": {**OWN, "embedding_dimensions": 512}})
    with pytest.raises(ConfigError, match=r"embedding_dimensions: is 768; must be a size of models\.m: 1024, 512"):
        config.with_benchmarks({"acme": {**OWN, "embedding_dimensions": 768}})
