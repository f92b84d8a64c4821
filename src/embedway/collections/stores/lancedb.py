"""LanceDB tables: `lancedb:DIR#TABLE`.

A table is a folder, `DIR/TABLE.lance`. A new one is written in a temporary folder beside it and renamed when it is
complete. Folders cannot be replaced atomically: an old table is moved into the temporary folder first. If the
process is killed between the two renames, the next use of the table restores it.

A change adds versions to the table, which readers do not see before `commit`; see `lancedb_table`. A change that was
not completed is undone by the next one.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from embedway import unfinished
from embedway.collections.stores.arrow import schema_of
from embedway.collections.stores.lancedb_reader import TableReader
from embedway.collections.stores.lancedb_table import (
    Head,
    connect,
    lancedb_errors,
    replace_table,
    require_lancedb,
    restore,
    restore_moved,
    table_path,
)
from embedway.collections.stores.lancedb_writer import TableWriter, rewrite
from embedway.collections.stores.library_errors import sink_errors
from embedway.collections.stores.locks import exclusive
from embedway.collections.stores.reader_store import ReaderStore
from embedway.collections.stores.redaction import shown
from embedway.collections.stores.refusals import no_such
from embedway.collections.stores.temporary import refuse_existing, stale_paths, temporary_path
from embedway.errors import SinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.values import VectorType
    from embedway.types import Vectors

SCHEME = "lancedb:"
_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class LanceDBStore(ReaderStore):
    """Store in a LanceDB table."""

    vector_types: ClassVar[frozenset[VectorType]] = frozenset({"float32", "float16"})

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        folder, hash_sign, self._name = destination.removeprefix(SCHEME).rpartition("#")
        if not hash_sign or not folder or "://" in folder or not _TABLE_NAME.fullmatch(self._name):
            raise UsageError(
                f"{shown(destination)!r} is not lancedb:DIR#TABLE; the folder is local, and the name of a table may "
                "contain only letters, digits and _ . -"
            )
        self._folder = Path(folder)
        self._path = table_path(self._folder, self._name)
        self._overwrite = False
        self._temporary: Path | None = None
        self._made_folder = False
        self._reader: TableReader | None = None
        self._writer: TableWriter | None = None
        #: State before the present change, while an update lasts.
        self._before: Head | None = None

    @property
    @override
    def identity(self) -> str:
        return f"{SCHEME}{os.path.realpath(self._folder)}#{self._name}"

    @property
    @override
    def local_path(self) -> Path:
        return self._path

    @property
    @override
    def rejects_path(self) -> Path:
        return self._folder / f"{self._name}.rejects.jsonl"

    @override
    @contextmanager
    def lock(self) -> Iterator[None]:
        made_folder = False
        with sink_errors(self.destination, "locking"):
            if not self._folder.exists():
                unfinished.track_empty(self._folder)
                self._folder.mkdir(parents=True)
                made_folder = True
        try:
            with exclusive(self._path, destination=self.destination):
                yield
        finally:
            if made_folder:
                with suppress(OSError):  # it is not empty
                    self._folder.rmdir()

    @override
    def exists(self) -> bool:
        with sink_errors(self.destination, "reading"):
            restore_moved(self._path)
        return self._path.exists() or self._path.is_symlink()

    @override
    def prepare(self, *, overwrite: bool) -> None:
        require_lancedb()
        self._overwrite = overwrite
        refuse_existing(self._path, overwrite=overwrite, destination=self.destination)
        nearest = next(parent for parent in (self._folder, *self._folder.absolute().parents) if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise SinkError(f"{nearest} is not a writable folder", destination=self.destination)

    @override
    def begin(self, record: Record) -> None:
        """Create an empty table in a temporary folder."""
        self._check_names(record)
        self.record = replace(record, revision=secrets.token_hex(8))
        with lancedb_errors(self.destination, "creating the table"):
            if not self._folder.exists():
                unfinished.track_empty(self._folder)
                self._folder.mkdir(parents=True)
                self._made_folder = True
            self._remove_stale()
            self._temporary = self._new_temporary()
            table = connect(self._temporary).create_table(self._name, schema=schema_of(self.record))
            self._writer = TableWriter(table, self.record)

    @override
    def begin_update(self, record: Record) -> None:
        """Note the present version in the table's folder, and undo a change that was not completed."""
        record = self.check_update(record)
        self._check_names(record)
        with lancedb_errors(self.destination, "starting the change"):
            reader = self._fresh_reader()
            table = connect(self._folder).open_table(self._name)
            if reader.unfinished_from is not None:
                table.restore(reader.unfinished_from)
            self._before = Head(reader.record)
            Head(reader.record, table.version).write(self._path, reader.metadata)
            self.record = record
            self._writer = TableWriter(table, record, base_version=table.version)
            self._writer.add_columns()

    @override
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Buffer rows and add them in large fragments, because each addition creates a version."""
        self.check_rows(chunks, vectors)
        with lancedb_errors(self.destination, "writing"):
            self._writing.write(chunks, vectors)

    @override
    def remove(self, documents: Collection[DocumentKey]) -> None:
        with lancedb_errors(self.destination, "removing"):
            self._writing.remove(documents)

    @override
    def commit(self) -> None:
        """Add the remaining rows, then rename the new table's folder, or name the new version."""
        writer = self._writing
        with lancedb_errors(self.destination, "writing"):
            writer.finish()
        if self._before is not None:
            record = replace(self.record, revision=secrets.token_hex(8))
            with lancedb_errors(self.destination, "finishing the change"):
                Head(record).write(self._path, self._opened.metadata)
            self.record, self._before = record, None
        elif self._temporary is not None:
            refuse_existing(self._path, overwrite=self._overwrite, destination=self.destination)
            with sink_errors(self.destination, "finishing the table"):
                replace_table(table_path(self._temporary, self._name), self._path, self._temporary)
            self._temporary = None
        self._writer, self._reader = None, None
        self._made_folder = False
        self.count = self._opened.count

    @override
    def abort(self) -> None:
        """Undo the change, or remove the temporary folder, and the folder that was created for the table."""
        writer, self._writer = self._writer, None
        if self._before is not None and writer is not None:
            before, self._before = self._before, None
            self.record = before.record
            # If this fails, readers still see the version before, and the next change undoes this one.
            with suppress(SinkError), lancedb_errors(self.destination, "undoing"):
                writer.undo()
                before.write(self._path, self._opened.metadata)
        if self._temporary is not None:
            restore(self._temporary, self._path)
            unfinished.remove(self._temporary)
            self._temporary = None
        if self._made_folder:
            with suppress(OSError):
                self._folder.rmdir()
            self._made_folder = False

    @override
    def open(self) -> None:
        require_lancedb()
        self._reader = None
        with lancedb_errors(self.destination, "reading"):
            restore_moved(self._path)
            if not self._path.is_dir():
                raise no_such("table", self.destination)
            reader = self._opened
        self.record, self.count = reader.record, reader.count

    @property
    @override
    def content_stamp(self) -> str:
        return f"{self.count} {self._opened.table.version}"

    @override
    def close(self) -> None:
        self._reader = None

    @override
    def write_record(self, record: Record) -> None:
        reader = self._opened
        with sink_errors(self.destination, "writing"):
            reader.write_record(record)
        self.record = record

    @override
    def purge(self) -> Sequence[str]:
        """Write the table again without its older versions, which contain removed rows, and without its indexes."""
        reader = self._fresh_reader()
        with lancedb_errors(self.destination, "removing older versions"):
            self._remove_stale()
            temporary = self._new_temporary()
            try:
                rewrite(reader, temporary, self._name)
                has_indexes = bool(reader.table.list_indices())
                replace_table(table_path(temporary, self._name), self._path, temporary)
            except BaseException:
                restore(temporary, self._path)
                unfinished.remove(temporary)
                raise
        self._reader = None
        return ("the table's indexes were dropped with its older versions; create them again",) if has_indexes else ()

    @property
    @override
    def _opened(self) -> TableReader:
        """The reader of the collection as it was committed the last time."""
        if self._reader is None:
            self._reader = TableReader(self._folder, self._name, self.destination)
        return self._reader

    @property
    def _writing(self) -> TableWriter:
        if self._writer is None:
            raise SinkError("no change was started", destination=self.destination)
        return self._writer

    @override
    def _errors(self, action: str) -> AbstractContextManager[None]:
        return lancedb_errors(self.destination, action)

    def _fresh_reader(self) -> TableReader:
        self._reader = None
        return self._opened

    def _new_temporary(self) -> Path:
        temporary = temporary_path(self._path)
        temporary.mkdir()
        return temporary

    def _check_names(self, record: Record) -> None:
        for name in record.keep:
            if "." in name or "`" in name or not name or name.startswith("_row"):
                reason = f"LanceDB cannot have a column {name!r}: a name has no full stop and no backtick"
                raise SinkError(f"{reason}, and does not begin with _row; rename it", destination=self.destination)

    def _remove_stale(self) -> None:
        """Remove files left by killed processes, and restore a table that one of them moved away."""
        for stale in stale_paths(self._path):
            restore(stale, self._path)
            unfinished.remove(stale)
