"""Readers for what a Redis server holds: others may write to it, so that a value may be of any kind and length."""

from __future__ import annotations

import json
import math
import re
import struct

from embedway.cache.codec import MAX_ENTRY_BYTES

#: Fields of a hash that are read, and bytes of one of them: no user has as many models.
MAX_FIELDS, MAX_FIELD_BYTES = 20_000, 16_384
#: The time of storing, in seconds since 1970, which stands before each entry.
STORED_AT = struct.Struct("<d")
_COUNT = re.compile(rb"\d{1,18}")
_KEY = re.compile(rb"[0-9a-f]{64}")


def parse_count(value: bytes | None) -> int | None:
    """A count. None for anything else."""
    return int(value) if value is not None and _COUNT.fullmatch(value) else None


def parse_texts(value: bytes, count: int) -> list[str] | None:
    """The `count` texts of a JSON list. None for anything else."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    good = isinstance(found, list) and len(found) == count and all(isinstance(text, str) for text in found)
    return found if good else None


def key_of(text: bytes) -> bytes | None:
    """A key of 32 bytes from its hex digits. None for anything else."""
    return bytes.fromhex(text.decode()) if _KEY.fullmatch(text) else None


def parse_entry(value: bytes) -> bytes:
    """The entry of a value. It is empty, and so damaged, where the value is longer than any entry can be."""
    return value[STORED_AT.size :] if len(value) <= STORED_AT.size + MAX_ENTRY_BYTES else b""


def parse_stored_at(value: object, now: float) -> float:
    """When a value was stored, now at the latest. 0 where it does not say, so that it is too old."""
    if not isinstance(value, bytes) or len(value) < STORED_AT.size:
        return 0.0
    stored = float(STORED_AT.unpack_from(value)[0])
    return min(stored, now) if math.isfinite(stored) else 0.0
