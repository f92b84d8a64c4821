"""Journal of a job: vectors that are computed and not yet committed, so that a repeated job computes nothing twice.

A journal is an append-only file of fixed-size records in the user's state folder. It contains vectors and hashes of
texts, never texts. A record that a killed process wrote in part is dropped. The job removes its journal after the
commit. Only one job uses a journal at a time, because it holds the lock of the destination.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import struct
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import StateError
from embedway.files import FILE_MODE, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.collections.stores.base import Store
    from embedway.space import Space
    from embedway.types import ModelDescription, Vectors

_log = logging.getLogger("embedway.collections")

#: Header: name and version of the format, digest of the space and options, dimensions.
_MAGIC = b"embedway journal 1\n"
_HEADER = struct.Struct(f"<{len(_MAGIC)}s16sI")
_KEY_BYTES = 16
#: Journals of jobs that were never repeated are removed after this time.
_KEPT_S = 30 * 24 * 3600
_ENDING = ".journal"


def journal_path(store: Store) -> Path:
    """Return the path of a collection's journal: in the state folder, named after a hash of the identity."""
    import platformdirs  # noqa: PLC0415  only jobs need it

    digest = hashlib.sha256(os.fsencode(store.identity)).hexdigest()[:32]
    return Path(platformdirs.user_state_path("embedway", appauthor=False)) / "jobs" / f"{digest}{_ENDING}"


def repair_journal_path(store: Store) -> Path:
    """Return the path of the journal of a collection's repair."""
    path = journal_path(store)
    return path.with_name(f"{path.stem}-repair{_ENDING}")


def vector_facts(described: ModelDescription, on_overflow: str) -> tuple[str, ...]:
    """Return what decides on a vector beside its space and its text, as in the key of a cache entry."""
    return on_overflow, str(described.max_tokens), described.variant


class Journal:
    """Vectors by text of one destination, space and set of options. `facts` are the options that decide on vectors.

    `find` may be called by another thread than the methods that block, which are called by one thread. If the file
    cannot be written, the journal warns once and keeps no more vectors; the job goes on.
    """

    def __init__(self, path: Path, space: Space, facts: Sequence[str] = ()) -> None:
        self._path = path
        identity = json.dumps([space.to_json(), *facts], sort_keys=True).encode()
        self._digest = hashlib.blake2b(identity, digest_size=16).digest()
        self._record = np.dtype([("key", f"V{_KEY_BYTES}"), ("check", "<u4"), ("vector", "<f4", (space.dimensions,))])
        self._rows: Any = np.empty(0, self._record)
        self._order: Any = np.empty(0, np.int64)
        self._keys: Any = np.empty(0, f"S{_KEY_BYTES}")
        self._descriptor: int | None = None
        self._is_disabled = False
        #: Number of vectors in the file, and of those that `read` found.
        self.count = self.found = 0

    def read(self) -> None:
        """Read the vectors of an interrupted job. A journal of another space is ignored, and replaced later.

        Raises StateError if something is there that cannot be read.
        """
        try:
            self._map()
        except OSError as error:
            try:
                self._path.lstat()
            except OSError:
                return  # there is none
            raise StateError(
                f"the vectors of an interrupted job cannot be read ({error.strerror or error}); make the file "
                "readable, or remove it to compute these vectors again",
                file=self._path,
            ) from error
        self.count = self.found = len(self._rows)
        keys = np.frombuffer(np.ascontiguousarray(self._rows["key"]).tobytes(), f"S{_KEY_BYTES}")
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def _map(self) -> None:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._path, flags)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "it is not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                count = (state.st_size - _HEADER.size) // self._record.itemsize
                if file.read(_HEADER.size) == self._header() and count:
                    self._rows = np.memmap(file, self._record, "r", offset=_HEADER.size, shape=(count,))
        finally:
            os.close(descriptor)

    def find(self, texts: Sequence[str]) -> dict[int, Vectors]:
        """Return the vectors of texts that the journal contains, by position; damaged records are ignored."""
        if not len(self._keys):
            return {}
        found: dict[int, Vectors] = {}
        keys = [self._key(text) for text in texts]
        # numpy drops zero bytes at the ends of both sides, so the comparison of complete keys decides.
        places = np.searchsorted(self._keys, np.array(keys, f"S{_KEY_BYTES}"))
        for row, (key, place) in enumerate(zip(keys, places.tolist(), strict=True)):
            if place >= len(self._order):
                continue
            record = self._rows[self._order[place]]
            vector = np.array(record["vector"], np.float32)
            if bytes(record["key"]) == key and int(record["check"]) == _checksum(key, vector):
                found[row] = vector
        return found

    def add(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Append vectors, float32 (n, d), with one write, so that a killed process loses at most the last of them."""
        if self._descriptor is None and not self._begin():
            return
        rows = np.empty(len(texts), self._record)
        for row, text in enumerate(texts):
            key = self._key(text)
            rows["key"][row] = np.void(key)
            rows["check"][row] = _checksum(key, vectors[row])
        rows["vector"] = vectors
        try:
            self._append(rows.tobytes())
        except OSError as error:
            self._give_up(error)
        else:
            self.count += len(texts)

    def clear(self) -> None:
        """Remove the vectors that were added, whose rows are stored. Those that `read` found stay usable here."""
        self._close_file()
        self.count = 0
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file, and those of jobs that were not repeated for a month."""
        self.close()
        self.clear()
        with contextlib.suppress(OSError):
            for other in self._path.parent.glob(f"*{_ENDING}"):
                if time.time() - other.stat().st_mtime > _KEPT_S:
                    other.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and keep no more vectors. Those that were kept stay for a repeated job."""
        self._close_file()
        self._is_disabled = True
        self._rows = np.empty(0, self._record)
        self._keys = np.empty(0, f"S{_KEY_BYTES}")

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _begin(self) -> bool:
        """Open the file for appending; return whether vectors can be appended.

        An incomplete record is dropped, and so is the content for another space.
        """
        if self._is_disabled:
            return False
        try:
            make_private_folder(self._path.parent)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            if not self.count:
                # A dry run may read the old file without a lock, and a mapped file must not become shorter.
                self._path.unlink(missing_ok=True)
                flags |= os.O_EXCL
            self._descriptor = os.open(self._path, flags, FILE_MODE)
            if self.count:
                end = _HEADER.size + self.count * self._record.itemsize
                os.ftruncate(self._descriptor, end)
                os.lseek(self._descriptor, end, os.SEEK_SET)
            else:
                self._append(self._header())
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._descriptor is not None:
            view = view[os.write(self._descriptor, view) :]

    def _give_up(self, error: OSError) -> None:
        _log.warning(
            "computed vectors cannot be kept in %s (%s), so an interrupted job starts again",
            self._path.parent,
            error.strerror,
        )
        self._is_disabled = True
        self._close_file()

    def _header(self) -> bytes:
        return _HEADER.pack(_MAGIC, self._digest, self._record["vector"].shape[0])

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode(), key=self._digest, digest_size=_KEY_BYTES).digest()


def _checksum(key: bytes, vector: Vectors) -> int:
    return zlib.crc32(np.ascontiguousarray(vector, "<f4").tobytes(), zlib.crc32(key))
