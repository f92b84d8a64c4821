"""Model selector for texts, by the settings, and the summary of a selection for a receipt."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterable
from dataclasses import dataclass, replace
from functools import partial as partial_call
from typing import TYPE_CHECKING, TypeVar, cast

from embedway.arguments import as_texts
from embedway.errors import BudgetExceededError, NoModelError, UsageError
from embedway.ledger.refusals import MAX_COST
from embedway.money import usd
from embedway.providers.names import full_name
from embedway.selection.analysis import analyze, take_sample
from embedway.selection.candidates import Candidates, count_tokens
from embedway.selection.criteria import ModelSelectionCriteria
from embedway.selection.relaxations import no_model
from embedway.selection.requirements import Reason, find_reasons
from embedway.selection.scoring import select
from embedway.text import shown
from embedway.types import Selected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.config import Config
    from embedway.selection.candidate import Candidate
    from embedway.selection.scoring import ScoredModel, Selection
    from embedway.selection.token_counts import TokenTotals
    from embedway.types import InputType, Overflow

R = TypeVar("R")

_log = logging.getLogger("embedway.selection")

#: Characters of the texts that are counted to find the longest one, for each tokenizer. `embed` counts all texts.
MOST_CHARACTERS = 4_000_000


@dataclass(frozen=True, slots=True)
class _CountOptions:
    """Options of `count_tokens`."""

    totals: TokenTotals | None
    input_type: InputType
    most_characters: int | None


class ModelSelector:
    """Selector of the best model for texts. It works in threads, and is safe for concurrent calls."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._candidates: Candidates | None = None
        #: Models and warnings that were logged.
        self._logged: set[tuple[str, str]] = set()

    def criteria(
        self, given: ModelSelectionCriteria | str | None = None, *, dimensions: int | None = None
    ) -> ModelSelectionCriteria:
        """Return the criteria of a call: its own, a preset's, or those of `[selection]`; with the requested dimensions.

        Raises UsageError.
        """
        if isinstance(given, ModelSelectionCriteria):
            found = given
        elif given is not None:
            found = ModelSelectionCriteria.preset(given)
        else:
            settings = self._config.selection
            found = ModelSelectionCriteria.preset(settings.preset, **settings.criteria)
        return found if dimensions is None else replace(found, dimensions=dimensions)

    async def select(
        self,
        texts: Sequence[str],
        criteria: ModelSelectionCriteria,
        *,
        anywhere: bool = False,
        rest: AsyncIterable[Sequence[str]] | None = None,
        input_type: InputType = "document",
        most_characters: int | None = MOST_CHARACTERS,
    ) -> Selection:
        """Select the best model for texts. Raises NoModelError, and UnknownModelError for an unknown name in `models`.

        `most_characters` limits the texts that are counted to find the longest one.
        `rest` are further texts, which are read only if the criteria limit the total cost. Raises UsageError for
        anything else.
        """
        if rest is not None and not isinstance(rest, AsyncIterable):
            raise UsageError(f"rest is {shown(rest)}; it must be an asynchronous iterable of lists of texts")
        totals = None
        if criteria.max_total_cost is not None:
            totals = await asyncio.to_thread(self._locked, lambda one: one.token_totals(criteria.models))
            await asyncio.to_thread(totals.add, texts)
            if rest is not None:
                async for more in rest:
                    await asyncio.to_thread(totals.add, _check_rest(more))
        most = most_characters if criteria.require_fit else 0
        counting = _CountOptions(totals, input_type, most)
        selection = await asyncio.to_thread(self._select, texts, criteria, anywhere, counting)
        self.log_warnings(selection)
        return selection

    def log_warnings(self, selection: Selection) -> None:
        """Log the warnings of a selection, each once."""
        for warning in selection.warnings:
            if (selection.model, warning) not in self._logged:
                self._logged.add((selection.model, warning))
                _log.warning("%s. This is logged once", warning)

    async def select_for_call(
        self,
        texts: Sequence[str],
        criteria: ModelSelectionCriteria,
        *,
        on_overflow: Overflow,
        partial: bool,
        input_type: InputType = "document",
    ) -> tuple[Selection, bool]:
        """Select a model for the texts of a call; return it, and whether it reads every text as the call requires.

        It must read them completely with `on_overflow="error"`, but not with `"mean"`, because windows are read. In a
        partial call, only the texts that are too long fail: if no model reads every text completely, one is selected
        for the others. Raises NoModelError.
        """
        fit = on_overflow == "error" or (criteria.require_fit and on_overflow != "mean")
        select = partial_call(self.select, texts, input_type=input_type, most_characters=None)
        try:
            return await select(replace(criteria, require_fit=fit)), True
        except NoModelError as error:
            if not fit or not partial:
                if on_overflow == "error":
                    raise no_model(cast("Sequence[ScoredModel]", error.table), options=["on_overflow"]) from None
                raise
        return await select(replace(criteria, require_fit=False)), False

    async def candidates(self) -> tuple[Candidate, ...]:
        """List all models that can be selected, whether they run here or not."""
        return await asyncio.to_thread(self._locked, Candidates.all)

    async def available(self, dimensions: int | None = None) -> list[str]:
        """Return the models that can run here now and, with `dimensions`, return vectors of that size."""
        return [
            one.benchmark.model_name
            for one in await self.candidates()
            if not one.lacks and (dimensions is None or dimensions in one.supported_sizes)
        ]

    async def leaves_machine(self, model: str) -> str:
        """Return the reason why texts leave this machine with a model; empty if they do not."""
        return await asyncio.to_thread(self._locked, lambda candidates: candidates.leaves_machine(model))

    async def best_for_language(self, language: str, *, excluded: str) -> tuple[str, str] | None:
        """Return the best model for a language by the settings, except `excluded`, and what it lacks to run here.

        It lacks nothing (`""`) if any model can run here now. None if no model meets the settings.
        """
        criteria = replace(self.criteria(), languages=(language,), models=(), max_total_cost=None, require_fit=False)
        for anywhere in (False, True):
            try:
                selection = await asyncio.to_thread(
                    self._select, (), criteria, anywhere, _CountOptions(None, "document", 0)
                )
            except NoModelError:
                continue
            for row in selection.ranked:
                if row.model != excluded:
                    return row.model, row.candidate.lacks
        return None

    async def reasons_against(
        self, name: str, texts: Sequence[str], criteria: ModelSelectionCriteria
    ) -> tuple[Reason, ...]:
        """Return the reasons for which a model does not meet criteria, wherever it runs and whatever the text lengths.

        Raises UnknownModelError, and UsageError for a model without a benchmark.
        """
        reasons = await asyncio.to_thread(self._reasons_against, name, texts, criteria)
        full = await asyncio.to_thread(full_name, name, self._config)
        if criteria.models and not await self.is_named(full, criteria.models):
            reasons = (Reason("models", "it is not one of them"), *reasons)
        return reasons

    async def is_named(self, model: str, names: Sequence[str]) -> bool:
        """Return whether one of these names is that of a model. Raises UnknownModelError."""
        allowed = await asyncio.to_thread(self._locked, lambda candidates: candidates.all(names))
        return any(one.benchmark.model_name.casefold() == model.casefold() for one in allowed)

    def _locked(self, function: Callable[[Candidates], R]) -> R:
        """Call a function with the lazily opened candidates, one call at a time."""
        with self._lock:
            if self._candidates is None:
                self._candidates = Candidates(self._config)
            return function(self._candidates)

    def _reasons_against(self, name: str, texts: Sequence[str], criteria: ModelSelectionCriteria) -> tuple[Reason, ...]:
        sample = take_sample(texts)
        candidates, counters = self._locked(lambda one: one.token_counters([name]))
        if criteria.max_total_cost is not None:
            totals = self._locked(lambda one: one.token_totals([name]))
            totals.add(texts)
            candidates = count_tokens(candidates, counters, texts, sample, totals=totals, most_characters=0)
        others = replace(criteria, models=(), require_fit=False)
        return tuple(find_reasons(candidates[0], others, analyze(texts, sample=sample), anywhere=True))

    def _select(
        self, texts: Sequence[str], criteria: ModelSelectionCriteria, anywhere: bool, counting: _CountOptions
    ) -> Selection:
        sample = take_sample(texts)
        analysis = analyze(texts, sample=sample)
        candidates, counters = self._locked(lambda candidates: candidates.token_counters(criteria.models))
        counted = count_tokens(
            candidates,
            counters,
            texts,
            sample,
            totals=counting.totals,
            input_type=counting.input_type,
            most_characters=counting.most_characters,
        )
        return select(counted, criteria, analysis, anywhere=anywhere)


