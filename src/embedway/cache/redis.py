"""Entries in Redis or Valkey: shared by machines.

Each entry is a key of its own, `embedway:v1:GROUP:KEY`, and no command names keys of several slots of a cluster. The
value is the time of storing (8 bytes) before the entry. Where a secret is set, keys are `embedway:keyed:v1:GROUP:NAME`,
so that versions without secrets neither read nor clear them. Either prefix has a hash of its groups; counts, leases and
the number of clearings are shared. A server that is down or slow costs at most one timeout, and then rests for a while,
in which all is a miss; no request fails for it.

The hash `embedway:format` holds the version of this layout as the field `cache`, and is set where it is missing. A
newer version is an error, because what it writes is not known here.

Others may write to the server: what cannot be ours is left out (`foreign.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, TypeVar

from embedway.cache.base import CacheErrors, CacheFilter, Group, GroupSize
from embedway.cache.foreign import (
    MOST_FIELD_BYTES,
    MOST_FIELDS,
    TIME,
    entry_of,
    key_of,
    number_of,
    stored_at,
    texts_of,
)
from embedway.cache.stats import NO_MODEL
from embedway.errors import CacheError, RuntimeUnavailableError, newer_version
from embedway.files import read_package_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

R = TypeVar("R")

_PREFIX, _KEYED = "embedway:v1:", "embedway:keyed:v1:"
_LEASES = "embedway:lease:"
_GROUPS = "groups"
_COUNTS = "embedway:v1:counts"
_CLEARED = "embedway:v1:cleared"
_FORMATS, _FORMAT_FIELD = "embedway:format", "cache"
#: The version of the layout. The first one had no stamp.
FORMAT = 1
_LEASE, _RELEASE = (read_package_text("embedway.cache", f"lua/{name}.lua") for name in ("lease", "release"))
#: Keys of one MGET, or commands of one pipeline.
_BATCH = 500
_CONNECT_S, _ANSWER_S = 0.5, 1.0
#: What a call may take for each key beyond that: a healthy server needs a tenth.
_KEY_S = 100e-6
#: How long a server that failed is left alone.
_REST_S = 5.0
#: How often the stamp is looked at: a newer version may have begun to use the server.
_FORMAT_S = 60.0
#: The longest lease that is believed to be one, unless ours are longer.
_LONGEST_LEASE_MS = 3_600_000


class _NoVersionError(Exception):
    """Somebody has written a stamp that is no version: the server is left alone."""

    def __str__(self) -> str:
        return f"the field {_FORMAT_FIELD} of the key {_FORMATS} in Redis is no version number; delete it"


class RedisCache:
    """A Redis or Valkey server, or a cluster of them."""

    def __init__(
        self,
        url: str,
        *,
        ttl_s: float | None = None,
        cluster: bool = False,
        keyed: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Connects at its first use. `keyed` is for entries of a secret.

        Raises RuntimeUnavailableError without the extra `redis`. Methods that read raise CacheError where a newer
        version of embedway stamped the server.
        """
        self.troubles = CacheErrors()
        self.leases = True
        self._owner = secrets.token_hex(8).encode()
        self._ttl_ms = max(1, round(ttl_s * 1000)) if ttl_s is not None else None
        self._cluster = cluster
        self._clock = clock
        self._prefix = _KEYED if keyed else _PREFIX
        self._rests_until = 0.0
        self._format_until = float("-inf")
        self._is_stamped = True
        self._client = _client(url, cluster=cluster)

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        return [entry_of(value) if value is not None else None for value in await self._values(group, keys)]

    async def get_aged(self, group: Group, keys: Sequence[bytes]) -> list[tuple[bytes, float] | None]:
        """See `Cache.get_aged`."""
        values, now = await self._values(group, keys), self._clock()
        return [(entry_of(value), stored_at(value, now)) if value is not None else None for value in values]

    async def generation(self) -> int | None:
        """See `Cache.generation`."""
        told = await self._guarded(self._generation, reading=True, limit_s=_ANSWER_S)
        return number_of(told)

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `Cache.put_many`."""
        kept = 0
        stamp = TIME.pack(self._clock())

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
            await self._guarded(lambda: self._forget(_names(self._prefix, group, keys)), limit_s=_limit_s(keys))

    async def held(self) -> list[GroupSize]:
        """See `Cache.held`: all entries, with and without a secret. Reads the lengths of all values."""
        return await self._guarded(self._count, reading=True) or []

    async def clear(self, which: CacheFilter) -> int:
        """See `Cache.clear`: all entries, with and without a secret."""
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
        names = _names(self._prefix, group, keys)
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
        """Await a call; None where the server fails, takes longer than `limit_s` or rests, which is counted.

        Raises CacheError for reading where the server is of a newer format.
        """
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        if self._clock() < self._rests_until:
            self.troubles.failed_reads += reading
            self.troubles.failed_writes += not reading
            return None
        try:
            async with asyncio.timeout(limit_s):
                if self._clock() >= self._format_until:
                    await self._check_format()
                return await call()
        except CacheError as error:
            if reading:
                raise
            # A call reads before it writes, and then raises. Nothing that was computed meanwhile is lost for this.
            self.troubles.failed_writes += 1
            self.troubles.last = str(error)
            return None
        # That of clusters is no `RedisError`.
        except (
            redis.exceptions.RedisError,
            redis.exceptions.RedisClusterException,
            OSError,
            TimeoutError,
            _NoVersionError,
        ) as error:
            self.troubles.failed_reads += reading
            self.troubles.failed_writes += not reading
            self.troubles.last = str(error) if isinstance(error, _NoVersionError) else type(error).__name__
            # What the server refuses (it is full, say) it refuses at once, and the next may pass.
            if not isinstance(error, redis.exceptions.ResponseError):
                self._rests_until = self._clock() + _REST_S
            return None

    async def _check_format(self) -> None:
        """Look at the stamp. Raises CacheError where it is newer than this version."""
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        try:
            stamp: bytes | None = await self._client.hget(_FORMATS, _FORMAT_FIELD)
        except redis.exceptions.NoPermissionError:
            stamp, self._is_stamped = None, True  # users of earlier versions may be allowed no more than its keys
        else:
            self._is_stamped = stamp is not None
        version = number_of(stamp)
        if stamp is not None and version is None:
            raise _NoVersionError
        if version is not None and version > FORMAT:
            otherwise = f"name another database in cache.url (the version is in the key {_FORMATS})"
            raise CacheError(f"the cache in Redis {newer_version(version, FORMAT, otherwise=otherwise)}")
        self._format_until = self._clock() + _FORMAT_S

    async def _write(self, group: Group, stamp: bytes, items: Sequence[tuple[bytes, bytes]]) -> bool:
        pipeline = self._client.pipeline(transaction=False)
        if not self._is_stamped:
            pipeline.hsetnx(_FORMATS, _FORMAT_FIELD, FORMAT)
        # With every write: a server that was restarted or emptied knows no groups.
        pipeline.hset(self._prefix + _GROUPS, group.id, json.dumps([group.model, group.space_id, group.namespace]))
        names = _names(self._prefix, group, [key for key, _ in items])
        for name, (_, entry) in zip(names, items, strict=True):
            pipeline.set(name, stamp + entry, px=self._ttl_ms)
        await pipeline.execute()
        self._is_stamped = True
        return True

    async def _lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        lasts_ms = max(1, round(seconds * 1000))
        answers = await self._script(_LEASE, group, keys, self._owner, lasts_ms, max(lasts_ms, _LONGEST_LEASE_MS))
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
        # A field that others have written and that is no number, or too large a one, keeps no other from being counted.
        answers = await pipeline.execute(raise_on_error=False)
        return not answers or any(not isinstance(answer, Exception) for answer in answers)

    async def _counts(self) -> dict[str, dict[str, int]]:
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        found: dict[str, dict[str, int]] = {}
        for field, number in (await self._fields(_COUNTS)).items():
            names, counted = texts_of(field, 2), number_of(number)
            if names is not None and counted is not None:
                found.setdefault(names[0], {})[names[1]] = counted
        # What a server evicts, it counts itself; an answer of a cluster is one by node.
        with contextlib.suppress(redis.exceptions.ResponseError):  # not every user may ask
            told = await self._client.info("stats")
            nodes = told.values() if self._cluster else [told]
            evicted = sum(int(node.get("evicted_keys", 0)) for node in nodes if isinstance(node, dict))
            found.setdefault(NO_MODEL, {})["evictions"] = evicted
        return found

    async def _forget(self, names: Sequence[str] | Sequence[bytes]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            # A cluster's client has another `unlink`, which a pipeline does not take.
            pipeline.execute_command("UNLINK", name)
        return sum(await pipeline.execute()) if names else 0

    async def _fields(self, name: str) -> dict[bytes, bytes]:
        """The fields of a hash, as many as there can be of ours; those that are too long are left out."""
        found: dict[bytes, bytes] = {}
        async for field, value in self._client.hscan_iter(name, count=1000):
            if len(field) <= MOST_FIELD_BYTES and len(value) <= MOST_FIELD_BYTES:
                found[field] = value
            if len(found) >= MOST_FIELDS:
                break
        return found

    async def _groups(self, prefix: str) -> list[Group]:
        facts = [(field, texts_of(value, 3)) for field, value in (await self._fields(prefix + _GROUPS)).items()]
        groups = [(field, Group(*texts)) for field, texts in facts if texts is not None]
        return [group for field, group in groups if group.id.encode() == field]

    async def _names(self, prefix: str, which: CacheFilter) -> dict[Group, list[bytes]]:
        """The keys of each group that is meant; one look at all keys of the server, however many groups there are."""
        groups = {group.id.encode(): group for group in await self._groups(prefix) if which.takes(group)}
        found: dict[Group, dict[bytes, None]] = {group: {} for group in groups.values()}
        if groups:
            async for name in self._client.scan_iter(match=f"{prefix}*", count=1000):
                group = groups.get(name[len(prefix) :].partition(b":")[0])
                if group is not None:
                    found[group][name] = None  # a server may name a key twice
        return {group: list(names) for group, names in found.items() if names}

    async def _count(self) -> list[GroupSize]:
        found: dict[Group, GroupSize] = {}
        for prefix in (_PREFIX, _KEYED):
            for group, names in (await self._names(prefix, CacheFilter())).items():
                size = 0
                for start in range(0, len(names), _BATCH):
                    sizes = await self._each("STRLEN", names[start : start + _BATCH])
                    size += sum(one for one in sizes if isinstance(one, int))
                before = found.get(group, GroupSize(group, 0, 0))
                found[group] = GroupSize(group, before.entries + len(names), before.bytes + size)
        return list(found.values())

    async def _clear(self, which: CacheFilter) -> int:
        gone = 0
        for prefix in (_PREFIX, _KEYED):
            for names in (await self._names(prefix, which)).values():
                for start in range(0, len(names), _BATCH):
                    some = names[start : start + _BATCH]
                    if which.older_than_s is not None:
                        some = await self._older(some, which.older_than_s)
                    gone += await self._forget(some)
        await self._count_clearing()
        return gone

    async def _count_clearing(self) -> None:
        """Make the number of clearings another one, whatever others have made of it."""
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        try:
            await self._client.incr(_CLEARED)
        except redis.exceptions.ResponseError:
            await self._client.set(_CLEARED, round(self._clock() * 1000))

    async def _older(self, names: list[bytes], older_than_s: float) -> list[bytes]:
        now = self._clock()
        values = await self._each("GETRANGE", names, 0, TIME.size - 1)
        oldest = now - older_than_s
        return [name for name, value in zip(names, values, strict=True) if stored_at(value, now) <= oldest]

    async def _each(self, command: str, names: Sequence[bytes], *arguments: int) -> list[Any]:
        """The answer of each key to a command; an error where it is of another kind, as none of ours is."""
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command(command, name, *arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def _sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        keys: list[bytes] = []
        async for name in self._client.scan_iter(match=f"{self._prefix}{group.id}:*", count=1000):
            key = key_of(name.rsplit(b":", 1)[1])
            if key is not None:
                keys.append(key)
            if len(keys) >= count:
                break
        entries = await self.get_many(group, keys)
        return [(key, entry) for key, entry in zip(keys, entries, strict=True) if entry is not None]


def _names(prefix: str, group: Group, keys: Sequence[bytes]) -> list[str]:
    start = f"{prefix}{group.id}:"
    return [start + key.hex() for key in keys]


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
