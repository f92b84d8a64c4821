"""What a cache does: it keeps entries by key, and never fails a request."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Group:
    """What entries are told apart by when they are counted and cleared; `space_id` is that of the full width."""

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
    """What a group holds: entries, and their bytes as far as the backend counts them."""

    group: Group
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheFilter:
    """Which entries are meant: those of all that is given here. `older_than_s` is seconds since they were stored.

    A space is meant at every size, because all sizes are cut from one entry.
    """

    model: str | None = None
    space_id: str | None = None
    namespace: str | None = None
    older_than_s: float | None = None

    def matches(self, group: Group) -> bool:
        """Whether entries of a group can be meant."""
        space_id = self.space_id and _sizeless(self.space_id)
        pairs = ((self.model, group.model), (space_id, _sizeless(group.space_id)), (self.namespace, group.namespace))
        return all(wanted is None or wanted == have for wanted, have in pairs)


def _sizeless(space_id: str) -> str:
    start, _, size = space_id.rpartition("/")
    return start if size.isdecimal() else space_id


@dataclass(slots=True)
class CacheErrors:
    """What went wrong in a backend, counted; none of it fails a request."""

    failed_reads: int = 0
    failed_writes: int = 0
    evictions: int = 0
    #: Files that were damaged and set aside.
    set_aside: int = 0
    last: str = field(default="", repr=False)


class CacheStore(Protocol):
    """Keeps entries.

    `supports_leases` tells whether processes that share it keep out of each other's way.

    No method raises for what a store does: what cannot be read is a miss, what cannot be written is not kept, and
    `errors` counts both.
    """

    errors: CacheErrors
    supports_leases: bool

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """The entry of each key, None where there is none."""

    async def get_aged(self, group: Group, keys: Sequence[bytes]) -> list[tuple[bytes, float] | None]:
        """The same, each with when it was stored, in seconds since 1970."""

    async def generation(self) -> int | None:
        """A number that is another one after anybody has cleared entries; None where it cannot be read."""

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Keep entries by key, and tell how many. When it returns, they are where they stay when the process ends."""

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """Forget entries."""

    async def group_sizes(self) -> list[GroupSize]:
        """What there is, by group."""

    async def clear(self, which: CacheFilter) -> int:
        """Forget all that is meant, and tell how many entries that were."""

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """Some keys with their entries."""

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """Add to what is counted for each model, by name of the count, for as long as the cache lives.

        False where that failed.
        """

    async def counts(self) -> dict[str, dict[str, int]]:
        """What was counted for each model."""

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """Which keys are the caller's to compute: nobody else, in any process, has them leased.

        A lease that the caller has already begins anew.
        """

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """Give back what `lease` gave; what is another's by now stays."""

    async def aclose(self) -> None:
        """Give files and connections back."""
