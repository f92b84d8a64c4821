"""Computing what is missing: on this machine or by services, among others' work, and paid for."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.batching.backends import Gathered, LocalBackend, UpstreamBackend
from embedway.batching.run import dispatch
from embedway.batching.scheduler import BatchScheduler
from embedway.dispatch.recovery import RetryPolicy, UpstreamClient, UpstreamRequest, searches_of
from embedway.errors import DeadlineError, NoRouteError, RefusedInputError, UpstreamError
from embedway.models.reranker import ServiceReranker
from embedway.models.service import ServiceModel
from embedway.pipeline.receipt import bill_of
from embedway.providers.requirements import set_up_here
from embedway.rerank.base import Scoring, check_scores
from embedway.types import Bill
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from embedway.batching.backends import Piece
    from embedway.batching.run import Runs
    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.dispatch.recovery import UpstreamResponse
    from embedway.errors import EmbedwayError
    from embedway.ledger.account import Account, CallBudget
    from embedway.ledger.budgets import Budgets
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
        self._sender = UpstreamClient(
            RetryPolicy(upstream.max_attempts, upstream.first_wait_s, upstream.longest_wait_s, upstream.deadline_s)
        )
        self._local: dict[LocalRoute, BatchScheduler[Piece, Vectors]] = {}
        self._remote: dict[str, tuple[UpstreamBackend, BatchScheduler[UpstreamRequest, UpstreamResponse]]] = {}

    async def vectors(
        self,
        work: Work,
        model: AnyModel,
        space: Space,
        errors: dict[int, EmbedwayError] | None,
        spending: CallBudget,
        *,
        landing: ReadyRows | None = None,
    ) -> tuple[Vectors, Bill]:
        """Vectors of the unique texts, on this machine or by a service, and what a service bills."""
        if not isinstance(model, ServiceModel):
            runs = self._among_others(model, work.urgency)
            width = model.space.dimensions
            vectors = await dispatch(work.tokenized, work.batches, runs, width=width, errors=errors, landed=landing)
            return vectors, Bill(0, 0, len(work.batches), (model.name,))
        sending = UpstreamRequest(
            work.texts,
            work.tokenized.lengths,
            work.plan.input_type,
            space,
            full_width=model.space.dimensions,
            default_width=model.default_dimensions,
            partial=errors is not None,
            urgency=work.urgency,
            landed=landing,
        )
        async with self._paying(sending, model, spending) as account:
            if account is not None:
                sending = replace(sending, accounts=(account,))
            try:
                outcome = await self._sent(sending, model.model)
            except (NoRouteError, UpstreamError) as error:
                raise await self._elsewhere(error, model.model) from error.__cause__
            for failure in set(outcome.errors.values()):
                await self._elsewhere(failure, model.model)
            if errors is not None:
                errors.update(outcome.errors)
            if account is not None:
                account.route = ", ".join(outcome.routes)
        return outcome.vectors, bill_of(outcome, model, space.dimensions, account)

    async def scores(
        self, work: RerankWork, model: AnyReranker, errors: dict[int, EmbedwayError] | None, spending: CallBudget
    ) -> tuple[Vectors, Bill]:
        """Scores of the unique documents, float32 (n, 1), and what a service bills."""
        if not isinstance(model, ServiceReranker):
            runs = self._among_others(model, Urgency(query=True))
            scores = await dispatch(work.tokenized, work.batches, runs, width=1, errors=errors)
            return scores, Bill(0, 0, len(work.batches), (model.name,))
        sending = UpstreamRequest(
            work.documents,
            work.tokenized.lengths,
            "document",
            model.space,
            full_width=1,
            urgency=Urgency(query=True),
            compared=True,
            partial=errors is not None,
            check=check_scores,
        )
        scoring = self._models.scoring[model.model]
        routes = [replace(route, provider=Scoring(reranker, work.query)) for reranker, route in scoring]
        async with self._paying(sending, model, spending) as account:
            if account is not None:
                sending = replace(sending, accounts=(account,))
            try:
                outcome = await self._sender.send(sending, routes)
            except (NoRouteError, UpstreamError) as error:
                raise await self._elsewhere(error, model.model, task="rerank") from error.__cause__
            if errors is not None:
                errors.update(outcome.errors)
            if account is not None:
                account.route = ", ".join(outcome.routes)
        return outcome.vectors, bill_of(outcome, model, account=account)

    @contextlib.asynccontextmanager
    async def _paying(
        self, sending: UpstreamRequest, model: ServiceModel | ServiceReranker, spending: CallBudget
    ) -> AsyncIterator[Account | None]:
        """Reserve what a request may cost, and give back what of it is left; None where nothing is billed."""
        facts, size = model.facts, sending.space.dimensions
        scoring = isinstance(model, ServiceReranker)

        def prices(tokens: int, searches: int) -> int | None:
            return facts.cost_nanousd(tokens, searches, dimensions=None if scoring else size)

        if not sending.texts or prices(1_000_000, 1000) == 0:
            yield None
            return
        account = await self._budgets.open(
            spending,
            prices,
            tokens=int(sending.lengths.sum(dtype=np.int64)),
            texts=len(sending.texts),
            searches=searches_of(sending.lengths) if scoring else 0,
            exact=model.exact,
        )
        try:
            yield account
        finally:
            # Also when the caller is cancelled meanwhile.
            await asyncio.shield(self._budgets.run_in_background(account.close()))

    def _among_others(self, model: LocalRoute, urgency: Urgency) -> Runs:
        """A model on this machine, whose batches may hold other callers' texts too."""
        if not self._config.batching.across_callers:
            return model
        gather = self._local.get(model)
        if gather is None:
            crew = LocalBackend(model, max_batch_size=self._config.batching.max_batch_size)
            gather = self._local[model] = BatchScheduler(crew)
        return Gathered(model, gather, urgency)

    async def _elsewhere(self, error: EmbedwayError, model: str, *, task: Task = "embed") -> EmbedwayError:
        """An error of all of a model's routes, with the other models that are set up here."""
        # A text that is refused is refused for what it is, not for where it was sent.
        if isinstance(error, (NoRouteError, UpstreamError)) and not isinstance(error, RefusedInputError):
            error.elsewhere = await asyncio.to_thread(set_up_here, self._config, but=model, task=task)
        return error

    async def _sent(self, sending: UpstreamRequest, model: str) -> UpstreamResponse:
        """Send a request, and where it is small with those of others."""
        batching, upstream = self._config.batching, self._config.upstream
        if not batching.across_callers:
            return await self._sender.send(sending, self._models.routes[model])
        if model not in self._remote:
            crew = UpstreamBackend(
                self._sender,
                self._models.routes[model],
                slots=upstream.concurrency,
                max_wait_s=batching.max_wait_ms / 1000,
                max_batch_size=batching.max_batch_size,
            )
            self._remote[model] = crew, BatchScheduler(crew)
        crew, gather = self._remote[model]
        if crew.large(sending):
            return await self._sender.send(sending, self._models.routes[model])
        here = any(route.provider.declared.local for route in self._models.routes[model])
        try:
            async with asyncio.timeout(None if here else upstream.deadline_s):
                return await gather.run(sending, sending.urgency)
        except TimeoutError:
            raise DeadlineError(
                f"{model}: no request was free or answered in {upstream.deadline_s:g} s", attempts=0
            ) from None
