"""Ledger in a SQLite file, for the processes of one machine. Waiting calls share a transaction."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from embedway.errors import LedgerError
from embedway.ledger import sqlite_accounts as accounts
from embedway.ledger.base import (
    RAN_OUT,
    RESTORE,
    RESTORED,
    Crossing,
    Entry,
    Limit,
    Period,
    PeriodTotals,
    Purpose,
    Refused,
    Restored,
    Settlement,
    Standing,
    State,
    account_keys,
    moment,
    new_entry,
    periods_at,
)
from embedway.ledger.continuity import ReplacedFileError, replaced
from embedway.ledger.sqlite_formats import LEDGER
from embedway.ledger.sqlite_watch import LedgerWatch
from embedway.sqlite_thread import SqliteThread, transacted
from embedway.store_failures import explain_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from sqlite3 import Connection

_FIELDS = (
    "id, opened, closed, state, model, route, collection, api_key, texts, hits, tokens, reserved, sent, spent, "
    "estimated, unsure, saved, unpriced"
)
_NUMBERS = ("texts", "hits", "tokens", "reserved", "sent", "spent", "estimated", "unsure", "saved")
#: A restored ledger lacks later spending.
_FIND = """
SELECT model, collection, api_key, opened, state, reserved, sent, unsure,
    EXISTS (SELECT 1 FROM meta WHERE name = ?)