def _check_rest(texts: object) -> tuple[str, ...]:
    checked = as_texts(texts, "rest")
    for text in checked:
        if not isinstance(text, str):
            raise UsageError(f"rest contains an item of type {type(text).__name__}; each must be a text")
    return checked


def summarize(selection: Selection, place: int = 0, too_expensive: Sequence[tuple[str, int | None]] = ()) -> Selected:
    """Summarize a selection for a receipt. The model at index `place` was used; `too_expensive` are those before it."""
    row = selection.ranked[place]
    assert row.score is not None  # noqa: S101  it is ranked
    return Selected(
        row.model,
        row.score,
        tuple((other.model, other.score or 0.0) for other in selection.ranked),
        selection.criteria.to_json(),
        tuple(too_expensive),
        selection.warnings_of(row.model),
    )


def is_affordable(cost_nanousd: int | None, most_nanousd: int) -> bool:
    """Return whether a cost is known and within a limit."""
    return cost_nanousd is not None and cost_nanousd <= most_nanousd


def no_affordable_model(
    max_cost_nanousd: int, too_expensive: Sequence[tuple[str, int | None]], *, limit: str = MAX_COST
) -> BudgetExceededError:
    """Return the error of a call whose limit, such as `max_cost`, is below the cost of every suitable model."""
    known = [(cost, model) for model, cost in too_expensive if cost is not None]
    if not known:
        names = ", ".join(model for model, _ in too_expensive)
        message = f"{limit} is ${usd(max_cost_nanousd)}, but no price is known for {names}; set a price for one of them"
        return BudgetExceededError(f"{message}; nothing was sent", budget=limit, needed=None, left=max_cost_nanousd)
    cost, model = min(known)
    return BudgetExceededError(
        f"{limit} is ${usd(max_cost_nanousd)}, but the cheapest suitable model is {model}, which may cost "
        f"${usd(cost)}; nothing was sent",
        budget=limit,
        needed=cost,
        left=max_cost_nanousd,
    )
