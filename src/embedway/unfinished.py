"""Registry of temporary files, child processes and commits in progress, for a program that must end at once.

A program that a signal stops cannot wait for its threads, so it removes their temporary files itself. It waits for
commits, because a destination must be completely old or completely new.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Child(Protocol):
        """Child process."""

        def kill(self) -> None:
            """End the process at once."""


#: Pause between two checks for the end of commits, in seconds.
_CHECK_S = 0.01
#: Maximum time of the functions that are called at the end, in seconds. The watchdog ends the process soon after.
LAST_S = 0.25

# Signal handlers read these, so there is no lock: each access is one operation of a set.
_temporary: set[Path] = set()
_folders: set[Path] = set()
_children: set[Child] = set()
_commits: set[object] = set()
_last: list[Callable[[], object]] = []
_after_commit: list[Callable[[], None]] = []
_listeners: list[Callable[[str, str], None]] = []


def listen(function: Callable[[str, str], None]) -> None:
    """Call a function for each event, with its kind and a path.

    Kinds: a path is registered (`+`) or unregistered (`-`); a commit begins (`c`) or ends (`d`), without a path.
    """
    _listeners.append(function)


def _notify(event: str, value: str = "") -> None:
    for function in _listeners:
        function(event, value)


def track(path: Path) -> Path:
    """Register a temporary file or folder that is about to be created, and return its path."""
    _temporary.add(path)
    _notify("+", str(path.absolute()))
    return path


def forget(path: Path) -> None:
    """Unregister a temporary file that was removed or renamed."""
    _temporary.discard(path)
    _notify("-", str(path.absolute()))


def remove(path: Path) -> None:
    """Remove and unregister a file, or a folder with its content; do nothing if it does not exist. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    forget(path)


def track_empty(folder: Path) -> None:
    """Register a new folder, which `clean_up` removes if it is empty."""
    _folders.add(folder)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a registered temporary folder; remove it after the block."""
    import tempfile  # noqa: PLC0415  `embedway --help` does not need it

    folder = track(Path(tempfile.mkdtemp()))
    try:
        yield folder
    finally:
        remove(folder)


@contextlib.contextmanager
def child(process: Child) -> Iterator[None]:
    """Kill a child process if this one ends within the block."""
    _children.add(process)
    try:
        yield
    finally:
        _children.discard(process)


@contextlib.contextmanager
def commit() -> Iterator[None]:
    """Delay the end of the program, and `Interrupted` in the main thread, until the end of the block.

    Use it for short steps that make results visible.
    """
    token = object()
    _commits.add(token)
    _notify("c")
    try:
        yield
    finally:
        _commits.discard(token)
        _notify("d")
        if not _commits and threading.current_thread() is threading.main_thread():
            for function in _after_commit:
                function()


def is_committing() -> bool:
    """Return whether a commit is in progress."""
    return bool(_commits)


def call_after_commits(function: Callable[[], None]) -> None:
    """Call a function in the main thread after each commit there; its exception is raised there."""
    _after_commit.append(function)


def wait_for_commits(timeout_s: float) -> None:
    """Wait for the end of the commits in progress."""
    until = time.monotonic() + timeout_s
    while _commits and time.monotonic() < until:
        time.sleep(_CHECK_S)


@contextlib.contextmanager
def at_the_end(function: Callable[[], object]) -> Iterator[None]:
    """Call a function if the program must end at once within the block. It has `LAST_S`."""
    _last.append(function)
    try:
        yield
    finally:
        _last.remove(function)


def _run_last() -> None:
    """Call the registered functions in a thread: another one may hold a lock that they need."""
    functions = list(_last)
    if not functions:
        return

    def run() -> None:
        for function in functions:
            with contextlib.suppress(Exception):
                function()

    thread = threading.Thread(target=run, name="embedway-last", daemon=True)
    thread.start()
    thread.join(LAST_S)


def clean_up() -> None:
    """Kill registered children, call registered functions and remove registered files.

    During a commit, no file is removed: a later run cleans up.
    """
    if not _commits:
        for process in list(_children):
            with contextlib.suppress(OSError):
                process.kill()
    _run_last()
    if _commits:
        return
    for path in list(_temporary):
        with contextlib.suppress(OSError):
            remove(path)
    for folder in list(_folders):
        with contextlib.suppress(OSError):
            folder.rmdir()
