"""Options of jobs that write collections."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  annotations are read by check_fields
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from embedway.collections.documents import ReadOptions
from embedway.collections.option_checks import Range, check_fields
from embedway.collections.values import ColumnType, SourceFormat  # noqa: TC001  as above
from embedway.errors import UsageError
from embedway.remedies import by_place, keep_as
from embedway.types import Overflow  # noqa: TC001  as above

if TYPE_CHECKING:
    from embedway.collections.record import Record

#: What precedes the text of a chunk for the model, unless the options say otherwise.
DEFAULT_CONTEXT = "headings"
#: Declared types and those of columns that keep such values.
_KEPT_AS = {("int", "float"), ("text", "timestamp")}


@dataclass(frozen=True, slots=True)
class RunOptions:  # a field for each option of a job
    """Options of a job.

    `chunk_tokens` includes special tokens, prompt and context; None means 256, or the model's limit if lower.
    `overlap_tokens` None means 32, or less for small chunks. With `chunk` false, each document is one row, truncated at
    the model's limit unless `on_overflow` says otherwise. `on_error` decides about unusable rows: `stop` ends the job,
    `skip` records the row and continues.
    """

    model: str = "auto"
    dimensions: Annotated[int, Range(1)] | None = None
    chunk: bool = True
    chunk_tokens: Annotated[int, Range(1)] | None = None
    overlap_tokens: Annotated[int, Range(0)] | None = None
    #: `headings`, `none`, or a pattern with fields in braces; see `ChunkSettings`.
    context: str = DEFAULT_CONTEXT
    on_error: Literal["stop", "skip"] = "stop"
    on_overflow: Overflow = "truncate"
    overwrite: bool = False
    text_field: str = "text"
    id_field: str = "id"
    keep: tuple[str, ...] = ()
    #: Declared types of kept columns; the others are inferred from the first rows.
    keep_types: Mapping[str, ColumnType] = field(default_factory=dict)
    format: SourceFormat = "auto"
    #: Whether to follow symbolic links inside folders.
    follow_links: bool = False
    encoding: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    #: Collection whose budget is charged, and whose vector space must match.
    collection: str = ""
    #: Maximum cost of the job, in nano-dollars.
    most_nanousd: Annotated[int, Range(0, 2**63 - 1)] | None = None
    #: Notes on the choice of the model, for the summary.
    notes: tuple[str, ...] = ()
    #: Whether to wait while another process or thread changes the destination.
    wait: bool = False

    def __post_init__(self) -> None:
        """Reject wrong values, and options that contradict each other."""
        check_fields(self)
        if not self.chunk and (self.chunk_tokens is not None or self.overlap_tokens is not None):
            raise UsageError(
                by_place(
                    command="--chunk-tokens and --overlap cannot be used with --no-chunk",
                    python="chunk_tokens and overlap_tokens cannot be used with chunk=False",
                )
            )

    def read_options(self) -> ReadOptions:
        """Return the options for readers. Raises `UsageError`."""
        return ReadOptions(
            self.text_field,
            self.id_field,
            self.keep,
            self.format,
            self.follow_links,
            self.encoding,
            self.include,
            self.exclude,
            self.keep_types,
        )


@dataclass(frozen=True, slots=True)
class SyncOptions:  # a field for each option of a sync
    """Options of a sync. Those that are None are as in the collection's record, or as in `RunOptions` without one.

    `allow_empty` accepts that a source has no document left. `remove` names sources whose documents are removed.
    """

    model: str | None = None
    dimensions: Annotated[int, Range(1)] | None = None
    chunk: bool | None = None
    chunk_tokens: Annotated[int, Range(1)] | None = None
    overlap_tokens: Annotated[int, Range(0)] | None = None
    context: str | None = None
    on_error: Literal["stop", "skip"] = "stop"
    on_overflow: Overflow | None = None
    text_field: str | None = None
    id_field: str | None = None
    keep: tuple[str, ...] | None = None
    keep_types: Mapping[str, ColumnType] | None = None
    format: SourceFormat | None = None
    follow_links: bool | None = None
    encoding: str | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    collection: str = ""
    most_nanousd: Annotated[int, Range(0, 2**63 - 1)] | None = None
    notes: tuple[str, ...] = ()
    allow_empty: bool = False
    remove: tuple[str, ...] = ()
    wait: bool = False

    def __post_init__(self) -> None:
        """Reject wrong values."""
        check_fields(self)

    def resolve(self, record: Record | None) -> RunOptions:
        """Return the options of the job; `record` is that of an existing collection. Raises `UsageError`."""
        known = {} if record is None else _recorded(record, self)
        if record is not None:
            _check_types(self.keep_types or {}, record.keep)
        given = {name: value for name in _SHARED if (value := getattr(self, name)) is not None}
        if self.keep is not None:
            # Columns are added. Without the recorded ones, the rows that are written again would lose their values.
            given["keep"] = tuple(dict.fromkeys((*known.get("keep", ()), *self.keep)))
        # A column that is named again without a type keeps the one that was declared before.
        types = {**known.get("keep_types", {}), **(self.keep_types or {})}
        return RunOptions(**{**known, **given, "keep_types": types})

    def with_model(self, options: RunOptions) -> SyncOptions:
        """Return the options with a model that was selected."""
        return replace(self, model=options.model, dimensions=options.dimensions, notes=options.notes)


#: Fields that are the same in both kinds of options.
_SHARED = tuple(one.name for one in fields(SyncOptions) if one.name in {other.name for other in fields(RunOptions)})


def _check_types(declared: Mapping[str, ColumnType], recorded: Mapping[str, ColumnType]) -> None:
    """Raise `UsageError` for a declared type whose values a column of the collection cannot keep."""
    for name, kind in declared.items():
        own = recorded.get(name, kind)
        if own not in {kind, "json"} and (kind, own) not in _KEPT_AS:
            raise UsageError(
                f"{keep_as(name, kind)}: the collection has the column {name!r} with the type {own}; "
                "another type needs a new collection"
            )


def _recorded(record: Record, given: SyncOptions) -> dict[str, Any]:
    """Return the options in a record, without chunk sizes that do not apply to the given options."""
    chunking, reading = record.chunking, record.reading
    cuts = chunking.chunk if given.chunk is None else given.chunk
    sizes: dict[str, Any] = {}
    if cuts and chunking.chunk:
        sizes["chunk_tokens"] = chunking.chunk_tokens
        if given.chunk_tokens is None:
            sizes["overlap_tokens"] = chunking.overlap_tokens
    return {
        **sizes,
        "dimensions": record.space.dimensions,
        "chunk": chunking.chunk,
        "context": chunking.context,
        "on_overflow": chunking.on_overflow,
        "text_field": reading.text_field,
        "id_field": reading.id_field,
        "keep": tuple(record.keep),
        "keep_types": reading.keep_types,
        "format": reading.format,
        "follow_links": reading.follow_links,
        "encoding": reading.encoding,
        "include": reading.include,
        "exclude": reading.exclude,
    }
