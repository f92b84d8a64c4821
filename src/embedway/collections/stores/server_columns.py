"""Columns, records and conditions, as stores on servers need them."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from embedway.collections.columns import COLUMNS, values_of
from embedway.collections.record import FORMAT_VERSION, Record
from embedway.collections.stores.records import space_from_json
from embedway.collections.where import And, Compare, In, Not, Or
from embedway.errors import SinkError, newer_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.values import ColumnType
    from embedway.collections.where import Condition, Operator

FORMAT: Final = "embedway collection"
#: Fact beside the record of a staged collection: the name whose place it takes.
STAGED_FOR: Final = "staged_for"
_OPPOSITE: Final[Mapping[Operator, Operator]] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def stored_columns(record: Record) -> dict[str, ColumnType]:
    """Return all columns of a collection except the vector, with their types."""
    return {**COLUMNS, **record.keep}


def fields_of(chunk: Chunk, keep: Mapping[str, ColumnType]) -> dict[str, Any]:
    """Return the columns of a chunk, in the order of `stored_columns`."""
    fields = dict(zip(COLUMNS, values_of(chunk), strict=True))
    if keep:
        fields.update((name, chunk.metadata.get(name)) for name in keep)
    return fields


def ids_by_source(documents: Iterable[DocumentKey], *, most: int) -> Iterator[tuple[str, list[str]]]:
    """Iterate over each source of some documents with the ids of at most `most` of its documents."""
    for source, keys in groupby(sorted(documents), key=itemgetter(0)):
        ids = [key[1] for key in keys]
        for first in range(0, len(ids), most):
            yield source, ids[first : first + most]


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
    try:
        record = Record.from_json(facts, space)
    except ValueError:
        raise SinkError("has a damaged record; embed the sources again", destination=destination) from None
    return record, facts


def staging_name(name: str) -> str:
    """Return the name of a collection that is written and then takes the place of `name`."""
    return f"{name}.embedway-{secrets.token_hex(6)}"


def is_staged_for(name: str, found: str, text: object) -> bool:
    """Return whether a collection with this name and record was staged for `name`.

    The name alone decides nothing: other collections may have names that look the same. The record says it too.
    """
    start, mark, ending = found.rpartition(".embedway-")
    if not mark or start != name or not re.fullmatch("[0-9a-f]{12}", ending) or not isinstance(text, str):
        return False
    try:
        facts = json.loads(text)
        return bool(facts["format"] == FORMAT and facts[STAGED_FOR] == name)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def lock_key(*names: str) -> int:
    """Return a number of 64 bits, with sign, that stands for some names."""
    digest = hashlib.blake2b(json.dumps(["embedway", *names]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def has_nul(where: Condition) -> bool:
    """Return whether a text of a condition has a NUL, which some databases refuse."""
    match where:
        case And(parts) | Or(parts):
            return any(map(has_nul, parts))
        case Not(part):
            return has_nul(part)
        case In(_, values):
            return any(isinstance(value, str) and "\0" in value for value in values)
        case Compare(_, _, value):
            return isinstance(value, str) and "\0" in value
    return False


def push_not_down(where: Condition) -> Condition:
    """Return the same condition with `Not` only before `In`, `IsNull` and `contains`.

    A row whose column is null meets neither a comparison nor its opposite, as in SQL.
    """
    match where:
        case And(parts):
            return And(tuple(map(push_not_down, parts)))
        case Or(parts):
            return Or(tuple(map(push_not_down, parts)))
        case Not(part):
            return _negated(part)
    return where


def _negated(where: Condition) -> Condition:
    match where:
        case And(parts):
            return Or(tuple(map(_negated, parts)))
        case Or(parts):
            return And(tuple(map(_negated, parts)))
        case Not(part):
            return push_not_down(part)
        case Compare(column, operator, value) if operator in _OPPOSITE:
            return Compare(column, _OPPOSITE[operator], value)
    return Not(where)
