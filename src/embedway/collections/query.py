"""Search of a collection: several queries, by vector, keywords or both, with conditions, groups and a reranker."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar, cast, get_args

from embedway.arguments import is_a
from embedway.collections.candidates import Candidate, CandidateSearch, grouped, merge_neighbours
from embedway.collections.hits import MAX_NEIGHBOURS, found_rows, hits_of, neighbour_ids
from embedway.collections.keyword_tokens import query_tokens
from embedway.collections.keywords import Keywords
from embedway.collections.option_checks import Range, check_fields
from embedway.collections.query_model import QueryModel, prove_query_model
from embedway.collections.search_results import SearchAnswer
from embedway.collections.sentence_vectors import SentenceVectors
from embedway.collections.values import Fusion, SearchMode  # noqa: TC001  annotations are evaluated
from embedway.collections.where import Condition
from embedway.errors import ClosedError, UsageError
from embedway.text import count_of, has_surrogate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.candidates import Candidates
    from embedway.collections.search import Hit
    from embedway.collections.stores.base import Store
    from embedway.space import Space
    from embedway.types import EmbedResult, Overflow, Receipt

T = TypeVar("T")


class SearchSettings(TypedDict, total=False):
    """Options of `AsyncCollection.search`."""

    top: int
    mode: SearchMode
    where: str | Condition | None
    group: bool
    neighbours: int
    rerank: str | None
    candidates: int
    highlight: bool | None
    fusion: Fusion
    merge: bool


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search.

    `group` returns one row of each document; `neighbours` is the number of chunks before and after each row.
    `candidates` rows of each list are fused, by `fusion`, or reranked; texts over the reranker's limit are truncated.
    `model` refuses a collection of another model. `highlight` chooses the best sentence of a row by vectors, if the
    model runs on this machine, and not by words alone; by default for a single query. With `merge`, a chunk beside a
    better one, under the same headings, is part of the better one's hit. With `group`, `merge` has no effect.
    """

    top: Annotated[int, Range(1)] = 5
    mode: SearchMode = "hybrid"
    where: Condition | None = None
    group: bool = False
    neighbours: Annotated[int, Range(0, MAX_NEIGHBOURS)] = 0
    rerank: str | None = None
    candidates: Annotated[int, Range(1)] = 50
    model: str | None = None
    highlight: bool | None = None
    fusion: Fusion = "scores"
    merge: bool = True

    def __post_init__(self) -> None:
        """Reject wrong values."""
        check_fields(self)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Rows to show, best first, and the rows merged into each, by its id; a reranker's scores by id, and receipt."""

    rows: list[Candidate]
    merged: Mapping[str, list[Candidate]]
    scores: Mapping[str, float] | None
    receipt: Receipt | None


