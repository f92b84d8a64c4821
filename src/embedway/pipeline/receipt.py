"""The last step: what was computed, given to the rows that asked for it, with the receipt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.cache.vector_cache import Made
from embedway.errors import DimensionsError, TextTooLongError
from embedway.models.service import ServiceModel
from embedway.types import Averaged, Bill, Receipt, TextMeta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from embedway.dispatch.recovery import UpstreamResponse
    from embedway.errors import EmbedwayError
    from embedway.ledger.account import Account
    from embedway.models.reranker import ServiceReranker
    from embedway.pipeline.plan import Work
    from embedway.providers.names import AnyModel
    from embedway.types import Plan, Selected, Space, Timing, Truncation, Vectors


def by_row(
    vectors: Vectors,
    positions: npt.NDArray[np.int64],
    refused: Mapping[int, EmbedwayError],
    errors: Mapping[int, EmbedwayError],
) -> tuple[Vectors, dict[int, EmbedwayError]]:
    """Vectors and errors of the unique texts, given to every row that has one of them; NaN where there is none."""
    if not refused and len(vectors) == len(positions):
        return vectors, dict(errors)
    failed = dict(refused)
    for row, unique in enumerate(positions.tolist() if errors else ()):
        if unique in errors:
            failed[row] = errors[unique]
    if not len(vectors):
        return np.full((len(positions), vectors.shape[1]), np.nan, np.float32), failed
    rows = vectors[positions]  # a copy, in which -1 took the last one
    rows[sorted(refused)] = np.nan
    return rows, failed


def told(
    work: Work, metas: Mapping[int, TextMeta], vectors: Vectors, errors: Mapping[int, EmbedwayError], *, storable: bool
) -> Made:
    """What was computed for the unique texts of a request, each of which is one of its rows."""
    made = Made(np.full((len(work.positions), vectors.shape[1]), np.nan, np.float32), [], storable=storable)
    for row, unique in enumerate(work.positions.tolist()):
        error = work.refused.get(row) or errors.get(unique)
        if error is not None:
            made.errors[row] = error
        made.metas.append(metas[row] if error is None else None)
    ready = np.array([meta is not None for meta in made.metas], np.bool_)
    made.vectors[ready] = vectors[work.positions[ready]]
    return made


def metas_of(work: Work) -> dict[int, TextMeta]:
    """What is told of the rows of a request whose texts are unique, but of those that are refused."""
    owner = work.windows.owner if work.windows is not None else np.arange(len(work.texts))
    tokens = np.bincount(owner, work.tokenized.lengths, minlength=work.plan.unique_texts)
    cuts = {cut.row: replace(cut, row=0) for cut in work.plan.truncations}
    windows = {item.row: item.windows for item in work.plan.averaged}
    return {
        row: TextMeta(int(tokens[unique]), cuts.get(row), windows.get(row, 0))
        for row, unique in enumerate(work.positions.tolist())
        if unique >= 0
    }


def in_row(error: EmbedwayError, positions: npt.NDArray[np.int64], unique: int) -> EmbedwayError:
    """An error that names a row, with the first of the request's that has the text."""
    if not isinstance(error, TextTooLongError):
        return error
    row = int(np.flatnonzero(positions == unique)[0])
    return TextTooLongError(row=row, max_tokens=error.max_tokens, tokens=error.tokens)


def cuts(
    metas: Sequence[TextMeta | None], positions: npt.NDArray[np.int64]
) -> tuple[tuple[Truncation, ...], tuple[Averaged, ...]]:
    """The cuts and means of unique texts, told for every row that has one of them."""
    told = {unique: meta for unique, meta in enumerate(metas) if meta is not None and (meta.truncation or meta.windows)}
    if not told:
        return (), ()
    rows = [(row, told[unique]) for row, unique in enumerate(positions.tolist()) if unique in told]
    return (
        tuple(replace(meta.truncation, row=row) for row, meta in rows if meta.truncation is not None),
        tuple(Averaged(row, meta.windows, meta.tokens) for row, meta in rows if meta.windows),
    )


def space_of(route: AnyModel, dimensions: int | None) -> Space:
    """The space of a model at the size asked for, or its own. Raises DimensionsError for a size it has not."""
    if dimensions is None:
        dimensions = route.default_dimensions if isinstance(route, ServiceModel) else route.space.dimensions
    if dimensions == route.space.dimensions:
        return route.space
    if dimensions not in route.sizes:
        raise DimensionsError(route.model, asked=dimensions, sizes=route.sizes)
    return replace(route.space, dimensions=dimensions)


def summed(bills: Sequence[Bill]) -> Bill:
    """Several bills as one; its cost is None where that of one is."""
    costs = [bill.cost_nanousd for bill in bills]
    return Bill(
        sum(bill.tokens for bill in bills),
        None if None in costs else sum(cost for cost in costs if cost is not None),
        sum(bill.attempts for bill in bills),
        tuple(dict.fromkeys(route for bill in bills for route in bill.routes)),
        estimated=any(bill.estimated for bill in bills),
        unsure=sum(bill.unsure for bill in bills),
        entries=tuple(entry for bill in bills for entry in bill.entries),
    )


def bill_of(
    outcome: UpstreamResponse,
    model: ServiceModel | ServiceReranker,
    dimensions: int | None = None,
    account: Account | None = None,
) -> Bill:
    """What a service bills, as it told or as is known of its prices, and as the account of the request has it."""
    if account is not None:
        return Bill(
            account.totals.tokens,
            None if account.totals.unpriced else account.totals.spent,
            outcome.attempts,
            tuple(outcome.routes),
            estimated=account.totals.estimated,
            searches=account.totals.searches,
            unsure=account.totals.unsure,
            entries=() if account.entry is None else (account.entry,),
        )
    tokens = outcome.billed_tokens + outcome.unreported_tokens
    searches = outcome.searches
    return Bill(
        tokens,
        model.facts.cost_nanousd(tokens, searches, dimensions=dimensions) if tokens or searches else 0,
        outcome.attempts,
        tuple(outcome.routes),
        estimated=outcome.unreported_tokens > 0,
        searches=searches,
    )


def receipt_of(
    plan: Plan,
    model: AnyModel,
    timing: Timing,
    billed: Bill,
    *,
    collection: str = "",
    selected: Selected | None = None,
) -> Receipt:
    """The receipt of what was planned and computed."""
    return Receipt(
        model=plan.model,
        route=billed.routes[0] if billed.routes else plan.route,
        space_id=plan.space.id,
        texts=plan.texts,
        unique_texts=plan.unique_texts,
        tokens=plan.tokens,
        billed_tokens=billed.tokens,
        cost_nanousd=billed.cost_nanousd,
        cache_hits=0,
        attempts=billed.attempts,
        truncations=plan.truncations,
        timing=timing,
        runtime=model.runtime,
        routes=billed.routes,
        estimated=billed.estimated,
        tokens_estimated=plan.estimated,
        averaged=plan.averaged,
        unsure_nanousd=billed.unsure,
        collection=collection,
        selected=selected,
        ledger_entries=billed.entries,
    )
