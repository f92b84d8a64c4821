"""`embedding.model_benchmarks`: the facts of models that selection uses, as settings."""

from __future__ import annotations

import decimal  # noqa: TC003  pydantic evaluates the annotations
import functools
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from embedway._public import public
from embedway.catalog import default_catalog
from embedway.catalog.benchmarks import LOCAL_PROVIDERS, default_benchmarks
from embedway.catalog.services import default_services
from embedway.config.types import Day, Name, Number, Positive, Price, Section, Words
from embedway.errors import UnknownModelError

#: A price that is this many times off the catalog's counts as a mistake of units.
_UNIT_ERROR = 100


@public
class ModelBenchmark(Section):
    """Quality, speed and price of a model: `[embedding.model_benchmarks.NAME]`.

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
    max_context_length: Positive
    #: Numbers of a vector.
    embedding_dimensions: Positive
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
        """Tell whether its provider computes on this machine. Routes of the settings may lead elsewhere."""
        return self.provider in LOCAL_PROVIDERS

    @field_validator("embedding_dimensions")
    @classmethod
    def _check_size(cls, size: int, info: ValidationInfo) -> int:
        sizes = _trained_sizes(info.data.get("model_name", ""))
        if sizes and size not in sizes:
            raise ValueError(f"must be a size that {info.data['model_name']} gives: {', '.join(map(str, sizes))}")
        return size

    @field_validator("cost_per_million_tokens")
    @classmethod
    def _check_unit(cls, price: decimal.Decimal | None, info: ValidationInfo) -> decimal.Decimal | None:
        """Refuse a price per token or per thousand tokens, as far as the catalog's prices tell.

        For a model without a price in the catalog, or with the price 0, the limit is 100 times the catalog's highest
        price.
        """
        if price is None or info.data.get("cost_confirmed"):
            return price
        listed = _listed_price(info.data.get("model_name", ""))
        dearest = _highest_price()
        if listed:
            wrong = unit_error(price, listed, f"the catalog's price is {listed}")
        else:
            wrong = unit_error(price, dearest, f"the catalog's dearest has {dearest}") if price > dearest else ""
        if wrong:
            raise ValueError(wrong)
        return price


def unit_error(price: decimal.Decimal, listed: decimal.Decimal, known: str) -> str:
    """Return the error of a price that is 100 times or more off a known one; empty where there is none."""
    if price == listed:
        return ""
    times = max(price, listed) / min(price, listed) if price and listed else None
    if times is not None and times < _UNIT_ERROR:
        return ""
    off = "and nothing is free" if times is None else f"{times:,.0f} times off"
    return f"must be dollars per million tokens; {known}, {off}; set cost_confirmed = true beside it if it is meant"


def benchmark_values(benchmark: ModelBenchmark) -> dict[str, Any]:
    """Return the fields of a benchmark as settings hold them."""
    return {name: getattr(benchmark, name) for name in ModelBenchmark.model_fields}


@functools.cache
def _defaults() -> dict[str, ModelBenchmark]:
    return {name: ModelBenchmark(**values) for name, values in default_benchmarks().items()}


def shipped_benchmarks() -> dict[str, ModelBenchmark]:
    """Return the benchmarks of the package, by the models' full names."""
    return dict(_defaults())


def _trained_sizes(name: str) -> tuple[int, ...]:
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
def _highest_price() -> decimal.Decimal:
    prices = [facts.price_usd_per_million_tokens for facts in default_services().values() if facts.task == "embed"]
    return max(price for price in prices if price is not None)
