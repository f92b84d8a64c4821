"""The engine: a request's way from texts to vectors, step by step.

`AsyncEmbedder.embed` reads from top to bottom as the steps are: inspect, plan, batch, dispatch, validate,
result. Inference never runs on the event loop, nor does tokenizing more than a query.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from embedway.config import Config
from embedway.errors import ClosedError, DimensionsError, UsageError
from embedway.providers.opening import key_of, open_model
from embedway.providers.service import ServiceModel
from embedway.stages.batch import fill_batches
from embedway.stages.dispatch import dispatch
from embedway.stages.inspect import inspect
from embedway.stages.plan import Work, make_plan
from embedway.stages.rates import RateLimiter
from embedway.stages.send import RetryPolicy, Sender, Sending, ServiceRoute
from embedway.stages.validate import to_size, validate
from embedway.types import EmbedResult, Receipt, Timing
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from embedway.errors import EmbedwayError
    from embedway.local.store import ProgressSink
    from embedway.local.tune import TuneReport
    from embedway.providers.opening import AnyModel
    from embedway.types import InputType, Overflow, PlainTokenizer, Plan, Space, Vectors


#: Tokenizing so little takes 0.1 ms, less than handing it to a thread and back; more never runs on the event loop.
_INLINE_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What is known of a loaded model. `tokenizer` neither pads nor truncates."""

    model: str
    space: Space
    sizes: tuple[int, ...]
    max_tokens: int
    special_tokens: int
    tokenizer: PlainTokenizer
    runtime: str


class AsyncEmbedder:
    """Texts to vectors.

    Use it in an `async with` block, or call `aclose`. One embedder serves any number of concurrent calls; a model
    is loaded at its first use and kept. `config` is `Config.load()`'s by default.
    """

    def __init__(self, config: Config | None = None, *, progress: ProgressSink | None = None) -> None:
        self.config = config if config is not None else Config.load()
        self._progress = progress
        self._keys: dict[str, str] = {}
        self._opening: dict[str, asyncio.Task[AnyModel]] = {}
        self._routes: dict[str, list[ServiceRoute]] = {}
        upstream = self.config.upstream
        self._sender = Sender(
            RetryPolicy(upstream.max_attempts, upstream.first_wait_s, upstream.longest_wait_s, upstream.deadline_s)
        )
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        input_type: InputType = "document",
        model: str = "auto",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
    ) -> EmbedResult:
        """Embed texts; row i of the result is the vector of text i.

        Texts over the model's limit are cut and listed in the receipt, or are an error with
        `on_overflow="error"`. With `partial`, what fails for single texts is told in `errors` by row, and the other
        rows have their vectors. Raises InputError, ModelError, DimensionsError, BatchError, BadVectorsError,
        UpstreamError, NoRouteError, DeadlineError.
        """
        started = time.perf_counter()
        work, route, space = await self._planned(texts, input_type, model, dimensions, on_overflow, partial=partial)
        tokenized = time.perf_counter()
        errors: dict[int, EmbedwayError] = {}
        vectors, billed = await self._computed(work, route, space, errors if partial else None)
        computed = time.perf_counter()
        vectors = to_size(vectors, space)
        good = vectors[sorted(set(range(len(vectors))) - set(errors))] if errors else vectors
        validate(good, count=work.plan.unique_texts - len(errors), space=space, route=route.name)
        vectors, by_row = _by_row(vectors, work, errors)
        timing = Timing(tokenized - started, computed - tokenized, time.perf_counter() - started)
        return EmbedResult(vectors, space, _receipt(work.plan, route, timing, billed), by_row)

    async def plan(
        self,
        texts: str | Sequence[str],
        *,
        input_type: InputType = "document",
        model: str = "auto",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
    ) -> Plan:
        """What `embed` would do with these texts; computes and spends nothing."""
        work, _, _ = await self._planned(texts, input_type, model, dimensions, on_overflow, partial=False)
        return work.plan

    async def describe(self, model: str = "auto", dimensions: int | None = None) -> ModelDescription:
        """Load a model and tell its space, limits and tokenizer."""
        route = await self._open(model)
        return ModelDescription(
            model=route.model,
            space=_space(route, dimensions),
            sizes=route.sizes,
            max_tokens=route.max_tokens,
            special_tokens=route.special_tokens if isinstance(route, ServiceModel) else route.tokenizer.special_tokens,
            tokenizer=route.tokenizer if isinstance(route, ServiceModel) else route.tokenizer.plain,
            runtime=route.runtime,
        )

    async def warm(self, model: str = "auto") -> None:
        """Load a model and its session, so that the first call finds it ready."""
        route = await self._open(model)
        if not isinstance(route, ServiceModel):
            await asyncio.to_thread(route.warm)

    async def tune(self, model: str = "auto", *, progress: Callable[[str], None] | None = None) -> TuneReport:
        """Measure how this CPU runs a model best and keep the choice; it holds for embedders made afterwards."""
        from embedway.local.tune import tune_model  # noqa: PLC0415  few ever tune

        route = await self._open(model)
        if isinstance(route, ServiceModel):
            raise UsageError(f"{route.model} runs on a service; only models on this machine can be tuned")
        return await asyncio.to_thread(tune_model, route, self.config, progress or (lambda _: None), fill_batches)

    async def aclose(self) -> None:
        """Let running batches end and give all models back. Later calls raise ClosedError."""
        self._closed = True
        opening, self._opening = self._opening, {}
        for task in opening.values():
            task.cancel()
        for outcome in await asyncio.gather(*opening.values(), return_exceptions=True):
            if not isinstance(outcome, BaseException):
                await outcome.close()

    async def _computed(
        self, work: Work, model: AnyModel, space: Space, errors: dict[int, EmbedwayError] | None
    ) -> tuple[Vectors, _Billed]:
        """Vectors of the unique texts, on this machine or by a service, and what a service bills."""
        if not isinstance(model, ServiceModel):
            vectors = await dispatch(work, model, width=model.space.dimensions, errors=errors)
            return vectors, _Billed(0, 0, len(work.batches), (model.name,))
        sending = Sending(
            work.texts,
            work.tokenized.lengths,
            work.plan.input_type,
            space,
            full_width=model.space.dimensions,
            partial=errors is not None,
        )
        outcome = await self._sender.send(sending, self._routes[model.model])
        if errors is not None:
            errors.update(outcome.errors)
        tokens = outcome.billed_tokens + outcome.unreported_tokens
        return outcome.vectors, _Billed(
            tokens,
            model.cost_nanousd(tokens),
            outcome.attempts,
            tuple(outcome.routes),
            estimated=outcome.unreported_tokens > 0,
        )

    async def _planned(
        self,
        texts: str | Sequence[str],
        input_type: InputType,
        model: str,
        dimensions: int | None,
        on_overflow: Overflow | None,
        *,
        partial: bool,
    ) -> tuple[Work, AnyModel, Space]:
        request = inspect(
            texts,
            model=model,
            input_type=input_type,
            dimensions=dimensions,
            on_overflow=on_overflow or self.config.embedding.on_overflow,
            partial=partial,
        )
        route = await self._open(request.model)
        space = _space(route, request.dimensions)
        if sum(map(len, request.texts)) <= _INLINE_CHARACTERS:
            work = make_plan(request, route, space)
        else:
            work = await asyncio.to_thread(make_plan, request, route, space)
        return work, route, space

    async def _open(self, model: str) -> AnyModel:
        """The loaded model; concurrent first callers wait for one loading, and a failed one is tried anew."""
        if self._closed:
            raise ClosedError("this embedder was closed; make a new one")
        name = self.config.embedding.default_model if model == "auto" else model
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = key_of(name, self.config)
        task = self._opening.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._opening[key] = asyncio.create_task(self._load(name))
        if task.done():
            return task.result()
        # Shielded: one caller's cancellation must not fail the others that wait.
        return await asyncio.shield(task)

    async def _load(self, name: str) -> AnyModel:
        # A daemon's thread: a download that nobody waits for any more must not keep the process from ending.
        worker = Worker("embedway-load")
        try:
            model = await worker.call(open_model, name, self.config, self._progress)
        finally:
            worker.close()
        if isinstance(model, ServiceModel):
            self._routes[model.model] = [
                ServiceRoute(
                    route,
                    provider,
                    limiter=RateLimiter(requests_per_minute=requests, tokens_per_minute=tokens),
                    slots=asyncio.Semaphore(self.config.upstream.concurrency),
                )
                for route, provider, (requests, tokens) in model.endpoints
            ]
        return model


