"""Entries in Redis or Valkey: shared by machines.

Each entry is a key of its own, `embedway:v1:GROUP:KEY`, and no command names keys of several slots of a cluster. The
value is the time of storing (8 bytes) before the entry. A server that is down or slow costs at most one timeout, and
then rests for a while, in which all is a miss; no request fails for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import struct
import time
from typing import TYPE_CHECKING, Any, TypeVar

from embedway.cache.base import Group, Held, Troubles, Which
from embedway.cache.stats import NO_MODEL
from embedway.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

R = TypeVar("R")

_PREFIX = "embedway:v1:"
_LEASES = "embedway:lease:"
_GROUPS = "embedway:v1:groups"
_COUNTS = "embedway:v1:counts"
_CLEARED = "embedway:v1:cleared"
#: A lease that the caller holds already begins anew.
_LEASE = """
local granted = {}
for number, name in ipairs(KEYS) do
    local holder = redis.call('get', name)
    if holder and holder ~= ARGV[1] then
        granted[number] = 0
    else
        redis.call('set', name, ARGV[1], 'PX', ARGV[2])
        granted[number] = 1
    end
end
return granted
"""
#: Only who holds a lease gives it back: it may have run out and be another's.
_RELEASE = """
for _, name in ipairs(KEYS) do
    if redis.call('get', name) == ARGV[1] then redis.call('del', name) end
