"""Stores: destinations of vectors, and functions to open them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.collections.stores.base import Store

__all__ = ["create_store", "open_store", "store_for"]

_FORMS = "X.parquet, X.jsonl or lancedb:DIR#TABLE"


def store_for(destination: str) -> Store:
    """Return the store of a destination, `X.parquet`, `X.jsonl` or `lancedb:DIR#TABLE`. Nothing is read or written.

    Raises `UsageError` for any other form.
    """
    if destination.startswith("lancedb:"):
        from embedway.collections.stores.lancedb import LanceDBStore  # noqa: PLC0415 - only if used

        return LanceDBStore(destination)
    ending = Path(destination).suffix.lower()
    if ending == ".parquet":
        from embedway.collections.stores.parquet import ParquetStore  # noqa: PLC0415 - only if used

        return ParquetStore(destination)
    if ending == ".jsonl":
        from embedway.collections.stores.jsonl import JsonlStore  # noqa: PLC0415 - only if used

        return JsonlStore(destination)
    raise UsageError(f"{destination!r} is not a known destination; use {_FORMS}")


def create_store(destination: str, *, overwrite: bool = False) -> Store:
    """Return a store that is ready for `begin`; write nothing. Raises as `store_for` and `Store.prepare` do."""
    store = store_for(destination)
    store.prepare(overwrite=overwrite)
    return store


def open_store(destination: str) -> Store:
    """Return a store that is ready to be read and searched. Raises as `store_for` and `Store.open` do."""
    store = store_for(destination)
    store.open()
    return store
