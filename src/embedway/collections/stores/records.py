"""Records of a store's vector space, and of facts that were verified later."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway._version import __version__
from embedway.collections.record import FORMAT_VERSION, Record
from embedway.collections.stores.refusals import DECLARE
from embedway.collections.stores.temporary import write_whole
from embedway.errors import SinkError, newer_version
from embedway.files import read_regular
from embedway.space import Space, SpaceVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from embedway.collections.values import ColumnType

#: Format of collections.
FORMAT = "embedway collection"
FORMAT_KEY = "embedway.format"
SPACE_KEY = "embedway.space"
SETTINGS_KEY = "embedway.settings"
RECORD_KEY = "embedway.record"
VERSION_KEY = "embedway.version"
_FACTS_FORMAT, _FACTS_VERSION = "embedway proven space", 2
_MAX_FACTS_BYTES = 1 << 20
#: Far more than any model has.
MAX_DIMENSIONS = 1 << 20


def sidecar_path(path: Path) -> Path:
    """Return the path of the file of facts beside a data file or table."""
    return path.with_name(f"{path.name}.embedway.json")


def record_metadata(record: Record) -> dict[str, str]:
    """Return the record for a schema's metadata: format, space and the other facts as JSON, and embedway's version."""
    return {
        FORMAT_KEY: str(FORMAT_VERSION),
        SPACE_KEY: json.dumps(record.space.to_json(), ensure_ascii=False),
        RECORD_KEY: json.dumps(record.to_json(), ensure_ascii=False),
        VERSION_KEY: __version__,
    }


def space_from_json(facts: object, *, destination: str) -> Space:
    """Return the space in a record. Raises `SinkError` if the facts are not those of a space."""
    try:
        space = Space.from_json(facts)
    except SpaceVersionError as error:
        raise SinkError(f"its vector space {error}", destination=destination) from None
    except ValueError:
        message = "contains a vector space that this version cannot read"
        raise SinkError(message, destination=destination) from None
    if space.dimensions > MAX_DIMENSIONS:
        message = f"claims vectors of more than {MAX_DIMENSIONS:,} dimensions; it is damaged"
        raise SinkError(message, destination=destination)
    return space


def check_format(version: object, *, destination: str) -> int:
    """Return the version of a collection's format; None means version 1. Raise `SinkError` for a newer one."""
    try:
        found = 1 if version is None else int(version) if isinstance(version, (int, str)) else 0
    except ValueError:
        found = 0
    if found < 1:
        raise SinkError(
            "has no valid format version; it is damaged, or not written by embedway", destination=destination
        )
    if found > FORMAT_VERSION:
        raise SinkError(newer_version(found, FORMAT_VERSION, of="collections"), destination=destination)
    return found


def record_from_metadata(
    metadata: Mapping[bytes, bytes] | None, keep: Mapping[str, ColumnType], *, destination: str
) -> Record:
    """Return the record in the schema metadata of a Parquet file or LanceDB table.

    `keep` are the columns beside the built-in ones, which a collection of version 1 or 2 does not record.
    """
    named = metadata or {}
    if SPACE_KEY.encode() not in named:
        reason = f"has no record of its vector space, so embedway did not write it, or it was changed; {DECLARE}"
        raise SinkError(reason, destination=destination)
    raw = named.get(FORMAT_KEY.encode())
    version = check_format(None if raw is None else raw.decode("ascii", "replace"), destination=destination)
    space = space_from_json(_parsed(named.get(SPACE_KEY.encode())), destination=destination)
    return record_from_json(
        _parsed(named.get((RECORD_KEY if version == FORMAT_VERSION else SETTINGS_KEY).encode())),
        space,
        dict(keep),
        version,
        destination=destination,
    )


def record_from_json(
    facts: object, space: Space, keep: dict[str, ColumnType], version: int, *, destination: str
) -> Record:
    """Return the record with these facts, of any version. Raises `SinkError`."""
    if version < FORMAT_VERSION:
        return Record.of_settings(space, facts, keep, version)
    try:
        return Record.from_json(facts, space)
    except ValueError:
        raise SinkError("has a record that this version cannot read", destination=destination) from None


def _parsed(data: bytes | None) -> object:
    try:
        return json.loads(data or b"null")
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class RecordFile:
    """Newer facts of a record in a file beside a store whose own record cannot be changed in place.

    They apply only to the record and the number of rows for which they were written. Version 1 of the file has the
    space alone.
    """

    path: Path
    record: bytes
    rows: int

    @classmethod
    def of_store(cls, path: Path, metadata: Mapping[bytes, bytes], rows: int) -> RecordFile:
        """Return the file of the store at a path, with this metadata of its schema."""
        own = metadata[SPACE_KEY.encode()] + metadata.get(RECORD_KEY.encode(), b"")
        return cls(sidecar_path(path), own, rows)

    def complete(self, record: Record) -> Record:
        """Return the record, with the facts that were written for it."""
        try:
            content = json.loads(read_regular(self.path, most_bytes=_MAX_FACTS_BYTES) or b"")
            known = content["format"] == _FACTS_FORMAT and content["version"] in {1, _FACTS_VERSION}
            if known and content["of"] == self._digest():
                record = record.with_space(record.space.with_facts(Space.from_json(content["space"])))
                if content["version"] > 1 and record.format_version == FORMAT_VERSION:
                    record = Record.from_json(content["record"], record.space)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SpaceVersionError):
            pass
        return record

    def write(self, record: Record) -> None:
        """Write the facts. Raises OSError."""
        content = {
            "format": _FACTS_FORMAT,
            "version": _FACTS_VERSION,
            "of": self._digest(),
            "space": record.space.to_json(),
            "record": record.to_json(),
        }
        write_whole(self.path, json.dumps(content, indent=1) + "\n")

    def _digest(self) -> str:
        return hashlib.sha256(self.record + f" {self.rows}".encode()).hexdigest()
