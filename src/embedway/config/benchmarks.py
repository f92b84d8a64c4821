"""`embedding.model_benchmarks`: settings for the model facts that selection uses."""

from __future__ import annotations

import copy
import decimal  # noqa: TC003  pydantic evaluates the annotations
import fractions
import functools
import re
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from embedway._public import public
from embedway.catalog import default_catalog
from embedway.catalog.benchmarks import COMPARED_SCALES, LOCAL_PROVIDERS, OWN_SCALE, default_benchmarks
from embedway.catalog.languages import explain_wrong_tag
from embedway.catalog.services import default_services
from embedway.config.types import Day, Name, Number, Positive, Price, Section, SourceText, Word, Words
from embedway.config.units import score_error, speed_error
from embedway.errors import UnknownModelError
from embedway.sizes import VectorSizes
from embedway.text import shown

#: Factor from the catalog's price at which a price counts as a mistake of units.
_UNIT_ERROR = 100


@public
class ModelBenchmark(Section):
    """Quality, speed and price of a model: `[embedding.model_benchmarks.NAME]`, or `Config.with_benchmarks`.

    `quality_score` and `cost_per_million_tokens` are None if unknown. A model without a score is never selected; one
    without a price is never selected under a cost limit.
    """

    #: Full name of the model; equal to the table's key.
    model_name: Name
    #: Provider, such as `openai`, `local` or `fastembed`; any name for your own model.
    provider: Name
    #: Confirm a score that looks like one of another scale.
    quality_confirmed: Annotated[bool, Field(strict=True)] = False
    #: Confirm a latency and a throughput that look like those of another unit.
    speed_confirmed: Annotated[bool, Field(strict=True)] = False
    #: Latency of embedding a short query, in milliseconds.
    avg_latency_ms: Number
    #: Quality from 0 to 100, such as an MTEB average.
    quality_score: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] | None
    #: Throughput with batches, in tokens per second.
    tokens_per_second: Number
    #: Confirm a price that differs from the catalog's by a factor of 100 or more.
    cost_confirmed: Annotated[bool, Field(strict=True)] = False
    #: Dollars per million tokens; 0 for a local model, `unknown` if no price is known.
    cost_per_million_tokens: Price
    #: Maximum tokens of a text.
    max_context_length: Positive
    #: Dimensions of a vector.
    embedding_dimensions: Positive
    #: Whether it is trained for many languages.
    multilingual: Annotated[bool, Field(strict=True)] = False
    #: BCP 47 tags, or `mul` alone; empty if unknown.
    languages: Words = ()
    #: SPDX identifier; empty if unknown.
    licence: Word = ""
    #: Strengths: `code` counts if texts contain code.
    strengths: Words = ()
    #: Source of the strengths.
    strengths_source: SourceText = ""
    #: Source of the score.
    quality_source: SourceText = ""
    #: Scale of the score: `mteb-en` is MTEB's English average, as in the shipped scores; `own` your own estimate,
    #: `bench` your own measurement. Scores of these three are compared; those of other scales, such as another board,
    #: only with the criterion `any_scale`.
    quality_scale: Word = OWN_SCALE
    #: Source of latency and throughput.
    speed_source: SourceText = ""
    #: Date of their measurement.
    measured_on: Day = None

    @property
    def runs_here(self) -> bool:
        """Whether its provider computes on this machine; routes in the settings may use other machines."""
        return self.provider in LOCAL_PROVIDERS

    @property
    def is_compared(self) -> bool:
        """Whether selection compares its score without the criterion `any_scale`."""
        return self.quality_scale in COMPARED_SCALES

    @field_validator("quality_scale")
    @classmethod
    def _fold_scale(cls, scale: str) -> str:
        return scale.strip().casefold() or OWN_SCALE

    @field_validator("languages")
    @classmethod
    def _check_tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for tag in tags:
            if tags != ("mul",) and (wrong := explain_wrong_tag(tag)):
                raise ValueError(f"one is {shown(tag)}, {wrong}; or use `mul` alone")
        return tags

    @field_validator("quality_score", mode="before")
    @classmethod
    def _check_percent(cls, score: Any) -> Any:
        """Reject a text such as `62.3%` with the number to write."""
        number = score.strip().removesuffix("%").strip() if isinstance(score, str) else ""
        if re.fullmatch(r"\d{1,3}(\.\d{1,12})?", number, re.ASCII):
            raise ValueError(f"must be a number: write {number}")
        return score

    @field_validator("quality_score")
    @classmethod
    def _check_scale(cls, score: float | None, info: ValidationInfo) -> float | None:
        if score is not None and not info.data.get("quality_confirmed"):
            _raise_if(score_error(score, info.data.get("model_name", "")))
        return score

    @field_validator("avg_latency_ms", "tokens_per_second")
    @classmethod
    def _check_speed(cls, value: float, info: ValidationInfo) -> float:
        if not info.data.get("speed_confirmed"):
            _raise_if(speed_error(info.field_name or "", value, info.data.get("model_name", "")))
        return value

    @field_validator("embedding_dimensions")
    @classmethod
    def _check_size(cls, size: int, info: ValidationInfo) -> int:
        sizes = _supported_sizes(info.data.get("model_name", ""))
        if sizes is not None and size not in sizes:
            raise ValueError(f"must be a size that {info.data['model_name']} supports: {sizes}")
        return size

    @field_validator("cost_per_million_tokens")
    @classmethod
    def _check_unit(cls, price: decimal.Decimal | None, info: ValidationInfo) -> decimal.Decimal | None:
        """Reject a price per token or per thousand tokens, judged by the catalog's prices.

        If the catalog has no price for the model, or the price 0, the limit is 100 times the catalog's highest
        price.
        """
        if price is None or info.data.get("cost_confirmed"):
            return price
        listed = _listed_price(info.data.get("model_name", ""))
        dearest = _highest_price()
        if listed:
            wrong = unit_error(price, listed, f"the catalog's price is {listed}")
        else:
            wrong = unit_error(price, dearest, f"the catalog's highest price is {dearest}") if price > dearest else ""
        _raise_if(wrong)
        return price


