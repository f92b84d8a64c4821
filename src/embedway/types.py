"""The values that pass through embedway. All are frozen; arrays in them are not to be written to."""

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

#: What happens to a text over the model's limit: its end is cut off, it is an error, or its windows are embedded and
#: their vectors averaged.
Overflow: TypeAlias = Literal["truncate", "error", "mean"]
Vectors: TypeAlias = npt.NDArray[np.float32]
#: One text, or an iterable of texts that is read once; a text may be a list of token ids (see `AsyncEmbedder.embed`).
Texts: TypeAlias = str | Iterable[str | list[int] | tuple[int, ...]]

#: How a cache keeps the numbers of a vector; all but the first lose some digits.
CodecName: TypeAlias = Literal["f32", "f16", "i8"]

#: Where tokens are estimated, so many times the estimate is reserved: the service counts for itself.
ESTIMATE_MARGIN = 2


@public
class EncodedText(Protocol):
    """A text as tokens."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids."""

    @property
    def offsets(self) -> Sequence[tuple[int, int]]:
        """From which character to which each token stands for."""


@public
class PlainTokenizer(Protocol):
    """A model's tokenizer that neither pads nor cuts; the `tokenizers` library's is one."""

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
    #: Errors go with their rows instead of ending the request.
    partial: bool = False
    #: Rows that cannot be embedded, and why; empty unless `partial`.
    refused: Mapping[int, EmbedwayError] = field(default_factory=dict)
    #: 0 to 9; above 5 it never waits for the work of other callers.
    priority: int = 0


@dataclass(frozen=True, slots=True)
class RateState:
    """A service's rate limits, as it told them with an answer; None where it did not."""

    requests_limit: int | None = None
    requests_remaining: int | None = None
    requests_reset_s: float | None = None
    tokens_limit: int | None = None
    tokens_remaining: int | None = None
    tokens_reset_s: float | None = None


#: A service that told nothing of its limits.
NO_RATES = RateState()


@public
@dataclass(frozen=True, slots=True)
class Truncation:
    """A text that was cut at the model's limit. Characters are exact; they do not count the prompt.

    `lost_tokens` is None when the text was so long that its end was never tokenized.
    """

    row: int
    kept_tokens: int
    kept_characters: int
    lost_characters: int
    lost_tokens: int | None


@public
@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The space, limits and tokenizer of an opened model. `tokenizer` neither pads nor truncates."""

    model: str
    space: Space
    sizes: tuple[int, ...]
    max_tokens: int
    special_tokens: int
    tokenizer: PlainTokenizer
    runtime: str


@public
@dataclass(frozen=True, slots=True)
class Averaged:
    """A text over the model's limit whose vector is the mean of its windows', by their tokens.

    Such a vector stands for the whole text, and is none that the model gives for any text.
    """

    row: int
    windows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class TextMeta:
    """Facts of a text beside its vector. `truncation` has row 0, whatever row the text comes in.

    `codec` is how the cache entry held the vector that it was read from.
    """

    tokens: int
    truncation: Truncation | None = None
    windows: int = 0
    codec: CodecName = "f32"


@dataclass(frozen=True, slots=True)
class Bill:
    """The bill of a computation: tokens and nano-dollars, batches or requests, and the routes that answered."""

    tokens: int
    cost_nanousd: int | None
    attempts: int
    routes: tuple[str, ...]
    estimated: bool = False
    searches: int = 0
    #: What failed requests may have cost, which is in the cost.
    unsure: int = 0
    #: The ledger's entries.
    entries: tuple[str, ...] = ()

    def __add__(self, other: Bill) -> Bill:
        """Two bills as one; its cost is None where one of theirs is."""
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
        )


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """Texts as token ids, unpadded, special tokens included. `lengths` is int32 (n,)."""

    ids: tuple[npt.NDArray[np.int32], ...]
    lengths: npt.NDArray[np.int32]
    truncations: tuple[Truncation, ...] = ()
    #: Which of two texts each token belongs to, for pairs; empty for single texts.
    types: tuple[npt.NDArray[np.int32], ...] = ()

    @property
    def tokens(self) -> int:
        """All tokens that the model will see, special tokens included."""
        return int(self.lengths.sum(dtype=np.int64))

    def only(self, rows: npt.NDArray[np.int64]) -> TokenizedTexts:
        """Some of the texts; their truncations are left out."""
        ids = tuple(self.ids[row] for row in rows) if self.ids else ()
        types = tuple(self.types[row] for row in rows) if self.types else ()
        return TokenizedTexts(ids, self.lengths[rows], types=types)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are computed together. `rows` is int64 (b,), positions among the unique texts of a plan."""

    rows: npt.NDArray[np.int64]
    #: Length of the longest row in tokens; `len(rows) * width` is what the batch costs.
    width: int

    @property
    def padded_tokens(self) -> int:
        """Tokens computed, padding included."""
        return len(self.rows) * self.width


