"""Options of `sync` in Python, as keywords."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from embedway.arguments import as_max_nanousd, is_a
from embedway.collections.option_checks import check_mapping
from embedway.collections.options import SyncOptions
from embedway.collections.values import ColumnType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.collections.values import SourceFormat
    from embedway.money import Amount
    from embedway.types import Overflow


class SyncSettings(TypedDict, total=False):
    """Options of `AsyncCollection.sync`; see `SyncOptions`.

    `keep` is a list of columns, or maps them to their types. `max_cost` is in dollars.
    """

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
    keep: Sequence[str] | Mapping[str, ColumnType] | None
    format: SourceFormat | None
    follow_links: bool | None
    encoding: str | None
    include: Sequence[str] | None
    exclude: Sequence[str] | None
    collection: str
    max_cost: Amount | None
    allow_empty: bool
    remove: Sequence[str]
    wait: bool


def sync_options(settings: SyncSettings) -> SyncOptions:
    """Return the options of a sync. Raises UsageError for wrong values, TypeError for unknown names."""
    fields: dict[str, Any] = dict(settings)
    for name in fields.keys() - SyncSettings.__annotations__.keys():
        near = difflib.get_close_matches(name, SyncSettings.__annotations__, 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"sync() got an unexpected keyword argument {name!r}{meant}")
    if "max_cost" in fields:
        fields["most_nanousd"] = as_max_nanousd(fields.pop("max_cost"))
    if is_a(types := fields.get("keep"), Mapping):
        fields["keep_types"] = check_mapping(types, ColumnType, "keep")
        fields["keep"] = tuple(fields["keep_types"])
    return SyncOptions(**fields)
