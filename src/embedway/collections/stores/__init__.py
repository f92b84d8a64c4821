"""Stores: the destinations of vectors, and which store serves a destination."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.collections.stores.base import Store

__all__ = ["create_store", "open_store", "store_for"]

_FORMS = "X.parquet, X.jsonl or lancedb:DIR#TABLE"


def store_for(destination: str) -> Store:
    """The store of a destination, `X.parquet`, `X.jsonl` or `lancedb:DIR#TABLE`. Nothing is read or written.

    Raises `UsageError` for any other form.
    """
    if destination.startswith("lancedb:"):
        from embedway.collections.stores.lancedb import LanceDBStore  # noqa: PLC0415 - only where asked for

        return LanceDBStore(destination)
    ending = Path(destination).suffix.lower()
    if ending == ".parquet":
        from embedway.collections.stores.parquet import ParquetStore  # noqa: PLC0415 - only where asked for

        return ParquetStore(destination)
    if ending == ".jsonl":
        from embedway.collections.stores.jsonl import JsonlStore  # noqa: PLC0415 - only where asked for

        return JsonlStore(destination)
    raise UsageError(f"{destination!r} is no destination that is known; write {_FORMS}")


def create_store(destination: str, *, overwrite: bool = False) -> Store:
    """A store that is ready for `begin`. Nothing is written yet. Raises as `store_for` and `Store.prepare` do."""
    store = store_for(destination)
    store.prepare(overwrite=overwrite)
    return store


def open_store(destination: str) -> Store:
    """A store that is ready to be read and searched. Raises as `store_for` and `Store.open` do."""
    store = store_for(destination)
    store.open()
    return store
