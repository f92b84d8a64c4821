"""Keyed checksums and store names of entries, derived from `cache.secret`.

BLAKE2b derives two keys from a secret, each with its own person string: one for checksums, one for names. A checksum
is a keyed BLAKE2b of 16 bytes over the group, the entry's name, its header and its body. A name is a keyed BLAKE2b of
32 bytes over the cache key. Entries of different secrets, and entries without one, therefore never have the same name.
Configurations that share a store cannot read, replace or delete each other's entries, and without the secret,
no one can look up whether a text was embedded.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.cache.base import Group

MAC_BYTES = 16
_NAME_BYTES = 32
_CHECKSUMS, _NAMES, _ENTRY, _GROUP = b"embedway.mac.v1", b"embedway.name.v1", b"embedway.entry.3", b"embedway.group"


class SecretKeys:
    """The two keys derived from one secret. The secret itself is not stored."""

    __slots__ = ("_mac_key", "_names")

    def __init__(self, secret: str) -> None:
        self._mac_key = hashlib.blake2b(secret.encode(), person=_CHECKSUMS).digest()
        name_key = hashlib.blake2b(secret.encode(), person=_NAMES).digest()
        self._names = hashlib.blake2b(digest_size=_NAME_BYTES, key=name_key)

    def entry_names(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the name of each cache key in the store, 32 bytes each."""
        copy = self._names.copy
        made = []
        for key in keys:
            hashed = copy()
            hashed.update(key)
            made.append(hashed.digest())
        return made

    def mac(self, group: Group) -> Mac:
        """Return the checksum function for the entries of a group."""
        return Mac(self._mac_key, group)


class Mac:
    """Computes and verifies the keyed checksums of one group's entries."""

    __slots__ = ("_start",)

    def __init__(self, key: bytes, group: Group) -> None:
        facts = json.dumps([group.model, group.space_id, group.namespace]).encode()
        self._start = hashlib.blake2b(digest_size=MAC_BYTES, key=key, person=_ENTRY)
        self._start.update(hashlib.blake2b(facts, digest_size=32, person=_GROUP).digest())

    def __call__(self, name: bytes, head: bytes, body: bytes) -> bytes:
        """Return the checksum of an entry, 16 bytes. `name` and `head` have fixed lengths: the input is unambiguous."""
        hashed = self._start.copy()
        hashed.update(name + head)
        hashed.update(body)
        return hashed.digest()

    def verify(self, name: bytes, head: bytes, body: bytes, checksum: bytes) -> bool:
        """Return whether the checksum of an entry is correct."""
        return hmac.compare_digest(self(name, head, body), checksum)
