"""Reranking: documents are processed like texts, and scores are returned in the order of the documents."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.compute import ComputeRequest
from embedway.errors import EmbedwayError, InputError, UsageError
from embedway.pipeline.failed_rows import FailedRows
from embedway.pipeline.receipt import CallFacts, fill_outcome_on_failure, first_row, make_receipt, spread
from embedway.pipeline.request import Call, check_overflow, inspect, reason_against, unique_texts
from embedway.telemetry.operations import RequestDetails
from embedway.types import RerankResult
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.config import Config
    from embedway.ledger.account import CallBudget
    from embedway.models.base import Model
    from embedway.models.registry import ModelRegistry
    from embedway.selection.call_options import CallOptions
    from embedway.types import Overflow, Vectors


def check_query(query: Any) -> str:
    """Return a query as a plain string. Raises InputError."""
    reason = reason_against(query)
    if reason:
        raise InputError(f"the query: {reason}")
    return str.__str__(query)


def check_rerank_overflow(choice: Any) -> Overflow | None:
    """Return `on_overflow` of a reranking call, or None. Raises UsageError."""
    checked: Overflow | None = check_overflow(choice)
    if checked == "mean":
        raise UsageError("on_overflow is 'mean', but scores cannot be averaged; it must be truncate or error")
    return checked


@dataclass(frozen=True, slots=True)
class RerankCall:
    """Checked arguments of a reranking call."""

    query: str
    documents: Sequence[Any]
    #: Name of the model, and whether it is that of the settings.
    model: str
    top_n: int | None = None
    on_overflow: Overflow | None = None
    partial: bool = False
    is_default: bool = False


async def rerank_call(call: RerankCall, options: CallOptions, models: ModelRegistry, config: Config) -> RerankResult:
    """Open the model of a call, and score its documents; see `AsyncEmbedder.rerank`."""
    started, hooks = time.perf_counter(), models.hooks
    documents = call.documents
    with hooks.operation(RequestDetails, "rerank", call.model, len(documents), None, options.collection) as outcome:
        facts = CallFacts(started, options.collection, None, outcome if hooks.operating else None)
        if call.is_default:
            outcome.model = call.model  # of the settings
        opened = await models.open(call.model, task="rerank")
        outcome.model = opened.name
        default: Overflow = "error" if config.embedding.on_overflow == "error" else "truncate"
        with FailedRows(call.model, len(documents)) as failed:
            result = await rerank(
                opened,
                call.query,
                documents,
                facts,
                options.spending(opened.name),
                top_n=call.top_n,
                on_overflow=call.on_overflow or default,
                partial=call.partial,
            )
            failed.errors = result.errors
        outcome.fill(result.receipt)
        outcome.failures = len(result.errors)
    return result


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
