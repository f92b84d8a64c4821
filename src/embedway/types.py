"""Shared value types. All are frozen; do not write to the arrays in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from embedway._public import public
from embedway.money import to_usd, usd
from embedway.space import InputType, Pooling, Space

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from embedway.errors import EmbedwayError

__all__ = ["InputType", "Pooling", "Space"]

#: Handling of a text over the model's limit: truncate it, raise an error, or embed its windows and average their
#: vectors.
Overflow: TypeAlias = Literal["truncate", "error", "mean"]
Vectors: TypeAlias = npt.NDArray[np.float32]
#: One text, or an iterable of texts that is read once; a text may be a list of token ids (see `AsyncEmbedder.embed`).
Texts: TypeAlias = str | Iterable[str | list[int] | tuple[int, ...]]

#: Encoding of a vector's numbers in a cache; all except the first are lossy.
CodecName: TypeAlias = Literal["f32", "f16", "i8"]

#: Factor for reserving estimated tokens, because the service's own count may be higher.
ESTIMATE_MARGIN = 2


@public
class EncodedText(Protocol):
    """A tokenized text."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids."""

    @property
    def offsets(self) -> Sequence[tuple[int, int]]:
        """Start and end character of each token."""


@public
class PlainTokenizer(Protocol):
    """A model's tokenizer without padding and truncation, such as one of the `tokenizers` library."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> EncodedText:
        """Tokenize a text."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """A caller's request."""

    texts: tuple[str, ...]
    model: str = "auto"
    input_type: InputType = "document"
    dimensions: int | None = None
    on_overflow: Overflow = "truncate"
    #: Return errors per row instead of failing the request.
    partial: bool = False
    #: Rows that cannot be embedded, with their errors; empty unless `partial`.
    refused: Mapping[int, EmbedwayError] = field(default_factory=dict)
    #: 0 to 9; above 5 the request never waits for the work of other callers.
    priority: int = 0
    #: Whether the caller is assumed to wait for it; None for queries.
    is_interactive: bool | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One rate limit that a service reported; None where it did not. `window_s` is None if its period is unknown."""

    kind: Literal["requests", "tokens"]
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    window_s: float | None = None


@dataclass(frozen=True, slots=True)
class RateState:
    """Rate limits that a service reported with an answer; None where it did not.

    The limits of the first six fields are per minute, unless their reset is later. `more` are limits of other periods.
    """

    requests_limit: int | None = None
    requests_remaining: int | None = None
    requests_reset_s: float | None = None
    tokens_limit: int | None = None
    tokens_remaining: int | None = None
    tokens_reset_s: float | None = None
    more: tuple[RateLimit, ...] = ()


#: State of a service that reports no limits.
NO_RATES = RateState()


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Limits of one request that a service named when it refused one; None where it named none."""

    max_inputs: int | None = None
    max_request_tokens: int | None = None
    #: Maximum tokens of one text.
    max_tokens: int | None = None


@public
@dataclass(frozen=True, slots=True)
class Truncation:
    """A text that was truncated at the model's limit. Characters are exact; they do not include the prompt.

    `lost_tokens` is None if the text was so long that its end was never tokenized.
    """

    row: int
    kept_tokens: int
    kept_characters: int
    lost_characters: int
    lost_tokens: int | None


