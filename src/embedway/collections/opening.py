"""Opening of a collection: checks of its arguments, and its store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.arguments import check_flag, check_name, check_path
from embedway.collections.option_checks import check_class
from embedway.errors import SinkError, UsageError

if TYPE_CHECKING:
    import os

    from embedway.collections.stores.base import Store
    from embedway.config import Config


def check_opening(  # noqa: PLR0917  the arguments of `open`
    destination: str | os.PathLike[str],
    embedder: object,
    config: Config | None,
    model: str | None,
    create: bool,
    kind: type,
) -> tuple[str, str | None, bool]:
    """Return destination, model and `create` of a call of `open`; `kind` is the class of its embedder.

    Raises UsageError.
    """
    destination = check_path(destination, "destination", "a text or a path, such as docs.parquet")
    if embedder is not None:
        check_class(embedder, kind, "embedder")
        if config is not None:
            raise UsageError("embedder and config are both given; the embedder has its own config")
    if model is not None and not check_name(model, "model"):
        raise UsageError("model is empty; leave it out for the collection's model")
    return destination, model, check_flag(create, "create")


def open_or_new(destination: str, *, create: bool) -> Store:
    """Return an open store, or with `create` the store of a collection that does not exist yet."""
    from embedway.collections.stores import store_for  # noqa: PLC0415  only when a store is opened

    store = store_for(destination)
    if create and not store.exists():
        return store
    try:
        store.open()
    except SinkError:
        store.close()
        raise
    return store
