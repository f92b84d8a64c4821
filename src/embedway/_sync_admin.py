"""Blocking forms of the classes in `embedway._admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from embedway._admin import AsyncCacheAdmin, AsyncModelAdmin, AsyncPinAdmin
from embedway._public import blocking_form_of, public
from embedway._quality_admin import AsyncQualityAdmin
from embedway.arguments import as_texts, as_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from embedway.cache.stats import CacheCheck, CacheStats, ClearResult
    from embedway.ledger.pins import Pin
    from embedway.local.tune import TuneReport
    from embedway.models.base import Estimate
    from embedway.models.verification import SpaceComparison
    from embedway.money import Amount
    from embedway.quality.baseline_reports import BaselineReport, BaselineSummary, QualityCheck, QualityPlan
    from embedway.quality.pairs import Pair
    from embedway.quality.space_proofs import SpaceProof, StoredVectors
    from embedway.quality.vector_report import VectorReport
    from embedway.types import Bill, InputType, ModelDescription, Overflow, Texts, Vectors

T = TypeVar("T")


class Wait(Protocol):
    """Runs a coroutine on an embedder's loop and returns its result."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T:
        """Run `work`."""


@public
@blocking_form_of(AsyncCacheAdmin)
class CacheAdmin:
    """Statistics, clearing and verification of an embedder's cache: `embedder.cache`."""

    def __init__(self, group: AsyncCacheAdmin, wait: Wait) -> None:
        self._group = group
        self._wait = wait

    def stats(self) -> CacheStats:
        """Return hits, savings and entries by model, over all processes that share the cache."""
        return self._wait(self._group.stats())

    def clear(
        self,
        *,
        model: str | None = None,
        space_id: str | None = None,
        namespace: str | None = None,
        older_than_s: float | None = None,
    ) -> ClearResult:
        """Delete the entries that match every filter; without filters, all entries."""
        return self._wait(
            self._group.clear(model=model, space_id=space_id, namespace=namespace, older_than_s=older_than_s)
        )

    def verify(
        self,
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        on_overflow: Overflow | None = None,
        sample: int = 100,
    ) -> CacheCheck:
        """Recompute the vectors of at most `sample` cached texts, and compare them with the cached ones."""
        return self._wait(
            self._group.verify(
                as_texts(texts, "texts"), input_type=input_type, model=model, on_overflow=on_overflow, sample=sample
            )
        )

    def recompute(
        self,
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        max_cost: Amount | None = None,
    ) -> tuple[Vectors, Bill]:
        """Compute vectors of texts without the cache: float32 (n, d), and the bill. `max_cost` is in dollars."""
        return self._wait(
            self._group.recompute(
                as_texts(texts, "texts"),
                input_type=input_type,
                model=model,
                dimensions=dimensions,
                on_overflow=on_overflow,
                max_cost=max_cost,
            )
        )

    def plan_recompute(
        self, texts: Texts, *, model: str | None = None, on_overflow: Overflow | None = None
    ) -> Estimate:
        """Return the estimated tokens and cost of `recompute`. Nothing is computed."""
        return self._wait(self._group.plan_recompute(as_texts(texts, "texts"), model=model, on_overflow=on_overflow))

    def forget(self, texts: Texts, *, model: str | None = None) -> int:
        """Delete the cached vectors of texts, of every input type and overflow policy; return their number."""
        return self._wait(self._group.forget(as_texts(texts, "texts"), model=model))


@public
@blocking_form_of(AsyncPinAdmin)
class PinAdmin:
    """The model and space of each collection, kept from its first write: `embedder.pins`."""

    def __init__(self, group: AsyncPinAdmin, wait: Wait) -> None:
        self._group = group
        self._wait = wait

    def list(self) -> list[Pin]:
        """Return all pins, sorted by collection."""
        return self._wait(self._group.list())

    def forget(self, collection: str) -> bool:
        """Delete the pin of a collection whose vectors no longer exist."""
        return self._wait(self._group.forget(collection))

    def prove(self, collection: str, texts: Texts, vectors: Vectors | Sequence[Vectors]) -> float:
        """Prove facts that a pin of an older version lacks, and store them in the pin."""
        return self._wait(self._group.prove(collection, as_texts(texts, "texts"), as_vectors(vectors)))


