"""Connection of the cache to Redis or Valkey: client, timeouts, failures, and the layout of keys and values.

A server that is down or slow costs at most one timeout. It is then skipped for a while: every call fails at once.
Failures of a server are counted, never raised.

Other programs may write to the server, so a value may have any type and length. Invalid values are skipped.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import struct
from typing import TYPE_CHECKING, Any, TypeVar

from embedway.cache.base import MOST_AHEAD_BETWEEN_MACHINES_S
from embedway.cache.codec import MAX_ENTRY_BYTES
from embedway.cache.errors import READS
from embedway.cache.pause import Pause
from embedway.errors import CacheError, RuntimeUnavailableError, newer_version
from embedway.shared_servers import note_use, read_facts
from embedway.store_failures import StoreFailure, explain_server
from embedway.third_party import INVALID_VALUE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.cache.base import Group
    from embedway.cache.errors import Action, CacheErrors
    from embedway.shared_servers import CacheUse

R = TypeVar("R")

#: Prefixes of entries without a secret, and with one.
PREFIX, KEYED_PREFIX = "embedway:v1:", "embedway:keyed:v1:"
LEASES_PREFIX = "embedway:lease:"
#: Suffix of the hash of groups, after either prefix.
GROUPS = "groups"
COUNTS = "embedway:v1:counts"
CLEARED = "embedway:v1:cleared"
#: Bytes stored since the entries were measured, and the lock of the process that measures them; see `redis_bound.py`.
BYTES, TRIMMING = "embedway:v1:bytes", "embedway:v1:trimming"
#: Hash of versions, and the field of the cache's version.
FORMATS, FORMAT_FIELD = "embedway:format", "cache"
#: Version of this layout. Servers from before the first stamp have none.
FORMAT = 1
#: Maximum fields read from a hash, and bytes of one of them. No user has as many models.
MAX_FIELDS, MAX_FIELD_BYTES = 20_000, 16_384
#: Time of storing, in seconds since 1970. It precedes each entry.
STORED_AT = struct.Struct("<d")
_COUNT = re.compile(rb"\d{1,18}")
_ENTRY = re.compile(rb"[0-9a-f]{16}:[0-9a-f]+")
#: Maximum keys of one MGET, or commands of one pipeline.
BATCH = 500
_CONNECT_S = 0.5
#: Timeout of one response, in seconds.
ANSWER_S = 1.0
#: Additional timeout per key, in seconds. A healthy server needs a tenth of it.
_KEY_S = 100e-6
#: Time for which a failed server is skipped, in seconds.
_REST_S = 5.0
#: Interval between reads of the stamp, in seconds. A newer version may have started to use the server.
_FORMAT_S = 60.0


class _NoVersionError(Exception):
    """The stamp of the server is not a version: the server is skipped."""


_NO_VERSION = StoreFailure(
    "no version", f"the field {FORMAT_FIELD} of its key {FORMATS} is not a version number", "delete the field"
)
_NEWER = StoreFailure("version", "a newer version of embedway uses it", "update embedway, or set another cache.url")


class RedisServer:
    """Redis or Valkey server or cluster. It connects at its first use.

    Raises RuntimeUnavailableError without the extra `redis`.
    """

    def __init__(
        self,
        url: str,
        errors: CacheErrors,
        *,
        cluster: bool,
        clock: Callable[[], float],
        use: CacheUse | None = None,
    ) -> None:
        """Create the server. `use`: the bound of the entries, and whether they expire."""
        self.client = _open_client(url, cluster=cluster)
        self._url = url
        self.is_cluster = cluster
        self._use = use
        self.clock = clock
        self._errors = errors
        self._pause, self._format_is_known = Pause(_REST_S, clock), Pause(_FORMAT_S, clock)
        self.is_stamped = True
        #: Memory at which the server refuses writes, in bytes; 0 if it does not, or if that is unknown.
        self.refusing_at = 0

    async def call(
        self, function: Callable[[], Awaitable[R]], action: Action, *, limit_s: float | None = None
    ) -> R | None:
        """Await a call; None if the server fails, exceeds `limit_s` or is skipped, which is counted.

        When it reads, raises CacheError if the server has a newer format.
        """
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        if self._pause.is_running():
            self._errors.count(action)
            return None
        try:
            async with asyncio.timeout(limit_s):
                if not self._format_is_known.is_running():
                    await self._check_format()
                    await self._read_facts()
                result = await function()
        except CacheError:
            if action in READS:
                raise
            # A request reads before it writes, and the read raises. A failed write must not lose computed vectors.
            self._errors.count(action, _NEWER)
            return None
        # RedisClusterException is not a RedisError.
        except (
            redis.exceptions.RedisError,
            redis.exceptions.RedisClusterException,
            OSError,
            TimeoutError,
            _NoVersionError,
            *INVALID_VALUE_ERRORS,
        ) as error:
            self._errors.count(action, self._explain(error, limit_s))
            # The server rejects a command at once, for example when it is full, and the next one may succeed.
            if not isinstance(error, redis.exceptions.ResponseError):
                self._pause.start()
            return None
        self._errors.note_success(action)
        return result

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    def stamp(self, pipeline: Any) -> None:
        """Start a write pipeline with the version of the layout if the server has none."""
        if not self.is_stamped:
            pipeline.hsetnx(FORMATS, FORMAT_FIELD, FORMAT)

    async def command_each(self, command: str, names: Sequence[bytes], *arguments: int) -> list[Any]:
        """Return the response of each key to a command; an error if the key has another type, unlike any of ours.

        Raises the library's error if the user may not run the command.
        """
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command(command, name, *arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        refused = next((one for one in answers if isinstance(one, redis.exceptions.NoPermissionError)), None)
        if refused is not None:
            raise refused
        return answers

    async def delete(self, names: Sequence[str] | Sequence[bytes]) -> int:
        """Delete keys and return how many existed."""
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            # The cluster client has a different `unlink`, which a pipeline does not accept.
            pipeline.execute_command("UNLINK", name)
        return sum(await pipeline.execute()) if names else 0

    async def fields(self, name: str) -> dict[bytes, bytes]:
        """Return the fields of a hash, up to `MAX_FIELDS`; fields that are too long are skipped."""
        found: dict[bytes, bytes] = {}
        async for field, value in self.client.hscan_iter(name, count=1000):
            if len(field) <= MAX_FIELD_BYTES and len(value) <= MAX_FIELD_BYTES:
                found[field] = value
            if len(found) >= MAX_FIELDS:
                break
        return found

    def _explain(self, error: BaseException, limit_s: float | None) -> StoreFailure:
        if isinstance(error, _NoVersionError):
            return _NO_VERSION
        return explain_server(error, self._url, setting="cache.url", answer_s=ANSWER_S if limit_s is None else limit_s)

    async def _check_format(self) -> None:
        """Read the stamp. Raises CacheError if it is newer than this version."""
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        try:
            stamp: bytes | None = await self.client.hget(FORMATS, FORMAT_FIELD)
        except redis.exceptions.NoPermissionError:
            stamp, self.is_stamped = None, True  # users of earlier versions may only have access to the cache's keys
        else:
            self.is_stamped = stamp is not None
        version = parse_count(stamp)
        if stamp is not None and version is None:
            raise _NoVersionError
        if version is not None and version > FORMAT:
            otherwise = f"set cache.url to another database (the version is in the key {FORMATS})"
            raise CacheError(f"the cache in Redis {newer_version(version, FORMAT, otherwise=otherwise)}")
        self._format_is_known.start()

    async def _read_facts(self) -> None:
        """Read the memory limit of the server, and note that the cache uses it."""
        facts = await read_facts(self.client)
        note_use("cache", self._url, facts, self._use)
        refuses = facts.refuses(expires=self._use is None or self._use.expires)
        self.refusing_at = facts.maxmemory if refuses and not self.is_cluster else 0


def is_entry(name: bytes, prefix: str) -> bool:
    """Return whether a key with a prefix of ours is an entry's."""
    return _ENTRY.fullmatch(name, len(prefix)) is not None


