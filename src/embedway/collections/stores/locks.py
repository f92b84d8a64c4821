"""Lock of a local collection: a file beside it that one process locks. The lock of a killed process is free at once."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from embedway import unfinished
from embedway.errors import CollectionLockedError, SinkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def exclusive(path: Path, *, destination: str) -> Iterator[None]:
    """Lock the collection at a path. Raises CollectionLockedError if it is locked."""
    name = path.parent.resolve() / f".{path.name}.embedway-lock"
    descriptor = _locked(name, destination)

    # The file is removed while it is locked, so no other process can hold a lock on it.
    def remove() -> None:
        with suppress(OSError):
            name.unlink()

    def remove_at_the_end() -> None:
        if not unfinished.is_committing():
            remove()

    try:
        with unfinished.at_the_end(remove_at_the_end):
            yield
    finally:
        remove()
        os.close(descriptor)


def _locked(name: Path, destination: str) -> int:
    while True:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except FileNotFoundError:
            raise SinkError(
                f"the folder {name.parent} does not exist; create it first", destination=destination
            ) from None
        except OSError as error:
            raise SinkError(f"cannot be locked: {error.strerror}", destination=destination) from error
        try:
            _lock(descriptor)
            if _is_at(descriptor, name):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise CollectionLockedError(destination=destination) from None
        os.close(descriptor)  # its holder has removed the file meanwhile


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt  # noqa: PLC0415  Windows only

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    import fcntl  # noqa: PLC0415  POSIX only

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, name: Path) -> bool:
    """Return whether the open file is still the one with this name."""
    own = os.fstat(descriptor)
    try:
        found = name.stat()
    except FileNotFoundError:
        return False
    return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)
