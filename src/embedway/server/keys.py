"""API keys of the gateway: their values, their text form, and their records.

The text of a key is `ew_ID_SECRET`. Only the SHA-256 of the secret is stored: a secret has 32 random bytes, so a fast
hash cannot be reversed by guessing. The text itself exists once, when the key is created.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
import time
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from embedway.errors import LedgerError, UsageError
from embedway.ledger.base import moment
from embedway.ledger.records import Record, UnreadableRecordError, read_each
from embedway.server.caller import HIGHEST_PRIORITY, Caller
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.ledger.records import RecordKind, Records

_VERSION = 1
KIND: RecordKind = "key"
_ID_BYTES, _SECRET_BYTES = 6, 32
#: Start of each key.
PREFIX = "ew_"
#: ID in hexadecimal digits, and the secret in URL-safe base64 without padding.
_TEXT = re.compile(r"ew_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{12}")
#: Names of keys and tenants are parts of budgets, of metrics and of the names of collections.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_NAME_RULE = "use 1 to 64 letters, digits and . _ @ + -, and begin with a letter or digit"
_LOWEST_WEIGHT, _HIGHEST_WEIGHT = 0.01, 100.0
#: Maximum of a limit per minute: the stores of rates are exact to a microsecond.
_LARGEST_RATE = 10**9
_MOST_MODELS = 1000
#: Latest time that a record may contain: the year 9999.
_LATEST = 253402300799.0
#: A process that creates or revokes a key holds the lease of its name for at most this time, in seconds.
_LEASE_S = 10.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. Times are seconds since 1970. The other fields are those of `Caller`."""

    name: str
    #: Public part of the key's text: 12 hexadecimal digits.
    id: str
    #: SHA-256 of the secret, in hexadecimal digits.
    digest: str = field(repr=False)
    created: float
    tenant: str = ""
    models: tuple[str, ...] | None = None
    weight: float = 1.0
    max_priority: int = HIGHEST_PRIORITY
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    admin: bool = False
    revoked: float | None = None

    def __post_init__(self) -> None:
        """Validate the key. Raises UsageError."""
        check_name(self.name, "a key")
        if self.tenant:
            check_name(self.tenant, "a tenant")
        if self.models is not None and not 0 < len(self.models) <= _MOST_MODELS:
            raise UsageError(f"key {self.name}: models must name 1 to {_MOST_MODELS:,} models, or be left out for all")
        if not _LOWEST_WEIGHT <= self.weight <= _HIGHEST_WEIGHT:
            raise UsageError(f"key {self.name}: weight must be from {_LOWEST_WEIGHT:g} to {_HIGHEST_WEIGHT:g}")
        if not 0 <= self.max_priority <= HIGHEST_PRIORITY:
            raise UsageError(f"key {self.name}: max_priority must be from 0 to {HIGHEST_PRIORITY}")
        for limit in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, limit)
            if value is not None and not 1 <= value <= _LARGEST_RATE:
                raise UsageError(f"key {self.name}: {limit} must be from 1 to {_LARGEST_RATE:,}, or be left out")

    @property
    def scope(self) -> str:
        """Scope of the budgets of this key."""
        return f"api_key:{self.name}"

    def caller(self) -> Caller:
        """Return what the key may do."""
        return Caller(**{one.name: getattr(self, _FIELD_OF.get(one.name, one.name)) for one in fields(Caller)})

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types, without the hash."""
        return {
            "name": self.name,
            "id": self.id,
            "tenant": self.tenant,
            "models": None if self.models is None else list(self.models),
            "weight": self.weight,
            "max_priority": self.max_priority,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
            "admin": self.admin,
            "created": moment(self.created),
            "revoked": None if self.revoked is None else moment(self.revoked),
        }

    def to_record(self) -> Record:
        """Return the record, under the name of the key."""
        document = {one.name: getattr(self, one.name) for one in fields(self)}
        return Record(KIND, self.name, json.dumps({"version": _VERSION, **document}))

    @classmethod
    def from_record(cls, record: Record) -> ApiKey | None:
        """Read a record; unknown fields are ignored. None if it is damaged or of a newer version: no one can use it."""
        try:
            found = json.loads(record.document)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or type(found.get("version")) is not int or found["version"] != _VERSION:
            return None
        if set(_READERS) - set(found) or not all(_READERS[name](found[name]) for name in _READERS):
            return None
        models = found["models"]
        values = {name: found[name] for name in _READERS} | {"models": None if models is None else tuple(models)}
        try:
            key = cls(**values)
        except UsageError:
            return None
        return key if key.name == record.name else None


#: Fields of `Caller` with another name here.
_FIELD_OF = {"key_name": "name"}


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return value is None or type(value) is int


def _is_time(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= _LATEST


#: Check of the type of each stored field; `ApiKey` checks their ranges.
_READERS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "id": lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None,
    "digest": lambda value: isinstance(value, str) and _DIGEST.fullmatch(value) is not None,
    "created": _is_time,
    "tenant": lambda value: isinstance(value, str),
    "models": lambda value: (
        value is None or (isinstance(value, list) and all(isinstance(one, str) and one for one in value))
    ),
    "weight": _is_number,
    "max_priority": lambda value: type(value) is int,
    "requests_per_minute": _is_count,
    "tokens_per_minute": _is_count,
    "admin": lambda value: isinstance(value, bool),
    "revoked": lambda value: value is None or _is_time(value),
}


def check_name(name: str, what: str) -> None:
    """Raise UsageError for a text that is no name of a key or a tenant."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{shown_name(name)} is no name of {what}: {_NAME_RULE}")