@public
@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The space, limits and tokenizer of a loaded model. `tokenizer` neither pads nor truncates."""

    model: str
    space: Space
    #: Sizes that the maker trained or evaluated, full size first.
    sizes: tuple[int, ...]
    max_tokens: int
    special_tokens: int
    tokenizer: PlainTokenizer = field(repr=False)
    runtime: str
    #: Smallest size if every size up to the full one is supported; None for `sizes` only.
    min_dimensions: int | None = None
    #: Settings that change the numbers and not the space, such as the precision.
    variant: str = ""


@public
@dataclass(frozen=True, slots=True)
class Averaged:
    """A text over the model's limit whose vector is the mean of its windows' vectors, weighted by tokens.

    Such a vector represents the complete text, and is not one that the model returns for any text.
    """

    row: int
    windows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class TextMeta:
    """Metadata of a text. `truncation` always has row 0, whatever the row of the text.

    `codec` is the encoding of the cache entry that the vector was read from.
    """

    tokens: int
    truncation: Truncation | None = None
    windows: int = 0
    codec: CodecName = "f32"


@public
@dataclass(frozen=True, slots=True)
class Bill:
    """The bill of a computation: tokens and nano-dollars, batches or requests, and the routes that answered."""

    tokens: int
    cost_nanousd: int | None
    attempts: int
    routes: tuple[str, ...]
    estimated: bool = False
    searches: int = 0
    #: Possible cost of failed requests, and cost of implausible usage, in nano-dollars; included in the cost.
    unsure: int = 0
    #: The ledger's entries.
    entries: tuple[str, ...] = ()
    #: Notes of the request; see `Receipt.notes`.
    notes: tuple[str, ...] = ()

    def __add__(self, other: Bill) -> Bill:
        """Return the sum of two bills; the cost is None if one of the costs is None."""
        known = self.cost_nanousd is not None and other.cost_nanousd is not None
        return Bill(
            self.tokens + other.tokens,
            (self.cost_nanousd or 0) + (other.cost_nanousd or 0) if known else None,
            self.attempts + other.attempts,
            tuple(dict.fromkeys((*self.routes, *other.routes))),
            estimated=self.estimated or other.estimated,
            searches=self.searches + other.searches,
            unsure=self.unsure + other.unsure,
            entries=(*self.entries, *other.entries),
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """Texts as token ids, unpadded, special tokens included. `lengths` is int32 (n,)."""

    ids: tuple[npt.NDArray[np.int32], ...]
    lengths: npt.NDArray[np.int32]
    truncations: tuple[Truncation, ...] = ()
    #: Segment (0 or 1) of each token, for pairs of texts; empty for single texts.
    types: tuple[npt.NDArray[np.int32], ...] = ()

    @property
    def tokens(self) -> int:
        """Total tokens of the model's input, special tokens included."""
        return int(self.lengths.sum(dtype=np.int64))

    def only(self, rows: npt.NDArray[np.int64]) -> TokenizedTexts:
        """Return some of the texts, without their truncations."""
        ids = tuple(self.ids[row] for row in rows) if self.ids else ()
        types = tuple(self.types[row] for row in rows) if self.types else ()
        return TokenizedTexts(ids, self.lengths[rows], types=types)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are computed together. `rows` is int64 (b,), positions among the unique texts of a plan."""

    rows: npt.NDArray[np.int64]
    #: Length of the longest row in tokens; the batch computes `len(rows) * width` tokens.
    width: int
    #: Whether it has texts of several callers.
    shared: bool = False
    #: Whether it has queries of several callers, who wait.
    query: bool = False

    @property
    def padded_tokens(self) -> int:
        """Tokens computed, padding included."""
        return len(self.rows) * self.width


@dataclass(frozen=True, slots=True)
class Spread:
    """Division of a small request on this machine: among all streams, or undivided, with all threads for each batch."""

    streams: int
    #: Maximum tokens of a request that is not divided; 0 if no session has all threads for one batch.
    whole_tokens: int


@public
@dataclass(frozen=True, slots=True)
class Plan:
    """The estimated work and cost of a request, before anything is computed."""

    model: str
    route: str
    space: Space
    input_type: InputType
    texts: int
    unique_texts: int
    tokens: int
    padded_tokens: int
    batches: int
    truncations: tuple[Truncation, ...]
    #: Cost in nano-dollars; None if no price is known. Local models cost nothing.
    cost_nanousd: int | None
    #: Whether tokens were estimated, because no tokenizer of the model is available.
    estimated: bool = False
    #: Texts over the limit that are averaged from windows.
    averaged: tuple[Averaged, ...] = ()
    #: Unique texts that are cache hits. The fields below, `batches` and `cost_nanousd` do not include them.
    cached_texts: int = 0
    #: Tokens to compute, which a service bills.
    billed_tokens: int = 0
    #: Requests to a service; 0 for local models.
    requests: int = 0
    #: Cost with the service's batch API, in nano-dollars; None if there is none or its price is unknown.
    batch_cost_nanousd: int | None = None
    #: Estimated seconds, from the model's benchmark; None without a benchmark.
    seconds: float | None = None
    #: Remarks, such as requirements that the selected model does not meet, or that the plan is of a backup.
    notes: tuple[str, ...] = ()

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in dollars, exactly; None if no price is known."""
        return to_usd(self.cost_nanousd)

    @property
    def most_nanousd(self) -> int | None:
        """Nano-dollars to reserve: the cost, doubled if tokens are estimated; None if no price is known."""
        return self.cost_nanousd and self.cost_nanousd * (ESTIMATE_MARGIN if self.estimated else 1)


