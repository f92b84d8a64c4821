"""Last step of a call: spread unique texts over all rows of the request, and create the receipt."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.compute import empty_rows
from embedway.errors import with_row
from embedway.types import Averaged, Receipt, Timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from embedway.compute import Computed
    from embedway.errors import EmbedwayError
    from embedway.ledger.account import CallBudget
    from embedway.models.base import Model
    from embedway.telemetry.operations import Outcome
    from embedway.types import Selected, Space, TextMeta, Truncation, VectorChecks, Vectors


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Facts of a call for its receipt, besides those of the computation. `started` is from `time.perf_counter`."""

    started: float
    collection: str = ""
    selected: Selected | None = None
    #: Outcome of the call for hooks.
    outcome: Outcome | None = None
    #: Tenant whose cache is used.
    tenant: str = ""


class _FilledOnFailure:
    """Context manager of `fill_outcome_on_failure`. A generator would take microseconds of each cache hit."""

    __slots__ = ("_outcome", "_spending")

    def __init__(self, outcome: Outcome, spending: CallBudget) -> None:
        self._outcome = outcome
        self._spending = spending

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        if kind is None:
            return
        outcome, accounts = self._outcome, self._spending.accounts
        if not any(account.totals.unpriced for account in accounts):
            # Of several models, each has its own accounts.
            spent = sum(account.totals.spent + account.sent for account in accounts)
            outcome.cost_nanousd = (outcome.cost_nanousd or 0) + spent
        if accounts:
            tokens = sum(account.totals.tokens for account in accounts)
            outcome.billed_tokens = (outcome.billed_tokens or 0) + tokens


def fill_outcome_on_failure(
    outcome: Outcome | None, spending: CallBudget, texts: int
) -> contextlib.AbstractContextManager[None]:
    """Fill what is known into an outcome if the computation fails: unique texts, and the cost so far.

    Costs that are booked after the call are not part of it. None stands for hooks that need no outcome.
    """
    if outcome is None:
        return contextlib.nullcontext()
    outcome.unique_texts = texts
    return _FilledOnFailure(outcome, spending)


def spread(
    computed: Computed, positions: npt.NDArray[np.int64], refused: Mapping[int, EmbedwayError]
) -> tuple[Vectors, dict[int, EmbedwayError]]:
    """Return vectors and errors of all rows from those of unique texts; rows with an error are NaN."""
    vectors, errors = computed.blocks["dense"], computed.errors
    if not refused and not errors and len(vectors) == len(positions):
        return vectors, {}
    failed = dict(refused)
    for row, unique in enumerate(positions.tolist() if errors else ()):
        if unique in errors:
            failed[row] = with_row(errors[unique], row)
    if not len(vectors):
        return empty_rows(len(positions), vectors.shape[1]), failed
    rows = vectors[positions]  # a copy; for -1, the last vector was copied
    rows[sorted(failed)] = np.nan
    return rows, failed


def first_row(error: EmbedwayError, positions: npt.NDArray[np.int64]) -> EmbedwayError:
    """Return the error of a unique text with the first row of the request that has the text."""
    return error if error.row is None else with_row(error, row_of(error.row, positions))


def row_of(unique: int, positions: npt.NDArray[np.int64]) -> int:
    """Return the first row of the request that has a unique text."""
    return int(np.flatnonzero(positions == unique)[0])


def cuts_by_row(
    metas: Sequence[TextMeta | None], positions: npt.NDArray[np.int64]
) -> tuple[tuple[Truncation, ...], tuple[Averaged, ...]]:
    """Return the truncations and averages of all rows from those of unique texts."""
    cut = {unique: meta for unique, meta in enumerate(metas) if meta is not None and (meta.truncation or meta.windows)}
    if not cut:
        return (), ()
    rows = [(row, cut[unique]) for row, unique in enumerate(positions.tolist()) if unique in cut]
    return (
        tuple(replace(meta.truncation, row=row) for row, meta in rows if meta.truncation is not None),
        tuple(Averaged(row, meta.windows, meta.tokens) for row, meta in rows if meta.windows),
    )


def make_receipt(
    model: Model,
    space: Space | None,
    computed: Computed,
    positions: npt.NDArray[np.int64],
    facts: CallFacts,
    *,
    checks: VectorChecks | None = None,
) -> Receipt:
    """Return the receipt of a computation; `positions` maps rows to unique texts.

    For scores, `space` and `checks` are None.
    """
    truncations, averaged = cuts_by_row(computed.metas, positions)
    bill = computed.bill
    tokens = [0 if meta is None else meta.tokens for meta in computed.metas]
    return Receipt(
        model=model.name,
        route=bill.routes[0] if bill.routes else computed.origin,
        space_id="" if space is None else space.id,
        texts=len(positions),
        unique_texts=len(computed.metas),
        tokens=sum(tokens),
        billed_tokens=bill.tokens,
        cost_nanousd=bill.cost_nanousd,
        cache_hits=computed.hits,
        attempts=bill.attempts,
        truncations=truncations,
        timing=Timing(computed.tokenize_s, computed.compute_s, time.perf_counter() - facts.started),
        runtime=model.profile.description.runtime,
        routes=bill.routes,
        estimated=bill.estimated,
        tokens_estimated=not model.profile.exact,
        averaged=averaged,
        billed_searches=bill.searches,
        unsure_nanousd=bill.unsure,
        saved_nanousd=computed.saved_nanousd,
        collection=facts.collection,
        selected=facts.selected,
        ledger_entries=bill.entries,
        lossy_hits=computed.lossy_hits,
        notes=(
            *(() if facts.selected is None else facts.selected.warnings),
            *bill.notes,
            *(() if space is None else model.notes_on_size(space.dimensions)),
            *(() if checks is None or not checks.warnings else model.notes_on_checks(checks)),
        ),
        checks=checks,
        input_tokens=sum(tokens) if len(positions) == len(tokens) else sum(tokens[at] for at in positions if at >= 0),
    )
