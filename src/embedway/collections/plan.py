"""Plan a job for several models: read the sources once, compute and spend nothing."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway.collections.chunk_reader import MAX_BATCH_CHARACTERS, batch_sizes, chunk_characters
from embedway.collections.chunking import whole_document
from embedway.collections.cutting import open_chunker
from embedway.collections.documents import ByteCounter
from embedway.collections.readers import find_sources, read_files
from embedway.errors import SourceError, TextTooLongError
from embedway.money import usd
from embedway.selection.deduplication import TextDeduplicator
from embedway.types import ESTIMATE_MARGIN
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunking import Chunker
    from embedway.collections.documents import Document
    from embedway.collections.options import RunOptions
    from embedway.types import Plan

#: Documents that are read, and split for every model, at a time. Their characters are limited too.
_DOCUMENTS = 64
_DOCUMENT_CHARACTERS = 16 << 20


@dataclass(slots=True)
class ModelPlan:  # a field for each column of the plan
    """Plan of a job with one model.

    `texts` counts the rows of the collection. `unique_texts`, `tokens` (of unique texts) and `cached_texts`, and for
    the texts to send `billed_tokens`, `requests`, costs and seconds, are as in `Plan`.
    """

    model: str
    space_id: str
    texts: int = 0
    unique_texts: int = 0
    tokens: int = 0
    cached_texts: int = 0
    truncated: int = 0
    billed_tokens: int = 0
    requests: int = 0
    cost_nanousd: int | None = 0
    batch_cost_nanousd: int | None = 0
    seconds: float | None = 0.0
    estimated: bool = False
    #: Error for a text over the model's limit that must not be truncated; counting stops there.
    too_long: TextTooLongError | None = None

    @property
    def most_nanousd(self) -> int | None:
        """Maximum that may be reserved: the cost, doubled if tokens are estimated."""
        return self.cost_nanousd and self.cost_nanousd * (ESTIMATE_MARGIN if self.estimated else 1)

    def add(self, plan: Plan) -> None:
        """Add the plan of one more batch."""
        self.unique_texts += plan.unique_texts
        self.tokens += plan.tokens
        self.cached_texts += plan.cached_texts
        self.truncated += len(plan.truncations)
        self.billed_tokens += plan.billed_tokens
        self.requests += plan.requests
        self.cost_nanousd = _sum(self.cost_nanousd, plan.cost_nanousd)
        self.batch_cost_nanousd = _sum(self.batch_cost_nanousd, plan.batch_cost_nanousd)
        self.seconds = None if self.seconds is None or plan.seconds is None else self.seconds + plan.seconds
        self.estimated = self.estimated or plan.estimated

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types, with money in dollars."""
        return {
            "model": self.model,
            "space_id": self.space_id,
            "texts": self.texts,
            "unique_texts": self.unique_texts,
            "tokens": self.tokens,
            "tokens_estimated": self.estimated,
            "cached_texts": self.cached_texts,
            "truncated": self.truncated,
            "billed_tokens": self.billed_tokens,
            "requests": self.requests,
            "cost_usd": None if self.cost_nanousd is None else usd(self.cost_nanousd),
            "batch_cost_usd": None if self.batch_cost_nanousd is None else usd(self.batch_cost_nanousd),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class JobPlan:
    """Size of the sources, and the plan of each model."""

    documents: int
    characters: int
    models: tuple[ModelPlan, ...]
    #: Symbolic links in folders that were not followed.
    links_skipped: int = 0
    #: Files and folders that were not read, by reason; see `SkippedFiles.to_json`.
    skipped: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {
            "documents": self.documents,
            "characters": self.characters,
            "models": [one.to_json() for one in self.models],
            "links_skipped": self.links_skipped,
            "skipped": self.skipped,
        }


@dataclass(slots=True)
class _ModelPlanner:
    """Chunks of one model, grouped into batches as in a job."""

    chunker: Chunker | None
    plan: ModelPlan
    sizes: Iterator[int] = field(default_factory=batch_sizes)
    size: int = 0
    waiting: list[str] = field(default_factory=list)
    characters: int = 0
    #: Filter for texts of earlier batches, which would be in the cache by then.
    deduplicator: TextDeduplicator = field(default_factory=TextDeduplicator)

    def cut(self, documents: Sequence[Document]) -> list[tuple[str, int]]:
        """Return the texts of the chunks of some documents, with the characters that count for a batch."""
        if self.chunker is None:
            chunks = [whole_document(document) for document in documents]
        else:
            chunks = [chunk for document in documents for chunk in self.chunker.chunks(document)]
        return [(chunk.embedded_text, chunk_characters(chunk)) for chunk in chunks]

    def batches(self, texts: Sequence[tuple[str, int]], *, last: bool) -> Iterator[list[str]]:
        """Iterate over the batches that these texts fill, and the rest if they are the last."""
        self.size = self.size or next(self.sizes)
        for text, characters in texts:
            self.waiting.append(text)
            self.characters += characters
            if len(self.waiting) >= self.size or self.characters >= MAX_BATCH_CHARACTERS:
                yield self._take()
        if last and self.waiting:
            yield self._take()

    def _take(self) -> list[str]:
        batch, self.waiting, self.characters = self.waiting, [], 0
        self.size = next(self.sizes)
        return batch


async def plan_job(
    embedder: AsyncEmbedder,
    sources: Sequence[str],
    models: Sequence[str],
    options: RunOptions,
    *,
    cached: bool,
    standard_input: IO[bytes] | None = None,
    unfit: bool = False,
) -> JobPlan:
    """Plan `run_job` with each model. `cached` is true if the embedder has a cache.

    Reads the sources once and holds at most one batch per model in memory. Raises as `run_job` does; with
    `on_error="skip"`, unusable rows are skipped. With `unfit`, a text over a model's limit that must not be truncated
    is an error in the model's plan, and is not raised.
    """

    def refuse(fault: SourceError) -> None:
        if options.on_error == "stop":
            raise fault

    planners = [await _open_planner(embedder, name, options) for name in models]
    read_options = options.read_options()
    count = characters = 0
    with closing(Worker("embedway-reader")) as reader:
        files = await reader.call(find_sources, sources, read_options)
        documents = read_files(
            files, read_options, on_bad_row=refuse, counter=ByteCounter(), standard_input=standard_input
        )
        while True:
            some = await reader.call(next_documents, documents)
            count += len(some)
            characters += sum(len(document.text) for document in some)
            for name, planner in zip(models, planners, strict=True):
                texts = await reader.call(planner.cut, some)
                planner.plan.texts += len(texts)
                for batch in planner.batches(texts, last=not some):
                    unique = planner.deduplicator.filter(batch) if cached else batch
                    if unique and planner.plan.too_long is None:
                        await _add(planner.plan, embedder, name, unique, options, unfit=unfit)
            if not some:
                break
    if not any(planner.plan.texts for planner in planners):
        raise SourceError("there is nothing to embed", path="sources")
    return JobPlan(
        count,
        characters,
        tuple(planner.plan for planner in planners),
        files.skipped.counts["link"],
        files.skipped.to_json(),
    )


async def _open_planner(embedder: AsyncEmbedder, model: str, options: RunOptions) -> _ModelPlanner:
    described = await embedder.models.describe(model, options.dimensions)
    return _ModelPlanner(open_chunker(described, options)[0], ModelPlan(described.model, described.space.id))


async def _add(
    plan: ModelPlan, embedder: AsyncEmbedder, model: str, texts: Sequence[str], options: RunOptions, *, unfit: bool
) -> None:
    try:
        plan.add(
            await embedder.plan(
                texts,
                model=model,
                dimensions=options.dimensions,
                on_overflow=options.on_overflow,
                partial=options.on_error == "skip",
                collection=options.collection,
            )
        )
    except TextTooLongError as error:
        if not unfit:
            raise
        plan.too_long = error


def next_documents(documents: Iterator[Document]) -> list[Document]:
    """Return the next documents; none at the end."""
    some: list[Document] = []
    characters = 0
    for document in itertools.islice(documents, _DOCUMENTS):
        some.append(document)
        characters += len(document.text)
        if characters >= _DOCUMENT_CHARACTERS:
            break
    return some


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
