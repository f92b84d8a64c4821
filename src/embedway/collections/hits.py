"""Hits of a search from candidates: their highlights, snippets and neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embedway.collections.documents import PAGE_MARK
from embedway.collections.file_formats import FORMATS, format_of
from embedway.collections.search_results import Neighbour, SearchHit
from embedway.collections.snippets import Highlighter, best_part, snippet_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.collections.candidates import Candidate
    from embedway.collections.search import Hit
    from embedway.collections.snippets import Passages

#: Maximum chunks before and after a hit.
MAX_NEIGHBOURS = 100
#: Maximum hits of a search, and parts of a hit, whose sentences are compared with the query by vectors.
MAX_COMPARED_HITS = 20
MAX_COMPARED_PARTS = 60
#: Formats in which the text has other lines than the file.
_OTHER_LINES = frozenset({"html", "pdf", "docx", "pptx", "epub", "ipynb"})


@dataclass(slots=True)
class FoundRows:
    """Rows for a query, with the parts of their texts.

    `similarities` has a list for each of the first rows: the cosines of its parts. It is empty if none are computed.
    """

    rows: list[Candidate]
    passages: list[Passages]
    similarities: list[list[float]]

    def texts(self) -> list[str]:
        """Return the texts of the parts to compare with the query, in order. A row of a table has its header."""
        return [
            compared_text(passages, number)
            for passages in self.passages[:MAX_COMPARED_HITS]
            for number in range(min(len(passages.parts), MAX_COMPARED_PARTS))
        ]

    def add_similarities(self, similarities: Sequence[float]) -> None:
        """Add the similarities of `texts`, in order."""
        at = 0
        for passages in self.passages[:MAX_COMPARED_HITS]:
            count = min(len(passages.parts), MAX_COMPARED_PARTS)
            # Parts beyond the limit are not better than any other.
            self.similarities.append([*similarities[at : at + count], *([-1.0] * (len(passages.parts) - count))])
            at += count


def found_rows(query: str, rows: Sequence[Candidate], weights: Mapping[str, float]) -> FoundRows:
    """Return rows with the parts of their texts; `weights` are those of the query's tokens, if they are known."""
    highlighter = Highlighter(query, weights)
    highlighter.learn([row.hit.text for row in rows])
    return FoundRows(list(rows), [highlighter.passages(row.hit.text, row.hit.heading_path) for row in rows], [])


def compared_text(passages: Passages, number: int) -> str:
    """Return the text of a part for the model."""
    part = passages.parts[number]
    own = passages.text[part.start : part.end]
    return own if part.header is None else f"{passages.text[slice(*part.header)]}\n{own}"


def hits_of(
    found: FoundRows,
    scores: Mapping[str, float] | None,
    neighbours: Mapping[str, Mapping[str, Any]],
    count: int,
    merged: Mapping[str, Sequence[Candidate]],
) -> list[SearchHit]:
    """Return hits with up to `count` chunks before and after each.

    `scores` are those of a reranker by id, `neighbours` the fetched rows by id, and `merged` the rows that are merged
    into a hit, by the hit's id.
    """
    hits = []
    for number, row in enumerate(found.rows):
        similar = found.similarities[number] if number < len(found.similarities) else None
        beside = [
            Neighbour(row_id, place, int(neighbours[row_id]["start_line"]), str(neighbours[row_id]["text"]))
            for place, row_id in neighbour_ids(row.hit, count)
            if row_id in neighbours
        ]
        score = row.hit.score if scores is None else scores[row.hit.id]
        hit = _hit(row, score, found.passages[number], similar, beside)
        hits.append(replace(hit, merged=_as_neighbours(merged.get(row.hit.id, ()))))
    return hits


def _as_neighbours(rows: Sequence[Candidate]) -> tuple[Neighbour, ...]:
    """Return rows of one document in the order of their numbers."""
    hits = sorted((row.hit for row in rows), key=lambda hit: hit.number or 0)
    return tuple(Neighbour(hit.id, hit.number or 0, hit.start_line, hit.text) for hit in hits)


def _hit(
    row: Candidate,
    score: float,
    passages: Passages,
    similar: Sequence[float] | None,
    beside: Sequence[Neighbour],
) -> SearchHit:
    best, strength = best_part(passages, similar)
    snippet, highlight = snippet_of(
        passages, best, start_line=row.hit.start_line, counts_lines=_counts_lines(row.hit), score=strength
    )
    if row.hit.page is not None:
        snippet = replace(snippet, page=row.hit.page + row.hit.text.count(PAGE_MARK, 0, highlight.start))
    return SearchHit(
        score,
        replace(row.hit, score=score),
        snippet,
        highlight,
        row.vector_score,
        row.keyword_score,
        row.vector_rank,
        row.keyword_rank,
        tuple(one for one in beside if one.number < (row.hit.number or 0)),
        tuple(one for one in beside if one.number > (row.hit.number or 0)),
    )


def neighbour_ids(hit: Hit, count: int) -> list[tuple[int, str]]:
    """Return numbers and ids of the chunks beside a hit; none for collections before version 3."""
    if hit.number is None or hit.total is None:
        return []
    start = hit.id.rpartition("#")[0]
    numbers = range(max(0, hit.number - count), min(hit.total, hit.number + count + 1))
    return [(number, f"{start}#{number}") for number in numbers if number != hit.number]


def row_file(hit: Hit) -> str | None:
    """Return the path of the file with the row of a hit, without the folder of its source; None for other documents."""
    if _has_rows(hit.source):
        return ""
    parts = hit.document_id.split("/")
    ends = (number for number, part in enumerate(parts[:-1], 1) if _has_rows(part))
    end = next(ends, None)
    return None if end is None else "/".join(parts[:end])


def _has_rows(name: str) -> bool:
    found = format_of(name)
    return found is not None and FORMATS[found[0]].rows


def is_notebook(hit: Hit) -> bool:
    """Return whether the lines of a hit's document are numbers of cells."""
    found = format_of(hit.document_id)
    return found is not None and found[0] == "ipynb"


def _counts_lines(hit: Hit) -> bool:
    """Return whether the lines of a hit's text are those of its source; nearly so where markup was removed."""
    found = format_of(hit.document_id)
    return hit.page is None and row_file(hit) is None and (found is None or found[0] not in _OTHER_LINES)
