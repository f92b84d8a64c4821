"""Small files of settings: read once and with a bound, written whole and for the user alone."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from embedway.errors import ConfigError

#: Settings are written by hand; more is no settings file.
MOST_BYTES = 2**20


def read_regular(path: Path, *, most_bytes: int = MOST_BYTES) -> bytes | None:
    """The bytes of a regular file, or None where there is none. Opens no pipe or device for long.

    Raises ConfigError for what cannot be read, is no regular file, or has more bytes than `most_bytes`.
    """
    where = str(path)
    # Without O_NONBLOCK a pipe that nobody writes to would hold the program up for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or type(error).__name__}", where=where) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError("is no regular file; remove it or name other settings with --config", where=where)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or type(error).__name__}", where=where) from error
    finally:
        os.close(descriptor)
    if len(data) > most_bytes:
        raise ConfigError(f"has more than {most_bytes:,} bytes, which no settings file has", where=where)
    return data


def make_private_folder(folder: Path) -> None:
    """Make a folder that is the user's alone, unless it is there. Raises ConfigError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror or type(error).__name__}", where=str(folder)) from error


def write_private(path: Path, text: str) -> None:
    """Write a file that the user alone may read, whole or not at all. Raises ConfigError."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or type(error).__name__}", where=str(path)) from error
