"""Stores in one file."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from embedway.collections.stores.library_errors import sink_errors
from embedway.collections.stores.locks import exclusive
from embedway.collections.stores.reader_store import ReaderStore
from embedway.collections.stores.refusals import no_such
from embedway.collections.stores.row_changes import RowChanges
from embedway.collections.stores.temporary import refuse_existing, remove_stale, temporary_path
from embedway.errors import SinkError
from embedway.files import is_special

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record


class FileStore(ReaderStore):
    """Store in one file, which is written as a temporary file and renamed on commit.

    If the destination is a symbolic link, the file is its target, which a commit replaces; the link stays.
    """

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._path = _real_path(destination)
        self._overwrite = False
        self._temporary: Path | None = None
        self._changes = RowChanges()
        self._updates = False
        #: Record of the collection that an update changes, until its commit.
        self._committed: Record | None = None

    @property
    @override
    def identity(self) -> str:
        return str(self._path)

    @property
    @override
    def local_path(self) -> Path:
        return self._path

    @property
    @override
    def rejects_path(self) -> Path:
        given = Path(self.destination)
        return given.with_name(f"{given.name}.rejects.jsonl")

    @override
    def prepare(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        folder = self._path.parent
        if not folder.is_dir():
            raise SinkError(f"the folder {folder} does not exist; create it first", destination=self.destination)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"the folder {folder} is not writable", destination=self.destination)
        if self._path.is_dir():
            raise SinkError("is a folder; name a file", destination=self.destination)
        refuse_existing(self._path, overwrite=overwrite, destination=self.destination)

    @override
    def begin(self, record: Record) -> None:
        self._start(record, updates=False)

    @override
    def begin_update(self, record: Record) -> None:
        record = self.check_update(record)
        self._overwrite = True
        self._start(record, updates=True)

    @override
    def remove(self, documents: Collection[DocumentKey]) -> None:
        self._changes.remove(documents)

    def _start(self, record: Record, *, updates: bool) -> None:
        self._committed = self.record if updates else None
        self._updates, self._changes = updates, RowChanges()
        self.record = record
        with sink_errors(self.destination, "creating the file"):
            remove_stale(self._path)
            self._temporary = temporary_path(self._path)
            self._open_writer(self._temporary)

    @abstractmethod
    def _open_writer(self, path: Path) -> None:
        """Create the temporary file at a path, for rows with `self.record`. Errors may be those of a library."""

    @override
    def lock(self) -> AbstractContextManager[None]:
        return exclusive(self._path, destination=self.destination)

    @override
    def exists(self) -> bool:
        return self._path.exists() or self._path.is_symlink()

    def _check_exists(self) -> None:
        if is_special(self._path):
            raise SinkError("is a device, a pipe or a socket; choose a file", destination=self.destination)
        if not self._path.is_file():
            from embedway.collections.stores.registry import similar_to  # noqa: PLC0415  only for this message

            raise no_such("file", self.destination, similar=similar_to(self.destination))


def _real_path(destination: str) -> Path:
    """Return the absolute path without links. Arrow takes a relative one such as `a:b.parquet` for a URI."""
    try:
        return Path(os.path.realpath(destination))
    except (OSError, ValueError):  # no working directory, or a NUL: the first access reports it
        return Path(destination)
