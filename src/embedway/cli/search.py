"""`embedway search`: look something up in what `run` made."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.options import JsonFlag
from embedway.cli.output import Download, note, one_line, print_json, print_table, wait_for
from embedway.cli.session import Session
from embedway.errors import DimensionsError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.sinks.search import Collection, Hit
    from embedway.types import EmbedResult

#: Characters of a row's text that a table shows.
SNIPPET_CHARACTERS = 160


def search(
    context: typer.Context,
    destination: Annotated[
        str,
        typer.Argument(metavar="DEST", help="What `embedway run` wrote: X.parquet, X.jsonl, lancedb:DIR#TABLE."),
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    *,
    top: Annotated[int, typer.Option("--top", "-n", min=1, metavar="N", help="How many rows to show.")] = 5,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Refuse DEST unless its vectors are this model's. Default: its own.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the rows of DEST that are nearest to QUERY, with the model that DEST was made with."""
    session = Session.of(context)
    config = session.config()
    from embedway.sinks import open_collection

    start = time.perf_counter()
    collection = open_collection(destination)
    answer = wait_for(_query_vector(session, config, collection, query, model))
    hits = collection.search(answer.vectors[0], top)
    seconds = time.perf_counter() - start
    if as_json:
        print_json(
            {
                "collection": {
                    "destination": destination,
                    "count": collection.count,
                    "space": collection.space.to_json(),
                },
                "hits": [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)],
                "receipt": asdict(answer.receipt),
                "seconds": round(seconds, 4),
            }
        )
        return
    _print_hits(hits)
    if answer.receipt.truncations:
        note(session, "the query was cut at the model's limit")
    note(session, f"{len(hits)} of {collection.count:,} rows, {collection.space.id}, {seconds:.2f} s")


async def _query_vector(
    session: Session, config: "Config", collection: "Collection", query: str, model: str | None
) -> "EmbedResult":
    """The vector of the query, (1, d), in the space of the collection. Raises SpaceMismatchError."""
    from embedway.engine import AsyncEmbedder

    name, dimensions = model or collection.space.model, collection.space.dimensions
    async with AsyncEmbedder(config, progress=Download(session)) as embedder:
        try:
            description = await embedder.describe(name, dimensions)
        except DimensionsError:
            description = await embedder.describe(name, None)
        except UnknownModelError as error:
            if model is not None:
                raise
            raise UsageError(
                f"{collection.destination} is of {collection.space.id}, whose model the catalog does not know: "
                "name it with --model, as hf:OWNER/NAME or as its folder"
            ) from error
        collection.check_space(description.space)
        result: EmbedResult = await embedder.embed(
            [query],
            input_type="query",
            model=name,
            dimensions=dimensions,
            on_overflow=config.embedding.on_overflow,
        )
    return result


def _print_hits(hits: "list[Hit]") -> None:
    rows = [
        (
            str(rank),
            f"{hit.score:.3f}",
            f"{hit.source}:{hit.start_line}",
            one_line(hit.text, SNIPPET_CHARACTERS),
        )
        for rank, hit in enumerate(hits, 1)
    ]
    print_table(("rank", "score", "where", "text"), rows, right=(0, 1))
