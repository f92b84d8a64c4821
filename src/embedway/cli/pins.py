"""`embedway budget pins|unpin`: the model and vector space that each collection is pinned to."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from embedway.cli.options import Invocation, JsonFlag, decode_text
from embedway.cli.output import DownloadProgress, note, one_line, print_json, print_line, print_table, wait_for
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.config import Config
    from embedway.ledger.pins import Pin, Pins

T = TypeVar("T")


def show(
    context: typer.Context,
    *,
    prove: Annotated[
        str | None,
        typer.Option(
            "--prove",
            metavar="COLLECTION",
            help="Verify facts that an older version omitted from this collection's pin.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="DEST",
            help="Output of an older version's `embedway run` for that collection; its rows are recomputed.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the model and space of each collection, pinned by its first write."""
    if (prove is None) != (by is None):
        raise UsageError("--prove COLLECTION and --by DEST must be used together")
    if prove is not None and by is not None:
        _prove(Invocation.of(context), prove, by)
    found = _with_pins(Invocation.of(context).config(), lambda pins: pins.all())
    if as_json:
        print_json([_json(pin) for pin in found])
    elif found:
        print_table(
            ("collection", "model", "space", "since (UTC)", ""),
            [(one_line(pin.collection), one_line(pin.model), pin.space.id, _since(pin), _state(pin)) for pin in found],
        )
    else:
        print_line("no collections: the first write to a collection pins it")


def _prove(invocation: Invocation, collection: str, destination: str) -> None:
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.stores import open_store, shown
    from embedway.collections.verify import sample_rows

    rows = sample_rows(open_store(destination))

    async def run() -> float:
        async with AsyncEmbedder(config=invocation.config(), progress=DownloadProgress(invocation)) as embedder:
            return await embedder.pins.prove(collection, [text for text, _ in rows], [vector for _, vector in rows])

    lowest = wait_for(run())
    note(
        invocation,
        f"{len(rows)} rows of {shown(destination)} were recomputed and are the same (lowest cosine {lowest:.4f})",
    )


def remove(
    context: typer.Context,
    collection: Annotated[
        str, typer.Argument(metavar="COLLECTION", callback=decode_text, help="Name of the collection.")
    ],
) -> None:
    """Remove a collection's pin. Delete its vectors first; its next write pins it again."""
    invocation = Invocation.of(context)
    if not _with_pins(invocation.config(), lambda pins: pins.remove(collection)):
        raise UsageError(f"collection {collection!r} is not pinned; `embedway budget pins` lists pinned collections")
    note(
        invocation,
        f"collection {collection} is no longer pinned; its next write pins it again; restart programs that use it",
    )


def _with_pins(config: "Config", work: "Callable[[Pins], Awaitable[T]]") -> T:
    from embedway.ledger.opening import open_pins

    async def run() -> T:
        pins = open_pins(config)
        try:
            return await work(pins)
        finally:
            await pins.aclose()

    return wait_for(run())


def _since(pin: "Pin") -> str:
    return dt.datetime.fromtimestamp(pin.since, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _state(pin: "Pin") -> str:
    if pin.claim:
        return "first write in progress"
    return f"{' and '.join(pin.space.unknown)} unknown: see --prove" if pin.space.unknown else ""


def _json(pin: "Pin") -> dict[str, object]:
    return {
        "collection": pin.collection,
        "model": pin.model,
        "space": pin.space.id,
        "dimensions": pin.space.dimensions,
        "since": dt.datetime.fromtimestamp(pin.since, dt.UTC).isoformat(timespec="seconds"),
        "pinned": not pin.claim,
        "unknown": list(pin.space.unknown),
    }
