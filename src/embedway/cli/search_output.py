"""Printing of search results: JSON, and a table with places, headings and snippets."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from embedway.cli.options import Invocation
from embedway.cli.output import is_terminal, note, one_line, print_line, print_styled, print_table, wrapped

if TYPE_CHECKING:
    from rich.text import Text as StyledText

    from embedway.collections.query import SearchOptions
    from embedway.collections.search_results import SearchAnswer, SearchHit
    from embedway.collections.snippets import Snippet
    from embedway.collections.stores.base import Store

#: Maximum characters of a neighbour's text, of headings, and of kept columns, in a table.
NEIGHBOUR_CHARACTERS = 200
HEADINGS_CHARACTERS = 120
KEPT_CHARACTERS = 120
#: Line end of code, tables and lists that are printed on one line.
LINE_END = " ⏎ "


def location(found: "SearchHit") -> str:
    """Return the place of a hit for people: `docs/guide/intro.md:12`, or `docs/guide.pdf p. 3` if it has a page."""
    from embedway.collections.hits import is_notebook, row_file

    hit = found.hit
    file = row_file(hit)  # the line of a row is that of its file
    if file is None and hit.document_id != hit.source and hit.number is not None:
        file = hit.document_id
    name = f"{hit.source}/{file}" if file else hit.source
    if found.page is not None:
        return f"{name} p. {found.page}"  # a file with pages has no lines that people could open
    return f"{name} cell {found.line}" if is_notebook(hit) else f"{name}:{found.line}"


def hits_json(answer: "SearchAnswer") -> list[dict[str, object]]:
    """Return the hits of an answer as JSON values; timestamps as text."""
    return [_hit_json(rank, found, reranked=answer.reranked is not None) for rank, found in enumerate(answer.hits, 1)]


def _hit_json(rank: int, found: "SearchHit", *, reranked: bool) -> dict[str, object]:
    document: dict[str, object] = {"rank": rank, **asdict(found.hit), "location": location(found)}
    document["metadata"] = {name: _plain(value) for name, value in found.hit.metadata.items()}
    if reranked and found.vector_score is not None:
        document["similarity"] = found.vector_score
    document |= {
        "vector_score": found.vector_score,
        "keyword_score": found.keyword_score,
        "vector_rank": found.vector_rank,
        "keyword_rank": found.keyword_rank,
        "snippet": asdict(found.snippet),
        "highlight": {"start": found.highlight.start, "end": found.highlight.end},
    }
    if found.merged:
        document["merged"] = [asdict(one) for one in found.merged]
    if found.before or found.after:
        document["before"] = [asdict(one) for one in found.before]
        document["after"] = [asdict(one) for one in found.after]
    return document


def _plain(value: object) -> object:
    return value.isoformat() if hasattr(value, "isoformat") else value


def collection_json(store: "Store") -> dict[str, object]:
    """Return the collection of a search as JSON values."""
    return {"destination": store.destination, "count": store.count, "space": store.space.to_json()}


def receipt_json(answer: "SearchAnswer") -> dict[str, object] | None:
    """Return the receipt of all queries of a search as JSON values; None for keywords alone."""
    return None if answer.receipt is None else asdict(answer.receipt)


def answer_json(answer: "SearchAnswer") -> dict[str, object]:
    """Return the hits of an answer as JSON values, and why there are none."""
    document: dict[str, object] = {"hits": hits_json(answer)}
    if answer.why_empty is not None:
        document["why_empty"] = answer.why_empty
    if answer.reranked is not None:
        document["rerank"] = {"candidates": answer.reranked.texts, "receipt": asdict(answer.reranked)}
    return document


def print_hits(answer: "SearchAnswer") -> None:
    """Print a table of hits; on a terminal, the best sentence is bold."""
    if not answer.hits:
        print_line(f"no hits: {answer.why_empty}")
    elif any(found.before or found.after for found in answer.hits) or is_terminal():
        _print_blocks(answer)
    else:
        _print_rows(answer)


def _print_rows(answer: "SearchAnswer") -> None:
    """Print a line for each hit."""
    with_headings = any(found.headings for found in answer.hits)
    with_kept = any(map(kept_values, answer.hits))
    headers = ["rank", "score", "where"]
    headers += ["headings"] if with_headings else []
    headers += ["columns"] if with_kept else []
    rows = []
    for rank, found in enumerate(answer.hits, 1):
        headings = (one_line(found.headings, HEADINGS_CHARACTERS),) if with_headings else ()
        kept = (kept_values(found),) if with_kept else ()
        rows.append((str(rank), f"{found.score:.3f}", location(found), *headings, *kept, snippet_line(found.snippet)))
    print_table((*headers, "text"), rows, right=(0, 1))


def kept_values(found: "SearchHit") -> str:
    """Return the kept columns of a hit on one line, such as `lang=de, year=2024`; nulls are left out."""
    values = {name: _kept_text(value) for name, value in found.hit.metadata.items() if value is not None}
    return one_line(", ".join(f"{name}={value}" for name, value in values.items()), KEPT_CHARACTERS)


def _kept_text(value: object) -> str:
    """Return a kept value for people: truth values as conditions write them, lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, dict)) else str(_plain(value))


def snippet_line(snippet: "Snippet") -> str:
    """Return a snippet on one line."""
    return LINE_END.join(filter(None, map(one_line, snippet.text.split("\n"))))


def _print_blocks(answer: "SearchAnswer") -> None:
    """Print several lines for each hit: place, headings, the snippet, and the chunks before and after it."""
    shown = ""
    for rank, found in enumerate(answer.hits, 1):
        print_line(f"{rank:>2}  {found.score:.3f}  {location(found)}")
        headings = one_line(found.headings, HEADINGS_CHARACTERS)
        if headings and headings != shown:
            print_line(f"    {headings}")
        shown = headings
        if kept := kept_values(found):
            print_line(f"    {kept}")
        width = max((len(str(one.start_line)) for one in (*found.before, *found.after)), default=0)
        width = max(width, len(str(found.line)))
        for neighbour in found.before:
            print_line(f"    before {neighbour.start_line:>{width}}  {one_line(neighbour.text, NEIGHBOUR_CHARACTERS)}")
        lead = f"    hit    {found.line:>{width}}  " if found.before or found.after else "    "
        if is_terminal():
            _print_snippet(found.snippet, lead)
        else:
            print_line(f"{lead}{snippet_line(found.snippet)}")
        for neighbour in found.after:
            print_line(f"    after  {neighbour.start_line:>{width}}  {one_line(neighbour.text, NEIGHBOUR_CHARACTERS)}")


def _print_snippet(snippet: "Snippet", lead: str) -> None:
    """Print a snippet with styles, wrapped beside its lead."""
    from rich.text import Text

    for number, line in enumerate(wrapped(styled_snippet(snippet), len(lead))):
        print_styled(Text(" " * len(lead) if number else lead) + line)


def styled_snippet(snippet: "Snippet") -> "StyledText":
    """Return a snippet whose best sentence is bold, and whose words that match also have a colour."""
    from rich.text import Text

    # An escape sequence of a file must not reach the terminal. Offsets stay.
    text = Text("".join(char if char.isprintable() or char == "\n" else " " for char in snippet.text))
    text.stylize("bold", *snippet.best)
    for span in snippet.words:
        text.stylize("bold cyan", *span)
    return text


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
