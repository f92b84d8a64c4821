"""Computing what is missing: on this machine or by services, among others' work, and paid for."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.batching.backends import LocalBackend, ScheduledModel, UpstreamBackend
from embedway.batching.run import run_batches
from embedway.batching.scheduler import BatchScheduler
from embedway.dispatch.billing import bill_of, reserve_for
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy, UpstreamRequest
from embedway.errors import DeadlineError, NoRouteError, RefusedInputError, UpstreamError
from embedway.models.reranker import ServiceReranker
from embedway.models.service import ServiceModel
from embedway.providers.requirements import set_up_here
from embedway.rerank.base import Scoring, check_scores
from embedway.types import Bill
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from embedway.batching.backends import WorkItem
    from embedway.batching.run import BatchRunner
    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.dispatch.request import UpstreamResponse
    from embedway.errors import EmbedwayError
    from embedway.ledger.budgets import Budgets, Spending
    from embedway.models.registry import ModelRegistry
    from embedway.models.reranker import AnyReranker
    from embedway.pipeline.plan import Work
    from embedway.pipeline.ready_rows import ReadyRows
    from embedway.pipeline.rerank import RerankWork
    from embedway.providers.base import LocalRoute
    from embedway.providers.names import AnyModel
    from embedway.types import Space, Vectors


class Computing:
    """Batches for this machine's models and requests to services, of all callers. Used from one event loop."""

    def __init__(self, config: Config, models: ModelRegistry, budgets: Budgets) -> None:
        self._config = config
        self._models = models
        self._budgets = budgets
        upstream = config.upstream
        self._client = UpstreamClient(
            RetryPolicy(upstream.max_attempts, upstream.first_wait_s, upstream.longest_wait_s, upstream.deadline_s)
        )
        self._local: dict[LocalRoute, BatchScheduler[WorkItem, Vectors]] = {}
        self._remote: dict[str, tuple[UpstreamBackend, BatchScheduler[UpstreamRequest, UpstreamResponse]]] = {}

    async def vectors(
        self,
        work: Work,
        model: AnyModel,
        space: Space,
        errors: dict[int, EmbedwayError] | None,
        spending: Spending,
        *,
        landing: ReadyRows | None = None,
    ) -> tuple[Vectors, Bill]:
        """Vectors of the unique texts, on this machine or by a service, and what a service bills."""
        if not isinstance(model, ServiceModel):
            runs = self._among_others(model, work.urgency)
            width = model.space.dimensions
            vectors = await run_batches(
                work.tokenized, work.batches, runs, width=width, errors=errors, on_ready=landing
            )
            return vectors, Bill(0, 0, len(work.batches), (model.name,))
        request = UpstreamRequest(
            work.texts,
            work.tokenized.lengths,
            work.plan.input_type,
            space,
            full_width=model.space.dimensions,
            default_width=model.default_dimensions,
            partial=errors is not None,
            urgency=work.urgency,
            on_ready=landing,
        )
        prices = functools.partial(model.facts.cost_nanousd, dimensions=space.dimensions)
        async with reserve_for(request, self._budgets, spending, prices, exact=model.exact) as account:
            if account is not None:
                request = replace(request, accounts=(account,))
            try:
                response = await self._send(request, model.model)
            except (NoRouteError, UpstreamError) as error:
                raise await self._elsewhere(error, model.model) from error.__cause__
            for failure in set(response.errors.values()):
                await self._elsewhere(failure, model.model)
            if errors is not None:
                errors.update(response.errors)
            if account is not None:
                account.route = ", ".join(response.routes)
        return response.vectors, bill_of(response, prices, account)

    async def scores(
        self, work: RerankWork, model: AnyReranker, errors: dict[int, EmbedwayError] | None, spending: Spending
    ) -> tuple[Vectors, Bill]:
        """Scores of the unique documents, float32 (n, 1), and what a service bills."""
        if not isinstance(model, ServiceReranker):
            runs = self._among_others(model, Urgency(query=True))
            scores = await run_batches(work.tokenized, work.batches, runs, width=1, errors=errors)
            return scores, Bill(0, 0, len(work.batches), (model.name,))
        request = UpstreamRequest(
            work.documents,
            work.tokenized.lengths,
            "document",
            model.space,
            full_width=1,
            urgency=Urgency(query=True),
            one_answer=True,
            partial=errors is not None,
            check=check_scores,
        )
        scoring = self._models.scoring[model.model]
        routes = [replace(route, provider=Scoring(reranker, work.query)) for reranker, route in scoring]
        prices, exact = model.facts.cost_nanousd, model.exact
        async with reserve_for(request, self._budgets, spending, prices, exact=exact, by_search=True) as account:
            if account is not None:
                request = replace(request, accounts=(account,))
            try:
                response = await self._client.send(request, routes)
            except (NoRouteError, UpstreamError) as error:
                raise await self._elsewhere(error, model.model, task="rerank") from error.__cause__
            if errors is not None:
                errors.update(response.errors)
            if account is not None:
                account.route = ", ".join(response.routes)
        return response.vectors, bill_of(response, prices, account)

    def _among_others(self, model: LocalRoute, urgency: Urgency) -> BatchRunner:
        """A model on this machine, whose batches may hold other callers' texts too."""
        if not self._config.batching.across_callers:
            return model
        scheduler = self._local.get(model)
        if scheduler is None:
            backend = LocalBackend(model, max_batch_size=self._config.batching.max_batch_size)
            scheduler = self._local[model] = BatchScheduler(backend)
        return ScheduledModel(model, scheduler, urgency)

    async def _elsewhere(self, error: EmbedwayError, model: str, *, task: Task = "embed") -> EmbedwayError:
        """An error of all of a model's routes, with the other models that are set up here."""
        # A text that is refused is refused for what it is, not for where it was sent.
        if isinstance(error, (NoRouteError, UpstreamError)) and not isinstance(error, RefusedInputError):
            error.elsewhere = await asyncio.to_thread(set_up_here, self._config, but=model, task=task)
        return error

    async def _send(self, request: UpstreamRequest, model: str) -> UpstreamResponse:
        """Send a request, and where it is small with those of others."""
        batching, upstream = self._config.batching, self._config.upstream
        if not batching.across_callers:
            return await self._client.send(request, self._models.routes[model])
        if model not in self._remote:
            backend = UpstreamBackend(
                self._client,
                self._models.routes[model],
                concurrency=upstream.concurrency,
                max_wait_s=batching.max_wait_ms / 1000,
                max_batch_size=batching.max_batch_size,
            )
            self._remote[model] = backend, BatchScheduler(backend)
        backend, scheduler = self._remote[model]
        if backend.is_large(request):
            return await self._client.send(request, self._models.routes[model])
        here = any(route.provider.declared.local for route in self._models.routes[model])
        try:
            async with asyncio.timeout(None if here else upstream.deadline_s):
                return await scheduler.run(request, request.urgency)
        except TimeoutError:
            raise DeadlineError(
                f"{model}: no request was free or answered in {upstream.deadline_s:g} s", attempts=0
            ) from None
