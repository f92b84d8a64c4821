"""Folder of a LanceDB table, and the file in it that says which version of the table is the collection.

LanceDB makes a version of a table at each addition and removal. A change of a collection needs several, so the file
names the version before the change as long as the change lasts. Readers read that version. The change is complete when
the file is replaced.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.collections.record import FORMAT_VERSION, Record
from embedway.collections.stores.library_errors import sink_errors
from embedway.collections.stores.records import RECORD_KEY, SPACE_KEY
from embedway.collections.stores.temporary import stale_paths, write_whole
from embedway.collections.where_forms import sql_value
from embedway.errors import MissingExtraError, SinkError
from embedway.files import read_regular
from embedway.opt_out import opt_out_of_telemetry
from embedway.space import Space, SpaceVersionError
from embedway.unfinished import remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from embedway.collections.documents import DocumentKey

#: Folder of a table that was moved away, in a temporary folder.
REPLACED = "replaced.lance"
_HEAD, _FORMAT, _VERSION = "embedway.json", "embedway table", 1
_MAX_HEAD_BYTES = 4 << 20
#: Maximum number of values in a filter.
_FILTER_VALUES = 500


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


def require_lancedb() -> None:
    """Raise `MissingExtraError` if LanceDB is not installed."""
    if importlib.util.find_spec("lancedb") is None:
        raise MissingExtraError("a LanceDB table", extra="lancedb", package="lancedb")


def connect(folder: Path) -> Any:
    """Return the database in a folder."""
    opt_out_of_telemetry()
    import lancedb  # noqa: PLC0415 - heavy, and an extra

    return lancedb.connect(str(folder.absolute()))  # a relative a:b would be a URI


def table_path(folder: Path, table: str) -> Path:
    """Return the folder of a table."""
    return folder / f"{table}.lance"


@dataclass(frozen=True, slots=True)
class Head:
    """State of a table: its record, and the version before the present change, or None without one."""

    record: Record
    unfinished_from: int | None = None

    def write(self, path: Path, metadata: Mapping[bytes, bytes]) -> None:
        """Write the state of the table in a folder. Raises OSError."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "of": _digest(metadata),
            "unfinished_from": self.unfinished_from,
            "space": self.record.space.to_json(),
            "record": self.record.to_json(),
        }
        write_whole(path / _HEAD, json.dumps(content, indent=1) + "\n")

    @classmethod
    def parse(cls, data: bytes | None, metadata: Mapping[bytes, bytes], *, destination: str) -> Head | None:
        """Return the state in a file; None without a file, or if it belongs to another table.

        Raises `SinkError` for a damaged file: without it, rows of an unfinished change could be read.
        """
        if data is None:
            return None
        try:
            content = json.loads(data)
            if content["of"] != _digest(metadata):
                return None
            version = content["unfinished_from"]
            valid = content["format"] == _FORMAT and content["version"] == _VERSION
            if valid and (version is None or (type(version) is int and version > 0)):
                return cls(Record.from_json(content["record"], Space.from_json(content["space"])), version)
        except (ValueError, KeyError, TypeError, RecursionError, SpaceVersionError):
            pass
        raise SinkError(f"{_HEAD} in its folder is damaged, or of a newer version", destination=destination)


def read_head(path: Path) -> bytes | None:
    """Return the content of the file of state in a table's folder; None without one. Raises OSError."""
    return read_regular(path / _HEAD, most_bytes=_MAX_HEAD_BYTES)


def _digest(metadata: Mapping[bytes, bytes]) -> str:
    own = metadata.get(SPACE_KEY.encode(), b"") + metadata.get(RECORD_KEY.encode(), b"")
    return hashlib.sha256(own).hexdigest()


def document_filters(documents: Iterable[DocumentKey]) -> Iterator[str]:
    """Return filters that together find the rows of documents."""
    by_source: dict[str, list[str]] = {}
    for source, document in documents:
        by_source.setdefault(source, []).append(document)
    for source, ids in sorted(by_source.items()):
        of_source = f"`source` = {sql_value(source, 'text')}"
        for part in value_filters("document_id", ids):
            yield f"({of_source} AND {part})"


def value_filters(column: str, values: Sequence[str]) -> Iterator[str]:
    """Return filters that together find the rows with these texts in a column."""
    for start in range(0, len(values), _FILTER_VALUES):
        some = ", ".join(sql_value(value, "text") for value in values[start : start + _FILTER_VALUES])
        yield f"(`{column}` IN ({some}))"


def replace_table(finished: Path, path: Path, temporary: Path) -> None:
    """Move a finished table to its place; an old one is moved into the temporary folder, which is then removed.

    Raises OSError, and the old table is back.
    """
    replaced = temporary / REPLACED
    if path.exists():
        path.rename(replaced)
    try:
        finished.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
    remove(temporary)


def restore(temporary: Path, path: Path) -> None:
    """Move a table back that was moved away, if the new one is missing."""
    replaced = temporary / REPLACED
    if replaced.exists() and not path.exists():
        replaced.rename(path)


def restore_moved(path: Path) -> None:
    """Move a table back that a killed process moved away. Raises OSError."""
    if not path.exists() and path.parent.is_dir():
        for stale in stale_paths(path):
            restore(stale, path)


def can_be_changed(record: Record) -> bool:
    """Return whether the table's state is in its own file, as since version 3 of collections."""
    return record.format_version >= FORMAT_VERSION
