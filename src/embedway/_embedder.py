"""The asynchronous face of embedway: one embedder serves any number of concurrent calls."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

import numpy as np

from embedway.arguments import listed, named, seconds, whole
from embedway.batching.batches import fill_batches
from embedway.cache.base import CacheFilter
from embedway.cache.vector_cache import open_vector_cache
from embedway.config import Config
from embedway.config.local_models import AUTO
from embedway.errors import UsageError
from embedway.ledger.budgets import Budgets
from embedway.ledger.opening import limits_of, open_ledger
from embedway.models.base import ModelEnvironment
from embedway.models.registry import ModelRegistry
from embedway.models.reranker import names as reranker_names
from embedway.pipeline.embed import EmbedPipeline
from embedway.pipeline.proof import check_same
from embedway.pipeline.receipt import CallFacts
from embedway.pipeline.request import Call, inspect
from embedway.pipeline.rerank import check_query, rerank
from embedway.providers.names import full_name
from embedway.selection.call_options import CallOptions
from embedway.selection.collection_pins import CollectionPins, space_mismatch
from embedway.selection.selector import ModelSelector
from embedway.space import comparable
from embedway.telemetry import open_hooks
from embedway.telemetry.operations import RequestDetails

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from types import TracebackType

    from embedway.cache.stats import CacheCheck, CacheStats, ClearResult
    from embedway.cache.vector_cache import VectorCache
    from embedway.ledger.pins import Pin
    from embedway.local.tune import TuneReport
    from embedway.money import Amount
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import Selection
    from embedway.telemetry.hooks import Hook
    from embedway.types import EmbedResult, InputType, ModelDescription, Overflow, Plan, RerankResult, Vectors
    from embedway.weights.store import ProgressSink


class AsyncEmbedder:
    """Texts to vectors.

    Use it in an `async with` block, or call `aclose`. One embedder serves any number of concurrent calls; a model
    is loaded at its first use and kept. `config` is `Config.load()`'s by default. `hooks` see its operations
    (docs/hooks.md).
    """

    def __init__(
        self, config: Config | None = None, *, progress: ProgressSink | None = None, hooks: Sequence[Hook] = ()
    ) -> None:
        self.config = config = config if config is not None else Config.load()
        webhook = config.ledger.webhook
        self._hooks = open_hooks(hooks, webhook=None if webhook is None else webhook.get_secret_value())
        self._budgets = Budgets(
            open_ledger(config),
            limits_of(config, full_name),
            lease_s=config.ledger.lease_s,
            hooks=self._hooks,
        )
        self._models = ModelRegistry(ModelEnvironment(config, self._budgets, self._hooks), progress)
        self._selector = ModelSelector(config)
        self._collection_pins = CollectionPins(config, self._selector)
        self._pipeline = EmbedPipeline(
            config,
            self._models,
            self._selector,
            self._collection_pins,
            budgets=self._budgets,
            cache=open_vector_cache(config, self._hooks),
        )

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
        priority: int = 0,
        deadline_s: float | None = None,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
        api_key_name: str = "",
    ) -> EmbedResult:
        """Embed texts; row i of the result is the vector of text i.

        Where no model is named, `criteria` (a preset's name, or `ModelSelectionCriteria`) select one, those of
        `[selection]` if only a collection or `max_cost` is given; with none of them it is
        `embedding.default_model`. A `collection` keeps the model and space of its first write for good, and vectors of
        any other space are refused. `max_cost` is dollars: the best model that fits is taken, where one is selected,
        and nothing is sent that may cost more. `api_key_name` is whose budget is charged, a name and never the key.

        Texts over the model's limit are cut and listed in the receipt; with `on_overflow="error"` they are an error,
        with `"mean"` their windows are embedded and the vectors averaged, as the receipt says. A text may be given as a
        list of token ids to models whose tokenizer can decode them for certain (OpenAI's). With `partial`, what fails
        for single texts is told in `errors` by row, and the other
        rows have their vectors. Concurrent calls are computed together; queries go first, then higher priorities (0 to
        9), and above 5 nothing waits for other callers. Raises InputError, ModelError, DimensionsError, BatchError,
        BadVectorsError, UpstreamError, NoRouteError, NoModelError, SpaceMismatchError, BudgetExceededError,
        LedgerError, CacheError where a newer version wrote the cache, and DeadlineError when `deadline_s` seconds were
        not enough.
        """
        options = CallOptions.of(criteria, collection, api_key_name, max_cost)
        call = Call(texts, input_type, model, dimensions, on_overflow, partial, priority)
        deadline_s = seconds(deadline_s, "deadline_s")
        if deadline_s is not None and not deadline_s > 0:
            raise UsageError(f"deadline_s is {deadline_s}; it must be more than 0 seconds")
        return await self._pipeline.embed(call, options, deadline_s)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        max_cost: Amount | None = None,
        collection: str = "",
        api_key_name: str = "",
    ) -> RerankResult:
        """Score how well each document answers the query, and order the best first, `top_n` of them or all.

        `model` is `rerank.default_model` by default. Documents over the model's limit are cut and listed in the
        receipt, or are an error with `on_overflow="error"`; with `partial`, what fails for single documents is told in
        `errors`. `max_cost` is dollars; `collection` and `api_key_name` are whose budgets are charged. Raises as
        `embed` does.
        """
        name = self.config.rerank.default_model if model is None or model == "" else named(model, "model")
        documents = listed(documents, "documents")
        if name is None:
            known = ", ".join(reranker_names())
            raise UsageError(f"name a reranker: model=..., or rerank.default_model; there are {known}")
        if on_overflow == "mean":
            raise UsageError("on_overflow is 'mean', and scores have none; it must be truncate or error")
        check_query(query, top_n)
        options = CallOptions.of(None, collection, api_key_name, max_cost)
        facts = CallFacts(time.perf_counter(), collection)
        with self._hooks.operation(RequestDetails, "rerank", name, len(documents), None, collection) as outcome:
            opened = await self._models.open(name, task="rerank")
            default: Overflow = "error" if self.config.embedding.on_overflow == "error" else "truncate"
            spending = options.spending(opened.name)
            result = await rerank(
                opened,
                query,
                documents,
                facts,
                spending,
                top_n=top_n,
                on_overflow=on_overflow or default,
                partial=partial,
            )
            outcome.fill(result.receipt)
            outcome.failures = len(result.errors)
        return result

    async def plan(
        self,
        texts: str | Sequence[str],
        *,
        input_type: InputType = "document",
        model: str = "auto",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
    ) -> Plan:
        """Plan an `embed` of these texts with the same model and pin; computes and spends nothing.

        Batches and cost are those of what is not in the cache. A service's model needs no key. Raises as `embed` does,
        BudgetExceededError and SpaceMismatchError too.
        """
        options = CallOptions.of(criteria, collection, "", max_cost)
        return await self._pipeline.plan(Call(texts, input_type, model, dimensions, on_overflow, partial), options)

    async def plans(
        self,
        texts: str | Sequence[str],
        *,
        models: Sequence[str] | None = None,
        input_type: InputType = "document",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
    ) -> list[Plan]:
        """The plan of each model that could embed these texts: of `models`, or of all that run here now.

        Computes and spends nothing. Raises as `plan` does.
        """
        names = await self.candidates(dimensions) if models is None else models
        call = Call(texts, input_type, AUTO, dimensions, on_overflow)
        return [await self._pipeline.plan_with(call, name, dimensions) for name in names]

    async def candidates(self, dimensions: int | None = None) -> list[str]:
        """The models that run here now, and give vectors of this size, if one is asked for."""
        known = await self._selector.candidates()
        return [
            one.benchmark.model_name
            for one in known
            if not one.lacks
            and (dimensions is None or dimensions in (one.sizes or (one.benchmark.embedding_dimensions,)))
        ]

    async def select(
        self,
        texts: str | Sequence[str],
        criteria: ModelSelectionCriteria | str | None = None,
        *,
        anywhere: bool = False,
        rest: AsyncIterable[Sequence[str]] | None = None,
    ) -> Selection:
        """The model that `embed` would select for these texts, with the whole table; computes and spends nothing.

        `criteria` is the name of a preset, or those of `[selection]` by default. With `anywhere`, models that cannot
        run here now may be selected too. `rest` are more texts, which are read and counted only for `max_total_cost`.
        Raises NoModelError, which holds the table, when no model meets all that is required.
        """
        self._models.check_open()
        wanted = self._selector.criteria(CallOptions.of(criteria, "", "", None).criteria)
        checked = inspect(Call(texts), "truncate")
        return await self._selector.select(checked.texts, wanted, anywhere=anywhere, rest=rest)

    async def pins(self) -> list[Pin]:
        """The collections that have a space, by name; those with a `claim` are being written. Raises LedgerError."""
        return await self._collection_pins.store.all()

    async def unpin(self, collection: str) -> bool:
        """Forget a collection whose vectors are gone; False where nothing is known of it. Raises LedgerError."""
        return await self._collection_pins.store.remove(named(collection, "collection"))

    async def prove_pin(self, collection: str, texts: Sequence[str], vectors: Vectors | Sequence[Vectors]) -> float:
        """Prove facts that the pin of a collection lacks, because an older version wrote it, and write them into it.

        `texts` are some documents of the collection with their stored vectors, float32 (n, d). They are embedded again;
        returns the lowest cosine. Raises UsageError where nothing is known of the collection or no text is given,
        SpaceMismatchError where the pin is of another space or a vector differs, and as `embed` does.
        """
        pin = await self._collection_pins.store.get(named(collection, "collection"))
        texts = listed(texts, "texts")
        try:
            stored = np.asarray(vectors, np.float32)
        except (TypeError, ValueError):
            raise UsageError("vectors must be an array of numbers, a row for each text") from None
        if pin is None or pin.claim:
            raise UsageError(f"nothing was written to collection {collection!r} yet, so that it has no pin to prove")
        if not texts or stored.shape != (len(texts), pin.space.dimensions):
            raise UsageError(
                f"{len(texts)} texts came with vectors of shape {stored.shape}; give texts, and for each a vector of "
                f"{pin.space.dimensions} numbers"
            )
        space = (await self._models.open(pin.model)).space_of_size(pin.space.dimensions)
        comparison = comparable(space, pin.space)
        if not comparison:
            raise space_mismatch(pin, space, "document")
        anew = (await self.embed(texts, model=pin.model, dimensions=pin.space.dimensions)).vectors
        facts = comparison.unknown or ("space",)
        lowest = check_same(
            stored, anew, name=f"collection {collection!r}", recorded=pin.space, asked=space, facts=facts
        )
        if comparison.unknown and not await self._collection_pins.store.learn(pin, space):
            raise UsageError(f"the pin of collection {collection!r} was changed meanwhile; look at it again")
        return lowest

    async def cache_stats(self) -> CacheStats:
        """Count the hits, savings and entries of the cache, by model, over all processes that used it and ended.

        Raises CacheError where it cannot be read, UsageError where there is none.
        """
        return await self._cache().stats()

    async def clear_cache(
        self,
        *,
        model: str | None = None,
        space_id: str | None = None,
        namespace: str | None = None,
        older_than_s: float | None = None,
    ) -> ClearResult:
        """Forget entries of all that is given: a model's full name, a space's id at full width, a namespace, an age.

        Raises CacheError where the cache cannot be read or written, UsageError where there is none.
        """
        for name, value in (("model", model), ("space_id", space_id), ("namespace", namespace)):
            if value is not None:
                named(value, name)
        older_than_s = seconds(older_than_s, "older_than_s")
        if older_than_s is not None and not older_than_s >= 0:
            raise UsageError(f"older_than_s is {older_than_s}; it must be at least 0 seconds")
        which = CacheFilter(model, space_id, namespace, older_than_s)
        return await self._cache().clear(which)

    async def check_cache(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType = "document",
        model: str = "auto",
        on_overflow: Overflow | None = None,
        sample: int = 100,
    ) -> CacheCheck:
        """Compute anew what the cache holds of these texts, `sample` of them at most, and compare.

        Entries hold no texts, so that they have to be given. Raises as `embed` does, CacheError where the cache cannot
        be read, UsageError where there is none.
        """
        self._cache()
        call = Call(texts, input_type, model, None, on_overflow)
        return await self._pipeline.check_cache(call, whole(sample, "sample") or 1)

    def _cache(self) -> VectorCache:
        if self._pipeline.cache is None:
            raise UsageError("there is no cache: cache.backend is none; set it to memory, sqlite or redis")
        return self._pipeline.cache

    async def describe(self, model: str = "auto", dimensions: int | None = None) -> ModelDescription:
        """Load a model and tell its space, limits and tokenizer."""
        return (await self._models.open(named(model, "model"))).describe(dimensions)

    async def warm(self, model: str = "auto") -> None:
        """Load a model and its session, so that the first call finds it ready."""
        await (await self._models.open(named(model, "model"))).warm()

    async def tune(self, model: str = "auto", *, progress: Callable[[str], None] | None = None) -> TuneReport:
        """Measure how this CPU runs a model best and keep the choice; it holds for embedders made afterwards."""
        from embedway.local.tune import tune_model  # noqa: PLC0415  few ever tune

        encoder = (await self._models.open(named(model, "model"))).encoder()
        return await asyncio.to_thread(tune_model, encoder, self.config, progress or (lambda _: None), fill_batches)

    async def aclose(self) -> None:
        """Let running batches end and give all models back. Later calls raise ClosedError."""
        await self._models.aclose()
        if self._pipeline.cache is not None:
            await self._pipeline.cache.aclose()
        try:
            await self._budgets.aclose()
        finally:
            await self._hooks.flush()
        await self._collection_pins.aclose()
