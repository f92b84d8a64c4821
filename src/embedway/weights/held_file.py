"""Model files, kept open from their hash to the last request that reads them.

A path may point to another file at any time: a folder is saved again, a link changes. So a file is opened once, hashed
through its descriptor, and mapped from the same descriptor by every session. A replaced file stays readable unchanged.
A write to a file is detected by its stamp before and after each computation, and is an error from then on. A write
through a shared memory map changes no stamp until the system writes the page back, and is not detected.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import WeightsError
from embedway.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from embedway.weights.hashes import HashCache

#: Longer than the clock tick of any common disk, in nanoseconds.
CLOCK_TICK_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """State of a file that changes when it is written to or replaced."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, file: Path | int) -> Stamp:
        """Read the stamp of a path or a descriptor. Raises OSError."""
        state = os.stat(file)  # noqa: PTH116  a descriptor has no path
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)

    @property
    def fresh(self) -> bool:
        """Whether a change now could fall into the same tick of the disk's clock and leave the same stamp."""
        return 0 <= time.time_ns() - max(self.mtime_ns, self.ctime_ns) < CLOCK_TICK_NS

    def same_content(self, other: Stamp) -> bool:
        """Return whether the file was not written to between two stamps. Links and permissions may have changed."""
        return (self.size, self.mtime_ns, self.inode) == (other.size, other.mtime_ns, other.inode)


class HeldFile:
    """Regular file, opened lazily and read through one descriptor. Thread-safe.

    `hash_cache` contains hashes of earlier runs.
    """

    def __init__(self, path: Path, hash_cache: HashCache | None = None) -> None:
        self.path = path
        self._hash_cache = hash_cache
        self._lock = threading.RLock()
        self._descriptor: int | None = None
        self._stamp: Stamp | None = None
        self._sha256: str | None = None
        self._map: mmap.mmap | None = None
        self._changed = False

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name of the file, without its folder."""
        return self.path.name

    @property
    def size(self) -> int:
        """Size in bytes when the file was opened."""
        self.hold()
        assert self._stamp is not None  # noqa: S101  set by `hold`
        return self._stamp.size

    def hold(self) -> int:
        """Open the file unless it is open, and return its descriptor. Raises WeightsError."""
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._open()
                self._stamp = Stamp.of(self._descriptor)
                weakref.finalize(self, os.close, self._descriptor).atexit = False
            return self._descriptor

    @property
    def sha256(self) -> str:
        """Hash of the bytes that every later read returns, 64 hex digits. Blocking. Raises WeightsError."""
        with self._lock:
            if self._sha256 is None:
                self._sha256 = self._compute_hash()
            return self._sha256

    def map(self) -> mmap.mmap:
        """Map the file's bytes privately. Writable for backends that share memory, but must not be written to."""
        with self._lock:
            if self._map is None:
                self._map = mmap.mmap(self.hold(), 0, access=mmap.ACCESS_COPY)
            return self._map

    def read(self) -> bytes:
        """Return all bytes. Raises WeightsError."""
        return bytes(self.map()) if self.size else b""

    def check(self) -> Stamp:
        """Return the file's stamp. Raises WeightsError if its bytes changed since it was opened.

        If the stamp changed without a write, by a rename or a link, it is accepted when the bytes have the same hash.
        """
        descriptor = self.hold()
        now = Stamp.of(descriptor)
        if now != self._stamp or self._changed:
            self._check_again()
            now = Stamp.of(descriptor)
        return now

    def _check_again(self) -> None:
        with self._lock:
            before = self._sha256
            if before is not None and not self._changed:
                try:
                    self._changed = self._compute_hash(refresh=True) != before
                except WeightsError:
                    self._changed = True
            if before is None or self._changed:
                self._changed = True
                raise WeightsError(
                    f"{self.path} was written to while the model was open, so its weights no longer match the "
                    "model's vector space: create a new embedder to use the changed file"
                )

    def _open(self) -> int:
        try:
            return open_regular(self.path)
        except FileNotFoundError:
            raise WeightsError(f"{self.path} is missing") from None
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error.strerror}") from error

    def _compute_hash(self, *, refresh: bool = False) -> str:
        descriptor = self.hold()
        stamp = Stamp.of(descriptor)
        while stamp.fresh:
            # A second write in the same tick would leave this stamp. Only an older stamp is proof.
            time.sleep(CLOCK_TICK_NS / 1e9)
            stamp = Stamp.of(descriptor)
        known = None if refresh or self._hash_cache is None else self._hash_cache.get(self.path, stamp)
        found = known or hash_descriptor(descriptor)
        if not stamp.same_content(Stamp.of(descriptor)):
            raise WeightsError(f"{self.path} was written to while it was read: open the model again")
        if known is None and self._hash_cache is not None:
            self._hash_cache.put(self.path, stamp, found)
        self._stamp = stamp
        return found


def hash_descriptor(descriptor: int) -> str:
    """Return the sha256 of an open file, 64 hex digits. Moves the descriptor's position."""
    with open(descriptor, "rb", closefd=False) as handle:
        handle.seek(0)
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_all(files: Iterable[HeldFile], before: list[Stamp] | None = None) -> list[Stamp]:
    """Check files. With the stamps of an earlier check, raise WeightsError if a file was written to since then.

    A write between two checks may have mixed old bytes with new ones, whatever the file contains now.
    """
    stamps = [file.check() for file in files]
    for file, first, last in zip(files, before or stamps, stamps, strict=True):
        if not first.same_content(last):
            raise WeightsError(f"{file.path} was written to while vectors were computed: compute them again")
    return stamps
