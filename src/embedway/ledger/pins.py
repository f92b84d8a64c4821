"""Which vector space a collection is of: that of its first write, for good.

A first write claims the pin before it computes, so that two at once agree; the pin holds when one of them succeeded.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from embedway import sqlite
from embedway.errors import LedgerError
from embedway.ledger.redis import redis_client
from embedway.types import Space
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

R = TypeVar("R")

_SCHEMA = "CREATE TABLE IF NOT EXISTS pins (collection TEXT PRIMARY KEY, pin TEXT NOT NULL)"
_KEY = "{embedway:pins}"
#: Who claimed takes the claim back, unless somebody's write succeeded meanwhile.
_WITHDRAW = """
local written = redis.call('HGET', KEYS[1], ARGV[1])
if written and cjson.decode(written).claim == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""
_CONFIRM = """
local written = redis.call('HGET', KEYS[1], ARGV[1])
if not written then return 0 end
local pin = cjson.decode(written)
pin.claim = ''
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(pin))
return 1
"""


@dataclass(frozen=True, slots=True)
class Pin:
    """A collection with the space of its first write, and the name that its model is opened by."""

    collection: str
    model: str
    space: Space
    #: Seconds since 1970.
    since: float
    #: Whose first write is under way; empty when one has succeeded.
    claim: str = ""

    def written(self) -> str:
        """As it is kept."""
        facts = {"model": self.model, "space": self.space.to_json(), "since": self.since, "claim": self.claim}
        return json.dumps(facts)


def read_pin(collection: str, written: str) -> Pin:
    """What `Pin.written` gave. Raises LedgerError for anything else."""
    try:
        facts = json.loads(written)
        space = {name: value for name, value in facts["space"].items() if name != "id"}
        return Pin(collection, facts["model"], Space(**space), float(facts["since"]), facts["claim"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"the pin of collection {collection!r} cannot be read by this version") from error


class Pins(Protocol):
    """Keeps pins. Every method raises LedgerError where the store fails."""

    async def get(self, collection: str) -> Pin | None:
        """The pin of a collection, None where nothing was written to it."""

    async def claim(self, pin: Pin) -> Pin:
        """Keep a pin, unless there is one; give the one that holds."""

    async def confirm(self, collection: str) -> None:
        """A write succeeded: the pin holds for good."""

    async def withdraw(self, pin: Pin) -> None:
        """A first write failed: forget its pin, unless another write succeeded."""

    async def remove(self, collection: str) -> bool:
        """Forget a collection, whose vectors are gone; False where there is none."""

    async def all(self) -> list[Pin]:
        """All pins, by collection."""

    async def aclose(self) -> None:
        """Give files and connections back."""


class SqlitePins:
    """A file on this machine, safe for many processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._worker: Worker | None = None
        self._connection: sqlite3.Connection | None = None

    async def get(self, collection: str) -> Pin | None:
        """See `Pins.get`."""
        return await self._call(self._get, collection)

    async def claim(self, pin: Pin) -> Pin:
        """See `Pins.claim`."""
        return await self._call(self._claim, pin)

    async def confirm(self, collection: str) -> None:
        """See `Pins.confirm`."""
        statement = "UPDATE pins SET pin = json_set(pin, '$.claim', '') WHERE collection = ?"
        await self._call(self._execute, statement, collection)

    async def withdraw(self, pin: Pin) -> None:
        """See `Pins.withdraw`."""
        statement = "DELETE FROM pins WHERE collection = ? AND json_extract(pin, '$.claim') = ?"
        await self._call(self._execute, statement, pin.collection, pin.claim)

    async def remove(self, collection: str) -> bool:
        """See `Pins.remove`."""
        cursor = await self._call(self._execute, "DELETE FROM pins WHERE collection = ?", collection)
        return cursor.rowcount > 0

    async def all(self) -> list[Pin]:
        """See `Pins.all`."""
        return await self._call(self._all)

    async def aclose(self) -> None:
        """Close the file."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.call(self._disconnect)
            worker.close()

    async def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        if self._worker is None:
            self._worker = Worker("embedway-pins")
        return await self._worker.call(self._guarded, function, arguments)

    def _guarded(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> R:
        try:
            return function(*arguments)
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"the pins in {self._path} cannot be used: {error}; set pins.path") from error

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if self._connection is None:
            self._connection = sqlite.connect(self._path, schema=_SCHEMA)
        return self._connection.execute(statement, values)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(self, collection: str) -> Pin | None:
        row = self._execute("SELECT pin FROM pins WHERE collection = ?", collection).fetchone()
        return None if row is None else read_pin(collection, row[0])

    def _claim(self, pin: Pin) -> Pin:
        self._execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", pin.collection, pin.written())
        # Withdrawn between the two, it is claimed again.
        return self._get(pin.collection) or self._claim(pin)

    def _all(self) -> list[Pin]:
        rows = self._execute("SELECT collection, pin FROM pins ORDER BY collection").fetchall()
        return [read_pin(collection, written) for collection, written in rows]


class RedisPins:
    """A Redis or Valkey server, for several machines."""

    def __init__(self, url: str, *, cluster: bool = False) -> None:
        """Connects at its first use. Raises MissingExtraError without the library."""
        self._client = redis_client(url, cluster=cluster, what="pins.backend = 'redis'")

    async def get(self, collection: str) -> Pin | None:
        """See `Pins.get`."""
        written = await self._call("HGET", _KEY, collection)
        return None if written is None else read_pin(collection, written)

    async def claim(self, pin: Pin) -> Pin:
        """See `Pins.claim`."""
        while True:
            await self._call("HSETNX", _KEY, pin.collection, pin.written())
            found = await self.get(pin.collection)
            if found is not None:
                return found

    async def confirm(self, collection: str) -> None:
        """See `Pins.confirm`."""
        await self._call("EVAL", _CONFIRM, 1, _KEY, collection)

    async def withdraw(self, pin: Pin) -> None:
        """See `Pins.withdraw`."""
        await self._call("EVAL", _WITHDRAW, 1, _KEY, pin.collection, pin.claim)

    async def remove(self, collection: str) -> bool:
        """See `Pins.remove`."""
        return bool(await self._call("HDEL", _KEY, collection))

    async def all(self) -> list[Pin]:
        """See `Pins.all`."""
        found = await self._call("HGETALL", _KEY)
        if isinstance(found, list):
            found = dict(zip(found[::2], found[1::2], strict=True))
        return [read_pin(collection, written) for collection, written in sorted(found.items())]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _call(self, *command: Any) -> Any:
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        try:
            return await self._client.execute_command(*command)
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            raise LedgerError(f"the pins of collections in Redis cannot be used: {type(error).__name__}") from error


def new_pin(collection: str, model: str, space: Space, claim: str) -> Pin:
    """A pin of now."""
    return Pin(collection, model, space, time.time(), claim)