def _by_row(
    vectors: Vectors, work: Work, errors: Mapping[int, EmbedwayError]
) -> tuple[Vectors, dict[int, EmbedwayError]]:
    """Vectors and errors of the unique texts, given to every row that has one of them; NaN where there is none."""
    if not work.refused and work.plan.unique_texts == work.plan.texts:
        return vectors, dict(errors)
    by_row = dict(work.refused)
    for row, unique in enumerate(work.positions.tolist() if errors else ()):
        if unique in errors:
            by_row[row] = errors[unique]
    if not len(vectors):
        return np.full((work.plan.texts, vectors.shape[1]), np.nan, np.float32), by_row
    rows = vectors[work.positions]  # a copy, in which -1 took the last one
    rows[sorted(work.refused)] = np.nan
    return rows, by_row


def _space(route: AnyModel, dimensions: int | None) -> Space:
    if dimensions is None or dimensions == route.space.dimensions:
        return route.space
    if dimensions not in route.sizes:
        raise DimensionsError(route.model, asked=dimensions, sizes=route.sizes)
    return replace(route.space, dimensions=dimensions)


@dataclass(frozen=True, slots=True)
class _Billed:
    """What computing took: tokens and nano-dollars on the bill, batches or requests, and the routes that answered."""

    tokens: int
    cost_nanousd: int | None
    attempts: int
    routes: tuple[str, ...]
    estimated: bool = False


def _receipt(plan: Plan, model: AnyModel, timing: Timing, billed: _Billed) -> Receipt:
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
    )
