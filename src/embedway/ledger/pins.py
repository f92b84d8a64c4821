"""Which vector space a collection is of: that of its first write, for good.

A first write claims the pin before it computes, so that two at once agree; the pin holds when one of them succeeded.
A claim has a lease, which its write renews: one of a process that died counts for nothing when that has run out.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from embedway import sqlite
from embedway.errors import LedgerError
from embedway.ledger.redis import redis_client
from embedway.ledger.redis_scripts import PINS_KEYS, PINS_SCRIPT, failure
from embedway.ledger.sqlite_formats import PINS, PINS_VERSION
from embedway.space import Space, SpaceVersionError
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

R = TypeVar("R")

#: All that a pin tells; `until` is the end of a claim's lease, in SQLite.
_FACTS = {"version", "model", "space", "since", "claim", "until"}
_UNREADABLE = "the pin of collection {!r} cannot be read by this version"

#: A pin, unless a write succeeded meanwhile; and a claim, unless there is another whose lease has not run out.
_CONFIRM = """
INSERT INTO pins VALUES (?, ?) ON CONFLICT (collection) DO UPDATE SET pin = excluded.pin
WHERE json_extract(pins.pin, '$.claim') != ''
"""
_CLAIM = """
INSERT INTO pins VALUES (?, json_set(?, '$.until', ?)) ON CONFLICT (collection) DO UPDATE SET pin = excluded.pin
WHERE json_extract(pins.pin, '$.claim') != '' AND coalesce(json_extract(pins.pin, '$.until'), 0) < ?
"""
_RENEW = """
UPDATE pins SET pin = json_set(pin, '$.until', ?) WHERE collection = ? AND json_extract(pin, '$.claim') = ?
"""
_WITHDRAW = "DELETE FROM pins WHERE collection = ? AND json_extract(pin, '$.claim') = ?"


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
        return json.dumps({"version": PINS_VERSION, **facts})


def read_pin(collection: str, written: str) -> Pin:
    """Read what `Pin.written` gave, of this version or an older one. Raises LedgerError for anything else."""
    try:
        facts = json.loads(written)
        version = facts.get("version", 1)
        if type(version) is int and version > PINS_VERSION:
            raise LedgerError(
                f"the pin of collection {collection!r} is of version {version}, and this embedway knows versions up to "
                f"{PINS_VERSION}: use the newer embedway that wrote it"
            )
        if type(version) is not int or version < 1 or not facts.keys() <= _FACTS:
            raise LedgerError(_UNREADABLE.format(collection))
        model, since, claim = facts["model"], facts["since"], facts["claim"]
        if not (isinstance(model, str) and isinstance(claim, str) and type(since) in {int, float}):
            raise LedgerError(_UNREADABLE.format(collection))
        return Pin(collection, model, Space.from_json(facts["space"]), float(since), claim)
    except SpaceVersionError as error:
        raise LedgerError(f"the pin of collection {collection!r} {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise LedgerError(_UNREADABLE.format(collection)) from error


class Pins(Protocol):
    """Keeps pins. A claim whose lease has run out is as if it were not there.

    Every method raises LedgerError where the store fails.
    """

    async def get(self, collection: str) -> Pin | None:
        """The pin of a collection, None where nothing was written to it and no first write is under way."""

    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        """Keep a claim for so long, unless there is a pin or another claim; give the one that holds."""

    async def renew(self, pin: Pin, lease_s: float) -> None:
        """Keep a claim for so much longer from now, while a write of its space is under way."""

    async def confirm(self, pin: Pin) -> Pin:
        """A write succeeded: its pin holds for good, unless another write did before; give the one that holds.

        It need not be there any more: who claimed it may have withdrawn it, or died.
        """

    async def withdraw(self, pin: Pin) -> None:
        """A first write failed: forget its claim, unless another write succeeded."""

    async def learn(self, pin: Pin, known: Space) -> bool:
        """Write the facts that a pin lacks and that were proven; False where the pin is another one by now."""

    async def remove(self, collection: str) -> bool:
        """Forget a collection, whose vectors are gone; False where there is none."""

    async def all(self) -> list[Pin]:
        """All pins and claims, by collection."""

    async def aclose(self) -> None:
        """Give files and connections back."""


class SqlitePins:
    """A file on this machine, safe for many processes. `clock` gives seconds since 1970."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._worker: Worker | None = None
        self._connection: sqlite3.Connection | None = None

    async def get(self, collection: str) -> Pin | None:
        """See `Pins.get`."""
        return await self._call(self._get, collection)

    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        """See `Pins.claim`."""
        return await self._call(self._claim, pin, lease_s)

    async def renew(self, pin: Pin, lease_s: float) -> None:
        """See `Pins.renew`."""
        await self._call(self._execute, _RENEW, self._clock() + lease_s, pin.collection, pin.claim)

    async def confirm(self, pin: Pin) -> Pin:
        """See `Pins.confirm`."""
        return await self._call(self._confirm, pin)

    async def withdraw(self, pin: Pin) -> None:
        """See `Pins.withdraw`."""
        await self._call(self._execute, _WITHDRAW, pin.collection, pin.claim)

    async def learn(self, pin: Pin, known: Space) -> bool:
        """See `Pins.learn`."""
        return await self._call(self._learn, pin, known)

    async def remove(self, collection: str) -> bool:
        """See `Pins.remove`."""
        return await self._call(self._remove, collection)

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
            self._connection = sqlite.connect(self._path, PINS)
        return self._connection.execute(statement, values)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(self, collection: str) -> Pin | None:
        return self._read(self._execute("SELECT collection, pin FROM pins WHERE collection = ?", collection).fetchone())

    def _read(self, row: tuple[str, str] | None) -> Pin | None:
        pin = None if row is None else read_pin(*row)
        if row is not None and pin is not None and pin.claim and json.loads(row[1]).get("until", 0) < self._clock():
            return None
        return pin

    def _claim(self, pin: Pin, lease_s: float) -> Pin:
        found = None
        # Withdrawn between the two, it is claimed again.
        while found is None:
            now = self._clock()
            self._execute(_CLAIM, pin.collection, pin.written(), now + lease_s, now)
            found = self._get(pin.collection)
        return found

    def _confirm(self, pin: Pin) -> Pin:
        pin = replace(pin, claim="")
        self._execute(_CONFIRM, pin.collection, pin.written())
        return self._get(pin.collection) or pin

    def _learn(self, pin: Pin, known: Space) -> bool:
        row = self._execute("SELECT pin FROM pins WHERE collection = ?", pin.collection).fetchone()
        if row is None or pin.claim or read_pin(pin.collection, row[0]) != pin:
            return False
        # As it was read: of two that learn at once, or one that unpins meanwhile, the first counts.
        learned = replace(pin, space=pin.space.with_facts(known)).written()
        update = "UPDATE pins SET pin = ? WHERE collection = ? AND pin = ?"
        return self._execute(update, learned, pin.collection, row[0]).rowcount > 0

    def _remove(self, collection: str) -> bool:
        there = self._get(collection) is not None
        return self._execute("DELETE FROM pins WHERE collection = ?", collection).rowcount > 0 and there

    def _all(self) -> list[Pin]:
        rows = self._execute("SELECT collection, pin FROM pins ORDER BY collection").fetchall()
        return [pin for pin in map(self._read, rows) if pin is not None]


