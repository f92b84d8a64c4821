"""The one interface of everything that computes: `compute(request) -> Computed`.

An opened model has it (`models/base.py`), and so has the cache in front of one (`cache/cached_model.py`).
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
    from embedway.types import InputType, Overflow, Space

#: Kinds of output. A model that gives several rows for a text, or sparse ones, gets a kind here and a block for it.
Output: TypeAlias = Literal["dense"]
#: Takes the vectors (k, full width) of some of the texts, by position, and the facts of each.
OnReady: TypeAlias = Callable[[Sequence[int], Vectors, Sequence[TextMeta]], None]


@dataclass(frozen=True, slots=True)
class ComputeRequest:
    """Unique texts that can be embedded, and the space that their vectors are to be of.

    For a reranker the texts are documents, and `query` is what they are scored for.
    """

    texts: tuple[str, ...]
    space: Space
    #: Who pays, and how much at most.
    spending: CallBudget
    input_type: InputType = "document"
    on_overflow: Overflow = "truncate"
    #: Errors go with their texts instead of ending the request.
    partial: bool = False
    urgency: Urgency = field(default_factory=Urgency)
    query: str = ""
    #: May be given texts as soon as they are computed, checked and storable, whatever is to come of the others.
    on_ready: OnReady | None = None

    def only(self, positions: Sequence[int]) -> ComputeRequest:
        """The request for some of its texts."""
        return replace(self, texts=tuple(self.texts[position] for position in positions))


_NO_BILL = Bill(0, 0, 0, ())


@dataclass(slots=True)
class Computed:
    """Rows for the texts of a request, in their order, with the facts of each text or the error that it has.

    `blocks` holds the rows of each kind of output; dense ones are float32 (n, width), NaN where there is an error.
    """

    blocks: Mapping[Output, Vectors]
    #: None for a text of which nothing is known.
    metas: list[TextMeta | None]
    bill: Bill = _NO_BILL
    #: By position.
    errors: dict[int, EmbedwayError] = field(default_factory=dict)
    #: False for vectors that depend on their batch.
    storable: bool = True
    hits: int = 0
    #: Vectors that a lossy codec kept.
    lossy_hits: int = 0
    #: Tokens that were not computed, and the cost that they did not have.
    saved_tokens: int = 0
    saved_nanousd: int = 0
    tokenize_s: float = 0.0
    compute_s: float = 0.0
    #: Who answered where no route did: the model's first route, or `cache`.
    origin: str = ""


class Computes(Protocol):
    """A model, or a wrapper around one."""

    async def compute(self, request: ComputeRequest) -> Computed:
        """Compute all texts.

        Raises the first error. Errors of single texts are in the result with `partial`; without it, only those that
        another caller's request for the same text had.
        """


def empty_rows(count: int, width: int) -> Vectors:
    """Rows that are not known yet, float32 (count, width) of NaN."""
    return np.full((count, width), np.nan, np.float32)
