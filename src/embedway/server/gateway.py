"""The gateway's calls: checks the rights of the caller, waits for its turn, and computes with one embedder."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from embedway.config.local_models import AUTO
from embedway.errors import BudgetExceededError, DeadlineError, EmbedwayError, InputError, UsageError
from embedway.pipeline import rerank
from embedway.pipeline.deadline import run_in_time
from embedway.pipeline.request import Call
from embedway.selection.call_options import CallOptions
from embedway.server.access import needs_keys
from embedway.server.calls import resolved_model
from embedway.server.fair_queue import FairQueue
from embedway.server.problems import BodyError
from embedway.server.rates import correct_tokens, limits_of, take_tokens
from embedway.server.readiness import Readiness
from embedway.server.unserved import without_route
from embedway.text import shown_name
from embedway.urgency import MAY_WAIT, is_interactive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from decimal import Decimal
    from pathlib import Path

    from embedway._engine import Engines
    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.selection.scoring import Selection
    from embedway.server.batches.service import BatchService
    from embedway.server.caller import Caller
    from embedway.server.calls import EmbedCall, ScoreCall
    from embedway.server.key_ring import KeyRing
    from embedway.server.rates import RateLimits
    from embedway.server.served import ServedModels
    from embedway.server.stats import Stats
    from embedway.server.turns import Turn
    from embedway.types import EmbedResult, Plan, RerankResult

_log = logging.getLogger("embedway.server")

#: Characters of text for each estimated token.
_CHARACTERS_A_TOKEN = 4
#: Estimated tokens of a text besides those of its characters: special tokens, and the work for a row.
_TOKENS_A_TEXT = 4
#: Requests of the greatest size that may wait at the same time.
_WAITING_REQUESTS = 4
#: Share of a key's batches, relative to its online calls.
_BACKGROUND_WEIGHT = 0.1
#: Running calls of a key above which a further one is bulk work. Computed as queries, all would be before the query of
#: another key.
_MOST_INTERACTIVE = 16
#: Least time for a call that waited nearly until its deadline, in seconds.
_LEAST_S = 0.001

R = TypeVar("R", "EmbedResult", "RerankResult")


def _among_documents(call: Call) -> Call:
    """Return a call that is computed among documents, before those of the same age."""
    return replace(call, is_interactive=False, priority=max(call.priority, MAY_WAIT))


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """Settings, engine, stores and statistics of a gateway."""

    config: Config
    engines: Engines
    served: ServedModels
    rates: RateLimits
    stats: Stats
    #: None without a ledger.
    ring: KeyRing | None
    #: Private folder that the workers of a gateway share.
    folder: Path


class Gateway:
    """Computes calls: checks the rights and limits of their caller, waits for their turn, and charges its budgets.

    Used from one event loop. Calls raise only EmbedwayError.
    """

    def __init__(self, parts: GatewayParts) -> None:
        self.config = config = parts.config
        self.engines = parts.engines
        self.served = parts.served
        self.stats = parts.stats
        self.folder = parts.folder
        self._rates = parts.rates
        self._ring = parts.ring
        #: Files and batches; closed with the gateway.
        self.batches: BatchService | None = None
        settings = config.server
        self.queue = FairQueue(
            max_running=settings.max_running,
            max_waiting=settings.max_waiting,
            max_wait_s=settings.max_wait_s,
            max_waiting_cost=settings.max_tokens * _WAITING_REQUESTS,
        )
        self.readiness = Readiness(config, parts.engines)

    async def embed(self, caller: Caller, call: EmbedCall, *, background: bool = False) -> EmbedResult:
        """Embed texts for a caller. With `background`, the call gets a small share of the gateway under load."""
        cost = self._check_size(call)
        asked, options = await self._prepared(caller, call)
        deadline_s = self._deadline_s(call.deadline_s)
        turn = self._turn(
            caller,
            cost,
            deadline_s,
            priority=call.priority,
            query=call.input_type == "query",
            background=background,
        )

        async def compute(left_s: float) -> EmbedResult:
            is_one_of_many = turn.key is not None and turn.key.running > _MOST_INTERACTIVE
            admitted = _among_documents(asked) if asked.is_interactive and is_one_of_many else asked
            async with self.engines.call() as engine:
                return await engine.pipeline.embed(admitted, options, left_s)

        return await self._within_limits(caller, cost, turn, deadline_s, compute)

    async def plan(self, caller: Caller, call: EmbedCall) -> Plan:
        """Return the plan of a call."""
        self._check_size(call)
        deadline_s = self._deadline_s(call.deadline_s)
        asked, options = await self._prepared(caller, call)
        async with self.engines.call() as engine:
            return await run_in_time(engine.pipeline.plan(asked, options), deadline_s)

    async def rerank(self, caller: Caller, call: ScoreCall) -> RerankResult:
        """Score documents for a caller."""
        cost = self._check_texts(len(call.documents), sum(map(len, call.documents)))
        name = await self._resolve(call.model or self.default_name("rerank"), caller, "rerank")
        options = self._options(caller, call.collection, call.max_cost)
        overflow = rerank.check_rerank_overflow(call.on_overflow)
        try:
            query = rerank.check_query(call.query)
        except InputError as error:
            raise BodyError(str(error), param="query", code="invalid_input") from None
        asked = rerank.RerankCall(query, call.documents, name, call.top_n, overflow)
        deadline_s = self._deadline_s(call.deadline_s)
        turn = self._turn(caller, cost, deadline_s, query=True)

        async def score(left_s: float) -> RerankResult:
            async with self.engines.call() as engine:
                return await run_in_time(rerank.rerank_call(asked, options, engine.models, self.config), left_s)

        return await self._within_limits(caller, cost, turn, deadline_s, score)

    def default_name(self, task: Task) -> str:
        """Return the name of the default model of a task; it may be `auto`. Raises BodyError if there is none."""
        name = self.config.embedding.default_model if task == "embed" else self.config.rerank.default_model
        if not name:
            raise BodyError(
                "model is missing, and the gateway has no default reranker (rerank.default_model)", param="model"
            )
        return name

    async def select(self, caller: Caller, call: EmbedCall, preset: str | None) -> Selection:
        """Return the scores of the models that a caller may use, for its texts. Computes and spends nothing."""
        self._check_size(call)
        texts = [text for text in call.texts if isinstance(text, str)]
        if len(texts) != len(call.texts):
            raise BodyError("texts of a selection must be texts, not token ids", param="input")
        deadline_s = self._deadline_s(call.deadline_s)
        async with self.engines.call() as engine:
            criteria = replace(engine.selector.criteria(preset), models=await self.served.selectable(caller))
            return await run_in_time(engine.selector.select(tuple(texts), criteria), deadline_s)

    def _turn(
        self,
        caller: Caller,
        cost: float,
        deadline_s: float,
        *,
        priority: int = 0,
        query: bool = False,
        background: bool = False,
    ) -> Turn:
        """Return the turn of a call among those of all keys."""
        name, weight = caller.key_name, caller.weight
        if background:
            # Another name than any key's, so that its online calls do not wait for its batches.
            name, weight = f"{name} (batches)", weight * _BACKGROUND_WEIGHT
        return self.queue.turn(name, cost=cost, priority=priority, weight=weight, query=query, deadline_s=deadline_s)

    async def _in_turn(self, caller: Caller, turn: Turn, deadline_s: float, work: Callable[[float], Awaitable[R]]) -> R:
        """Wait for a turn, and do the work in the time that is left, in seconds."""
        began = time.monotonic()
        async with turn:
            try:
                return await work(max(_LEAST_S, deadline_s - (time.monotonic() - began)))
            except BudgetExceededError as error:
                if caller.may_see_budget(error.scope):
                    raise
                _log.warning("a call of key %s was refused: %s", caller.key_name, error)
                message = "a budget of the gateway does not allow the call; ask its operator; the request was not sent"
                raise BudgetExceededError(message, budget="", needed=error.needed, left=0) from None

    async def _within_limits(
        self, caller: Caller, cost: float, turn: Turn, deadline_s: float, work: Callable[[float], Awaitable[R]]
    ) -> R:
        """Do the work of a call in its turn, within the limits per minute of its key. Raises KeyLimitError.

        A call that is cancelled, or whose deadline passes, keeps its estimated tokens: a service may have computed it.
        """
        if limits_of(caller) is None:
            return await self._in_turn(caller, turn, deadline_s, work)
        estimated, actual = math.ceil(cost), 0
        await take_tokens(self._rates, caller, estimated)

        async def counted(left_s: float) -> R:
            nonlocal actual
            actual = estimated
            return await work(left_s)

        try:
            result = await self._in_turn(caller, turn, deadline_s, counted)
        except EmbedwayError as error:
            if not isinstance(error, DeadlineError):
                actual = 0
            raise
        else:
            actual = result.receipt.input_tokens
            return result
        finally:
            await correct_tokens(self._rates, caller, estimated=estimated, actual=actual)

    async def _prepared(self, caller: Caller, call: EmbedCall) -> tuple[Call, CallOptions]:
        """Return the engine's call and options. Raises NotServedError and UsageError."""
        if call.priority > caller.max_priority:
            raise BodyError(
                f"priority is {call.priority}; this key allows at most {caller.max_priority}", param="priority"
            )
        options = self._options(caller, call.collection, call.max_cost)
        model = call.model or self.config.embedding.default_model
        if call.model == AUTO:
            async with self.engines.call() as engine:
                criteria = replace(engine.selector.criteria(None), models=await self.served.selectable(caller))
            options = replace(options, criteria=criteria)
        elif model != AUTO:
            model = await self._resolve(model, caller, "embed")
        elif caller.models is not None:
            raise BodyError("name one of the models of this key", param="model")
        asked = Call(
            call.texts,
            call.input_type,
            model,
            call.dimensions,
            call.on_overflow,
            priority=call.priority,
            normalize=call.normalize,
            is_interactive=is_interactive(call.texts, call.input_type),
        )
        return asked, options

    async def _resolve(self, name: str, caller: Caller, task: Task) -> str:
        """Return the canonical name of a model, and note it for the log. Raises NotServedError."""
        canonical = await self.served.resolve(name, caller, task)
        resolved_model.set(self.served.shown(canonical))
        return canonical

    def _options(self, caller: Caller, collection: str, max_cost: Decimal | None) -> CallOptions:
        try:
            return CallOptions.of(
                None, caller.own_collection(collection), caller.key_name, max_cost, tenant=caller.tenant
            )
        except BodyError:
            raise
        except UsageError as error:
            raise BodyError(str(error), param="collection") from None

    def _deadline_s(self, asked_s: float | None) -> float:
        settings = self.config.server
        if asked_s is not None and asked_s > settings.max_deadline_s:
            raise BodyError(f"deadline is {asked_s:g} s; at most {settings.max_deadline_s:g} s", param="deadline")
        return settings.deadline_s if asked_s is None else asked_s

    def _check_size(self, call: EmbedCall) -> float:
        sizes = (len(text) if isinstance(text, str) else len(text) * _CHARACTERS_A_TOKEN for text in call.texts)
        return self._check_texts(len(call.texts), sum(sizes))

    def _check_texts(self, count: int, characters: int) -> float:
        """Refuse an empty or too large request before anything waits or is reserved; return its estimated tokens."""
        settings = self.config.server
        if not count:
            raise BodyError("there is no text; send at least one", param="input")
        if count > settings.max_inputs:
            raise BodyError(
                f"{count:,} texts; at most {settings.max_inputs:,} in a request", param="input", code="too_many_inputs"
            )
        if characters > settings.max_tokens * _CHARACTERS_A_TOKEN:
            raise BodyError(
                f"about {characters // _CHARACTERS_A_TOKEN:,} tokens; at most {settings.max_tokens:,} in a request",
                param="input",
                code="too_many_tokens",
            )
        return characters / _CHARACTERS_A_TOKEN + count * _TOKENS_A_TEXT

    async def keep(self, model: str, kept_s: float | None) -> None:
        """Set the time after which an unused local model is unloaded, in seconds; None for never.

        Without an inference process, models stay loaded.
        """
        async with self.engines.call() as engine:
            if engine.environment.inference is not None:
                await engine.environment.inference.keep(model, kept_s)

    def report_queue(self) -> None:
        """Report the queue to the metrics."""
        state = self.queue.state()
        self.stats.report_queue(running=state.running, waiting=state.waiting)

    async def aclose(self) -> None:
        """End the calls that have not ended, and close all parts."""
        if self.batches is not None:
            await self.batches.aclose()
        if self._ring is not None:
            await self._ring.aclose()
        await self._rates.aclose()
        await self.engines.aclose()

    async def warn_of_gaps(self) -> None:
        """Log a warning if requests need a key and none exists, and for each model that has no usable route."""
        for name, lacks in await asyncio.to_thread(without_route, self.config):
            _log.warning("server.models: %s cannot answer: %s", shown_name(name), lacks)
        if self._ring is not None and needs_keys(self.config.server) and await self._ring.is_empty():
            _log.warning("no API key exists, so all requests are refused: create one with `embedway keys create NAME`")

    async def warm(self) -> None:
        """Load the models of `server.warm`, by default the default model if it computes here. Failures are logged."""
        config = self.config
        names = config.server.warm
        if names is None:
            names = (config.embedding.default_model,)
        engine = await self.engines.current()
        for name in names:
            try:
                model = await engine.models.open(name)
                if model.blocked is None:
                    await model.warm()
            except EmbedwayError as error:
                _log.warning("%s was not loaded at the start: %s", shown_name(name), error)
