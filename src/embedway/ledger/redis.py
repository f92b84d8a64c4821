"""Ledger in Redis or Valkey, for several machines. Every call is one script, which the server runs atomically.

All keys start with `{embedway:ledger}`, so that they are in one slot of a cluster. Times are the server's, so that the
clocks of the machines need not agree. Amounts are sent as text: the server's JSON would round them.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

from embedway.errors import LedgerError, MissingExtraError, newer_version
from embedway.files import read_package_text
from embedway.ledger.base import (
    RAN_OUT,
    Crossing,
    Entry,
    Limit,
    PeriodTotals,
    Purpose,
    Refused,
    Restored,
    Settlement,
    Standing,
    State,
    moment,
    new_entry,
)
from embedway.ledger.continuity import OLDER, OTHER, SEEN_BY_PLACE, replaced
from embedway.ledger.redis_scripts import SharedScript
from embedway.ledger.sqlite_formats import LEDGER_VERSION, PINS_VERSION
from embedway.shared_servers import note_use, read_facts
from embedway.store_failures import explain_server, server_address
from embedway.third_party import INVALID_VALUE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from embedway.shared_servers import Part

LEDGER_PREFIX = "{embedway:ledger}:"
LEDGER_KEYS = tuple(LEDGER_PREFIX + name for name in ("format", "open", "all", "accounts", "limits", "warned", "meta"))
#: The stamp, the identity of the ledger, and of the records: documents, times of their changes, and leases.
RECORDS_KEYS = tuple(LEDGER_PREFIX + name for name in ("format", "meta", "records", "changed", "leases"))
#: Pins by collection, and the lease ends of claims. Times are the server's.
PINS_KEYS = ("{embedway:pins}:format", "{embedway:pins}", "{embedway:pins}:until")

_INVALID = "{} in Redis contains values that no version writes: restore a backup (`embedway state restore`)"
#: Errors of the script for a ledger that was replaced.
_REPLACED = {"EMBEDWAYREPLACED older": OLDER, "EMBEDWAYREPLACED other": OTHER}
_NEWER = re.compile(r"EMBEDWAYFORMAT (\w+)")
#: Fields of the key `meta` with the ledger's identity; no content of a backup.
IDENTITY = frozenset({"id", "changes", "before", "lease_s", "restarted", "until", "existing", "lost"})
#: Integer fields of an entry.
ENTRY_NUMBERS = ("texts", "hits", "tokens", "reserved", "sent", "spent", "estimated", "unsure", "saved")
_LOST = (
    "the ledger in Redis lost spending or budgets, which the server deleted, and nothing is sent: set its "
    "maxmemory-policy to noeviction, or to volatile-lru if the cache shares the server; compare `embedway budget show` "
    "with the services' own bills, and set the budgets again (`embedway budget set NAME USD`); then run `embedway "
    "budget confirm`"
)
#: Time limits of a connection and of an answer, in seconds.
_CONNECT_S, ANSWER_S = 2.0, 10.0


def read_script(name: str) -> str:
    """Read a script of this package."""
    return read_package_text("embedway.ledger", f"lua/{name}.lua")


#: Start of each script, whose first key is the stamp: one atomic step checks the version and changes the keys.
LEDGER_CHECK, PINS_CHECK = (
    f"local known = {version}\n{read_script('check')}\n" for version in (LEDGER_VERSION, PINS_VERSION)
)
_SCRIPT = LEDGER_CHECK + read_script("ledger")


@contextlib.contextmanager
def stored_values(what: str) -> Iterator[None]:
    """Convert the errors of invalid stored values to LedgerError."""
    try:
        yield
    except LedgerError:
        raise
    except INVALID_VALUE_ERRORS as error:
        raise LedgerError(_INVALID.format(what)) from error


class RedisLedger:
    """Ledger on a server or a cluster. `clock` returns seconds since 1970; without it the server's time is used."""

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        clock: Callable[[], float] | None = None,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the ledger; it connects at its first use. Raises MissingExtraError without the library."""
        self._clock = clock
        self._ticks = ticks
        self._url = url
        self._seen = SEEN_BY_PLACE.join(url)
        #: Server's time and our monotonic time at the last answer.
        self._answered: tuple[float, float] | None = None
        self._is_noted = False
        self._client = redis_client(url, cluster=cluster, what="ledger.backend = 'redis'")
        self._script = SharedScript(self._client, _SCRIPT, LEDGER_KEYS, cluster=cluster)

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
        answer = await self._call(
            "reserve",
            id=entry or new_entry(),
            amount=None if nanousd is None else str(nanousd),
            sent=str(sent),
            limits=_write_limits(limits),
            lease_s=lease_s,
            texts=str(texts),
            **asdict(purpose),
        )
        return _read_refusal(answer) or str(answer[1])

    async def send(self, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        answer = await self._call("send", id=entry, amount=str(nanousd), limits=_write_limits(limits))
        if answer[0] == "gone":
            raise LedgerError(RAN_OUT)
        return _read_refusal(answer)

    async def revert_send(self, entry: str, still_sent: int) -> None:
        await self._call("revert_send", id=entry, still_sent=str(still_sent))

    async def settle(
        self, entry: str, settlement: Settlement, limits: Sequence[Limit], *, last_route: str | None = None
    ) -> list[Crossing]:
        answer = await self._call(
            "settle",
            id=entry,
            sent=str(settlement.sent),
            cost=str(settlement.cost),
            tokens=str(settlement.tokens),
            kind=settlement.kind,
            limits=_write_limits(limits),
            **({} if last_route is None else {"last_route": last_route}),
        )
        if answer[0] == "gone":
            raise LedgerError(f"the ledger has no entry {entry}: check whether the server was emptied")
        with stored_values("the ledger"):
            return [
                Crossing(read_limit(written, name), period, int(level), int(spent))
                for written, name, period, level, spent in _chunks(answer[1:], 5)
            ]

    async def close(self, entry: str, *, route: str = "") -> None:
        await self._call("close", id=entry, route=route)

    async def book_saved(self, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        await self._call(
            "saved",
            id=new_entry(),
            amount=str(nanousd),
            texts=str(texts),
            tokens=str(tokens),
            **asdict(purpose),
        )

    async def renew(self, entries: Sequence[str], lease_s: float) -> None:
        await self._call("renew", ids=list(entries), lease_s=lease_s)

    async def expire(self) -> int:
        return int((await self._call("expire"))[1])

    async def set_limit(self, limit: Limit) -> None:
        await self._call("set_limit", limit=write_limit(limit))

    async def remove_limit(self, name: str) -> bool:
        return bool((await self._call("remove_limit", name=name))[1])

    async def limits(self) -> list[Limit]:
        return [standing.limit for standing in await self.standings()]

    async def standings(self, limits: Sequence[Limit] = ()) -> list[Standing]:
        answer = await self._call("standings", limits=_write_limits(limits))
        with stored_values("the ledger"):
            return [
                Standing(read_limit(written, name), period, int(spent), int(held))
                for written, name, period, spent, held in _chunks(answer[1:], 5)
            ]

    async def totals(self) -> list[PeriodTotals]:
        answer = await self._call("totals")
        return [PeriodTotals(period, *map(int, numbers)) for period, *numbers in _chunks(answer[1:], 4)]

    async def entries(self, *, newest: int | None = None, since: float | None = None) -> list[Entry]:
        answer = await self._call("entries", since=str(since or 0.0), newest=-1 if newest is None else newest)
        with stored_values("the ledger"):
            return [_read_entry(dict(zip(fields[::2], fields[1::2], strict=True))) for fields in answer[1:]]

    async def restored(self) -> Restored | None:
        (written,) = (await self._call("restored"))[1:]
        return Restored.read(written) if written else None

    async def confirm(self) -> Restored | None:
        (written,) = (await self._call("confirm"))[1:]
        return Restored.read(written) if written else None

    async def aclose(self) -> None:
        self._seen = SEEN_BY_PLACE.leave(self._url, self._seen)
        await self._client.aclose()

    async def _call(self, operation: str, **call: Any) -> list[Any]:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        call |= {"now": None if self._clock is None else repr(self._clock()), "expected": self._expected()}
        call |= {"seen": self._seen.id, "changes": self._seen.changes, "new": uuid.uuid4().hex}
        try:
            identity, changes, now, answer = await self._script.run(operation, json.dumps(call))
        except (redis.exceptions.RedisError, OSError, TimeoutError, ValueError) as error:
            how = next((how for code, how in _REPLACED.items() if code in str(error)), None)
            if how is not None:
                raise replaced("the ledger in Redis", how) from None
            if "EMBEDWAYLOST" in str(error):
                raise LedgerError(_LOST) from None
            why = explain_server(error, self._url, setting="ledger.url", answer_s=ANSWER_S)
            otherwise = (
                f"the ledger in Redis at {server_address(self._url)} cannot be used: {why.reason}; nothing is spent "
                f"without it: {why.remedy}"
            )
            raise failure(error, "the ledger", LEDGER_VERSION, otherwise) from error
        self._answered = float(now), self._ticks()
        self._seen.accept(identity, int(changes), "the ledger in Redis")
        if not self._is_noted:
            self._is_noted = True
            await note_server("ledger", self._client, self._url)
        found: list[Any] = answer
        return found

    def _expected(self) -> str | None:
        """Return the server's time by our monotonic clock; None before the first answer."""
        if self._answered is None:
            return None
        now, ticks = self._answered
        return repr(now + self._ticks() - ticks)


