"""Ledger contract: money is reserved before a request is sent, and its cost is booked afterwards.

All amounts are integers in nano-dollars. An entry is one call. It opens with a reservation and closes at the end of
the call. In between, `send` marks parts of the reservation as under way, and `settle` books the cost of each. A limit
applies to `spent + held` at any time, where held is reserved or under way. The entry of a dead process is closed after
its lease expires: reserved amounts are released, and amounts under way are booked as unsure, because the service may
bill them.

Days and months are in UTC, and are those in which an entry was opened.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from embedway.errors import LedgerError, UsageError
from embedway.money import usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Period: TypeAlias = Literal["total", "day", "month"]
PERIODS: tuple[Period, ...] = get_args(Period)
State: TypeAlias = Literal["open", "done", "expired"]

EVERYTHING = "*"
#: Name of the mark of a restored ledger that is not confirmed.
RESTORED = "restored"
#: Remedy of a damaged file.
RESTORE = "restore a backup (`embedway state restore`)"
WARN_AT = (50, 80, 100)
_DAY_S = 86_400
RAN_OUT = "the reservation of this call expired before use: the process was paused for longer than ledger.lease_s"
#: Kinds of scopes of limits; a scope starts with its kind.
SCOPES = ("api_key", "collection", "model")


@dataclass(frozen=True, slots=True)
class Purpose:
    """Model, collection and key that money is spent for: names, never secrets or texts."""

    model: str
    collection: str = ""
    #: Name of the key on whose behalf a call is made, never the key itself.
    api_key: str = ""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes of the limits that count this spending."""
        names = (("api_key", self.api_key), ("collection", self.collection), ("model", self.model))
        return (EVERYTHING, *(f"{kind}:{name}" for kind, name in names if name))


