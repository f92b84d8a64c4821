"""`embedding.model_benchmarks`: what selection knows of each model, as configuration."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from embedway.catalog import default_catalog
from embedway.catalog.benchmarks import LOCAL_PROVIDERS, default_benchmarks
from embedway.catalog.services import default_services
from embedway.config.base import Section
from embedway.errors import UnknownModelError

#: A price so many times off the catalog's is taken for a mistake of units.
_UNIT_ERROR = 100
_UNKNOWN = "unknown"
#: Prices beyond are mistakes, and overflow where they are compared.
_LEAST_PRICE, _MOST_PRICE = decimal.Decimal("0.000000001"), decimal.Decimal(10**9)


def _price(value: Any) -> Any:
    """A price from JSON, TOML or Python: a float stands for the decimal number that it is written as."""
    if value is None or value == _UNKNOWN:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str, decimal.Decimal)):
        raise ValueError("must be a number of dollars, or unknown")  # noqa: TRY004  pydantic makes its error of it
    try:
        price = decimal.Decimal(str(value))
    except decimal.InvalidOperation:
        raise ValueError("must be a number of dollars, or unknown") from None
    if not price.is_finite():
        raise ValueError("must be a finite number of dollars")
    if price < 0:
        raise ValueError("must be greater than or equal to 0")
    if price and not _LEAST_PRICE <= price <= _MOST_PRICE:
        raise ValueError(f"must be 0, or from {_LEAST_PRICE:f} to {_MOST_PRICE:,} dollars")
    return price


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _date(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a date, such as 2026-11-23") from None


Price: TypeAlias = Annotated[
    decimal.Decimal | None,
    BeforeValidator(_price, json_schema_input_type=Annotated[float, Field(ge=0)] | str | None),
    PlainSerializer(lambda price: None if price is None else str(price), when_used="json"),
]
Name: TypeAlias = Annotated[str, Field(strict=True, min_length=1)]
Number: TypeAlias = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(strict=True, gt=0)]
Words: TypeAlias = Annotated[tuple[Name, ...], BeforeValidator(_tuple, json_schema_input_type=list[str])]
Day: TypeAlias = Annotated[dt.date | None, BeforeValidator(_date)]


class ModelBenchmark(Section):
    """What a model is good for, in numbers: `[embedding.model_benchmarks.NAME]`.

    `quality_score` and `cost_per_million_tokens` are None where nothing is known; a model without a score is selected
    only once it has one, and one without a price never where there is a limit on money.
    """

    #: The model's full name; the table's own key.
    model_name: Name
    #: What runs it, such as `openai`, `local` or `fastembed`; a name of your own for a model of your own.
    provider: Name
    #: Milliseconds from a short query to its vector.
    avg_latency_ms: Number
    #: Quality from 0 to 100, such as an MTEB average.
    quality_score: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] | None
    #: Throughput in batches.
    tokens_per_second: Number
    #: Confirms a price that is 100 times or more off the catalog's.
    cost_confirmed: Annotated[bool, Field(strict=True)] = False
    #: Dollars per million tokens, 0 for what runs on your machine; `unknown` where no price is known.
    cost_per_million_tokens: Price
    #: Tokens of a text that the model reads.
    max_context_length: Count
    #: Numbers of a vector.
    embedding_dimensions: Count
    #: Whether it was trained for many languages.
    multilingual: Annotated[bool, Field(strict=True)] = False
    #: BCP 47 tags, or `mul` alone; empty where nothing is known.
    languages: Words = ()
    #: An SPDX identifier; empty where nothing is known.
    licence: str = ""
    #: What it is strong in: `code` counts where texts hold code, `multilingual` where they are of several languages.
    strengths: Words = ()
    #: Where the score is from, and whether it is of the board that most scores are from.
    quality_source: str = ""
    quality_comparable: Annotated[bool, Field(strict=True)] = True
    #: Who measured latency and throughput, where, and when.
    speed_source: str = ""
    measured_on: Day = None

    @property
    def runs_here(self) -> bool:
        """Whether its provider computes on this machine. Routes of the settings may lead elsewhere."""
        return self.provider in LOCAL_PROVIDERS

    @field_validator("embedding_dimensions")
    @classmethod
    def _trained_size(cls, size: int, info: ValidationInfo) -> int:
        sizes = _sizes(info.data.get("model_name", ""))
        if sizes and size not in sizes:
            raise ValueError(f"must be a size that {info.data['model_name']} gives: {', '.join(map(str, sizes))}")
        return size

    @field_validator("cost_per_million_tokens")
    @classmethod
    def _right_unit(cls, price: decimal.Decimal | None, info: ValidationInfo) -> decimal.Decimal | None:
        """Prices are per million tokens: one per token or per thousand is refused where the catalog knows better.

        Of a model that the catalog has no price of, or that costs nothing there, for its owner pays for the machine, it
        knows no more than that none is 100 times as dear as its dearest.
        """
        if price is None or info.data.get("cost_confirmed"):
            return price
        listed = _listed_price(info.data.get("model_name", ""))
        dearest = _dearest()
        if listed:
            wrong = unit_error(price, listed, f"the catalog's price is {listed}")
        else:
            wrong = unit_error(price, dearest, f"the catalog's dearest has {dearest}") if price > dearest else ""
        if wrong:
            raise ValueError(wrong)
        return price


def unit_error(price: decimal.Decimal, listed: decimal.Decimal, known: str) -> str:
    """What is wrong with a price beside one that is known; empty for less than 100 times."""
    if price == listed:
        return ""
    times = max(price, listed) / min(price, listed) if price and listed else None
    if times is not None and times < _UNIT_ERROR:
        return ""
    off = "and nothing is free" if times is None else f"{times:,.0f} times off"
    return f"must be dollars per million tokens; {known}, {off}; set cost_confirmed = true beside it if it is meant"


def benchmark_values(benchmark: ModelBenchmark) -> dict[str, Any]:
    """A benchmark's fields as settings have them."""
    return {name: getattr(benchmark, name) for name in ModelBenchmark.model_fields}


@functools.cache
def _defaults() -> dict[str, ModelBenchmark]:
    return {name: ModelBenchmark(**values) for name, values in default_benchmarks().items()}


def shipped_benchmarks() -> dict[str, ModelBenchmark]:
    """The benchmarks that are there before any setting, by the models' full names."""
    return dict(_defaults())


def _sizes(name: str) -> tuple[int, ...]:
    service = default_services().get(name.casefold())
    if service is not None:
        return service.sizes
    try:
        return default_catalog().get(name).sizes
    except UnknownModelError:
        return ()


def _listed_price(name: str) -> decimal.Decimal | None:
    service = default_services().get(name.casefold())
    return service.price_usd_per_million_tokens if service is not None else None


@functools.cache
def _dearest() -> decimal.Decimal:
    prices = [facts.price_usd_per_million_tokens for facts in default_services().values() if facts.task == "embed"]
    return max(price for price in prices if price is not None)


def benchmarks_schema() -> dict[str, Any]:
    """The JSON Schema of a file of benchmarks; single fields suffice for models that are shipped."""
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
