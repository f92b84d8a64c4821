"""Checks of the keys and values of a server's part, before they are written to a server."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from embedway.ledger.base import RESTORED, Restored
from embedway.ledger.pins import read_pin
from embedway.ledger.redis import ENTRY_NUMBERS, IDENTITY, LEDGER_PREFIX, PINS_KEYS, read_limit, write_limit
from embedway.ledger.redis_records import packed_of
from embedway.state.parts import LATEST, BadPartError, check_limit, check_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Numbers as Redis reads them. Python accepts more, such as `1_000` and digits of other scripts. No number is negative:
#: amounts that are reserved or under way are never below 0.
_WHOLE = re.compile(r"[0-9]{1,18}")
_TIME = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,3})?")
_ID = re.compile(r"[0-9a-f]{32}")
_ACCOUNT = re.compile(r".+\|(total|[0-9]{4}-[0-9]{2}(-[0-9]{2})?)\|(spent|held|saved)", re.DOTALL)
_RECORDS = ("records", "changed")
_TEXTS = ("model", "route", "collection", "api_key")
_NEEDED = {"id", "opened", "state", "model", "collection", "api_key"}

#: Keys of a part: type and values, with flattened pairs for hashes and sorted sets.
Keys = dict[str, tuple[str, list[str]]]


def pairs_of(values: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of a flattened hash or sorted set."""
    return list(zip(values[::2], values[1::2], strict=True))


def check_shape(found: Keys, count: int) -> None:
    """Raise BadPartError unless each of `count` keys occurs once, with pairs of strings."""
    if len(found) != count:
        raise BadPartError("contains a key twice")
    for kind, values in found.values():
        _demand(kind in {"hash", "zset"} and isinstance(values, list) and len(values) % 2 == 0)
        _demand(all(isinstance(value, str) for value in values))


def _demand(right: object) -> None:
    if not right:
        raise BadPartError("contains invalid values")


def check_ledger(found: Keys) -> None:
    """Raise BadPartError unless the keys are those of a ledger."""
    fixed: Mapping[str, tuple[str, Callable[[str, str], object]]] = {
        "open": ("zset", lambda member, score: _ID.fullmatch(member) and _is_time(score)),
        "all": ("zset", lambda member, score: _ID.fullmatch(member) and _is_time(score)),
        "accounts": ("hash", lambda name, value: _ACCOUNT.fullmatch(name) and _WHOLE.fullmatch(value)),
        "limits": ("hash", _is_limit),
        "warned": ("hash", lambda _, value: _WHOLE.fullmatch(value)),
        "records": ("hash", lambda field, _: field in changed),
        "changed": ("hash", lambda field, _: field in records),
        "meta": ("hash", lambda name, value: Restored.read(value) if name == RESTORED else name in IDENTITY),
    }
    records, changed = (dict(pairs_of(found.get(LEDGER_PREFIX + name, ("hash", []))[1])) for name in _RECORDS)
    ids = {member for member, _ in pairs_of(found.get(LEDGER_PREFIX + "all", ("zset", []))[1])}
    entries = set()
    for key, (kind, values) in found.items():
        _demand(key.startswith(LEDGER_PREFIX))
        name = key.removeprefix(LEDGER_PREFIX)
        if name.startswith("entry:"):
            entries.add(name.removeprefix("entry:"))
            _demand(kind == "hash" and _is_entry(name.removeprefix("entry:"), dict(pairs_of(values))))
            continue
        _demand(name in fixed and kind == fixed[name][0])
        _demand(all(fixed[name][1](*pair) for pair in pairs_of(values)))
    _demand(entries == ids)
    for field, written in records.items():
        kind, _, name = field.partition("|")
        check_record(kind, name, packed_of(written), _time(changed[field]))


def _is_entry(name: str, fields: dict[str, str]) -> bool:
    known = {"id", "opened", "closed", "state", "unpriced", *ENTRY_NUMBERS, *_TEXTS}
    return bool(
        fields.keys() >= _NEEDED
        and fields.keys() <= known
        and fields["id"] == name
        and fields["state"] in {"open", "done", "expired"}
        and all(_is_time(fields[at]) for at in ("opened", "closed") if at in fields)
        and all(_WHOLE.fullmatch(fields[number]) for number in ENTRY_NUMBERS if number in fields)
        and fields.get("unpriced", "0") in {"0", "1"}
    )


def _is_limit(name: str, written: str) -> bool:
    fields = strict_json(written)
    limit = read_limit(written, name)
    check_limit(limit)
    # Only the written form is valid, no equivalent one: every script on the server reads it.
    return bool(fields["name"] == name and type(limit.hard) is bool and written == write_limit(limit))


def check_pins(found: Keys) -> None:
    """Raise BadPartError unless the keys are those of pins."""
    kinds = dict(zip(PINS_KEYS[1:], ("hash", "zset"), strict=True))
    for key, (kind, values) in found.items():
        _demand(kinds.get(key) == kind)
        for name, value in pairs_of(values):
            _demand(_is_pin(name, value) if kind == "hash" else _is_time(value))


def _is_pin(collection: str, written: str) -> bool:
    strict_json(written)
    return read_pin(collection, written) is not None


def strict_json(written: str | bytes) -> Any:
    """Parse JSON that the server reads too: no NaN, and no lone surrogate. Raises ValueError."""
    document = json.loads(written, parse_constant=_refuse_constant)
    json.dumps(document, ensure_ascii=False).encode()
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _time(text: str) -> float:
    _demand(_is_time(text))
    return float(text)


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None and 0 <= float(text) <= LATEST
