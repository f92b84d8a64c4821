"""Reranking: documents are processed like texts, and scores are returned in the order of the documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.compute import ComputeRequest
from embedway.errors import EmbedwayError, InputError
from embedway.pipeline.receipt import CallFacts, fill_outcome_on_failure, first_row, make_receipt, spread
from embedway.pipeline.request import Call, inspect, reason_against, unique_texts
from embedway.types import RerankResult
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.ledger.account import CallBudget
    from embedway.models.base import Model
    from embedway.types import Overflow, Vectors


def check_query(query: Any) -> str:
    """Return a query as a plain string. Raises InputError."""
    reason = reason_against(query)
    if reason:
        raise InputError(f"the query: {reason}")
    return str.__str__(query)


async def rerank(
    model: Model,
    query: str,
    documents: Sequence[str],
    facts: CallFacts,
    spending: CallBudget,
    *,
    top_n: int | None,
    on_overflow: Overflow,
    partial: bool,
) -> RerankResult:
    """Score documents for a validated query; see `AsyncEmbedder.rerank`."""
    request = inspect(Call(documents, model=model.name, on_overflow=on_overflow, partial=partial), on_overflow)
    texts, positions = unique_texts(request.texts, request.refused)
    asked = ComputeRequest(
        texts,
        model.space,
        spending,
        on_overflow=on_overflow,
        partial=partial,
        urgency=Urgency(query=True),
        query=query,
        outcome=facts.outcome,
    )
    with fill_outcome_on_failure(facts.outcome, spending, len(texts)):
        try:
            computed = await model.compute(asked)
        except EmbedwayError as error:
            raise first_row(error, positions) from error.__cause__
    rows, failed = spread(computed, positions, request.refused)
    scores = np.ascontiguousarray(rows[:, 0])
    return RerankResult(
        scores, best_first(scores, top_n), make_receipt(model, None, computed, positions, facts), failed
    )


def best_first(scores: Vectors, top_n: int | None) -> tuple[int, ...]:
    """Return positions of the highest scores, highest first, equal scores in order; NaN is left out."""
    order = np.argsort(-scores, kind="stable")
    kept = order[np.isfinite(scores[order])]
    return tuple(kept[: len(kept) if top_n is None else top_n].tolist())
