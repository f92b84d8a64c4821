"""Connection of the cache to Redis or Valkey: the client, its timeouts and failures, and the layout of keys and values.

A server that is down or slow costs at most one timeout. Then it rests for a while, in which every call fails at once.
No failure of a server is raised; each is counted.

Others may write to the server, so that a value may be of any kind and length. What cannot be ours is left out.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import struct
from typing import TYPE_CHECKING, Any, TypeVar

from embedway.cache.codec import MAX_ENTRY_BYTES
from embedway.errors import CacheError, RuntimeUnavailableError, newer_version

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.cache.base import CacheErrors, Group

R = TypeVar("R")

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
#: Keys of one MGET, or commands of one pipeline.
BATCH = 500
_CONNECT_S = 0.5
#: The time for one answer.
ANSWER_S = 1.0
#: A call may take this for each key beyond that: a healthy server needs a tenth.
_KEY_S = 100e-6
#: How long a server that failed is left alone.
_REST_S = 5.0
#: How often the stamp is read: a newer version may have begun to use the server.
_FORMAT_S = 60.0


class _NoVersionError(Exception):
    """Somebody has written a stamp that is no version: the server is left alone."""

    def __str__(self) -> str:
        return f"the field {FORMAT_FIELD} of the key {FORMATS} in Redis is no version number; delete it"


class RedisServer:
    """A server, or a cluster of them. It connects at its first use.

    Raises RuntimeUnavailableError without the extra `redis`.
    """

    def __init__(self, url: str, errors: CacheErrors, *, cluster: bool, clock: Callable[[], float]) -> None:
        self.client = _open_client(url, cluster=cluster)
        self.is_cluster = cluster
        self.clock = clock
        self._errors = errors
        self._rests_until = 0.0
        self._format_until = float("-inf")
        self.is_stamped = True

    async def call(
        self, function: Callable[[], Awaitable[R]], *, reading: bool = False, limit_s: float | None = None
    ) -> R | None:
        """Await a call; None where the server fails, takes longer than `limit_s` or rests, which is counted.

        Raises CacheError for reading where the server is of a newer format.
        """
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        if self.clock() < self._rests_until:
            self._count_failure(reading=reading)
            return None
        try:
            async with asyncio.timeout(limit_s):
                if self.clock() >= self._format_until:
                    await self._check_format()
                return await function()
        except CacheError as error:
            if reading:
                raise
            # A call reads before it writes, and then raises. Nothing that was computed meanwhile is lost for this.
            self._count_failure(reading=False)
            self._errors.last = str(error)
            return None
        # That of clusters is no `RedisError`.
        except (
            redis.exceptions.RedisError,
            redis.exceptions.RedisClusterException,
            OSError,
            TimeoutError,
            _NoVersionError,
        ) as error:
            self._count_failure(reading=reading)
            self._errors.last = str(error) if isinstance(error, _NoVersionError) else type(error).__name__
            # What the server refuses (it is full, say) it refuses at once, and the next may pass.
            if not isinstance(error, redis.exceptions.ResponseError):
                self._rests_until = self.clock() + _REST_S
            return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    def stamp(self, pipeline: Any) -> None:
        """Begin a pipeline that writes entries with the version of the layout, where the server has none."""
        if not self.is_stamped:
            pipeline.hsetnx(FORMATS, FORMAT_FIELD, FORMAT)

    async def command_each(self, command: str, names: Sequence[bytes], *arguments: int) -> list[Any]:
        """The answer of each key to a command; an error where it is of another kind, as none of ours is."""
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command(command, name, *arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def delete(self, names: Sequence[str] | Sequence[bytes]) -> int:
        """Delete keys. Returns how many there were."""
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            # A cluster's client has another `unlink`, which a pipeline does not take.
            pipeline.execute_command("UNLINK", name)
        return sum(await pipeline.execute()) if names else 0

    async def fields(self, name: str) -> dict[bytes, bytes]:
        """The fields of a hash, as many as there can be of ours; those that are too long are left out."""
        found: dict[bytes, bytes] = {}
        async for field, value in self.client.hscan_iter(name, count=1000):
            if len(field) <= MAX_FIELD_BYTES and len(value) <= MAX_FIELD_BYTES:
                found[field] = value
            if len(found) >= MAX_FIELDS:
                break
        return found

    def _count_failure(self, *, reading: bool) -> None:
        self._errors.failed_reads += reading
        self._errors.failed_writes += not reading

    async def _check_format(self) -> None:
        """Read the stamp. Raises CacheError where it is newer than this version."""
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        try:
            stamp: bytes | None = await self.client.hget(FORMATS, FORMAT_FIELD)
        except redis.exceptions.NoPermissionError:
            stamp, self.is_stamped = None, True  # users of earlier versions may be allowed no more than its keys
        else:
            self.is_stamped = stamp is not None
        version = parse_count(stamp)
        if stamp is not None and version is None:
            raise _NoVersionError
        if version is not None and version > FORMAT:
            otherwise = f"name another database in cache.url (the version is in the key {FORMATS})"
            raise CacheError(f"the cache in Redis {newer_version(version, FORMAT, otherwise=otherwise)}")
        self._format_until = self.clock() + _FORMAT_S


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


def limit_s(keys: Sequence[object]) -> float:
    """The time that a call with these keys may take in all."""
    return ANSWER_S + _KEY_S * len(keys)


def _open_client(url: str, *, cluster: bool) -> Any:
    try:
        import redis.asyncio as redis  # noqa: PLC0415  an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError:
        raise RuntimeUnavailableError(
            "cache.backend = 'redis' needs a library: pip install 'embedway[redis]'"
        ) from None
    timeouts: dict[str, Any] = {"socket_connect_timeout": _CONNECT_S, "socket_timeout": ANSWER_S}
    if cluster:
        # Once more, for a slot that has moved; by itself it waits and tries for several seconds.
        return redis.RedisCluster.from_url(url, retry=Retry(NoBackoff(), 1), **timeouts)
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts)