end
return 1
"""
_STAMP = struct.Struct("<d")
#: Keys of one MGET, or commands of one pipeline.
_BATCH = 500
_CONNECT_S, _ANSWER_S = 0.5, 1.0
#: What a call may take for each key beyond that: a healthy server needs a tenth.
_KEY_S = 100e-6
#: How long a server that failed is left alone.
_REST_S = 5.0


class RedisCache:
    """A Redis or Valkey server, or a cluster of them."""

    def __init__(
        self,
        url: str,
        *,
        ttl_s: float | None = None,
        cluster: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Connects at its first use. Raises RuntimeUnavailableError without the extra `redis`."""
        self.troubles = Troubles()
        self.leases = True
        self._owner = secrets.token_hex(8).encode()
        self._ttl_ms = max(1, round(ttl_s * 1000)) if ttl_s is not None else None
        self._cluster = cluster
        self._clock = clock
        self._rests_until = 0.0
        self._client = _client(url, cluster=cluster)

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        return [value[_STAMP.size :] if value is not None else None for value in await self._values(group, keys)]

    async def get_aged(self, group: Group, keys: Sequence[bytes]) -> list[tuple[bytes, float] | None]:
        """See `Cache.get_aged`."""
        return [
            (value[_STAMP.size :], _stored_at(value)) if value is not None else None
            for value in await self._values(group, keys)
        ]

    async def generation(self) -> int | None:
        """See `Cache.generation`."""
        told = await self._guarded(self._generation, reading=True, limit_s=_ANSWER_S)
        return int(told) if told is not None else None

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `Cache.put_many`."""
        kept = 0
        stamp = _STAMP.pack(self._clock())

        async def write() -> bool:
            nonlocal kept
            for start in range(0, len(items), _BATCH):
                some = items[start : start + _BATCH]
                await self._write(group, stamp, some)
                kept += len(some)
            return True

        if items:
            await self._guarded(write, limit_s=_limit_s(items))
        return kept

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.delete_many`."""
        if keys:
            await self._guarded(lambda: self._forget(_names(_PREFIX, group, keys)), limit_s=_limit_s(keys))

    async def held(self) -> list[Held]:
        """See `Cache.held`. Reads the lengths of all values."""
        return await self._guarded(self._count, reading=True) or []

    async def clear(self, which: Which) -> int:
        """See `Cache.clear`."""
        return await self._guarded(lambda: self._clear(which)) or 0

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `Cache.sample`."""
        return await self._guarded(lambda: self._sample(group, count), reading=True) or []

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """See `Cache.add_counts`."""
        return not counts or bool(await self._guarded(lambda: self._add_counts(counts), limit_s=_ANSWER_S))

    async def counts(self) -> dict[str, dict[str, int]]:
        """See `Cache.counts`."""
        return await self._guarded(self._counts, reading=True) or {}

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """See `Cache.lease`; all where the server fails: then everybody computes for himself."""
        granted = await self._guarded(lambda: self._lease(group, keys, seconds), limit_s=_limit_s(keys))
        return granted if granted is not None else [True] * len(keys)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.release`."""
        if keys:
            await self._guarded(lambda: self._release(group, keys), limit_s=_limit_s(keys))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _values(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is read until the time is up; the rest is missing."""
        found: list[bytes | None] = []
        names = _names(_PREFIX, group, keys)
        # The other one asks a node for the keys of each slot.
        read = self._client.mget_nonatomic if self._cluster else self._client.mget

        async def fill() -> bool:
            for start in range(0, len(names), _BATCH):
                found.extend(await read(names[start : start + _BATCH]))
            return True

        if keys:
            await self._guarded(fill, reading=True, limit_s=_limit_s(keys))
        return found + [None] * (len(keys) - len(found))

    async def _generation(self) -> bytes:
        told: bytes | None = await self._client.get(_CLEARED)
        return told or b"0"

    async def _guarded(
        self, call: Callable[[], Awaitable[R]], *, reading: bool = False, limit_s: float | None = None
    ) -> R | None:
        """What a call gives; None where the server fails, takes longer than `limit_s` or rests, which is counted."""
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        if self._clock() < self._rests_until:
            self.troubles.failed_reads += reading
            self.troubles.failed_writes += not reading
            return None
        try:
            async with asyncio.timeout(limit_s):
                return await call()
        # That of clusters is no `RedisError`.
        except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError, TimeoutError) as error:
            self.troubles.failed_reads += reading
            self.troubles.failed_writes += not reading
            self.troubles.last = type(error).__name__
            # What the server refuses (it is full, say) it refuses at once, and the next may pass.
            if not isinstance(error, redis.exceptions.ResponseError):
                self._rests_until = self._clock() + _REST_S
            return None

    async def _write(self, group: Group, stamp: bytes, items: Sequence[tuple[bytes, bytes]]) -> bool:
        pipeline = self._client.pipeline(transaction=False)
        # With every write: a server that was restarted or emptied knows no groups.
        pipeline.hset(_GROUPS, group.id, json.dumps([group.model, group.space_id, group.namespace]))
        names = _names(_PREFIX, group, [key for key, _ in items])
        for name, (_, entry) in zip(names, items, strict=True):
            pipeline.set(name, stamp + entry, px=self._ttl_ms)
        await pipeline.execute()
        return True

    async def _lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        answers = await self._script(_LEASE, group, keys, self._owner, max(1, round(seconds * 1000)))
        return [bool(granted) for answer in answers for granted in answer]

    async def _release(self, group: Group, keys: Sequence[bytes]) -> bool:
        await self._script(_RELEASE, group, keys, self._owner)
        return True

    async def _script(self, script: str, group: Group, keys: Sequence[bytes], *arguments: bytes | int) -> list[Any]:
        """Run a script over the leases of keys; in a cluster for each by itself, because they lie in several slots."""
        names = _names(_LEASES, group, keys)
        most = 1 if self._cluster else _BATCH
        pipeline = self._client.pipeline(transaction=False)
        for start in range(0, len(names), most):
            some = names[start : start + most]
            pipeline.eval(script, len(some), *some, *arguments)
        answers: list[Any] = await pipeline.execute()
        return answers

    async def _add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        pipeline = self._client.pipeline(transaction=False)
        for model, numbers in counts.items():
            for name, number in numbers.items():
                pipeline.hincrby(_COUNTS, json.dumps([model, name]), number)
        await pipeline.execute()
        return True

    async def _counts(self) -> dict[str, dict[str, int]]:
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        found: dict[str, dict[str, int]] = {}
        for field, number in (await self._client.hgetall(_COUNTS)).items():
            model, name = json.loads(field)
            found.setdefault(model, {})[name] = int(number)
        # What a server evicts, it counts itself; an answer of a cluster is one by node.
        with contextlib.suppress(redis.exceptions.ResponseError):  # not every user may ask
            told = await self._client.info("stats")
            nodes = told.values() if self._cluster else [told]
            evicted = sum(int(node.get("evicted_keys", 0)) for node in nodes if isinstance(node, dict))
            found.setdefault(NO_MODEL, {})["evictions"] = evicted
        return found

    async def _forget(self, names: Sequence[str]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            # A cluster's client has another `unlink`, which a pipeline does not take.
            pipeline.execute_command("UNLINK", name)
        return sum(await pipeline.execute()) if names else 0

    async def _group_names(self) -> list[Group]:
        facts = await self._client.hgetall(_GROUPS)
        return [Group(*json.loads(value)) for value in facts.values()]

    async def _names(self, group: Group) -> list[bytes]:
        return [name async for name in self._client.scan_iter(match=f"{_PREFIX}{group.id}:*", count=1000)]

    async def _count(self) -> list[Held]:
        found = []
        for group in await self._group_names():
            names = await self._names(group)
            size = 0
            for start in range(0, len(names), _BATCH):
                pipeline = self._client.pipeline(transaction=False)
                for name in names[start : start + _BATCH]:
                    pipeline.strlen(name)
                size += sum(await pipeline.execute())
            if names:
                found.append(Held(group, len(names), size))
        return found

    async def _clear(self, which: Which) -> int:
        gone = 0
        for group in await self._group_names():
            if not which.takes(group):
                continue
            names = await self._names(group)
            for start in range(0, len(names), _BATCH):
                some = names[start : start + _BATCH]
                if which.older_than_s is not None:
                    some = await self._older(some, self._clock() - which.older_than_s)
                gone += await self._forget(some)  # type: ignore[arg-type]
        await self._client.incr(_CLEARED)
        return gone

    async def _older(self, names: list[bytes], newest: float) -> list[bytes]:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.getrange(name, 0, _STAMP.size - 1)
        stamps = await pipeline.execute()
        return [name for name, stamp in zip(names, stamps, strict=True) if _stored_at(stamp) <= newest]

    async def _sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        names = []
        async for name in self._client.scan_iter(match=f"{_PREFIX}{group.id}:*", count=1000):
            names.append(name)
            if len(names) >= count:
                break
        keys = [bytes.fromhex(name.rsplit(b":", 1)[1].decode()) for name in names]
        entries = await self.get_many(group, keys)
        return [(key, entry) for key, entry in zip(keys, entries, strict=True) if entry is not None]


def _names(prefix: str, group: Group, keys: Sequence[bytes]) -> list[str]:
    start = f"{prefix}{group.id}:"
    return [start + key.hex() for key in keys]


def _stored_at(value: bytes) -> float:
    """When a value was stored; long ago, where it does not say."""
    return float(_STAMP.unpack_from(value)[0]) if len(value) >= _STAMP.size else 0.0


def _limit_s(keys: Sequence[object]) -> float:
    """How long a call with so many keys may take in all."""
    return _ANSWER_S + _KEY_S * len(keys)


def _client(url: str, *, cluster: bool) -> Any:
    try:
        import redis.asyncio as redis  # noqa: PLC0415  an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError:
        raise RuntimeUnavailableError(
            "cache.backend = 'redis' needs a library: pip install 'embedway[redis]'"
        ) from None
    timeouts: dict[str, Any] = {"socket_connect_timeout": _CONNECT_S, "socket_timeout": _ANSWER_S}
    if cluster:
        # Once more, for a slot that has moved; by itself it waits and tries for several seconds.
        return redis.RedisCluster.from_url(url, retry=Retry(NoBackoff(), 1), **timeouts)
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts)
