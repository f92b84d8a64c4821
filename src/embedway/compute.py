"""The interface of everything that computes: `compute(request) -> Computed`.

Opened models implement it (`models/base.py`), and so does the cache in front of them (`cache/cached_model.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from embedway.types import Bill, TextMeta, Vectors
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.errors import EmbedwayError
    from embedway.ledger.account import CallBudget
    from embedway.telemetry.operations import Outcome
    from embedway.types import InputType, Overflow, Space

#: Kinds of output. Multi-vector and sparse models would add a kind here, with its own block.
Output: TypeAlias = Literal["dense"]
#: Callback for ready vectors: positions of the texts, their vectors (k, full width), and the metadata of each text.
OnReady: TypeAlias = Callable[[Sequence[int], Vectors, Sequence[TextMeta]], None]


@dataclass(frozen=True, slots=True)
class ComputeRequest:
    """Unique valid texts to embed, and the target vector space.

    For a reranker, the texts are documents, and `query` is the query to score them for.
    """

    texts: tuple[str, ...]
    space: Space
    #: Budgets to charge, and the maximum cost.
    spending: CallBudget
    input_type: InputType = "document"
    on_overflow: Overflow = "truncate"
    #: Return errors per text instead of failing the request.
    partial: bool = False
    urgency: Urgency = field(default_factory=Urgency)
    query: str = ""
    #: Receives texts as soon as they are computed, checked and storable, even if other texts fail later.
    on_ready: OnReady | None = None
    #: Outcome of the call for hooks: hits and shared texts are filled in also if the call fails.
    outcome: Outcome | None = None

    def only(self, positions: Sequence[int]) -> ComputeRequest:
        """Return the request for some of its texts."""
        return replace(self, texts=tuple(self.texts[position] for position in positions))


_NO_BILL = Bill(0, 0, 0, ())


@dataclass(slots=True)
class Computed:
    """Rows for the texts of a request, in the same order, with the metadata or the error of each text.

    `blocks` contains the rows of each kind of output. Dense rows are float32 (n, width), NaN where there is an error.
    """

    blocks: Mapping[Output, Vectors]
    #: Metadata by position; None if nothing is known about the text.
    metas: list[TextMeta | None]
    bill: Bill = _NO_BILL
    #: Errors by position.
    errors: dict[int, EmbedwayError] = field(default_factory=dict)
    #: False for vectors that depend on their batch.
    storable: bool = True
    hits: int = 0
    #: Texts that another call or process computed after the lookup.
    shared: int = 0
    #: Hits that were stored with a lossy codec.
    lossy_hits: int = 0
    #: Tokens that were not computed thanks to hits, and their cost.
    saved_tokens: int = 0
    saved_nanousd: int = 0
    tokenize_s: float = 0.0
    compute_s: float = 0.0
    #: Source of the answer if no route answered: the model's first route, or `cache`.
    origin: str = ""


class Computes(Protocol):
    """A model, or a wrapper around one."""

    async def compute(self, request: ComputeRequest) -> Computed:
        """Compute all texts.

        Raises the first error. With `partial`, errors of single texts are in the result. Without it, the result only
        contains errors from another caller's request for the same text.
        """


def empty_rows(count: int, width: int) -> Vectors:
    """Return placeholder rows, float32 (count, width) of NaN."""
    return np.full((count, width), np.nan, np.float32)
