"""A ledger in a SQLite file, for the processes of one machine. Calls that wait share a transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from embedway.errors import LedgerError
from embedway.ledger import sqlite_accounts as accounts
from embedway.ledger.base import periods_at
from embedway.ledger.sqlite_entries import Entries
from embedway.ledger.sqlite_formats import LEDGER
from embedway.sqlite_thread import SqliteThread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from sqlite3 import Connection

    from embedway.ledger.base import (
        Crossing,
        Entry,
        Limit,
        PeriodTotals,
        Purpose,
        Refused,
        Restored,
        Settlement,
        Standing,
    )


class SqliteLedger:
    """The ledger in a file. `clock` gives seconds since 1970."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._entries = Entries(path, clock)
        # A power cut must not forget what was spent. A file that is removed is not opened anew: the entries that are
        # open would be missing in the new one.
        self._file = SqliteThread("embedway-ledger", path, LEDGER, self._fail, pragmas=("synchronous = FULL",))

    async def reserve(
        self, purpose: Purpose, nanousd: int | None, limits: Sequence[Limit], *, lease_s: float, texts: int
    ) -> str | Refused:
        return await self._file.transact(self._entries.reserve, purpose, nanousd, limits, lease_s=lease_s, texts=texts)

    async def send(self, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        return await self._file.transact(self._entries.send, entry, nanousd, limits)

    async def revert_send(self, entry: str, still_sent: int) -> None:
        await self._file.transact(self._entries.revert_send, entry, still_sent)

    async def settle(self, entry: str, settlement: Settlement, limits: Sequence[Limit]) -> list[Crossing]:
        return await self._file.transact(self._entries.settle, entry, settlement, limits)

    async def close(self, entry: str, *, route: str = "") -> None:
        await self._file.transact(self._entries.close, entry, "done", route)

    async def book_saved(self, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        await self._file.transact(self._entries.book_saved, purpose, nanousd, texts=texts, tokens=tokens)

    async def renew(self, entries: Sequence[str], lease_s: float) -> None:
        await self._file.transact(self._entries.renew, list(entries), lease_s)

    async def expire(self) -> int:
        return await self._file.transact(self._entries.expire)

    async def set_limit(self, limit: Limit) -> None:
        await self._file.transact(accounts.set_limit, limit)

    async def remove_limit(self, name: str) -> bool:
        return await self._file.transact(accounts.remove_limit, name)

    async def limits(self) -> list[Limit]:
        return await self._file.transact(accounts.limits)

    async def standings(self, limits: Sequence[Limit] = ()) -> list[Standing]:

        def read(connection: Connection) -> list[Standing]:
            self._entries.expire(connection)
            return accounts.standings(connection, periods_at(self._clock()), limits)

        return await self._file.transact(read)

    async def totals(self) -> list[PeriodTotals]:

        def read(connection: Connection) -> list[PeriodTotals]:
            self._entries.expire(connection)
            return accounts.totals(connection, periods_at(self._clock()))

        return await self._file.transact(read)

    async def entries(self, *, newest: int | None = None, since: float | None = None) -> list[Entry]:
        return await self._file.transact(self._entries.newest, newest, since)

    async def restored(self) -> Restored | None:
        return await self._file.transact(accounts.restored)

    async def confirm(self) -> Restored | None:
        return await self._file.transact(accounts.confirm)

    async def aclose(self) -> None:
        await self._file.aclose()

    def _fail(self, error: Exception) -> NoReturn:
        raise LedgerError(
            f"the ledger {self._path} cannot be used: {error}; set ledger.path, or ledger.backend = none to "
            "spend without one"
        ) from error
