"""`embedway search`: search a collection."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.job_options import CollectionArgument
from embedway.cli.options import Invocation, JsonFlag, check_text, decode_text
from embedway.cli.output import DownloadProgress, note, print_json, print_line, wait_for
from embedway.collections.values import Fusion, SearchMode
from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.cli.search_queries import QueryId
    from embedway.collections.query import SearchOptions
    from embedway.collections.search_results import SearchAnswer
    from embedway.collections.stores.base import Store
    from embedway.config import Config


def search(
    context: typer.Context,
    collection: CollectionArgument,
    query: Annotated[
        list[str] | None, typer.Argument(metavar="[QUERY]...", callback=decode_text, help="Texts to search for.")
    ] = None,
    *,
    top: Annotated[int, typer.Option("--top", "-n", min=1, metavar="N", help="Number of rows to show.")] = 5,
    mode: Annotated[
        SearchMode,
        typer.Option(
            "--mode", help="Rank by meaning (vector), by words (keyword, BM25, needs no model), or by both (hybrid)."
        ),
    ] = "hybrid",
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            callback=decode_text,
            help="Search only rows that meet a condition on columns, such as \"lang = 'de' and year >= 2020\".",
        ),
    ] = None,
    group: Annotated[bool, typer.Option("--group", help="Show only the best row of each document.")] = False,
    neighbours: Annotated[
        int,
        typer.Option(
            "--neighbours", min=0, max=100, metavar="N", help="Show N chunks of the document before and after each row."
        ),
    ] = 0,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries",
            metavar="FILE",
            callback=check_text,
            help="Search for each line of FILE (- is standard input): a text, or JSON with query and id.",
        ),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Read queries line by line, with the model kept loaded.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Model of the queries; it must be the collection's. Default: the model that made the collection.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option("--rerank", metavar="MODEL", help="Reorder the best rows with this reranker."),
    ] = None,
    candidates: Annotated[
        int,
        typer.Option(
            "--candidates",
            min=1,
            metavar="N",
            help="Rows of each list that are fused in hybrid mode, or reranked.",
        ),
    ] = 50,
    fusion: Annotated[
        Fusion,
        typer.Option(
            "--fusion", help="In hybrid mode, fuse the lists by scores, or by ranks (reciprocal rank fusion)."
        ),
    ] = "scores",
    merge: Annotated[
        bool,
        typer.Option(
            "--merge/--no-merge",
            help="Let a hit contain the chunks beside it that also answer the query, under the same headings, so that "
            "hits are different places.",
        ),
    ] = True,
    highlight: Annotated[
        bool | None,
        typer.Option(
            "--highlight/--no-highlight",
            help="Choose the best sentence by meaning, or by words only. Default: by meaning for a single query.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the rows of COLLECTION that answer each QUERY best, with the model that made the collection."""
    invocation = Invocation.of(context)
    asked = _asked(query, queries, interactive=interactive, as_json=as_json)
    config = invocation.config()
    from embedway.collections.query import SearchOptions, checked_condition
    from embedway.collections.stores import open_store

    start = time.perf_counter()
    store = open_store(collection)
    try:
        condition = checked_condition(where, store)
        options = SearchOptions(
            top, mode, condition, group, neighbours, rerank, candidates, model, highlight, fusion, merge
        )
        if interactive:
            from embedway.cli.search_session import run_session

            wait_for(run_session(invocation, config, store, options))
            return
        answers = wait_for(_search(invocation, config, store, [text for _, text in asked], options))
    finally:
        store.close()
    run = _Run(store, options, time.perf_counter() - start, single=queries is None and len(asked) == 1)
    _print_answers(invocation, run, asked, answers, as_json=as_json)


@dataclass(frozen=True)
class _Run:
    store: "Store"
    options: "SearchOptions"
    seconds: float
    single: bool


def _asked(
    query: list[str] | None, queries: str | None, *, interactive: bool, as_json: bool
) -> "list[tuple[QueryId, str]]":
    """Return ids and texts of the queries. Raises UsageError unless they come from exactly one place."""
    places = [bool(query), queries is not None, interactive]
    if sum(places) != 1:
        raise UsageError("name what to search for in one way: QUERY, --queries FILE or --interactive")
    if interactive and as_json:
        raise UsageError("--interactive prints tables; for JSON, use --queries -")
    if queries is not None:
        from embedway.cli.search_queries import read_queries

        return read_queries(queries)
    return list(enumerate(query or [], 1))


async def _search(
    invocation: Invocation, config: "Config", store: "Store", queries: list[str], options: "SearchOptions"
) -> "list[SearchAnswer]":
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.query import search_collection

    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        return await search_collection(embedder, store, queries, options, note=lambda text: note(invocation, text))


def _print_answers(
    invocation: Invocation,
    run: _Run,
    asked: "list[tuple[QueryId, str]]",
    answers: "list[SearchAnswer]",
    *,
    as_json: bool,
) -> None:
    from embedway.cli.search_output import answer_json, collection_json, print_hits, print_notes, receipt_json

    seconds = round(run.seconds, 4)
    document = {
        "collection": collection_json(run.store),
        "mode": run.options.mode,
        "receipt": receipt_json(answers[0]),  # all queries are embedded together
    }
    if as_json and run.single:
        print_json(document | answer_json(answers[0]) | {"seconds": seconds})
    elif as_json:
        found = [
            {"id": asked_id, "query": text, **answer_json(answer)}
            for (asked_id, text), answer in zip(asked, answers, strict=True)
        ]
        print_json(document | {"answers": found, "seconds": seconds})
    else:
        for (_, text), answer in zip(asked, answers, strict=True):
            if not run.single:
                if answer is not answers[0]:
                    print_line()
                print_line(f"# {' '.join(text.split())}")
            print_hits(answer)
            print_notes(invocation, run.store, answer, run.options, run.seconds)
