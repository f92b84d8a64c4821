"""Folder of a running gateway: private, and removed at its end, or by the next gateway if it was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "embedway-gateway-"
_LOCK = "lock"
#: Maximum length of the path of a folder with a socket, in bytes: the path of a socket has at most 103 on macOS.
_MOST_BYTES = 90


@contextlib.contextmanager
def run_folder(directory: Path) -> Iterator[Path]:
    """Create a folder in a directory, for this user only, and remove it at the end. Raises UsageError.

    A lock in it is held by all processes of the gateway, so that the folders of killed gateways are recognized.
    """
    import fcntl  # noqa: PLC0415  POSIX only

    _remove_abandoned(directory)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))  # mode 0700
        # Locked before it has its name, so that no other gateway finds it unlocked.
        new = folder / f"{_LOCK}.new"
        lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder / _LOCK)
    except OSError as error:
        raise UsageError(
            f"cannot create a folder in {directory}: {error.strerror}; set server.run_directory to an existing folder "
            "that can be written"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def short_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder for a socket: the given one, or one in the folder of temporary files if its path is too long."""
    if len(os.fsencode(folder)) <= _MOST_BYTES:
        yield folder
    else:
        with run_folder(Path(tempfile.gettempdir())) as short:
            yield short


def _remove_abandoned(directory: Path) -> None:
    """Remove the folders of this user's gateways that were killed."""
    for folder in directory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not _is_abandoned(folder / _LOCK):
                continue
            shutil.rmtree(folder)


def _is_abandoned(lock: Path) -> bool:
    import fcntl  # noqa: PLC0415  as above

    descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
