"""Administration of an embedder, in groups: `embedder.cache`, `embedder.pins` and `embedder.models`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from embedway._public import public
from embedway.arguments import (
    as_max_nanousd,
    as_report,
    as_texts,
    as_vectors,
    check_count,
    check_flag,
    check_name,
    check_seconds,
)
from embedway.batching.batches import fill_batches
from embedway.cache.base import CacheFilter
from embedway.errors import UsageError
from embedway.pipeline.cached_texts import check_cache, forget, plan_recompute, recompute
from embedway.pipeline.proof import check_same
from embedway.pipeline.request import Call
from embedway.selection.call_options import CallOptions
from embedway.selection.collection_pins import space_mismatch
from embedway.space import comparable
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway._engine import Engine, Engines
    from embedway.cache.stats import CacheCheck, CacheStats, ClearResult
    from embedway.cache.vector_cache import VectorCache
    from embedway.config import Config
    from embedway.ledger.pins import Pin
    from embedway.local.tune import TuneReport
    from embedway.models.base import Estimate
    from embedway.models.verification import SpaceComparison
    from embedway.money import Amount
    from embedway.quality.space_proofs import SpaceProof, StoredVectors
    from embedway.types import Bill, InputType, ModelDescription, Overflow, Texts, Vectors


@public
class AsyncCacheAdmin:
    """Statistics, clearing and verification of an embedder's cache: `embedder.cache`."""

    def __init__(self, engines: Engines, default_model: str) -> None:
        self._engines = engines
        self._default_model = default_model

    async def stats(self) -> CacheStats:
        """Return hits, savings and entries by model, over all processes that share the cache.

        Raises CacheError if the cache cannot be read, UsageError if there is no cache.
        """
        async with self._engines.call() as engine:
            return await _cache_of(engine).stats()

    async def clear(
        self,
        *,
        model: str | None = None,
        space_id: str | None = None,
        namespace: str | None = None,
        older_than_s: float | None = None,
    ) -> ClearResult:
        """Delete the entries that match every filter; without filters, all entries.

        Filters are a model's full name, a space's id at full width, a namespace and an age in seconds. Raises
        CacheError if the cache cannot be read or written, UsageError if there is no cache.
        """
        given = {"model": model, "space_id": space_id, "namespace": namespace}
        filters = {name: None if value is None else check_name(value, name) for name, value in given.items()}
        older_than_s = check_seconds(older_than_s, "older_than_s")
        if older_than_s is not None and not older_than_s >= 0:
            raise UsageError(f"older_than_s is {older_than_s}; it must be at least 0 seconds")
        async with self._engines.call() as engine:
            return await _cache_of(engine).clear(CacheFilter(**filters, older_than_s=older_than_s))

    async def verify(
        self,
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        on_overflow: Overflow | None = None,
        sample: int = 100,
    ) -> CacheCheck:
        """Recompute the vectors of at most `sample` cached texts, and compare them with the cached ones.

        Entries contain no texts, so the caller passes them. Raises as `embed` does, CacheError if the cache cannot be
        read, UsageError if there is no cache.
        """
        async with self._engines.call() as engine:
            _cache_of(engine)
            call = Call(texts, input_type, self._default_model if model is None else model, None, on_overflow)
            return await check_cache(engine.pipeline, call, check_count(sample, "sample") or 1)

    async def recompute(
        self,
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        max_cost: Amount | None = None,
    ) -> tuple[Vectors, Bill]:
        """Compute vectors of texts without the cache: float32 (n, d), and the bill. `max_cost` is in dollars.

        For verification: the cache is neither read nor written. Raises as `embed` does.
        """
        async with self._engines.call() as engine:
            name = self._default_model if model is None else model
            call = Call(texts, input_type, name, check_count(dimensions, "dimensions"), on_overflow)
            return await recompute(engine.pipeline, call, as_max_nanousd(max_cost))

    async def plan_recompute(
        self, texts: Texts, *, model: str | None = None, on_overflow: Overflow | None = None
    ) -> Estimate:
        """Return the estimated tokens and cost of `recompute`. Nothing is computed. Raises as `plan` does."""
        async with self._engines.call() as engine:
            call = Call(texts, "document", self._default_model if model is None else model, None, on_overflow)
            return await plan_recompute(engine.pipeline, call)

    async def forget(self, texts: Texts, *, model: str | None = None) -> int:
        """Delete the cached vectors of texts, of every input type and overflow policy; return their number.

        Only those of one model, with its present precision and this cache's namespace. Raises CacheError if the cache
        fails, UsageError if there is no cache.
        """
        async with self._engines.call() as engine:
            _cache_of(engine)
            call = Call(texts, "document", self._default_model if model is None else model, None, None)
            return await forget(engine.pipeline, call)