def new_key(name: str, **rights: Any) -> tuple[ApiKey, str]:
    """Create a key with the fields of `ApiKey`. Return it, and its text, which is stored nowhere. Raises UsageError."""
    check_name(name, "a key")
    own_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(name, own_id, digest_of(secret).hex(), time.time(), **rights)
    return key, f"ew_{own_id}_{secret}"


def digest_of(secret: str) -> bytes:
    """Return the hash of a secret, 32 bytes."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def parse_key(text: str) -> tuple[str, str] | None:
    """Return the ID and the secret of a key's text; None for any other text."""
    found = _TEXT.fullmatch(text)
    return None if found is None else (found[1], found[2])


def is_secret_of(secret: str, digest: bytes) -> bool:
    """Return whether a secret has this hash, in constant time."""
    return hmac.compare_digest(digest_of(secret), digest)


async def store_new_key(records: Records, key: ApiKey) -> ApiKey | None:
    """Store a new key. Return the revoked key of the same name that it replaces; None if there is none.

    Raises UsageError if the name is in use, and LedgerError.
    """
    async with _Lease(records, key.name):
        before = await check_is_free(records, key.name)
        await records.put(key.to_record())
        return before


async def check_is_free(records: Records, name: str) -> ApiKey | None:
    """Return the revoked key of a name, if there is one. Raises UsageError if the name is in use, and LedgerError."""
    before = await _find(records, name)
    if before is not None and before.revoked is None:
        raise UsageError(
            f"there is already a key {name!r}; choose another name, or revoke it first (`embedway keys revoke {name}`)"
        )
    return before


async def revoke_key(records: Records, name: str) -> ApiKey | None:
    """Revoke a key. Return it; one that was revoked before is returned unchanged.

    A record that cannot be read is removed, and None is returned. Raises UsageError if there is no key of that name,
    and LedgerError.
    """
    check_name(name, "a key")
    async with _Lease(records, name):
        try:
            key = await _find(records, name)
        except UnreadableRecordError:
            await records.remove(KIND, name)
            return None
        if key is None:
            raise _unknown(name)
        if key.revoked is None:
            key = replace(key, revoked=time.time())
            await records.put(key.to_record())
        return key


async def find_key(records: Records, name: str) -> ApiKey:
    """Return a key by name. Raises UsageError if there is none, and LedgerError."""
    check_name(name, "a key")
    key = await _find(records, name)
    if key is None:
        raise _unknown(name)
    return key


def read_key(record: Record) -> ApiKey:
    """Return the key of a record. Raises UnreadableRecordError."""
    key = ApiKey.from_record(record)
    if key is None:
        raise UnreadableRecordError(
            f"the key {record.name!r} is damaged, or of a newer version of embedway, so it is refused; revoke it "
            f"(`embedway keys revoke {record.name}`) and create another one"
        )
    return key


async def all_keys(records: Records) -> tuple[list[ApiKey], list[str]]:
    """Return all keys, by name, and the names of unreadable records. Raises LedgerError."""
    keys, unreadable = [], []
    for name, record in await read_each(records, KIND):
        key = None if isinstance(record, UnreadableRecordError) else ApiKey.from_record(record)
        if key is None:
            unreadable.append(name)
        else:
            keys.append(key)
    return keys, unreadable


def _unknown(name: str) -> UsageError:
    return UsageError(f"there is no key {name!r}; `embedway keys list` shows them")


async def _find(records: Records, name: str) -> ApiKey | None:
    record = await records.get(KIND, name)
    return None if record is None else read_key(record)


class _Lease:
    """Lease of a key's name, so that two processes do not change one key at the same time."""

    def __init__(self, records: Records, name: str) -> None:
        self._records = records
        self._name = name

    async def __aenter__(self) -> None:
        if not await self._records.lease(KIND, self._name, _LEASE_S):
            raise LedgerError(f"another process changes the key {self._name!r} now; try again in {_LEASE_S:g} seconds")

    async def __aexit__(self, *_: object) -> None:
        await self._records.end_lease(KIND, self._name)
