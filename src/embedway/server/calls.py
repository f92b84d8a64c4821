"""Calls of the gateway in one form for all dialects, and the interface that computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from embedway.server.caller import Caller
    from embedway.types import EmbedResult, InputType, Overflow, Plan, RerankResult


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """Texts to embed. None is the gateway's default."""

    #: Texts, or lists of token ids.
    texts: Sequence[str | list[int]]
    #: Name of a model, `auto` for a selection, or empty for the default model.
    model: str = ""
    input_type: InputType = "document"
    dimensions: int | None = None
    on_overflow: Overflow | None = None
    collection: str = ""
    #: 0 to 9.
    priority: int = 0
    #: Maximum cost in dollars.
    max_cost: Decimal | None = None
    deadline_s: float | None = None
    normalize: bool | None = None


@dataclass(frozen=True, slots=True)
class RerankCall:
    """Documents to score for a query."""

    query: str
    documents: Sequence[str]
    model: str = ""
    top_n: int | None = None
    on_overflow: Overflow | None = None
    collection: str = ""
    max_cost: Decimal | None = None
    deadline_s: float | None = None


class Computing(Protocol):
    """Computes calls for a caller: checks its rights and limits, waits for its turn, and charges it.

    Every method raises only EmbedwayError.
    """

    async def embed(self, caller: Caller, call: EmbedCall) -> EmbedResult:
        """Embed texts."""

    async def rerank(self, caller: Caller, call: RerankCall) -> RerankResult:
        """Score documents."""

    async def plan(self, caller: Caller, call: EmbedCall) -> Plan:
        """Return what `embed` would do. Computes and spends nothing."""
