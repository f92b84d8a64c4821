"""Search of a collection: several queries, by vector, keywords or both, with conditions, groups and a reranker."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, get_args

from embedway.collections.candidates import Candidate, CandidateSearch, SearchMode, grouped
from embedway.collections.keywords import Keywords
from embedway.collections.query_model import QueryModel, prove_query_model
from embedway.collections.snippets import Highlighter, Snippet
from embedway.errors import ClosedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.candidates import Candidates
    from embedway.collections.search import Hit
    from embedway.collections.stores.base import Store
    from embedway.collections.where import Condition
    from embedway.space import Space
    from embedway.types import EmbedResult, Overflow, Receipt

T = TypeVar("T")

MODES: tuple[SearchMode, ...] = get_args(SearchMode)
#: Maximum chunks before and after a hit.
MAX_NEIGHBOURS = 100


class SearchSettings(TypedDict, total=False):
    """Options of `AsyncCollection.search`."""

    top: int
    mode: SearchMode
    where: str | Condition | None
    group: bool
    neighbours: int
    rerank: str | None
    candidates: int


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search.

    `group` returns one row of each document; `neighbours` is the number of chunks before and after each row.
    `candidates` rows of each list are fused or reranked. `model` refuses a collection of another model.
    """

    top: int = 5
    mode: SearchMode = "hybrid"
    where: Condition | None = None
    group: bool = False
    neighbours: int = 0
    rerank: str | None = None
    candidates: int = 50
    model: str | None = None

    def __post_init__(self) -> None:
        """Reject numbers out of range, and unknown modes."""
        if self.mode not in MODES:
            raise UsageError(f"mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        for name, least in (("top", 1), ("candidates", 1), ("neighbours", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name} is {value!r}; it must be a whole number, at least {least}")
        if self.neighbours > MAX_NEIGHBOURS:
            raise UsageError(f"neighbours is {self.neighbours}; it must be at most {MAX_NEIGHBOURS}")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A chunk beside a hit, in the same document."""

    id: str
    number: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A row that answers a query.

    `score` is the reranker's, if there is one; else cosine similarity (`vector`), BM25 (`keyword`) or the mean of
    the scaled scores of its lists (`hybrid`). `sources` are the lists that contain the row.
    """

    score: float
    hit: Hit
    snippet: Snippet
    vector_score: float | None = None
    keyword_score: float | None = None
    vector_rank: int | None = None
    keyword_rank: int | None = None
    sources: tuple[str, ...] = ()
    before: tuple[Neighbour, ...] = ()
    after: tuple[Neighbour, ...] = ()

    @property
    def text(self) -> str:
        """The text of the row."""
        return self.hit.text


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The rows for a query, best first.

    `receipt` is that of all queries of the search, which are embedded together; None for keywords alone. `truncated`
    says whether the query was truncated at the model's limit.
    """

    query: str
    hits: list[SearchHit]
    receipt: Receipt | None = None
    reranked: Receipt | None = None
    truncated: bool = False


class Searcher:
    """Searches one open store. The model is proven at the first search that needs it, and then kept.

    Calls are answered one after another. `note` receives what the user should know.
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
        """Return an answer for each query, in order. Raises SinkError, SpaceMismatchError and as `embed` does."""
        if not queries:
            return []
        embedded = None if options.mode == "keyword" else await self._embed(queries, options.model or self._asked)
        vectors = None if embedded is None else embedded.vectors
        space = None if embedded is None else embedded.space
        found = await asyncio.to_thread(
            self.read, lambda store: self._find_all(store, queries, vectors, space, options)
        )
        truncated = set() if embedded is None else {one.row for one in embedded.receipt.truncations}
        answers = []
        for row, (query, candidates) in enumerate(zip(queries, found, strict=True)):
            rows, scores, reranked = candidates.rows, None, None
            if options.rerank is not None and rows:
                if not options.group:  # a hybrid search has this many rows of each list
                    rows = rows[: max(options.top, options.candidates)]
                rows, scores, reranked = await self._reranked(query, rows, options.rerank)
            if options.group:
                rows = grouped(rows)
            rows = rows[: options.top]
            neighbours = await asyncio.to_thread(self._neighbours, rows, options.neighbours)
            hits = _hits(query, rows, scores, candidates.weights, neighbours)
            receipt = None if embedded is None else embedded.receipt
            answers.append(SearchAnswer(query, hits, receipt, reranked, row in truncated))
        return answers

    async def _embed(self, queries: Sequence[str], model: str | None) -> EmbedResult:
        """Embed queries, (n, d), in the space of the collection. Raises SpaceMismatchError."""
        if self._model is None or (model is not None and model != self._model.name):
            self._model = await prove_query_model(self._embedder, self.store, model, note=self._note)
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
                self._note(f"the keyword index {done}: {update.added:,} rows added, {update.removed:,} removed")
        return [
            self._find(query, None if vectors is None else vectors[row], options) for row, query in enumerate(queries)
        ]

    def _find(self, query: str, vector: Any, options: SearchOptions) -> Candidates:
        """Return candidates for a query: enough to fuse, to rerank and to group."""
        count = options.top
        if options.mode == "hybrid" or options.rerank is not None:
            count = max(count, options.candidates)
        while True:
            found = self._candidates.find(options.mode, query, vector, count, options.where)
            if not options.group or found.complete or len(grouped(found.rows)) >= options.top:
                return found
            count *= 4

    async def _reranked(
        self, query: str, rows: list[Candidate], model: str
    ) -> tuple[list[Candidate], dict[str, float], Receipt]:
        # Rows over the reranker's limit are truncated.
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
    from embedway.collections.where import columns_of, parse_where  # noqa: PLC0415  only for conditions
    from embedway.collections.where_types import check_where  # noqa: PLC0415

    columns = columns_of(store.record)
    return parse_where(where, columns) if isinstance(where, str) else check_where(where, columns)


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