FROM entries WHERE id = ?
"""
_RESERVE = """
INSERT INTO entries (id, opened, state, model, collection, api_key, texts, reserved, sent, unpriced, lease_until)
VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SEND = "UPDATE entries SET reserved = MAX(0, reserved - :nanousd), sent = sent + :nanousd WHERE id = :id"
_REVERT_SEND = """
UPDATE entries SET reserved = reserved + MAX(0, sent - :sent), sent = MIN(sent, :sent) WHERE id = :id AND state = 'open'
"""
_SETTLE = """
UPDATE entries SET sent = sent - ?, reserved = reserved + ?, spent = spent + ?, tokens = tokens + ?,
    estimated = estimated + ?, unsure = unsure + ?
WHERE id = ?
"""
_SETTLE_LAST = """
UPDATE entries SET state = 'done', closed = ?, route = ?, reserved = 0, sent = 0, spent = spent + ?,
    tokens = tokens + ?, estimated = estimated + ?, unsure = unsure + ?, lease_until = NULL
WHERE id = ?
"""
_CLOSE = """
UPDATE entries SET state = :state, closed = :now, route = :route, reserved = 0, sent = 0, spent = spent + sent,
    unsure = unsure + sent, lease_until = NULL
WHERE id = :id
"""
_EXPIRED = """
SELECT id FROM entries WHERE state = 'open'
AND (lease_until < ? OR typeof(lease_until) NOT IN ('real', 'integer'))
"""
_BOOK_SAVED = """
INSERT INTO entries (id, opened, closed, state, model, route, collection, api_key, texts, hits, tokens, saved)
VALUES (?, ?, ?, 'done', ?, 'cache', ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """Entry at the start of a transaction, with its periods."""

    purpose: Purpose
    periods: dict[Period, str]
    #: Accounts that count it, by scope and period.
    keys: list[tuple[str, str]]
    state: str
    reserved: int
    sent: int
    unsure: int
    books_are_restored: bool


class SqliteLedger:
    """Ledger in a file. `clock` returns seconds since 1970, and `ticks` seconds of the monotonic clock."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._clock = clock
        self._watch = LedgerWatch(path, clock, ticks)
        # A power failure must not lose spending. A removed file is not reopened: its spending would be missing in the
        # new one.
        self._file = SqliteThread(
            "embedway-ledger", path, LEDGER, self._fail, pragmas=("synchronous = FULL",), watch=self._watch
        )

    @transacted
    def reserve(
        self,
        connection: Connection,
        purpose: Purpose,
        nanousd: int | None,
        limits: Sequence[Limit],
        *,
        lease_s: float,
        texts: int,
        sent: int = 0,
        entry: str | None = None,
    ) -> str | Refused:
        self._expire(connection)
        self._watch.lease(connection, lease_s)
        now = self._clock()
        periods = periods_at(now)
        keys = account_keys(purpose, periods)
        held = max(nanousd or 0, sent)
        asked, is_restored = None if nanousd is None else held, self._watch.is_restored
        refused = accounts.refusal(connection, purpose, periods, asked, limits, is_restored=is_restored)
        if refused is not None:
            return refused
        entry = entry or new_entry()
        names = (purpose.model, purpose.collection, purpose.api_key)
        amounts = (held - sent, sent, nanousd is None)
        connection.execute(_RESERVE, (entry, now, *names, texts, *amounts, now + lease_s))
        accounts.add(connection, keys, held=held)
        return entry

    @transacted
    def send(self, connection: Connection, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        found = self._find(connection, entry)
        if found.state != "open":
            # Its amounts were released, and others may have reserved them.
            raise LedgerError(RAN_OUT)
        more = max(0, nanousd - found.reserved)
        # In a restored ledger, even reserved amounts may already be spent.
        if more or found.books_are_restored:
            restored = self._watch.is_restored
            purpose, periods = found.purpose, found.periods
            refused = accounts.refusal(connection, purpose, periods, more, limits, is_restored=restored)
            if refused is not None:
                return refused
            accounts.add(connection, found.keys, held=more)
        connection.execute(_SEND, {"nanousd": nanousd, "id": entry})
        return None

    @transacted
    def revert_send(self, connection: Connection, entry: str, still_sent: int) -> None:
        connection.execute(_REVERT_SEND, {"sent": still_sent, "id": entry})

    async def settle(
        self, entry: str, settlement: Settlement, limits: Sequence[Limit], *, last_route: str | None = None
    ) -> list[Crossing]:
        # After the last settlement nothing is sent, so it need not have a transaction of its own.
        transact = self._file.transact if last_route is None else self._file.transact_later
        return await transact(self._settle, entry, settlement, limits, last_route)

    def _settle(
        self,
        connection: Connection,
        entry: str,
        settlement: Settlement,
        limits: Sequence[Limit],
        last_route: str | None,
    ) -> list[Crossing]:
        found = self._find(connection, entry)
        kind, cost = settlement.kind, settlement.cost
        # Amounts under way when the entry ended are already booked as unsure; now the actual cost is known.
        # A restored ledger may contain less than was sent: at most what it contains is reverted.
        booked = 0 if found.state == "open" else min(settlement.sent, found.unsure)
        over = min(settlement.sent, found.sent) if found.state == "open" else 0
        # An unbilled amount is available to the next attempt of the call; a higher cost is taken from its reservation.
        back = over if kind == "unbilled" else -min(found.reserved, max(0, cost - over))
        tokens = settlement.tokens if kind in {"reported", "estimated"} else 0
        estimated = cost if kind == "estimated" else 0
        unsure = (cost if kind == "unsure" else 0) - booked
        spent = cost - booked
        if last_route is not None and found.state == "open":
            # As if it were settled and then closed: what is left under way is booked as unsure.
            left = found.sent - over
            changes = (spent + left, tokens, estimated, unsure + left)
            connection.execute(_SETTLE_LAST, (self._clock(), last_route, *changes, entry))
            accounts.add(connection, found.keys, held=-found.reserved - found.sent, spent=spent + left)
        else:
            connection.execute(_SETTLE, (over, back, spent, tokens, estimated, unsure, entry))
            accounts.add(connection, found.keys, held=back - over, spent=spent)
            if last_route is not None:
                self._close(connection, entry, "done", last_route)
        return accounts.crossings(connection, found.purpose, found.periods, limits) if cost else []

    @transacted
    def close(self, connection: Connection, entry: str, *, route: str = "") -> None:
        self._close(connection, entry, "done", route)

    @transacted
    def book_saved(self, connection: Connection, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        now = self._clock()
        names = (purpose.model, purpose.collection, purpose.api_key)
        connection.execute(_BOOK_SAVED, (new_entry(), now, now, *names, texts, texts, tokens, nanousd))
        accounts.add(connection, account_keys(purpose, periods_at(now)), saved=nanousd)

    @transacted
    def renew(self, connection: Connection, entries: Sequence[str], lease_s: float) -> None:
        self._watch.lease(connection, lease_s)
        until = self._clock() + lease_s
        update = "UPDATE entries SET lease_until = ? WHERE id = ? AND state = 'open'"
        connection.executemany(update, [(until, entry) for entry in entries])

    @transacted
    def expire(self, connection: Connection) -> int:
        return self._expire(connection)

    async def set_limit(self, limit: Limit) -> None:
        await self._file.transact(accounts.set_limit, limit)

    async def remove_limit(self, name: str) -> bool:
        return await self._file.transact(accounts.remove_limit, name)

    async def limits(self) -> list[Limit]:
        return await self._file.transact(accounts.limits)

    @transacted
    def standings(self, connection: Connection, limits: Sequence[Limit] = ()) -> list[Standing]:
        self._expire(connection)
        return accounts.standings(connection, periods_at(self._clock()), limits)

    @transacted
    def totals(self, connection: Connection) -> list[PeriodTotals]:
        self._expire(connection)
        return accounts.totals(connection, periods_at(self._clock()))

    @transacted
    def entries(self, connection: Connection, *, newest: int | None = None, since: float | None = None) -> list[Entry]:
        self._expire(connection)
        query = f"SELECT {_FIELDS} FROM entries WHERE opened >= ? ORDER BY opened DESC, rowid DESC LIMIT ?"  # noqa: S608  a constant
        rows = connection.execute(query, (since or 0.0, -1 if newest is None else newest))
        return [_read_entry(row) for row in rows]

    async def restored(self) -> Restored | None:
        return await self._file.transact(accounts.restored)

    async def confirm(self) -> Restored | None:
        return await self._file.transact(accounts.confirm)

    async def aclose(self) -> None:
        await self._file.aclose()
        self._watch.forget()

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, ReplacedFileError):
            raise replaced(f"the ledger {self._path}", str(error)) from None
        why = explain_file(error, setting="ledger.path", repair=RESTORE)
        raise LedgerError(
            f"the ledger {self._path} cannot be used: {why}, or set ledger.backend = none to spend without a ledger"
        ) from error

    def _close(self, connection: Connection, entry: str, state: str, route: str) -> None:
        """Close an entry; see `Ledger.close`. `state` is its final state."""
        found = self._find(connection, entry)
        if found.state != "open":
            connection.execute("UPDATE entries SET route = ? WHERE id = ? AND route = ''", (route, entry))
            return
        connection.execute(_CLOSE, {"state": state, "now": self._clock(), "route": route, "id": entry})
        held = -found.reserved - found.sent
        accounts.add(connection, found.keys, held=held, spent=found.sent)

    def _expire(self, connection: Connection) -> int:
        if not self._watch.has_odd_leases:
            return 0
        now = self._clock()
        self._watch.shorten(connection, now)
        # A lease of any other type was not written by us.
        expired = connection.execute(_EXPIRED, (now,)).fetchall()
        for (entry,) in expired:
            self._close(connection, entry, "expired", "")
        self._watch.has_odd_leases = False  # for the other calls of the transaction
        return len(expired)

    def _find(self, connection: Connection, entry: str) -> _Found:
        row = connection.execute(_FIND, (RESTORED, entry)).fetchone()
        if row is None:
            raise LedgerError(f"the ledger {self._path} has no entry {entry}: check whether the file was replaced")
        model, collection, api_key, opened, state, *numbers, is_restored = row
        reserved, sent, unsure = map(accounts.amount, numbers)
        purpose = Purpose(model, collection, api_key)
        periods = periods_at(opened)
        keys = account_keys(purpose, periods)
        return _Found(purpose, periods, keys, state, reserved, sent, unsure, bool(is_restored))


def _read_entry(row: tuple[Any, ...]) -> Entry:
    """Return the entry of a row. Raises LedgerError and Python errors for values that no version writes."""
    entry_id, opened, closed, state, model, route, collection, api_key, *numbers, unpriced = row
    if state not in get_args(State):
        raise LedgerError(f"the ledger contains an entry with the state {state!r}")
    times = [None if one is None else float(one) for one in (opened, closed)]
    for one in times:
        moment(one or 0.0)
    facts: dict[str, Any] = dict(zip(_NUMBERS, map(accounts.amount, numbers), strict=True))
    facts |= {"model": str(model), "route": str(route), "collection": str(collection), "api_key": str(api_key)}
    return Entry(str(entry_id), times[0] or 0.0, times[1], state, **facts, unpriced=bool(unpriced))
