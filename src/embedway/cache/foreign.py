"""Readers for what a Redis server holds: others may write to it, so that a value may be of any kind and length."""

from __future__ import annotations

import json
import math
import re
import struct

from embedway.cache.codec import MOST_BYTES

#: Fields of a hash that are read, and bytes of one of them: no user has as many models.
MOST_FIELDS, MOST_FIELD_BYTES = 20_000, 16_384
#: The time of storing, in seconds since 1970, which stands before each entry.
TIME = struct.Struct("<d")
_COUNT = re.compile(rb"\d{1,18}")
_KEY = re.compile(rb"[0-9a-f]{64}")


def number_of(value: bytes | None) -> int | None:
    """A count. None for anything else."""
    return int(value) if value is not None and _COUNT.fullmatch(value) else None


def texts_of(value: bytes, count: int) -> list[str] | None:
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


def entry_of(value: bytes) -> bytes:
    """The entry of a value. It is empty, and so damaged, where the value is longer than any entry can be."""
    return value[TIME.size :] if len(value) <= TIME.size + MOST_BYTES else b""


def stored_at(value: object, now: float) -> float:
    """When a value was stored, now at the latest. 0 where it does not say, so that it is too old."""
    if not isinstance(value, bytes) or len(value) < TIME.size:
        return 0.0
    stored = float(TIME.unpack_from(value)[0])
    return min(stored, now) if math.isfinite(stored) else 0.0
