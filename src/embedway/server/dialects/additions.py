"""Our additions to each API, and the calls of bodies that have them."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from embedway.money import MOST_USD
from embedway.server.bodies import Body
from embedway.server.calls import EmbedCall, ScoreCall
from embedway.server.dialects.fields import Collection, Priority  # noqa: TC001  pydantic evaluates them

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.types import InputType, Overflow

_NANO_USD = Decimal("1e-9")


class Additions(Body):
    """Fields that each API has in addition to those of its service."""

    #: Name of a set of vectors, which keeps the model and space of its first write; budgets may name it.
    collection: Collection | None = None
    #: Maximum cost in dollars.
    max_cost: Annotated[float, Field(ge=0, le=MOST_USD, allow_inf_nan=False)] | None = None
    #: Maximum time in seconds.
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def max_dollars(self) -> Decimal | None:
        """`max_cost` as it was written, rounded down to a nano-dollar."""
        return None if self.max_cost is None else Decimal(repr(self.max_cost)).quantize(_NANO_USD, ROUND_DOWN)


class EmbedAdditions(Additions):
    """Additions to an API of embeddings."""

    #: 0 to 9; higher priorities are computed sooner.
    priority: Priority = 0
    #: Handling of a text over the model's limit.
    on_overflow: Literal["truncate", "error", "mean"] | None = None

    def embed_call(
        self,
        texts: Sequence[str | list[int]],
        model: str | None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        *,
        normalize: bool | None = None,
    ) -> EmbedCall:
        """Return a call of these fields of an API, with the additions; `on_overflow` counts if they have none."""
        return EmbedCall(
            texts,
            model or "",
            input_type or "document",
            dimensions,
            self.on_overflow or on_overflow,
            self.collection or "",
            self.priority,
            self.max_dollars,
            self.deadline,
            normalize,
        )


class RerankAdditions(Additions):
    """Additions to an API of reranking."""

    #: Handling of a document over the model's limit.
    on_overflow: Literal["truncate", "error"] | None = None

    def score_call(
        self,
        query: str,
        documents: Sequence[str],
        model: str | None,
        top_n: int | None = None,
        on_overflow: Overflow | None = None,
    ) -> ScoreCall:
        """Return a call of these fields of an API, with the additions; `on_overflow` counts if they have none."""
        return ScoreCall(
            query,
            documents,
            model or "",
            top_n,
            self.on_overflow or on_overflow,
            self.collection or "",
            self.max_dollars,
            self.deadline,
        )
