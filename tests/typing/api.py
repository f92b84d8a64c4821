"""The public API as type checkers see it: `make lint` checks this file with mypy; nothing runs it."""

import asyncio
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import assert_type

import numpy as np
import numpy.typing as npt

import embedway.collections
from embedway import (
    AsyncEmbedder,
    BaseHook,
    CacheCheck,
    CacheStats,
    ClearResult,
    Config,
    Embedder,
    EmbedOptions,
    EmbedResult,
    EquivalenceFigures,
    ModelDescription,
    ModelSelectionCriteria,
    Operation,
    Outcome,
    Pin,
    Plan,
    RerankResult,
    Selection,
    Space,
    TuneReport,
    errors,
)
from embedway.collections import AsyncCollection, Collection, SearchAnswer, SearchHit
from embedway.collections.forgetting import ForgetReport
from embedway.collections.stores.tally import StoredDocument
from embedway.collections.sync import SyncSummary
from embedway.collections.verification_report import VerifyReport

Vectors = npt.NDArray[np.float32]


class Hook(BaseHook):
    """Hook with only the required method."""

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Read an outcome."""
        assert_type(operation.id, int)
        assert_type(outcome.cost_nanousd, int | None)


def results(result: EmbedResult) -> None:
    """Use a result as a sequence and as an array."""
    assert_type(result.vectors, Vectors)
    assert_type(result[0], Vectors)
    assert_type(len(result), int)
    assert_type(result.space, Space)
    assert_type(result.receipt.cost_usd, Decimal | None)
    for vector in result:
        assert_type(vector, Vectors)
    array: npt.NDArray[np.float32] = np.asarray(result)
    assert array is not None


def texts() -> Iterator[str]:
    """Yield texts."""
    yield "a text"


def blocking() -> None:
    """Call every public method of the blocking embedder."""
    config = Config.load().with_benchmarks(
        {"text-embedding-3-small": {"avg_latency_ms": 65}, "m": Config().embedding.model_benchmarks["m"]}
    )
    assert_type(config, Config)
    with Embedder("BAAI/bge-small-en-v1.5", config=config, hooks=[Hook()]) as embedder:
        assert_type(embedder, Embedder)
        results(embedder.embed_query("a query"))
        results(embedder.embed_query("a query", model="auto", deadline_s=1.5, max_cost="0.01"))
        results(embedder.embed_documents(texts()))
        results(embedder.embed_query("a query", backup=("a", "b"), normalize=False))
        assert_type(embedder.plan(["a"], backup=["b"], normalize=True), Plan)
        results(embedder.embed_documents(("a", "b"), partial=True, priority=5, collection="docs"))
        results(embedder.embed([[101, 102], "text"], input_type="document", dimensions=256))
        options: EmbedOptions = {"model": "auto", "dimensions": 256, "backup": ["b"], "normalize": None}
        results(embedder.embed_documents(["a"], **options))
        assert_type(embedder.rerank("query", ["a"], top_n=1), RerankResult)
        assert_type(embedder.plan(["a"], max_cost=Decimal("0.5")), Plan)
        assert_type(embedder.plans(["a"]), list[Plan])
        assert_type(embedder.select(["a"], "best"), Selection)
        assert_type(embedder.select(["a"], ModelSelectionCriteria(require_local=True)), Selection)
        assert_type(embedder.cache.stats(), CacheStats)
        assert_type(embedder.cache.clear(older_than_s=dt.timedelta(days=1).total_seconds()), ClearResult)
        assert_type(embedder.cache.verify(["a"]), CacheCheck)
        assert_type(embedder.pins.list(), list[Pin])
        assert_type(embedder.pins.forget("docs"), bool)
        assert_type(embedder.pins.prove("docs", ["a"], np.zeros((1, 3), np.float32)), float)
        assert_type(embedder.models.available(), list[str])
        assert_type(embedder.models.describe(), ModelDescription)
        assert_type(embedder.models.tune(), TuneReport)
        assert_type(embedder.models.verify("a", "b", max_cost="1").figures, tuple[EquivalenceFigures, ...])
        embedder.models.warm()
        # Each line is an error, and its comment is required: mypy warns of an unused one.
        embedder.embed_query("a query", input_type="query")  # type: ignore[call-arg]
        embedder.embed_documents(["a"], dimension=256)  # type: ignore[call-arg]
        embedder.embed_documents(5)  # type: ignore[arg-type]
        embedder.embed_documents(["a"], max_cost=None, partial="yes")  # type: ignore[arg-type]
        Embedder(config)  # type: ignore[arg-type]


async def awaited() -> None:
    """Call the same methods of the asynchronous embedder."""
    async with AsyncEmbedder() as embedder:
        assert_type(embedder, AsyncEmbedder)
        results(await embedder.embed_query("a query"))
        results(await embedder.embed_documents(texts()))
        assert_type(await embedder.rerank("query", texts()), RerankResult)
        assert_type(await embedder.cache.stats(), CacheStats)
        assert_type(await embedder.pins.list(), list[Pin])
        assert_type(await embedder.models.describe(), ModelDescription)
        together = await asyncio.gather(embedder.embed_query("a"), embedder.embed_query("b"))
        results(together[0])


def collections(path: str) -> None:
    """Call the methods of a collection."""
    with embedway.collections.open(path, embedder=Embedder(), model="auto", create=True) as collection:
        assert_type(collection, Collection)
        assert_type(collection.sync("docs", "api=src", chunk_tokens=200, keep=("lang",)), SyncSummary)
        answer = collection.search("a query", mode="hybrid", where="lang = 'de'", group=True, neighbours=1)
        assert_type(answer, SearchAnswer)
        assert_type(answer.hits, list[SearchHit])
        assert_type(answer.hits[0].hit.document_id, str)
        assert_type(collection.search(["a", "b"], top=3, rerank="m", candidates=20), list[SearchAnswer])
        assert_type(collection.search(texts()), list[SearchAnswer])
        assert_type(collection.documents(), list[StoredDocument])
        assert_type(collection.verify(sample=10, repair=True), VerifyReport)
        assert_type(collection.forget("a.md", source="docs"), ForgetReport)
        assert_type(collection.space, Space)
        assert_type(collection.count, int)
        collection.search("a", mode="fuzzy")  # type: ignore[call-overload]
        collection.search("a", tops=3)  # type: ignore[call-overload]
        collection.sync("docs", chunks=3)  # type: ignore[call-arg]


async def awaited_collections(path: str) -> None:
    """Call the same methods of the asynchronous form."""
    async with await embedway.collections.open_async(path) as collection:
        assert_type(collection, AsyncCollection)
        assert_type(await collection.search("a query"), SearchAnswer)
        assert_type(await collection.search(("a", "b"), top=1), list[SearchAnswer])
        assert_type(await collection.sync("docs"), SyncSummary)
        await collection.refresh()


def handled() -> None:
    """Handle errors that are also Python's own."""
    try:
        blocking()
    except errors.BudgetExceededError as error:
        assert_type(error.left, int)
    except errors.DeadlineError as error:
        timeout: TimeoutError = error
        assert timeout
        assert_type(error.attempts, int)
    except errors.UsageError as error:
        value: ValueError = error
        assert value
