"""Results of a search: rows with their scores, snippets and neighbours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embedway.collections.search import Hit
    from embedway.collections.snippets import Highlight, Snippet
    from embedway.collections.values import Value
    from embedway.types import Receipt

#: Characters of a snippet in a repr.
_REPR_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A chunk beside a hit, in the same document."""

    id: str
    number: int
    start_line: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class SearchHit:
    """A row that answers a query.

    `score` is the reranker's, if there is one; else cosine similarity (`vector`), BM25 (`keyword`) or the mean of
    the scaled scores of both lists (`hybrid`). A rank is None if the row is not in the list. `snippet` is the part
    of the text to show, and `highlight` the sentence in it that answers best. `merged` are the chunks beside it, under
    the same headings, that are part of this hit because they answer the query too.
    """

    score: float
    hit: Hit
    snippet: Snippet
    highlight: Highlight
    vector_score: float | None = None
    keyword_score: float | None = None
    vector_rank: int | None = None
    keyword_rank: int | None = None
    before: tuple[Neighbour, ...] = ()
    after: tuple[Neighbour, ...] = ()
    merged: tuple[Neighbour, ...] = ()

    def __repr__(self) -> str:
        text = " ".join(self.snippet.text.split())
        shown = text if len(text) <= _REPR_CHARACTERS else f"{text[: _REPR_CHARACTERS - 1]}…"
        return f"<SearchHit {self.score:.3f} {self.id!r} line {self.line}: {shown!r}>"

    @property
    def id(self) -> str:
        """Id of the row."""
        return self.hit.id

    @property
    def document_id(self) -> str:
        """Name of the document in its source."""
        return self.hit.document_id

    @property
    def source(self) -> str:
        """Name of the source."""
        return self.hit.source

    @property
    def headings(self) -> str:
        """Title of the document and headings above the text, joined by a single right-pointing angle quotation mark."""
        return self.hit.heading_path

    @property
    def line(self) -> int:
        """Line of the snippet in its source."""
        return self.snippet.line

    @property
    def page(self) -> int | None:
        """Page of the highlight in its source; None for formats without pages."""
        return self.snippet.page

    @property
    def text(self) -> str:
        """The whole text of the row."""
        return self.hit.text

    @property
    def metadata(self) -> Mapping[str, Value]:
        """Kept columns."""
        return self.hit.metadata


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The rows for a query, best first; iterating over it gives the hits.

    `receipt` is that of all queries of the search, which are embedded together; None for keywords alone. `truncated`
    says whether the query was truncated at the model's limit. `why_empty` says why there is no hit.
    """

    query: str
    hits: list[SearchHit]
    receipt: Receipt | None = field(default=None, repr=False)
    reranked: Receipt | None = field(default=None, repr=False)
    truncated: bool = False
    why_empty: str | None = None

    def __iter__(self) -> Iterator[SearchHit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)