class Searcher:
    """Searches one open store, one call at a time. `note` receives what the user should know.

    The model is checked against the collection's space at the first search that needs it, and then kept.
    """

    def __init__(
        self,
        embedder: AsyncEmbedder,
        store: Store,
        *,
        model: str | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._embedder = embedder
        self._asked = model
        self._note = note
        self._lock = threading.Lock()
        self._closed = False
        self._use(store)

    def _use(self, store: Store) -> None:
        self.store = store
        self._model: QueryModel | None = None
        self._sentences: SentenceVectors | None = None
        self._keywords = Keywords(store, self._embedder.config.search.directory)
        self._candidates = CandidateSearch(store, self._keywords)

    def replace(self, store: Store) -> None:
        """Use another open store, after the search that is running, and close the one before. Blocks."""
        with self._lock:
            before = self.store
            if self._closed:
                before = store
            else:
                self._use(store)
        before.close()

    def close(self) -> None:
        """Close the store, after the search that is running; later ones raise ClosedError. Blocks."""
        with self._lock:
            self._closed = True
            self.store.close()

    def read(self, work: Callable[[Store], T]) -> T:
        """Return the result of work on the store, alone. Blocks. Raises ClosedError."""
        with self._lock:
            if self._closed:
                raise ClosedError("the collection is closed; open it again")
            return work(self.store)

    async def search(self, queries: Sequence[str], options: SearchOptions) -> list[SearchAnswer]:
        """Return an answer for each query, in order.

        Raises UsageError, SinkError, SpaceMismatchError and as `embed` does.
        """
        check_queries(queries)
        if not queries:
            return []
        if options.rerank is not None:
            # A reranker that cannot be used is an error before the queries are paid for.
            await self._embedder.models.warm_reranker(options.rerank)
        embedded = None if options.mode == "keyword" else await self._embed(queries, options.model or self._asked)
        vectors = None if embedded is None else embedded.vectors
        space = None if embedded is None else embedded.space
        found = await asyncio.to_thread(
            self.read, lambda store: self._find_all(store, queries, vectors, space, options)
        )
        receipt = None if embedded is None else embedded.receipt
        truncated = set() if receipt is None else {one.row for one in receipt.truncations}
        by_vector = options.highlight if options.highlight is not None else len(queries) == 1
        answers = []
        for row, (query, candidates) in enumerate(zip(queries, found, strict=True)):
            ranking = await self._rank(query, candidates.rows, options)
            shown = found_rows(query, ranking.rows, candidates.weights)
            neighbours = await asyncio.to_thread(self._neighbours, shown.rows, options.neighbours)
            if vectors is not None and by_vector and self._sentences is not None:
                shown.add_similarities(await self._sentences.similarities(vectors[row], shown.texts()))
            hits = hits_of(shown, ranking.scores, neighbours, options.neighbours, ranking.merged)
            why = None if hits else why_empty(self.store, query, options, candidates)
            answers.append(SearchAnswer(query, hits, receipt, ranking.receipt, row in truncated, why))
        return answers

    async def _embed(self, queries: Sequence[str], model: str | None) -> EmbedResult:
        """Embed queries, (n, d), in the space of the collection. Raises SpaceMismatchError."""
        if self._model is None or (model is not None and model != self._model.name):
            self._model = await prove_query_model(self._embedder, self.store, model, note=self._note)
            self._sentences = SentenceVectors(self._embedder, self._model) if self._model.local else None
        overflow: Overflow = "error" if self._embedder.config.embedding.on_overflow == "error" else "truncate"
        return await self._embedder.embed(
            list(queries),
            input_type="query",
            model=self._model.name,
            dimensions=self._model.dimensions,
            on_overflow=overflow,
        )

    def _find_all(
        self, store: Store, queries: Sequence[str], vectors: Any, space: Space | None, options: SearchOptions
    ) -> list[Candidates]:
        if space is not None:
            store.check_space(space)  # the store may have been replaced since the model was proven
        if options.mode != "vector":
            update = self._keywords.update()
            if update.added or update.removed:
                done = "is built" if update.rebuilt else "is updated"
                added = count_of(update.added, "row")
                self._note(f"the keyword index {done}: {added} added, {update.removed:,} removed")
        return [
            self._find(query, None if vectors is None else vectors[row], options) for row, query in enumerate(queries)
        ]

    def _find(self, query: str, vector: Any, options: SearchOptions) -> Candidates:
        """Return candidates for a query: enough to fuse, to rerank, to merge and to group."""
        # A hit may contain the chunk before it and the one after it.
        count = options.top * 3 if options.merge and not options.group else options.top
        if options.mode == "hybrid" or options.rerank is not None:
            count = max(count, options.candidates)
        while True:
            found = self._candidates.find(options.mode, query, vector, count, options.where, fusion=options.fusion)
            if not options.group or found.complete or len(grouped(found.rows)) >= options.top:
                return found
            count *= 4  # several rows of one document count once, so more candidates are needed

    async def _rank(self, query: str, rows: list[Candidate], options: SearchOptions) -> _Ranking:
        """Return the best rows to show, after the reranker, grouped or merged."""
        scores: Mapping[str, float] | None = None
        receipt: Receipt | None = None
        if options.rerank is not None and rows:
            if not options.group:  # a hybrid search has this many rows of each list
                rows = rows[: max(options.top, options.candidates)]
            rows, scores, receipt = await self._reranked(query, rows, options.rerank)
        merged: dict[str, list[Candidate]] = {}
        if options.group:
            rows = grouped(rows)
        elif options.merge:
            rows, merged = merge_neighbours(rows, options.top)
        return _Ranking(rows[: options.top], merged, scores, receipt)

    async def _reranked(
        self, query: str, rows: list[Candidate], model: str
    ) -> tuple[list[Candidate], dict[str, float], Receipt]:
        texts = [text_for_reranker(row.hit) for row in rows]
        result = await self._embedder.rerank(query, texts, model=model, on_overflow="truncate")
        order = [rows[int(place)] for place in result.order]
        return order, {rows[n].hit.id: float(result.scores[n]) for n in map(int, result.order)}, result.receipt

    def _neighbours(self, rows: Sequence[Candidate], count: int) -> Mapping[str, Mapping[str, Any]]:
        """Return the rows beside hits, by id."""
        ids = {neighbour for row in rows for _, neighbour in neighbour_ids(row.hit, count)}
        if not ids:
            return {}
        return self.read(lambda store: store.fetch(sorted(ids)))


def checked_condition(where: str | Condition | None, store: Store) -> Condition | None:
    """Return a condition with values of the types of an open store's columns; None for none. Raises UsageError."""
    if where is None:
        return None
    from embedway.collections.where import condition_columns, parse_where  # noqa: PLC0415  only for conditions
    from embedway.collections.where_types import check_where  # noqa: PLC0415

    columns = condition_columns(store.record)
    if is_a(where, str):
        return parse_where(str.__str__(where), columns)
    if not is_a(where, get_args(Condition)):
        raise UsageError(
            f"where is of type {type(where).__name__}; it must be a text such as \"lang = 'de'\", or a condition"
        )
    return check_where(cast("Condition", where), columns)


async def search_collection(
    embedder: AsyncEmbedder,
    store: Store,
    queries: Sequence[str],
    options: SearchOptions,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> list[SearchAnswer]:
    """Search an open store, and return an answer for each query. Several queries are embedded in one call."""
    return await Searcher(embedder, store, note=note).search(queries, options)


def text_for_reranker(hit: Hit) -> str:
    """Return the text that a reranker reads: headings and text."""
    above = hit.headings or hit.title or ""
    return f"{above}\n\n{hit.text}" if above and above not in hit.text else hit.text


def check_queries(queries: Sequence[str]) -> None:
    """Raise UsageError for a query without text, and for one that is not valid Unicode."""
    for number, query in enumerate(queries, 1):
        which = "the query" if len(queries) == 1 else f"query {number}"
        if not is_a(query, str):
            raise UsageError(f"{which} is of type {type(query).__name__}; it must be a text")
        if not query.strip():
            raise UsageError(f"{which} is empty; write what to search for")
        if has_surrogate(query):
            raise UsageError(f"{which} is not valid Unicode")


def why_empty(store: Store, query: str, options: SearchOptions, candidates: Candidates) -> str:
    """Return why a search has no hit."""
    if not store.count:
        return "the collection has no rows"
    if options.mode == "keyword" and not query_tokens(query):
        return "the query has no word"
    if options.mode == "keyword" and not candidates.weights:
        return "no word of the query is in the collection"
    if options.where is None:
        return "no row matches the query"
    words = "that contains a word of the query " if options.mode == "keyword" else ""
    return f"no row {words}meets the condition"
