"""Key ring: the callers of requests, from keys in memory that are read again in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from embedway.errors import AccessError, LedgerError
from embedway.ledger.records import UnreadableRecordError
from embedway.server.keys import KIND, is_secret_of, parse_key, read_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.ledger.records import Records
    from embedway.server.caller import Caller

_log = logging.getLogger("embedway.server")

#: Age of the keys in memory, in seconds, from which a request reads them again in the background.
_REFRESH_S = 1.0
#: Age from which a request waits for the keys to be read, so that a revoked key does not work for longer.
_OLDEST_S = 2.0
#: Maximum time that a request waits for the keys while keys in memory may be used, in seconds.
_WAIT_S = 1.0
#: Minimum time between two readings for refused keys, and after a failed one, in seconds.
_RETRY_S = 1.0
#: Length to which a header is cut, in characters; a key is shorter.
_LONGEST_HEADER = 512
_MISSING = "this server needs an API key: send the header `Authorization: Bearer KEY`"
#: The same for unknown, wrong and revoked keys, so that the answer does not tell which IDs exist.
_REFUSED = (
    "the API key is not valid: it is malformed, unknown or revoked; ask the operator of this server for another one"
)
#: The reason is in the log: it names files or servers, which callers without a key must not see.
_UNREADABLE = "the API keys of this server cannot be read now; try again later"


class _Known(NamedTuple):
    """Hash and rights of a key that may be used."""

    digest: bytes
    caller: Caller


#: Compared for unknown IDs, so that they take the same time as wrong secrets. No secret has this hash.
_NO_DIGEST = bytes(32)


class KeyRing:
    """Verifies the keys of requests against the stored keys. Used from one event loop; `clock` is monotonic, in s.

    Requests are answered from memory, without waiting. Keys older than a second are read again while requests come,
    and no request uses keys older than two seconds while the store answers: a revoked key stops working within that
    time. If the store fails, known keys work for `keys_stale_s` seconds after their last reading.
    """

    def __init__(
        self, records: Records, *, keys_stale_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._records = records
        self._stale_s = keys_stale_s
        self._clock = clock
        self._by_id: dict[str, _Known] = {}
        #: Names with the times of their changes, and IDs of the keys that may be used.
        self._changes: dict[str, tuple[float, str | None]] = {}
        #: Start of the last complete reading, of the last reading for a refused key, and of the last failed one.
        self._read_at = self._forced_at = self._failed_at = float("-inf")
        self._is_failing = False
        self._reading: asyncio.Task[None] | None = None

    async def caller_of(self, authorization: str | None, x_api_key: str | None) -> Caller:
        """Return the caller of a request, from its headers `Authorization` (Bearer) and `X-API-Key`.

        Raises AccessError for a key that is missing, malformed, unknown, wrong or revoked, and LedgerError if the keys
        cannot be read.
        """
        own_id, secret = _parse(authorization, x_api_key)
        age = self._clock() - self._read_at
        if age >= _REFRESH_S:
            await self._refresh(age)
        found = self._verify(own_id, secret)
        if found is None:
            # The same steps for unknown IDs and wrong secrets: the key may be new, or replaced.
            await self._wait_for(self._reading)
            found = self._verify(own_id, secret)
        if found is None and self._clock() - self._forced_at >= _RETRY_S:
            self._forced_at = self._clock()
            await self._wait_for(self._start_reading())
            found = self._verify(own_id, secret)
        if found is None:
            raise LedgerError(_UNREADABLE) if self._is_failing else AccessError(_REFUSED)
        return found

    async def is_empty(self) -> bool:
        """Read the keys, and return whether none can be used. False if they cannot be read."""
        try:
            await self._refresh(float("inf"))
        except LedgerError:
            return False
        return not self._by_id

    async def aclose(self) -> None:
        """End a reading in the background. The records stay open."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    def _verify(self, own_id: str, secret: str) -> Caller | None:
        known = self._by_id.get(own_id)
        is_right = is_secret_of(secret, _NO_DIGEST if known is None else known.digest)
        return known.caller if is_right and known is not None else None

    async def _refresh(self, age: float) -> None:
        """Read the keys again: in the background, or waiting for them if they are too old to be used."""
        reading = self._start_reading()
        if age >= self._stale_s:
            if reading is not None:
                await asyncio.wait({reading})
            if self._clock() - self._read_at >= self._stale_s:
                raise LedgerError(_UNREADABLE)
        elif age >= _OLDEST_S and not self._is_failing:
            await self._wait_for(reading)

    async def _wait_for(self, reading: asyncio.Task[None] | None) -> None:
        """Wait for a reading. A store that does not answer in time counts as failed, and later requests do not wait."""
        if reading is None:
            return
        await asyncio.wait({reading}, timeout=_WAIT_S)
        if not reading.done():
            self._fail(f"their store does not answer within {_WAIT_S:g} s")

    def _start_reading(self) -> asyncio.Task[None] | None:
        """Return the reading in progress, or start one; None shortly after a failed one."""
        if self._reading is None:
            if self._clock() - self._failed_at < _RETRY_S:
                return None
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._end_reading)
        return self._reading

    def _end_reading(self, _: asyncio.Task[None]) -> None:
        self._reading = None

    async def _read(self) -> None:
        started = self._clock()
        try:
            await self._read_changes()
        except LedgerError as error:
            self._failed_at = self._clock()
            self._fail(error)
        else:
            if self._is_failing:
                _log.info("the API keys can be read again")
            self._read_at, self._is_failing = started, False

    def _fail(self, reason: object) -> None:
        if not self._is_failing:
            _log.warning("the API keys cannot be read; known keys work for %g s: %s", self._stale_s, reason)
        self._is_failing = True

    async def _read_changes(self) -> None:
        """Read the records that were added or changed, and drop those that were removed. Raises LedgerError."""
        names = dict(await self._records.names(KIND))
        for name in [name for name in self._changes if name not in names]:
            self._drop(name)
        for name, changed in names.items():
            if self._changes.get(name, (None, None))[0] == changed:
                continue
            try:
                record = await self._records.get(KIND, name)
                key = None if record is None else read_key(record)
            except UnreadableRecordError as error:
                _log.warning("%s", error)
                key = None
            self._drop(name)
            usable = key is not None and key.revoked is None
            self._changes[name] = changed, key.id if key is not None and usable else None
            if key is not None and usable:
                self._by_id[key.id] = _Known(bytes.fromhex(key.digest), key.caller())

    def _drop(self, name: str) -> None:
        _, own_id = self._changes.pop(name, (0.0, None))
        if own_id is not None:
            self._by_id.pop(own_id, None)


def _parse(authorization: str | None, x_api_key: str | None) -> tuple[str, str]:
    """Return the ID and the secret of the key in the headers of a request. Raises AccessError."""
    text = x_api_key
    if authorization is not None:
        scheme, _, rest = authorization[:_LONGEST_HEADER].partition(" ")
        if scheme.lower() == "bearer":
            text = rest.strip()
    if not text:
        raise AccessError(_MISSING)
    parsed = parse_key(text)
    if parsed is None:
        raise AccessError(_REFUSED)
    return parsed
