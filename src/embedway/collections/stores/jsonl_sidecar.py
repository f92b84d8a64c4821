"""Sidecar of a JSON Lines collection, `X.jsonl.embedway.json`: its record, number of rows, and size in bytes.

It is written before the data. When data is replaced, the sidecar describes both the old and the new data, each
identified by its size. So a kill between the two renames assigns neither to the wrong record.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from embedway import unfinished
from embedway.collections.record import FORMAT_VERSION
from embedway.collections.stores.library_errors import sink_errors
from embedway.collections.stores.records import (
    FORMAT,
    VERSION_KEY,
    check_format,
    record_from_json,
    record_metadata,
    sidecar_path,
    space_from_json,
)
from embedway.collections.stores.refusals import DECLARE
from embedway.collections.stores.temporary import remove_stale, replace_file, temporary_path, write_whole
from embedway.errors import SinkError
from embedway.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.collections.record import Record

_MAX_SIDECAR_BYTES = 1 << 24


class JsonlSidecar:
    """The sidecar of a data file."""

    def __init__(self, path: Path, destination: str) -> None:
        self.path = sidecar_path(path)
        self._data, self._destination = path, destination
        self._temporary: Path | None = None

    def read(self) -> tuple[Record, int]:
        """Return the record and the number of rows of the current data file. Raises `SinkError`."""
        entry, version = self._current()
        count = entry.get("rows")
        if type(count) is not int or count < 0:
            raise SinkError("its sidecar cannot be read; embed the file again", destination=self._destination)
        space = space_from_json(entry.get("space"), destination=self._destination)
        known = version if "record" in entry else min(version, FORMAT_VERSION - 1)
        facts = entry.get("record" if known == FORMAT_VERSION else "settings")
        return record_from_json(facts, space, {}, known, destination=self._destination), count

    def begin(self, record: Record, rows: int, size: int) -> list[dict[str, Any]]:
        """Describe the new data beside the present one; return the entry of the new one alone, for `finish`."""
        own = _entry(record, rows, size)
        previous = []
        if self._data.exists():
            # With two versions of the same size, the sidecar would be ambiguous, so the old entry is dropped.
            current = self._data.stat().st_size
            entries, _ = self._entries() or ([], 0)
            previous = [one for one in entries if one.get("bytes") == current and one.get("bytes") != size]
        self._write([own, *previous])
        return [own] if previous else []

    def finish(self, entries: list[dict[str, Any]]) -> None:
        """Describe only the new data, which is in its place."""
        if entries:
            self._write(entries)

    def update(self, record: Record) -> None:
        """Replace the record of the current data file. Raises `SinkError` and OSError."""
        current, _ = self._current()
        entries, _ = self._entries() or ([], 0)
        facts = _entry(record, 0, 0)
        if record.format_version < FORMAT_VERSION:
            del facts["record"]
        for name in ("rows", "bytes"):
            facts[name] = current.get(name)
        changed = [{**one, **facts} if one == current else one for one in entries]
        with sink_errors(self._destination, "writing the sidecar"):
            write_whole(self.path, _text(changed))

    def remove_stale(self) -> None:
        """Remove temporary files of killed processes."""
        remove_stale(self.path)

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._temporary is not None:
            unfinished.remove(self._temporary)
            self._temporary = None

    def _current(self) -> tuple[dict[str, Any], int]:
        """Return the entry of the current data file, and the version. Raises `SinkError` if there is none."""
        found = self._entries()
        if found is None:
            raise SinkError(
                f"has an unknown vector space: {self.path.name} is missing or cannot be read; {DECLARE}",
                destination=self._destination,
            )
        size = self._data.stat().st_size
        for entry in found[0]:
            if entry.get("bytes") == size:
                return entry, found[1]
        raise SinkError(
            f"{self.path.name} describes another version of the file; embed it again", destination=self._destination
        )

    def _entries(self) -> tuple[list[dict[str, Any]], int] | None:
        """Return the entries and the version; None if the file is missing or unreadable.

        Raises `SinkError` for a newer format.
        """
        try:
            content = json.loads(read_regular(self.path, most_bytes=_MAX_SIDECAR_BYTES) or b"")
            entries = content["collections"]
            version = content.get("version")
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        found = check_format(version, destination=self._destination)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return None
        return entries, found

    def _write(self, entries: list[dict[str, Any]]) -> None:
        self._temporary = temporary_path(self.path)
        self._temporary.write_text(_text(entries), encoding="utf-8")
        replace_file(self._temporary, self.path)
        self._temporary = None


def _entry(record: Record, rows: int, size: int) -> dict[str, Any]:
    return {
        "space": record.space.to_json(),
        "record": record.to_json(),
        "version": record_metadata(record)[VERSION_KEY],
        "rows": rows,
        "bytes": size,
    }


def _text(entries: list[dict[str, Any]]) -> str:
    content = {"format": FORMAT, "version": FORMAT_VERSION, "collections": entries}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
