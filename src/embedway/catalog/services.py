"""Models that services run: what is known of each, as data, beside the models whose weights are to be had."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import re
from dataclasses import dataclass, field, replace
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedway.catalog.types import Source, Task

_SHARED_FACTS = ("max_tokens", "tokenizer", "languages", "routes")
#: A reranker has no vectors, so nothing of these.
_EMBED_FACTS = ("dimensions", "matryoshka", "normalized")
#: Given where they are known, or where there is any.
_PRICES = ("price_usd_per_million_tokens", "price_usd_per_thousand_searches")
#: Or a price for each time, and for single sizes, with the batch API's where there is one.
_DATED = ("prices",)
_MORE_FACTS = (*_PRICES, *_DATED, "default_dimensions", "family", "query_prompt", "document_prompt", "licence")
_FACTS = (*_SHARED_FACTS, *_EMBED_FACTS, *_MORE_FACTS)
_TOKENIZER = re.compile(r"tiktoken:[a-z0-9_]+|hub:[\w.-]+/[\w.-]+|library|estimate", re.ASCII)
_TOKENIZER_RULE = "it must be tiktoken:ENCODING, hub:OWNER/NAME, library, or estimate"
_PRICE = re.compile(r"\d{1,6}(\.\d{1,6})?")
_PROVIDER = re.compile(r"[a-z][a-z0-9-]*")
#: Nano-dollars a token for one dollar a million tokens.
_NANOUSD = 1000
#: Nano-dollars a search for one dollar a thousand searches.
_NANOUSD_A_SEARCH = 1_000_000


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """A provider that serves the model, the provider's own name for it, and what the provider must be told."""

    provider: str
    model: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens from a day (UTC) on, until the next price of the same sizes."""

    since: dt.date
    usd_per_million_tokens: decimal.Decimal
    #: Through the provider's batch API, which answers within a day; None where there is none.
    batch_usd_per_million_tokens: decimal.Decimal | None = None
    #: The sizes of vectors that it holds for; empty for all.
    dimensions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The facts of a model that services or other libraries run. All of its routes answer in one vector space."""

    name: str
    max_tokens: int
    #: What counts its tokens: `tiktoken:ENCODING`, `hub:OWNER/NAME` for a repository's tokenizer.json, `library` for
    #: the library that runs it, `estimate` where no tokenizer is published.
    tokenizer: str
    normalized: bool
    aliases: tuple[str, ...] = ()
    task: Task = "embed"
    #: 0 for rerankers.
    dimensions: int = 0
    #: Sizes that vectors may be cut to, descending; empty for none.
    matryoshka: tuple[int, ...] = ()
    #: The size that is given where none is asked for.
    default_dimensions: int = 0
    #: BCP 47 tags; `mul` alone where the source names no list.
    languages: tuple[str, ...] = ("mul",)
    #: The list price in dollars, exact; None where none is known.
    price_usd_per_million_tokens: decimal.Decimal | None = None
    #: What a search costs; a search is a query over at most 100 documents, as Cohere counts.
    price_usd_per_thousand_searches: decimal.Decimal | None = None
    #: The name of the vector space that models of one family share; empty for a space of its own.
    family: str = ""
    #: Put before texts on this side; services that take an input type put their own.
    query_prompt: str = ""
    document_prompt: str = ""
    #: An SPDX identifier, or `service` for what is used by a service's terms.
    licence: str = "unknown"
    routes: tuple[RouteFacts, ...] = ()
    sources: tuple[Source, ...] = ()
    #: Prices by time and size; where there are any, `price_usd_per_million_tokens` is the one of the day of loading.
    prices: tuple[Price, ...] = ()
    #: What tells the weights of a model of the settings from those it had before; empty for none.
    revision: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size that vectors may have, largest first."""
        return (self.dimensions, *self.matryoshka)

    @property
    def names(self) -> frozenset[str]:
        """Name and aliases, in lower case."""
        return frozenset(name.casefold() for name in (self.name, *self.aliases))

    def price(
        self, *, dimensions: int | None = None, day: dt.date | None = None, batch: bool = False
    ) -> decimal.Decimal | None:
        """Dollars per million tokens for vectors of a size on a day (UTC, today by default), or through the batch API.

        None where no price is known.
        """
        day = day or dt.datetime.now(dt.UTC).date()
        size = dimensions or self.default_dimensions
        held = [one for one in self.prices if one.since <= day and (not one.dimensions or size in one.dimensions)]
        if held:
            # A price for this size alone goes before one for all, and the newest before older ones.
            best = max(held, key=lambda one: (bool(one.dimensions), one.since))
            return best.batch_usd_per_million_tokens if batch else best.usd_per_million_tokens
        return None if batch or self.prices else self.price_usd_per_million_tokens

    def cost_nanousd(self, tokens: int, searches: int = 0, *, dimensions: int | None = None) -> int | None:
        """The cost of a number of tokens, or searches, by today's list, in nano-dollars, a fraction of one rounded up.

        None where no price is known.
        """
        if self.price_usd_per_thousand_searches is not None:
            cost = self.price_usd_per_thousand_searches * _NANOUSD_A_SEARCH * searches
            return int(cost.to_integral_value(decimal.ROUND_CEILING))
        price = self.price(dimensions=dimensions) if self.prices else self.price_usd_per_million_tokens
        return None if price is None else tokens_nanousd(price, tokens)


def tokens_nanousd(price: decimal.Decimal, tokens: int) -> int:
    """The cost of tokens at a price in dollars per million, in nano-dollars, a fraction of one rounded up.

    In whole numbers, because a product of decimals is rounded to the digits of the caller's decimal context.
    """
    numerator, denominator = price.as_integer_ratio()
    return -(-numerator * _NANOUSD * tokens // denominator)


def read_services(text: str, *, where: str) -> tuple[ServiceFacts, ...]:
    """The models of one TOML file. Raises `ConfigError` naming file, model, field, value and rule."""
    return tuple(_model(row) for row in file_table(text, where=where).rows("model"))


@functools.cache
def default_services() -> dict[str, ServiceFacts]:
    """The packaged models by every name and alias, in lower case. Raises ConfigError if two claim one name."""
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
        refuse_vectors(row, (*_EMBED_FACTS, "default_dimensions", "family", "query_prompt", "document_prompt"))
    prices = {field: _price(row, field) for field in _PRICES}
    dated = tuple(_read_price(table) for table in row.tables("prices")) if row.has("prices") else ()
    if dated and prices["price_usd_per_million_tokens"] is not None:
        row.fail("prices", "", "give price_usd_per_million_tokens or prices, not both")
    if embeds and prices["price_usd_per_thousand_searches"] is not None:
        row.fail("price_usd_per_thousand_searches", "", "only rerankers are paid by the search")
    facts = ServiceFacts(
        name=name,
        aliases=aliases,
        task=task,
        dimensions=row.positive("dimensions") if embeds else 0,
        matryoshka=matryoshka(row) if embeds else (),
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
        licence=row.text("licence") if row.has("licence") else "service",
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


def _price(row: Table, field: str) -> decimal.Decimal | None:
    if not row.has(field):
        return None
    return decimal.Decimal(row.matching(field, _PRICE, 'it must be dollars as a text, such as "0.02"'))


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
    table.only(("provider", "model", "options"))
    provider = table.matching("provider", _PROVIDER, "it must be the name of a provider, such as openai")
    options: dict[str, str] = {}
    if table.has("options"):
        inner = table.table("options")
        options = {name: inner.text(name) for name in inner.values}
    return RouteFacts(provider, table.text("model"), MappingProxyType(options))
