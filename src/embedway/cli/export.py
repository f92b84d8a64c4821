"""`embedway export`: convert a collection into another store, without embedding anything."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import DownloadProgress, print_json, print_line, wait_for
from embedway.interrupts import explain

if TYPE_CHECKING:
    from embedway.collections.export import ExportSummary
    from embedway.config import Config


def export(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection, as for `search`.")],
    *,
    destination: Annotated[
        str, typer.Option("--to", metavar="DEST", help="New collection; docs/stores.md lists all forms.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a collection at the destination.")] = False,
    vector_type: Annotated[
        str | None,
        typer.Option("--vectors", metavar="TYPE", help="float32, float16, int8 or bits, where the store has it."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="MODEL",
            help="Declare the model of a file that lost its record; random rows are embedded again as a proof.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Convert a collection into another store. No text is embedded."""
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
        f"{summary.destination}: {summary.rows:,} rows of {summary.documents:,} documents as {summary.vector_type}, "
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
    from embedway.collections.record import VECTOR_TYPES
    from embedway.errors import UsageError

    if options["vector_type"] not in {None, *VECTOR_TYPES}:
        raise UsageError(f"--vectors is one of {', '.join(VECTOR_TYPES)}, not {options['vector_type']!r}")
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
