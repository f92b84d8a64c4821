"""Files kept by hash, and the memory of hashes that makes checking them cheap."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import uuid
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock, Timeout

from embedway.errors import WeightsError
from embedway.files import open_regular
from embedway.weights.held_file import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedway.weights.types import ProgressSink

_log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
#: Left free on the disk beside the files themselves.
SPARE_BYTES = 16 * 1024 * 1024


class WrongBytesError(Exception):
    """A file's bytes are not the expected ones; `expected` and `found` are sha256."""

    def __init__(self, name: str, *, expected: str, found: str) -> None:
        self.name = name
        self.expected = expected
        self.found = found
        super().__init__(f"{name}: sha256 is {found}, expected {expected}")


def hash_file(path: Path) -> str:
    """sha256 of a regular file, 64 hex digits. Raises OSError."""
    with os.fdopen(open_regular(path), "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a small text file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class HashMemory:
    """Remembers the sha256 of files by path and stamp, so that a store's gigabytes are not hashed at each start.

    `store` is the root of a weights store. Only hashes of files below it are written to the disk: the store writes them
    once, by rename. A stamp proves nothing of other files, because a write through a shared memory map moves no time
    until the system writes the page back. Their hashes are kept in this object, so that one opening of a model hashes
    once.
    """

    def __init__(self, store: Path) -> None:
        self._root = store / "hashes"
        self._own = tuple((store / name).resolve() for name in ("blobs", "models"))
        self._others: dict[Path, tuple[Stamp, str]] = {}

    def owns(self, path: Path) -> bool:
        """Whether a file is the store's own, to which nobody else writes."""
        real = path.resolve()
        return any(real.is_relative_to(folder) for folder in self._own)

    def sha256(self, path: Path, *, anew: bool = False) -> str:
        """sha256 of a file; from memory unless the file changed since, or `anew`. Raises OSError."""
        real = path.resolve(strict=True)
        stamp = Stamp.of(real)
        if not anew and (known := self.known(real, stamp)) is not None:
            return known
        found = hash_file(real)
        if Stamp.of(real) == stamp and not stamp.fresh:
            self.keep(real, stamp, found)
        return found

    def known(self, path: Path, stamp: Stamp) -> str | None:
        """The hash that a file had when it had this stamp; None where that is not remembered."""
        if not self.owns(path):
            remembered, sha256 = self._others.get(path.resolve(), (None, None))
            return sha256 if remembered == stamp else None
        try:
            known = json.loads(self._record(path).read_text("utf-8"))
            return str(known["sha256"]) if known["stamp"] == _as_list(stamp) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, path: Path, stamp: Stamp, sha256: str) -> None:
        """Remember a hash."""
        if not self.owns(path):
            self._others[path.resolve()] = (stamp, sha256)
            return
        # A store on a read-only disk still works; it hashes each time.
        with contextlib.suppress(OSError):
            self._root.mkdir(parents=True, exist_ok=True)
            write_whole(self._record(path), json.dumps({"stamp": _as_list(stamp), "sha256": sha256}))

    def forget(self, path: Path) -> None:
        """Drop what is remembered of a file."""
        with contextlib.suppress(OSError):
            self._record(path).unlink(missing_ok=True)

    def _record(self, path: Path) -> Path:
        return self._root / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def _as_list(stamp: Stamp) -> list[int]:
    return [stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode]


class Blobs:
    """Files by sha256 below one root, downloads that are not whole yet, and locks.

    Safe for many threads and processes: a file appears by rename, and one key is written by one at a time.
    The locks are the operating system's, so a killed process leaves none behind; their files stay, because
    removing a lock file lets two holders in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memory = HashMemory(root)

    def path(self, sha256: str) -> Path:
        """Where a file with this hash is, if it is here."""
        return self.root / "blobs" / sha256

    def good(self, sha256: str) -> bool:
        """Whether a file with this hash is here and has the right bytes."""
        path = self.path(sha256)
        try:
            found = self.memory.sha256(path)
        except OSError:
            return False
        if found != sha256:
            _log.info("%s is corrupt: its sha256 is %s; it is not used and will be replaced", path, found)
        return found == sha256

    def partial(self, key: str) -> Path:
        """Where a file is put together; the folder is made."""
        folder = self.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock of this root, waiting for whoever holds it."""
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{name}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                _log.info("waiting for another process or thread that has locked %s", name)
                lock.acquire()
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def add(
        self,
        source: BinaryIO,
        *,
        key: str,
        name: str,
        expected: str | None,
        size: int | None,
        sink: ProgressSink,
    ) -> str:
        """Copy a local stream in; returns its sha256. Raises WrongBytesError if another was expected.

        `key` names the temporary file and must not be in use: hold its lock.
        """
        self.require_space(size or 0, name)
        temporary = self.partial(f"{key}.copy")
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
            temporary.unlink(missing_ok=True)
            sink.done()
        return found

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Move a whole, checked and synced file of this root to its place; replaces what is there."""
        path = self.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)

    def adopt_link(self, source: Path, sha256: str) -> bool:
        """Take a checked file by hard link, without copying; False where that cannot be done."""
        temporary = self.partial(f"{uuid.uuid4().hex[:12]}.link")
        try:
            os.link(source, temporary)
            # A rename of one name of a file onto another name of it does nothing and leaves both.
            self.adopt(temporary, sha256)
        except OSError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def drop(self, sha256: str) -> int:
        """Delete a file; returns its size in bytes, 0 if it was not here."""
        path = self.path(sha256)
        try:
            size = path.stat().st_size
            self.memory.forget(path)
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def require_space(self, size: int, name: str) -> None:
        """Raise WeightsError unless so many bytes, and some to spare, are free."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < size + SPARE_BYTES:
            raise WeightsError(
                f"{self.root}: {name} needs {size:,} bytes and {SPARE_BYTES:,} to spare, only {free:,} are "
                "free; free some, or set weights.directory to another disk"
            )


def unwritable(path: Path, error: OSError) -> WeightsError:
    """The error for a store that cannot be written."""
    reason = error.strerror or type(error).__name__
    return WeightsError(f"{path} cannot be written: {reason}; set weights.directory to a folder that can")
