"""Options that several commands share."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.config import Config


class BackendChoice(StrEnum):
    """`--backend`."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


class PrecisionChoice(StrEnum):
    """`--precision`."""

    AUTO = "auto"
    F32 = "f32"
    BF16 = "bf16"


class InputTypeChoice(StrEnum):
    """`--input-type`."""

    QUERY = "query"
    DOCUMENT = "document"


class OverflowChoice(StrEnum):
    """`--on-overflow`."""

    TRUNCATE = "truncate"
    MEAN = "mean"
    ERROR = "error"


class OnErrorChoice(StrEnum):
    """`--on-error`."""

    STOP = "stop"
    SKIP = "skip"


class FormatChoice(StrEnum):
    """`--format`."""

    AUTO = "auto"
    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


class PresetChoice(StrEnum):
    """`--preset`."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"
    CHEAP = "cheap"
    PRIVATE = "private"


JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A name of the catalog, hf:OWNER/NAME, or a folder. Default: auto.",
    ),
]
DimensionsOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--dimensions", "-d", min=1, metavar="N", help="A size that the model was trained for."),
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
    str | None,
    typer.Option("--collection", metavar="NAME", help="Keep to the model and space of its first write."),
]
BackendOption: TypeAlias = Annotated[BackendChoice | None, typer.Option("--backend", help="What runs the model.")]
PrecisionOption: TypeAlias = Annotated[
    PrecisionChoice | None, typer.Option("--precision", help="Numbers inside the model.")
]
ThreadsOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Threads in all."),
]
StreamsOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--streams", min=1, metavar="N", help="Batches side by side."),
]
TokenBudgetOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--token-budget", min=1, metavar="N", help="Tokens of a batch, padding included; bounds memory."),
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
        "selection.preset": preset.value if preset else None,
        "run.chunk_tokens": chunk_tokens,
        "run.overlap": overlap,
        "run.on_error": on_error.value if on_error else None,
        "embedding.on_overflow": on_overflow.value if on_overflow else None,
    }


def chunk_options(config: "Config", *, no_chunk: bool, chunk_tokens: int | None, overlap: int | None) -> dict[str, Any]:
    """How documents are cut, for RunOptions.

    Settings about chunks give way to --no-chunk; flags that contradict it are passed on, and are an error there.
    """
    if no_chunk:
        return {"chunk": False, "chunk_tokens": chunk_tokens, "overlap_tokens": overlap}
    overlap = config.run.overlap if "run.overlap" in config.sources else None
    return {"chunk": True, "chunk_tokens": config.run.chunk_tokens, "overlap_tokens": overlap}


def runtime_overrides(
    backend: BackendChoice | None,
    precision: PrecisionChoice | None,
    threads: int | None,
    streams: int | None,
    token_budget: int | None,
) -> dict[str, str | int | None]:
    """The settings that the runtime options stand for."""
    return {
        "local.backend": backend.value if backend else None,
        "local.precision": precision.value if precision else None,
        "local.threads": threads,
        "local.streams": streams,
        "local.token_budget": token_budget,
    }
