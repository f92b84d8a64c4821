"""LanceDB tables: `lancedb:DIR#TABLE`.

A table is a folder, `DIR/TABLE.lance`. It is written in a temporary folder beside it and renamed when it is
complete. Folders cannot be replaced atomically: an old table is moved into the temporary folder first. If the
process is killed between the two renames, the next run restores it.
"""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from embedway import unfinished
from embedway.collections.search import HIT_COLUMNS, Hit
from embedway.collections.stores.arrow import RowGroup, check_columns, rows_of, sink_errors
from embedway.collections.stores.base import READ_ROWS, Store, check_fields
from embedway.collections.stores.records import VerifiedFacts, space_from_metadata, space_metadata
from embedway.collections.stores.temporary import refuse_existing, stale_paths, temporary_path
from embedway.errors import MissingExtraError, SinkError, UsageError
from embedway.opt_out import opt_out_of_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.collections.stores.base import Chunk, Rows
    from embedway.types import Space, Vectors

SCHEME = "lancedb:"
_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_REPLACED = "replaced.lance"


@contextmanager
def lancedb_errors(destination: str, action: str) -> Iterator[None]:
    """Convert errors of LanceDB to `SinkError`; its messages may quote rows, so they are only chained."""
    with sink_errors(destination, action):
        try:
            yield
        except BaseException as error:
            # The error of a panic in Rust is not an Exception, and no module exports its class.
            if type(error).__name__ != "PanicException":
                raise
            raise SinkError(f"{action} failed: the table is damaged", destination=destination) from error


class LanceDBStore(Store):
    """Store in a LanceDB table; its schema's metadata contains the space and the settings."""

    _group: RowGroup
    _facts: VerifiedFacts

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        folder, hash_sign, self._name = destination.removeprefix(SCHEME).rpartition("#")
        if not hash_sign or not folder or not _TABLE_NAME.fullmatch(self._name):
            raise UsageError(
                f"{destination!r} is not lancedb:DIR#TABLE; a table name may contain only letters, digits and _ . -"
            )
        self._folder = Path(folder)
        self._overwrite = False
        self._temporary: Path | None = None
        self._made_folder = False
        # The declared type lacks methods that the object has.
        self._table: Any = None

    @property
    @override
    def rejects_path(self) -> Path:
        return self._folder / f"{self._name}.rejects.jsonl"

    @override
    def prepare(self, *, overwrite: bool) -> None:
        _require_lancedb()
        self._overwrite = overwrite
        refuse_existing(self._path, overwrite=overwrite, destination=self.destination)
        nearest = next(parent for parent in (self._folder, *self._folder.absolute().parents) if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise SinkError(f"{nearest} is not a writable folder", destination=self.destination)

    def begin(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Create an empty table in a temporary folder."""
        self.space = space
        self._group = RowGroup(space, keep, space_metadata(space, settings))
        with lancedb_errors(self.destination, "creating the table"):
            opt_out_of_telemetry()
            import lancedb  # noqa: PLC0415 - heavy, and an extra

            if not self._folder.exists():
                unfinished.track_empty(self._folder)
                self._folder.mkdir(parents=True)
                self._made_folder = True
            self._remove_stale()
            self._temporary = temporary_path(self._path)
            self._temporary.mkdir()
            database = lancedb.connect(str(self._temporary))
            self._table = database.create_table(self._name, schema=self._group.schema)

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Buffer rows and add them in large fragments, because each addition creates a version."""
        self._group.add(chunks, vectors)
        if self._group.full:
            self._flush()

    def commit(self) -> None:
        """Add the remaining rows and rename the table's folder."""
        self._flush()
        self._table = None
        refuse_existing(self._path, overwrite=self._overwrite, destination=self.destination)
        if self._temporary is None:
            return
        finished = _table_path(self._temporary, self._name)
        replaced = self._temporary / _REPLACED
        with sink_errors(self.destination, "finishing the table"):
            if self._path.exists():
                self._path.rename(replaced)
            try:
                finished.rename(self._path)
            except OSError:
                if replaced.exists():
                    replaced.rename(self._path)
                raise
            unfinished.remove(self._temporary)
        self._temporary = None

    def abort(self) -> None:
        """Remove the temporary folder, and the database's folder if it was created for this table."""
        self._table = None
        if self._temporary is not None:
            self._group.clear()
            _restore(self._temporary, self._path)
            unfinished.remove(self._temporary)
            self._temporary = None
        if self._made_folder:
            with suppress(OSError):
                self._folder.rmdir()
            self._made_folder = False

    @override
    def open(self) -> None:
        _require_lancedb()
        if not self._path.is_dir():
            raise SinkError("there is no such table", destination=self.destination)
        with lancedb_errors(self.destination, "reading"):
            opt_out_of_telemetry()
            import lancedb  # noqa: PLC0415 - heavy, and an extra

            self._table = lancedb.connect(str(self._folder)).open_table(self._name)
            schema = self._table.schema
            metadata = schema.metadata
            self.count = self._table.count_rows()
        space = space_from_metadata(metadata, destination=self.destination)
        self._facts = VerifiedFacts.of_store(self._folder / self._name, metadata, self.count)
        self.space = self._facts.complete(space)
        with lancedb_errors(self.destination, "reading"):
            check_columns(schema, self.space.dimensions, destination=self.destination)

    @override
    def read(self) -> Iterator[Rows]:
        first_row = 0
        with lancedb_errors(self.destination, "reading"):
            for batch in self._table.search().to_batches(READ_ROWS):
                if batch.num_rows:
                    yield rows_of(batch, self.space.dimensions, first_row=first_row, destination=self.destination)
                first_row += batch.num_rows

    @property
    def _path(self) -> Path:
        return _table_path(self._folder, self._name)

    def _search(self, query: Vectors, top_n: int) -> list[Hit]:
        """Search with LanceDB by cosine distance, which is exact if the table has no index."""
        with lancedb_errors(self.destination, "searching"):
            found = self._table.search(query, vector_column_name="vector").distance_type("cosine").limit(top_n)
            rows = found.select([*HIT_COLUMNS, "_distance"]).to_list()
        for number, row in enumerate(rows):
            check_fields(row, number, destination=self.destination)
        return [Hit.of(1.0 - row["_distance"], row) for row in rows]

    def _write_facts(self, space: Space) -> None:
        self._facts.write(space)

    def _flush(self) -> None:
        if not self._group.rows:
            return
        with lancedb_errors(self.destination, "writing"):
            self._table.add(self._group.table())
        self._group.clear()

    def _remove_stale(self) -> None:
        """Remove files left by killed processes, and restore a table that one of them moved away."""
        for stale in stale_paths(self._path):
            _restore(stale, self._path)
            unfinished.remove(stale)


def _table_path(folder: Path, table: str) -> Path:
    """Return the folder of a LanceDB table."""
    return folder / f"{table}.lance"


def _require_lancedb() -> None:
    if importlib.util.find_spec("lancedb") is None:
        raise MissingExtraError("a LanceDB table", extra="lancedb", package="lancedb")


def _restore(temporary: Path, path: Path) -> None:
    """Restore a table that was moved away, if the new one is missing."""
    replaced = temporary / _REPLACED
    if replaced.exists() and not path.exists():
        replaced.rename(path)
