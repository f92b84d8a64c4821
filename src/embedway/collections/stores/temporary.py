"""Temporary files beside a destination, and removal of those left by killed processes.

A temporary path is in the destination's own folder, so that `os.replace` is atomic. Its name contains the host and
the process that created it, so that a later run can check whether that process is alive.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from typing import TYPE_CHECKING

from embedway import unfinished
from embedway.collections.stores.refusals import already_exists
from embedway.errors import SinkError
from embedway.files import is_special

if TYPE_CHECKING:
    from pathlib import Path

_MARK = ".embedway-"


def temporary_path(path: Path) -> Path:
    """Return a new path beside `path`, such as `.out.parquet.embedway-<host>-<process>-<random>.tmp`."""
    name = f".{path.name}{_MARK}{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    return unfinished.track(path.with_name(name))


def stale_paths(path: Path) -> list[Path]:
    """Return temporary files and folders for `path` whose process on this host is dead."""
    prefix = f".{path.name}{_MARK}{_host()}-"
    stale = []
    for entry in sorted(path.parent.iterdir()):
        if not (entry.name.startswith(prefix) and entry.name.endswith(".tmp")):
            continue
        process = entry.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            stale.append(entry)
    return stale


def remove_stale(path: Path) -> None:
    """Remove temporary files that killed processes left for this destination."""
    for entry in stale_paths(path):
        unfinished.remove(entry)


def replace_file(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to disk, then rename it to its final path."""
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    unfinished.forget(temporary)


def file_state(state: os.stat_result) -> tuple[int, int, int]:
    """Return what differs between two versions of a file: inode, size, and time of the last change."""
    return state.st_ino, state.st_size, state.st_mtime_ns


def write_whole(path: Path, text: str) -> None:
    """Write a small text file atomically. Raises OSError."""
    temporary = temporary_path(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        replace_file(temporary, path)
    finally:
        unfinished.remove(temporary)


def refuse_existing(path: Path, *, overwrite: bool, destination: str) -> None:
    """Raise `SinkError` if the path exists and must not be replaced."""
    if is_special(path):
        raise SinkError("is a device, a pipe or a socket; choose a file", destination=destination)
    if not overwrite and (path.exists() or path.is_symlink()):
        raise already_exists("destination", destination)


def _host() -> str:
    # Process ids mean nothing for processes of another machine on the same shared folder.
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        # On Windows, `os.kill(process, 0)` would end the process; leave the file.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
