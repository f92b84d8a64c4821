"""The provider contract, and optional protocols of providers and rerankers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from embedway.types import RateState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from embedway.providers.counting import TokenCounter
    from embedway.providers.library import LibraryFacts
    from embedway.types import InputType, Vectors


@dataclass(frozen=True, slots=True)
class Declared:
    """Static properties of a provider for one model.

    Limits are per request; None means no limit. `dimensions` and `input_type` are true if the service supports these
    parameters; if not, embedway truncates the vectors and puts the prompts before the texts.
    """

    max_inputs: int
    max_request_tokens: int | None = None
    dimensions: bool = False
    input_type: bool = False
    #: Whether a vector depends on the other texts in its request (per-tensor quantization, late chunking): such vectors
    #: are never cached.
    batch_dependent: bool = False
    #: Whether this provider is free of charge, even if the model has a price elsewhere.
    free: bool = False
    #: Whether it computes on this machine. The deadline for services does not apply then.
    local: bool = False


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of a request that the user sets, in a route's options and in the settings; None for no limit."""

    max_inputs: int | None = None
    max_request_tokens: int | None = None

    def applied_to(self, declared: Declared) -> Declared:
        """Return declared properties within these limits."""
        if self.max_inputs is None and self.max_request_tokens is None:
            return declared
        return replace(
            declared,
            max_inputs=lowest(declared.max_inputs, self.max_inputs) or declared.max_inputs,
            max_request_tokens=lowest(declared.max_request_tokens, self.max_request_tokens),
        )


def lowest(*limits: int | None) -> int | None:
    """Return the lowest limit; None if there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors, float32 (n, d), row i for text i, and the service's usage data.

    `tokens` is the number of billed tokens, None or 0 if the service does not report it.
    """

    vectors: Vectors
    tokens: int | None = None
    rates: RateState = field(default_factory=RateState)
    #: Searches that a reranker bills; None or 0 if not reported.
    searches: int | None = None
    #: Whether the service left out the index of rows, so that they are in the order in which they arrived.
    by_position: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Location, credentials and options of a provider. `secret` is the key; it and `headers` are not in the repr.

    `model` is the service's own name for the model; `options` are the route's other settings.
    """

    route: str
    model: str
    base_url: str = ""
    secret: str = field(default="", repr=False)
    timeout_s: float = 60.0
    options: Mapping[str, str] = field(default_factory=dict)
    #: The model's prompts; a provider that declares `input_type` applies them itself.
    prompts: Mapping[InputType, str] = field(default_factory=dict)
    #: Headers of each request, from the route and the environment, such as an organization.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: How requests are authorized: `key`, `bearer`, `entra`, or `none` for headers alone.
    auth: str = "key"
    #: Files of the key (under an empty name) and of headers, read again when they change.
    files: Mapping[str, Path] = field(default_factory=dict)
    #: File of the certificates of trusted authorities; None for those of the environment.
    ca_file: Path | None = None
    #: Whether plain http to another machine is allowed.
    allow_http: bool = False
    #: Source of the key or of the headers in words, for the error if the service refuses them.
    credential: str = "api_key"
    #: Whether the key in the provider's usual variable is sent to this URL, without `api_key_env`.
    takes_usual_key: bool = True


def sum_of(lengths: npt.NDArray[np.int32]) -> int:
    """Return the tokens of texts with these lengths. Numpy takes ten times as long for one text."""
    return int(lengths.item()) if len(lengths) == 1 else int(lengths.sum(dtype="int64"))


def split_requests(
    rows: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int32],
    declared: Declared,
    *,
    tokens_per_minute: int | None = None,
) -> list[npt.NDArray[np.int64]]:
    """Split rows, in order, into requests within a service's limits on inputs and tokens.

    No request has more tokens than `tokens_per_minute`, unless a single text has.
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
    """A provider that embeds a batch of texts: one call, one answer or one error.

    It has no retries, cache, limits or metrics: those are outside. Providers are discovered by the entry point group
    `embedway.providers`; the entry is a callable that accepts an `Endpoint`.
    """

    @property
    def declared(self) -> Declared:
        """Limits, and the parameters that the service supports."""

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed at most `declared.max_inputs` texts.

        `dimensions` is None for the full width; it is only set if `declared.dimensions`. Raises `UpstreamError`s and
        `BadVectorsError`. Cancelling the call cancels the request.
        """

    async def aclose(self) -> None:
        """Close connections."""


@runtime_checkable
class CountsTokens(Protocol):
    """A provider or reranker that has its model's tokenizer."""

    def counter(self, max_tokens: int) -> TokenCounter:
        """Return a token counter that agrees with the library's tokenizer. Blocking; may load the model."""


@runtime_checkable
class KnowsWeights(Protocol):
    """A provider that loads a model's weights itself. `variant` names settings that change the numbers."""

    @property
    def variant(self) -> str:
        """Variant of the computation, such as a precision; empty for the default."""

    def weights(self) -> str:
        """Return an identifier of the weights and of the options that change vectors. Blocking; loads the model."""


@runtime_checkable
class KnowsTokenizer(Protocol):
    """A provider that tokenizes itself, so its tokenizer is a fact of the vector space."""

    def tokenizer_json(self) -> str:
        """Return the tokenizer in the format of tokenizer.json. Blocking; loads the model."""


@runtime_checkable
class DescribesModel(CountsTokens, Protocol):
    """A provider whose library reports the facts of its models, in place of the catalog."""

    def facts(self) -> LibraryFacts:
        """Load the model and return its facts. Blocking."""