def _write_limits(limits: Sequence[Limit]) -> list[str]:
    return [write_limit(limit) for limit in limits]


def write_limit(limit: Limit) -> str:
    """Return the stored form of a limit."""
    return json.dumps({**asdict(limit), "nanousd": str(limit.nanousd)})


def read_limit(written: str, name: str) -> Limit:
    """Read the stored form of a limit, with the name returned by the server."""
    fields = json.loads(written)
    hard, warn_at = fields["hard"], tuple(fields["warn_at"])
    return Limit(name, int(fields["nanousd"]), fields["scope"], fields["period"], hard=hard, warn_at=warn_at)


def _read_refusal(answer: Sequence[Any]) -> Refused | None:
    if answer[0] != "refused":
        return None
    _, written, name, period, left, restored = answer
    with stored_values("the ledger"):
        return Refused(read_limit(written, name), period, int(left), Restored.read(restored) if restored else None)


def _read_entry(fields: dict[str, str]) -> Entry:
    times = {name: float(fields[name]) for name in ("opened", "closed") if name in fields}
    for time_ in times.values():
        moment(time_)
    if fields["state"] not in get_args(State):
        raise ValueError(fields["state"])
    return Entry(
        id=fields["id"],
        opened=times["opened"],
        closed=times.get("closed"),
        state=fields["state"],  # type: ignore[arg-type]  # checked above
        model=fields["model"],
        route=fields.get("route", ""),
        collection=fields["collection"],
        api_key=fields["api_key"],
        unpriced=fields.get("unpriced") == "1",
        **{name: int(fields.get(name, 0)) for name in ENTRY_NUMBERS},
    )


