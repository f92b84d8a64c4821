"""The contract of cache stores. A store keeps entries by key, and never fails a request."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: An entry's bytes, and the time when it was stored, in seconds since 1970.
StoredEntry: TypeAlias = tuple[bytes, float]


@dataclass(frozen=True, slots=True)
class Group:
    """A group of entries, by which they are counted and cleared. `space_id` is that of the full width."""

    model: str
    space_id: str
    namespace: str = ""

    @property
    def id(self) -> str:
        """16 hex digits."""
        text = json.dumps([self.model, self.space_id, self.namespace])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class GroupSize:
    """The size of a group: its entries, and their bytes as far as the store counts them."""

    group: Group
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheFilter:
    """A selection of entries: those that fit every field that is set. `older_than_s` is seconds since they were stored.

    A space is selected at every size, because all sizes are cut from one entry.
    """

    model: str | None = None
    space_id: str | None = None
    namespace: str | None = None
    older_than_s: float | None = None

    def matches(self, group: Group) -> bool:
        """Whether the filter selects entries of a group, of whatever age."""
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


@dataclass(slots=True)
class CacheErrors:
    """Counts of a store's failures, none of which fails a request. Stores keep them under these names."""

    failed_reads: int = 0
    failed_writes: int = 0
    evictions: int = 0
    #: Damaged files that were renamed, so that new ones could be begun.
    set_aside: int = 0
    last: str = field(default="", repr=False)


class CacheStore(Protocol):
    """A store of entries.

    No method raises for a failure of the store: an entry that cannot be read is a miss, one that cannot be written is
    not stored, and `errors` counts both.
    """

    errors: CacheErrors
    #: Whether `lease` excludes other processes that share the store.
    supports_leases: bool

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[StoredEntry | None]:
        """Read entries, in the order of the keys; None for one that is missing."""

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Store entries by key. Returns how many were stored; they outlast the process, unless the store is memory."""

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """Delete entries."""

    async def clear(self, which: CacheFilter) -> int:
        """Delete all entries that the filter selects. Returns how many there were."""

    async def generation(self) -> int | None:
        """A number that changes with every `clear`, of any process; None where it cannot be read.

        A tier in front reads it to learn that its copies may be of deleted entries.
        """

    async def group_sizes(self) -> list[GroupSize]:
        """The sizes of all groups that have entries."""

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """Add to the counts of each model, by name; they last as long as the store. False where that failed."""

    async def counts(self) -> dict[str, dict[str, int]]:
        """The counts of each model, by name."""

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """Lease keys, so that no other process computes them. Returns which were granted.

        A lease that the caller holds already begins anew. A lease ends by `release`, or after its time.
        """

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """End leases of the caller. Those of other holders stay."""

    async def aclose(self) -> None:
        """Close files and connections."""


class LocalStore:
    """A store on one machine: entries expire by age, and there are no leases between processes."""

    supports_leases = False

    def __init__(self, ttl_s: float | None, clock: Callable[[], float]) -> None:
        self.errors = CacheErrors()
        self._ttl_s = ttl_s
        self._clock = clock

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """Grant all: processes that share a file may compute the same text at the same time, once each."""
        del group, seconds
        return [True] * len(keys)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """Do nothing: there are no leases."""

    def _expired_at(self) -> float:
        """Entries that were stored then, or before, have expired."""
        return self._clock() - self._ttl_s if self._ttl_s is not None else float("-inf")
