"""`embedway export`: convert a collection into another store, without embedding anything."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.job_options import CollectionArgument, NewCollectionOption, OverwriteFlag
from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import DownloadProgress, print_json, print_line, wait_for
from embedway.collections.values import VectorType
from embedway.interrupts import explain
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.collections.export import ExportSummary
    from embedway.config import Config


def export(
    context: typer.Context,
    collection: CollectionArgument,
    *,
    destination: NewCollectionOption,
    overwrite: OverwriteFlag = False,
    vector_type: Annotated[
        VectorType | None,
        typer.Option(
            "--vectors",
            help="Numbers of the new vectors, if the store has them. Default: as they are.",
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="MODEL",
            help="Model of a file X.parquet or X.jsonl that lost its record. 64 random rows are embedded as a proof.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy COLLECTION into a new one, in any store. Nothing is embedded."""
    invocation = Invocation.of(context)
    config = invocation.config()
    explain("the destination is as before; run the same command again")
    options: dict[str, object] = {"overwrite": overwrite, "vector_type": vector_type}
    summary = wait_for(_export(invocation, config, collection, destination, space=space, options=options))
    if as_json:
        print_json(asdict(summary))
        return
    rate = summary.rows / summary.seconds if summary.seconds else 0
    print_line(
        f"{summary.destination}: {count_of(summary.rows, 'row')} of {count_of(summary.documents, 'document')} as "
        f"{summary.vector_type}, "
        f"in {summary.seconds:.1f} s ({rate:,.0f} rows/s)"
    )


async def _export(
    invocation: Invocation,
    config: "Config",
    source: str,
    destination: str,
    *,
    space: str | None,
    options: dict[str, object],
) -> "ExportSummary":
    import asyncio
    from typing import Any, cast

    from embedway.collections.export import export_collection, export_stored

    asked = cast("Any", options)
    if space is None:
        return await export_stored(source, destination, **asked)

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.declared import open_declared

    async with (
        AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder,
        open_declared(embedder, source, space) as declared,
    ):
        return await asyncio.to_thread(export_collection, declared, destination, **asked)
