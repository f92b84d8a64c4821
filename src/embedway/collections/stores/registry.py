"""Forms of destinations, and the class of each: built-in ones, and those of third parties by entry point.

A third party installs an entry point of the group `embedway.stores`. Its name is the scheme of its destinations: for
the name `mine`, destinations are `mine:...`. Its object is called with the destination and returns a `Store`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embedway.arguments import check_path, is_a
from embedway.collections.stores.nearby import did_you_mean
from embedway.collections.stores.redaction import shown
from embedway.errors import EmbedwayError, UsageError
from embedway.third_party import must_pass, place_of

if TYPE_CHECKING:
    from embedway.collections.stores.base import Store

GROUP = "embedway.stores"
_PACKAGE = "embedway.collections.stores"
#: Form, module and class of destinations that begin with a scheme.
_SCHEMES = {
    "lancedb": ("lancedb:DIR#TABLE", "lancedb", "LanceDBStore"),
    "postgresql": ("postgresql://USER@HOST/DATABASE#TABLE", "postgres", "PostgresStore"),
    "postgres": ("postgresql://USER@HOST/DATABASE#TABLE", "postgres", "PostgresStore"),
    "qdrant": ("qdrant:http://HOST:6333#COLLECTION", "qdrant", "QdrantStore"),
    "chroma": ("chroma:DIR#NAME", "chroma", "ChromaStore"),
}
#: The same, of destinations that are files with an ending.
_ENDINGS = {".parquet": ("X.parquet", "parquet", "ParquetStore"), ".jsonl": ("X.jsonl", "jsonl", "JsonlStore")}


def forms() -> tuple[str, ...]:
    """Return the forms of all destinations, also of installed third-party stores."""
    own = dict.fromkeys(form for form, _, _ in (*_ENDINGS.values(), *_SCHEMES.values()))
    return (*own, *(f"{name}:..." for name in third_party_names()))


def third_party_names() -> tuple[str, ...]:
    """Return the schemes of third-party stores; those of built-in ones cannot be replaced."""
    names = {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}
    return tuple(sorted(names - _SCHEMES.keys()))


def store_for(destination: str | os.PathLike[str] | Store) -> Store:
    """Return the store of a destination; a store itself is returned as it is. Nothing is read or written.

    Raises `UsageError`, which lists all forms, for an unknown form; it names a third-party store that cannot be loaded.
    """
    if not is_a(destination, (str, os.PathLike)):
        from embedway.collections.stores.base import Store  # noqa: PLC0415 - numpy, only if used

        if is_a(destination, Store):
            return cast("Store", destination)
    destination = check_path(destination, "destination", "a text or a path, such as docs.parquet")
    scheme, colon, _ = destination.partition(":")
    if colon and scheme in _SCHEMES:
        return _built_in(_SCHEMES[scheme], destination)
    if colon and scheme in third_party_names():
        return _third_party(scheme, destination)
    ending = Path(destination).suffix.lower()
    if ending in _ENDINGS:
        return _built_in(_ENDINGS[ending], destination)
    near = "" if "://" in destination else did_you_mean(destination, tuple(_ENDINGS))
    raise UsageError(
        f"{shown(destination)!r} is not the name of a collection{near or '; use one of: ' + ', '.join(forms())}"
    )


def similar_to(destination: str) -> str:
    """Return `; did you mean X?` for a file that does not exist, if there is a collection with a similar name."""
    is_file = Path(destination).suffix.lower() in _ENDINGS and "://" not in destination
    return did_you_mean(destination, tuple(_ENDINGS)) if is_file else ""


def _built_in(entry: tuple[str, str, str], destination: str) -> Store:
    _, module, name = entry
    kind: Any = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
    return cast("Store", kind(destination))


def _third_party(scheme: str, destination: str) -> Store:
    from embedway.collections.stores.base import Store  # noqa: PLC0415 - numpy, only if used

    entry = next(iter(importlib.metadata.entry_points(group=GROUP, name=scheme)))
    package = entry.dist.name if entry.dist is not None else entry.value
    try:
        store = entry.load()(destination)
    except EmbedwayError:
        raise
    except BaseException as error:
        if must_pass(error):
            raise
        # Not raised here: the error may repeat a password of the destination, and would be the context.
        fault = place_of(error)
    else:
        if isinstance(store, Store):
            return store
        fault = f"it returned {type(store).__name__}, which is not a Store"
    raise UsageError(f"the store {scheme!r} of the package {package} cannot be used: {fault}")
