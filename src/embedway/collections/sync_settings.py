"""Options of `sync` in Python, as keywords."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from embedway.arguments import as_max_nanousd, check_choice, check_flag, check_integer, check_names, is_a
from embedway.collections.options import SyncOptions
from embedway.collections.values import ColumnType, SourceFormat
from embedway.errors import UsageError
from embedway.types import Overflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.money import Amount


_CHOICES: dict[str, tuple[str, ...]] = {
    "on_error": ("stop", "skip"),
    "on_overflow": get_args(Overflow),
    "format": get_args(SourceFormat),
}
_FLAGS = {"chunk", "follow_links", "allow_empty", "wait"}
_NEVER_NONE = {"on_error", "allow_empty", "wait"}
#: Least values of numbers.
_LEAST = {"dimensions": 1, "chunk_tokens": 1, "overlap_tokens": 0}
_TEXTS = {"model", "context", "text_field", "id_field", "encoding", "collection"}


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
    if "max_cost" in fields:
        fields["most_nanousd"] = as_max_nanousd(fields.pop("max_cost"))
    if isinstance(types := fields.get("keep"), Mapping):
        fields["keep"], fields["keep_types"] = list(types), dict(types)
    for name in fields.keys() & {"keep", "include", "exclude", "remove"}:
        fields[name] = check_names(fields[name], name)
    for column, kind in (fields.get("keep_types") or {}).items():
        check_choice(kind, get_args(ColumnType), f"the type of {column!r} in keep")
    return SyncOptions(**{name: _checked(name, value) for name, value in fields.items()})


def source_texts(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return sources as texts. Raises UsageError for anything but a path, or `NAME=PATH`."""
    for source in sources:
        if not is_a(source, (str, os.PathLike)):
            raise UsageError(f"a source is of type {type(source).__name__}; it must be a path, or a text NAME=PATH")
    return [os.fsdecode(source) for source in sources]


def _checked(name: str, value: Any) -> Any:
    """Return the value of an option. Raises UsageError for one of a wrong type; None is the recorded value."""
    if name in _FLAGS and (value is not None or name in _NEVER_NONE):
        return check_flag(value, name)
    if name in _CHOICES and (value is not None or name in _NEVER_NONE):
        return check_choice(value, _CHOICES[name], name)
    if name in _LEAST and value is not None:
        return check_integer(value, name, _LEAST[name])
    if name in _TEXTS and value is not None and not is_a(value, str):
        raise UsageError(f"{name} is of type {type(value).__name__}; it must be a text")
    return value
