"""`embedway plan`: tokens, requests, cost and time of embedding texts with each model."""

from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli import job_options as jobs
from embedway.cli import options as shared
from embedway.cli.output import (
    DownloadProgress,
    duration,
    note_pipes,
    note_skipped,
    print_json,
    print_line,
    print_table,
    standard_input,
    wait_for,
)
from embedway.errors import UsageError
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.collections.plan import JobPlan, ModelPlan
    from embedway.collections.run import RunOptions
    from embedway.config import Config


def plan(  # long, because typer reads the options from the signature
    context: typer.Context,
    sources: jobs.SourcesArgument,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME", help="Model to plan; repeatable. Default: all usable here."),
    ] = None,
    preset: shared.PresetOption = None,
    models: shared.ModelsOption = None,
    collection: shared.CollectionOption = None,
    dimensions: shared.DimensionsOption = None,
    no_chunk: jobs.NoChunkFlag = False,
    chunk_tokens: jobs.ChunkTokensOption = None,
    overlap: jobs.OverlapOption = None,
    on_overflow: jobs.OverflowOption = None,
    fit: jobs.FitOption = None,
    on_error: jobs.OnErrorOption = None,
    text_field: jobs.TextFieldOption = None,
    format_: jobs.FormatOption = None,
    include: jobs.IncludeOption = None,
    exclude: jobs.ExcludeOption = None,
    encoding: jobs.EncodingOption = None,
    follow_links: jobs.FollowLinksOption = None,
    as_json: shared.JsonFlag = False,
) -> None:
    """Show texts, tokens, requests, cost and time for each model. Reads the sources once and spends nothing."""
    invocation = shared.Invocation.of(context)
    shared.refuse_both(model, preset, models)
    named = shared.split_names(models)
    overrides = jobs.job_overrides(preset, chunk_tokens, overlap, on_error, on_overflow, fit=fit)
    config = invocation.config({"selection.models": named, **overrides})
    options = jobs.job_options(
        config,
        selecting=bool(preset or named),
        no_chunk=no_chunk,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
        collection=collection,
        dimensions=dimensions,
        **jobs.reading_options(
            text_field=text_field,
            format=format_,
            include=include,
            exclude=exclude,
            encoding=encoding,
            follow_links=follow_links,
        ),
    )
    selecting = not model and any(wanted is not None for wanted in (preset, named, collection))
    planned = wait_for(_plan(invocation, config, sources, model, options, selecting=selecting))
    if as_json:
        print_json(planned.to_json())
    else:
        _print_plan(planned)
    note_skipped(invocation, planned.skipped)


def _print_plan(planned: "JobPlan") -> None:
    print_line(f"{count_of(planned.documents, 'document')}, {count_of(planned.characters, 'character')}")
    print_table(
        ("model", "texts", "unique", "tokens", "cached", "to send", "requests", "cost", "by batch API", "time"),
        [_row(one) for one in planned.models],
        right=(1, 2, 3, 4, 5, 6, 7, 8, 9),
    )
    if any(one.estimated for one in planned.models):
        print_line("~ estimated: the model's tokenizer is not available")
    if any(one.seconds is not None for one in planned.models):
        print_line("times are estimated from the models' benchmarks (embedding.model_benchmarks)")


async def _plan(
    invocation: shared.Invocation,
    config: "Config",
    sources: list[str],
    models: list[str] | None,
    options: "RunOptions",
    *,
    selecting: bool,
) -> "JobPlan":
    from embedway._embedder import AsyncEmbedder
    from embedway.cli.selection import select_job_model
    from embedway.collections.plan import plan_job

    note_pipes(invocation, sources)
    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        if selecting:
            # The model that `run` would select.
            options = await select_job_model(invocation, config, embedder, sources, options)
            models = [options.model]
        names = models or await embedder.models.available(options.dimensions)
        if not names:
            raise UsageError(f"no model that is usable here returns vectors of {options.dimensions} dimensions")
        stream = standard_input() if "-" in sources else None
        return await plan_job(
            embedder, sources, names, options, cached=config.cache.backend != "none", standard_input=stream
        )


def _row(one: "ModelPlan") -> tuple[str, ...]:
    mark = "~" if one.estimated else ""
    return (
        one.model,
        f"{one.texts:,}",
        f"{one.unique_texts:,}",
        f"{mark}{one.tokens:,}",
        f"{one.cached_texts:,}",
        f"{mark}{one.billed_tokens:,}",
        f"{one.requests:,}",
        _money(one.cost_nanousd, mark, "unknown"),
        _money(one.batch_cost_nanousd, mark, ""),
        "unknown" if one.seconds is None else duration(one.seconds),
    )


def _money(nanousd: int | None, mark: str, none: str) -> str:
    from embedway.money import usd

    return none if nanousd is None else f"{mark if nanousd else ''}${usd(nanousd)}"
