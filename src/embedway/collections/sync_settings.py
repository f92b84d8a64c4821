"""Options of `sync` in Python, as keywords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from embedway.collections.documents import SourceFormat
    from embedway.types import Overflow


class SyncSettings(TypedDict, total=False):
    """Options of `AsyncCollection.sync`: the fields of `SyncOptions` that a caller sets."""

    model: str | None
    dimensions: int | None
    chunk: bool | None
    chunk_tokens: int | None
    overlap_tokens: int | None
    context: str | None
    on_error: Literal["stop", "skip"]
    on_overflow: Overflow
    text_field: str | None
    id_field: str | None
    keep: tuple[str, ...] | None
    format: SourceFormat | None
    follow_links: bool | None
    encoding: str | None
    include: tuple[str, ...] | None
    exclude: tuple[str, ...] | None
    collection: str
    most_nanousd: int | None
    allow_empty: bool
    remove: tuple[str, ...]
    wait: bool
