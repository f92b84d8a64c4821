"""The provider contract, further abilities that a provider or reranker may have, and the contract of open models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from embedway.types import RateState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from embedway.providers.counting import TokenCounter
    from embedway.providers.library import LibraryFacts
    from embedway.types import InputType, Vectors


@dataclass(frozen=True, slots=True)
class Declared:
    """The properties of a provider, for one model, known before anything is sent.

    Limits are per request; None where there is none. `dimensions` and `input_type` tell whether the service honours
    those parameters: where it does not, vectors are cut and prompts are put before the texts on this side.
    """

    max_inputs: int
    max_request_tokens: int | None = None
    dimensions: bool = False
    input_type: bool = False
    #: Whether a vector depends on the other texts of its request (per-tensor quantization, late chunking): such vectors
    #: are never cached.
    batch_dependent: bool = False
    #: Whether nobody bills for it, whatever the model's price elsewhere.
    free: bool = False
    #: Whether it computes on this machine: then it takes as long as it takes, and no deadline of services holds.
    local: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors, float32 (n, d), row i of text i, and what the service told beside them.

    `tokens` is what it counted and bills, None where it does not say.
    """

    vectors: Vectors
    tokens: int | None = None
    rates: RateState = field(default_factory=RateState)
    #: What a reranker bills by the search.
    searches: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as what a provider is to work. `secret` is the key, `headers` go beside it; both are in no repr.

    `model` is the service's own name for the model; `options` are the route's further settings.
    """

    route: str
    model: str
    base_url: str = ""
    secret: str = field(default="", repr=False)
    timeout_s: float = 60.0
    options: Mapping[str, str] = field(default_factory=dict)
    #: What the model wants before its texts; a provider that declares `input_type` sees to it itself.
    prompts: Mapping[InputType, str] = field(default_factory=dict)
    #: What the environment has the service told, such as an organization.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def split_requests(
    rows: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int32],
    declared: Declared,
    *,
    tokens_per_minute: int | None = None,
) -> list[npt.NDArray[np.int64]]:
    """Rows in their order, in parts that keep a service's limits on the inputs and tokens of a request.

    No request has more tokens than a minute may have, unless a single text has.
    """
    bounds = [bound for bound in (declared.max_request_tokens, tokens_per_minute) if bound is not None]
    most = min(bounds, default=None)
    parts: list[npt.NDArray[np.int64]] = []
    start = total = 0
    for end, row in enumerate(rows):
        tokens = int(lengths[row])
        full = end - start >= declared.max_inputs or (most is not None and end > start and total + tokens > most)
        if full:
            parts.append(rows[start:end])
            start, total = end, 0
        total += tokens
    if start < len(rows):
        parts.append(rows[start:])
    return parts


class Provider(Protocol):
    """Code that can embed a batch of texts: one call, one answer or one error.

    No retries, no cache, no limits and no metrics inside: those are around it. A provider is found by the entry
    point group `embedway.providers`; the entry is a callable that takes an `Endpoint`.
    """

    @property
    def declared(self) -> Declared:
        """Limits, and the parameters that the service honours."""

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed at most `declared.max_inputs` texts.

        `dimensions` is None for the full width, and only ever set where `declared.dimensions`. Raises `UpstreamError`s
        and `BadVectorsError`. Cancelling it ends the request.
        """

    async def aclose(self) -> None:
        """Give connections back."""


@runtime_checkable
class CountsTokens(Protocol):
    """A provider, or reranker, that holds its model's tokenizer."""

    def counter(self, max_tokens: int) -> TokenCounter:
        """A counter of the model's tokens, equal to that of the library that runs it. Blocking; may load the model."""


@runtime_checkable
class KnowsWeights(Protocol):
    """A provider that has a model's weights itself. `variant` is how it computes, as far as numbers depend on it."""

    @property
    def variant(self) -> str:
        """Such as a precision; empty for the usual."""

    def weights(self) -> str:
        """An identifier of the weights and of how they are read. Blocking; loads the model."""


@runtime_checkable
class KnowsTokenizer(Protocol):
    """A provider that tokenizes itself, so that its tokenizer is a fact of the vector space."""

    def tokenizer_json(self) -> str:
        """The tokenizer as a tokenizer.json writes it. Blocking; loads the model."""


@runtime_checkable
class DescribesModel(CountsTokens, Protocol):
    """A provider whose library knows its models better than any catalog."""

    def facts(self) -> LibraryFacts:
        """Load the model and tell what it is. Blocking."""
