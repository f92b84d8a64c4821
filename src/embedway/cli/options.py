"""Options that come before a command, and those that several commands share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.collections.run import RunOptions
    from embedway.config import Config


@dataclass(slots=True)
class Invocation:
    """One start of the program. The only state of the command line; set before the command runs."""

    files: tuple[Path, ...] = ()
    quiet: bool = False
    traceback: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> "Invocation":
        """The invocation that a command runs in."""
        return context.ensure_object(cls)

    def config(self, overrides: Mapping[str, Any] | None = None) -> "Config":
        """All settings, with the flags that were given on top; a flag that is None was not given.

        Raises ConfigError.
        """
        from embedway.config import Config

        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        return Config.load(self.files, overrides=given)


BackendChoice: TypeAlias = Literal["auto", "openvino", "onnxruntime"]
PrecisionChoice: TypeAlias = Literal["auto", "f32", "bf16"]
InputTypeChoice: TypeAlias = Literal["query", "document"]
OverflowChoice: TypeAlias = Literal["truncate", "mean", "error"]
OnErrorChoice: TypeAlias = Literal["stop", "skip"]
FormatChoice: TypeAlias = Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"]
PresetChoice: TypeAlias = Literal["fast", "balanced", "best", "cheap", "private"]

JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="NAME", help="A name of the catalog, hf:OWNER/NAME, or a folder. Default: auto."
    ),
]
DimensionsOption: TypeAlias = Annotated[
    int | None, typer.Option("--dimensions", "-d", min=1, metavar="N", help="A size that the model was trained for.")
]
PresetOption: TypeAlias = Annotated[
    PresetChoice | None,
    typer.Option("--preset", "-p", help="Select the model that fits the texts best; see `embedway select`."),
]
MaxCostOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--max-cost", metavar="USD", help="Spend no more; of several models, take the best that fits."),
]
CollectionOption: TypeAlias = Annotated[
    str | None, typer.Option("--collection", metavar="NAME", help="Keep to the model and space of its first write.")
]
BackendOption: TypeAlias = Annotated[BackendChoice | None, typer.Option("--backend", help="What runs the model.")]
PrecisionOption: TypeAlias = Annotated[
    PrecisionChoice | None, typer.Option("--precision", help="Numbers inside the model.")
]
ThreadsOption: TypeAlias = Annotated[int | None, typer.Option("--threads", min=1, metavar="N", help="Threads in all.")]
StreamsOption: TypeAlias = Annotated[
    int | None, typer.Option("--streams", min=1, metavar="N", help="Batches side by side.")
]
TokenBudgetOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--token-budget", min=1, metavar="N", help="Tokens of a batch, padding included; bounds memory."),
]

TextFieldOption: TypeAlias = Annotated[
    str, typer.Option("--text-field", metavar="NAME", help="The field or column that holds the text.")
]
OverflowOption: TypeAlias = Annotated[
    OverflowChoice | None, typer.Option("--on-overflow", help="What to do with a text over the model's limit.")
]


def refuse_both(model: str | None, preset: PresetChoice | None) -> None:
    """Raise UsageError for a model that is named and to be selected too."""
    if model is not None and preset is not None:
        raise UsageError("--model names a model and --preset selects one; give one of them")


def job_overrides(
    preset: PresetChoice | None,
    chunk_tokens: int | None,
    overlap: int | None,
    on_error: OnErrorChoice | None,
    on_overflow: OverflowChoice | None,
) -> dict[str, str | int | None]:
    """The settings that the options of a job stand for."""
    return {
        "selection.preset": preset,
        "run.chunk_tokens": chunk_tokens,
        "run.overlap": overlap,
        "run.on_error": on_error,
        "embedding.on_overflow": on_overflow,
    }


def job_options(
    config: "Config",
    *,
    preset: PresetChoice | None,
    no_chunk: bool,
    chunk_tokens: int | None,
    overlap: int | None,
    collection: str | None,
    **others: Any,
) -> "RunOptions":
    """The options of a job by its settings and flags.

    Settings about chunks give way to --no-chunk; flags that contradict it are passed on, and are an error there.
    """
    from embedway.collections.run import RunOptions

    if not no_chunk:
        chunk_tokens = config.run.chunk_tokens
        overlap = config.run.overlap if "run.overlap" in config.sources else None
    return RunOptions(
        # A preset selects, whatever default the settings name.
        model="auto" if preset else config.embedding.default_model,
        chunk=not no_chunk,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap,
        on_error=config.run.on_error,
        on_overflow=config.embedding.on_overflow,
        collection=collection or "",
        **others,
    )


def runtime_overrides(
    backend: BackendChoice | None,
    precision: PrecisionChoice | None,
    threads: int | None,
    streams: int | None,
    token_budget: int | None,
) -> dict[str, str | int | None]:
    """The settings that the runtime options stand for."""
    return {
        "local.backend": backend,
        "local.precision": precision,
        "local.threads": threads,
        "local.streams": streams,
        "local.token_budget": token_budget,
    }
