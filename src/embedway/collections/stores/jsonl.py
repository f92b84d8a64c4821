"""JSON Lines files, `X.jsonl`: one row per chunk, the record in a sidecar.

New lines are written to a temporary file. At commit, a change writes another one: the old lines that stay, which are
copied as they are, then the new ones. It replaces the collection by a rename.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from typing_extensions import override

from embedway import unfinished
from embedway.collections.columns import RESERVED_COLUMNS
from embedway.collections.record import FORMAT_VERSION
from embedway.collections.stores.file_store import FileStore
from embedway.collections.stores.jsonl_lines import MAX_LINE_BYTES, lines_of
from embedway.collections.stores.jsonl_reader import JsonlReader
from embedway.collections.stores.jsonl_sidecar import JsonlSidecar
from embedway.collections.stores.library_errors import sink_errors
from embedway.collections.stores.temporary import file_state, refuse_existing, replace_file, temporary_path
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.types import Vectors

#: Tries to open a collection that another process replaces meanwhile.
_OPEN_TRIES = 100


class JsonlStore(FileStore):
    """Store with one JSON object per chunk; the vector is a list of numbers that restore the exact float32."""

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._sidecar = JsonlSidecar(self._path, destination)
        self._file: IO[bytes] | None = None
        self._reader: JsonlReader | None = None
        self._merged: Path | None = None

    @property
    @override
    def sidecars(self) -> tuple[Path, ...]:
        return (self._sidecar.path,)

    @override
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        self.check_rows(chunks, vectors)
        with sink_errors(self.destination, "writing"):
            self._writing.write(b"".join(lines_of(chunks, vectors, self.record)))
        self._changes.write(chunks)

    @override
    def commit(self) -> None:
        record = replace(self.record, revision=secrets.token_hex(8))
        with sink_errors(self.destination, "finishing the file"):
            self._writing.close()
            finished, rows = self._temporary, self._changes.rows
            if finished is None:
                return
            if self._updates or self._changes.replaces_own:
                finished = self._merged = temporary_path(self._path)
                rows = self._merge(finished)
            refuse_existing(self._path, overwrite=self._overwrite, destination=self.destination)
            entries = self._sidecar.begin(record, rows, finished.stat().st_size)
            replace_file(finished, self._path)
            self._sidecar.finish(entries)
            self._remove_temporary()
        self._file = self._reader = self._committed = None
        self.record, self.count = record, rows

    @override
    def abort(self) -> None:
        if self._file is not None:
            # Closing writes buffered rows, which fails on a full disk; the file is removed anyway.
            with suppress(OSError):
                self._file.close()
            self._file = None
        self._remove_temporary()
        self._sidecar.abort()
        if self._committed is not None:
            self.record, self._committed = self._committed, None

    @override
    def open(self) -> None:
        self._check_exists()
        with sink_errors(self.destination, "reading"):
            for _ in range(_OPEN_TRIES):
                before = file_state(self._path.stat())
                if self._open_once(before):
                    return
        raise SinkError("is replaced again and again; open it later", destination=self.destination)

    def _open_once(self, before: tuple[int, int, int]) -> bool:
        """Read the sidecar and open the data file; return whether both are of the file that was there before."""
        try:
            self.record, self.count = self._sidecar.read()
        except SinkError:
            if file_state(self._path.stat()) == before:
                raise
            return False
        if self.record.format_version < FORMAT_VERSION:
            self.record = replace(self.record, keep=dict.fromkeys(_kept_of(self._path), "text"))
        self._reader = JsonlReader(self._path, self.record, self.count, self.destination)
        return self._reader.state == before

    @property
    @override
    def content_stamp(self) -> str:
        return f"{self.count} {self._opened.state}"

    @override
    def close(self) -> None:
        self._reader = None

    @override
    def write_record(self, record: Record) -> None:
        self._sidecar.update(record)
        self.record = self._opened.record = record

    @property
    @override
    def _opened(self) -> JsonlReader:
        """The reader of the collection as it was committed the last time."""
        if self._reader is None:
            self._check_exists()
            record = self._committed or self.record
            self._reader = JsonlReader(self._path, record, self.count, self.destination)
        return self._reader

    @property
    def _writing(self) -> IO[bytes]:
        if self._file is None:
            raise SinkError("no change was started", destination=self.destination)
        return self._file

    @override
    def _open_writer(self, path: Path) -> None:
        self._sidecar.remove_stale()
        self._file = path.open("xb")

    def _merge(self, target: Path) -> int:
        """Write the old lines that stay and the new ones to a file; return their number."""
        new = JsonlReader(self._temporary or target, self.record, self._changes.rows, self.destination)
        rows = 0
        with target.open("xb") as file:
            for reader, keeps in (
                *([(self._opened, self._changes.keeps)] if self._updates else []),
                (new, self._changes.keeps_own),
            ):
                first = 0
                for lines, keys in reader.lines_and_keys():
                    columns = [[row[name] for row in keys] for name in ("id", "source", "document_id")]
                    stays = keeps(*columns, first=first)
                    kept = [line for line, one in zip(lines, stays, strict=True) if one]
                    file.write(b"".join(line + b"\n" for line in kept))
                    rows += len(kept)
                    first += len(lines)
        return rows

    def _remove_temporary(self) -> None:
        for path in (self._temporary, self._merged):
            if path is not None:
                unfinished.remove(path)
        self._temporary = self._merged = None


def _kept_of(path: Path) -> list[str]:
    """Return the kept columns of a collection before version 3, which does not record them, from its first line."""
    with path.open("rb") as file, suppress(ValueError, RecursionError):
        row = json.loads(file.readline(MAX_LINE_BYTES) or b"{}")
        return [name for name in row if name not in RESERVED_COLUMNS] if isinstance(row, dict) else []
    return []
