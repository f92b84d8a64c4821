"""Quality of an embedder's vectors: `embedder.quality`."""

from __future__ import annotations

import asyncio
import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway._public import public
from embedway.arguments import (
    as_list,
    as_max_nanousd,
    as_report,
    as_texts,
    as_vectors,
    check_choice,
    check_count,
    check_flag,
    check_name,
    is_a,
)
from embedway.errors import UsageError
from embedway.quality.pairs import Pair, checked_pairs, read_pairs
from embedway.quality.reading import TextComparer, ignored_ids
from embedway.quality.vector_report import report_on
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway._engine import Engine, Engines
    from embedway.config import Config
    from embedway.models.base import Model
    from embedway.money import Amount
    from embedway.quality.baseline_reports import BaselineReport, BaselineSummary, QualityCheck, QualityPlan
    from embedway.quality.vector_report import VectorReport
    from embedway.types import InputType, Texts, Vectors


@public
class AsyncQualityAdmin:
    """Checks of vectors, and comparisons of models with their baselines: `embedder.quality`."""

    def __init__(self, engines: Engines, config: Config, default_model: str) -> None:
        self._engines = engines
        self._config = config
        self._default_model = default_model

    async def validate(
        self,
        vectors: Vectors | Sequence[Vectors],
        texts: Texts,
        *,
        model: str | None = None,
        input_type: InputType = "document",
        dimensions: int | None = None,
        semantic: bool = False,
        max_cost: Amount | None = None,
    ) -> VectorReport:
        """Check the vectors of texts, float32 (n, d), which came from a model or were stored, as an answer is checked.

        `dimensions` is the size that the vectors should have; the model's default size if it is None. A fault is in the
        report, not an error. Nothing is computed, and no weights are fetched. Raises UsageError for arguments that are
        no vectors and no texts, DimensionsError for a size that the model lacks, and ModelError as `embed` does.

        With `semantic`, the model also embeds the pairs of its baseline, and the report compares the accuracy with the
        baseline's. These requests bypass the cache and are booked; `max_cost` limits them, in dollars. Then it also
        raises LedgerError, and as `embed` does.
        """
        semantic, most = check_flag(semantic, "semantic"), as_max_nanousd(max_cost)
        check_choice(input_type, ("query", "document"), "input_type")
        read = as_texts(texts, "texts")
        for row, text in enumerate(read):
            if not isinstance(text, str):
                raise UsageError(f"texts[{row}] is of type {type(text).__name__}; it must be a text")
        array, size = _as_array(vectors), check_count(dimensions, "dimensions")
        async with self._engines.call() as engine:
            opened = await engine.models.outline(self._default_model if model is None else check_name(model, "model"))
            space, reads = opened.space_of_size(size), _reader_of(opened, input_type)
            report = await asyncio.to_thread(report_on, array, read, space, reads)
            if not semantic:
                return report
            found = await engine.baselines.semantic(await self._open(engine, model), max_nanousd=most)
            return dataclasses.replace(report, valid=report.valid and found.valid, semantic=found)

    async def baseline(
        self,
        model: str | None = None,
        *,
        pairs: Sequence[Pair] | Path | str | None = None,
        replace: bool = False,
        max_cost: Amount | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> BaselineReport:
        """Store how each route of a model answers now: canaries, their noise, and the retrieval of pairs.

        `pairs` are pairs of your own besides the built-in ones, or a JSON Lines file with them; their texts are stored.
        A space has one baseline. Without `replace`, only routes that it lacks are added. `max_cost` is in dollars.
        A replaced baseline's own pairs are kept, unless there are new ones. `progress` receives lines of text: the
        estimated cost first, and the differences to a replaced baseline before it is replaced. All requests bypass the
        cache and are booked. Raises UsageError if there is a baseline or no ledger, LedgerError, BudgetExceededError,
        and as `embed` does if no route could be measured.
        """
        replace = check_flag(replace, "replace")
        most, report = as_max_nanousd(max_cost), as_report(progress)
        own = await _pairs_of(pairs)
        async with self._engines.call() as engine:
            opened = await self._open(engine, model)
            return await engine.baselines.create(opened, own, replaces=replace, max_nanousd=most, report=report)

    async def check(
        self,
        model: str | None = None,
        *,
        max_cost: Amount | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> QualityCheck:
        """Compare each route of a model with the baseline of its space.

        A route that cannot be compared, such as without a network, is `unchecked` and not drifted. `progress` receives
        the estimated cost as a line of text. Raises UsageError without a baseline, LedgerError and BudgetExceededError.
        """
        most, report = as_max_nanousd(max_cost), None if progress is None else as_report(progress)
        async with self._engines.call() as engine:
            return await engine.baselines.check(await self._open(engine, model), max_nanousd=most, report=report)

    async def plan(
        self,
        model: str | None = None,
        *,
        pairs: Sequence[Pair] | Path | str | None = None,
        baseline: bool = False,
    ) -> QualityPlan:
        """Return the estimated work and cost of `check`, or with `baseline` of `baseline`. Sends nothing."""
        baseline = check_flag(baseline, "baseline")
        own = await _pairs_of(pairs)
        async with self._engines.call() as engine:
            return await engine.baselines.plan(await self._open(engine, model), own, is_baseline=baseline)

    async def baselines(self) -> list[BaselineSummary]:
        """Return all stored baselines. Raises LedgerError, UsageError without a ledger."""
        async with self._engines.call() as engine:
            return await engine.baselines.all()

    async def remove_baseline(self, model: str) -> list[str]:
        """Remove the baselines of a model or of a space's id, and the states of their routes; return the spaces."""
        name = check_name(model, "model")
        async with self._engines.call() as engine:
            found = await engine.baselines.stored.spaces_of(name)
            return [one for one in found if await engine.baselines.remove(one)]

    async def release(self, model: str | None = None, *, route: str | None = None) -> list[str]:
        """End the quarantine of a model's routes, or of one route, without a check; return the routes."""
        named = None if route is None else check_name(route, "route")
        async with self._engines.call() as engine:
            opened = await self._open(engine, model)
            if named is not None and named not in opened.route_names:
                known = ", ".join(opened.route_names)
                raise UsageError(f"{opened.name} has no route {shown_name(named)}; its routes are {known}")
            return await engine.baselines.states.release(opened.space.id, named)

    async def _open(self, engine: Engine, model: str | None) -> Model:
        name = self._default_model if model is None else check_name(model, "model")
        opened = await engine.models.open(name)
        if opened.blocked is not None:
            raise opened.blocked
        return opened


def _as_array(vectors: Any) -> Vectors:
    """Return an array of float32 of any shape. Raises UsageError for values that are not numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # complex numbers are refused below
        array = as_vectors(vectors)
    if np.iscomplexobj(vectors):
        raise UsageError("vectors must be an array of real numbers, one row per text")
    return array


def _reader_of(model: Model, input_type: InputType) -> TextComparer:
    """Return the comparison of texts as the model reads them."""
    known, space = model.profile.description, model.space
    prompt = space.query_prompt if input_type == "query" else space.document_prompt
    plain = known.tokenizer if model.profile.exact else None
    most = max(1, model.max_tokens - len(prompt.encode()))  # at most one token for each byte
    return TextComparer(most, plain, known.special_tokens, frozenset() if plain is None else ignored_ids(plain))


async def _pairs_of(pairs: Any) -> tuple[Pair, ...] | None:
    """Return own pairs. Raises UsageError, and SourceError for a file."""
    if pairs is None:
        return None
    if is_a(pairs, str) or is_a(pairs, Path):
        return await asyncio.to_thread(read_pairs, pairs)
    rows = as_list(pairs, "pairs", "pairs")
    if not all(is_a(one, Pair) for one in rows):
        raise UsageError("pairs must be Pair objects, or the path of a JSON Lines file")
    return checked_pairs(rows)
