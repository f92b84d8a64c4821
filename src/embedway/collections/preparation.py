"""Preparation of a sync: the record and documents of the collection, and the model that its space needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from embedway.collections.changes import Manifest
from embedway.collections.query_model import model_name, refuse_other_model
from embedway.errors import SinkError, SpaceMismatchError
from embedway.remedies import by_place
from embedway.space import comparable

if TYPE_CHECKING:
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.options import RunOptions, SyncOptions
    from embedway.collections.record import Record
    from embedway.collections.stores.base import Store
    from embedway.types import ModelDescription

#: First version of collections that can be changed.
FIRST_VERSION = 3


@dataclass(frozen=True, slots=True)
class Opened:
    """A collection before a job: its record, None if it does not exist, its documents, and the options of the job."""

    options: RunOptions
    old: Record | None = None
    manifest: Manifest = field(default_factory=Manifest)


def open_for_sync(store: Store, sync: SyncOptions) -> Opened:
    """Open the collection if it exists, and resolve the options that its record decides. Raises SinkError."""
    if not store.exists():
        return Opened(sync.resolve(None))
    store.open()
    old = store.record
    if old.format_version < FIRST_VERSION:
        command = "`embedway run SOURCE --to COLLECTION --overwrite`"
        replacement = by_place(command=command, python="delete it, and sync again")
        raise SinkError(
            f"has the format of version {old.format_version}, which cannot be changed; embed its sources into a new "
            f"collection, or replace it: {replacement}",
            destination=store.destination,
        )
    return Opened(sync.resolve(old), old, Manifest.of(store))


async def describe_model(
    embedder: AsyncEmbedder, options: RunOptions, old: Record | None, destination: str, *, load: bool = True
) -> tuple[RunOptions, ModelDescription]:
    """Return the options with the collection's model, and its description.

    The model of an existing collection is loaded only if its facts need it; that of a new one with `load`. Raises
    SpaceMismatchError for another space than the collection's, and the errors of the embedder.
    """
    describe = embedder.models.describe
    if old is None:
        return options, await describe(options.model, options.dimensions, load=load)
    if options.model == "auto":
        options = replace(options, model=model_name(old.space, embedder.config))
    else:
        refuse_other_model(old.space, options.model, destination=destination, asked="the documents")
    described = await describe(options.model, options.dimensions)
    if not comparable(described.space, old.space):
        described = await describe(options.model, options.dimensions, load=True)
    if not comparable(described.space, old.space):
        raise SpaceMismatchError(
            collection=destination,
            collection_space=old.space.id,
            asked_space=described.space.id,
            asked="the documents",
        )
    return options, described
