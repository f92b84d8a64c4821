"""Records of collections on servers, as one JSON text, and names of collections that are being written."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, Final

from embedway.collections.record import FORMAT_VERSION, Record
from embedway.collections.stores.records import FORMAT, record_from_json, space_from_json
from embedway.errors import SinkError, newer_version

#: Marks beside the record of a collection with a staging name; the value is the name whose place it takes.
#: A staged collection is incomplete. A complete one has its name again if no other collection has it.
STAGED_FOR: Final = "staged_for"
COMPLETE_FOR: Final = "complete_for"


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
    return f"{name}.embedway-{secrets.token_hex(6)}"


def mark_of(name: str, found: str, text: object) -> str | None:
    """Return the mark of the collection `found` with this record if it was staged for `name`; None for any other.

    The name alone decides nothing: other collections may have names that look the same. The record says it too.
    """
    start, dot, ending = found.rpartition(".embedway-")
    if not dot or start != name or not re.fullmatch("[0-9a-f]{12}", ending) or not isinstance(text, str):
        return None
    try:
        facts = json.loads(text)
        if facts["format"] == FORMAT:
            return next((mark for mark in (STAGED_FOR, COMPLETE_FOR) if facts.get(mark) == name), None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return None
