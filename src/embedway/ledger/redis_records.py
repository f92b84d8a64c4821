"""Records in the ledger's Redis or Valkey. Every call is one script, which the server runs atomically.

Documents are compressed and written in base64, because the client reads answers as text. They never expire.
"""

from __future__ import annotations

import asyncio
import base64
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.ledger.records import CLOCK_SLACK_S, LARGEST_PACKED, check_name, damaged, pack, read_names, unpack
from embedway.ledger.redis import ANSWER_S, LEDGER_CHECK, RECORDS_KEYS, failure, note_server, read_script, redis_client
from embedway.ledger.sqlite_formats import LEDGER_VERSION
from embedway.store_failures import explain_server, server_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.ledger.records import Record, RecordKind

_SCRIPT = LEDGER_CHECK + read_script("records")
_WHERE = "Redis"
#: Base64 writes 3 bytes as 4 characters.
_LARGEST_TEXT = LARGEST_PACKED // 3 * 4 + 4
#: Larger documents are packed and unpacked off the event loop.
_LARGE = 2**16


class RedisRecords:
    """Records on a server, shared by several machines. Without `clock`, the server's time is used."""

    def __init__(self, url: str, *, cluster: bool = False, clock: Callable[[], float] | None = None) -> None:
        """Create the store; it connects at its first use. Raises MissingExtraError without the library."""
        self._clock = clock
        self._url = url
        self._is_noted = False
        self._client = redis_client(url, cluster=cluster, what="ledger.backend = 'redis'")

    async def get(self, kind: RecordKind, name: str) -> Record | None:
        check_name(name)
        try:
            answer = await self._call("get", kind, name)
        except UnicodeDecodeError:
            raise damaged(kind, name, _WHERE) from None
        if not answer:
            return None
        if len(answer[0]) > _LARGE:
            return await asyncio.to_thread(_read, kind, name, *answer)
        return _read(kind, name, *answer)

    async def put(self, record: Record) -> Record:
        is_large = len(record.document) > _LARGE
        written = await asyncio.to_thread(_write, record) if is_large else _write(record)
        return replace(record, changed=float(await self._call("put", record.kind, record.name, written)))

    async def remove(self, kind: RecordKind, name: str) -> bool:
        check_name(name)
        return bool(await self._call("remove", kind, name))

    async def all(self, kind: RecordKind) -> list[Record]:
        # One call for each: together, the documents may exceed the buffers of the server and the client.
        found = [await self.get(kind, name) for name, _ in await self.names(kind)]
        return [record for record in found if record is not None]

    async def names(self, kind: RecordKind) -> list[tuple[str, float]]:
        # In hexadecimal digits, because the client reads text: a name that is not Unicode would hide all others.
        found = list(map(bytes.fromhex, await self._call("names", kind)))
        return read_names((name, _number(changed)) for name, changed in zip(found[::2], found[1::2], strict=True))

    async def lease(self, kind: RecordKind, name: str, lease_s: float) -> bool:
        check_name(name)
        return bool(await self._call("lease", kind, name, lease_s=lease_s))

    async def end_lease(self, kind: RecordKind, name: str) -> None:
        check_name(name)
        await self._call("end_lease", kind, name)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _call(
        self, operation: str, kind: RecordKind, name: str = "", written: str = "", *, lease_s: float = 0.0
    ) -> Any:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        now = "" if self._clock is None else repr(self._clock())
        arguments = (operation, kind, name, written, lease_s, now, CLOCK_SLACK_S, uuid.uuid4().hex, _LARGEST_TEXT)
        try:
            answer = await self._client.eval(_SCRIPT, len(RECORDS_KEYS), *RECORDS_KEYS, *arguments)
        except UnicodeDecodeError:
            raise
        except (redis.exceptions.RedisError, OSError, TimeoutError, ValueError) as error:
            why = explain_server(error, self._url, setting="ledger.url", answer_s=ANSWER_S)
            otherwise = f"the records in Redis at {server_address(self._url)} cannot be used: {why}"
            raise failure(error, "the ledger", LEDGER_VERSION, otherwise) from error
        if not self._is_noted:
            self._is_noted = True
            await note_server("ledger", self._client, self._url)
        return answer


def _write(record: Record) -> str:
    return base64.b64encode(pack(record)).decode()


def packed_of(written: str) -> bytes | None:
    """Return the packed document of its stored form; None if it has another form."""
    try:
        return base64.b64decode(written, validate=True) if len(written) <= _LARGEST_TEXT else None
    except ValueError:
        return None


def _read(kind: RecordKind, name: str, written: str, changed: str) -> Record:
    return unpack(kind, name, packed_of(written), _number(changed), _WHERE)


def _number(written: str | bytes) -> float | None:
    try:
        return float(written)
    except ValueError:
        return None
