"""Records of collections on servers, as one JSON text, and names of collections that are being written."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, Final

from embedway.collections.record import FORMAT_VERSION, Record
from embedway.collections.stores.records import FORMAT, record_from_json, space_from_json
from embedway.errors import SinkError, newer_version

#: Key of the record in the metadata of a collection of Qdrant or Chroma.
RECORD_KEY: Final = "embedway"
#: Marks beside the record of a collection with a staging name; the value is the name that it is to have.
#: A collection that is staged is incomplete. A complete one gets the name if no other collection has it.
STAGED_FOR: Final = "staged_for"
COMPLETE_FOR: Final = "complete_for"
_STAGING = ".embedway-"


def record_text(record: Record, **more: object) -> str:
    """Return a record as JSON, with the format; `more` are facts of the store itself."""
    facts = {**record.to_json(), "space": record.space.to_json()}
    return json.dumps({"format": FORMAT, "version": FORMAT_VERSION, **facts, **more}, ensure_ascii=False)


def record_from_text(text: str | None, *, destination: str) -> tuple[Record, dict[str, Any]]:
    """Return the record in the output of `record_text`, and all of its facts. Raises `SinkError`."""
    try:
        facts = json.loads(text or "")
        found = facts["format"] == FORMAT and facts["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        found = None
    if type(found) is not int or found < 1:
        raise SinkError(
            "has no record of embedway: it was written by another program, or its record was removed",
            destination=destination,
        )
    if found > FORMAT_VERSION:
        raise SinkError(newer_version(found, FORMAT_VERSION, of="collections"), destination=destination)
    space = space_from_json(facts.get("space"), destination=destination)
    return record_from_json(facts, space, {}, FORMAT_VERSION, destination=destination), facts


def staging_name(name: str) -> str:
    """Return the name of a collection that is written and then takes the place of `name`."""
    return f"{name}{_STAGING}{secrets.token_hex(6)}"


def is_staging_name(found: str, name: str) -> bool:
    """Return whether `found` may be the result of `staging_name(name)`."""
    start, separator, ending = found.rpartition(_STAGING)
    return bool(separator) and start == name and re.fullmatch("[0-9a-f]{12}", ending) is not None


def staging_mark(found: str, name: str, text: object) -> str | None:
    """Return the mark of a collection `found` that was staged for `name`; None for any other collection.

    `text` is its record. The name alone is no proof, because another collection may have a name of this form.
    """
    if not is_staging_name(found, name) or not isinstance(text, str):
        return None
    try:
        facts = json.loads(text)
        if facts["format"] == FORMAT:
            return next((mark for mark in (STAGED_FOR, COMPLETE_FOR) if facts.get(mark) == name), None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return None
