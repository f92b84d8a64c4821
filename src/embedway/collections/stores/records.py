"""Records of a store's vector space, and of facts that were verified later."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway._version import __version__
from embedway.collections.stores.temporary import write_whole
from embedway.errors import SinkError, newer_version
from embedway.files import read_regular
from embedway.space import Space, SpaceVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Format of the output of `run`, and its version. 1 has no version field; 2 contains all facts of spaces.
FORMAT = "embedway collection"
FORMAT_VERSION = 2
FORMAT_KEY = "embedway.format"
SPACE_KEY = "embedway.space"
SETTINGS_KEY = "embedway.settings"
VERSION_KEY = "embedway.version"
_FACTS_FORMAT, _FACTS_VERSION = "embedway proven space", 1
_MAX_FACTS_BYTES = 1 << 20
#: Far more than any model has.
MAX_DIMENSIONS = 1 << 20


def sidecar_path(path: Path) -> Path:
    """Return the path of the file of facts beside a data file or table."""
    return path.with_name(f"{path.name}.embedway.json")


def space_metadata(space: Space, settings: Mapping[str, object]) -> dict[str, str]:
    """Return the record for a schema's metadata: format, space and settings as JSON, and embedway's version."""
    return {
        FORMAT_KEY: str(FORMAT_VERSION),
        SPACE_KEY: json.dumps(space.to_json(), ensure_ascii=False),
        SETTINGS_KEY: json.dumps(dict(settings), ensure_ascii=False),
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


def check_format(version: object, *, destination: str) -> None:
    """Raise `SinkError` for a collection of a newer format; None means version 1, which has no version field."""
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


def space_from_metadata(metadata: Mapping[bytes, bytes] | None, *, destination: str) -> Space:
    """Return the space in the schema metadata of a Parquet file or LanceDB table."""
    named = metadata or {}
    raw = named.get(SPACE_KEY.encode())
    if raw is None:
        reason = "has no record of its vector space; it was not written by `embedway run`"
        raise SinkError(reason, destination=destination)
    version = named.get(FORMAT_KEY.encode())
    check_format(None if version is None else version.decode("ascii", "replace"), destination=destination)
    try:
        facts = json.loads(raw)
    except (ValueError, RecursionError):
        facts = None
    return space_from_json(facts, destination=destination)


@dataclass(frozen=True, slots=True)
class VerifiedFacts:
    """Verified facts in a file beside a store whose own record cannot be changed in place.

    They apply only to the record and the number of rows for which they were verified.
    """

    path: Path
    record: bytes
    rows: int

    @classmethod
    def of_store(cls, path: Path, metadata: Mapping[bytes, bytes], rows: int) -> VerifiedFacts:
        """Return the facts of the store at a path, with this metadata of its schema."""
        return cls(sidecar_path(path), metadata[SPACE_KEY.encode()], rows)

    def complete(self, space: Space) -> Space:
        """Return the space of the record, with the facts that were verified for it."""
        if space.tokenizer is not None and space.config is not None:
            return space
        try:
            content = json.loads(read_regular(self.path, most_bytes=_MAX_FACTS_BYTES) or b"")
            known = (content["format"], content["version"]) == (_FACTS_FORMAT, _FACTS_VERSION)
            if known and content["of"] == self._digest():
                return space.with_facts(Space.from_json(content["space"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SpaceVersionError):
            pass
        return space

    def write(self, space: Space) -> None:
        """Write the facts. Raises OSError."""
        content = {"format": _FACTS_FORMAT, "version": _FACTS_VERSION, "of": self._digest(), "space": space.to_json()}
        write_whole(self.path, json.dumps(content, indent=1) + "\n")

    def _digest(self) -> str:
        return hashlib.sha256(self.record + f" {self.rows}".encode()).hexdigest()
