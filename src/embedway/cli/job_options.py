"""Options of the commands that read sources or write collections, each defined once."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from embedway.cli.options import OverflowChoice, PresetChoice, check_text, decode_text
from embedway.collections.values import SourceFormat

if TYPE_CHECKING:
    from embedway.collections.run import RunOptions
    from embedway.config import Config

OnErrorChoice: TypeAlias = Literal["stop", "skip"]

#: A collection, as the help of a command names it.
FORMS = (
    "X.parquet, X.jsonl, lancedb:DIR#TABLE, postgresql://USER@HOST/DATABASE#TABLE, "
    "qdrant:http://HOST:6333#COLLECTION or chroma:DIR#NAME"
)

CollectionArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="COLLECTION", callback=check_text, help=f"Collection: {FORMS}.")
]
NewCollectionOption: TypeAlias = Annotated[
    str, typer.Option("--to", metavar="COLLECTION", callback=check_text, help=f"Collection to create: {FORMS}.")
]
SourcesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="Folders, files, or - for standard input; NAME=PATH gives a source a name of its own."
    ),
]
OverwriteFlag: TypeAlias = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the collection of --to if it exists; of a link, its file."),
]

# Cutting
ChunkTokensOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--chunk-tokens",
        min=1,
        metavar="N",
        help="Maximum tokens of a chunk. Default: 256, or the model's limit if lower.",
    ),
]
OverlapOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--overlap", min=0, metavar="N", help="Maximum tokens that neighbouring chunks share. Default: 32."),
]
NoChunkFlag: TypeAlias = Annotated[
    bool, typer.Option("--no-chunk", help="Compute one vector per document; see --on-overflow for long ones.")
]
ContextOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="headings|none|PATTERN",
        help="Text before each chunk for the model; a pattern has the fields {title}, {headings}, {source} and "
        "{document}. Default: headings.",
    ),
]
OverflowOption: TypeAlias = Annotated[
    OverflowChoice | None,
    typer.Option(
        "--on-overflow",
        help="Texts over the model's limit: truncate, mean of the vectors of their parts, or error. Default: truncate.",
    ),
]
FitOption: TypeAlias = Annotated[
    bool | None,
    typer.Option("--fit/--no-fit", help="Select only models that read the longest text completely. Default: --fit."),
]

# Reading
OnErrorOption: TypeAlias = Annotated[
    OnErrorChoice | None,
    typer.Option(
        "--on-error",
        help="At an unusable row or file, stop, or skip it and list it in COLLECTION.rejects.jsonl. Default: stop.",
    ),
]
FormatOption: TypeAlias = Annotated[
    SourceFormat | None,
    typer.Option(
        "--format", help="Format of standard input, and of named files with an unknown ending. Default: auto."
    ),
]
TextFieldOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--text-field", metavar="NAME", help="Field or column that contains the text. Default: text."),
]
IdFieldOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--id-field", metavar="NAME", help="Field or column that contains a row's id. Default: id."),
]
KeepOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="COLUMN[:TYPE]",
        callback=decode_text,
        help="Column to copy, as text, int, float, bool, timestamp, list or json; repeatable. Default type: that of "
        "the first rows.",
    ),
]
IncludeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="Read only these files of folders, with any ending; a pattern as in .gitignore; repeatable.",
    ),
]
ExcludeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Skip these files and folders of folders; repeatable."),
]
EncodingOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="Encoding of files without byte order mark or declaration, such as cp1252. Default: UTF-8.",
    ),
]
FollowLinksOption: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--follow-links/--no-follow-links",
        help="Follow symbolic links inside folders; they may lead out of them. Default: --no-follow-links.",
    ),
]


def selects_model(model: str | None, *selecting: object) -> bool:
    """Return whether a command must select a model: none is named, and an option that selects one is given."""
    return model is None and any(wanted is not None for wanted in selecting)


def job_overrides(
    preset: PresetChoice | None,
    chunk_tokens: int | None,
    overlap: int | None,
    on_error: OnErrorChoice | None,
    on_overflow: OverflowChoice | None,
    *,
    fit: bool | None,
) -> dict[str, str | int | None]:
    """Return the settings that the options of a job override."""
    return {
        "selection.preset": preset,
        "run.chunk_tokens": chunk_tokens,
        "run.overlap": overlap,
        "run.on_error": on_error,
        "embedding.on_overflow": on_overflow,
        "selection.require_fit": fit,
    }


def job_options(
    config: "Config",
    *,
    selecting: bool,
    no_chunk: bool,
    chunk_tokens: int | None,
    overlap: int | None,
    collection: str | None,
    **others: Any,
) -> "RunOptions":
    """Return the options of a job from settings and flags.

    --no-chunk overrides settings for chunks. Flags that contradict it are passed on, and are an error there.
    """
    from embedway.collections.run import RunOptions

    if not no_chunk:
        chunk_tokens = config.run.chunk_tokens
        overlap = config.run.overlap if "run.overlap" in config.sources else None
    return RunOptions(
        # --preset and --models select a model, even if the settings name a default.
        model="auto" if selecting else config.embedding.default_model,
        chunk=not no_chunk,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap,
        on_error=config.run.on_error,
        on_overflow=config.embedding.on_overflow,
        collection=collection or "",
        **others,
    )


def reading_options(*, keep: list[str] | None = None, **given: Any) -> dict[str, Any]:
    """Return the given options that decide what is read, as fields of the options of a job."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if keep:
        from embedway.collections.column_types import split_keep

        fields["keep"], fields["keep_types"] = split_keep(keep)
    return {name: value for name, value in fields.items() if value is not None}
