"""Small files: bounded reads, and private writes with mode 0600, in new folders with mode 0700.

The mode is set when a file is created, so that other users can never read it, whatever the umask is. An existing file
or folder keeps its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from typing import TYPE_CHECKING

from embedway import unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Without O_NONBLOCK, a pipe without a writer would block the program forever.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
FILE_MODE = 0o600
FOLDER_MODE = 0o700
#: Interval between tries to lock a folder, in seconds.
_LOCK_AGAIN_S = 0.005


def read_package_text(package: str, name: str) -> str:
    """Read a text file that is part of the package."""
    from importlib import resources  # noqa: PLC0415  few modules have files

    return resources.files(package).joinpath(name).read_text("utf-8")


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor. Raises OSError, also for a pipe or device."""
    descriptor = os.open(path, READ_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def read_regular(path: Path, *, most_bytes: int) -> bytes | None:
    """Read a regular file; None if it does not exist. Raises OSError, also for a file over `most_bytes`."""
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return data


def read_bounded(path: Path, *, most_bytes: int = 2**16) -> bytes:
    """Read a file named in the settings: a regular file, a pipe inherited by this process, or the null device.

    A shell's `<(command)` is such a pipe. Raises OSError for any other file, which might be endless, and for more than
    `most_bytes`.
    """
    if str(path) == os.devnull:
        return b""
    descriptor = os.open(path, READ_FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        inherited = stat.S_ISFIFO(mode) and _is_inherited(path)
        if not (inherited or stat.S_ISREG(mode)):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if inherited:
            os.set_blocking(descriptor, True)  # its writer may not have written yet
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return data


def _is_inherited(path: Path) -> bool:
    """Return whether a path is that of an open descriptor; any other pipe may never have a writer."""
    return str(path) == "/dev/stdin" or str(path.parent) in {"/dev/fd", "/proc/self/fd"}


def place_of(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, or of a link's target; None if it cannot be found."""
    try:
        state = os.stat(path)  # noqa: PTH116  faster, and called for each use of a ledger
    except OSError:
        return None
    return state.st_dev, state.st_ino


@contextlib.contextmanager
def locked_folder(folder: Path, timeout_s: float) -> Iterator[None]:
    """Exclude other processes and threads that lock the same folder.

    Best effort: the block also runs if the folder cannot be locked, or if another process holds the lock for longer
    than `timeout_s`.
    """
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + timeout_s
        with contextlib.suppress(OSError):
            while not _try_lock(descriptor) and time.monotonic() < until:
                time.sleep(_LOCK_AGAIN_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    import fcntl  # noqa: PLC0415  POSIX only

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents. Raises OSError."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process has just created it
            one.mkdir(FOLDER_MODE)


def create_private_file(path: Path) -> bool:
    """Create an empty file; False if it already exists. Raises OSError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), FILE_MODE))
    except FileExistsError:
        return False
    return True


def write_private_whole(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file atomically and create its folder. The file is complete or does not exist.

    Raises OSError, and FileExistsError if the file exists and `overwrite` is False.
    """
    make_private_folder(path.parent)
    temporary = private_temporary(path)
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
        put_in_place(temporary, path, overwrite=overwrite)
    finally:
        unfinished.remove(temporary)


def private_temporary(path: Path) -> Path:
    """Create an empty file beside `path`, for `put_in_place`. Raises OSError."""
    temporary = unfinished.track(path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp"))
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
    return temporary


def is_special(path: Path) -> bool:
    """Return whether a path leads to a device, a pipe or a socket, or is in `/dev`: no program may replace it."""
    if os.name == "posix" and path.absolute().parts[1:2] == ("dev",):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Sync a finished file to disk and rename it atomically.

    Raises OSError, and FileExistsError if the file exists and `overwrite` is False.
    """
    _sync(temporary, os.O_RDWR)
    with unfinished.commit():
        if overwrite:
            temporary.replace(path)
        else:
            _rename_without_replacing(temporary, path)
    if os.name == "posix":
        _sync(path.parent, os.O_RDONLY)


def _rename_without_replacing(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        # On a file system without hard links, the check and the rename are two steps.
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists") from None
        temporary.replace(path)
    else:
        temporary.unlink()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
