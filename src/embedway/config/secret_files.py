"""Files that contain one secret, such as a key, and that another process may replace at any time.

Kubernetes replaces a link to a folder, other programs rename or rewrite the file. The old value remains in use while
the file is missing, empty or invalid.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from embedway.errors import ConfigError
from embedway.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger("embedway.config")


#: Contents of pipes, which can be read only once, by their device and inode.
_pipes: dict[tuple[int, int], bytes] = {}


def read_secret(path: Path, check: Callable[[str], str], *, where: str = "", key: str = "") -> str:
    """Read the secret in a file. Raises ConfigError, without any part of the content.

    `where` and `key` are the route and its setting that name the file.
    """
    try:
        value = check(_content(path).decode("utf-8-sig"))
        if value:
            return value
        reason = "is empty"
    except UnicodeDecodeError:
        reason = "cannot be read: it is not a text file"
    except OSError as error:
        reason = f"cannot be read: {error.strerror or type(error).__name__}"
    except ValueError as error:
        reason = str(error)
    # Outside of `except`: a chained error could contain the content.
    raise ConfigError(f"{path} {reason}", where=where, key=key) if where else ConfigError(reason, where=str(path))


def _content(path: Path) -> bytes:
    """Return the content of a file, and of a pipe the content that was read from it first."""
    found = path.stat()
    if not stat.S_ISFIFO(found.st_mode):
        return read_bounded(path)
    pipe = (found.st_dev, found.st_ino)
    if pipe not in _pipes:
        _pipes[pipe] = read_bounded(path)
    return _pipes[pipe]


class SecretFile:
    """The secret in a file, read again when the file changes. The value is in no repr.

    `value` was read from the file before; the file is read again at the first use.
    """

    def __init__(self, path: Path, value: str, check: Callable[[str], str]) -> None:
        self.path = path
        self._check = check
        self._value = value
        self._seen: object = None
        self._has_failed = False

    def current(self) -> str:
        """Return the secret; read the file first if it changed since the last call."""
        stamp = _stamp(self.path)
        if stamp is not None and stamp != self._seen:
            self._read(stamp)
        return self._value

    def read_again(self) -> str:
        """Read the file, even if it looks unchanged, and return the secret."""
        self._read(_stamp(self.path))
        return self._value

    def _read(self, stamp: object) -> None:
        if stamp is None:
            return
        try:
            value = read_secret(self.path, self._check)
        except ConfigError as error:
            if not self._has_failed:
                _log.warning("%s; the value read before remains in use", error)
            self._has_failed = True
            return
        self._value, self._seen, self._has_failed = value, stamp, False


def _stamp(path: Path) -> object:
    """Return what changes with a file's content; None if it is missing, or a pipe, which can be read only once."""
    try:
        found = os.stat(path)  # noqa: PTH116  called for each request
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