def _chunks(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[at : at + size] for at in range(0, len(values), size)]


def redis_client(url: str, *, cluster: bool, what: str, decode: bool = True) -> Any:
    """Create a client without retries; its answers are text, or bytes without `decode`.

    Raises MissingExtraError, which says that `what` needs the library.
    """
    try:
        import redis.asyncio as redis  # noqa: PLC0415  an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError(what, extra="redis", package="redis") from None
    # No retries: a script may have run although its answer was lost, and a second run would book twice.
    options: dict[str, Any] = {"socket_connect_timeout": _CONNECT_S, "socket_timeout": ANSWER_S}
    if cluster:
        return redis.RedisCluster.from_url(url, decode_responses=decode, **options)
    return redis.Redis.from_url(url, decode_responses=decode, retry=Retry(NoBackoff(), 0), **options)


async def note_server(part: Part, client: Any, url: str) -> None:
    """Note which server a part uses, after its first answer, for the warnings of `shared_servers.py`."""
    import redis.exceptions  # noqa: PLC0415  already loaded by the client

    with contextlib.suppress(redis.exceptions.RedisError, OSError, TimeoutError):
        note_use(part, url, await read_facts(client))


def failure(error: Exception, what: str, known: int, otherwise: str) -> LedgerError:
    """Return the error of a script: `what` has a newer version, or `otherwise`."""
    newer = _NEWER.search(str(error))
    if newer is None and any(code in str(error) for code in ("EMBEDWAYINVALID", "WRONGTYPE", "not an integer")):
        return LedgerError(_INVALID.format(what))
    return LedgerError(f"{what} in Redis {newer_version(newer[1], known)}" if newer is not None else otherwise)
