"""Quality of an embedder's vectors: `embedder.quality`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedway._public import public
from embedway.arguments import as_list, check_flag, check_name, is_a
from embedway.errors import UsageError
from embedway.money import to_nanousd
from embedway.quality.pairs import Pair, checked_pairs, read_pairs
from embedway.text import shown_name
from embedway.third_party import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway._engine import Engine, Engines
    from embedway.config import Config
    from embedway.models.base import Model
    from embedway.money import Amount
    from embedway.quality.reports import BaselineReport, BaselineSummary, QualityCheck, QualityPlan


@public
class AsyncQualityAdmin:
    """Checks of vectors, and comparisons of models with their baselines: `embedder.quality`."""

    def __init__(self, engines: Engines, config: Config, default_model: str) -> None:
        self._engines = engines
        self._config = config
        self._default_model = default_model

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
        `progress` receives lines of text, also the differences to a replaced baseline before it is replaced. All
        requests bypass the cache and are booked. Raises UsageError if there is a baseline or no ledger, LedgerError,
        BudgetExceededError, and as `embed` does if no route could be measured.
        """
        replace = check_flag(replace, "replace")
        own, most = await _pairs_of(pairs), _nanousd(max_cost)
        report = _reporter(progress)
        async with self._engines.call() as engine:
            opened = await self._open(engine, model)
            return await engine.baselines.create(opened, own, replaces=replace, max_nanousd=most, report=report)

    async def check(self, model: str | None = None, *, max_cost: Amount | None = None) -> QualityCheck:
        """Compare each route of a model with the baseline of its space.

        A route that cannot be compared, such as without a network, is `unchecked` and not drifted. Raises UsageError
        without a baseline, LedgerError and BudgetExceededError.
        """
        most = _nanousd(max_cost)
        async with self._engines.call() as engine:
            return await engine.baselines.check(await self._open(engine, model), max_nanousd=most)

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
            found = await engine.baselines.spaces_of(name)
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


def _nanousd(max_cost: Amount | None) -> int | None:
    return None if max_cost is None else to_nanousd(max_cost, name="max_cost")


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


def _reporter(progress: Any) -> Callable[[str], None]:
    if progress is None:
        return lambda _: None
    if not callable(progress):
        raise UsageError(f"progress is of type {type(progress).__name__}; it must be a function")
    return guarded(progress, "progress")
