"""Bound on the entries of a cache in Redis, over all processes.

A key counts the bytes that all processes have stored since the entries were measured last. Expired and deleted entries
do not reduce it, so the entries are not larger than the count. If the count passes the bound, one process reads the
size and the idle time of each entry, deletes those that were idle longest, and corrects the count by the difference, so
that what others add meanwhile stays counted. Each write returns the count. A process that reads a count above the bound
stores nothing until it is corrected, so the entries pass the bound by at most the writes that have begun: one batch of
each process and task. Neither command changes the idle time. No list of all entries is kept, neither on the server nor
in the process.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

from embedway.cache.redis_server import BATCH, BYTES, KEYED_PREFIX, PREFIX, TRIMMING, is_entry, parse_count
from embedway.files import read_package_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from embedway.cache.redis_server import RedisServer

_log = logging.getLogger("embedway.cache")

#: Share of the bound that remains after a deletion, so that deletions are rare: each reads the sizes of all entries.
_REMAINING = 0.8
#: Maximum duration of a deletion, in seconds. Another process may begin one afterwards.
TRIM_S = 120.0
#: Bytes of a key, with the server's own records of it, beside its entry: as MEMORY USAGE reports.
KEY_BYTES = 200
#: Bytes assumed for an entry whose size is not known: the user may not run MEMORY USAGE.
_UNKNOWN_BYTES = 4096


class RedisBound:
    """Bound on all entries with our prefixes, in bytes."""

    def __init__(self, server: RedisServer, max_bytes: int) -> None:
        self._server = server
        self._max_bytes = max_bytes
        #: Whether the count passes the bound, as far as this process knows: nothing is stored then.
        self.is_passed = False
        self._is_logged = False
        self._correct_script, self._release_script = (
            read_package_text("embedway.cache", name) for name in ("corrected.lua", "release.lua")
        )

    def is_due(self, added: int, total: object) -> bool:
        """Return whether to measure, after `added` bytes made the count `total`.

        The count is missing on an emptied server, and on one that an earlier version wrote to; an error of the server
        is a value that another program wrote.
        """
        self.is_passed = isinstance(total, int) and total > self._limit()
        return self.is_passed or not isinstance(total, int) or total <= added

    async def make_room(self) -> int:
        """Measure the entries, and delete the least recently used ones if they pass the bound. Returns their number.

        While another process does it, only the count is read.
        """
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        client, token = self._server.client, secrets.token_hex(8).encode()
        try:
            if not await self._lock(token):
                self.is_passed = (await self._read_count() or 0) > self._limit()
                return 0
            try:
                return await self._trim()
            finally:
                # After a long deletion, the lock may be another process's.
                await client.eval(self._release_script, 1, TRIMMING, token)
        except redis.exceptions.NoPermissionError:
            if self.is_passed and not self._is_logged:
                self._is_logged = True
                _log.warning(
                    "the cache in Redis may pass cache.redis_mib, because its user may not run SCAN, UNLINK or EVAL; "
                    "entries still expire. Allow these commands. This is logged once"
                )
            self.is_passed = False
            return 0

    async def _lock(self, token: bytes) -> bool:
        """Return whether this process may measure and delete. A lock that never expires is not ours: it is replaced."""
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        client, longest_ms = self._server.client, round(TRIM_S * 1000)
        for _ in range(2):
            try:
                if await client.set(TRIMMING, token, nx=True, px=longest_ms):
                    return True
            except redis.exceptions.OutOfMemoryError:
                return True  # a full server refuses this key too, and deletions are allowed
            if -1 != await client.pttl(TRIMMING) <= longest_ms:
                return False
            await self._server.delete([TRIMMING])
        return False

    async def _read_count(self) -> int | None:
        """Return the count; None for an invalid or a missing one."""
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        try:
            return parse_count(await self._server.client.get(BYTES))
        except redis.exceptions.NoPermissionError:
            raise
        except redis.exceptions.ResponseError:  # a key of another type
            return None

    async def _trim(self) -> int:
        """Measure the entries, delete until they are below the bound, and correct the count. Returns the deletions."""
        before = await self._read_count()
        if before is None:
            await self._server.delete([BYTES])
        sizes: Counter[int] = Counter()
        async for idle_s, size, _ in self._entries():
            sizes[idle_s] += size
        total, deleted = sizes.total(), 0
        if total > self._limit():
            excess = total - round(self._limit() * _REMAINING)
            deleted, freed = await self._delete_idle(_idle_longer(sizes, excess), excess)
            total -= freed
        count = await self._server.client.eval(self._correct_script, 1, BYTES, before or 0, total)
        self.is_passed = count > self._limit()
        return deleted

    async def _delete_idle(self, least_s: int, excess: int) -> tuple[int, int]:
        """Delete entries idle for `least_s` or longer, about `excess` bytes; return their number and bytes."""
        deleted = freed = 0
        victims: set[bytes] = set()
        async for idle_s, size, name in self._entries():
            if idle_s >= least_s and name not in victims:  # a scan may return a key twice
                victims.add(name)
                freed += size
            if len(victims) >= BATCH or freed >= excess:
                deleted += await self._server.delete(list(victims))
                victims = set()
            if freed >= excess:
                return deleted, freed
        return deleted + await self._server.delete(list(victims)), freed

    async def _entries(self) -> AsyncIterator[tuple[int, int, bytes]]:
        """Iterate over the idle time in seconds, the bytes and the name of each entry."""
        for prefix in (PREFIX, KEYED_PREFIX):
            names: list[bytes] = []
            async for name in self._server.client.scan_iter(match=f"{prefix}*", count=1000):
                if is_entry(name, prefix):
                    names.append(name)
                if len(names) >= BATCH:
                    for facts in await self._measured(names):
                        yield facts
                    names = []
            for facts in await self._measured(names):
                yield facts

    async def _measured(self, names: list[bytes]) -> list[tuple[int, int, bytes]]:
        """Return the idle time in seconds, the bytes and the name of each of these entries that still exists."""
        pipeline = self._server.client.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command("OBJECT", "IDLETIME", name)
            pipeline.execute_command("MEMORY", "USAGE", name, "SAMPLES", 0)
        answers: list[Any] = await pipeline.execute(raise_on_error=False) if names else []
        found = []
        for name, idle_s, size in zip(names, answers[::2], answers[1::2], strict=True):
            if size is None:
                continue  # expired meanwhile
            known = isinstance(size, int)
            # With an LFU policy, the server knows no idle times, and deletes entries itself.
            found.append((idle_s if isinstance(idle_s, int) else 0, size if known else _UNKNOWN_BYTES, name))
        return found

    def _limit(self) -> int:
        """Return the bound. A full server without eviction would refuse every write, also those of a ledger."""
        half = self._server.refusing_at // 2
        return min(self._max_bytes, half) if half else self._max_bytes


def _idle_longer(sizes: Mapping[int, int], excess: int) -> int:
    """Return the idle time, in seconds, from which entries have `excess` bytes together."""
    found = 0
    for idle_s in sorted(sizes, reverse=True):
        found += sizes[idle_s]
        if found >= excess:
            return idle_s
    return 0
