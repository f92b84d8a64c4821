"""Cache store contract: entries are stored by key, and no failure fails a request."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from embedway.cache.errors import CacheErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Entry bytes and the time of storing, in seconds since 1970.
StoredEntry: TypeAlias = tuple[bytes, float]


@dataclass(frozen=True, slots=True)
class Group:
    """Group of entries that are counted and cleared together. `space_id` is the ID of the full-width space."""

    model: str
    space_id: str
    namespace: str = ""

    @property
    def id(self) -> str:
        """Group ID: 16 hex digits."""
        text = json.dumps([self.model, self.space_id, self.namespace])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Size of a group: its entries and their bytes, as counted by the store."""

    group: Group
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheFilter:
    """Filter of entries: an entry must match every field that is set. `older_than_s` is seconds since it was stored.

    A space matches at every size, because all sizes are truncated from one entry.
    """

    model: str | None = None
    space_id: str | None = None
    namespace: str | None = None
    older_than_s: float | None = None

    def matches(self, group: Group) -> bool:
        """Return whether the filter selects entries of a group, regardless of age."""
        space_id = self.space_id and _without_size(self.space_id)
        pairs = (
            (self.model, group.model),
            (space_id, _without_size(group.space_id)),
            (self.namespace, group.namespace),
        )
        return all(wanted is None or wanted == actual for wanted, actual in pairs)


def _without_size(space_id: str) -> str:
    start, _, size = space_id.rpartition("/")
    return start if size.isdecimal() else space_id


class CacheStore(Protocol):
    """Store of cache entries.

    No method raises for a failure of the store: an unreadable entry is a miss, and an entry that cannot be written is
    not stored. `errors` counts and reports both. A lookup that fails also calls its `note_lookup`, in the caller's
    task.
    """

    errors: CacheErrors
    #: Whether `lease` excludes other processes that share the store.
    supports_leases: bool

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[StoredEntry | None]:
        """Read entries, in the order of the keys; None for a missing one."""

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Store entries by key and return how many were stored. They outlast the process, except in a memory store."""

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """Delete entries."""

    async def clear(self, which: CacheFilter) -> int:
        """Delete all entries that the filter selects and return their number."""

    async def generation(self) -> int | None:
        """Return a number that changes with every `clear` of any process; None if it cannot be read.

        A tier in front reads it to detect that its copies may be stale.
        """

    async def group_sizes(self) -> list[GroupSize]:
        """Return the sizes of all groups that have entries."""

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """Add to the counts of each model, by name; they last as long as the store. Return False on failure."""

    async def counts(self) -> dict[str, dict[str, int]]:
        """Return the counts of each model, by name."""

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """Lease keys, so that no other process computes them, and return which keys were granted.

        A lease that the caller already holds restarts. A lease ends by `release` or when it expires.
        """

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """Release leases of the caller. Leases of other holders stay."""

    async def aclose(self) -> None:
        """Close files and connections."""


#: Maximum time, in seconds, by which an entry's time of storing may be ahead of the clock: on one machine, and between
#: machines. Beyond it, the clock was wrong when the entry was stored, and its age is unknown.
MOST_AHEAD_S, MOST_AHEAD_BETWEEN_MACHINES_S = 60.0, 3600.0
#: With `cache.refresh_on_hit`, a hit starts the time to live again if this share of it has passed.
REFRESH_SHARE = 0.1


class LocalStore:
    """Store on one machine: entries expire by age, and there are no leases between processes."""

    supports_leases = False

    def __init__(self, name: str, ttl_s: float | None, clock: Callable[[], float]) -> None:
        self.errors = CacheErrors(name=name)
        self._ttl_s = ttl_s
        self._clock = clock

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """Grant all keys: processes that share a file may each compute the same text once at the same time."""
        del group, seconds
        return [True] * len(keys)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """Do nothing: there are no leases."""

    def _lifetime(self) -> tuple[float, float]:
        """Return the exclusive start and the inclusive end of the time in which valid entries were stored.

        Without a time to live, every entry is valid. With one, an entry from the future is invalid, because it would
        live too long.
        """
        if self._ttl_s is None:
            return float("-inf"), float("inf")
        now = self._clock()
        return now - self._ttl_s, now + min(self._ttl_s, MOST_AHEAD_S)

    def _cleared(self, older_than_s: float | None) -> tuple[float, float]:
        """Return two times: entries stored until the first, or after the second, are cleared.

        An unknown age counts as old.
        """
        if older_than_s is None:
            return float("inf"), float("inf")
        now = self._clock()
        return now - older_than_s, now + MOST_AHEAD_S
