"""Calls of the gateway in one form for all dialects."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from embedway.types import InputType, Overflow

#: Canonical name of the model of the request that the current task answers, for the log of one that fails.
resolved_model: ContextVar[str] = ContextVar("embedway_resolved_model", default="")


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
class ScoreCall:
    """Documents to score for a query."""

    query: str
    documents: Sequence[str]
    model: str = ""
    top_n: int | None = None
    on_overflow: Overflow | None = None
    collection: str = ""
    max_cost: Decimal | None = None
    deadline_s: float | None = None
