"""The asynchronous API: one embedder serves any number of concurrent calls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, Self, cast

from embedway._admin import AsyncCacheAdmin, AsyncModelAdmin, AsyncPinAdmin
from embedway._engine import Engines
from embedway._public import public
from embedway._quality_admin import AsyncQualityAdmin
from embedway.arguments import (
    as_texts,
    check_count,
    check_flag,
    check_name,
    check_names,
    check_progress,
    check_seconds,
    is_a,
)
from embedway.config import Config
from embedway.config.local_models import AUTO
from embedway.errors import UsageError
from embedway.models.reranker import names as reranker_names
from embedway.pipeline.request import Call, inspect
from embedway.pipeline.rerank import RerankCall, check_query, check_rerank_overflow, rerank_call
from embedway.selection.call_options import CallOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Sequence
    from types import TracebackType
    from typing import Unpack

    from embedway._options import EmbedOptions
    from embedway.money import Amount
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import Selection
    from embedway.telemetry.hooks import Hook
    from embedway.types import EmbedResult, InputType, Overflow, Plan, RerankResult, Texts
    from embedway.weights.store import ProgressSink


@public
class AsyncEmbedder:
    """Asynchronous embedder: computes vectors of texts, and scores of documents.

    Use it in an `async with` block, or call `aclose`. One embedder serves any number of concurrent calls. A model is
    loaded at its first use and stays loaded.

    `model` is the model of each call that names none; by default the settings or the call's criteria decide.
    `config` defaults to `Config.load()`. `progress` receives the progress of downloads. `hooks` observe operations
    (docs/hooks.md). Administration is grouped: `cache`, `pins` and `models`. Raises UsageError and ConfigError.
    """

    model: str = AUTO

    def __init__(
        self,
        model: str | None = None,
        *,
        config: Config | None = None,
        progress: ProgressSink | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        if is_a(model, Config):
            raise UsageError("model is a Config; pass it by name: config=...")
        if config is not None and not is_a(config, Config):
            raise UsageError(f"config is of type {type(config).__name__}; it must be a Config, such as Config.load()")
        self.model = AUTO if model is None else check_name(model, "model")
        if not self.model:
            raise UsageError("model is empty; leave it out for the default model")
        self.config = config if config is not None else Config.load()
        self._engines = Engines(self.config, hooks, check_progress(progress))
        self.cache = AsyncCacheAdmin(self._engines, self.model)
        self.pins = AsyncPinAdmin(self._engines)
        self.models = AsyncModelAdmin(self._engines, self.config, self.model)
        self.quality = AsyncQualityAdmin(self._engines, self.config, self.model)

    def __repr__(self) -> str:
        return f"<embedway.AsyncEmbedder model={self.model!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def embed_query(self, text: Texts, **options: Unpack[EmbedOptions]) -> EmbedResult:
        """Embed a query, or several, to search with: `embed` with `input_type="query"`.

        Options are those of `embed`: model, dimensions, on_overflow, partial, priority, deadline_s, criteria,
        collection, max_cost, api_key_name, backup and normalize.
        """
        return await self.embed(text, input_type="query", **options)

    async def embed_documents(self, texts: Texts, **options: Unpack[EmbedOptions]) -> EmbedResult:
        """Embed documents to search in: `embed` with `input_type="document"`.

        Options are those of `embed`: model, dimensions, on_overflow, partial, priority, deadline_s, criteria,
        collection, max_cost, api_key_name, backup and normalize.
        """
        return await self.embed(texts, input_type="document", **options)

    async def embed(
        self,
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        priority: int = 0,
        deadline_s: float | None = None,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
        api_key_name: str = "",
        backup: Sequence[str] | None = None,
        normalize: bool | None = None,
    ) -> EmbedResult:
        """Embed texts; row i of the result is the vector of text i.

        `texts` is one text or an iterable of texts, which is read once. Models whose tokenizer decodes token ids
        (OpenAI's) also accept a list of token ids as a text. Many models embed the two input types differently.

        `model` defaults to the embedder's, unless `criteria` (a preset's name or `ModelSelectionCriteria`) select one.
        If neither is set, it is `embedding.default_model`. If that is `auto`, a call with a collection or `max_cost`
        selects a model by the criteria in `[selection]`, and any other call uses the default model of the catalog.
        `model="auto"` ignores the embedder's model.

        A `collection` keeps the model and space of its first write; later calls without a model use that model, and
        vectors of another space are refused. `backup` names models for calls without a collection: if the first one
        fails as a whole, the next one embeds all texts in its own space, and the receipt's notes say so. Backups must
        meet the criteria of the call. A model that does not answer may use the whole `deadline_s`. `max_cost` is in
        dollars: nothing is sent that may cost more, and a selected model is the best one within it. `api_key_name`
        is the name of the key whose budget is charged, never the key.

        Texts over the model's limit are truncated and listed in the receipt. With `on_overflow="error"` they are an
        error; with `"mean"` their windows are embedded and averaged. With `partial`, errors of single texts are in
        `errors`, by row, and the other rows have vectors. Concurrent calls are batched together; queries go first, then
        higher priorities (0 to 9). A call with a priority above 5 never waits for other callers. `normalize=False`
        returns vectors without the model's final normalization, `True` vectors of length 1; the space may be another.

        Raises UsageError, InputError, ModelError, DimensionsError, BatchError, BadVectorsError, UpstreamError,
        NoRouteError, NoModelError, SpaceMismatchError, BudgetExceededError, LedgerError, CacheError if a newer version
        wrote the cache, and DeadlineError after `deadline_s` seconds.
        """
        options = CallOptions.of(criteria, collection, api_key_name, max_cost, backup)
        name = self._model_of(model, criteria)
        call = Call(texts, input_type, name, dimensions, on_overflow, partial, priority, normalize)
        checked_s = _check_deadline(deadline_s)
        async with self._engines.call() as engine:
            return await engine.pipeline.embed(call, options, checked_s)

    async def rerank(
        self,
        query: str,
        documents: Texts,
        *,
        model: str | None = None,
        top_n: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        max_cost: Amount | None = None,
        collection: str = "",
        api_key_name: str = "",
    ) -> RerankResult:
        """Score how well each document answers the query, and order the documents, best first.

        The order has `top_n` documents, or all of them. `model` defaults to `rerank.default_model`. Documents over the
        model's limit are truncated and listed in the receipt, or are an error with `on_overflow="error"`. With
        `partial`, errors of single documents are in `errors`. `max_cost` is in dollars; the budgets of `collection` and
        `api_key_name` are charged. Raises as `embed` does.
        """
        asked = None if model is None else check_name(model, "model")
        call = RerankCall(
            check_query(query),
            as_texts(documents, "documents"),
            asked or self._default_reranker(),
            check_count(top_n, "top_n"),
            check_rerank_overflow(on_overflow),
            partial,
            is_default=asked is None,
        )
        options = CallOptions.of(None, collection, api_key_name, max_cost)
        async with self._engines.call() as engine:
            return await rerank_call(call, options, engine.models, self.config)

    async def plan(
        self,
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
        backup: Sequence[str] | None = None,
        normalize: bool | None = None,
    ) -> Plan:
        """Return what `embed` would do with these texts: model, tokens, batches and cost.

        Computes and spends nothing. Batches and cost are those of the texts that are not cached. A service's model
        needs no key. Raises as `embed` does, including BudgetExceededError and SpaceMismatchError.
        """
        options = CallOptions.of(criteria, collection, "", max_cost, backup)
        name = self._model_of(model, criteria)
        call = Call(texts, input_type, name, dimensions, on_overflow, partial, normalize=normalize)
        async with self._engines.call() as engine:
            return await engine.pipeline.plan(call, options)

    async def plans(
        self,
        texts: Texts,
        *,
        models: Sequence[str] | None = None,
        input_type: InputType = "document",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
    ) -> list[Plan]:
        """Return a plan for each of `models`, by default for every model that can run here now.

        Computes and spends nothing. Raises as `plan` does.
        """
        given = check_names(models, "models")
        call = Call(texts, input_type, AUTO, dimensions, on_overflow)
        async with self._engines.call() as engine:
            names = await engine.selector.available(call.dimensions) if given is None else given
            return [await engine.pipeline.plan_with(call, name, call.dimensions) for name in names]

    async def select(
        self,
        texts: Texts,
        criteria: ModelSelectionCriteria | str | None = None,
        *,
        models: Sequence[str] | None = None,
        anywhere: bool = False,
        rest: AsyncIterable[Sequence[str]] | None = None,
    ) -> Selection:
        """Select the best model for these texts by criteria, with the score of each model.

        Computes and spends nothing. `criteria` is a preset's name or `ModelSelectionCriteria`; the default is
        `[selection]`. `models` are the names or aliases of those that may be selected, in place of the criteria's. With
        `anywhere`, models that cannot run here now may be selected too. `rest` (only in AsyncEmbedder) are more texts,
        which are read only for `max_total_cost`. Raises NoModelError, which contains the table, if no model meets every
        requirement, and UnknownModelError for an unknown name.
        """
        asked = CallOptions.of(criteria, "", "", None).criteria
        anywhere = check_flag(anywhere, "anywhere")
        checked = inspect(Call(texts), "truncate")
        async with self._engines.call() as engine:
            wanted = engine.selector.criteria(asked)
            if models is not None:
                wanted = replace(wanted, models=cast("tuple[str, ...]", models))  # it checks them
            return await engine.selector.select(checked.texts, wanted, anywhere=anywhere, rest=rest)

    async def aclose(self, *, drain: bool = False) -> None:
        """Release all models, connections and threads. Later calls raise ClosedError.

        Calls that have not ended raise ClosedError, and their requests to services are dropped; these may be billed,
        and are booked so. With `drain`, calls are waited for. Computed vectors are stored in both cases.
        """
        await self._engines.aclose(drain=drain)

    def __reduce__(self) -> NoReturn:
        """Refuse pickle and copy."""
        raise UsageError(
            "an embedder has connections and threads, so it cannot be pickled or copied; create one in each process, "
            "such as in the worker's initializer"
        )

    def _default_reranker(self) -> str:
        name = self.config.rerank.default_model
        if name is None:
            known = ", ".join(reranker_names())
            raise UsageError(f"no reranker is named: pass model=... or set rerank.default_model to one of {known}")
        return name

    def _model_of(self, model: str | None, criteria: object) -> str:
        """Return the model that a call names; else `auto` if the call has criteria, or the embedder's model."""
        if model is not None:
            return model  # `Call` checks it
        return self.model if criteria is None else AUTO


def _check_deadline(deadline_s: float | None) -> float | None:
    checked_s = check_seconds(deadline_s, "deadline_s")
    if checked_s is not None and not checked_s > 0:
        raise UsageError(f"deadline_s is {checked_s}; it must be greater than 0 seconds")
    return checked_s
