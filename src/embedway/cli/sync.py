"""`embedway sync`: keep a collection equal to its sources."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedway.cli import job_options as jobs
from embedway.cli import options as shared
from embedway.cli.job_metrics import job_metrics
from embedway.cli.job_progress import job_progress
from embedway.cli.job_report import PARTLY_FAILED, cost_rows, stopped_job, tell_rejected
from embedway.cli.output import (
    DownloadProgress,
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
from embedway.cli.watch_rounds import WatchRounds
from embedway.errors import UsageError
from embedway.interrupts import explain

if TYPE_CHECKING:
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.options import SyncOptions
    from embedway.collections.sync import SyncSummary
    from embedway.collections.sync_plan import SyncPlan
    from embedway.config import Config


def sync(  # long, because typer reads the options from the signature
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folders, files, or - for standard input; NAME=PATH gives a source a name of its own. Default: the "
            "sources that COLLECTION records.",
        ),
    ] = None,
    *,
    destination: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="COLLECTION",
            callback=shared.check_text,
            help=f"Collection to change, or to create: {jobs.FORMS}.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, and its price. Change and spend nothing.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Sync, and sync again after each change of a file, until Ctrl-C. Needs SOURCE and embedway[watch].",
        ),
    ] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="SOURCE",
            help="Remove a source with all its documents, by its name or path, such as --remove docs; repeatable.",
        ),
    ] = None,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="Remove the documents of a source in which nothing is left. Default: an error, because a folder that "
            "is not mounted looks the same.",
        ),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait while another process changes COLLECTION. Default: an error at once."),
    ] = False,
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
    """Add, update and remove documents of COLLECTION, so that it equals SOURCE. Create it if it does not exist.

    Unchanged documents are not embedded again. Documents that cannot be read keep their rows. Model, chunks and reading
    are as COLLECTION records them, unless options say otherwise.
    """
    invocation = shared.Invocation.of(context)
    shared.refuse_both(model, preset, models)
    if watch and (dry_run or as_json or remove):
        raise UsageError("--watch cannot be used with --dry-run, --json or --remove")
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
    given = {
        "model": model,
        "dimensions": dimensions,
        "chunk": False if no_chunk else None,
        "chunk_tokens": chunk_tokens,
        "overlap_tokens": overlap,
        "on_overflow": on_overflow,
        "collection": collection or "",
        "allow_empty": allow_empty,
        "remove": tuple(remove or ()),
        "wait": wait,
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
    }
    options = _options(config, destination, given, selecting=bool(preset or named), max_cost=max_cost)
    selecting = jobs.selects_model(model, preset, named, max_cost, collection)
    command = _Command(invocation, config, sources or [], destination, options, selecting=selecting)
    if dry_run:
        _report_plan(invocation, wait_for(command.plan()), as_json=as_json)
        return
    if not watch:
        explain(stopped_job(config, destination, command.kept))
    with job_metrics(config, metrics_file) as job:
        summary = wait_for(command.watch() if watch else command.sync())
        if summary is None:
            return
        job.rejected = summary.rejected
        job.end(succeeded=True)
        _report(invocation, summary, as_json=as_json)
        if summary.rejected:
            raise typer.Exit(PARTLY_FAILED)


def _options(
    config: "Config", destination: str, given: dict[str, Any], *, selecting: bool, max_cost: str | None
) -> "SyncOptions":
    """Return the options from flags; for a new collection, settings apply too."""
    from embedway.collections.options import SyncOptions
    from embedway.collections.stores import store_for
    from embedway.money import to_nanousd

    known = dict(given)
    if not store_for(destination).exists():
        settings = jobs.job_options(
            config,
            selecting=selecting,
            no_chunk=given["chunk"] is False,
            chunk_tokens=given["chunk_tokens"],
            overlap=given["overlap_tokens"],
            collection=None,
        )
        names = ("model", "chunk", "chunk_tokens", "overlap_tokens", "on_overflow")
        known |= {name: getattr(settings, name) for name in names}
    most = None if max_cost is None else to_nanousd(max_cost, name="--max-cost")
    return SyncOptions(**known, on_error=config.run.on_error, most_nanousd=most)


class _Command:
    """One sync with its embedder. `kept` is what it keeps if it is stopped."""

    def __init__(
        self,
        invocation: shared.Invocation,
        config: "Config",
        sources: list[str],
        destination: str,
        options: "SyncOptions",
        *,
        selecting: bool,
    ) -> None:
        from embedway.collections.job import Kept

        self._invocation = invocation
        self._config = config
        self._sources = sources
        self._destination = destination
        self._options = options
        self._selecting = selecting
        self.kept: Kept = Kept()

    async def plan(self) -> "SyncPlan":
        """Plan the sync."""
        from embedway.collections.sync_plan import plan_sync

        async with self._embedder() as embedder:
            await self._select(embedder)
            return await plan_sync(
                embedder, self._destination, self._sources, self._options, standard_input=self._stream()
            )

    async def sync(self) -> "SyncSummary":
        """Sync once."""
        from embedway.collections.sync import sync_collection

        note_pipes(self._invocation, self._sources)
        progress = job_progress(self._invocation)
        async with self._embedder() as embedder:
            try:
                await self._select(embedder)
                return await sync_collection(
                    embedder,
                    self._destination,
                    self._sources,
                    self._options,
                    progress=progress,
                    standard_input=self._stream(),
                    kept=self.kept,
                )
            finally:
                progress.stop()

    async def watch(self) -> None:
        """Sync until a signal ends the program."""
        from embedway.collections.watching import watch_collection

        async with self._embedder() as embedder:
            await self._select(embedder)
            rounds = WatchRounds(self._invocation, self._config, self._destination)
            explain(rounds.explain, is_complete=rounds.is_idle)
            watched = ", ".join(self._sources)
            note(self._invocation, f"watching {watched}: each change starts a sync; Ctrl-C stops")
            if self._options.most_nanousd is not None:
                note(self._invocation, "--max-cost is the maximum of each sync; a budget limits all of them together")
            await watch_collection(embedder, self._destination, self._sources, self._options, rounds)

    def _embedder(self) -> "AsyncEmbedder":
        from embedway._embedder import AsyncEmbedder

        return AsyncEmbedder(config=self._config, progress=DownloadProgress(self._invocation))

    async def _select(self, embedder: "AsyncEmbedder") -> None:
        """Select the model of a new collection, if that is wanted."""
        from embedway.cli.selection import select_job_model
        from embedway.collections.stores import store_for

        if self._selecting and not store_for(self._destination).exists():
            run = self._options.resolve(None)
            found = await select_job_model(self._invocation, self._config, embedder, self._sources, run)
            self._options = self._options.with_model(found)

    def _stream(self) -> Any:
        return standard_input() if "-" in self._sources else None


def _report(invocation: shared.Invocation, summary: "SyncSummary", *, as_json: bool) -> None:
    if not as_json:
        note_skipped(invocation, summary.skipped)
    tell_rejected(invocation, summary.rejected, summary.rejects_path)
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json(summary.to_json())
            return
        print_table(
            ("result", ""),
            [
                ("collection", summary.destination),
                ("space", summary.space_id),
                *_changes(summary),
                ("texts computed", f"{summary.computed:,}"),
                ("from the cache", f"{summary.cached:,}"),
                ("from an interrupted job", f"{summary.resumed:,}"),
                ("tokens", f"{summary.tokens:,}"),
                ("rejected rows", f"{summary.rejected:,}"),
                ("time", duration(summary.seconds)),
                *cost_rows(summary.cost_nanousd, summary.billed_tokens, summary.unsure_nanousd),
            ],
        )


def _report_plan(invocation: shared.Invocation, plan: "SyncPlan", *, as_json: bool) -> None:
    if as_json:
        print_json(plan.to_json())
        return
    from embedway.money import usd

    note_skipped(invocation, plan.skipped)
    rows = [("collection", plan.destination), *_changes(plan), ("rejected rows", f"{plan.rejected:,}")]
    if plan.model is not None:
        mark = "~" if plan.model.estimated else ""
        cost = plan.model.cost_nanousd
        rows += [
            ("chunks to write", f"{plan.chunks:,}"),
            ("from an interrupted job", f"{plan.resumed:,}"),
            ("from the cache", f"{plan.model.cached_texts:,}"),
            ("tokens", f"{mark}{plan.model.tokens:,}"),
            ("tokens to send", f"{mark}{plan.model.billed_tokens:,}"),
            ("cost", "unknown" if cost is None else f"{mark if cost else ''}${usd(cost)}"),
        ]
    print_table(("dry run", ""), rows)


def _changes(counts: "SyncSummary | SyncPlan") -> list[tuple[str, str]]:
    """Return the rows that a summary and a plan share."""
    rows = [
        ("documents added", f"{counts.added:,}"),
        ("updated", f"{counts.updated:,}"),
        ("removed", f"{counts.removed:,}"),
        ("unchanged", f"{counts.unchanged:,}"),
        (
            "kept",
            f"{counts.kept:,}" + (" with old rows, because the new content cannot be read" if counts.kept else ""),
        ),
    ]
    if counts.settings_changed:
        rows.append(("settings", "chunking settings changed: all documents are embedded again"))
    return rows
