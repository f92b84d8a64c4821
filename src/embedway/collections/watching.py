"""Syncs that are repeated whenever the sources change."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol

from embedway.collections.file_changes import debounced, file_changes, require_watchfiles
from embedway.collections.inventory import STANDARD_INPUT, source_record
from embedway.collections.stores import store_for
from embedway.collections.sync import sync_collection
from embedway.errors import EmbedwayError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.job import Kept
    from embedway.collections.options import SyncOptions
    from embedway.collections.report import RunProgress
    from embedway.collections.stores.base import Store
    from embedway.collections.sync import SyncSummary


class WatchReport(Protocol):
    """Receiver of the rounds of a watch, on the event loop. Must not block."""

    def begin(self) -> Kept | None:
        """Begin a round; return what is filled with the parts that it keeps if it is stopped."""

    def done(self, summary: SyncSummary) -> None:
        """Report a round."""

    def failed(self, error: EmbedwayError) -> None:
        """Report the error of a round; the watch goes on."""


async def watch_collection(
    embedder: AsyncEmbedder,
    destination: str | Store,
    sources: Sequence[str],
    options: SyncOptions,
    report: WatchReport,
    *,
    changes: AsyncIterator[object] | None = None,
    progress: RunProgress | None = None,
) -> None:
    """Sync, then sync again after every item of `changes`, until it ends or the task is cancelled.

    By default, changes of the sources' files are watched, and a round begins after a second without a change. An error
    of the first round is raised; later ones are reported. Raises as `sync_collection` does, UsageError for standard
    input, and MissingExtraError without watchfiles.
    """
    if not sources:
        raise UsageError("name the sources to watch")
    records = [source_record(given)[0] for given in sources]
    if any(record.path == STANDARD_INPUT for record in records):
        raise UsageError("standard input cannot be watched; name folders or files")

    async def sync() -> SyncSummary:
        return await sync_collection(embedder, destination, sources, options, progress=progress, kept=report.begin())

    async with AsyncExitStack() as stack:
        if changes is None:
            require_watchfiles()
            store = store_for(destination) if isinstance(destination, str) else destination
            found = file_changes([record.path for record in records], store)
            changes = await stack.enter_async_context(debounced(found))
        report.done(await sync())
        async for _ in changes:
            try:
                summary = await sync()
            except EmbedwayError as error:
                report.failed(error)
            else:
                report.done(summary)
