"""`embedway embed`: print vectors as JSON lines."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedway.cli import options as shared
from embedway.cli.job_options import FitOption, OverflowOption
from embedway.cli.output import (
    STANDARD_INPUT,
    DownloadProgress,
    continuation,
    flush_result,
    json_text,
    note,
    standard_input,
    wait_for,
    write_result,
)
from embedway.cli.selection import advice_for, criteria_of, job_flags
from embedway.errors import EmbedwayError, SourceError, UsageError, with_row, without_row
from embedway.interrupts import explain
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.types import EmbedResult, Vectors

#: Maximum lines and characters of standard input per call: enough to fill batches, with little memory.
BATCH_LINES = 1024
BATCH_CHARACTERS = 4_000_000


def embed(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT|-",
            callback=shared.decode_text,
            help="Texts, or - for one text per line of standard input.",
        ),
    ] = None,
    *,
    input_type: Annotated[
        shared.InputTypeChoice,
        typer.Option("--input-type", help="Type of the texts; models may treat the types differently."),
    ] = "document",
    model: shared.ModelOption = None,
    preset: shared.PresetOption = None,
    models: shared.ModelsOption = None,
    max_cost: shared.MaxCostOption = None,
    collection: shared.CollectionOption = None,
    dimensions: shared.DimensionsOption = None,
    on_overflow: OverflowOption = None,
    backup: Annotated[
        str | None,
        typer.Option(
            "--backup", metavar="A,B", help="Models for all texts if the first one fails; another vector space."
        ),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize", help="Vectors of length 1, or without the model's final normalization."
        ),
    ] = None,
    fit: FitOption = None,
    as_json: shared.JsonFlag = False,
    backend: shared.BackendOption = None,
    precision: shared.PrecisionOption = None,
    threads: shared.ThreadsOption = None,
) -> None:
    """Embed texts and print their vectors, one JSON object per line: {"index": 0, "embedding": […]}."""
    invocation = shared.Invocation.of(context)
    shared.refuse_both(model, preset, models)
    named = shared.split_names(models)
    given = list(texts or ())
    if not given:
        raise UsageError("pass texts, or - to read them from standard input, one per line")
    if "-" in given and len(given) > 1:
        raise UsageError(
            "- means standard input and must be the only argument; send a text that is a dash on standard input"
        )
    config = invocation.config(
        {
            "embedding.default_model": model,
            "embedding.on_overflow": on_overflow,
            "selection.preset": preset,
            "selection.require_fit": fit,
            "selection.models": named,
            **shared.runtime_overrides(backend, precision, threads, None, None),
        }
    )
    criteria = criteria_of(config, {}) if preset or named else None
    limits = {"criteria": criteria, "max_cost": max_cost, "collection": collection or ""}
    backups = None if backup is None else [name.strip() for name in backup.split(",")]
    if given == ["-"] and not as_json and (criteria or max_cost or backups):
        raise UsageError(
            "standard input is embedded as a stream: --preset, --models, --max-cost and --backup need --json, or texts "
            "as arguments"
        )
    options = {"model": model or "auto", "dimensions": dimensions, "normalize": normalize, "backup": backups, **limits}
    explain(continuation(config))
    job = _EmbedCommand(invocation, config, input_type, options, given == ["-"])
    if as_json:
        wait_for(job.print_document(list(stdin_lines()) if job.from_stdin else given))
    else:
        wait_for(job.print_lines(stdin_lines() if job.from_stdin else iter(given)))


@dataclass(frozen=True)
class _EmbedCommand:
    """One run of the command."""

    invocation: shared.Invocation
    config: "Config"
    input_type: shared.InputTypeChoice
    options: dict[str, Any]
    from_stdin: bool

    async def print_lines(self, texts: Iterator[str]) -> None:
        """Print a line per text, batch by batch, so that memory does not grow with the input."""
        from embedway._embedder import AsyncEmbedder
        from embedway.worker import Worker

        first, cut = 0, 0
        # Model selection, a maximum cost and backups apply to all texts together.
        together = bool(self.options["criteria"] or self.options["max_cost"] or self.options["backup"])
        next_batch: Callable[[Iterator[str]], list[str]] = list if together else _next_batch
        with closing(Worker("embedway-reader")) as reader:
            async with AsyncEmbedder(config=self.config, progress=DownloadProgress(self.invocation)) as embedder:
                while batch := await reader.call(next_batch, texts):
                    result = await self._embed(embedder, batch, first)
                    truncated = {item.row for item in result.receipt.truncations}
                    averaged = {item.row: item.windows for item in result.receipt.averaged}
                    for row, vector in enumerate(result.vectors):
                        mark = ', "truncated": true' if row in truncated else ""
                        mark = f', "averaged_windows": {averaged[row]}' if row in averaged else mark
                        write_result(f'{{"index": {first + row}{mark}, "embedding": {vector_json(vector)}}}\n')
                    flush_result()
                    first += len(batch)
                    cut += len(truncated)
        self._note(cut)

    async def print_document(self, texts: list[str]) -> None:
        """Print one document with the space, the receipt and all vectors."""
        from embedway._embedder import AsyncEmbedder

        if not texts:
            raise UsageError("standard input has no lines")
        async with AsyncEmbedder(config=self.config, progress=DownloadProgress(self.invocation)) as embedder:
            result = await self._embed(embedder, texts, 0)
        head = {"space": result.space.to_json(), "receipt": asdict(result.receipt)}
        write_result(json_text(head)[:-1] + ', "embeddings": [')
        for row, vector in enumerate(result.vectors):
            write_result((", " if row else "") + vector_json(vector))
        write_result("]}\n")
        self._note(len(result.receipt.truncations))

    async def _embed(self, embedder: Any, texts: list[str], first: int) -> "EmbedResult":
        try:
            with advice_for("settings", job_flags(self.options["dimensions"], self.config.embedding.on_overflow)):
                result: EmbedResult = await embedder.embed(
                    texts, input_type=self.input_type, on_overflow=self.config.embedding.on_overflow, **self.options
                )
        except EmbedwayError as error:
            if error.row is None:
                raise
            progress = await self._progress_of_others(embedder, texts[: error.row] + texts[error.row + 1 :])
            shown: EmbedwayError = with_row(error, first + error.row)
            if self.from_stdin:
                shown = SourceError(without_row(error), path=STANDARD_INPUT, line=first + error.row + 1)
            if progress:
                shown.add_note(progress)
            raise shown from (error if self.from_stdin else error.__cause__)
        return result

    async def _progress_of_others(self, embedder: Any, texts: list[str]) -> str:
        """Return how many of the texts that did not fail are in the cache; empty if none is."""
        if not texts or self.config.cache.backend in {"none", "memory"}:
            return ""
        options = {"input_type": self.input_type, "model": self.options["model"]}
        try:
            plan = await embedder.plan(texts, **options, dimensions=self.options["dimensions"], on_overflow="truncate")
        except EmbedwayError:  # such as a model that the criteria choose
            return ""
        if plan.cached_texts == plan.unique_texts:
            return f"the other {'text is' if len(texts) == 1 else f'{len(texts)} texts are'} in the cache"
        if not plan.cached_texts:
            return ""
        verb = "is" if plan.cached_texts == 1 else "are"
        return f"{plan.cached_texts} of the other {plan.unique_texts} texts {verb} in the cache"

    def _note(self, cut: int) -> None:
        if cut:
            texts = count_of(cut, "text was", "texts were")
            note(self.invocation, f"{texts} truncated at the model's limit; --on-overflow error refuses such texts")


def stdin_lines() -> Iterator[str]:
    """Iterate over lines of standard input, without line ends. Raises SourceError for a line that is not UTF-8."""
    for number, line in enumerate(standard_input(), 1):
        try:
            yield line.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            # The chained error would contain the user's text.
            raise SourceError("is not UTF-8", path=STANDARD_INPUT, line=number) from None


def _next_batch(texts: Iterator[str]) -> list[str]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) >= BATCH_LINES or characters >= BATCH_CHARACTERS:
            break
    return batch


def vector_json(vector: "Vectors") -> str:
    """Return a float32 vector as a JSON list, each number with the fewest digits that restore the same float32."""
    return "[" + ", ".join(vector.astype("U").tolist()) + "]"
