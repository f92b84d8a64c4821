"""SHA-256 of files, with a cache that makes checking a store's files cheap."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from typing import TYPE_CHECKING

from embedway import unfinished
from embedway.files import open_regular
from embedway.weights.held_file import Stamp

if TYPE_CHECKING:
    from pathlib import Path


class WrongBytesError(Exception):
    """The bytes of a file have an unexpected hash; `expected` and `found` are sha256."""

    def __init__(self, name: str, *, expected: str, found: str) -> None:
        self.name = name
        self.expected = expected
        self.found = found
        super().__init__(f"{name}: sha256 is {found}, expected {expected}")


def hash_file(path: Path) -> str:
    """Return the sha256 of a regular file, 64 hex digits. Raises OSError."""
    with os.fdopen(open_regular(path), "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file by atomic rename of a temporary file, with the mode that the umask allows."""
    temporary = unfinished.track(path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}"))
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        unfinished.remove(temporary)


class HashCache:
    """Cache of file hashes by path and stamp, so that a store's gigabytes are not hashed at each start.

    `store` is the root of a weights store. Hashes of files in the store are written to disk, because the store writes
    each file once, by rename. A stamp is no proof for other files: a write through a shared memory map does not change
    the time until the system writes the page back. Their hashes stay in this object, so that opening a model hashes
    each file once.
    """

    def __init__(self, store: Path) -> None:
        self._root = store / "hashes"
        self._own = tuple((store / name).resolve() for name in ("blobs", "models"))
        self._others: dict[Path, tuple[Stamp, str]] = {}
        #: Whether hashes are not stored, so that `embedway doctor` changes nothing.
        self.is_read_only = False

    def owns(self, path: Path) -> bool:
        """Return whether a file belongs to the store, to which no other program writes."""
        real = path.resolve()
        return any(real.is_relative_to(folder) for folder in self._own)

    def sha256(self, path: Path, *, refresh: bool = False) -> str:
        """Return the sha256 of a file, from the cache unless the file changed or `refresh` is set. Raises OSError."""
        real = path.resolve(strict=True)
        stamp = Stamp.of(real)
        if not refresh and (known := self.get(real, stamp)) is not None:
            return known
        found = hash_file(real)
        if Stamp.of(real) == stamp and not stamp.fresh:
            self.put(real, stamp, found)
        return found

    def get(self, path: Path, stamp: Stamp) -> str | None:
        """Return the cached hash of a file with this stamp, or None if it is missing."""
        if not self.owns(path):
            remembered, sha256 = self._others.get(path.resolve(), (None, None))
            return sha256 if remembered == stamp else None
        try:
            known = json.loads(self._record(path).read_text("utf-8"))
            return str(known["sha256"]) if known["stamp"] == _as_list(stamp) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, path: Path, stamp: Stamp, sha256: str) -> None:
        """Cache a hash."""
        if not self.owns(path):
            self._others[path.resolve()] = (stamp, sha256)
            return
        if self.is_read_only:
            return
        # A store on a read-only disk works too; it hashes each time.
        with contextlib.suppress(OSError):
            self._root.mkdir(parents=True, exist_ok=True)
            write_atomically(self._record(path), json.dumps({"stamp": _as_list(stamp), "sha256": sha256}))

    def remove(self, path: Path) -> None:
        """Remove the cached hash of a file."""
        with contextlib.suppress(OSError):
            self._record(path).unlink(missing_ok=True)

    def _record(self, path: Path) -> Path:
        return self._root / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def _as_list(stamp: Stamp) -> list[int]:
    return [stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode]
