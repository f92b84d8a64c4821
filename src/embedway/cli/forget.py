"""`embedway forget`: remove documents from collections, from older versions of them, and from the cache."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag, decode_text
from embedway.cli.output import DownloadProgress, count_of, print_json, print_line, wait_for
from embedway.interrupts import explain

if TYPE_CHECKING:
    from embedway.collections.forgetting import ForgetReport
    from embedway.config import Config


def forget(
    context: typer.Context,
    documents: Annotated[
        list[str],
        typer.Argument(metavar="DOCUMENT...", callback=decode_text, help="Documents: ID, or SOURCE/ID."),
    ],
    *,
    collections: Annotated[
        list[str], typer.Option("--from", metavar="COLLECTION", help="A collection, as for `search`; repeatable.")
    ],
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="Source of the documents, if several have them.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model. Default: that of the collection.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove a document's rows and texts, and say what may still contain them."""
    invocation = Invocation.of(context)
    config = invocation.config()
    explain("run the same command again: what is removed stays removed")
    reports = wait_for(_forget(invocation, config, collections, documents, source=source, model=model))
    if as_json:
        print_json({"collections": [asdict(report) for report in reports]})
        return
    for report in reports:
        _print(report)


async def _forget(
    invocation: Invocation,
    config: "Config",
    destinations: list[str],
    documents: list[str],
    *,
    source: str | None,
    model: str | None,
) -> "list[ForgetReport]":
    import asyncio

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.forgetting import forget_documents
    from embedway.collections.query_model import model_name
    from embedway.collections.stores import open_store

    reports = []
    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        for destination in destinations:
            store = await asyncio.to_thread(open_store, destination)
            try:
                name = model or model_name(store.space, config)
                reports.append(await forget_documents(embedder, store, documents, model=name, source=source))
            finally:
                await asyncio.to_thread(store.close)
    return reports


def _print(report: "ForgetReport") -> None:
    gone = f"{count_of(len(report.documents), 'document')} with {count_of(report.rows, 'row')} removed"
    print_line(f"{report.destination}: {gone}, and {count_of(report.cached, 'cached vector')}")
    print_line("this may still contain the texts:")
    for place in report.left:
        print_line(f"  {place}")
