"""The contract of ledgers: money is reserved before a request is sent, and its cost is booked afterwards.

All amounts are whole nano-dollars. An entry is one call. It opens with a reservation and closes at the end of the call.
In between, `send` marks parts of the reservation as under way, and `settle` books the cost of each. A limit holds over
`spent + held` at any moment, where held is what is reserved or under way. An entry whose process died is closed after
its lease has run out: reserved amounts are released, and amounts under way are booked as unsure, because the service
may bill them.

Days and months are UTC, those in which an entry was opened.
"""

from __future__ import annotations

import datetime as dt
import json
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
#: The name of the mark that books are restored and not confirmed.
RESTORED = "restored"
WARN_AT = (50, 80, 100)
RAN_OUT = "this call's reservation ran out before it was used: the process stood still for longer than ledger.lease_s"
#: What limits may be for, and how a scope of each begins.
SCOPES = ("api_key", "collection", "model")


@dataclass(frozen=True, slots=True)
class Purpose:
    """The model, collection and key that money is spent for: names, never secrets or texts."""

    model: str
    collection: str = ""
    #: A name for the key on whose behalf a call is made, never the key itself.
    api_key: str = ""

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of the limits that count this spending."""
        names = (("api_key", self.api_key), ("collection", self.collection), ("model", self.model))
        return (EVERYTHING, *(f"{kind}:{name}" for kind, name in names if name))


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that may be spent in a period for one scope: `*`, `model:NAME`, `collection:NAME` or `api_key:NAME`.

    A soft limit refuses nothing and only warns.
    """

    name: str
    nanousd: int
    scope: str = EVERYTHING
    period: Period = "total"
    hard: bool = True
    #: Percent of the limit at which a warning is given, once in each period.
    warn_at: tuple[int, ...] = WARN_AT

    def __post_init__(self) -> None:
        """Refuse what is no limit. Raises UsageError."""
        if not self.name.strip():
            raise UsageError("a budget needs a name")
        kind, _, subject = self.scope.partition(":")
        if self.scope != EVERYTHING and (kind not in SCOPES or not subject):
            wanted = ", ".join(f"{scope}:NAME" for scope in SCOPES)
            raise UsageError(f"budget {self.name}: scope is {self.scope!r}; it must be * or one of {wanted}")
        if self.period not in PERIODS:
            raise UsageError(f"budget {self.name}: period is {self.period!r}; it must be one of {', '.join(PERIODS)}")
        if self.nanousd < 0:
            raise UsageError(f"budget {self.name}: a limit must be 0 or more")

    def takes(self, purpose: Purpose) -> bool:
        """Whether the limit counts spending for this purpose."""
        return self.scope in purpose.scopes

    def reached(self, spent: int, warned: int) -> int | None:
        """The highest of the levels above `warned` that this spending reaches; None for none."""
        levels = [level for level in self.warn_at if level > warned and spent * 100 >= level * self.nanousd and spent]
        return max(levels, default=None)

    def to_json(self) -> dict[str, Any]:
        """As JSON's types; money as a text, because it is exact."""
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
    """The amounts that count for a limit in its present period."""

    limit: Limit
    period: str
    spent: int
    held: int

    @property
    def left(self) -> int:
        """The money that may still be reserved; never below 0."""
        return max(0, self.limit.nanousd - self.spent - self.held)

    def to_json(self) -> dict[str, Any]:
        """As JSON's types."""
        return {
            **self.limit.to_json(),
            "now": self.period,
            "spent_usd": usd(self.spent),
            "held_usd": usd(self.held),
            "left_usd": usd(self.left),
        }


@dataclass(frozen=True, slots=True)
class Crossing:
    """A limit whose spending has reached a warning level."""

    limit: Limit
    period: str
    level: int
    spent: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The mark of restored books: spending between the two times is not in them. Seconds since 1970."""

    books_of: float
    restored_at: float

    def written(self) -> str:
        """The stored form, JSON."""
        return json.dumps({"books_of": self.books_of, "restored_at": self.restored_at})

    @classmethod
    def read(cls, written: str) -> Restored:
        """Read the stored form. Raises LedgerError for anything else."""
        try:
            facts = json.loads(written)
            found = cls(float(facts["books_of"]), float(facts["restored_at"]))
            moment(found.books_of), moment(found.restored_at)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError) as error:
            raise LedgerError("the ledger's mark of a restored backup cannot be read by this version") from error
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON's types."""
        return {"books_of": moment(self.books_of), "restored_at": moment(self.restored_at)}


