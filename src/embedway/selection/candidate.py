"""A model that can be selected: its benchmark, with facts from the catalog and this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway._public import public
from embedway.catalog.licences import is_non_commercial
from embedway.catalog.services import tokens_nanousd
from embedway.providers.counting import ESTIMATE
from embedway.sizes import VectorSizes

if TYPE_CHECKING:
    from embedway.config import ModelBenchmark
    from embedway.space import InputType

#: Start of the reason of a model that runs here once `embedway models pull` has its files.
WEIGHTS_MISSING = "weights missing: embedway models pull"


@public
@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Token counts of the texts for one model: of the longest text, and in total.

    `own` is true if the model's own tokenizer counted, `sampled` if `total` is extrapolated from a sample. `longest`
    includes the prompt and special tokens, and is extrapolated if `about` is true.
    """

    longest: int
    total: int
    own: bool
    sampled: bool = True
    about: bool = False


@public
@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that can be selected: its benchmark, with facts from the catalog and this machine."""

    benchmark: ModelBenchmark
    #: Vector sizes that the maker trained or evaluated; if empty, only the benchmark's size.
    sizes: tuple[int, ...] = ()
    max_tokens: int | None = None
    #: Reason why it cannot run here now; empty if it can.
    lacks: str = ""
    tokens: TokenEstimate | None = None
    #: Route of the model to a server; empty for none, None if only its benchmark's provider is known.
    remote_route: str | None = None
    #: Key of its tokenizer: `tiktoken:ENCODING`, `file:PATH`, `lowercase:PATH` or `estimate`.
    tokenizer: str = ESTIMATE
    #: Smallest size if every size up to the first of `sizes` is supported.
    min_dimensions: int | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    #: Licence of the use over its routes; empty if it is that of the benchmark.
    route_licence: str = ""
    #: Whether it has a benchmark; if not, `benchmark` holds only the facts of the settings.
    has_benchmark: bool = True

    @property
    def supported_sizes(self) -> VectorSizes:
        """All sizes that its vectors may have."""
        return VectorSizes(self.sizes or (self.benchmark.embedding_dimensions,), self.min_dimensions)

    @property
    def licence(self) -> str:
        """SPDX identifier of the licence, or `service` if a service's terms apply; empty if unknown."""
        own = self.route_licence or self.benchmark.licence
        return "" if own == "unknown" else own

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return is_non_commercial(self.licence)

    @property
    def accuracy(self) -> float | None:
        """Quality score divided by 100, rounded to 15 decimals, so that 64.6 becomes exactly the float 0.646."""
        quality = self.benchmark.quality_score
        return None if quality is None else round(quality / 100, 15)

    @property
    def leaves_machine(self) -> str:
        """Reason why texts leave this machine with the model; empty if they do not."""
        if self.remote_route is not None:
            return leads_to_server(self.remote_route)
        return "" if self.benchmark.runs_here else f"the texts are sent to {self.benchmark.provider}"

    @property
    def context(self) -> int:
        """Maximum tokens per text."""
        own = self.benchmark.max_context_length
        return own if self.max_tokens is None else min(own, self.max_tokens)

    def prompt(self, input_type: InputType) -> str:
        """Return the prompt to put before a text of this input type."""
        return self.query_prompt if input_type == "query" else self.document_prompt

    @property
    def cost_nanousd(self) -> int | None:
        """Cost of embedding the texts once, in nano-dollars; None if tokens or price are unknown."""
        price = self.benchmark.cost_per_million_tokens
        if price == 0:
            return 0
        if price is None or self.tokens is None:
            return None
        return tokens_nanousd(price, self.tokens.total)


def leads_to_server(route: str | None) -> str:
    """Return the reason why texts leave this machine by a route; empty without a route."""
    return f"{route} is a route to a server" if route else ""