@public
@blocking_form_of(AsyncModelAdmin)
class ModelAdmin:
    """Models of an embedder: `embedder.models`."""

    def __init__(self, group: AsyncModelAdmin, wait: Wait) -> None:
        self._group = group
        self._wait = wait

    def available(self, dimensions: int | None = None) -> list[str]:
        """Return the models that can run here now."""
        return self._wait(self._group.available(dimensions))

    def describe(
        self, model: str | None = None, dimensions: int | None = None, *, load: bool = False
    ) -> ModelDescription:
        """Return a model's space, limits and tokenizer. Needs no key, and fetches no weights unless `load` is set."""
        return self._wait(self._group.describe(model, dimensions, load=load))

    def warm(self, model: str | None = None) -> None:
        """Load a model and its session, so that the first call does not wait for them."""
        self._wait(self._group.warm(model))

    def warm_reranker(self, model: str) -> None:
        """Load a reranker, as `warm`. Raises as `rerank` does for one that cannot be used, such as a missing key."""
        self._wait(self._group.warm_reranker(model))

    def tune(self, model: str | None = None, *, progress: Callable[[str], None] | None = None) -> TuneReport:
        """Measure the fastest exact settings of a model on this CPU, and store them."""
        return self._wait(self._group.tune(model, progress=progress))

    def verify(
        self,
        a: str,
        b: str,
        *,
        max_cost: Amount | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> SpaceComparison:
        """Compare the vectors of two models or routes for fixed texts, and store the result as a proof for failover."""
        return self._wait(self._group.verify(a, b, max_cost=max_cost, progress=progress))

    def proofs(self) -> list[SpaceProof | StoredVectors]:
        """Return the stored proofs, and the vectors that routes are compared with, also those that are too old.

        Raises LedgerError.
        """
        return self._wait(self._group.proofs())

    def remove_proof(self, name: str) -> bool:
        """Remove a stored proof. Return False if there is none. Raises LedgerError."""
        return self._wait(self._group.remove_proof(name))


@public
@blocking_form_of(AsyncQualityAdmin)
class QualityAdmin:
    """Checks of vectors, and comparisons of models with their baselines: `embedder.quality`."""

    def __init__(self, group: AsyncQualityAdmin, wait: Wait) -> None:
        self._group = group
        self._wait = wait

    def validate(
        self,
        vectors: Vectors | Sequence[Vectors],
        texts: Texts,
        *,
        model: str | None = None,
        input_type: InputType = "document",
        dimensions: int | None = None,
        semantic: bool = False,
        max_cost: Amount | None = None,
    ) -> VectorReport:
        """Check the vectors of texts, which came from a model or were stored, as an answer is checked."""
        read = as_texts(texts, "texts")
        return self._wait(
            self._group.validate(
                vectors,
                read,
                model=model,
                input_type=input_type,
                dimensions=dimensions,
                semantic=semantic,
                max_cost=max_cost,
            )
        )

    def baseline(
        self,
        model: str | None = None,
        *,
        pairs: Sequence[Pair] | Path | str | None = None,
        replace: bool = False,
        max_cost: Amount | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> BaselineReport:
        """Store how each route of a model answers now: canaries, their noise, and the retrieval of pairs."""
        return self._wait(
            self._group.baseline(model, pairs=pairs, replace=replace, max_cost=max_cost, progress=progress)
        )

    def check(
        self,
        model: str | None = None,
        *,
        max_cost: Amount | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> QualityCheck:
        """Compare each route of a model with the baseline of its space."""
        return self._wait(self._group.check(model, max_cost=max_cost, progress=progress))

    def plan(
        self,
        model: str | None = None,
        *,
        pairs: Sequence[Pair] | Path | str | None = None,
        baseline: bool = False,
    ) -> QualityPlan:
        """Return the estimated work and cost of `check`, or with `baseline` of `baseline`. Sends nothing."""
        return self._wait(self._group.plan(model, pairs=pairs, baseline=baseline))

    def baselines(self) -> list[BaselineSummary]:
        """Return all stored baselines."""
        return self._wait(self._group.baselines())

    def remove_baseline(self, model: str) -> list[str]:
        """Remove the baselines of a model or of a space's id, and the states of their routes; return the spaces."""
        return self._wait(self._group.remove_baseline(model))

    def release(self, model: str | None = None, *, route: str | None = None) -> list[str]:
        """End the quarantine of a model's routes, or of one route, without a check; return the routes."""
        return self._wait(self._group.release(model, route=route))
