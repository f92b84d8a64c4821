"""The gateway's calls: checks the rights of the caller, waits for its turn, and computes with one embedder."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.errors import EmbedwayError, InputError, UsageError
from embedway.pipeline import rerank
from embedway.pipeline.deadline import run_in_time
from embedway.pipeline.request import Call
from embedway.selection.call_options import CallOptions
from embedway.server.problems import BodyError
from embedway.server.readiness import Readiness
from embedway.text import shown_name

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

    from embedway._engine import Engines
    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.selection.scoring import Selection
    from embedway.server.caller import Caller
    from embedway.server.calls import EmbedCall, RerankCall
    from embedway.server.served import ServedModels
    from embedway.server.stats import Stats
    from embedway.types import EmbedResult, Plan, RerankResult

_log = logging.getLogger("embedway.server")

#: Bytes of text for each estimated token.
_BYTES_A_TOKEN = 4


class Gateway:
    """Computes the calls of all callers; see `calls.Computing`. For use from one event loop."""

    def __init__(
        self, config: Config, engines: Engines, served: ServedModels, stats: Stats, folder: Path | None = None
    ) -> None:
        self.config = config
        self.engines = engines
        self.served = served
        self.stats = stats
        #: Folder in which the workers share their statistics; None for a single gateway without a supervisor.
        self.folder = folder
        #: Requests that compute, and that wait for their turn.
        self.running = 0
        self.waiting = 0
        self.readiness = Readiness(config, engines)

    async def embed(self, caller: Caller, call: EmbedCall) -> EmbedResult:
        """Embed texts for a caller."""
        self._check_size(call)
        asked, options = await self._prepared(caller, call)
        deadline_s = self._deadline_s(call.deadline_s)
        async with self.engines.call() as engine:
            return await engine.pipeline.embed(asked, options, deadline_s)

    async def plan(self, caller: Caller, call: EmbedCall) -> Plan:
        """Return the plan of a call."""
        self._check_size(call)
        deadline_s = self._deadline_s(call.deadline_s)
        asked, options = await self._prepared(caller, call)
        async with self.engines.call() as engine:
            return await run_in_time(engine.pipeline.plan(asked, options), deadline_s)

    async def rerank(self, caller: Caller, call: RerankCall) -> RerankResult:
        """Score documents for a caller."""
        self._check_texts(len(call.documents), sum(map(len, call.documents)))
        name = await self.served.resolve(call.model or self.default_name("rerank"), caller, "rerank")
        options = self._options(caller, call.collection, call.max_cost)
        overflow = rerank.check_rerank_overflow(call.on_overflow)
        try:
            query = rerank.check_query(call.query)
        except InputError as error:
            raise BodyError(str(error), param="query", code="invalid_input") from None
        asked = rerank.RerankCall(query, call.documents, name, call.top_n, overflow)
        deadline_s = self._deadline_s(call.deadline_s)
        async with self.engines.call() as engine:
            work = rerank.rerank_call(asked, options, engine.models, self.config)
            return await run_in_time(work, deadline_s)

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
            criteria = replace(engine.selector.criteria(preset), models=await self._selectable(caller))
            return await run_in_time(engine.selector.select(tuple(texts), criteria), deadline_s)

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
                criteria = replace(engine.selector.criteria(None), models=await self._selectable(caller))
            options = replace(options, criteria=criteria)
        elif model != AUTO:
            model = await self.served.resolve(model, caller)
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
        )
        return asked, options

    async def _selectable(self, caller: Caller) -> tuple[str, ...]:
        return tuple(name for name, task in await self.served.all(caller) if task == "embed")

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

    def _check_size(self, call: EmbedCall) -> None:
        self._check_texts(len(call.texts), sum(map(len, call.texts)))

    def _check_texts(self, count: int, characters: int) -> None:
        """Refuse an empty or too large request before anything waits or is reserved."""
        settings = self.config.server
        if not count:
            raise BodyError("there is no text; send at least one", param="input")
        if count > settings.max_inputs:
            raise BodyError(
                f"{count:,} texts; at most {settings.max_inputs:,} in a request", param="input", code="too_many_inputs"
            )
        if characters > settings.max_tokens * _BYTES_A_TOKEN:
            raise BodyError(
                f"about {characters // _BYTES_A_TOKEN:,} tokens; at most {settings.max_tokens:,} in a request",
                param="input",
                code="too_many_tokens",
            )

    def report_queue(self) -> None:
        """Report the queue to the metrics."""
        self.stats.report_queue(running=self.running, waiting=self.waiting)

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