@public
@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a request, made before anything is computed."""

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
    #: Nano-dollars; None where no price is known. Local models cost nothing.
    cost_nanousd: int | None
    #: Whether tokens were estimated, because no tokenizer of the model is to be had.
    estimated: bool = False
    #: Texts over the limit that are averaged from windows.
    averaged: tuple[Averaged, ...] = ()
    #: Unique texts whose vectors are in the cache; what follows, `batches` and `cost_nanousd` are those of the others.
    cached_texts: int = 0
    #: Tokens that are computed, and billed where a service does it.
    billed_tokens: int = 0
    #: Requests to a service; 0 for models of this machine.
    requests: int = 0
    #: The cost by the service's batch API; None where it has none or its price is not known.
    batch_cost_nanousd: int | None = None
    #: Seconds, by the model's benchmark; None where there is none.
    seconds: float | None = None

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in dollars, exactly; None if no price is known."""
        return to_usd(self.cost_nanousd)

    @property
    def most_nanousd(self) -> int | None:
        """The money to reserve: the cost, twice where tokens are estimated; None where no price is known."""
        return self.cost_nanousd and self.cost_nanousd * (ESTIMATE_MARGIN if self.estimated else 1)


@public
@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent, by step; `compute_s` is wall time from first batch sent to last one back."""

    tokenize_s: float = 0.0
    compute_s: float = 0.0
    total_s: float = 0.0


@public
@dataclass(frozen=True, slots=True)
class Selected:
    """How a model was selected: `ranked` has every model that met the criteria with its score, the best first."""

    model: str
    score: float
    ranked: tuple[tuple[str, float], ...]
    criteria: Mapping[str, object] = field(default_factory=dict)
    #: Better ones that were passed over, because they may cost more than `max_cost`, in nano-dollars.
    too_dear: tuple[tuple[str, int | None], ...] = ()


@public
@dataclass(frozen=True, slots=True)
class Receipt:
    """Tokens, cost, time and routes of a request that ended."""

    model: str
    route: str
    space_id: str
    texts: int
    unique_texts: int
    tokens: int
    billed_tokens: int
    cost_nanousd: int | None
    cache_hits: int
    #: Batches computed, or requests sent, failed ones included.
    attempts: int
    truncations: tuple[Truncation, ...]
    timing: Timing
    #: How the vectors were computed, such as `openvino bf16, 1 stream x 2 threads`.
    runtime: str
    #: The routes that answered; more than one after a failover.
    routes: tuple[str, ...] = ()
    #: Whether a service did not say what it bills, so that `billed_tokens` and the cost hold our own count.
    estimated: bool = False
    #: Whether `tokens` and the places of cuts were estimated, because no tokenizer of the model is to be had.
    tokens_estimated: bool = False
    #: Texts over the limit whose vectors are means of their windows'.
    averaged: tuple[Averaged, ...] = ()
    #: Searches that a reranking service bills; 0 where it bills tokens.
    billed_searches: int = 0
    #: Of the cost, what failed requests may cost that a service may have carried out.
    unsure_nanousd: int = 0
    #: What the hits would have cost.
    saved_nanousd: int = 0
    collection: str = ""
    #: How the model was selected; None where the call named it, or its collection did.
    selected: Selected | None = None
    #: The entries of the ledger that hold the cost.
    ledger_entries: tuple[str, ...] = ()
    #: Vectors that were kept by a codec that loses some digits (`cache.codec`).
    lossy_hits: int = 0

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
        return (
            self.vectors.copy() if copy and dtype is None else self.vectors.astype(dtype or np.float32, copy=bool(copy))
        )

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
    return f"{receipt.tokens} tokens, {receipt.cache_hits} cache hits, {cost}"
