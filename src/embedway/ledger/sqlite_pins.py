"""Pins in a SQLite file. Every statement commits separately."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from embedway.errors import LedgerError
from embedway.ledger.base import RESTORE
from embedway.ledger.continuity import FileWatch, ReplacedFileError
from embedway.ledger.pins import LONGEST_CLAIM_S, read_pin, until_of
from embedway.ledger.sqlite_formats import PINS
from embedway.sqlite_thread import SqliteThread
from embedway.store_failures import explain_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from sqlite3 import Connection

    from embedway.ledger.pins import Pin
    from embedway.space import Space

#: Stores a pin, unless another write succeeded; and a claim, unless there is another unexpired one.
_CONFIRM = """
INSERT INTO pins VALUES (?, ?) ON CONFLICT (collection) DO UPDATE SET pin = excluded.pin
WHERE json_extract(pins.pin, '$.claim') != ''
"""
_CLAIM = """
INSERT INTO pins VALUES (?, json_set(?, '$.until', ?)) ON CONFLICT (collection) DO UPDATE SET pin = excluded.pin
WHERE json_extract(pins.pin, '$.claim') != '' AND NOT coalesce(json_extract(pins.pin, '$.until'), 0) BETWEEN ? AND ?
"""
_RENEW = """
UPDATE pins SET pin = json_set(pin, '$.until', ?) WHERE collection = ? AND json_extract(pin, '$.claim') = ?
"""
_WITHDRAW = "DELETE FROM pins WHERE collection = ? AND json_extract(pin, '$.claim') = ?"


class SqlitePins:
    """Pins in a file, safe for concurrent processes. `clock` returns seconds since 1970."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._watch = FileWatch(path)
        self._file = SqliteThread("embedway-pins", path, PINS, self._fail, watch=self._watch)

    async def get(self, collection: str) -> Pin | None:
        return await self._file.submit(self._file.use, self._get, collection)

    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        return await self._file.submit(self._file.use, self._claim, pin, lease_s)

    async def renew(self, pin: Pin, lease_s: float) -> None:
        await self._file.submit(self._file.use, self._renew, pin, lease_s)

    async def confirm(self, pin: Pin) -> Pin:
        return await self._file.submit(self._file.use, self._confirm, pin)

    async def withdraw(self, pin: Pin) -> None:
        await self._file.submit(self._file.use, self._withdraw, pin)

    async def learn(self, pin: Pin, known: Space) -> bool:
        return await self._file.submit(self._file.use, self._learn, pin, known)

    async def remove(self, collection: str) -> bool:
        return await self._file.submit(self._file.use, self._remove, collection)

    async def all(self) -> list[Pin]:
        return await self._file.submit(self._file.use, self._all)

    async def aclose(self) -> None:
        await self._file.aclose()
        self._watch.forget()

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, ReplacedFileError):
            raise LedgerError(
                f"the pins in {self._path} cannot be used: the file {error} while this process used it, so pins may be "
                "missing from it; put the original back, or restart this process to use the file as it is"
            ) from None
        why = explain_file(error, setting="pins.path", repair=RESTORE)
        raise LedgerError(f"the pins in {self._path} cannot be used: {why}") from error

    def _get(self, connection: Connection, collection: str) -> Pin | None:
        query = "SELECT collection, pin FROM pins WHERE collection = ?"
        return self._read(connection.execute(query, (collection,)).fetchone())

    def _read(self, row: tuple[str, str] | None) -> Pin | None:
        pin = None if row is None else read_pin(*row)
        if row is not None and pin is not None and pin.claim:
            now = self._clock()
            return pin if now <= until_of(row[1]) <= now + LONGEST_CLAIM_S else None
        return pin

    def _claim(self, connection: Connection, pin: Pin, lease_s: float) -> Pin:
        found = None
        # If it is withdrawn between the two statements, it is claimed again.
        while found is None:
            now = self._clock()
            until = now + min(lease_s, LONGEST_CLAIM_S), now, now + LONGEST_CLAIM_S
            connection.execute(_CLAIM, (pin.collection, pin.written(), *until))
            found = self._get(connection, pin.collection)
        return found

    def _renew(self, connection: Connection, pin: Pin, lease_s: float) -> None:
        connection.execute(_RENEW, (self._clock() + min(lease_s, LONGEST_CLAIM_S), pin.collection, pin.claim))

    def _withdraw(self, connection: Connection, pin: Pin) -> None:
        connection.execute(_WITHDRAW, (pin.collection, pin.claim))

    def _confirm(self, connection: Connection, pin: Pin) -> Pin:
        pin = replace(pin, claim="")
        connection.execute(_CONFIRM, (pin.collection, pin.written()))
        return self._get(connection, pin.collection) or pin

    def _learn(self, connection: Connection, pin: Pin, known: Space) -> bool:
        row = connection.execute("SELECT pin FROM pins WHERE collection = ?", (pin.collection,)).fetchone()
        if row is None or pin.claim or read_pin(pin.collection, row[0]) != pin:
            return False
        # The stored text must be unchanged: of two concurrent changes, the first wins.
        learned = replace(pin, space=pin.space.with_facts(known)).written()
        update = "UPDATE pins SET pin = ? WHERE collection = ? AND pin = ?"
        return connection.execute(update, (learned, pin.collection, row[0])).rowcount > 0

    def _remove(self, connection: Connection, collection: str) -> bool:
        there = self._get(connection, collection) is not None
        return connection.execute("DELETE FROM pins WHERE collection = ?", (collection,)).rowcount > 0 and there

    def _all(self, connection: Connection) -> list[Pin]:
        rows = connection.execute("SELECT collection, pin FROM pins ORDER BY collection").fetchall()
        return [pin for pin in map(self._read, rows) if pin is not None]