@dataclass(frozen=True, slots=True)
class Limit:
    """Maximum spending in a period for one scope: `*`, `model:NAME`, `collection:NAME` or `api_key:NAME`.

    A soft limit refuses nothing and only warns.
    """

    name: str
    nanousd: int
    scope: str = EVERYTHING
    period: Period = "total"
    hard: bool = True
    #: Percentages of the limit at which a warning is sent, once per period.
    warn_at: tuple[int, ...] = WARN_AT

    def __post_init__(self) -> None:
        """Validate the limit. Raises UsageError."""
        if not self.name.strip():
            raise UsageError("a budget needs a name")
        kind, _, subject = self.scope.partition(":")
        if self.scope != EVERYTHING and (kind not in SCOPES or not subject):
            wanted = ", ".join(f"{scope}:NAME" for scope in SCOPES)
            raise UsageError(f"budget {self.name}: scope is {self.scope!r}; it must be * or one of {wanted}")
        if self.period not in PERIODS:
            raise UsageError(f"budget {self.name}: period is {self.period!r}; it must be one of {', '.join(PERIODS)}")
        if self.nanousd < 0:
            raise UsageError(f"budget {self.name}: the limit must be at least 0")

    def takes(self, purpose: Purpose) -> bool:
        """Return whether the limit counts spending for this purpose."""
        return self.scope in purpose.scopes

    def reached(self, spent: int, warned: int) -> int | None:
        """Return the highest level above `warned` that this spending reaches; None if there is none."""
        levels = [level for level in self.warn_at if level > warned and spent * 100 >= level * self.nanousd and spent]
        return max(levels, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types; money is text, because it is exact."""
        return {
            "name": self.name,
            "limit_usd": usd(self.nanousd),
            "scope": self.scope,
            "period": self.period,
            "hard": self.hard,
            "warn_at": list(self.warn_at),
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """Amounts that count for a limit in its current period."""

    limit: Limit
    period: str
    spent: int
    held: int

    @property
    def left(self) -> int:
        """Money that can still be reserved; never below 0."""
        return max(0, self.limit.nanousd - self.spent - self.held)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types."""
        return {
            **self.limit.to_json(),
            "now": self.period,
            "spent_usd": usd(self.spent),
            "held_usd": usd(self.held),
            "left_usd": usd(self.left),
        }


@dataclass(frozen=True, slots=True)
class Crossing:
    """Limit whose spending has reached a warning level."""

    limit: Limit
    period: str
    level: int
    spent: int


@dataclass(frozen=True, slots=True)
class Restored:
    """Mark of a restored ledger: spending between the two times is missing. Seconds since 1970."""

    books_of: float
    restored_at: float

    def written(self) -> str:
        """Return the stored form, JSON."""
        return json.dumps({"books_of": self.books_of, "restored_at": self.restored_at})

    @classmethod
    def read(cls, written: str) -> Restored:
        """Read the stored form. Raises LedgerError for any other text."""
        try:
            facts = json.loads(written)
            found = cls(float(facts["books_of"]), float(facts["restored_at"]))
            moment(found.books_of), moment(found.restored_at)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError) as error:
            raise LedgerError("the ledger's mark of a restored backup cannot be read by this version") from error
        return found

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types."""
        return {"books_of": moment(self.books_of), "restored_at": moment(self.restored_at)}


@dataclass(frozen=True, slots=True)
class Refused:
    """Hard limit that a reservation would exceed, or that refuses everything until a `restored` ledger is confirmed."""

    limit: Limit
    period: str
    left: int
    restored: Restored | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """Outcome of an attempt: of the amount under way, `sent` is finished and has cost `cost`.

    `kind` is `reported` for usage that the service reported, `estimated` for our own count, `unsure` for implausible
    usage and for a failed request that may be billed, and `unbilled` for a failed request that is not. The
    tokens of the last two are not counted.
    """

    sent: int
    cost: int
    tokens: int
    kind: Literal["reported", "estimated", "unsure", "unbilled"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Call and its cost. Times are seconds since 1970 (UTC)."""

    id: str
    opened: float
    closed: float | None
    state: State
    model: str
    route: str
    collection: str
    api_key: str
    texts: int
    hits: int
    tokens: int
    #: Nano-dollars reserved but not under way, and under way.
    reserved: int
    sent: int
    spent: int
    #: Parts of `spent`: by our own count; for failed requests that may be billed, and for implausible usage.
    estimated: int
    unsure: int
    #: Cost that cache hits avoided.
    saved: int
    #: Whether no price was known, so that nothing could be booked.
    unpriced: bool = False

    @property
    def failed(self) -> bool:
        """Whether the call has ended without an answer."""
        return self.state == "done" and not self.route and not self.tokens

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types."""
        found = asdict(self)
        for name in ("opened", "closed"):
            found[name] = None if found[name] is None else moment(found[name])
        for name in ("reserved", "sent", "spent", "estimated", "unsure", "saved"):
            found[f"{name}_usd"] = usd(found.pop(name))
        return {**found, "failed": self.failed}


@dataclass(frozen=True, slots=True)
class PeriodTotals:
    """Sums of a period over all scopes."""

    period: str
    spent: int
    held: int
    saved: int


class Ledger(Protocol):
    """Store of entries and limits. Safe for concurrent use by tasks and, if it is shared, by processes.

    Every method raises LedgerError if the store fails.
    """

    async def reserve(
        self,
        purpose: Purpose,
        nanousd: int | None,
        limits: Sequence[Limit],
        *,
        lease_s: float,
        texts: int,
        sent: int = 0,
        entry: str | None = None,
    ) -> str | Refused:
        """Open an entry and hold an amount, unless this would exceed a hard limit of `limits` or of the ledger.

        None means an unknown price: any hard limit refuses it. If the ledger was restored from a backup and is not
        confirmed, any hard limit refuses every amount.

        `sent` is an amount that is marked as under way in the same transaction, as by `send`: both happen, or neither.
        `entry` is a new ID for the entry, from `new_entry`, with which a caller can revert a reservation whose answer
        was lost. Returns the entry's ID.
        """

    async def send(self, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        """Mark an amount as under way. An amount beyond the entry's reservation is reserved first, or refused.

        If the ledger was restored from a backup and is not confirmed, any hard limit refuses it, even within the
        reservation: another process may have spent that since.
        """

    async def revert_send(self, entry: str, still_sent: int) -> None:
        """Revert a `send` whose answer was lost, even if it took no effect: at most `still_sent` stays under way.

        Does nothing if there is no such entry, or it has ended.
        """

    async def settle(
        self, entry: str, settlement: Settlement, limits: Sequence[Limit], *, last_route: str | None = None
    ) -> list[Crossing]:
        """Book the outcome of an attempt, and return the limits that have reached a warning level.

        With `last_route`, the entry is closed in the same transaction, as by `close(entry, route=last_route)`.

        A cost above the sent amount is taken from the entry's reservation, as far as possible. If the entry has ended,
        the amount was booked as unsure, which is corrected. If a restored ledger does not contain the amount as sent,
        its cost is booked nevertheless.
        """

    async def close(self, entry: str, *, route: str = "") -> None:
        """Release the reservation and end the entry. Amounts under way are booked as unsure."""

    async def book_saved(self, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        """Book the savings of cache hits, in a separate entry."""

    async def renew(self, entries: Sequence[str], lease_s: float) -> None:
        """Extend the leases of entries to `lease_s` from now."""

    async def expire(self) -> int:
        """Close entries with an expired lease, and return their number."""

    async def set_limit(self, limit: Limit) -> None:
        """Store a limit. It replaces a limit of the same name."""

    async def remove_limit(self, name: str) -> bool:
        """Remove a limit. Return False if there is none of that name."""

    async def limits(self) -> list[Limit]:
        """Return the stored limits, by name."""

    async def standings(self, limits: Sequence[Limit] = ()) -> list[Standing]:
        """Return the standings of the stored limits and of `limits`."""

    async def totals(self) -> list[PeriodTotals]:
        """Return the sums of all time, of today and of this month."""

    async def entries(self, *, newest: int | None = None, since: float | None = None) -> list[Entry]:
        """Return up to `newest` entries opened since a time, newest first."""

    async def restored(self) -> Restored | None:
        """Return the mark of a restored ledger; None if it was confirmed, or never restored."""

    async def confirm(self) -> Restored | None:
        """Remove the mark of a restored ledger and return it. Hard limits then allow spending again."""

    async def aclose(self) -> None:
        """Close files and connections."""


def new_entry() -> str:
    """Return a new ID of an entry."""
    return uuid.uuid4().hex


def periods_at(seconds: float) -> dict[Period, str]:
    """Return the names of the periods of a time: `total`, `2026-11-23`, `2026-11`."""
    return _periods_of(int(seconds // _DAY_S))


@functools.lru_cache(maxsize=16)
def _periods_of(day: int) -> dict[Period, str]:
    name = dt.datetime.fromtimestamp(day * _DAY_S, dt.UTC).strftime("%Y-%m-%d")
    return {"total": "total", "day": name, "month": name[:7]}


def account_keys(purpose: Purpose, periods: Mapping[Period, str]) -> list[tuple[str, str]]:
    """Return the accounts, by scope and period, that count spending for a purpose."""
    return [(scope, period) for scope in purpose.scopes for period in periods.values()]


def moment(seconds: float) -> str:
    """Return a time as ISO 8601, UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
