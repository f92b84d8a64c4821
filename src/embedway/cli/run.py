"""`embedway run`: embed files, folders or standard input into a file of vectors or a vector store."""

from typing import TYPE_CHECKING

import typer

from embedway.cli import job_options as jobs
from embedway.cli import options as shared
from embedway.cli.job_metrics import job_metrics
from embedway.cli.job_progress import job_progress
from embedway.cli.job_report import PARTLY_FAILED, cost_rows, stopped_job, tell_rejected
from embedway.cli.output import (
    DownloadProgress,
    count,
    duration,
    note,
    note_pipes,
    note_skipped,
    print_json,
    print_table,
    report_of_work,
    standard_input,
    wait_for,
)
from embedway.interrupts import explain
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.collections.job import Kept
    from embedway.collections.report import RunSummary
    from embedway.collections.run import RunOptions
    from embedway.config import Config


def run(  # long, because typer reads the options from the signature
    context: typer.Context,
    sources: jobs.SourcesArgument,
    *,
    destination: jobs.NewCollectionOption,
    overwrite: jobs.OverwriteFlag = False,
    model: shared.ModelOption = None,
    preset: shared.PresetOption = None,
    models: shared.ModelsOption = None,
    max_cost: shared.MaxCostOption = None,
    collection: shared.CollectionOption = None,
    chunk_tokens: jobs.ChunkTokensOption = None,
    overlap: jobs.OverlapOption = None,
    no_chunk: jobs.NoChunkFlag = False,
    context_: jobs.ContextOption = None,
    on_overflow: jobs.OverflowOption = None,
    fit: jobs.FitOption = None,
    on_error: jobs.OnErrorOption = None,
    format_: jobs.FormatOption = None,
    text_field: jobs.TextFieldOption = None,
    id_field: jobs.IdFieldOption = None,
    keep: jobs.KeepOption = None,
    include: jobs.IncludeOption = None,
    exclude: jobs.ExcludeOption = None,
    encoding: jobs.EncodingOption = None,
    follow_links: jobs.FollowLinksOption = None,
    dimensions: shared.DimensionsOption = None,
    backend: shared.BackendOption = None,
    precision: shared.PrecisionOption = None,
    threads: shared.ThreadsOption = None,
    streams: shared.StreamsOption = None,
    token_budget: shared.TokenBudgetOption = None,
    metrics_file: shared.MetricsFileOption = None,
    as_json: shared.JsonFlag = False,
) -> None:
    """Embed SOURCE into a new COLLECTION, which appears only when the job is complete."""
    invocation = shared.Invocation.of(context)
    shared.refuse_both(model, preset, models)
    named = shared.split_names(models)
    config = invocation.config(
        {
            "embedding.default_model": model,
            "selection.models": named,
            **jobs.job_overrides(preset, chunk_tokens, overlap, on_error, on_overflow, fit=fit),
            **shared.runtime_overrides(backend, precision, threads, streams, token_budget),
            **shared.metrics_overrides(metrics_file),
        }
    )
    from embedway.money import to_nanousd

    options = jobs.job_options(
        config,
        selecting=bool(preset or named),
        no_chunk=no_chunk,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
        collection=collection,
        dimensions=dimensions,
        overwrite=overwrite,
        **jobs.reading_options(
            keep=keep,
            context=context_,
            format=format_,
            text_field=text_field,
            id_field=id_field,
            include=include,
            exclude=exclude,
            encoding=encoding,
            follow_links=follow_links,
        ),
        most_nanousd=None if max_cost is None else to_nanousd(max_cost, name="--max-cost"),
    )
    selecting = jobs.selects_model(model, preset, named, max_cost, collection)
    from embedway.collections.job import Kept

    kept = Kept()
    explain(stopped_job(config, destination, kept))
    with job_metrics(config, metrics_file) as job:
        summary = wait_for(_run(invocation, config, sources, destination, options, kept=kept, selecting=selecting))
        job.rejected = summary.rejected
        job.end(succeeded=True)
        _report(invocation, summary, as_json=as_json)
        if summary.rejected:
            raise typer.Exit(PARTLY_FAILED)


async def _run(
    invocation: shared.Invocation,
    config: "Config",
    sources: list[str],
    destination: str,
    options: "RunOptions",
    *,
    kept: "Kept",
    selecting: bool,
) -> "RunSummary":
    from embedway._embedder import AsyncEmbedder
    from embedway.cli.selection import select_job_model
    from embedway.collections.run import run_job

    note_pipes(invocation, sources)
    progress = job_progress(invocation)
    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        try:
            if selecting:
                options = await select_job_model(invocation, config, embedder, sources, options)
            return await run_job(
                embedder,
                sources,
                destination,
                options,
                progress=progress,
                standard_input=standard_input() if "-" in sources else None,
                kept=kept,
            )
        finally:
            progress.stop()


def _report(invocation: shared.Invocation, summary: "RunSummary", *, as_json: bool) -> None:
    if summary.truncated and not as_json:
        note(invocation, f"{count_of(summary.truncated, 'text was', 'texts were')} truncated at the model's limit")
    note_skipped(invocation, summary.skipped)
    tell_rejected(invocation, summary.rejected, summary.rejects_path)
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json(summary.to_json())
        else:
            _print_summary(summary)


def _print_summary(summary: "RunSummary") -> None:
    rows = [
        ("written to", summary.destination),
        ("space", summary.space_id),
        ("runtime", summary.runtime),
        ("documents", f"{summary.documents:,}"),
        ("texts", f"{summary.chunks:,}"),
        ("from the cache", f"{summary.cached:,}" + (f", {summary.lossy:,} of them lossy" if summary.lossy else "")),
        ("tokens", f"{summary.tokens:,}"),
        ("truncated", f"{summary.truncated:,}"),
        ("rejected rows", f"{summary.rejected:,}"),
        ("time", f"{duration(summary.seconds)}, including loading the model; speed excludes it"),
        ("speed", f"{count(summary.texts_per_s)} texts/s, {count(summary.tokens_per_s)} tokens/s"),
    ]
    rows += cost_rows(summary.cost_nanousd, summary.billed_tokens, summary.unsure_nanousd)
    print_table(("result", ""), rows)
