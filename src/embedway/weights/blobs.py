"""Blob store: files by their sha256."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock, Timeout

from embedway import unfinished
from embedway.errors import WeightsError
from embedway.weights.hashes import HashCache, WrongBytesError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedway.weights.types import ProgressSink

_log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
#: Minimum free disk space besides the files themselves, in bytes.
SPARE_BYTES = 16 * 1024 * 1024


class BlobStore:
    """Files by sha256 in one root folder, partial downloads, and locks.

    Safe for concurrent threads and processes: a file appears by atomic rename, and a key has one writer at a time. The
    locks are the operating system's, so a killed process leaves none behind. Lock files are never removed, because
    removing one lets two processes hold the lock.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hash_cache = HashCache(root)

    def path(self, sha256: str) -> Path:
        """Return the path of the file with this hash, whether it exists or not."""
        return self.root / "blobs" / sha256

    def is_intact(self, sha256: str) -> bool:
        """Return whether the file with this hash exists and has the right bytes."""
        path = self.path(sha256)
        try:
            found = self.hash_cache.sha256(path)
        except OSError:
            return False
        if found != sha256:
            _log.info("%s is corrupt: its sha256 is %s; it is not used and will be replaced", path, found)
        return found == sha256

    def partial_path(self, key: str) -> Path:
        """Create the folder of partial files, and return the path of one."""
        folder = self.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock of this root; wait until other processes and threads release it."""
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{name}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                _log.info("waiting for the lock %s of another process or thread", name)
                lock.acquire()
        except OSError as error:
            raise unwritable_error(folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def add(
        self, source: BinaryIO, *, key: str, name: str, expected: str | None, size: int | None, sink: ProgressSink
    ) -> str:
        """Copy a stream into the store and return its sha256. Raises WrongBytesError for an unexpected hash.

        `key` names the temporary file. The caller must hold the lock of that name.
        """
        self.require_space(size or 0, name)
        temporary = unfinished.track(self.partial_path(f"{key}.copy"))
        digest = hashlib.sha256()
        sink.start(name, size)
        try:
            with temporary.open("wb") as handle:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    handle.write(chunk)
                    sink.advance(len(chunk))
                handle.flush()
                os.fsync(handle.fileno())
            found = digest.hexdigest()
            if expected is not None and found != expected:
                raise WrongBytesError(name, expected=expected, found=found)
            self.adopt(temporary, found)
        finally:
            unfinished.remove(temporary)
            sink.done()
        return found

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Move a complete, checked and synced file of this root to its final path; replace an existing file."""
        path = self.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)

    def adopt_link(self, source: Path, sha256: str) -> bool:
        """Add a checked file by hard link. Return False if the file system refuses the link."""
        temporary = unfinished.track(self.partial_path(f"{uuid.uuid4().hex[:12]}.link"))
        try:
            os.link(source, temporary)
            # Renaming one name of a file to another name of the same file does nothing and leaves both.
            self.adopt(temporary, sha256)
        except OSError:
            return False
        finally:
            unfinished.remove(temporary)
        return True

    def remove(self, sha256: str) -> int:
        """Delete a file and return its size in bytes, or 0 if it did not exist."""
        path = self.path(sha256)
        try:
            size = path.stat().st_size
            self.hash_cache.remove(path)
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def require_space(self, size: int, name: str) -> None:
        """Raise WeightsError unless `size` bytes and the spare space are free."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < size + SPARE_BYTES:
            raise WeightsError(
                f"{self.root}: {name} needs {size:,} bytes and {SPARE_BYTES:,} to spare, but only {free:,} are "
                "free: free disk space, or set weights.directory to another disk"
            )


def unwritable_error(path: Path, error: OSError) -> WeightsError:
    """Return the error for a store that cannot be written to."""
    reason = error.strerror or type(error).__name__
    return WeightsError(f"{path} cannot be written to: {reason}; set weights.directory to a writable folder")