@public
class AsyncPinAdmin:
    """The model and space of each collection, kept from its first write: `embedder.pins`."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    async def list(self) -> list[Pin]:
        """Return all pins, sorted by collection; a pin with a `claim` is being written. Raises LedgerError."""
        async with self._engines.call() as engine:
            return await engine.pins.store.all()

    async def forget(self, collection: str) -> bool:
        """Delete the pin of a collection whose vectors no longer exist; False if it has no pin. Raises LedgerError."""
        collection = check_name(collection, "collection")
        async with self._engines.call() as engine:
            return await engine.pins.store.remove(collection)

    async def prove(self, collection: str, texts: Texts, vectors: Vectors | Sequence[Vectors]) -> float:
        """Prove facts that a pin of an older version lacks, and store them in the pin.

        `texts` are some documents of the collection with their stored vectors, float32 (n, d). They are embedded again;
        returns the lowest cosine. Raises UsageError if the collection has no pin or no text is given,
        SpaceMismatchError if the pin is of another space or a vector differs, and as `embed` does.
        """
        collection = check_name(collection, "collection")
        checked = as_texts(texts, "texts")
        stored = as_vectors(vectors)
        async with self._engines.call() as engine:
            return await _prove(engine, collection, checked, stored)


@public
class AsyncModelAdmin:
    """Models of an embedder: `embedder.models`."""

    def __init__(self, engines: Engines, config: Config, default_model: str) -> None:
        self._engines = engines
        self._config = config
        self._default_model = default_model

    async def available(self, dimensions: int | None = None) -> list[str]:
        """Return the models that can run here now and, with `dimensions`, return vectors of that size."""
        size = check_count(dimensions, "dimensions")
        async with self._engines.call() as engine:
            return await engine.selector.available(size)

    async def describe(
        self, model: str | None = None, dimensions: int | None = None, *, load: bool = False
    ) -> ModelDescription:
        """Return a model's space, limits and tokenizer. Needs no key, and fetches no weights unless `load` is set.

        A model whose weights are not here is described by its catalog row and the small files of its repository. If
        facts of its space are not known without the weights, the digest in its id is `unpulled`.
        """
        size, load = check_count(dimensions, "dimensions"), check_flag(load, "load")
        async with self._engines.call() as engine:
            name = self._name(model)
            return (await (engine.models.open(name) if load else engine.models.outline(name))).describe(size)

    async def warm(self, model: str | None = None) -> None:
        """Load a model and its session, so that the first call does not wait for them."""
        async with self._engines.call() as engine:
            await (await engine.models.open(self._name(model))).warm()

    async def warm_reranker(self, model: str) -> None:
        """Load a reranker, as `warm`. Raises as `rerank` does for one that cannot be used, such as a missing key."""
        name = check_name(model, "model")
        async with self._engines.call() as engine:
            opened = await engine.models.open(name, task="rerank")
            if opened.blocked is not None:
                raise opened.blocked
            await opened.warm()

    async def tune(self, model: str | None = None, *, progress: Callable[[str], None] | None = None) -> TuneReport:
        """Measure the fastest exact settings of a model on this CPU, and store them for embedders created later."""
        from embedway.local.tune import tune_model  # noqa: PLC0415  rarely used

        report = as_report(progress)
        async with self._engines.call() as engine:
            encoder = (await engine.models.open(self._name(model))).encoder()
            return await asyncio.to_thread(tune_model, encoder, self._config, report, fill_batches)

    async def verify(
        self,
        a: str,
        b: str,
        *,
        max_cost: Amount | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> SpaceComparison:
        """Compare the vectors of two models or routes for fixed texts, and store the result as a proof for failover.

        Each is a model, `routes.NAME`, `PROVIDER:MODEL`, or `NAME#PRECISION,BACKEND` of a model on this machine. No
        cache is used. Raises as `embed` does, and BudgetExceededError before anything is sent if the comparison may
        cost more than `max_cost` dollars.
        """
        from embedway.models.verification import verify  # noqa: PLC0415  rarely used

        a, b = check_name(a, "a"), check_name(b, "b")
        report = as_report(progress)
        most = as_max_nanousd(max_cost)
        async with self._engines.call() as engine:
            return await verify(a, b, engine.environment, max_nanousd=most, report=report)

    async def proofs(self) -> list[SpaceProof | StoredVectors]:
        """Return the stored proofs, and the vectors that routes are compared with, also those that are too old.

        Raises LedgerError.
        """
        async with self._engines.call() as engine:
            return await engine.environment.proofs.all()

    async def remove_proof(self, name: str) -> bool:
        """Remove a stored proof. Return False if there is none. Raises LedgerError."""
        name = check_name(name, "name")
        async with self._engines.call() as engine:
            return await engine.environment.proofs.remove(name)

    def _name(self, model: str | None) -> str:
        return self._default_model if model is None else check_name(model, "model")


def _cache_of(engine: Engine) -> VectorCache:
    if engine.pipeline.cache is None:
        raise UsageError("there is no cache: cache.backend is none; set it to memory, sqlite or redis")
    return engine.pipeline.cache


async def _prove(engine: Engine, collection: str, checked: Sequence[str], stored: Vectors) -> float:
    """Prove and store missing facts of a pin; see `AsyncPinAdmin.prove`."""
    pin = await engine.pins.store.get(collection)
    if pin is None or pin.claim:
        raise UsageError(f"collection {shown_name(collection)} has no pin to prove: nothing was written to it yet")
    if not checked or stored.shape != (len(checked), pin.space.dimensions):
        raise UsageError(
            f"{len(checked)} texts came with vectors of shape {stored.shape}; pass at least one text, and a vector "
            f"of {pin.space.dimensions} numbers for each"
        )
    space = await engine.pipeline.space_of_pin(pin)
    comparison = comparable(space, pin.space)
    if not comparison:
        raise space_mismatch(pin, space, "document")
    call = Call(checked, model=pin.model, dimensions=pin.space.dimensions, normalize=space.normalized)
    computed = await engine.pipeline.embed(call, CallOptions())
    lowest = check_same(
        stored,
        computed.vectors,
        name=f"collection {shown_name(collection)}",
        recorded=pin.space,
        asked=space,
        facts=comparison.unknown or ("space",),
    )
    if comparison.unknown and not await engine.pins.store.learn(pin, space):
        raise UsageError(f"the pin of collection {shown_name(collection)} was changed meanwhile; try again")
    return lowest
