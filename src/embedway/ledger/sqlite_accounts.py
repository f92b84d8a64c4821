"""Accounts and limits of a ledger in SQLite, and the mark of a restored ledger.

An account contains the spent, held and saved amounts of one scope in a period. All functions run inside a transaction.
"""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.errors import LedgerError
from embedway.ledger.base import RESTORED, Crossing, Limit, Period, PeriodTotals, Refused, Restored, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

    from embedway.ledger.base import Purpose

_ADD = """
INSERT INTO accounts (scope, period, spent, held, saved) VALUES {}
ON CONFLICT (scope, period) DO UPDATE
SET spent = spent + excluded.spent, held = held + excluded.held, saved = saved + excluded.saved
"""


@functools.cache
def _add_to(accounts: int) -> str:
    """Return the statement that adds to a number of accounts. The thread waits for the interpreter after each one."""
    return _ADD.format(", ".join(["(?, ?, ?, ?, ?)"] * accounts))


def add(
    connection: Connection, keys: Sequence[tuple[str, str]], *, held: int = 0, spent: int = 0, saved: int = 0
) -> None:
    """Add amounts to accounts, by scope and period."""
    if not (held or spent or saved):
        return
    rows = ((scope, period, spent, held, saved) for scope, period in keys)
    connection.execute(_add_to(len(keys)), tuple(itertools.chain.from_iterable(rows)))


def spent_and_held(connection: Connection, scope: str, period: str) -> tuple[int, int]:
    """Return the amounts of an account that count for limits."""
    query = "SELECT spent, held FROM accounts WHERE scope = ? AND period = ?"
    spent, held = connection.execute(query, (scope, period)).fetchone() or (0, 0)
    return amount(spent), amount(held)


def amount(value: object) -> int:
    """Return a stored amount or count. Raises LedgerError for any value that no version writes."""
    if type(value) is not int or value < 0:
        raise LedgerError("the ledger contains an invalid amount: restore a backup with `embedway state restore`")
    return value


def limits(connection: Connection, others: Sequence[Limit] = ()) -> list[Limit]:
    """Return the stored limits, by name, and `others`, which are renamed if their name is taken."""
    rows = connection.execute("SELECT name, nanousd, scope, period, hard, warn_at FROM limits ORDER BY name")
    found = {
        name: Limit(
            name,
            amount(nanousd),
            scope,
            period,
            # Anything but 0 is hard, as no version writes.
            hard=hard != 0,
            warn_at=tuple(amount(level) for level in json.loads(warn_at)),
        )
        for name, nanousd, scope, period, hard, warn_at in rows
    }
    renamed = (replace(limit, name=f"{limit.name} (settings)") if limit.name in found else limit for limit in others)
    return [*found.values(), *renamed]


def set_limit(connection: Connection, limit: Limit) -> None:
    row = (limit.name, limit.nanousd, limit.scope, limit.period, limit.hard, json.dumps(limit.warn_at))
    connection.execute("INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?, ?, ?)", row)
    # A new limit warns again.
    connection.execute("DELETE FROM warnings WHERE name = ?", (limit.name,))


def remove_limit(connection: Connection, name: str) -> bool:
    connection.execute("DELETE FROM warnings WHERE name = ?", (name,))
    return connection.execute("DELETE FROM limits WHERE name = ?", (name,)).rowcount > 0


def refusal(
    connection: Connection,
    purpose: Purpose,
    periods: dict[Period, str],
    nanousd: int | None,
    others: Sequence[Limit],
    *,
    is_restored: bool,
) -> Refused | None:
    """Return the first hard limit that another amount would exceed; see `Ledger.reserve` for None and restoring."""
    for limit in limits(connection, others):
        if not limit.hard or not limit.takes(purpose):
            continue
        period = periods[limit.period]
        spent, held = spent_and_held(connection, limit.scope, period)
        mark = restored(connection) if is_restored else None
        if mark is not None or nanousd is None or spent + held + nanousd > limit.nanousd:
            return Refused(limit, period, max(0, limit.nanousd - spent - held), mark)
    return None


def crossings(
    connection: Connection, purpose: Purpose, periods: dict[Period, str], others: Sequence[Limit]
) -> list[Crossing]:
    """Return the limits that reached a level without a warning so far. Each level is returned once."""
    found = []
    for limit in limits(connection, others):
        if not limit.takes(purpose):
            continue
        period = periods[limit.period]
        spent, _ = spent_and_held(connection, limit.scope, period)
        # The amount is part of the key: a raised limit warns again.
        key = limit.name, period, limit.nanousd
        query = "SELECT level FROM warnings WHERE name = ? AND period = ? AND nanousd = ?"
        row = connection.execute(query, key).fetchone()
        level = limit.reached(spent, row[0] if row else 0)
        if level is not None:
            connection.execute("INSERT OR REPLACE INTO warnings VALUES (?, ?, ?, ?)", (*key, level))
            found.append(Crossing(limit, period, level, spent))
    return found


def standings(connection: Connection, periods: dict[Period, str], others: Sequence[Limit]) -> list[Standing]:
    found = [(limit, periods[limit.period]) for limit in limits(connection, others)]
    return [Standing(limit, period, *spent_and_held(connection, limit.scope, period)) for limit, period in found]


def totals(connection: Connection, periods: dict[Period, str]) -> list[PeriodTotals]:
    query = "SELECT spent, held, saved FROM accounts WHERE scope = '*' AND period = ?"
    rows = [(period, connection.execute(query, (period,)).fetchone()) for period in periods.values()]
    return [PeriodTotals(period, *map(amount, row or (0, 0, 0))) for period, row in rows]


def restored(connection: Connection) -> Restored | None:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (RESTORED,)).fetchone()
    return None if row is None else Restored.read(row[0])


def confirm(connection: Connection) -> Restored | None:
    mark = restored(connection)
    connection.execute("DELETE FROM meta WHERE name = ?", (RESTORED,))
    return mark
