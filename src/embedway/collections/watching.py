"""Syncs that are repeated whenever the sources change."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from embedway.collections.inventory import STANDARD_INPUT, source_record
from embedway.collections.sync import sync_collection
from embedway.errors import EmbedwayError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.job import Kept
    from embedway.collections.options import SyncOptions
    from embedway.collections.report import RunProgress
    from embedway.collections.stores.base import Store
    from embedway.collections.sync import SyncSummary

#: Time without a change after which a round begins, in milliseconds.
DEBOUNCE_MS = 1000


class WatchReport(Protocol):
    """Receiver of the rounds of a watch, on the event loop. Must not block."""

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
    kept: Kept | None = None,
) -> None:
    """Sync, then sync again after every item of `changes`, until it ends or the task is cancelled.

    By default, changes of the sources' files are watched, and those within a second are one. An error of the first
    round is raised; later ones are reported. Raises as `sync_collection` does, UsageError for standard input, and
    MissingExtraError without watchfiles.
    """
    if not sources:
        raise UsageError("name the sources to watch")
    records = [source_record(given)[0] for given in sources]
    if any(record.path == STANDARD_INPUT for record in records):
        raise UsageError("standard input cannot be watched; name folders or files")
    place = destination if isinstance(destination, str) else destination.destination
    rounds = file_changes([record.path for record in records], place) if changes is None else changes
    report.done(await sync_collection(embedder, destination, sources, options, progress=progress, kept=kept))
    async for _ in rounds:
        try:
            summary = await sync_collection(embedder, destination, sources, options, progress=progress, kept=kept)
        except EmbedwayError as error:
            report.failed(error)
        else:
            report.done(summary)


def file_changes(paths: Iterable[str], destination: str) -> AsyncIterator[object]:
    """Return an iterator over changes of files and folders, without those of the collection itself."""
    try:
        import watchfiles  # noqa: PLC0415  an extra
    except ImportError:
        raise MissingExtraError("watching files", extra="watch", package="watchfiles") from None
    targets = [os.path.realpath(path) for path in paths]
    folders = [path for path in targets if os.path.isdir(path)]  # noqa: PTH112
    files = {path for path in targets if path not in folders}
    # Many editors replace a file, which ends a watch of the file itself, so its folder is watched.
    watched = sorted({*folders, *(os.path.dirname(path) for path in files)})  # noqa: PTH120
    own = _own_prefixes(destination)

    def concerns(_: object, path: str) -> bool:
        real = os.path.realpath(path)
        if any(real.startswith(prefix) for prefix in own):
            return False
        return real in files or any(real.startswith(f"{folder}{os.sep}") for folder in folders)

    return watchfiles.awatch(
        *watched, watch_filter=concerns, debounce=DEBOUNCE_MS, recursive=bool(folders), ignore_permission_denied=True
    )


def _own_prefixes(destination: str) -> tuple[str, ...]:
    """Return what the paths of the collection's own files begin with; none for a server's collection."""
    form, colon, place = destination.partition(":")
    if colon and len(form) > 1 and form != "lancedb":
        return ()
    path = place.rpartition("#")[0] if colon and form == "lancedb" else destination
    folder, name = os.path.split(os.path.realpath(path))
    return os.path.join(folder, name), os.path.join(folder, f".{name}")  # noqa: PTH118
