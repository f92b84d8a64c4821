"""Layout of the cache in Redis: the names of keys, and readers of values.

Others may write to the server, so that a value may be of any kind and length. What cannot be ours is left out.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import TYPE_CHECKING

from embedway.cache.codec import MAX_ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.cache.base import Group

#: The prefixes of entries without a secret, and with one.
PREFIX, KEYED_PREFIX = "embedway:v1:", "embedway:keyed:v1:"
LEASES_PREFIX = "embedway:lease:"
#: The hash of groups, after either prefix.
GROUPS = "groups"
COUNTS = "embedway:v1:counts"
CLEARED = "embedway:v1:cleared"
#: The hash of versions, and the field of the cache's.
FORMATS, FORMAT_FIELD = "embedway:format", "cache"
#: The version of this layout. Before the first stamp, servers had none.
FORMAT = 1
#: Fields of a hash that are read, and bytes of one of them: no user has as many models.
MAX_FIELDS, MAX_FIELD_BYTES = 20_000, 16_384
#: The time of storing, in seconds since 1970. It precedes each entry.
STORED_AT = struct.Struct("<d")
_COUNT = re.compile(rb"\d{1,18}")


def key_names(prefix: str, group: Group, keys: Sequence[bytes]) -> list[str]:
    """The names of a group's keys on the server."""
    start = f"{prefix}{group.id}:"
    return [start + key.hex() for key in keys]


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


def parse_entry(value: bytes) -> bytes:
    """The entry of a value. It is empty, and so damaged, where the value is longer than any entry can be."""
    return value[STORED_AT.size :] if len(value) <= STORED_AT.size + MAX_ENTRY_BYTES else b""


def parse_stored_at(value: object, now: float) -> float:
    """The time of storing of a value, `now` at the latest. 0, which is older than any entry, where it has none."""
    if not isinstance(value, bytes) or len(value) < STORED_AT.size:
        return 0.0
    stored = float(STORED_AT.unpack_from(value)[0])
    return min(stored, now) if math.isfinite(stored) else 0.0
