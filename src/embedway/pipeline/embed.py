"""Steps of a call: select a model, check texts, compute cache misses, and create the receipt."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.compute import ComputeRequest
from embedway.config.local_models import AUTO
from embedway.errors import (
    BudgetExceededError,
    EmbedwayError,
    TextTooLongError,
    UnknownModelError,
    UsageError,
    with_row,
)
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.local.outline import UNPULLED
from embedway.models.outline import OutlinedModel
from embedway.pipeline.backup import Failures, backups_of, call_of_backups, first_success
from embedway.pipeline.deadline import run_in_time
from embedway.pipeline.failed_rows import FailedRows
from embedway.pipeline.normalize import in_space, space_of
from embedway.pipeline.plan import make_plan
from embedway.pipeline.ready_texts import ready_callback
from embedway.pipeline.receipt import CallFacts, fill_outcome_on_failure, first_row, make_receipt, row_of, spread
from embedway.pipeline.request import decode_ids, inspect, unique_texts
from embedway.pipeline.script_check import ScriptCheck
from embedway.providers.names import full_name
from embedway.quality.similarity import check_similarity
from embedway.selection.call_options import ChosenModel
from embedway.selection.selector import is_affordable, no_affordable_model, summarize
from embedway.space import comparable
from embedway.telemetry.operations import RequestDetails
from embedway.text import shown_name
from embedway.types import EmbedResult
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from embedway.cache.vector_cache import VectorCache
    from embedway.compute import OnReady
    from embedway.config import Config
    from embedway.ledger.budgets import Budgets
    from embedway.ledger.pins import Pin
    from embedway.models.base import Model
    from embedway.models.registry import ModelRegistry
    from embedway.pipeline.request import Call
    from embedway.selection.call_options import CallOptions
    from embedway.selection.collection_pins import CollectionPins
    from embedway.selection.scoring import Selection
    from embedway.selection.selector import ModelSelector
    from embedway.telemetry.operations import Outcome
    from embedway.types import EmbedRequest, Plan, Space

    #: Function that opens a model by name; with `raw=True`, without normalization.
    Opens: TypeAlias = Callable[..., Awaitable[Model]]


class EmbedPipeline:
    """Pipeline of `embed` and `plan`. Without a `cache`, every text is computed."""

    def __init__(
        self,
        config: Config,
        models: ModelRegistry,
        selector: ModelSelector,
        pins: CollectionPins,
        *,
        budgets: Budgets,
        cache: VectorCache | None,
    ) -> None:
        self._config = config
        self._models = models
        self._selector = selector
        self._pins = pins
        self._budgets = budgets
        self._hooks = budgets.hooks
        self._scripts = ScriptCheck(config, selector, self._hooks)
        self.cache = cache

    async def embed(self, call: Call, options: CallOptions, deadline_s: float | None = None) -> EmbedResult:
        """Embed the texts of a call; a collection's pin applies. Raises DeadlineError after `deadline_s`."""
        with self._hooks.operation(
            RequestDetails, "embed", call.model, len(call.rows), call.input_type, options.collection
        ) as outcome:
            # The deadline is inside the operation, so that the operation gets the caller's error.
            with FailedRows(call.model, len(call.rows)) as failed:
                result = await (
                    self._embed(call, options, outcome)
                    if deadline_s is None
                    else run_in_time(self._embed(call, options, outcome), deadline_s)
                )
                failed.model, failed.errors = result.receipt.model, result.errors
            if self._hooks.operating:
                outcome.dimensions, outcome.failures = result.space.dimensions, len(result.errors)
                outcome.fill(result.receipt)
        return result

    async def _embed(self, call: Call, options: CallOptions, outcome: Outcome) -> EmbedResult:
        started = time.perf_counter()
        choice = await self._choose(call, options)
        if choice.model != call.model:
            outcome.model = choice.model  # not the name in the call, which may be any text
        elif call.model == AUTO:
            outcome.model = self._config.embedding.default_model
        if choice.on_overflow not in {None, call.on_overflow}:
            call = replace(call, on_overflow=choice.on_overflow)
        if options.backup:
            return await self._embed_with_backups(call, choice, options, started, outcome)
        request, model, space = await self._prepare_choice(call, choice)
        outcome.model = model.name
        if not options.collection:
            facts = CallFacts(started, "", choice.selected, outcome, options.tenant)
            return await self._compute(request, model, space, options.spending(model.name), facts)
        pin, mine = choice.pin, False
        if pin is None and request.input_type == "document" and request.texts:
            pin, mine = await self._pins.claim(options.collection, model.name, space)
            if call.model == AUTO and not comparable(space, pin.space):  # another first write won
                await self._pins.check_privacy(pin, options)
                kept = pin.space.normalized if call.normalize is None else call.normalize
                choice = ChosenModel(pin.model, call.dimensions or pin.space.dimensions, pin, normalize=kept)
                request, model, space = await self._prepare_choice(call, choice)
                outcome.model = model.name
        if pin is not None:
            self._pins.check_space(pin, space, request.input_type)
        held = pin if request.input_type == "document" else None
        facts = CallFacts(started, options.collection, choice.selected, outcome, options.tenant)
        async with self._pins.hold(held, own=mine) as write:
            result = await self._compute(request, model, space, options.spending(model.name), facts)
            write.has_vectors = len(result.errors) < len(request.texts)
        return result

    async def _embed_with_backups(
        self, call: Call, choice: ChosenModel, options: CallOptions, started: float, outcome: Outcome
    ) -> EmbedResult:
        """Embed all texts with the first model that succeeds: the chosen one, then the backups of the call."""

        async def attempt(name: str, failures: Failures) -> EmbedResult:
            is_backup = bool(failures.failed)
            own = call_of_backups(call, options, config=self._config, selector=self._selector) if is_backup else call
            request, model, space = await self._prepare_choice(own, replace(choice, model=name))
            facts = CallFacts(started, "", None if is_backup else choice.selected, outcome, options.tenant)
            if not is_backup:
                outcome.model = model.name
            result = await self._compute(request, model, space, failures.spending(options, model.name), facts)
            return failures.with_failed_models(result)

        names = await self._names_to_try(call, choice, options)
        return await first_success(names, attempt, texts=_count_unique(call))

    async def _names_to_try(self, call: Call, choice: ChosenModel, options: CallOptions) -> tuple[str, ...]:
        """Return the chosen model and the call's checked backups."""
        if choice.model == AUTO:
            name = await asyncio.to_thread(full_name, self._config.embedding.default_model, self._config)
            choice = replace(choice, model=name)
        return (choice.model, *await backups_of(call, choice, options, config=self._config, selector=self._selector))

    async def _compute(
        self, request: EmbedRequest, model: Model, space: Space, spending: CallBudget, facts: CallFacts
    ) -> EmbedResult:
        """Compute the unique texts of a request, and assign a vector to each row."""
        texts, positions = unique_texts(request.texts, request.refused)
        own = model.space_of_size(space.dimensions)
        outcome = facts.outcome if self._hooks.operating else None
        on_ready = ready_callback(texts, own, space)
        asked = compute_request(request, texts, own, spending, outcome=outcome, on_ready=on_ready)
        cached = None if self.cache is None else self.cache.wrap(model, facts.tenant)
        with fill_outcome_on_failure(outcome, spending, len(texts)):
            try:
                computed = await (cached or model).compute(asked)
            except EmbedwayError as error:
                raise first_row(error, positions) from error.__cause__
        if outcome is not None and cached is not None:
            outcome.shared = computed.shared
        if cached is not None and computed.saved_nanousd:
            hits, tokens = computed.hits, computed.saved_tokens
            self._budgets.savings.book(
                spending.purpose, cached.counts, computed.saved_nanousd, texts=hits, tokens=tokens
            )
        if computed.errors and not request.partial:
            first = min(computed.errors)
            raise with_row(computed.errors[first], row_of(first, positions))
        dense = in_space(computed.blocks["dense"], own, space)
        computed.blocks = {"dense": dense}
        vectors, failed = spread(computed, positions, request.refused)
        checks = check_similarity(texts, dense, computed.errors)
        receipt = make_receipt(model, space, computed, positions, facts, checks=checks)
        receipt = await self._scripts.add_warnings(receipt, model, texts, is_query=request.input_type == "query")
        return EmbedResult(vectors, space, receipt, failed)

    async def plan(self, call: Call, options: CallOptions) -> Plan:
        """Return the plan of a call with the model, pin and limits that `embed` would use."""
        choice = await self._choose(call, options, self._models.outline)
        call = replace(
            call,
            normalize=choice.normalize,
            dimensions=choice.dimensions,
            on_overflow=choice.on_overflow or call.on_overflow,
        )

        warnings = () if choice.selected is None else choice.selected.warnings

        async def attempt(name: str, failures: Failures) -> Plan:
            if not failures.failed:
                return replace(await self._plan_within(call, name, options), notes=warnings)
            own = call_of_backups(call, options, config=self._config, selector=self._selector)
            return failures.with_note_on_backup(await self._plan_within(own, name, options))

        if options.backup:
            names = await self._names_to_try(call, choice, options)
            return await first_success(names, attempt, texts=_count_unique(call), is_plan=True)
        plan = await attempt(choice.model, Failures())
        # Without weights, some facts of the space may be unknown.
        if choice.pin is not None and plan.space.digest != UNPULLED:
            self._pins.check_space(choice.pin, plan.space, call.input_type)
        return plan

    async def _plan_within(self, call: Call, name: str, options: CallOptions) -> Plan:
        plan = await self.plan_with(call, name, call.dimensions, tenant=options.tenant)
        if options.max_cost_nanousd is not None and not is_affordable(plan.most_nanousd, options.max_cost_nanousd):
            raise no_affordable_model(options.max_cost_nanousd, [(plan.model, plan.most_nanousd)])
        return plan

    async def plan_with(
        self, call: Call, name: str, dimensions: int | None, opens: Opens | None = None, *, tenant: str = ""
    ) -> Plan:
        """Return the plan of a call with a model. By default, weights that are not here are not fetched.

        Texts in the cache of `tenant` cost nothing.
        """
        request, model = await self.prepare(call, name, dimensions, opens or self._models.outline)
        space = space_of(model, request.dimensions, call.normalize)
        texts, positions = unique_texts(request.texts, request.refused)
        own = model.space_of_size(request.dimensions)
        asked = compute_request(request, texts, own, CallBudget(Purpose(model.name)))
        try:
            work = await model.work(asked)
        except TextTooLongError as error:
            raise first_row(error, positions) from None
        missing = kept = work.positions.tolist()
        if self.cache is not None and not isinstance(model, OutlinedModel):
            _, metas, _ = await self.cache.wrap(model, tenant).peek(asked, strict=False)
            missing = [position for position in kept if metas[position] is None]
        rest = work if len(missing) == len(kept) else await model.work(asked.only(missing))
        # A cache stores vectors of full width, whatever size is requested.
        estimate = model.estimate(rest, space.dimensions if self.cache is None else model.space.dimensions)
        benchmark = self._config.embedding.model_benchmarks.get(model.name)
        return make_plan(
            request, model, space, positions=positions, work=work, rest=rest, estimate=estimate, benchmark=benchmark
        )

    async def _choose(self, call: Call, options: CallOptions, opens: Opens | None = None) -> ChosenModel:
        """Return the model that a call names, that its collection is pinned to, or that its criteria select.

        `opens` opens a model by name; by default, it loads the model.
        """
        if options.criteria is not None and call.model != AUTO:
            raise UsageError(f"model is {shown_name(call.model)} and criteria are set; leave one of them out")
        opens = opens or self._models.open
        pin = await self._pins.store.get(options.collection) if options.collection else None
        if pin is not None:
            await self._pins.check_privacy(pin, options, named=call.model != AUTO)
            opened = await (self.open_pinned(pin, opens) if call.model == AUTO else opens(call.model))
            own = call.model == AUTO or opened.name == pin.model
            size = call.dimensions or (pin.space.dimensions if own else None)
            kept = call.normalize if call.normalize is not None or not own else pin.space.normalized
            return ChosenModel(pin.model if call.model == AUTO else call.model, size, pin, normalize=kept)
        if call.model != AUTO or not options.wants_selection(self._config.embedding.default_model):
            return ChosenModel(call.model, call.dimensions, normalize=call.normalize)
        if call.input_type == "query" and options.collection:
            raise UsageError(
                f"collection {shown_name(options.collection)} has no vectors yet, so it has no model; write documents "
                "to it first, or name the model"
            )
        if call.has_token_ids:
            raise UsageError("token ids belong to one model; name it: model=...")
        texts = inspect(replace(call, partial=True), self._config.embedding.on_overflow).texts
        criteria = self._selector.criteria(options.criteria, dimensions=call.dimensions)
        on_overflow = call.on_overflow or self._config.embedding.on_overflow
        selection, fits = await self._selector.select_for_call(
            texts, criteria, on_overflow=on_overflow, partial=call.partial, input_type=call.input_type
        )
        # A text that the model cannot read completely fails alone, and is not truncated.
        on_overflow = on_overflow if fits else "error"
        if options.max_cost_nanousd is None and on_overflow != "error":
            return ChosenModel(selection.model, criteria.dimensions, None, summarize(selection), call.normalize)
        call = replace(call, texts=texts, dimensions=criteria.dimensions, on_overflow=on_overflow)
        try:
            choice = await self._choose_affordable(call, selection, options, opens)
        except BudgetExceededError:
            below = selection.below_minimum()
            if below is None:
                raise
            self._selector.log_warnings(below)
            choice = await self._choose_affordable(call, below, options, opens)
        return replace(choice, on_overflow=on_overflow)

    async def open_pinned(self, pin: Pin, opens: Opens | None = None) -> Model:
        """Open the model of a pin. Raises UsageError if its name is not enough, as for repositories and folders."""
        try:
            return await (opens or self._models.open)(pin.model)
        except UnknownModelError as error:
            raise UsageError(
                f"collection {shown_name(pin.collection)} has vectors of {pin.space.id}, whose model is not in the "
                "catalog: name the model, as hf:OWNER/NAME or as its folder"
            ) from error

    async def space_of_pin(self, pin: Pin) -> Space:
        """Return the current space of a pin's model, at the pin's size and normalization."""
        await self.open_pinned(pin)
        kept = pin.space.normalized
        return space_of(await self._models.open(pin.model, raw=not kept), pin.space.dimensions, kept)

    async def _choose_affordable(
        self, call: Call, selection: Selection, options: CallOptions, opens: Opens
    ) -> ChosenModel:
        """Return the best-ranked model with which a call stays within its limits on cost and truncation."""
        too_expensive: list[tuple[str, int | None]] = []
        too_long: TextTooLongError | None = None
        for place, row in enumerate(selection.ranked):
            try:
                plan = await self.plan_with(call, row.model, call.dimensions, opens, tenant=options.tenant)
            except TextTooLongError as error:
                too_long = error
                continue
            if options.max_cost_nanousd is None or is_affordable(plan.most_nanousd, options.max_cost_nanousd):
                selected = summarize(selection, place, too_expensive)
                return ChosenModel(row.model, call.dimensions, None, selected, call.normalize)
            too_expensive.append((row.model, plan.most_nanousd))
        if options.max_cost_nanousd is None or not too_expensive:
            assert too_long is not None  # noqa: S101  some model was ranked
            raise too_long
        raise no_affordable_model(options.max_cost_nanousd, too_expensive)

    async def prepare(
        self, call: Call, name: str, dimensions: int | None, opens: Opens | None = None
    ) -> tuple[EmbedRequest, Model]:
        """Open the model of a call and validate its texts; return the request and the model."""
        opens = opens or self._models.open
        if (name, dimensions) != (call.model, call.dimensions):
            call = replace(call, model=name, dimensions=dimensions)
        if call.has_token_ids:
            model = await opens(call.model)
            texts = [decode_ids(row, text, model.decode, model.name) for row, text in enumerate(call.rows)]
            call = replace(call, texts=texts)
        request = inspect(call, self._config.embedding.on_overflow)
        return request, await opens(call.model, raw=call.normalize is False)

    async def _prepare_choice(self, call: Call, choice: ChosenModel) -> tuple[EmbedRequest, Model, Space]:
        """Open the chosen model and validate the texts; return request, model and space of the vectors."""
        if call.normalize is not choice.normalize:
            call = replace(call, normalize=choice.normalize)
        request, model = await self.prepare(call, choice.model, choice.dimensions)
        return request, model, space_of(model, request.dimensions, choice.normalize)


def _count_unique(call: Call) -> int:
    return len({row for row in call.rows if isinstance(row, str)})


def compute_request(
    request: EmbedRequest,
    texts: tuple[str, ...],
    space: Space,
    spending: CallBudget,
    *,
    outcome: Outcome | None = None,
    on_ready: OnReady | None = None,
) -> ComputeRequest:
    """Return the request for unique texts of a checked call."""
    is_query, asked = request.input_type == "query", request.is_interactive
    return ComputeRequest(
        texts,
        space,
        spending,
        input_type=request.input_type,
        on_overflow=request.on_overflow,
        partial=request.partial,
        urgency=Urgency(request.priority, query=is_query if asked is None else asked),
        outcome=outcome,
        on_ready=on_ready,
    )
