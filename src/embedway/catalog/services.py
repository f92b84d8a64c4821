"""Facts of models that services run, as data; models with available weights are in `models`."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import itertools
import re
import time
from dataclasses import dataclass, field, replace
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from embedway.catalog.licences import SERVICE
from embedway.catalog.rows import (
    TASKS,
    Table,
    check_sources,
    file_table,
    languages,
    matryoshka,
    names,
    refuse_vectors,
    source,
)
from embedway.errors import ConfigError
from embedway.sizes import VectorSizes, min_dimensions_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from embedway.catalog.types import Source, Task

_SHARED_FACTS = ("max_tokens", "tokenizer", "languages", "routes")
#: Facts of embedding models only, because a reranker has no vectors.
_EMBED_FACTS = ("dimensions", "matryoshka", "normalized")
#: Optional prices.
_PRICES = ("price_usd_per_million_tokens", "price_usd_per_thousand_searches")
#: Alternative: prices by date and by size, with the batch API's price if there is one.
_DATED = ("prices",)
_MORE_EMBED_FACTS = ("default_dimensions", "min_dimensions", "family", "query_prompt", "document_prompt")
_MORE_FACTS = (*_PRICES, *_DATED, *_MORE_EMBED_FACTS, "licence")
_FACTS = (*_SHARED_FACTS, *_EMBED_FACTS, *_MORE_FACTS)
_TOKENIZER = re.compile(r"tiktoken:[a-z0-9_]+|hub:[\w.-]+/[\w.-]+|library|estimate", re.ASCII)
_TOKENIZER_RULE = "it must be tiktoken:ENCODING, hub:OWNER/NAME, library, or estimate"
_PRICE = re.compile(r"\d{1,6}(\.\d{1,6})?")
_PROVIDER = re.compile(r"[a-z][a-z0-9-]*")
#: Nano-dollars per token for one dollar per million tokens.
_NANOUSD = 1000
#: Nano-dollars per search for one dollar per thousand searches.
_NANOUSD_A_SEARCH = 1_000_000
_DAY_S, _FIRST_DAY = 86_400, dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """A provider of the model, the provider's name for the model, and options for the provider."""

    provider: str
    model: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: Licence of use over this route; empty if it is the model's.
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, valid from a date (UTC) until the next price of the same sizes."""

    since: dt.date
    usd_per_million_tokens: decimal.Decimal
    #: Price of the provider's batch API, which answers within a day; None if there is none.
    batch_usd_per_million_tokens: decimal.Decimal | None = None
    #: Vector sizes that it applies to; empty for all.
    dimensions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The facts of a model that services or other libraries run. All its routes share one vector space."""

    name: str
    max_tokens: int
    #: Token counter: `tiktoken:ENCODING`, `hub:OWNER/NAME` for a repository's tokenizer.json, `library` for the library
    #: that runs the model, `estimate` if no tokenizer is published.
    tokenizer: str
    normalized: bool
    aliases: tuple[str, ...] = ()
    task: Task = "embed"
    #: 0 for rerankers.
    dimensions: int = 0
    #: Sizes below `dimensions` that the maker trained or evaluated, descending; empty for none.
    matryoshka: tuple[int, ...] = ()
    #: Smallest size if the services return every size up to `dimensions`; None if only the sizes above.
    min_dimensions: int | None = None
    #: Vector size if the request names none.
    default_dimensions: int = 0
    #: BCP 47 tags; only `mul` if the source has no list.
    languages: tuple[str, ...] = ("mul",)
    #: List price in dollars, exact; None if unknown.
    price_usd_per_million_tokens: decimal.Decimal | None = None
    #: Price in dollars per thousand searches; a search is a query over at most 100 documents, as Cohere counts.
    price_usd_per_thousand_searches: decimal.Decimal | None = None
    #: Name of the vector space that models of one family share; empty for a separate space.
    family: str = ""
    #: Prompts that embedway puts before texts; services with an input type add their own.
    query_prompt: str = ""
    document_prompt: str = ""
    #: SPDX identifier, or `service` if the service's terms apply. A route may have its own.
    licence: str = "unknown"
    routes: tuple[RouteFacts, ...] = ()
    sources: tuple[Source, ...] = ()
    #: Prices by date and size; if there are any, `price_usd_per_million_tokens` is the price on the day of loading.
    prices: tuple[Price, ...] = ()
    #: Revision of the weights of a model from the settings; empty for none.
    revision: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes that the maker trained or evaluated, largest first."""
        return (self.dimensions, *self.matryoshka)

    @property
    def supported(self) -> VectorSizes:
        """All sizes that vectors may have."""
        return VectorSizes(self.sizes, self.min_dimensions)

    @property
    def sizes_by_price(self) -> tuple[int, ...]:
        """Sizes that together have every price that a supported size may have."""
        if self.min_dimensions is None:
            return self.sizes
        named = {size for price in self.prices for size in price.dimensions}
        others = (size for size in range(self.min_dimensions, self.dimensions) if size not in named)
        return tuple({*self.sizes, *(size for size in named if size in self.supported), *itertools.islice(others, 1)})

    @property
    def names(self) -> frozenset[str]:
        """Name and aliases, in lower case."""
        return frozenset(name.casefold() for name in (self.name, *self.aliases))

    def price(
        self, *, dimensions: int | None = None, day: dt.date | None = None, batch: bool = False
    ) -> decimal.Decimal | None:
        """Return dollars per million tokens, for vectors of a size on a day (UTC), or with the batch API.

        The default day is today. None if no price is known.
        """
        day = day or dt.datetime.now(dt.UTC).date()
        size = dimensions or self.default_dimensions
        held = [one for one in self.prices if one.since <= day and (not one.dimensions or size in one.dimensions)]
        if held:
            # A price for this size has precedence over one for all sizes, then the newest over older ones.
            best = max(held, key=lambda one: (bool(one.dimensions), one.since))
            return best.batch_usd_per_million_tokens if batch else best.usd_per_million_tokens
        return None if batch or self.prices else self.price_usd_per_million_tokens

    def cost_nanousd(self, tokens: int, searches: int = 0, *, dimensions: int | None = None) -> int | None:
        """Return the cost of tokens or searches at today's list price, in nano-dollars, rounded up.

        None if no price is known.
        """
        return TodaysPrice(self, dimensions)(tokens, searches)


class TodaysPrice:
    """Cost of tokens or searches at a model's list price for vectors of a size, on the day of the call (UTC).

    The price is found once a day, because the cost of one request is computed several times. `clock` returns seconds
    since 1970.
    """

    __slots__ = ("_by_search", "_clock", "_day", "_denominator", "_dimensions", "_facts", "_numerator")

    def __init__(
        self, facts: ServiceFacts, dimensions: int | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._facts = facts
        self._dimensions = dimensions
        self._clock = clock
        self._by_search = facts.price_usd_per_thousand_searches is not None
        self._day = -1
        #: Nano-dollars of a token or search, as a fraction; None if no price is known.
        self._numerator: int | None = None
        self._denominator = 1

    def __call__(self, tokens: int, searches: int = 0) -> int | None:
        """Return nano-dollars, rounded up; None if no price is known."""
        day = int(self._clock()) // _DAY_S
        if day != self._day:
            self._find(day)
        if self._numerator is None:
            return None
        return -(-self._numerator * (searches if self._by_search else tokens) // self._denominator)

    def _find(self, day: int) -> None:
        facts, self._day = self._facts, day
        price = facts.price_usd_per_thousand_searches
        unit = _NANOUSD_A_SEARCH
        if price is None:
            price, unit = facts.price(dimensions=self._dimensions, day=_FIRST_DAY + dt.timedelta(day)), _NANOUSD
        if price is None:
            self._numerator = None
            return
        numerator, self._denominator = price.as_integer_ratio()
        self._numerator = numerator * unit


def tokens_nanousd(price: decimal.Decimal, tokens: int) -> int:
    """Return the cost of tokens at a price in dollars per million, in nano-dollars, rounded up."""
    # Integers, because a product of decimals is rounded to the precision of the caller's decimal context.
    numerator, denominator = price.as_integer_ratio()
    return -(-numerator * _NANOUSD * tokens // denominator)


def read_services(text: str, *, where: str) -> tuple[ServiceFacts, ...]:
    """Read the models of one TOML file. Raises `ConfigError`, which names file, model, field, value and rule."""
    return tuple(_model(row) for row in file_table(text, where=where).rows("model"))


@functools.cache
def default_services() -> dict[str, ServiceFacts]:
    """Return the packaged models by lower-case name and alias. Raises ConfigError if two models have the same name."""
    packaged = resources.files("embedway.catalog").joinpath("services")
    found: list[ServiceFacts] = []
    for entry in sorted(packaged.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            found += read_services(entry.read_text(encoding="utf-8"), where=f"embedway/catalog/services/{entry.name}")
    return _by_name(found)


def _by_name(models: Iterable[ServiceFacts]) -> dict[str, ServiceFacts]:
    by_name: dict[str, ServiceFacts] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if by_name.setdefault(name.casefold(), model) is not model:
                raise ConfigError(f"the name {name!r} belongs to two models", where="embedway/catalog/services")
    return by_name


def _model(row: Table) -> ServiceFacts:
    row.only(("name", "aliases", "task", "sources", *_FACTS))
    name, aliases = names(row)
    task = cast("Task", row.one_of("task", TASKS)) if row.has("task") else "embed"
    embeds = task == "embed"
    if not embeds:
        refuse_vectors(row, (*_EMBED_FACTS, *_MORE_EMBED_FACTS))
    prices = {field: _price(row, field) for field in _PRICES}
    dated = tuple(_read_price(table) for table in row.tables("prices")) if row.has("prices") else ()
    if dated and prices["price_usd_per_million_tokens"] is not None:
        row.fail("prices", "", "set price_usd_per_million_tokens or prices, not both")
    if embeds and prices["price_usd_per_thousand_searches"] is not None:
        row.fail("price_usd_per_thousand_searches", "", "only rerankers are billed by search")
    facts = ServiceFacts(
        name=name,
        aliases=aliases,
        task=task,
        dimensions=row.positive("dimensions") if embeds else 0,
        matryoshka=matryoshka(row) if embeds else (),
        min_dimensions=_min_dimensions(row) if embeds else None,
        default_dimensions=_default_dimensions(row) if embeds else 0,
        max_tokens=row.positive("max_tokens"),
        tokenizer=row.matching("tokenizer", _TOKENIZER, _TOKENIZER_RULE),
        normalized=row.boolean("normalized") if embeds else False,
        languages=languages(row),
        price_usd_per_million_tokens=prices["price_usd_per_million_tokens"],
        price_usd_per_thousand_searches=prices["price_usd_per_thousand_searches"],
        family=row.text("family") if row.has("family") else "",
        query_prompt=row.text("query_prompt") if row.has("query_prompt") else "",
        document_prompt=row.text("document_prompt") if row.has("document_prompt") else "",
        licence=row.text("licence") if row.has("licence") else SERVICE,
        routes=tuple(_route(route) for route in row.tables("routes")),
        sources=tuple(source(table, known=_FACTS) for table in row.tables("sources")),
    )
    if dated:
        facts = replace(facts, prices=dated)
        facts = replace(facts, price_usd_per_million_tokens=facts.price())
    if not facts.routes:
        row.fail("routes", [], "name at least one provider that serves the model")
    check_sources(row, facts.sources, _FACTS)
    return facts


def _default_dimensions(row: Table) -> int:
    full = row.positive("dimensions")
    if not row.has("default_dimensions"):
        return full
    default = row.positive("default_dimensions")
    if default not in {full, *matryoshka(row)}:
        row.fail("default_dimensions", default, "it must be `dimensions` or one of `matryoshka`")
    return default


def _min_dimensions(row: Table) -> int | None:
    if not row.has("min_dimensions"):
        return None
    least = row.positive("min_dimensions")
    if fault := min_dimensions_fault(least, row.positive("dimensions"), matryoshka(row)):
        row.fail("min_dimensions", least, f"it {fault}")
    return least


def _price(row: Table, field: str) -> decimal.Decimal | None:
    if not row.has(field):
        return None
    return decimal.Decimal(row.matching(field, _PRICE, 'it must be dollars as a string, such as "0.02"'))


def _read_price(table: Table) -> Price:
    table.only(("since", "usd_per_million_tokens", "batch_usd_per_million_tokens", "dimensions"))
    price = _price(table, "usd_per_million_tokens")
    if price is None:
        table.fail("usd_per_million_tokens", None, "it is missing")
    return Price(
        table.date("since"),
        price,
        _price(table, "batch_usd_per_million_tokens"),
        table.items("dimensions", int) if table.has("dimensions") else (),
    )


def _route(table: Table) -> RouteFacts:
    table.only(("provider", "model", "options", "licence"))
    provider = table.matching("provider", _PROVIDER, "it must be the name of a provider, such as openai")
    options: dict[str, str] = {}
    if table.has("options"):
        inner = table.table("options")
        options = {name: inner.text(name) for name in inner.values}
    licence = table.text("licence") if table.has("licence") else ""
    return RouteFacts(provider, table.text("model"), MappingProxyType(options), licence)
