"""Options before a command, and options that several commands share."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from embedway.errors import ConfigError, UsageError
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from embedway.config import Config

_log = logging.getLogger("embedway.metrics")


@dataclass(slots=True)
class Invocation:
    """State of one program run, set before the command runs. The command line has no other state."""

    files: tuple[Path, ...] = ()
    quiet: bool = False
    verbose: bool = False
    traceback: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> "Invocation":
        """Return the invocation of a command's context."""
        return context.ensure_object(cls)

    def config(self, overrides: Mapping[str, Any] | None = None) -> "Config":
        """Load all settings, overridden by the given flags; a flag that is None was not given.

        Raises ConfigError.
        """
        from embedway.cli.log import apply_settings
        from embedway.config import Config

        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        config = Config.load(self.files, overrides=given)
        apply_settings(config)
        return config


def decode_text(param: typer.CallbackParam, value: Any) -> Any:
    """Return the texts of an argument. In a locale without UTF-8, Python decodes other bytes as surrogates.

    Raises UsageError for a text that is not UTF-8.
    """
    if isinstance(value, (list, tuple)):
        return [decode_text(param, one) for one in value]
    if not isinstance(value, str) or not has_surrogate(value):
        return value
    try:
        return os.fsencode(value).decode()
    except UnicodeError:
        name = param.opts[0] if param.param_type_name == "option" else param.metavar
        raise UsageError(f"{name} is not UTF-8") from None


def check_text(param: typer.CallbackParam, value: Any) -> Any:
    """Return the name of a file unchanged. Raises UsageError if it is not UTF-8."""
    decode_text(param, value)
    return value


BackendChoice: TypeAlias = Literal["auto", "openvino", "onnxruntime"]
PrecisionChoice: TypeAlias = Literal["auto", "f32", "bf16"]
InputTypeChoice: TypeAlias = Literal["query", "document"]
OverflowChoice: TypeAlias = Literal["truncate", "mean", "error"]
PresetChoice: TypeAlias = Literal["fast", "balanced", "best", "cheap", "private"]

JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Catalog name, hf:OWNER/NAME, or folder. Default: embedding.default_model, else all-MiniLM-L6-v2.",
    ),
]
DimensionsOption: TypeAlias = Annotated[
    int | None, typer.Option("--dimensions", "-d", min=1, metavar="N", help="Vector size; one that the model supports.")
]
PresetOption: TypeAlias = Annotated[
    PresetChoice | None,
    typer.Option("--preset", "-p", help="Select the model that fits the texts best; see `embedway select`."),
]
ModelsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="A,B",
        callback=decode_text,
        help="Models to select from: names or aliases, separated by commas; repeatable.",
    ),
]
MaxCostOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--max-cost", metavar="USD", help="Maximum cost; without --model, use the best model within it."),
]
CollectionOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--collection",
        metavar="NAME",
        callback=decode_text,
        help="Charge the budget of this name, and use the model and space of its first write.",
    ),
]
BackendOption: TypeAlias = Annotated[
    BackendChoice | None, typer.Option("--backend", help="Library that runs the model.")
]
PrecisionOption: TypeAlias = Annotated[
    PrecisionChoice | None, typer.Option("--precision", help="Number format inside the model.")
]
ThreadsOption: TypeAlias = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="Total number of threads.")
]
StreamsOption: TypeAlias = Annotated[
    int | None, typer.Option("--streams", min=1, metavar="N", help="Batches computed concurrently.")
]
TokenBudgetOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--token-budget", min=1, metavar="N", help="Maximum tokens of a batch, padding included; limits memory."
    ),
]

MetricsFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--metrics-file",
        metavar="F",
        callback=check_text,
        help="Write metrics to F at the end, for node_exporter, which reads names that end in .prom.",
    ),
]


def metrics_overrides(path: Path | None) -> dict[str, bool | None]:
    """Return the settings that --metrics-file overrides. Raises UsageError if it cannot be written."""
    if path is None:
        return {}
    from embedway.telemetry.exposition import check_metrics_file

    check_metrics_file(path)
    return {"telemetry.prometheus": True}


@contextlib.contextmanager
def metrics_file(path: Path | None) -> Iterator[None]:
    """Write the metrics at the end of the block, also after an error or a signal.

    A failure to write is a warning. If the block succeeded, it then raises Exit with code 1.
    """
    if path is None:
        yield
        return
    from embedway import unfinished
    from embedway.telemetry.exposition import write_metrics_file

    def write() -> bool:
        try:
            write_metrics_file(path)
        except (OSError, ConfigError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            _log.warning("--metrics-file: the metrics could not be written: %s", reason)
            return False
        return True

    with unfinished.at_the_end(write):
        try:
            yield
        except BaseException:
            write()
            raise
        if not write():
            raise typer.Exit(1)


def split_names(names: list[str] | None) -> tuple[str, ...] | None:
    """Return the names of --models; None if it is not given. Raises UsageError if it names none."""
    if not names:
        return None
    found = tuple(name.strip() for part in names for name in part.split(",") if name.strip())
    if not found:
        raise UsageError("--models names no model; separate several by commas")
    return found


def refuse_both(model: object, preset: PresetChoice | None, models: list[str] | None = None) -> None:
    """Raise UsageError if both a model and an option that selects one are given."""
    for option, given in (("--preset", preset), ("--models", models)):
        if model and given:
            raise UsageError(f"--model names a model and {option} selects one; use only one of them")


def runtime_overrides(
    backend: BackendChoice | None,
    precision: PrecisionChoice | None,
    threads: int | None,
    streams: int | None,
    token_budget: int | None,
) -> dict[str, str | int | None]:
    """Return the settings that the runtime options override."""
    return {
        "local.backend": backend,
        "local.precision": precision,
        "local.threads": threads,
        "local.streams": streams,
        "local.token_budget": token_budget,
    }
