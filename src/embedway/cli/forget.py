"""`embedway forget`: remove documents from collections, from older versions of them, and from the cache."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.job_options import FORMS
from embedway.cli.options import Invocation, JsonFlag, check_text, decode_text
from embedway.cli.output import DownloadProgress, print_json, print_line, wait_for
from embedway.interrupts import explain
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.collections.forgetting import ForgetReport
    from embedway.config import Config


def forget(
    context: typer.Context,
    documents: Annotated[
        list[str],
        typer.Argument(
            metavar="DOCUMENT",
            callback=decode_text,
            help="Ids of documents, such as guide/install.md, or SOURCE/ID; `search --json` prints them.",
        ),
    ],
    *,
    collections: Annotated[
        list[str],
        typer.Option("--from", metavar="COLLECTION", callback=check_text, help=f"Collection: {FORMS}; repeatable."),
    ],
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="NAME", help="Source of the documents, if several sources have the same id."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Model, whose cached vectors are removed. Default: that of COLLECTION.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the documents and the number of rows. Remove nothing."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove documents from collections, their older versions and the cache. Say what may still contain their texts."""
    invocation = Invocation.of(context)
    config = invocation.config()
    explain("nothing is changed" if dry_run else "run the same command again: what is removed stays removed")
    reports = wait_for(_forget(invocation, config, collections, documents, source=source, model=model, dry_run=dry_run))
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
    dry_run: bool,
) -> "list[ForgetReport]":
    from embedway._embedder import AsyncEmbedder
    from embedway.collections import AsyncCollection

    reports = []
    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        for destination in destinations:
            async with await AsyncCollection.open(destination, embedder=embedder, model=model) as collection:
                reports.append(await collection.forget(*documents, source=source, dry_run=dry_run))
    return reports


def _print(report: "ForgetReport") -> None:
    documents = count_of(len(report.documents), "document")
    rows, vectors = count_of(report.rows, "row"), count_of(report.cached, "cached vector")
    if report.dry_run:
        print_line(f"{report.destination}: would remove {documents} with {rows}, and their cached vectors:")
        for name in report.documents:
            print_line(f"  {name}")
        return
    print_line(f"{report.destination}: removed {documents} with {rows}, and {vectors}")
    print_line("The texts may still be in:")
    for place in report.left:
        print_line(f"  {place}")
