"""Files beside a destination: temporary ones, and removal of those that a killed process left.

A temporary path lies in the destination's own folder, so that `os.replace` is one step, and its name holds
the host and the process that made it, so that a later run can tell which process made it and whether that process still
lives.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
from typing import TYPE_CHECKING

from embedway.errors import SinkError

if TYPE_CHECKING:
    from pathlib import Path

_MARK = ".embedway-"


def temporary_path(path: Path) -> Path:
    """A new path beside `path`, such as `.out.parquet.embedway-<host>-<process>-<random>.tmp`."""
    name = f".{path.name}{_MARK}{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    return path.with_name(name)


def stale_paths(path: Path) -> list[Path]:
    """Temporary files and folders for `path` whose process on this host is dead."""
    prefix = f".{path.name}{_MARK}{_host()}-"
    stale = []
    for entry in sorted(path.parent.iterdir()):
        if not (entry.name.startswith(prefix) and entry.name.endswith(".tmp")):
            continue
        process = entry.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            stale.append(entry)
    return stale


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_stale(path: Path) -> None:
    """Remove what killed processes left for this destination."""
    for entry in stale_paths(path):
        remove(entry)


def replace_file(temporary: Path, path: Path) -> None:
    """Let a finished temporary file appear under its name, its bytes on the disk first."""
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Write a small text file so that it is there whole or not at all. Raises OSError."""
    temporary = temporary_path(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        replace_file(temporary, path)
    finally:
        remove(temporary)


def refuse_existing(path: Path, *, overwrite: bool, destination: str) -> None:
    """Raise `SinkError` where something is there already and may not be replaced."""
    if not overwrite and (path.exists() or path.is_symlink()):
        raise SinkError("exists already; name another, or ask to overwrite it", destination=destination)


def _host() -> str:
    # Process numbers say nothing about processes of another machine on the same shared folder.
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        # There `os.kill(process, 0)` would end it; leave the file.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
