"""Models that services run: what is known of each, as data, beside the models whose weights are to be had."""

from __future__ import annotations

import decimal
import functools
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from embedway.catalog.rows import Table, file_table, languages, matryoshka, names, source
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedway.catalog.types import Source

_FACTS = (
    "dimensions",
    "matryoshka",
    "max_tokens",
    "tokenizer",
    "normalized",
    "languages",
    "price_usd_per_million_tokens",
    "routes",
)
_TOKENIZER = re.compile(r"tiktoken:[a-z0-9_]+")
_PRICE = re.compile(r"\d{1,6}(\.\d{1,6})?")
_PROVIDER = re.compile(r"[a-z][a-z0-9-]*")
#: Nano-dollars a token for one dollar a million tokens.
_NANOUSD = 1000


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """A provider that serves the model, and the provider's own name for it."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What is known of a model that services run. All of its routes answer in one vector space."""

    name: str
    aliases: tuple[str, ...]
    dimensions: int
    #: Sizes that vectors may be cut to, descending; empty for none.
    matryoshka: tuple[int, ...]
    max_tokens: int
    #: `tiktoken:ENCODING`: what counts its tokens exactly.
    tokenizer: str
    normalized: bool
    #: BCP 47 tags; `mul` alone where the source names no list.
    languages: tuple[str, ...]
    #: The list price in dollars, exact.
    price_usd_per_million_tokens: decimal.Decimal
    routes: tuple[RouteFacts, ...]
    sources: tuple[Source, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size that vectors may have, largest first."""
        return (self.dimensions, *self.matryoshka)

    def cost_nanousd(self, tokens: int) -> int:
        """What so many tokens cost by the list, in nano-dollars, a fraction of one rounded up."""
        cost = self.price_usd_per_million_tokens * _NANOUSD * tokens
        return int(cost.to_integral_value(decimal.ROUND_CEILING))


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
    row.only(("name", "aliases", "sources", *_FACTS))
    name, aliases = names(row)
    price = row.matching("price_usd_per_million_tokens", _PRICE, 'it must be dollars as a text, such as "0.02"')
    facts = ServiceFacts(
        name=name,
        aliases=aliases,
        dimensions=row.positive("dimensions"),
        matryoshka=matryoshka(row),
        max_tokens=row.positive("max_tokens"),
        tokenizer=row.matching("tokenizer", _TOKENIZER, "it must be tiktoken:ENCODING"),
        normalized=row.boolean("normalized"),
        languages=languages(row),
        price_usd_per_million_tokens=decimal.Decimal(price),
        routes=tuple(_route(route) for route in row.tables("routes")),
        sources=tuple(source(table, known=_FACTS) for table in row.tables("sources")),
    )
    if not facts.routes:
        row.fail("routes", [], "name at least one provider that serves the model")
    given = {fact for one in facts.sources for fact in one.facts}
    for fact in _FACTS:
        if fact not in given:
            row.fail(fact, row.values[fact], "no source of this row lists it among its facts")
    return facts


def _route(table: Table) -> RouteFacts:
    table.only(("provider", "model"))
    provider = table.matching("provider", _PROVIDER, "it must be the name of a provider, such as openai")
    return RouteFacts(provider, table.text("model"))
