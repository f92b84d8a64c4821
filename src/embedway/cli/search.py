"""`embedway search`: search the output of `embedway run`."""

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag, decode_text
from embedway.cli.output import DownloadProgress, note, one_line, print_json, print_table, wait_for
from embedway.errors import DimensionsError, SpaceMismatchError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.search import Hit
    from embedway.collections.stores.base import Store
    from embedway.config import Config
    from embedway.types import EmbedResult, Overflow, Receipt

#: Maximum characters of a row's text in a table.
SNIPPET_CHARACTERS = 160


def search(
    context: typer.Context,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Output of `embedway run`: X.parquet, X.jsonl or lancedb:DIR#TABLE.")
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", callback=decode_text, help="Text to search for.")],
    *,
    top: Annotated[int, typer.Option("--top", "-n", min=1, metavar="N", help="Number of rows to show.")] = 5,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Refuse DEST unless its vectors are from this model. Default: the model of DEST.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option("--rerank", metavar="MODEL", help="Reorder the nearest rows with this reranker."),
    ] = None,
    candidates: Annotated[
        int, typer.Option("--candidates", min=1, metavar="N", help="Number of nearest rows to rerank.")
    ] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Find the rows of DEST that are nearest to QUERY, with the model that created DEST."""
    invocation = Invocation.of(context)
    config = invocation.config()
    from embedway.collections.stores import open_store

    start = time.perf_counter()
    collection = open_store(destination)
    request = _SearchRequest(query, model, top, rerank, candidates)
    found = wait_for(_search(invocation, config, collection, request))
    seconds = time.perf_counter() - start
    if as_json:
        print_json(_to_json(collection, found, seconds))
        return
    _print_hits(found.hits)
    _print_notes(invocation, collection, found, seconds)


@dataclass(frozen=True)
class _SearchRequest:
    query: str
    model: str | None
    top: int
    reranker: str | None
    candidates: int


@dataclass(frozen=True)
class _SearchResult:
    """Hits, best first, each with its similarity if its score is from a reranker; and the receipts."""

    hits: "list[tuple[Hit, float | None]]"
    receipt: "Receipt"
    reranked: "Receipt | None" = None


async def _search(
    invocation: Invocation, config: "Config", collection: "Store", request: _SearchRequest
) -> _SearchResult:
    import asyncio

    from embedway._embedder import AsyncEmbedder

    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        answer = await _query_vector(invocation, embedder, config, collection, request)
        most = request.top if request.reranker is None else max(request.top, request.candidates)
        hits = await asyncio.to_thread(collection.search, answer.vectors[0], most)
        if request.reranker is None:
            plain: list[tuple[Hit, float | None]] = [(hit, None) for hit in hits]
            return _SearchResult(plain, answer.receipt)
        # Rows over the reranker's limit are truncated.
        texts = [hit.text for hit in hits]
        result = await embedder.rerank(
            request.query, texts, model=request.reranker, top_n=request.top, on_overflow="truncate"
        )
        best: list[tuple[Hit, float | None]] = [
            (replace(hits[n], score=float(result.scores[n])), hits[n].score) for n in result.order
        ]
        return _SearchResult(best, answer.receipt, result.receipt)


async def _query_vector(
    invocation: Invocation, embedder: "AsyncEmbedder", config: "Config", collection: "Store", request: _SearchRequest
) -> "EmbedResult":
    """Embed the query, (1, d), in the space of the collection. Raises SpaceMismatchError."""
    name, dimensions = request.model or _name_of(collection, config), collection.space.dimensions
    if request.model is not None:
        _refuse_other_model(collection, request.model)
    try:
        description = await embedder.models.describe(name, dimensions, load=True)
    except DimensionsError:
        description = await embedder.models.describe(name, None, load=True)
    except UnknownModelError as error:
        if request.model is not None:
            raise
        raise UsageError(
            f"{collection.destination} contains vectors of {collection.space.id}, whose model is not in the catalog: "
            "name the model with --model, as hf:OWNER/NAME or as its folder"
        ) from error
    try:
        comparison = collection.check_space(description.space)
    except SpaceMismatchError:
        if request.model is None:
            note(invocation, f"{name} was looked up by name; for a model in a local folder, use --model ./FOLDER")
        raise
    if comparison.unknown:
        from embedway.collections.verify import verify_space

        note(invocation, await verify_space(embedder, collection, description.space, comparison.unknown, model=name))
    overflow: Overflow = "error" if config.embedding.on_overflow == "error" else "truncate"
    return await embedder.embed(
        [request.query], input_type="query", model=name, dimensions=dimensions, on_overflow=overflow
    )


def _name_of(collection: "Store", config: "Config") -> str:
    """Return the name of a collection's model. Its space contains only the last part of the name of your own model."""
    from embedway.catalog import default_catalog
    from embedway.catalog.services import default_services
    from embedway.providers.names import own_models

    short = collection.space.model
    if short in default_catalog() or short.casefold() in default_services():
        return short
    own = [facts.name for facts in own_models(config).values() if facts.name.rsplit("/", 1)[-1] == short]
    return own[0] if len(own) == 1 else short


def _refuse_other_model(collection: "Store", model: str) -> None:
    """Raise SpaceMismatchError, before weights or keys are needed, if both models are in the catalog and differ."""
    from embedway.catalog import default_catalog
    from embedway.catalog.services import default_services

    catalog, services = default_catalog(), default_services()

    def canonical(name: str) -> str:
        if (service := services.get(name.casefold())) is not None:
            return service.name
        return catalog.get(name).name if name in catalog else ""

    asked, own = canonical(model), canonical(collection.space.model)
    if asked and own and asked != own:
        raise SpaceMismatchError(
            collection=collection.destination, collection_space=collection.space.id, asked_space=asked
        )


def _to_json(collection: "Store", found: _SearchResult, seconds: float) -> dict[str, object]:
    document: dict[str, object] = {
        "collection": {
            "destination": collection.destination,
            "count": collection.count,
            "space": collection.space.to_json(),
        },
        "hits": [
            {"rank": rank, **asdict(hit), **({} if similarity is None else {"similarity": similarity})}
            for rank, (hit, similarity) in enumerate(found.hits, 1)
        ],
        "receipt": asdict(found.receipt),
        "seconds": round(seconds, 4),
    }
    if found.reranked is not None:
        document["rerank"] = {"candidates": found.reranked.texts, "receipt": asdict(found.reranked)}
    return document


def _print_notes(invocation: Invocation, collection: "Store", found: _SearchResult, seconds: float) -> None:
    if found.receipt.truncations:
        note(invocation, "the query was truncated at the model's limit")
    read = f", {found.reranked.texts} reranked by {found.reranked.model}" if found.reranked is not None else ""
    if found.reranked is not None and found.reranked.truncations:
        note(invocation, f"{len(found.reranked.truncations)} rows were truncated at the reranker's limit")
    note(invocation, f"{len(found.hits)} of {collection.count:,} rows, {collection.space.id}{read}, {seconds:.2f} s")


def _print_hits(hits: "list[tuple[Hit, float | None]]") -> None:
    rows = [
        (str(rank), f"{hit.score:.3f}", f"{hit.source}:{hit.start_line}", one_line(hit.text, SNIPPET_CHARACTERS))
        for rank, (hit, _) in enumerate(hits, 1)
    ]
    print_table(("rank", "score", "where", "text"), rows, right=(0, 1))
