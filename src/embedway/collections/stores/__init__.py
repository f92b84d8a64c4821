"""Stores: destinations of vectors, and functions to open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.collections.stores.redaction import shown
from embedway.collections.stores.registry import forms, store_for

if TYPE_CHECKING:
    from embedway.collections.stores.base import Store

__all__ = ["create_store", "forms", "open_store", "shown", "store_for"]


def create_store(destination: str, *, overwrite: bool = False) -> Store:
    """Return a store that is ready for `begin`; write nothing. Raises as `store_for` and `Store.prepare` do."""
    store = store_for(destination)
    try:
        store.prepare(overwrite=overwrite)
    except BaseException:
        store.close()
        raise
    return store


def open_store(destination: str) -> Store:
    """Return a store that is ready to be read and searched. Raises as `store_for` and `Store.open` do."""
    store = store_for(destination)
    try:
        store.open()
    except BaseException:
        store.close()
        raise
    return store
