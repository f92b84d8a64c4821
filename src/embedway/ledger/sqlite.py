"""A ledger in a SQLite file, for one machine's processes. Every call is one transaction, on a thread of its own."""

from __future__ import annotations

import collections
import contextlib
import json
import sqlite3
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from embedway import sqlite
from embedway.errors import LedgerError
from embedway.ledger.base import (
    RAN_OUT,
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
    crossed,
    periods_at,
    together,
)
from embedway.ledger.sqlite_formats import LEDGER
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

R = TypeVar("R")

_ENTRY = (
    "id, opened, closed, state, model, route, collection, api_key, texts, hits, tokens, reserved, sent, spent, "
    "estimated, unsure, saved, unpriced"
)


#: Calls that share a transaction at most.
_TOGETHER = 128


@dataclass(slots=True)
class _Ticket:
    """Something to do in a transaction, and what came of it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: Any = None
    error: Exception | None = None


class SqliteLedger:
    """A file. `clock` gives seconds since 1970."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._worker: Worker | None = None
        self._connection: sqlite3.Connection | None = None
        self._waiting: collections.deque[_Ticket] = collections.deque()

    async def reserve(
        self, purpose: Purpose, nanousd: int | None, limits: Sequence[Limit], *, lease_s: float, texts: int
    ) -> str | Refused:
        """See `Ledger.reserve`."""
        return await self._call(self._reserve, purpose, nanousd, limits, lease_s, texts)

    async def send(self, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        """See `Ledger.send`."""
        return await self._call(self._send, entry, nanousd, limits)

    async def unsend(self, entry: str, still_sent: int) -> None:
        """See `Ledger.unsend`."""
        await self._call(self._unsend, entry, still_sent)

    async def settle(self, entry: str, settlement: Settlement, limits: Sequence[Limit]) -> list[Crossing]:
        """See `Ledger.settle`."""
        return await self._call(self._settle, entry, settlement, limits)

    async def close(self, entry: str, *, route: str = "") -> None:
        """See `Ledger.close`."""
        await self._call(self._end, entry, "done", route)

    async def book_saved(self, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        """See `Ledger.book_saved`."""
        await self._call(self._book_saved, purpose, nanousd, texts, tokens)

    async def renew(self, entries: Sequence[str], lease_s: float) -> None:
        """See `Ledger.renew`."""
        await self._call(self._renew, list(entries), lease_s)

    async def expire(self) -> int:
        """See `Ledger.expire`."""
        return await self._call(self._expire)

    async def set_limit(self, limit: Limit) -> None:
        """See `Ledger.set_limit`."""
        await self._call(self._set_limit, limit)

    async def remove_limit(self, name: str) -> bool:
        """See `Ledger.remove_limit`."""
        return await self._call(self._remove_limit, name)

    async def limits(self) -> list[Limit]:
        """See `Ledger.limits`."""
        return await self._call(self._limits)

    async def standings(self, limits: Sequence[Limit] = ()) -> list[Standing]:
        """See `Ledger.standings`."""
        return await self._call(self._standings, limits)

    async def totals(self) -> list[PeriodTotals]:
        """See `Ledger.totals`."""
        return await self._call(self._totals)

    async def entries(self, *, newest: int | None = None, since: float | None = None) -> list[Entry]:
        """See `Ledger.entries`."""
        return await self._call(self._entries, newest, since)

    async def restored(self) -> Restored | None:
        """See `Ledger.restored`."""
        return await self._call(self._restored)

    async def confirm(self) -> Restored | None:
        """See `Ledger.confirm`."""
        return await self._call(self._confirm)

    async def aclose(self) -> None:
        """Close the file."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.call(self._disconnect)
            worker.close()

    # ------------------------------------------------------ on the file's thread

    async def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Have something done in a transaction, which calls that wait at the same time share."""
        if self._worker is None:
            self._worker = Worker("embedway-ledger")
        ticket: _Ticket = _Ticket(function, arguments)
        self._waiting.append(ticket)
        await self._worker.call(self._do_waiting)
        if ticket.error is not None:
            raise ticket.error
        return cast("R", ticket.result)

    def _do_waiting(self) -> None:
        tickets: list[_Ticket] = []
        with contextlib.suppress(IndexError):
            while len(tickets) < _TOGETHER:
                tickets.append(self._waiting.popleft())
        try:
            self._transaction(tickets)
        except Exception:  # noqa: BLE001  whose it is, is found out by doing each alone
            for ticket in tickets:
                try:
                    self._transaction([ticket])
                except Exception as error:  # noqa: BLE001  the caller's
                    ticket.error = error

    def _transaction(self, tickets: Sequence[_Ticket]) -> None:
        if not tickets:
            return  # done with those of an earlier turn
        try:
            connection = self._connection or self._connect()
            # Writers first: a transaction that begins as a reader cannot become one while another writes.
            connection.execute("BEGIN IMMEDIATE")
            try:
                for ticket in tickets:
                    ticket.result = ticket.function(*ticket.arguments)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"the ledger {self._path} cannot be used: {error}; set ledger.path, or ledger.backend = none to "
                "spend without one"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # A power cut must not forget what was spent.
        self._connection = sqlite.connect(self._path, LEDGER, "synchronous = FULL")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        assert self._connection is not None  # noqa: S101  within a transaction
        return self._connection.execute(statement, values)

    def _reserve(
        self, purpose: Purpose, nanousd: int | None, limits: Sequence[Limit], lease_s: float, texts: int
    ) -> str | Refused:
        self._expire()
        now = self._clock()
        refused = self._refused(purpose, nanousd, limits, periods_at(now))
        if refused is not None:
            return refused
        entry = uuid.uuid4().hex
        self._execute(
            "INSERT INTO entries"
            " (id, opened, state, model, collection, api_key, texts, reserved, unpriced, lease_until)"
            " VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?)",
            entry,
            now,
            purpose.model,
            purpose.collection,
            purpose.api_key,
            texts,
            nanousd or 0,
            nanousd is None,
            now + lease_s,
        )
        self._add(purpose, now, held=nanousd or 0)
        return entry

    def _refused(
        self, purpose: Purpose, nanousd: int | None, limits: Sequence[Limit], periods: dict[Period, str]
    ) -> Refused | None:
        for limit in together(self._limits(), limits):
            if not limit.hard or not limit.takes(purpose):
                continue
            restored = self._restored()
            period = periods[limit.period]
            spent, held = self._account(limit.scope, period)
            if restored is not None or nanousd is None or spent + held + nanousd > limit.nanousd:
                return Refused(limit, period, max(0, limit.nanousd - spent - held), restored)
        return None

    def _restored(self) -> Restored | None:
        row = self._execute("SELECT value FROM meta WHERE name = ?", RESTORED).fetchone()
        return None if row is None else Restored.read(row[0])

    def _confirm(self) -> Restored | None:
        restored = self._restored()
        self._execute("DELETE FROM meta WHERE name = ?", RESTORED)
        return restored

    def _send(self, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        purpose, opened, reserved, state = self._open_entry(entry)
        if state != "open":
            # What it held was given back, and others may have it by now.
            raise LedgerError(RAN_OUT)
        more = max(0, nanousd - reserved)
        # Restored books do not know what was spent since, so even what is reserved in them may be spent already.
        if more or self._restored() is not None:
            refused = self._refused(purpose, more, limits, periods_at(opened))
            if refused is not None:
                return refused
            self._add(purpose, opened, held=more)
        self._execute(
            "UPDATE entries SET reserved = MAX(0, reserved - ?), sent = sent + ? WHERE id = ?", nanousd, nanousd, entry
        )
        return None

    def _unsend(self, entry: str, still_sent: int) -> None:
        self._execute(
            "UPDATE entries SET reserved = reserved + MAX(0, sent - ?), sent = MIN(sent, ?)"
            " WHERE id = ? AND state = 'open'",
            still_sent,
            still_sent,
            entry,
        )

    def _settle(self, entry: str, settlement: Settlement, limits: Sequence[Limit]) -> list[Crossing]:
        purpose, opened, reserved, state = self._open_entry(entry)
        kind, cost = settlement.kind, settlement.cost
        sent, unsure = self._execute("SELECT sent, unsure FROM entries WHERE id = ?", entry).fetchone()
        # What was under way when the entry ended is booked already, as unsure; now it is known what it cost.
        # Restored books may know of less than was sent: no more than they know is taken back.
        booked = 0 if state == "open" else min(settlement.sent, unsure)
        over = min(settlement.sent, sent) if state == "open" else 0
        # What is not billed can be spent by the next attempt of the same call; what cost more takes of its reservation.
        back = over if kind == "unbilled" else -min(reserved, max(0, cost - over))
        self._execute(
            "UPDATE entries SET sent = sent - ?, reserved = reserved + ?, spent = spent + ?, tokens = tokens + ?,"
            " estimated = estimated + ?, unsure = unsure + ? WHERE id = ?",
            over,
            back,
            cost - booked,
            settlement.tokens if kind in {"reported", "estimated"} else 0,
            cost if kind == "estimated" else 0,
            (cost if kind == "unsure" else 0) - booked,
            entry,
        )
        self._add(purpose, opened, held=back - over, spent=cost - booked)
        return self._crossings(purpose, opened, limits) if cost else []

    def _crossings(self, purpose: Purpose, opened: float, limits: Sequence[Limit]) -> list[Crossing]:
        found = []
        periods = periods_at(opened)
        for limit in together(self._limits(), limits):
            if not limit.takes(purpose):
                continue
            period = periods[limit.period]
            spent, _ = self._account(limit.scope, period)
            # Of an amount: a limit that was raised warns anew.
            key = limit.name, period, limit.nanousd
            row = self._execute(
                "SELECT level FROM warnings WHERE name = ? AND period = ? AND nanousd = ?", *key
            ).fetchone()
            level = crossed(limit, spent, row[0] if row else 0)
            if level is not None:
                self._execute("INSERT OR REPLACE INTO warnings VALUES (?, ?, ?, ?)", *key, level)
                found.append(Crossing(limit, period, level, spent))
        return found

    def _end(self, entry: str, state: str, route: str) -> None:
        purpose, opened, reserved, now_state = self._open_entry(entry)
        if now_state != "open":
            self._execute("UPDATE entries SET route = ? WHERE id = ? AND route = ''", route, entry)
            return
        sent: int = self._execute("SELECT sent FROM entries WHERE id = ?", entry).fetchone()[0]
        self._execute(
            "UPDATE entries SET state = ?, closed = ?, route = ?, reserved = 0, sent = 0, spent = spent + ?,"
            " unsure = unsure + ?, lease_until = NULL WHERE id = ?",
            state,
            self._clock(),
            route,
            sent,
            sent,
            entry,
        )
        self._add(purpose, opened, held=-reserved - sent, spent=sent)

    def _book_saved(self, purpose: Purpose, nanousd: int, texts: int, tokens: int) -> None:
        now = self._clock()
        self._execute(
            "INSERT INTO entries (id, opened, closed, state, model, route, collection, api_key, texts, hits, tokens,"
            " saved) VALUES (?, ?, ?, 'done', ?, 'cache', ?, ?, ?, ?, ?, ?)",
            uuid.uuid4().hex,
            now,
            now,
            purpose.model,
            purpose.collection,
            purpose.api_key,
            texts,
            texts,
            tokens,
            nanousd,
        )
        self._add(purpose, now, saved=nanousd)

    def _renew(self, entries: list[str], lease_s: float) -> None:
        until = self._clock() + lease_s
        for entry in entries:
            self._execute("UPDATE entries SET lease_until = ? WHERE id = ? AND state = 'open'", until, entry)

    def _expire(self) -> int:
        dead = self._execute(
            "SELECT id FROM entries WHERE state = 'open' AND lease_until < ?", self._clock()
        ).fetchall()
        for (entry,) in dead:
            self._end(entry, "expired", "")
        return len(dead)

    def _open_entry(self, entry: str) -> tuple[Purpose, float, int, str]:
        row = self._execute(
            "SELECT model, collection, api_key, opened, reserved, state FROM entries WHERE id = ?", entry
        ).fetchone()
        if row is None:
            raise LedgerError(f"the ledger {self._path} has no entry {entry}: was the file replaced?")
        return Purpose(*row[:3]), row[3], row[4], row[5]

    def _account(self, scope: str, period: str) -> tuple[int, int]:
        row = self._execute("SELECT spent, held FROM accounts WHERE scope = ? AND period = ?", scope, period).fetchone()
        return (row[0], row[1]) if row else (0, 0)

    def _add(self, purpose: Purpose, opened: float, *, held: int = 0, spent: int = 0, saved: int = 0) -> None:
        for scope in purpose.scopes:
            for period in periods_at(opened).values():
                self._execute(
                    "INSERT INTO accounts (scope, period, spent, held, saved) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT (scope, period) DO UPDATE SET spent = spent + excluded.spent,"
                    " held = held + excluded.held, saved = saved + excluded.saved",
                    scope,
                    period,
                    spent,
                    held,
                    saved,
                )

    def _set_limit(self, limit: Limit) -> None:
        self._execute(
            "INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?, ?, ?)",
            limit.name,
            limit.nanousd,
            limit.scope,
            limit.period,
            limit.hard,
            json.dumps(limit.warn_at),
        )
        # A new limit warns anew.
        self._execute("DELETE FROM warnings WHERE name = ?", limit.name)

    def _remove_limit(self, name: str) -> bool:
        self._execute("DELETE FROM warnings WHERE name = ?", name)
        return self._execute("DELETE FROM limits WHERE name = ?", name).rowcount > 0

    def _limits(self) -> list[Limit]:
        rows = self._execute("SELECT name, nanousd, scope, period, hard, warn_at FROM limits ORDER BY name")
        return [
            Limit(name, nanousd, scope, period, hard=bool(hard), warn_at=tuple(json.loads(warn_at)))
            for name, nanousd, scope, period, hard, warn_at in rows
        ]

    def _standings(self, limits: Sequence[Limit]) -> list[Standing]:
        self._expire()
        periods = periods_at(self._clock())
        found = together(self._limits(), limits)
        return [
            Standing(limit, periods[limit.period], *self._account(limit.scope, periods[limit.period]))
            for limit in found
        ]

    def _totals(self) -> list[PeriodTotals]:
        self._expire()
        found = []
        for period in periods_at(self._clock()).values():
            row = self._execute(
                "SELECT spent, held, saved FROM accounts WHERE scope = '*' AND period = ?", period
            ).fetchone()
            found.append(PeriodTotals(period, *(row or (0, 0, 0))))
        return found

    def _entries(self, newest: int | None, since: float | None) -> list[Entry]:
        self._expire()
        rows = self._execute(
            f"SELECT {_ENTRY} FROM entries WHERE opened >= ? ORDER BY opened DESC, rowid DESC LIMIT ?",  # noqa: S608  a constant
            since or 0.0,
            -1 if newest is None else newest,
        )
        return [Entry(*(*row[:-1], bool(row[-1]))) for row in rows]
