"""Small files: read once and with a bound, and written privately: 0600, in folders of 0700 where we make the folder.

The mode is given when a file is created, so that no moment passes in which others may read it, whatever the umask is.
A file or folder that exists keeps its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Without O_NONBLOCK a pipe that nobody writes to would hold the program up for ever.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
FILE_MODE = 0o600
FOLDER_MODE = 0o700


def read_package_text(package: str, name: str) -> str:
    """Read a text file that is part of the package."""
    from importlib import resources  # noqa: PLC0415  few modules have files

    return resources.files(package).joinpath(name).read_text("utf-8")


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor. Raises OSError, for a pipe or device too."""
    descriptor = os.open(path, READ_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def read_regular(path: Path, *, most_bytes: int) -> bytes | None:
    """Read a regular file; None where there is none. Raises OSError, for a file of more than `most_bytes` too."""
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
    """Read a file that settings name: a regular one, a pipe that this process inherited, or the null device.

    A shell's `<(command)` is such a pipe. Raises OSError for anything else, which might have no end, and for more than
    `most_bytes`.
    """
    if str(path) == os.devnull:
        return b""
    descriptor = os.open(path, READ_FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        inherited = stat.S_ISFIFO(mode) and _is_inherited(path)
        if not (inherited or stat.S_ISREG(mode)):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
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
    """Whether a path is that of an open descriptor; a pipe with another name may never have a writer."""
    return str(path) == "/dev/stdin" or str(path.parent) in {"/dev/fd", "/proc/self/fd"}


def make_private_folder(folder: Path) -> None:
    """Make a folder and the folders above it that are missing. Raises OSError."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process has just made it
            one.mkdir(FOLDER_MODE)


def create_private_file(path: Path) -> bool:
    """Create an empty file; False where there is one already. Raises OSError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), FILE_MODE))
    except FileExistsError:
        return False
    return True


def write_private_whole(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file so that it is there whole or not at all, its folder included.

    Raises OSError, and FileExistsError where there is a file and `overwrite` is False.
    """
    make_private_folder(path.parent)
    temporary = private_temporary(path)
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
        put_in_place(temporary, path, overwrite=overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def private_temporary(path: Path) -> Path:
    """Create an empty file beside `path`, for `put_in_place`. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
    return temporary


def put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a finished file its name, its bytes on the disk first.

    Raises OSError, and FileExistsError where there is a file and `overwrite` is False.
    """
    _sync(temporary, os.O_RDWR)
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
        # A file system without hard links: the check and the rename are two steps there.
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