class RedisPins:
    """A Redis or Valkey server, for several machines. Without `clock` the server's own time counts."""

    def __init__(self, url: str, *, cluster: bool = False, clock: Callable[[], float] | None = None) -> None:
        """Connects at its first use. Raises MissingExtraError without the library."""
        self._clock = clock
        self._client = redis_client(url, cluster=cluster, what="pins.backend = 'redis'")

    async def get(self, collection: str) -> Pin | None:
        """See `Pins.get`."""
        written = await self._call("get", collection)
        return None if written is None else read_pin(collection, written)

    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        """See `Pins.claim`."""
        return read_pin(pin.collection, await self._call("claim", pin.collection, pin.written(), lease_s=lease_s))

    async def renew(self, pin: Pin, lease_s: float) -> None:
        """See `Pins.renew`."""
        await self._call("renew", pin.collection, claim=pin.claim, lease_s=lease_s)

    async def confirm(self, pin: Pin) -> Pin:
        """See `Pins.confirm`."""
        written = replace(pin, claim="").written()
        return read_pin(pin.collection, await self._call("confirm", pin.collection, written))

    async def withdraw(self, pin: Pin) -> None:
        """See `Pins.withdraw`."""
        await self._call("withdraw", pin.collection, claim=pin.claim)

    async def learn(self, pin: Pin, known: Space) -> bool:
        """See `Pins.learn`."""
        written = await self._call("get", pin.collection)
        if written is None or pin.claim or read_pin(pin.collection, written) != pin:
            return False
        learned = replace(pin, space=pin.space.with_facts(known)).written()
        return bool(await self._call("learn", pin.collection, learned, claim=written))

    async def remove(self, collection: str) -> bool:
        """See `Pins.remove`."""
        return bool(await self._call("remove", collection))

    async def all(self) -> list[Pin]:
        """See `Pins.all`."""
        found = await self._call("all")
        return [read_pin(*pair) for pair in sorted(zip(found[::2], found[1::2], strict=True))]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _call(
        self, operation: str, collection: str = "", given: str = "", *, claim: str = "", lease_s: float = 0.0
    ) -> Any:
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        now = "" if self._clock is None else repr(self._clock())
        arguments = (operation, collection, given, claim, lease_s, now)
        try:
            return await self._client.eval(PINS_SCRIPT, len(PINS_KEYS), *PINS_KEYS, *arguments)
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            otherwise = f"the pins of collections in Redis cannot be used: {type(error).__name__}"
            raise failure(error, "the store of pins", PINS_VERSION, otherwise) from error


def new_pin(collection: str, model: str, space: Space, claim: str) -> Pin:
    """A pin of now."""
    return Pin(collection, model, space, time.time(), claim)
