"""LanceDB tables: `lancedb:DIR#TABLE`.

A table is a folder, `DIR/TABLE.lance`. It is written inside a temporary folder beside it and renamed when it
is whole. Folders cannot be replaced in one step: an old table is moved into the temporary folder first, and
the next run puts it back should the process be killed between the two renames.
"""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.base import arrow_batch, arrow_schema, collection_metadata, sink_errors
from embedway.collections.stores.parquet import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from embedway.collections.stores.temporary import refuse_existing, remove, stale_paths, temporary_path
from embedway.errors import MissingExtraError, SinkError, UsageError
from embedway.opt_out import opt_out_of_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.collections.stores.base import Chunk
    from embedway.types import Space, Vectors

SCHEME = "lancedb:"
_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_REPLACED = "replaced.lance"


def parse_lancedb(destination: str) -> tuple[Path, str]:
    """The folder and the table's name in `lancedb:DIR#TABLE`. Raises `UsageError`."""
    folder, hash_sign, table = destination.removeprefix(SCHEME).rpartition("#")
    if not hash_sign or not folder or not _TABLE_NAME.fullmatch(table):
        raise UsageError(f"{destination!r} is not lancedb:DIR#TABLE; a table's name has letters, digits and _ . - only")
    return Path(folder), table


def table_path(folder: Path, table: str) -> Path:
    """Where LanceDB keeps a table."""
    return folder / f"{table}.lance"


def require_lancedb() -> None:
    """Raise `MissingExtraError` where LanceDB is not installed."""
    if importlib.util.find_spec("lancedb") is None:
        raise MissingExtraError("a LanceDB table", extra="lancedb", package="lancedb")


@contextmanager
def lancedb_errors(destination: str, doing: str) -> Iterator[None]:
    """Turn what LanceDB raises into `SinkError`; its messages may quote rows, so they are only chained."""
    with sink_errors(destination, doing):
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise SinkError(f"{doing} failed: {type(error).__name__}", destination=destination) from error


class LanceDBSink:
    """Writes a LanceDB table; its schema's metadata holds the space and the settings."""

    def __init__(self, destination: str, *, overwrite: bool = False) -> None:
        self.destination = destination
        self.overwrite = overwrite
        self._folder, self._name = parse_lancedb(destination)
        require_lancedb()
        self._path = table_path(self._folder, self._name)
        self._temporary: Path | None = None
        self._made_folder = False
        self._table: Any = None
        self._schema: Any = None
        self._keep: tuple[str, ...] = ()
        self._held: list[Any] = []
        self._held_rows = 0
        self._held_bytes = 0
        refuse_existing(self._path, overwrite=overwrite, destination=destination)
        nearest = next(parent for parent in (self._folder, *self._folder.absolute().parents) if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise SinkError(f"{nearest} is no folder that may be written to", destination=destination)

    def open(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Make an empty table in a temporary folder."""
        self._keep = tuple(keep)
        self._schema = arrow_schema(space, keep, collection_metadata(space, settings))
        with lancedb_errors(self.destination, "making the table"):
            opt_out_of_telemetry()
            import lancedb  # noqa: PLC0415 - heavy, and an extra

            if not self._folder.exists():
                self._folder.mkdir(parents=True)
                self._made_folder = True
            self._clean_up_after_the_dead()
            self._temporary = temporary_path(self._path)
            self._temporary.mkdir()
            database = lancedb.connect(str(self._temporary))
            self._table = database.create_table(self._name, schema=self._schema)

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Hold rows until there are enough for a fragment, then add them: each addition is a version."""
        batch = arrow_batch(chunks, vectors, self._schema, self._keep)
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def commit(self) -> None:
        """Add the rest and rename the table's folder."""
        self._flush()
        self._table = None
        refuse_existing(self._path, overwrite=self.overwrite, destination=self.destination)
        if self._temporary is None:
            return
        finished = table_path(self._temporary, self._name)
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
            remove(self._temporary)
        self._temporary = None

    def abort(self) -> None:
        """Remove the temporary folder, and the database's where it was made for this table."""
        self._table = None
        self._held.clear()
        if self._temporary is not None:
            _restore(self._temporary, self._path)
            remove(self._temporary)
            self._temporary = None
        if self._made_folder:
            with suppress(OSError):
                self._folder.rmdir()
            self._made_folder = False

    def _flush(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - heavy

        if not self._held:
            return
        with lancedb_errors(self.destination, "writing"):
            self._table.add(pa.Table.from_batches(self._held, self._schema))
        self._held.clear()
        self._held_rows = self._held_bytes = 0

    def _clean_up_after_the_dead(self) -> None:
        for stale in stale_paths(self._path):
            _restore(stale, self._path)
            remove(stale)


def _restore(temporary: Path, path: Path) -> None:
    """Put back a table that was moved away to be replaced, where the new one never came."""
    replaced = temporary / _REPLACED
    if replaced.exists() and not path.exists():
        replaced.rename(path)
