"""Changes of files and folders, and their grouping into rounds."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.errors import MissingExtraError, SourceError
from embedway.files import place_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from embedway.collections.stores.base import Store

#: Time without a change after which a round begins, and maximum time from the first change, in seconds.
QUIET_S = 1.0
MOST_S = 10.0
#: Interval between two checks whether the watched folders are still those at their paths, in milliseconds.
CHECK_MS = 1000


@asynccontextmanager
async def debounced(
    changes: AsyncGenerator[object, None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[AsyncIterator[None]]:
    """Return an iterator with one item for each group of changes, which ends with `QUIET_S` without a change.

    Changes are collected from now on, also while an item is used. A group is at most `MOST_S` long, so that a file that
    is always written cannot delay it for ever. The iterator ends with `changes`.
    """
    waiting = _Next(changes)
    await asyncio.sleep(0)  # the watch begins now, not with the first item

    async def groups() -> AsyncIterator[None]:
        while await waiting.arrived():
            until = clock() + MOST_S
            while (left := min(QUIET_S, until - clock())) > 0 and await waiting.arrives_within(sleep(left)):
                pass
            yield

    try:
        yield groups()
    finally:
        await waiting.close()
        await changes.aclose()


class _Next:
    """Task that waits for the next item of a generator."""

    def __init__(self, changes: AsyncGenerator[object, None]) -> None:
        self._changes = changes
        self._task = asyncio.ensure_future(self._next())

    async def arrived(self) -> bool:
        """Wait for an item, and begin to wait for the next one; False at the end."""
        if not await asyncio.shield(self._task):
            return False
        self._task = asyncio.ensure_future(self._next())
        await asyncio.sleep(0)
        return True

    async def arrives_within(self, pause: Awaitable[None]) -> bool:
        """Return whether an item comes before a pause ends."""
        timer = asyncio.ensure_future(pause)
        try:
            await asyncio.wait({self._task, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return self._task.done() and await self.arrived()

    async def close(self) -> None:
        """End the task."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()

    async def _next(self) -> bool:
        async for _ in self._changes:
            return True
        return False


async def file_changes(paths: Iterable[str], store: Store) -> AsyncGenerator[object, None]:
    """Iterate over changes of files and folders, without those of the collection itself.

    A folder that is removed and made again is watched again. Raises MissingExtraError without watchfiles, and
    SourceError if the system cannot watch so many folders.
    """
    require_watchfiles()
    targets = _real_paths(paths)
    is_own = own_files(store)
    while True:
        place = _Places.of(targets)

        def concerns(path: str, place: _Places = place) -> bool:
            real = os.path.realpath(path)
            if is_own(real):
                return False
            return real in targets or any(real.startswith(f"{folder}{os.sep}") for folder in place.folders)

        async for found in _watch(place, concerns):
            if found:
                yield found
            if _Places.of(targets) != place:
                yield found
                break


@dataclass(frozen=True, slots=True)
class _Places:
    """Folders among the targets, folders to watch, and what is at each path now; missing targets are polled."""

    folders: tuple[str, ...]
    watched: tuple[str, ...]
    identities: tuple[tuple[int, int] | None, ...]

    @classmethod
    def of(cls, targets: Sequence[str]) -> _Places:
        folders = tuple(path for path in targets if os.path.isdir(path))  # noqa: PTH112
        # Many editors replace a file, which ends a watch of the file itself, so its folder is watched.
        parents = {os.path.dirname(path) for path in targets if os.path.isfile(path)}  # noqa: PTH113, PTH120
        watched = tuple(sorted({*folders, *parents}))
        return cls(folders, watched, tuple(place_of(Path(path)) for path in watched))


async def _watch(place: _Places, concerns: Callable[[str], bool]) -> AsyncIterator[Iterable[object]]:
    """Iterate over groups of changes; an empty one after each `CHECK_MS` without a change."""
    import watchfiles  # noqa: PLC0415  an extra

    if not place.watched:
        await asyncio.sleep(CHECK_MS / 1000)
        yield ()
        return
    try:
        async for found in watchfiles.awatch(
            *place.watched,
            watch_filter=lambda _, path: concerns(path),
            rust_timeout=CHECK_MS,
            yield_on_timeout=True,
            recursive=bool(place.folders),
            ignore_permission_denied=True,
        ):
            yield found
    except FileNotFoundError:
        yield ()  # removed just now
    except (OSError, RuntimeError) as error:
        raise SourceError(f"cannot be watched: {error}", path=place.watched[0]) from error


def require_watchfiles() -> None:
    """Raise MissingExtraError without watchfiles."""
    try:
        import watchfiles  # noqa: F401, PLC0415  an extra
    except ImportError:
        raise MissingExtraError("watching files", extra="watch", package="watchfiles") from None


def _real_paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(os.path.realpath(path) for path in paths)


def own_files(store: Store) -> Callable[[str], bool]:
    """Return a function that says whether a real path is one of the collection's own files."""
    own = (store.rejects_path, *store.sidecars, *([] if store.local_path is None else [store.local_path]))
    names = _real_paths(map(str, own))
    parts = [os.path.split(name) for name in names]
    # Content of a folder; files beside it whose names go on, such as the sidecar; and temporary files.
    begins = (
        *(f"{name}{os.sep}" for name in names),
        *(f"{name}." for name in names),
        *(os.path.join(folder, f".{name}.") for folder, name in parts),  # noqa: PTH118
    )
    return lambda path: path in names or path.startswith(begins)
