"""Destinations: where a job's vectors are written, and where they are searched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.collections.search import Collection
    from embedway.collections.stores.base import Sink

__all__ = ["open_collection", "open_sink", "rejects_path", "sidecars"]

_FORMS = "X.parquet, X.jsonl or lancedb:DIR#TABLE"


def open_sink(destination: str, *, overwrite: bool = False) -> Sink:
    """A sink for a destination: `X.parquet`, `X.jsonl` or `lancedb:DIR#TABLE`. Nothing is written yet.

    Raises `UsageError` for any other form, `SinkError` where the destination exists (and `overwrite` is
    false) or cannot be written, and `MissingExtraError` where LanceDB is needed and not installed.
    """
    form = _form(destination)
    if form == "lancedb":
        from embedway.collections.stores.lancedb import LanceDBSink  # noqa: PLC0415 - only where asked for

        return LanceDBSink(destination, overwrite=overwrite)
    if form == "parquet":
        from embedway.collections.stores.parquet import ParquetSink  # noqa: PLC0415 - only where asked for

        return ParquetSink(destination, overwrite=overwrite)
    from embedway.collections.stores.jsonl import JsonlSink  # noqa: PLC0415 - only where asked for

    return JsonlSink(destination, overwrite=overwrite)


def open_collection(destination: str) -> Collection:
    """What `open_sink` wrote, for searching.

    Raises `UsageError` for an unknown form, `SinkError` where there is nothing, where it cannot be read, or
    where it does not say which space it holds, and `MissingExtraError` as `open_sink` does.
    """
    from embedway.collections import search  # noqa: PLC0415 - brings numpy and Arrow

    form = _form(destination)
    if form == "lancedb":
        return search.LanceDBCollection(destination)
    if form == "parquet":
        return search.ParquetCollection(destination)
    return search.JsonlCollection(destination)


def sidecars(destination: str) -> tuple[Path, ...]:
    """Other files that a sink writes beside its destination."""
    if _form(destination) != "jsonl":
        return ()
    from embedway.collections.stores.jsonl import sidecar_path  # noqa: PLC0415 - only where asked for

    return (sidecar_path(Path(destination)),)


def rejects_path(destination: str) -> Path:
    """Where the rows that could not be used are listed: beside the destination."""
    if _form(destination) == "lancedb":
        from embedway.collections.stores.lancedb import parse_lancedb  # noqa: PLC0415 - only where asked for

        folder, table = parse_lancedb(destination)
        return folder / f"{table}.rejects.jsonl"
    path = Path(destination)
    return path.with_name(f"{path.name}.rejects.jsonl")


def _form(destination: str) -> str:
    if destination.startswith("lancedb:"):
        return "lancedb"
    ending = Path(destination).suffix.lower()
    if ending in {".parquet", ".jsonl"}:
        return ending[1:]
    raise UsageError(f"{destination!r} is no destination that is known; write {_FORMS}")
