"""Limits per minute in a mapped file, shared by the processes of one machine without a server.

The file is a hash table with open addressing. A slot has the 64-bit hash of a key's name and the times at which its two
buckets are full, on the clock CLOCK_MONOTONIC, which all processes share until the machine restarts. A lock on the
first byte of the file excludes other processes; the kernel frees it when its holder is killed.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import mmap
import os
import stat
import struct
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.errors import LedgerError
from embedway.server.rates import full_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.server.rates import MinuteLimits

#: Format, and a hash of the machine's boot.
_HEADER = struct.Struct("<8s16s")
_FORMAT = b"EWRATES1"
_HEADER_BYTES = 64
#: Hash of a name, and the times at which the buckets of requests and of tokens are full.
_SLOT = struct.Struct("<Qdd")
_SLOTS = 8192
_FILE_BYTES = _HEADER_BYTES + _SLOTS * _SLOT.size
#: Maximum slots that are searched for a key.
_PROBES = 64
#: Attempts to lock before the event loop goes on, the time until the next ones, and the maximum time, in seconds.
_SPINS, _PAUSE_S, _LONGEST_LOCK_S = 50, 0.001, 5.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class LocalRates:
    """Limits in a file. It needs no cleaning: a slot whose buckets are full is free for another key."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open or create the file, readable by this user only. Raises LedgerError."""
        import fcntl  # noqa: PLC0415  POSIX only

        self._path = path
        self._clock = clock
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            self._try_lock = partial(fcntl.lockf, self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            self._unlock = partial(fcntl.lockf, self._file, fcntl.LOCK_UN, 1)
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX, 1)
                self._prepare()
                self._map = mmap.mmap(self._file, _FILE_BYTES)
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise LedgerError(f"the limits of API keys in {path} cannot be used: {error.strerror}") from error

    async def take(self, key_name: str, requests: int, tokens: int, limits: MinuteLimits) -> float:
        """Take requests and tokens; see `RateLimits.take`."""
        per_request_s, per_token_s = limits.intervals
        await self._lock()
        try:
            now = self._clock()
            place, requests_full, tokens_full = self._find(key_name, now)
            requests_full, wait_s = full_at(requests_full, now, requests, per_request_s)
            tokens_full, tokens_wait_s = full_at(tokens_full, now, tokens, per_token_s)
            wait_s = max(wait_s, tokens_wait_s)
            if not wait_s:
                _SLOT.pack_into(self._map, place, _hash(key_name), requests_full, tokens_full)
            return wait_s
        finally:
            self._unlock()

    async def correct(self, key_name: str, tokens: int, limits: MinuteLimits) -> None:
        """Take or give back tokens; see `RateLimits.correct`."""
        interval_s = limits.intervals[1]
        await self._lock()
        try:
            now = self._clock()
            place, requests_full, tokens_full = self._find(key_name, now)
            tokens_full = max(tokens_full, now) + tokens * interval_s
            _SLOT.pack_into(self._map, place, _hash(key_name), requests_full, tokens_full)
        finally:
            self._unlock()

    async def aclose(self) -> None:
        """Close the file. It stays for other processes."""
        self._map.close()
        os.close(self._file)

    def _find(self, key_name: str, now: float) -> tuple[int, float, float]:
        """Return the place of a key's slot, and the times at which its buckets are full.

        A new key gets the first free slot; if there is none near, the one whose buckets are full first.
        """
        own, found = _hash(key_name), (float("inf"), 0)
        for probe in range(_PROBES):
            place = _HEADER_BYTES + (own + probe) % _SLOTS * _SLOT.size
            holder, requests_full, tokens_full = _SLOT.unpack_from(self._map, place)
            if holder == own:
                return place, requests_full, tokens_full
            found = min(found, (max(requests_full, tokens_full, now), place))
            if not holder:
                break
        return found[1], 0.0, 0.0

    def _prepare(self) -> None:
        """Write the header and empty slots, unless another process of this boot has. Raises OSError."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        header = _HEADER.pack(_FORMAT, _boot())
        try:
            is_current = os.fstat(self._file).st_size == _FILE_BYTES
            if not is_current or os.pread(self._file, _HEADER.size, 0) != header:
                os.ftruncate(self._file, 0)
                os.ftruncate(self._file, _FILE_BYTES)
                os.pwrite(self._file, header, 0)
        finally:
            self._unlock()

    async def _lock(self) -> None:
        """Lock the file. Others hold the lock for microseconds; one that is suspended meanwhile does not block us."""
        until = time.monotonic() + _LONGEST_LOCK_S
        while True:
            for _ in range(_SPINS):
                try:
                    self._try_lock()
                except OSError as error:
                    if error.errno not in {errno.EAGAIN, errno.EACCES}:
                        raise self._failed(error.strerror) from error
                else:
                    return
            if time.monotonic() > until:
                raise self._failed("another process has locked them for seconds")
            await asyncio.sleep(_PAUSE_S)

    def _failed(self, reason: str | None) -> LedgerError:
        return LedgerError(f"the limits of API keys in {self._path} cannot be used: {reason}")


def _hash(key_name: str) -> int:
    """Return the hash of a name, which is never 0: 0 marks an empty slot."""
    return int.from_bytes(hashlib.blake2b(key_name.encode(), digest_size=8).digest(), "little") or 1


def _boot() -> bytes:
    """Return a hash of the machine's boot: the clock begins anew with each."""
    try:
        boot = _BOOT.read_bytes()
    except OSError:
        boot = b""
    return hashlib.blake2b(boot, digest_size=16).digest()
