"""`embedway budget pins|unpin`: which collection is of which space, for good."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from embedway.cli.options import Invocation, JsonFlag
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
        typer.Option("--prove", metavar="COLLECTION", help="Prove facts that an older version left out of its pin."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="DEST",
            help="What an older version's `embedway run` wrote for that collection: its rows are the proof.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show which model and space each collection is pinned to, since its first write."""
    if (prove is None) != (by is None):
        raise UsageError("--prove COLLECTION and --by DEST go together")
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
        print_line("no collections: the first write to one pins it")


def _prove(invocation: Invocation, collection: str, destination: str) -> None:
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.stores import open_store
    from embedway.collections.verify import sample_rows

    rows = sample_rows(open_store(destination))

    async def run() -> float:
        async with AsyncEmbedder(config=invocation.config(), progress=DownloadProgress(invocation)) as embedder:
            return await embedder.pins.prove(collection, [text for text, _ in rows], [vector for _, vector in rows])

    lowest = wait_for(run())
    note(invocation, f"{len(rows)} rows of {destination} computed anew are the same (lowest cosine {lowest:.4f})")


def remove(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Whose vectors are gone.")],
) -> None:
    """Forget the space of a collection, whose vectors are gone: its next write is a first one again."""
    invocation = Invocation.of(context)
    if not _with_pins(invocation.config(), lambda pins: pins.remove(collection)):
        raise UsageError(f"nothing is known of collection {collection!r}; `embedway budget pins` lists them")
    note(invocation, f"collection {collection}: its next write decides on its space")


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
        return "first write under way"
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