@dataclass(frozen=True, slots=True)
class Refused:
    """A hard limit that a reservation would pass, or that refuses everything until `restored` books are confirmed."""

    limit: Limit
    period: str
    left: int
    restored: Restored | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of an attempt: of the amount under way, `sent` is over and has cost `cost`.

    `kind` is `reported` for usage that the service reported, `estimated` for our own count, `unsure` for a failed
    request that may be billed, and `unbilled` for one that is not.
    """

    sent: int
    cost: int
    tokens: int
    kind: Literal["reported", "estimated", "unsure", "unbilled"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A call and its cost. Times are seconds since 1970 (UTC)."""

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
    #: Reserved and not under way, and under way.
    reserved: int
    sent: int
    spent: int
    #: Parts of `spent`: by our own count, and for failed requests that may be billed.
    estimated: int
    unsure: int
    #: The cost that cache hits avoided.
    saved: int
    #: Whether no price was known, so that nothing could be booked.
    unpriced: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON's types."""
        found = asdict(self)
        for name in ("opened", "closed"):
            found[name] = None if found[name] is None else moment(found[name])
        for name in ("reserved", "sent", "spent", "estimated", "unsure", "saved"):
            found[f"{name}_usd"] = usd(found.pop(name))
        return found


@dataclass(frozen=True, slots=True)
class PeriodTotals:
    """The sums of a period over all scopes."""

    period: str
    spent: int
    held: int
    saved: int


class Ledger(Protocol):
    """Stores entries and limits. Safe for concurrent use by tasks and, where it is shared, by processes.

    Every method raises LedgerError where the store fails.
    """

    async def reserve(
        self, purpose: Purpose, nanousd: int | None, limits: Sequence[Limit], *, lease_s: float, texts: int
    ) -> str | Refused:
        """Open an entry and hold an amount, unless a hard limit of `limits` or of the ledger's own would be passed.

        None stands for a price that is not known: any hard limit refuses it. Any hard limit refuses every amount where
        the ledger was restored from a backup and nobody has confirmed it.
        """

    async def send(self, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        """Mark an amount as under way; what the entry has not reserved is reserved first, or refused.

        Any hard limit refuses it where the ledger was restored from a backup and nobody has confirmed it, also out of
        what the entry has reserved: another process may have spent that since.
        """

    async def revert_send(self, entry: str, still_sent: int) -> None:
        """Revert a `send` whose answer was lost, whether or not it was made: at most `still_sent` stays under way."""

    async def settle(self, entry: str, settlement: Settlement, limits: Sequence[Limit]) -> list[Crossing]:
        """Book the outcome of an attempt, and return the limits that have reached a warning level.

        What cost more than was sent is taken from what the entry has reserved, as far as that goes. An entry that ended
        has what was under way booked as unsure; it is put right. What a restored ledger does not know as sent is booked
        with its cost all the same.
        """

    async def close(self, entry: str, *, route: str = "") -> None:
        """Release what is reserved and end the entry. What is under way is booked as unsure."""

    async def book_saved(self, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        """Book the savings of cache hits, in an entry of their own."""

    async def renew(self, entries: Sequence[str], lease_s: float) -> None:
        """Extend the leases of entries to `lease_s` from now."""

    async def expire(self) -> int:
        """Close entries whose lease has run out, and return their number."""

    async def set_limit(self, limit: Limit) -> None:
        """Store a limit. It replaces one of the same name."""

    async def remove_limit(self, name: str) -> bool:
        """Remove a limit; False where there is none of that name."""

    async def limits(self) -> list[Limit]:
        """The stored limits, by name."""

    async def standings(self, limits: Sequence[Limit] = ()) -> list[Standing]:
        """The standings of the stored limits and of `limits`."""

    async def totals(self) -> list[PeriodTotals]:
        """The sums of all time, of today and of this month."""

    async def entries(self, *, newest: int | None = None, since: float | None = None) -> list[Entry]:
        """Entries opened since a time, newest first, at most so many."""

    async def restored(self) -> Restored | None:
        """The backup that the books come from; None where they were confirmed, or never restored."""

    async def confirm(self) -> Restored | None:
        """Remove the mark of restored books and return it, so that hard limits allow spending again."""

    async def aclose(self) -> None:
        """Close files and connections."""


def periods_at(seconds: float) -> dict[Period, str]:
    """The names of the periods of a time: `total`, `2026-11-23`, `2026-11`."""
    day = dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d")
    return {"total": "total", "day": day, "month": day[:7]}


def account_keys(purpose: Purpose, periods: Mapping[Period, str]) -> list[tuple[str, str]]:
    """The accounts, by scope and period, that spending for a purpose counts in."""
    return [(scope, period) for scope in purpose.scopes for period in periods.values()]


def moment(seconds: float) -> str:
    """A time as ISO 8601, UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