def neighbour_ids(hit: Hit, count: int) -> list[tuple[int, str]]:
    """Return numbers and ids of the chunks beside a hit; none for collections before version 3."""
    if hit.number is None or hit.total is None:
        return []
    start = hit.id.rpartition("#")[0]
    numbers = range(max(0, hit.number - count), min(hit.total, hit.number + count + 1))
    return [(number, f"{start}#{number}") for number in numbers if number != hit.number]


def _hits(
    query: str,
    rows: Sequence[Candidate],
    scores: Mapping[str, float] | None,
    weights: Mapping[str, float],
    neighbours: Mapping[str, Mapping[str, Any]],
) -> list[SearchHit]:
    highlighter = Highlighter(query, weights)
    highlighter.learn([row.hit.text for row in rows])
    return [_hit(row, highlighter, scores, neighbours) for row in rows]


def _hit(
    row: Candidate,
    highlighter: Highlighter,
    scores: Mapping[str, float] | None,
    neighbours: Mapping[str, Mapping[str, Any]],
) -> SearchHit:
    score = row.hit.score if scores is None else scores[row.hit.id]
    # Only neighbours that were asked for were fetched, and other hits' neighbours are too far away.
    beside = [
        Neighbour(row_id, number, str(neighbours[row_id]["text"]))
        for number, row_id in neighbour_ids(row.hit, MAX_NEIGHBOURS)
        if row_id in neighbours
    ]
    return SearchHit(
        score,
        replace(row.hit, score=score),
        highlighter.best(row.hit.text),
        row.vector_score,
        row.keyword_score,
        row.vector_rank,
        row.keyword_rank,
        row.sources,
        tuple(one for one in beside if row.hit.number is not None and one.number < row.hit.number),
        tuple(one for one in beside if row.hit.number is not None and one.number > row.hit.number),
    )
