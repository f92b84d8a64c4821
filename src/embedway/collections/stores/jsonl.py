"""JSON Lines files, and the sidecar that says which vector space they hold.

Each row names its space's id. All facts of the space and the settings are in `X.jsonl.embedway.json`, which
is put there before the data. Where data is being replaced, the sidecar speaks of both the old and the new,
each told by its size in bytes, so that a kill between the two renames leaves neither under the other's space.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from embedway.collections.stores.base import (
    FORMAT,
    FORMAT_VERSION,
    VERSION_KEY,
    check_format,
    collection_metadata,
    sink_errors,
)
from embedway.collections.stores.temporary import (
    check_file_destination,
    refuse_existing,
    remove,
    remove_stale,
    replace_file,
    temporary_path,
    write_whole,
)
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.collections.stores.base import Chunk
    from embedway.types import Space, Vectors


def sidecar_path(path: Path) -> Path:
    """Where the facts about a JSON Lines file are."""
    return path.with_name(f"{path.name}.embedway.json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """The sidecar's entry for the data file as it is now. Raises `SinkError` where there is none."""
    destination = str(path)
    sidecar = sidecar_path(path)
    entries = _entries(sidecar, destination=destination)
    if entries is None:
        raise SinkError(
            f"does not say which vector space it holds: {sidecar.name} is missing or cannot be read",
            destination=destination,
        )
    size = path.stat().st_size
    for entry in entries:
        if entry.get("bytes") == size:
            return entry
    raise SinkError(f"{sidecar.name} speaks of another version of the file; embed it anew", destination=destination)


class JsonlSink:
    """Writes `X.jsonl`: one object per chunk, the vector as a list of numbers that give the exact float32."""

    def __init__(self, destination: str, *, overwrite: bool = False) -> None:
        self.destination = destination
        self.overwrite = overwrite
        self._path = Path(destination)
        self._temporary: Path | None = None
        self._sidecar_temporary: Path | None = None
        self._file: IO[bytes] | None = None
        self._keep: tuple[str, ...] = ()
        self._entry: dict[str, object] = {}
        self._space_id = ""
        self._rows = 0
        self._bytes = 0
        check_file_destination(self._path, overwrite=overwrite)

    def open(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Make the temporary file."""
        self._keep = tuple(keep)
        self._space_id = space.id
        self._entry = {
            "space": space.to_json(),
            "settings": dict(settings),
            "version": collection_metadata(space, settings)[VERSION_KEY],
        }
        with sink_errors(self.destination, "making the file"):
            remove_stale(self._path)
            remove_stale(sidecar_path(self._path))
            self._temporary = temporary_path(self._path)
            self._file = self._temporary.open("xb")

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add a line for each chunk."""
        lines = []
        for chunk, numbers in zip(chunks, _joined_numbers(vectors), strict=True):
            row = {
                "id": chunk.id,
                "document_id": chunk.document_id,
                "source": chunk.source,
                "start_line": chunk.start_line,
                "title": chunk.title,
                "text": chunk.text,
                **{name: chunk.metadata.get(name) for name in self._keep},
                "space": self._space_id,
            }
            head = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            lines.append(f'{head[:-1]},"vector":[{numbers}]}}\n')
        data = "".join(lines).encode()
        with sink_errors(self.destination, "writing"):
            if self._file is not None:
                self._file.write(data)
        self._rows += len(lines)
        self._bytes += len(data)

    def commit(self) -> None:
        """Put the sidecar in its place, then the data."""
        refuse_existing(self._path, overwrite=self.overwrite, destination=self.destination)
        sidecar = sidecar_path(self._path)
        entry = {**self._entry, "rows": self._rows, "bytes": self._bytes}
        with sink_errors(self.destination, "finishing the file"):
            if self._file is not None:
                self._file.close()
            both = [entry, *self._previous(sidecar)]
            self._write_sidecar(sidecar, both)
            if self._temporary is not None:
                replace_file(self._temporary, self._path)
            self._temporary = None
            if len(both) > 1:
                self._write_sidecar(sidecar, [entry])

    def abort(self) -> None:
        """Close and remove the temporary files."""
        if self._file is not None:
            self._file.close()
            self._file = None
        for path in (self._temporary, self._sidecar_temporary):
            if path is not None:
                remove(path)
        self._temporary = self._sidecar_temporary = None

    def _previous(self, sidecar: Path) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        size = self._path.stat().st_size
        # Of two versions of one size nobody could tell which the sidecar means; then the old facts go.
        return [
            entry
            for entry in _entries(sidecar, destination=self.destination) or []
            if entry.get("bytes") == size and entry.get("bytes") != self._bytes
        ]

    def _write_sidecar(self, sidecar: Path, entries: list[dict[str, Any]]) -> None:
        self._sidecar_temporary = temporary_path(sidecar)
        self._sidecar_temporary.write_text(_sidecar_text(entries), encoding="utf-8")
        replace_file(self._sidecar_temporary, sidecar)
        self._sidecar_temporary = None


def write_facts(path: Path, space: Space) -> None:
    """Put the facts of a space that were proven into the sidecar of a file. Raises SinkError."""
    destination = str(path)
    sidecar = sidecar_path(path)
    entry = read_sidecar(path)
    entries = [{**one, "space": space.to_json()} if one == entry else one for one in _entries(sidecar) or []]
    with sink_errors(destination, "writing the sidecar"):
        write_whole(sidecar, _sidecar_text(entries))


def _sidecar_text(entries: Sequence[Mapping[str, Any]]) -> str:
    content = {"format": FORMAT, "version": FORMAT_VERSION, "collections": list(entries)}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _entries(sidecar: Path, *, destination: str = "") -> list[dict[str, Any]] | None:
    """The sidecar's entries; None where there is none that can be read. Raises SinkError for a newer format."""
    try:
        content = json.loads(sidecar.read_bytes())
        entries = content["collections"]
        version = content.get("version")
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    check_format(version, destination=destination or str(sidecar))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    return entries


def _joined_numbers(vectors: Vectors) -> list[str]:
    """Each vector as the inside of a JSON list, in the shortest digits that give the same float32."""
    import numpy as np  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    digits = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)).cast(pa.string())
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    joined: list[str] = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), digits), ",").to_pylist()
    return joined
