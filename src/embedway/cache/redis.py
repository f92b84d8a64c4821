"""Cache store in Redis or Valkey, shared by several machines.

Each entry is a separate key, `embedway:v1:GROUP:KEY`, and no command uses keys of several cluster slots. The value is
the time of storing (8 bytes) followed by the entry. With a secret, keys are `embedway:keyed:v1:GROUP:NAME`, so that
versions without secrets neither read nor clear them. Each prefix has a hash of its groups. Counts, leases and the
number of clearings are shared.

The field `cache` of the hash `embedway:format` is the version of this layout, and is set if missing. A newer version
is an error, because its layout is unknown here.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from embedway.cache.base import CacheFilter, Group, GroupSize
from embedway.cache.errors import CacheErrors
from embedway.cache.redis_bound import KEY_BYTES, TRIM_S, RedisBound
from embedway.cache.redis_server import (
    ANSWER_S,
    BATCH,
    BYTES,
    CLEARED,
    COUNTS,
    GROUPS,
    KEYED_PREFIX,
    LEASES_PREFIX,
    PREFIX,
    STORED_AT,
    RedisServer,
    key_names,
    limit_s,
    parse_count,
    parse_entry,
    parse_stored_at,
    parse_texts,
)
from embedway.cache.stats import STORE_COUNTS
from embedway.files import read_package_text
from embedway.shared_servers import CacheUse
from embedway.store_failures import server_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway.cache.base import StoredEntry

#: Maximum duration of our leases, unless the caller requests a longer one. Any longer lease is not ours.
_LONGEST_LEASE_MS = 3_600_000


class RedisCache:
    """Cache store in a Redis or Valkey server or cluster."""

    def __init__(
        self,
        url: str,
        max_bytes: int = 2**32,
        *,
        ttl_s: float | None = None,
        refresh: bool = False,
        cluster: bool = False,
        keyed: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the store; it connects at its first use. `keyed` is for entries with a secret.

        `max_bytes` bounds the entries of all processes. With `refresh`, a hit starts the time to live again.

        Raises RuntimeUnavailableError without the extra `redis`. Methods that read raise CacheError if a newer version
        of embedway stamped the server.
        """
        self.errors = CacheErrors(name=f"the cache in Redis at {server_address(url)}")
        self.supports_leases = True
        self._owner = secrets.token_hex(8).encode()
        self._ttl_ms = max(1, round(ttl_s * 1000)) if ttl_s is not None else None
        self._prefix = KEYED_PREFIX if keyed else PREFIX
        use = CacheUse(max_bytes, expires=ttl_s is not None)
        self._server = RedisServer(url, self.errors, cluster=cluster, clock=clock, use=use)
        self._client = self._server.client
        self._bound = RedisBound(self._server, max_bytes)
        self._refresh_ms = self._ttl_ms if refresh else None
        self._lease_script, self._release_script = (
            read_package_text("embedway.cache", name) for name in ("lease.lua", "release.lua")
        )

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[StoredEntry | None]:
        """Read entries; see `CacheStore.get_many`. An entry that is not read in time is a miss."""
        values: list[bytes | None] = []
        names = key_names(self._prefix, group, keys)
        # In a cluster, `mget_nonatomic` requests the keys of each slot from its node.
        read = self._client.mget_nonatomic if self._server.is_cluster else self._client.mget

        async def read_all() -> bool:
            for start in range(0, len(names), BATCH):
                values.extend(await read(names[start : start + BATCH]))
            return True

        if keys and await self._server.call(read_all, "read", limit_s=limit_s(keys)) is None:
            self.errors.note_lookup()
        if self._refresh_ms is not None:
            await self._refresh([name for name, value in zip(names, values, strict=False) if value is not None])
        now = self._server.clock()
        found = [(parse_entry(value), parse_stored_at(value, now)) if value is not None else None for value in values]
        return found + [None] * (len(keys) - len(found))

    async def generation(self) -> int | None:

        async def read() -> bytes:
            value: bytes | None = await self._client.get(CLEARED)
            return value or b"0"

        return parse_count(await self._server.call(read, "inspect", limit_s=ANSWER_S))

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Store entries; see `CacheStore.put_many`. Those that another process has no room for yet are evictions."""
        stored = 0
        stored_at = STORED_AT.pack(self._server.clock())
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            if self._bound.is_passed:
                await self._make_room()
            if self._bound.is_passed:
                self.errors.evictions += len(items) - start
                break
            write = partial(self._write, group, stored_at, batch)
            is_due = await self._server.call(write, "write", limit_s=limit_s(batch))
            is_full = is_due is None and self.errors.last is not None and self.errors.last.kind == "memory"
            if is_due or is_full:
                await self._make_room()
            if is_due is None:
                break
            stored += len(batch)
        return stored

    async def _make_room(self) -> None:
        self.errors.evictions += await self._server.call(self._bound.make_room, "delete", limit_s=TRIM_S) or 0

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        if keys:
            names = key_names(self._prefix, group, keys)
            await self._server.call(lambda: self._server.delete(names), "delete", limit_s=limit_s(keys))

    async def group_sizes(self) -> list[GroupSize]:
        """Return the sizes of all groups, with and without a secret. Reads the lengths of all values."""
        return await self._server.call(lambda: _read_group_sizes(self._server), "inspect") or []

    async def clear(self, which: CacheFilter) -> int:
        """Delete entries; see `CacheStore.clear`. Applies to entries with and without a secret."""
        return await self._server.call(lambda: _clear_matching(self._server, which), "delete") or 0

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        return not counts or bool(await self._server.call(lambda: self._add_counts(counts), "count", limit_s=ANSWER_S))

    async def counts(self) -> dict[str, dict[str, int]]:
        return await self._server.call(self._read_counts, "inspect") or {}

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """Lease keys; see `CacheStore.lease`. If the server fails, all are granted: each process computes them."""
        duration_ms = max(1, round(seconds * 1000))
        arguments = (self._owner, duration_ms, max(duration_ms, _LONGEST_LEASE_MS))
        answers = await self._server.call(
            lambda: self._run_script(self._lease_script, group, keys, *arguments), "lease", limit_s=limit_s(keys)
        )
        return (
            [bool(granted) for answer in answers for granted in answer] if answers is not None else [True] * len(keys)
        )

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        if keys:
            await self._server.call(
                lambda: self._run_script(self._release_script, group, keys, self._owner),
                "lease",
                limit_s=limit_s(keys),
            )

    async def aclose(self) -> None:
        await self._server.aclose()

    async def _refresh(self, names: Sequence[str]) -> None:
        """Start the time to live of keys again."""

        async def refresh() -> bool:
            for start in range(0, len(names), BATCH):
                pipeline = self._client.pipeline(transaction=False)
                for name in names[start : start + BATCH]:
                    pipeline.execute_command("PEXPIRE", name, self._refresh_ms)
                await pipeline.execute()
            return True

        if names:
            await self._server.call(refresh, "write", limit_s=limit_s(names))

    async def _write(self, group: Group, stored_at: bytes, items: Sequence[tuple[bytes, bytes]]) -> bool:
        """Write entries. Return whether the bound must be checked."""
        pipeline = self._client.pipeline(transaction=False)
        self._server.stamp(pipeline)
        # Set with every write: a restarted or emptied server has no groups.
        pipeline.hset(self._prefix + GROUPS, group.id, json.dumps([group.model, group.space_id, group.namespace]))
        names = key_names(self._prefix, group, [key for key, _ in items])
        size = 0
        for name, (_, entry) in zip(names, items, strict=True):
            pipeline.set(name, stored_at + entry, px=self._ttl_ms)
            size += KEY_BYTES + len(entry)
        pipeline.incrby(BYTES, size)
        *answers, total = await pipeline.execute(raise_on_error=False)
        failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if failed is not None:
            raise failed
        self._server.is_stamped = True
        return self._bound.is_due(size, total)

    async def _run_script(self, script: str, group: Group, keys: Sequence[bytes], *arguments: bytes | int) -> list[Any]:
        """Run a script over the leases of keys. In a cluster it runs per key, because keys are in several slots."""
        names = key_names(LEASES_PREFIX, group, keys)
        size = 1 if self._server.is_cluster else BATCH
        pipeline = self._client.pipeline(transaction=False)
        for start in range(0, len(names), size):
            batch = names[start : start + size]
            pipeline.eval(script, len(batch), *batch, *arguments)
        answers: list[Any] = await pipeline.execute()
        return answers

    async def _add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        pipeline = self._client.pipeline(transaction=False)
        for model, numbers in counts.items():
            for name, number in numbers.items():
                pipeline.hincrby(COUNTS, json.dumps([model, name]), number)
        # An invalid or too large value that another program wrote does not prevent the other counts.
        answers = await pipeline.execute(raise_on_error=False)
        return not answers or any(not isinstance(answer, Exception) for answer in answers)

    async def _read_counts(self) -> dict[str, dict[str, int]]:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        found: dict[str, dict[str, int]] = {}
        for field, value in (await self._server.fields(COUNTS)).items():
            names, count = parse_texts(field, 2), parse_count(value)
            if names is not None and count is not None:
                found.setdefault(names[0], {})[names[1]] = count
        # A server counts its own evictions; a cluster returns one answer per node.
        with contextlib.suppress(redis.exceptions.ResponseError):  # some users have no permission for INFO
            answer = await self._client.info("stats")
            nodes = answer.values() if self._server.is_cluster else [answer]
            evicted = sum(int(node.get("evicted_keys", 0)) for node in nodes if isinstance(node, dict))
            of_store = found.setdefault(STORE_COUNTS, {})
            of_store["evictions"] = of_store.get("evictions", 0) + evicted
        return found


async def _read_group_sizes(server: RedisServer) -> list[GroupSize]:
    """Return the sizes of all groups, with and without a secret. Reads the lengths of all values."""
    found: dict[Group, GroupSize] = {}
    for prefix in (PREFIX, KEYED_PREFIX):
        for group, names in (await _matching_keys(server, prefix, CacheFilter())).items():
            size = 0
            for start in range(0, len(names), BATCH):
                lengths = await server.command_each("STRLEN", names[start : start + BATCH])
                size += sum(length for length in lengths if isinstance(length, int))
            before = found.get(group, GroupSize(group, 0, 0))
            found[group] = GroupSize(group, before.entries + len(names), before.bytes + size)
    return list(found.values())


async def _clear_matching(server: RedisServer, which: CacheFilter) -> int:
    """Delete entries, with and without a secret, and count a clearing. Returns the number of deleted entries."""
    deleted = 0
    for prefix in (PREFIX, KEYED_PREFIX):
        for names in (await _matching_keys(server, prefix, which)).values():
            for start in range(0, len(names), BATCH):
                batch = names[start : start + BATCH]
                if which.older_than_s is not None:
                    batch = await _older(server, batch, which.older_than_s)
                deleted += await server.delete(batch)
    await server.delete([BYTES])  # measured at the next write
    await _count_clearing(server)
    return deleted


async def _read_groups(server: RedisServer, prefix: str) -> list[Group]:
    facts = [(field, parse_texts(value, 3)) for field, value in (await server.fields(prefix + GROUPS)).items()]
    groups = [(field, Group(*texts)) for field, texts in facts if texts is not None]
    return [group for field, group in groups if group.id.encode() == field]


async def _matching_keys(server: RedisServer, prefix: str, which: CacheFilter) -> dict[Group, list[bytes]]:
    """Return the keys of each matching group. Scans all keys of the server once, however many groups there are."""
    groups = {group.id.encode(): group for group in await _read_groups(server, prefix) if which.matches(group)}
    found: dict[Group, dict[bytes, None]] = {group: {} for group in groups.values()}
    if groups:
        async for name in server.client.scan_iter(match=f"{prefix}*", count=1000):
            group = groups.get(name[len(prefix) :].partition(b":")[0])
            if group is not None:
                found[group][name] = None  # a scan may return a key twice
    return {group: list(names) for group, names in found.items() if names}


async def _older(server: RedisServer, names: list[bytes], older_than_s: float) -> list[bytes]:
    now = server.clock()
    values = await server.command_each("GETRANGE", names, 0, STORED_AT.size - 1)
    return [
        name for name, value in zip(names, values, strict=True) if parse_stored_at(value, now) <= now - older_than_s
    ]


async def _count_clearing(server: RedisServer) -> None:
    """Change the number of clearings, even if another program wrote an invalid value there."""
    import redis.exceptions  # noqa: PLC0415  already loaded by the client

    try:
        await server.client.incr(CLEARED)
    except redis.exceptions.ResponseError:
        await server.client.set(CLEARED, round(server.clock() * 1000))
