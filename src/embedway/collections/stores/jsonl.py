"""JSON Lines files, `X.jsonl`, with a sidecar that records their vector space.

Each row contains the id of its space. All facts of the space and the settings are in `X.jsonl.embedway.json`, which is
written before the data. When data is replaced, the sidecar describes both the old and the new data, each identified by
its size in bytes. So a kill between the two renames assigns neither to the wrong space.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from embedway import unfinished
from embedway.collections.search import TopRows, cosines
from embedway.collections.stores.arrow import sink_errors
from embedway.collections.stores.base import READ_ROWS, FileStore, Rows, check_fields
from embedway.collections.stores.records import (
    FORMAT,
    FORMAT_VERSION,
    VERSION_KEY,
    check_format,
    sidecar_path,
    space_from_json,
    space_metadata,
)
from embedway.collections.stores.temporary import (
    refuse_existing,
    remove_stale,
    replace_file,
    temporary_path,
    write_whole,
)
from embedway.errors import SinkError
from embedway.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from embedway.collections.search import Hit
    from embedway.collections.stores.base import Chunk
    from embedway.types import Space, Vectors


#: Maximum bytes of a line, and of the sidecar.
MAX_LINE_BYTES = 1 << 28
_MAX_SIDECAR_BYTES = 1 << 24


class JsonlStore(FileStore):
    """Store with one JSON object per chunk; the vector is a list of numbers that restore the exact float32."""

    _entry: dict[str, Any]

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._sidecar = sidecar_path(self._path)
        self._sidecar_temporary: Path | None = None
        self._file: IO[bytes] | None = None
        self._keep: tuple[str, ...] = ()

    @property
    @override
    def sidecars(self) -> tuple[Path, ...]:
        return (self._sidecar,)

    def begin(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Create the temporary file."""
        self.space = space
        self._keep = tuple(keep)
        self._entry = {
            "space": space.to_json(),
            "settings": dict(settings),
            "version": space_metadata(space, settings)[VERSION_KEY],
            "rows": 0,
            "bytes": 0,
        }
        with sink_errors(self.destination, "creating the file"):
            remove_stale(self._path)
            remove_stale(self._sidecar)
            self._temporary = temporary_path(self._path)
            self._file = self._temporary.open("xb")

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add a line per chunk."""
        lines = []
        for chunk, numbers in zip(chunks, _join_numbers(vectors), strict=True):
            row = {
                "id": chunk.id,
                "document_id": chunk.document_id,
                "source": chunk.source,
                "start_line": chunk.start_line,
                "title": chunk.title,
                "text": chunk.text,
                **{name: chunk.metadata.get(name) for name in self._keep},
                "space": self.space.id,
            }
            head = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            lines.append(f'{head[:-1]},"vector":[{numbers}]}}\n')
        data = "".join(lines).encode()
        with sink_errors(self.destination, "writing"):
            if self._file is not None:
                self._file.write(data)
        self._entry["rows"] += len(lines)
        self._entry["bytes"] += len(data)

    def commit(self) -> None:
        """Rename the sidecar to its final path, then the data."""
        refuse_existing(self._path, overwrite=self._overwrite, destination=self.destination)
        with sink_errors(self.destination, "finishing the file"):
            if self._file is not None:
                self._file.close()
            both = [self._entry, *self._previous_entries()]
            self._write_sidecar(both)
            if self._temporary is not None:
                replace_file(self._temporary, self._path)
            self._temporary = None
            if len(both) > 1:
                self._write_sidecar([self._entry])

    def abort(self) -> None:
        """Close and remove the temporary files."""
        if self._file is not None:
            # Closing writes buffered rows, which fails on a full disk; the file is removed anyway.
            with suppress(OSError):
                self._file.close()
            self._file = None
        for path in (self._temporary, self._sidecar_temporary):
            if path is not None:
                unfinished.remove(path)
        self._temporary = self._sidecar_temporary = None

    def open(self) -> None:
        """Read the sidecar's entry for the current data file."""
        self._check_exists()
        entry = self._current_entry()
        count = entry.get("rows")
        if type(count) is not int or count < 0:
            raise SinkError("its sidecar cannot be read; embed the file again", destination=self.destination)
        self.count = count
        self.space = space_from_json(entry.get("space"), destination=self.destination)

    @override
    def read(self) -> Iterator[Rows]:
        batch: list[dict[str, Any]] = []
        vectors: list[Vectors] = []
        with sink_errors(self.destination, "reading"), self._path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                row = self._parse(line, number)
                vectors.append(self._vector(row.pop("vector"), number))
                batch.append(row)
                if len(batch) == READ_ROWS:
                    yield Rows(batch, np.stack(vectors))
                    batch, vectors = [], []
        if batch:
            yield Rows(batch, np.stack(vectors))

    def _search(self, query: Vectors, top_n: int) -> list[Hit]:
        """Read the file once, and retain only the best rows so far."""
        best = TopRows(top_n)
        kept: dict[int, dict[str, Any]] = {}
        first_row = 0
        for rows in self.read():
            best.add(cosines(rows.vectors, query), first_row)
            kept.update(enumerate(rows.fields, first_row))
            kept = {row: kept[row] for row in best.rows.tolist()}
            first_row += len(rows.fields)
        return best.hits(kept)

    def _write_facts(self, space: Space) -> None:
        current = self._current_entry()
        entries = [{**one, "space": space.to_json()} if one == current else one for one in self._entries() or []]
        with sink_errors(self.destination, "writing the sidecar"):
            write_whole(self._sidecar, _sidecar_text(entries))

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        if len(line) > MAX_LINE_BYTES:
            raise SinkError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes", destination=self.destination)
        try:
            row: dict[str, Any] = json.loads(line)
            if row["space"] == self.space.id and len(row["vector"]) == self.space.dimensions:
                check_fields(row, number - 1, destination=self.destination)
                return row
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise SinkError(f"line {number} is not a row of the space {self.space.id}", destination=self.destination)

    def _vector(self, numbers: Any, line: int) -> Vectors:
        """Return the vector of a line. Raises `SinkError` if it has anything but numbers of float32."""
        if isinstance(numbers, list) and set(map(type, numbers)) <= {int, float}:
            with suppress(OverflowError), np.errstate(over="ignore"):
                vector = np.array(numbers, np.float32)
                if np.isfinite(vector).all():
                    return vector
        raise SinkError(
            f"the vector of line {line} has a value that is not a finite number; embed the texts again",
            destination=self.destination,
        )

    def _current_entry(self) -> dict[str, Any]:
        """Return the sidecar's entry for the current data file. Raises `SinkError` if there is none."""
        entries = self._entries()
        if entries is None:
            raise SinkError(
                f"has an unknown vector space: {self._sidecar.name} is missing or cannot be read",
                destination=self.destination,
            )
        size = self._path.stat().st_size
        for entry in entries:
            if entry.get("bytes") == size:
                return entry
        raise SinkError(
            f"{self._sidecar.name} describes another version of the file; embed it again", destination=self.destination
        )

    def _previous_entries(self) -> list[dict[str, Any]]:
        """Return the entries for the data that is replaced."""
        if not self._path.exists():
            return []
        size = self._path.stat().st_size
        # With two versions of the same size, the sidecar would be ambiguous, so the old entry is dropped.
        return [
            entry
            for entry in self._entries() or []
            if entry.get("bytes") == size and entry.get("bytes") != self._entry["bytes"]
        ]

    def _entries(self) -> list[dict[str, Any]] | None:
        """Return the sidecar's entries; None if it is missing or unreadable. Raises `SinkError` for a newer format."""
        try:
            content = json.loads(read_regular(self._sidecar, most_bytes=_MAX_SIDECAR_BYTES) or b"")
            entries = content["collections"]
            version = content.get("version")
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        check_format(version, destination=self.destination)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return None
        return entries

    def _write_sidecar(self, entries: list[dict[str, Any]]) -> None:
        self._sidecar_temporary = temporary_path(self._sidecar)
        self._sidecar_temporary.write_text(_sidecar_text(entries), encoding="utf-8")
        replace_file(self._sidecar_temporary, self._sidecar)
        self._sidecar_temporary = None


def _sidecar_text(entries: list[dict[str, Any]]) -> str:
    content = {"format": FORMAT, "version": FORMAT_VERSION, "collections": entries}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _join_numbers(vectors: Vectors) -> list[str]:
    """Return each vector as the inside of a JSON list, with the fewest digits that restore the same float32."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    digits = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)).cast(pa.string())
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    joined: list[str] = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), digits), ",").to_pylist()
    return joined
