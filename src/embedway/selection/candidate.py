"""A model that can be selected: its benchmark, with what the catalog and this machine add to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway._public import public
from embedway.catalog.services import tokens_nanousd
from embedway.providers.counting import ESTIMATE

if TYPE_CHECKING:
    from embedway.config import ModelBenchmark


@public
@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of the texts for one model: of the longest text, and of all of them together.

    `own` says whether the model's own tokenizer counted, `sampled` whether `total` is extrapolated from a sample.
    """

    longest: int
    total: int
    own: bool
    sampled: bool = True


@public
@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that can be selected: its benchmark, with what the catalog and this machine add to it."""

    benchmark: ModelBenchmark
    #: Every size that it gives; empty for its benchmark's alone.
    sizes: tuple[int, ...] = ()
    max_tokens: int | None = None
    #: The reason why it cannot run here now; empty where it can.
    lacks: str = ""
    tokens: TokenEstimate | None = None
    #: A route of the model that leads to a server; empty for none, None where only its benchmark's provider is known.
    remote_route: str | None = None
    #: The key of its tokenizer: `tiktoken:ENCODING`, `file:PATH` or `estimate`.
    tokenizer: str = ESTIMATE

    @property
    def accuracy(self) -> float | None:
        """Quality score over 100, to 15 decimals: 64.6 gives 0.646 as it is written, and not its neighbour."""
        quality = self.benchmark.quality_score
        return None if quality is None else round(quality / 100, 15)

    @property
    def leaves_machine(self) -> str:
        """The reason why texts leave this machine with the model; empty where they stay."""
        if self.remote_route is not None:
            return leads_to_server(self.remote_route)
        return "" if self.benchmark.runs_here else f"{self.benchmark.provider} gets the texts"

    @property
    def context(self) -> int:
        """Tokens of a text that it reads."""
        own = self.benchmark.max_context_length
        return own if self.max_tokens is None else min(own, self.max_tokens)

    @property
    def cost_nanousd(self) -> int | None:
        """Cost of embedding the texts once; None where tokens or price are unknown."""
        price = self.benchmark.cost_per_million_tokens
        if price == 0:
            return 0
        if price is None or self.tokens is None:
            return None
        return tokens_nanousd(price, self.tokens.total)


def leads_to_server(route: str | None) -> str:
    """The reason why texts leave this machine by a route; empty for none."""
    return f"{route} leads to a server" if route else ""