def key_names(prefix: str, group: Group, keys: Sequence[bytes]) -> list[str]:
    """Return the names of a group's keys on the server."""
    start = f"{prefix}{group.id}:"
    return [start + key.hex() for key in keys]


def parse_count(value: bytes | None) -> int | None:
    """Parse a count; None for any other value."""
    return int(value) if value is not None and _COUNT.fullmatch(value) else None


def parse_texts(value: bytes, count: int) -> list[str] | None:
    """Parse a JSON list of `count` texts; None for any other value."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    good = isinstance(found, list) and len(found) == count and all(isinstance(text, str) for text in found)
    return found if good else None


def parse_entry(value: bytes) -> bytes:
    """Return the entry of a value; empty, and so damaged, if the value is longer than any entry."""
    return value[STORED_AT.size :] if len(value) <= STORED_AT.size + MAX_ENTRY_BYTES else b""


def parse_stored_at(value: object, now: float) -> float:
    """Return the time of storing of a value, at most `now`; 0, older than any entry, if it is unknown.

    It is unknown if it is far in the future: the clock that wrote it was wrong.
    """
    if not isinstance(value, bytes) or len(value) < STORED_AT.size:
        return 0.0
    stored = float(STORED_AT.unpack_from(value)[0])
    known = math.isfinite(stored) and stored <= now + MOST_AHEAD_BETWEEN_MACHINES_S
    return min(stored, now) if known else 0.0


def limit_s(keys: Sequence[object]) -> float:
    """Return the maximum duration of a call with these keys, in seconds."""
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
        # One retry, for a slot that has moved. By default the client waits and retries for several seconds.
        return redis.RedisCluster.from_url(url, retry=Retry(NoBackoff(), 1), **timeouts)
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts)