@public
@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent per step; `compute_s` is the wall time from the first batch's start to the last batch's end."""

    tokenize_s: float = 0.0
    compute_s: float = 0.0
    total_s: float = 0.0


@public
@dataclass(frozen=True, slots=True)
class Selected:
    """Result of a model selection. `ranked` lists every model that met the criteria with its score, best first."""

    model: str
    score: float
    ranked: tuple[tuple[str, float], ...]
    criteria: Mapping[str, object] = field(default_factory=dict)
    #: Better models that were skipped because they may cost more than `max_cost`, with their cost in nano-dollars.
    too_expensive: tuple[tuple[str, int | None], ...] = ()
    #: Notes on criteria that the model does not meet; also in `Receipt.notes`.
    warnings: tuple[str, ...] = ()


@public
@dataclass(frozen=True, slots=True)
class VectorChecks:
    """Checks of a request's vectors that passed, and those that warned; a failed check is an error.

    Similarities are cosines of a bounded sample of vectors of different texts; None if it has fewer than two.
    """

    #: Unique texts whose vectors were checked.
    texts: int
    mean_similarity: float | None = None
    greatest_similarity: float | None = None
    #: Names of the checks that warned (`embedway.quality.names`); `Receipt.notes` explains each.
    warnings: tuple[str, ...] = ()


@public
@dataclass(frozen=True, slots=True)
class Receipt:
    """Tokens, cost, time and routes of a finished request."""

    model: str
    route: str
    space_id: str
    texts: int
    unique_texts: int
    tokens: int
    billed_tokens: int
    cost_nanousd: int | None
    cache_hits: int
    #: Number of batches computed, or of requests sent, including failed ones.
    attempts: int
    truncations: tuple[Truncation, ...]
    timing: Timing
    #: Runtime that computed the vectors, such as `openvino bf16, 1 stream x 2 threads`.
    runtime: str
    #: The routes that answered; more than one after a failover.
    routes: tuple[str, ...] = ()
    #: Whether `billed_tokens` and the cost are our own count, because a service did not report what it bills.
    estimated: bool = False
    #: Whether `tokens` and the positions of truncations were estimated, because no tokenizer of the model is available.
    tokens_estimated: bool = False
    #: Texts over the limit whose vectors are means of their windows' vectors.
    averaged: tuple[Averaged, ...] = ()
    #: Searches that a reranking service bills; 0 if it bills tokens.
    billed_searches: int = 0
    #: Part of the cost, in nano-dollars, for implausible usage and failed requests that a service may have processed.
    unsure_nanousd: int = 0
    #: Cost that cache hits saved, in nano-dollars: our count at today's price.
    saved_nanousd: int = 0
    collection: str = ""
    #: Result of the model selection; None if the call or its collection named the model.
    selected: Selected | None = None
    #: Ledger entries that contain the cost.
    ledger_entries: tuple[str, ...] = ()
    #: Cache hits that were stored with a lossy codec (`cache.codec`).
    lossy_hits: int = 0
    #: One sentence for each unusual fact: a failed cache, learned limits, implausible usage, answers without `index`.
    notes: tuple[str, ...] = ()
    #: Checks of the vectors; None for scores.
    checks: VectorChecks | None = None
    #: Tokens of all texts, those of repeated texts included; `tokens` counts each unique text once.
    input_tokens: int = 0

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in dollars, exactly; None if no price is known."""
        return to_usd(self.cost_nanousd)


@public
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EmbedResult:
    """Vectors, float32 (n, d), row i of text i; their space; and the receipt.

    `len(result)`, `result[i]`, iteration and `np.asarray(result)` are those of `vectors`. `errors` maps a row to the
    reason why it has no vector. It is empty unless partial results were requested; such rows are NaN.
    """

    vectors: Vectors
    space: Space
    receipt: Receipt
    errors: Mapping[int, EmbedwayError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: Any) -> Vectors:
        selected: Vectors = self.vectors[rows]
        return selected

    def __iter__(self) -> Iterator[Vectors]:
        return iter(self.vectors)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False and dtype is not None and np.dtype(dtype) != self.vectors.dtype:
            raise ValueError("vectors are float32; another type needs a copy")
        return self.vectors.astype(np.float32 if dtype is None else dtype, copy=bool(copy))

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} failed" if self.errors else ""
        rows, width = self.vectors.shape
        return f"<EmbedResult {rows} x {width}, space {self.space.id!r}, {_summary(self.receipt)}{failed}>"


@public
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RerankResult:
    """Scores, float32 (n,), of document i; and the positions of the documents that answer the query best.

    Scores are the model's own: comparable among the documents of one query, not between models. `order` contains the
    positions of the best documents, best first, equal scores in the order of the documents, at most `top_n` of them.
    `errors` maps a document to the reason why it has no score. It is empty unless partial results were requested; such
    scores are NaN, and not in `order`.
    """

    scores: Vectors
    order: tuple[int, ...]
    receipt: Receipt
    errors: Mapping[int, EmbedwayError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        best = f", best {self.order[0]} with {self.scores[self.order[0]]:.4f}" if self.order else ""
        failed = f", {len(self.errors)} failed" if self.errors else ""
        return f"<RerankResult {len(self.scores)} documents{best}, {_summary(self.receipt)}{failed}>"


def _summary(receipt: Receipt) -> str:
    cost = "unknown cost" if receipt.cost_nanousd is None else f"${usd(receipt.cost_nanousd)}"
    return f"{receipt.tokens} tokens, {receipt.cache_hits} of {receipt.unique_texts} cached, {cost}"
