"""The engine: a request's way from texts to vectors, step by step.

`AsyncEmbedder.embed` reads from top to bottom as the steps are: inspect, plan, batch, dispatch, validate,
result. Inference never runs on the event loop, nor does tokenizing more than a query.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from embedway.config import Config
from embedway.errors import ClosedError, DimensionsError
from embedway.providers.local import open_model, resolve
from embedway.stages.batch import fill_batches
from embedway.stages.dispatch import dispatch
from embedway.stages.inspect import inspect
from embedway.stages.plan import Work, make_plan
from embedway.stages.validate import to_size, validate
from embedway.types import EmbedResult, Receipt, Timing
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from tokenizers import Tokenizer

    from embedway.local.model import LocalModel
    from embedway.local.store import ProgressSink
    from embedway.local.tune import TuneReport
    from embedway.types import InputType, Overflow, Plan, Space


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
    tokenizer: Tokenizer
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
        self._opening: dict[str, asyncio.Task[LocalModel]] = {}
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
    ) -> EmbedResult:
        """Embed texts; row i of the result is the vector of text i.

        Texts over the model's limit are cut and listed in the receipt, or are an error with
        `on_overflow="error"`. Raises InputError, ModelError, DimensionsError, BatchError, BadVectorsError.
        """
        started = time.perf_counter()
        work, route, space = await self._planned(texts, input_type, model, dimensions, on_overflow)
        tokenized = time.perf_counter()
        vectors = await dispatch(work, route, width=route.space.dimensions)
        computed = time.perf_counter()
        vectors = to_size(vectors, space)
        validate(vectors, count=work.plan.unique_texts, space=space, route=route.name)
        if work.plan.unique_texts < work.plan.texts:
            vectors = vectors[work.positions]
        timing = Timing(tokenized - started, computed - tokenized, time.perf_counter() - started)
        return EmbedResult(vectors, space, _receipt(work.plan, route, timing))

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
        work, _, _ = await self._planned(texts, input_type, model, dimensions, on_overflow)
        return work.plan

    async def describe(self, model: str = "auto", dimensions: int | None = None) -> ModelDescription:
        """Load a model and tell its space, limits and tokenizer."""
        route = await self._open(model)
        return ModelDescription(
            model=route.model,
            space=_space(route, dimensions),
            sizes=route.sizes,
            max_tokens=route.max_tokens,
            special_tokens=route.tokenizer.special_tokens,
            tokenizer=route.tokenizer.plain,
            runtime=route.runtime,
        )

    async def warm(self, model: str = "auto") -> None:
        """Load a model and its session, so that the first call finds it ready."""
        route = await self._open(model)
        await asyncio.to_thread(route.warm)

    async def tune(self, model: str = "auto", *, progress: Callable[[str], None] | None = None) -> TuneReport:
        """Measure how this CPU runs a model best and keep the choice; it holds for embedders made afterwards."""
        from embedway.local.tune import tune_model  # noqa: PLC0415  few ever tune

        route = await self._open(model)
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

    async def _planned(
        self,
        texts: str | Sequence[str],
        input_type: InputType,
        model: str,
        dimensions: int | None,
        on_overflow: Overflow | None,
    ) -> tuple[Work, LocalModel, Space]:
        request = inspect(
            texts,
            model=model,
            input_type=input_type,
            dimensions=dimensions,
            on_overflow=on_overflow or self.config.embedding.on_overflow,
        )
        route = await self._open(request.model)
        space = _space(route, request.dimensions)
        if sum(map(len, request.texts)) <= _INLINE_CHARACTERS:
            work = make_plan(request, route, space)
        else:
            work = await asyncio.to_thread(make_plan, request, route, space)
        return work, route, space

    async def _open(self, model: str) -> LocalModel:
        """The loaded model; concurrent first callers wait for one loading, and a failed one is tried anew."""
        if self._closed:
            raise ClosedError("this embedder was closed; make a new one")
        name = self.config.embedding.default_model if model == "auto" else model
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = resolve(name).key
        task = self._opening.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._opening[key] = asyncio.create_task(self._load(name))
        if task.done():
            return task.result()
        # Shielded: one caller's cancellation must not fail the others that wait.
        return await asyncio.shield(task)

    async def _load(self, name: str) -> LocalModel:
        # A daemon's thread: a download that nobody waits for any more must not keep the process from ending.
        worker = Worker("embedway-load")
        try:
            return await worker.call(open_model, name, self.config, self._progress)
        finally:
            worker.close()


def _space(route: LocalModel, dimensions: int | None) -> Space:
    if dimensions is None or dimensions == route.space.dimensions:
        return route.space
    if dimensions not in route.sizes:
        raise DimensionsError(route.model, asked=dimensions, sizes=route.sizes)
    return replace(route.space, dimensions=dimensions)


def _receipt(plan: Plan, route: Any, timing: Timing) -> Receipt:
    return Receipt(
        model=plan.model,
        route=plan.route,
        space_id=plan.space.id,
        texts=plan.texts,
        unique_texts=plan.unique_texts,
        tokens=plan.tokens,
        billed_tokens=0,
        cost_nanousd=plan.cost_nanousd,
        cache_hits=0,
        attempts=plan.batches,
        truncations=plan.truncations,
        timing=timing,
        runtime=route.runtime,
    )
