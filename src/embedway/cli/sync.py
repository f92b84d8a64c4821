"""`embedway sync`: keep a collection equal to its sources."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedway.cli import options as shared
from embedway.cli.job_metrics import job_metrics
from embedway.cli.job_report import PARTLY_FAILED, cost_rows, stopped_job, tell_rejected
from embedway.cli.output import (
    DownloadProgress,
    duration,
    note,
    note_pipes,
    note_skipped,
    print_json,
    print_line,
    print_message,
    print_table,
    report_of_work,
    standard_input,
    wait_for,
    wants_progress,
)
from embedway.collections.values import SourceFormat
from embedway.errors import UsageError
from embedway.interrupts import explain

if TYPE_CHECKING:
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.options import SyncOptions
    from embedway.collections.sync import SyncSummary
    from embedway.collections.sync_plan import SyncPlan
    from embedway.config import Config
    from embedway.errors import EmbedwayError


def sync(  # long, because typer reads the options from the signature
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Sources as for `run`. Default: those that the collection records."),
    ] = None,
    *,
    destination: Annotated[
        str, typer.Option("--to", metavar="COLLECTION", callback=shared.check_text, help="Collection, as for `run`.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, and its price; change and spend nothing.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Stay, and sync again when files of the sources change; needs embedway[watch]."),
    ] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove", metavar="SOURCE", help="Remove all documents of a source, by name or path; repeatable."
        ),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Remove the documents of a source in which nothing is left.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another process changes the collection, instead of an error.")
    ] = False,
    model: shared.ModelOption = None,
    preset: shared.PresetOption = None,
    models: shared.ModelsOption = None,
    max_cost: shared.MaxCostOption = None,
    collection: shared.CollectionOption = None,
    chunk_tokens: Annotated[
        int | None, typer.Option("--chunk-tokens", min=1, metavar="N", help="As for `run`.")
    ] = None,
    overlap: Annotated[int | None, typer.Option("--overlap", min=0, metavar="N", help="As for `run`.")] = None,
    no_chunk: Annotated[bool, typer.Option("--no-chunk", help="Compute one vector per document.")] = False,
    context_: shared.ContextOption = None,
    on_overflow: shared.OverflowOption = None,
    fit: shared.FitOption = None,
    on_error: Annotated[shared.OnErrorChoice | None, typer.Option("--on-error", help="As for `run`.")] = None,
    format_: Annotated[SourceFormat | None, typer.Option("--format", help="As for `run`.")] = None,
    text_field: Annotated[str | None, typer.Option("--text-field", metavar="NAME", help="As for `run`.")] = None,
    id_field: Annotated[str | None, typer.Option("--id-field", metavar="NAME", help="As for `run`.")] = None,
    keep: shared.KeepOption = None,
    include: shared.IncludeOption = None,
    exclude: shared.ExcludeOption = None,
    encoding: shared.EncodingOption = None,
    follow_links: Annotated[
        bool | None, typer.Option("--follow-links/--no-follow-links", help="Follow symbolic links inside folders.")
    ] = None,
    dimensions: shared.DimensionsOption = None,
    backend: shared.BackendOption = None,
    precision: shared.PrecisionOption = None,
    threads: shared.ThreadsOption = None,
    streams: shared.StreamsOption = None,
    token_budget: shared.TokenBudgetOption = None,
    metrics_file: shared.MetricsFileOption = None,
    as_json: shared.JsonFlag = False,
) -> None:
    """Add, update and remove rows of COLLECTION, so that it equals SOURCE. Options default to those of the collection.

    Unchanged documents are not embedded again. Documents that cannot be read keep their rows.
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
            **shared.job_overrides(preset, chunk_tokens, overlap, on_error, on_overflow, fit=fit),
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
        "context": context_,
        "on_overflow": on_overflow,
        "format": format_,
        "text_field": text_field,
        "id_field": id_field,
        "include": tuple(include) if include else None,
        "exclude": tuple(exclude) if exclude else None,
        "encoding": encoding,
        "follow_links": follow_links,
        **shared.kept_columns(keep),
    }
    given |= {
        "collection": collection or "",
        "allow_empty": allow_empty,
        "remove": tuple(remove or ()),
        "wait": wait,
    }
    options = _options(config, destination, given, selecting=bool(preset or named), max_cost=max_cost)
    selecting = model is None and any(wanted is not None for wanted in (preset, named, max_cost, collection))
    command = _Command(invocation, config, sources or [], destination, options, selecting=selecting)
    if dry_run:
        _report_plan(invocation, wait_for(command.plan()), as_json=as_json)
        return
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
        settings = shared.job_options(
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
        from embedway.cli.run import JobProgress
        from embedway.collections.sync import sync_collection

        note_pipes(self._invocation, self._sources)
        progress = JobProgress() if wants_progress(self._invocation) else None
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
                if progress is not None:
                    progress.stop()

    async def watch(self) -> None:
        """Sync until a signal ends the program."""
        from embedway.collections.watching import watch_collection

        async with self._embedder() as embedder:
            await self._select(embedder)
            await watch_collection(
                embedder, self._destination, self._sources, self._options, _Rounds(self._invocation), kept=self.kept
            )

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


class _Rounds:
    """Printer of the rounds of a watch."""

    def __init__(self, invocation: shared.Invocation) -> None:
        self._invocation = invocation

    def done(self, summary: "SyncSummary") -> None:
        """Print one line about a round; nothing if it changed nothing, except for the first."""
        print_line(
            f"{summary.added:,} added, {summary.updated:,} updated, {summary.removed:,} removed, "
            f"{summary.unchanged:,} unchanged in {duration(summary.seconds)}"
        )
        tell_rejected(self._invocation, summary.rejected, summary.rejects_path)

    def failed(self, error: "EmbedwayError") -> None:
        """Print the error of a round."""
        print_message("\n".join((f"error: {error}", *getattr(error, "__notes__", ()), "waiting for the next change")))


def _report(invocation: shared.Invocation, summary: "SyncSummary", *, as_json: bool) -> None:
    if not as_json:
        note_skipped(invocation, summary.skipped)
    if summary.kept:
        note(invocation, f"{summary.kept:,} documents that cannot be used keep their rows")
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
    ]
    if counts.settings_changed:
        rows.append(("settings", "the chunking changed, so all documents are embedded again"))
    return rows
