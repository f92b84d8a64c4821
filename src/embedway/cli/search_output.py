"""Printing of search results: JSON, and a table with places and snippets."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from embedway.cli.options import Invocation
from embedway.cli.output import is_terminal, note, one_line, print_line, print_styled, print_table

if TYPE_CHECKING:
    from rich.text import Text as StyledText

    from embedway.collections.query import SearchAnswer, SearchHit, SearchOptions
    from embedway.collections.search import Hit
    from embedway.collections.stores.base import Store

#: Endings of files whose rows are documents.
ROW_ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet")
#: Maximum characters of a snippet, and of a neighbour's text, in a table.
SNIPPET_CHARACTERS = 160
NEIGHBOUR_CHARACTERS = 320


def location(hit: "Hit") -> str:
    """Return the place of a hit for people: `docs/guide/intro.md:12`, with the page if there is one."""
    name = hit.source
    # The line of a row is that of its file, whose name is the source.
    in_folder = hit.document_id != hit.source and not name.lower().removesuffix(".gz").endswith(ROW_ENDINGS)
    if in_folder and hit.number is not None:
        name = f"{hit.source}/{hit.document_id}"
    page = f" p. {hit.page}" if hit.page is not None else ""
    return f"{name}:{hit.start_line}{page}"


def hits_json(answer: "SearchAnswer") -> list[dict[str, object]]:
    """Return the hits of an answer as JSON values; timestamps as text."""
    return [_hit_json(rank, found, reranked=answer.reranked is not None) for rank, found in enumerate(answer.hits, 1)]


def _hit_json(rank: int, found: "SearchHit", *, reranked: bool) -> dict[str, object]:
    document: dict[str, object] = {"rank": rank, **asdict(found.hit), "location": location(found.hit)}
    document["metadata"] = {name: _plain(value) for name, value in found.hit.metadata.items()}
    if reranked and found.vector_score is not None:
        document["similarity"] = found.vector_score
    document |= {
        "vector_score": found.vector_score,
        "keyword_score": found.keyword_score,
        "vector_rank": found.vector_rank,
        "keyword_rank": found.keyword_rank,
        "snippet": asdict(found.snippet),
    }
    if found.before or found.after:
        document["before"] = [asdict(one) for one in found.before]
        document["after"] = [asdict(one) for one in found.after]
    return document


def _plain(value: object) -> object:
    return value.isoformat() if hasattr(value, "isoformat") else value


def collection_json(store: "Store") -> dict[str, object]:
    """Return the collection of a search as JSON values."""
    return {"destination": store.destination, "count": store.count, "space": store.space.to_json()}


def answer_json(answer: "SearchAnswer") -> dict[str, object]:
    """Return hits and receipts of an answer as JSON values."""
    document: dict[str, object] = {
        "hits": hits_json(answer),
        "receipt": None if answer.receipt is None else asdict(answer.receipt),
    }
    if answer.reranked is not None:
        document["rerank"] = {"candidates": answer.reranked.texts, "receipt": asdict(answer.reranked)}
    return document


def print_hits(answer: "SearchAnswer") -> None:
    """Print a table of hits; on a terminal, the words of the query are bold."""
    if any(found.before or found.after for found in answer.hits) or is_terminal():
        _print_blocks(answer)
        return
    rows = [
        (str(rank), f"{found.score:.3f}", location(found.hit), snippet_text(found))
        for rank, found in enumerate(answer.hits, 1)
    ]
    print_table(("rank", "score", "where", "text"), rows, right=(0, 1))


def snippet_text(found: "SearchHit") -> str:
    """Return the text from the best sentence on, on one line."""
    start = found.snippet.start
    before = "… " if found.text[:start].strip() else ""
    # White space collapses, so twice the characters are enough.
    return one_line(before + found.text[start : start + 2 * SNIPPET_CHARACTERS], SNIPPET_CHARACTERS)


def _print_blocks(answer: "SearchAnswer") -> None:
    """Print two or more lines for each hit: place and heading path, then the snippet and the chunks beside it."""
    from rich.text import Text

    styles = is_terminal()
    shown = ""
    for rank, found in enumerate(answer.hits, 1):
        print_line(f"{rank:>2}  {found.score:.3f}  {location(found.hit)}")
        headings = one_line(found.hit.headings or found.hit.title or "", SNIPPET_CHARACTERS)
        if headings and headings != shown:
            print_line(f"    {headings}")
        shown = headings
        for neighbour in found.before:
            print_line(f"    - {one_line(neighbour.text, NEIGHBOUR_CHARACTERS)}")
        if not styles:
            print_line(f"    {snippet_text(found)}")
        else:
            text = Text("    ")
            text.append_text(_styled_snippet(found))
            print_styled(text)
        for neighbour in found.after:
            print_line(f"    + {one_line(neighbour.text, NEIGHBOUR_CHARACTERS)}")


def _styled_snippet(found: "SearchHit") -> "StyledText":
    from rich.text import Text

    text, start = found.text, found.snippet.start
    end = min(len(text), start + SNIPPET_CHARACTERS)
    styled_text = Text("… " if text[:start].strip() else "")
    at = start
    for first, last in found.snippet.words:
        if last > end:
            break
        styled_text.append(_printable(text[at:first]))
        styled_text.append(_printable(text[first:last]), style="bold")
        at = max(at, last)
    styled_text.append(_printable(text[at:end]))
    if end < len(text):
        styled_text.append("…")
    return styled_text


def _printable(text: str) -> str:
    """Return a part of a text on one line; an escape sequence of a file must not reach the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def print_notes(
    invocation: Invocation, store: "Store", answer: "SearchAnswer", options: "SearchOptions", seconds: float
) -> None:
    """Print notes on truncated texts, and how much was searched."""
    if answer.truncated:
        note(invocation, "the query was truncated at the model's limit")
    reranked = answer.reranked
    read = f", {reranked.texts} reranked by {reranked.model}" if reranked is not None else ""
    if reranked is not None and reranked.truncations:
        note(invocation, f"{len(reranked.truncations)} rows were truncated at the reranker's limit")
    how = store.space.id if options.mode == "vector" else f"{options.mode}, {store.space.id}"
    if options.mode == "keyword":
        how = "keyword"
    note(invocation, f"{len(answer.hits)} of {store.count:,} rows, {how}{read}, {seconds:.2f} s")
