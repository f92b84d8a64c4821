"""The engine: a request's way from texts to vectors, step by step.

`AsyncEmbedder.embed` reads from top to bottom as the steps are: select, inspect, look up, plan, compute, validate,
result. Inference never runs on the event loop, nor does tokenizing more than a query.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from embedway.arguments import listed, named, seconds, whole
from embedway.batching.batches import fill_batches
from embedway.cache.base import CacheFilter
from embedway.cache.opening import open_cache, open_seals
from embedway.cache.stats import CacheCheck
from embedway.cache.vector_cache import Landed, Made, VectorCache, group_of, key_maker, only
from embedway.config import Config
from embedway.errors import (
    DeadlineError,
    TextTooLongError,
    UsageError,
)
from embedway.ledger.base import Purpose
from embedway.ledger.budgets import Budgets, Spending
from embedway.ledger.opening import limits_of, open_ledger
from embedway.models.multi_route import MultiRouteModel
from embedway.models.registry import ModelRegistry
from embedway.models.reranker import names as rerankers
from embedway.models.service import ServiceModel
from embedway.pipeline.embed import Computing
from embedway.pipeline.plan import Work, estimate_of, make_plan, unique_texts
from embedway.pipeline.proof import check_same
from embedway.pipeline.ready_rows import ReadyRows
from embedway.pipeline.receipt import by_row, cuts, in_row, metas_of, receipt_of, space_of, summed, told
from embedway.pipeline.request import decoded, inspect, is_token_ids
from embedway.pipeline.rerank import best_first, by_document, inspect_rerank, plan_rerank
from embedway.providers.names import full_name
from embedway.rerank.base import check_scores
from embedway.selection.selector import (
    AUTO,
    ChosenModel,
    ModelSelector,
    call_options,
    for_dimensions,
    nothing_fits,
    pinned_elsewhere,
    selected,
)
from embedway.space import comparable
from embedway.types import Bill, EmbedResult, Receipt, RerankResult, Timing
from embedway.vectors import to_size, validate

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from types import TracebackType

    from embedway.cache.stats import CacheStats, Cleared
    from embedway.errors import EmbedwayError
    from embedway.ledger.pins import Pin
    from embedway.local.tune import TuneReport
    from embedway.money import Amount
    from embedway.providers.names import AnyModel
    from embedway.selection.scoring import ModelSelectionCriteria, Selection
    from embedway.selection.selector import CallOptions
    from embedway.types import EmbedRequest, InputType, Overflow, PlainTokenizer, Plan, Selected, Space, Vectors
    from embedway.weights.store import ProgressSink


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


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments of `embed` or `plan`. The texts are not checked yet; an iterator of them was read."""

    texts: str | Sequence[str]
    input_type: InputType
    model: str
    dimensions: int | None
    on_overflow: Overflow | None
    partial: bool = False
    priority: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", listed(self.texts, "texts"))
        object.__setattr__(self, "dimensions", whole(self.dimensions, "dimensions"))
        named(self.model, "model")

    @property
    def has_token_ids(self) -> bool:
        """Whether a text is given as token ids."""
        return any(type(text) is not str and is_token_ids(text) for text in self.texts)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the receipt tells beside what was computed, and when the call began."""

    terms: CallOptions
    selected: Selected | None
    started: float


class AsyncEmbedder:
    """Texts to vectors.

    Use it in an `async with` block, or call `aclose`. One embedder serves any number of concurrent calls; a model
    is loaded at its first use and kept. `config` is `Config.load()`'s by default.
    """

    def __init__(self, config: Config | None = None, *, progress: ProgressSink | None = None) -> None:
        self.config = config if config is not None else Config.load()
        cache = open_cache(self.config)
        settings = self.config.cache
        self._recall = (
            VectorCache(
                cache,
                codec=settings.codec,
                zstd=settings.zstd,
                lease_s=settings.lease_s,
                seals=open_seals(settings),
            )
            if cache is not None
            else None
        )
        self._models = ModelRegistry(self.config, progress)
        self._chooser = ModelSelector(self.config)
        webhook = self.config.ledger.webhook
        self._budgets = Budgets(
            open_ledger(self.config),
            limits_of(self.config, full_name),
            lease_s=self.config.ledger.lease_s,
            webhook=None if webhook is None else webhook.get_secret_value(),
        )
        self._computing = Computing(self.config, self._models, self._budgets)

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
        terms = call_options(criteria, collection, api_key_name, max_cost)
        call = _Call(texts, input_type, model, dimensions, on_overflow, partial, priority)
        deadline_s = seconds(deadline_s, "deadline_s")
        if deadline_s is None:
            return await self._embedded(call, terms)
        if not deadline_s > 0:
            raise UsageError(f"deadline_s is {deadline_s}; it must be more than 0 seconds")
        limit = asyncio.timeout(deadline_s)
        try:
            async with limit:
                return await self._embedded(call, terms)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineError(f"the vectors were not there after {deadline_s:g} s", attempts=0) from None

    async def _embedded(self, call: _Call, terms: CallOptions) -> EmbedResult:
        """The steps, once the model is found; for a collection within its pin."""
        started = time.perf_counter()
        choice = await self._choice(call, terms)
        if (choice.model, choice.dimensions) != (call.model, call.dimensions):
            asked = replace(call, model=choice.model, dimensions=choice.dimensions)
        else:
            asked = call
        request, route = await self._asked(asked)
        space = space_of(route, request.dimensions)
        if not terms.collection:
            return await self._result(request, route, space, _Facts(terms, choice.selected, started))
        pin, mine = choice.pin, False
        if pin is None and request.input_type == "document" and request.texts:
            pin, mine = await self._chooser.claim(terms.collection, route.model, space)
            if call.model == AUTO and not comparable(space, pin.space):  # another first write was faster
                await self._chooser.check_privacy(pin, terms)
                choice = ChosenModel(pin.model, call.dimensions or pin.space.dimensions, pin)
                request, route = await self._asked(replace(call, model=choice.model, dimensions=choice.dimensions))
                space = space_of(route, request.dimensions)
        if pin is not None:
            self._chooser.check_space(pin, space, request.input_type)
        held = pin if request.input_type == "document" else None
        async with self._chooser.writing(held, mine=mine) as written:
            result = await self._result(request, route, space, _Facts(terms, choice.selected, started))
            written.append(len(result.errors) < len(request.texts))
        return result

    async def _choice(self, call: _Call, terms: CallOptions) -> ChosenModel:
        """The model that a call names, that its collection is pinned to, or that its criteria select."""
        if terms.criteria is not None and call.model != AUTO:
            raise UsageError(f"model is {call.model!r} and criteria are given; leave one of them out")
        pin = await self._chooser.pins.get(terms.collection) if terms.collection else None
        if pin is not None:
            await self._chooser.check_privacy(pin, terms, named=call.model != AUTO)
            own = call.model == AUTO or (await self._open(call.model)).model == pin.model
            size = call.dimensions or (pin.space.dimensions if own else None)
            return ChosenModel(pin.model if call.model == AUTO else call.model, size, pin)
        if call.model != AUTO or not terms.selects(self.config.embedding.default_model):
            return ChosenModel(call.model, call.dimensions)
        if call.input_type == "query" and terms.collection:
            raise UsageError(
                f"nothing was written to collection {terms.collection!r} yet, so that it has no model; write documents "
                "to it first, or name the model"
            )
        if call.has_token_ids:
            raise UsageError("token ids are those of one model; name it: model=...")
        texts = self._inspected(replace(call, partial=True)).texts
        criteria = for_dimensions(self._chooser.criteria(terms.criteria), call.dimensions)
        whole = (call.on_overflow or self.config.embedding.on_overflow) == "error"
        selection = await self._chooser.select_for(texts, criteria, whole=whole, partial=call.partial)
        if terms.most is None and not whole:
            return ChosenModel(selection.model, criteria.dimensions, None, selected(selection))
        return await self._fitting(replace(call, texts=texts, dimensions=criteria.dimensions), selection, terms)

    async def _fitting(self, call: _Call, selection: Selection, terms: CallOptions) -> ChosenModel:
        """The best of the selected models with which a call costs no more, and cuts no more, than it may."""
        too_dear: list[tuple[str, int | None]] = []
        too_long: TextTooLongError | None = None
        for place, row in enumerate(selection.ranked):
            try:
                plan = await self._planned(replace(call, model=row.model))
            except TextTooLongError as error:
                too_long = error
                continue
            if terms.most is None or (plan.most_nanousd is not None and plan.most_nanousd <= terms.most):
                return ChosenModel(row.model, call.dimensions, None, selected(selection, place, too_dear))
            too_dear.append((row.model, plan.most_nanousd))
        if terms.most is None or not too_dear:
            assert too_long is not None  # noqa: S101  some model was ranked
            raise too_long
        raise nothing_fits(terms.most, too_dear)

    async def _result(self, request: EmbedRequest, route: AnyModel, space: Space, facts: _Facts) -> EmbedResult:
        """The steps for a model and its space."""
        if self._recall is not None:
            return await self._recalled(self._recall, request, route, space, facts)
        work = await self._work(request, route, space)
        tokenized = time.perf_counter()
        # Means are of whole windows: cut before, they would be other vectors than those that a cache keeps.
        size = space if work.windows is None else route.space
        vectors, errors, billed = await self._made(work, route, size, facts.terms.spending(route.model))
        computed = time.perf_counter()
        vectors, failed = by_row(to_size(vectors, space), work.positions, work.refused, errors)
        timing = Timing(tokenized - facts.started, computed - tokenized, time.perf_counter() - facts.started)
        collection = facts.terms.collection
        receipt = receipt_of(work.plan, route, timing, billed, collection=collection, selected=facts.selected)
        return EmbedResult(vectors, space, receipt, failed)

    async def _recalled(
        self, recall: VectorCache, request: EmbedRequest, route: AnyModel, space: Space, facts: _Facts
    ) -> EmbedResult:
        """The same with a cache: only what is not found is planned and computed, at full width."""
        spending = facts.terms.spending(route.model)
        full, namespace = route.space, self.config.cache.namespace
        texts, positions = unique_texts(request.texts, request.refused)
        bills: list[Bill] = []
        spent: list[float] = []

        async def compute(rows: list[int], landed: Landed) -> Made:
            began = time.perf_counter()
            try:
                work = await self._work(only(request, tuple(texts[row] for row in rows)), route, full)
            except TextTooLongError as error:
                row = int(np.flatnonzero(positions == rows[error.row or 0])[0])
                raise TextTooLongError(row=row, max_tokens=error.max_tokens, tokens=error.tokens) from None
            planned = time.perf_counter()
            metas = metas_of(work)
            # What depends on its batch is known by its route, when the answer is here.
            landing = None if self._models.batch_dependent(route) else ReadyRows(work, metas, full, landed)
            vectors, errors, billed = await self._made(work, route, full, spending, landing=landing)
            spent.extend((planned - began, time.perf_counter() - planned))
            bills.append(billed)
            return told(work, metas, vectors, errors, storable=not self._models.batch_dependent(route, billed.routes))

        maker = key_maker(request, full, variant=route.variant, max_tokens=route.max_tokens, namespace=namespace)
        group = group_of(full, route.model, namespace)
        found = await recall.vectors(texts, maker, group, full, compute)
        saved = route.cost_nanousd(found.tokens_saved, full.dimensions) or 0
        recall.counts[route.model].nanousd_saved += saved
        self._budgets.saved(spending.purpose, saved, texts=found.hits, tokens=found.tokens_saved)
        errors = {unique: in_row(error, positions, unique) for unique, error in found.errors.items()}
        if errors and not request.partial:  # another caller's request for the same text told it
            raise errors[min(errors)]
        vectors, failed = by_row(to_size(found.vectors, space), positions, request.refused, errors)
        truncations, averaged = cuts(found.metas, positions)
        billed = summed(bills)
        receipt = Receipt(
            model=route.model,
            route=billed.routes[0] if billed.routes else "cache",
            space_id=space.id,
            texts=len(request.texts),
            unique_texts=len(texts),
            tokens=sum(meta.tokens for meta in found.metas if meta is not None),
            billed_tokens=billed.tokens,
            cost_nanousd=billed.cost_nanousd,
            cache_hits=found.hits,
            lossy_hits=found.lossy_hits,
            attempts=billed.attempts,
            truncations=truncations,
            timing=Timing(sum(spent[::2]), sum(spent[1::2]), time.perf_counter() - facts.started),
            runtime=route.runtime,
            routes=billed.routes,
            estimated=billed.estimated,
            tokens_estimated=not route.exact,
            averaged=averaged,
            unsure_nanousd=billed.unsure,
            saved_nanousd=saved,
            collection=facts.terms.collection,
            selected=facts.selected,
            ledger_entries=billed.entries,
        )
        return EmbedResult(vectors, space, receipt, failed)

    async def _made(
        self, work: Work, route: AnyModel, space: Space, spending: Spending, *, landing: ReadyRows | None = None
    ) -> tuple[Vectors, dict[int, EmbedwayError], Bill]:
        """Vectors of the unique texts, checked, the errors of those that have none, and the bill."""
        errors: dict[int, EmbedwayError] = {}
        wanted = errors if work.partial else None
        vectors, billed = await self._computing.vectors(work, route, space, wanted, spending, landing=landing)
        if work.windows is not None:
            vectors, errors = work.windows.merge(vectors, space), work.windows.errors(errors)
        vectors = to_size(vectors, space)
        good = vectors[sorted(set(range(len(vectors))) - set(errors))] if errors else vectors
        validate(good, count=work.plan.unique_texts - len(errors), space=space, route=route.name)
        return vectors, errors, billed

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
            raise UsageError(f"name a reranker: model=..., or rerank.default_model; there are {', '.join(rerankers())}")
        if on_overflow == "mean":
            raise UsageError("on_overflow is 'mean', and scores have none; it must be truncate or error")
        inspect_rerank(query, top_n)
        terms = call_options(None, collection, api_key_name, max_cost)
        started = time.perf_counter()
        opened = await self._models.open_reranker(name)
        overflow: Overflow = on_overflow or ("error" if self.config.embedding.on_overflow == "error" else "truncate")
        work = await asyncio.to_thread(plan_rerank, query, documents, opened, on_overflow=overflow, partial=partial)
        tokenized = time.perf_counter()
        errors: dict[int, EmbedwayError] = {}
        scores, billed = await self._computing.scores(
            work, opened, errors if partial else None, terms.spending(opened.model)
        )
        good = scores[sorted(set(range(len(scores))) - set(errors))] if errors else scores
        check_scores(good, count=len(good), space=opened.space, route=opened.name)
        computed = time.perf_counter()
        per_document, failed = by_document(scores, work, errors)
        timing = Timing(tokenized - started, computed - tokenized, time.perf_counter() - started)
        receipt = Receipt(
            model=opened.model,
            route=billed.routes[0] if billed.routes else opened.name,
            space_id="",
            texts=len(per_document),
            unique_texts=len(work.documents),
            tokens=work.tokenized.tokens,
            billed_tokens=billed.tokens,
            cost_nanousd=billed.cost_nanousd,
            cache_hits=0,
            attempts=billed.attempts,
            truncations=work.truncations,
            timing=timing,
            runtime=opened.runtime,
            routes=billed.routes,
            estimated=billed.estimated,
            tokens_estimated=not opened.exact,
            billed_searches=billed.searches,
            unsure_nanousd=billed.unsure,
            collection=collection,
            ledger_entries=billed.entries,
        )
        return RerankResult(per_document, best_first(per_document, top_n), receipt, failed)

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
        """What `embed` would do with these texts, with the same model and pin; computes and spends nothing.

        Batches and cost are those of what is not in the cache. A service's model needs no key. Raises as `embed` does,
        BudgetExceededError and SpaceMismatchError too.
        """
        terms = call_options(criteria, collection, "", max_cost)
        call = _Call(texts, input_type, model, dimensions, on_overflow, partial)
        choice = await self._choice(call, terms)
        plan = await self._planned(replace(call, model=choice.model, dimensions=choice.dimensions))
        if choice.pin is not None:
            self._chooser.check_space(choice.pin, plan.space, input_type)
        if terms.most is not None and (plan.most_nanousd is None or plan.most_nanousd > terms.most):
            raise nothing_fits(terms.most, [(plan.model, plan.most_nanousd)])
        return plan

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
        call = _Call(texts, input_type, AUTO, dimensions, on_overflow)
        return [await self._planned(replace(call, model=name)) for name in names]

    async def candidates(self, dimensions: int | None = None) -> list[str]:
        """The models that run here now, and give vectors of this size, if one is asked for."""
        known = await self._chooser.known()
        return [
            one.benchmark.model_name
            for one in known
            if not one.lacks
            and (dimensions is None or dimensions in (one.sizes or (one.benchmark.embedding_dimensions,)))
        ]

    async def _planned(self, call: _Call) -> Plan:
        request, route = await self._asked(call, sending=False)
        space = space_of(route, request.dimensions)
        work = await self._work(request, route, space)
        missing = await self._missing(request, route)
        plan = replace(work.plan, cached_texts=work.plan.unique_texts - len(missing))
        rest = work if not plan.cached_texts else await self._work(only(request, missing), route, space)
        # Whatever size is asked for, a cache is given vectors of full width.
        bill = estimate_of(rest, route, space.dimensions if self._recall is None else route.space.dimensions)
        benchmark = self.config.embedding.model_benchmarks.get(route.model)
        seconds = None
        if benchmark is not None:
            seconds = bill.tokens / benchmark.tokens_per_second
            seconds += benchmark.avg_latency_ms / 1000 if bill.tokens else 0
        return replace(
            plan,
            padded_tokens=rest.plan.padded_tokens,
            batches=len(rest.batches),
            cost_nanousd=bill.cost_nanousd,
            billed_tokens=bill.tokens,
            requests=bill.requests,
            batch_cost_nanousd=bill.batch_cost_nanousd,
            seconds=seconds,
        )

    async def _missing(self, request: EmbedRequest, route: AnyModel) -> tuple[str, ...]:
        """The unique texts that the cache does not hold."""
        texts, _ = unique_texts(request.texts, request.refused)
        if self._recall is None:
            return texts
        full, namespace = route.space, self.config.cache.namespace
        maker = key_maker(request, full, variant=route.variant, max_tokens=route.max_tokens, namespace=namespace)
        group = group_of(full, route.model, namespace)
        _, metas, _ = await self._recall.peek(texts, maker, group, full, strict=False)
        return tuple(text for text, meta in zip(texts, metas, strict=True) if meta is None)

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
        wanted = self._chooser.criteria(call_options(criteria, "", "", None).criteria)
        checked = inspect(texts, model=AUTO, input_type="document", dimensions=None, on_overflow="truncate")
        return await self._chooser.select(checked.texts, wanted, anywhere=anywhere, rest=rest)

    async def pins(self) -> list[Pin]:
        """The collections that have a space, by name; those with a `claim` are being written. Raises LedgerError."""
        return await self._chooser.pins.all()

    async def unpin(self, collection: str) -> bool:
        """Forget a collection whose vectors are gone; False where nothing is known of it. Raises LedgerError."""
        return await self._chooser.pins.remove(named(collection, "collection"))

    async def prove_pin(self, collection: str, texts: Sequence[str], vectors: Vectors | Sequence[Vectors]) -> float:
        """Prove facts that the pin of a collection lacks, because an older version wrote it, and write them into it.

        `texts` are some documents of the collection with their stored vectors, float32 (n, d). They are embedded again;
        returns the lowest cosine. Raises UsageError where nothing is known of the collection or no text is given,
        SpaceMismatchError where the pin is of another space or a vector differs, and as `embed` does.
        """
        pin = await self._chooser.pins.get(named(collection, "collection"))
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
        space = space_of(await self._open(pin.model), pin.space.dimensions)
        comparison = comparable(space, pin.space)
        if not comparison:
            raise pinned_elsewhere(pin, space, "document")
        anew = (await self.embed(texts, model=pin.model, dimensions=pin.space.dimensions)).vectors
        facts = comparison.unknown or ("space",)
        lowest = check_same(
            stored, anew, name=f"collection {collection!r}", recorded=pin.space, asked=space, facts=facts
        )
        if comparison.unknown and not await self._chooser.pins.learn(pin, space):
            raise UsageError(f"the pin of collection {collection!r} was changed meanwhile; look at it again")
        return lowest

    async def cache_stats(self) -> CacheStats:
        """What the cache holds and saved, by model and in total, over all processes that used it and ended.

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
    ) -> Cleared:
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
        recall = self._cache()
        sample = whole(sample, "sample") or 1
        request, route = await self._asked(_Call(texts, input_type, model, None, on_overflow))
        unique, positions = unique_texts(request.texts, {})
        full, namespace = route.space, self.config.cache.namespace
        maker = key_maker(request, full, variant=route.variant, max_tokens=route.max_tokens, namespace=namespace)
        stored, metas, damaged = await recall.peek(unique, maker, group_of(full, route.model, namespace), full)
        found = [number for number, meta in enumerate(metas) if meta is not None]
        # Evenly over all that was found, so that a sample of a long list is of all its parts.
        chosen = [found[place] for place in np.linspace(0, len(found) - 1, min(sample, len(found))).round().astype(int)]
        if not chosen:
            return CacheCheck(len(unique), 0, damaged, 0, None, None, 0)
        work = await self._work(only(request, tuple(unique[number] for number in chosen)), route, full)
        vectors, _, billed = await self._made(work, route, full, Spending(Purpose(route.model)))
        cosines = np.einsum("ij,ij->i", vectors, stored[chosen])
        cosines /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(stored[chosen], axis=1)
        worst = int(cosines.argmin())
        row = int(np.flatnonzero(positions == chosen[worst])[0])
        return CacheCheck(
            len(unique), len(found), damaged, len(chosen), float(cosines[worst]), row, billed.cost_nanousd
        )

    def _cache(self) -> VectorCache:
        if self._recall is None:
            raise UsageError("there is no cache: cache.backend is none; set it to memory, sqlite or redis")
        return self._recall

    async def describe(
        self, model: str = "auto", dimensions: int | None = None, *, sending: bool = True
    ) -> ModelDescription:
        """Load a model and tell its space, limits and tokenizer. A service needs its key unless `sending` is false."""
        route = await self._open(model, sending=sending)
        return ModelDescription(
            model=route.model,
            space=space_of(route, dimensions),
            sizes=route.sizes,
            max_tokens=route.max_tokens,
            special_tokens=route.special_tokens if isinstance(route, ServiceModel) else route.tokenizer.special_tokens,
            tokenizer=route.tokenizer if isinstance(route, ServiceModel) else route.tokenizer.plain,
            runtime=route.runtime,
        )

    async def warm(self, model: str = "auto") -> None:
        """Load a model and its session, so that the first call finds it ready."""
        route = await self._open(model)
        route = route.local if isinstance(route, MultiRouteModel) else route
        if not isinstance(route, ServiceModel):
            await asyncio.to_thread(route.warm)

    async def tune(self, model: str = "auto", *, progress: Callable[[str], None] | None = None) -> TuneReport:
        """Measure how this CPU runs a model best and keep the choice; it holds for embedders made afterwards."""
        from embedway.local.tune import tune_model  # noqa: PLC0415  few ever tune

        route = await self._open(model)
        route = route.local if isinstance(route, MultiRouteModel) else route
        if isinstance(route, ServiceModel):
            raise UsageError(f"{route.model} runs on a service; only models on this machine can be tuned")
        return await asyncio.to_thread(tune_model, route, self.config, progress or (lambda _: None), fill_batches)

    async def aclose(self) -> None:
        """Let running batches end and give all models back. Later calls raise ClosedError."""
        await self._models.aclose()
        if self._recall is not None:
            await self._recall.aclose()
        await self._budgets.aclose()
        await self._chooser.aclose()

    async def _asked(self, call: _Call, *, sending: bool = True) -> tuple[EmbedRequest, AnyModel]:
        """The request, checked, and its model, loaded."""
        if call.has_token_ids:
            opened = await self._open(call.model, sending=sending)
            decode = opened.decode if isinstance(opened, ServiceModel) else None
            texts = [decoded(row, text, decode, opened.model) for row, text in enumerate(call.texts)]
            call = replace(call, texts=texts)
        request = self._inspected(call)
        return request, await self._open(request.model, sending=sending)

    def _inspected(self, call: _Call) -> EmbedRequest:
        return inspect(
            call.texts,
            model=call.model,
            input_type=call.input_type,
            dimensions=call.dimensions,
            on_overflow=call.on_overflow or self.config.embedding.on_overflow,
            partial=call.partial,
            priority=call.priority,
        )

    async def _work(self, request: EmbedRequest, route: AnyModel, space: Space) -> Work:
        if sum(map(len, request.texts)) <= _INLINE_CHARACTERS:
            return make_plan(request, route, space)
        return await asyncio.to_thread(make_plan, request, route, space)

    async def _open(self, model: str, *, sending: bool = True) -> AnyModel:
        return await self._models.open(self.config.embedding.default_model if model == AUTO else model, sending=sending)