def _raise_if(wrong: str) -> None:
    if wrong:
        raise ValueError(wrong)


def unit_error(price: decimal.Decimal, listed: decimal.Decimal, known: str) -> str:
    """Return the error of a price that differs from a known one by a factor of 100 or more; empty if none."""
    if price == listed:
        return ""
    # Fractions, because the result of decimal arithmetic depends on the caller's context.
    times = (
        fractions.Fraction(max(price, listed)) / fractions.Fraction(min(price, listed)) if price and listed else None
    )
    if times is not None and times < _UNIT_ERROR:
        return ""
    off = "and one of the two is 0" if times is None else f"{round(times):,} times off"
    return f"must be dollars per million tokens; {known}, {off}; if it is correct, set cost_confirmed = true beside it"


def benchmark_values(benchmark: ModelBenchmark) -> dict[str, Any]:
    """Return the fields of a benchmark as values of settings."""
    return {name: getattr(benchmark, name) for name in ModelBenchmark.model_fields}


@functools.cache
def _defaults() -> dict[str, ModelBenchmark]:
    return {name: ModelBenchmark(**values) for name, values in default_benchmarks().items()}


def shipped_benchmarks() -> dict[str, ModelBenchmark]:
    """Return the shipped benchmarks, by full model name."""
    return {name: copy.copy(benchmark) for name, benchmark in _defaults().items()}


def _supported_sizes(name: str) -> VectorSizes | None:
    service = default_services().get(name.casefold())
    if service is not None:
        return service.supported if service.task == "embed" else None
    try:
        sizes = default_catalog().get(name).sizes
    except UnknownModelError:
        return None
    return VectorSizes(sizes) if sizes else None  # a reranker has no size


def _listed_price(name: str) -> decimal.Decimal | None:
    service = default_services().get(name.casefold())
    return service.price_usd_per_million_tokens if service is not None else None


@functools.cache
def _highest_price() -> decimal.Decimal:
    prices = [facts.price_usd_per_million_tokens for facts in default_services().values() if facts.task == "embed"]
    return max(price for price in prices if price is not None)
