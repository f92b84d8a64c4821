"""A ledger in Redis or Valkey, for several machines. Every call is one script, which the server runs whole or not.

All keys begin with `{embedway:ledger}`, so that in a cluster they lie in one slot. Times are the server's own, so that
machines need not agree. Amounts travel as texts: the server's JSON would round them.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from embedway.errors import LedgerError, MissingExtraError
from embedway.ledger.base import RAN_OUT, Crossing, Entry, Limit, Purpose, Refused, Settlement, Standing, Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PREFIX = "{embedway:ledger}:"
_KEYS = tuple(_PREFIX + name for name in ("open", "all", "accounts", "limits", "warned"))
_CONNECT_S, _ANSWER_S = 2.0, 10.0
_SCRIPT = """
local open, all, accounts, limits, warned = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local op, call = ARGV[1], cjson.decode(ARGV[2])
local prefix = '{embedway:ledger}:entry:'

local now = tonumber(call.now)
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function text(number) return string.format('%.0f', number) end
local function stamp(number) return string.format('%.6f', number) end

local function day_of(seconds)
    -- The civil calendar from days since 1970, counted in eras of 400 years that begin in March.
    local days = math.floor(seconds / 86400) + 719468
    local era = math.floor(days / 146097)
    local doe = days - era * 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    local shifted = math.floor((5 * doy + 2) / 153)
    local day = doy - math.floor((153 * shifted + 2) / 5) + 1
    local month = shifted < 10 and shifted + 3 or shifted - 9
    local year = yoe + era * 400 + (month <= 2 and 1 or 0)
    return string.format('%04d-%02d-%02d', year, month, day)
end

local function periods_at(seconds)
    local day = day_of(seconds)
    return {total = 'total', day = day, month = string.sub(day, 1, 7)}
end

local function account(scope, period, name)
    return tonumber(redis.call('HGET', accounts, scope .. '|' .. period .. '|' .. name) or '0')
end

local function all_limits()
    local found, names = {}, {}
    for _, written in ipairs(redis.call('HVALS', limits)) do
        local limit = cjson.decode(written)
        limit.written = written
        names[limit.name] = true
        table.insert(found, limit)
    end
    table.sort(found, function(one, other) return one.name < other.name end)
    for _, written in ipairs(call.limits or {}) do
        local limit = cjson.decode(written)
        limit.written = written
        if names[limit.name] then limit.name = limit.name .. ' (settings)' end
        table.insert(found, limit)
    end
    return found
end

local function read(id)
    local fields = redis.call('HGETALL', prefix .. id)
    local entry = {}
    for at = 1, #fields, 2 do entry[fields[at]] = fields[at + 1] end
    for _, name in ipairs({'opened', 'reserved', 'sent'}) do entry[name] = tonumber(entry[name] or '0') end
    return entry
end

local function scopes_of(entry)
    local found = {'*'}
    for _, kind in ipairs({'api_key', 'collection', 'model'}) do
        if entry[kind] and entry[kind] ~= '' then table.insert(found, kind .. ':' .. entry[kind]) end
    end
    return found
end

local function takes(limit, scopes)
    for _, scope in ipairs(scopes) do
        if scope == limit.scope then return true end
    end
    return false
end

local function add(entry, opened, name, amount)
    if amount == 0 then return end
    for _, scope in ipairs(scopes_of(entry)) do
        for _, period in pairs(periods_at(opened)) do
            redis.call('HINCRBY', accounts, scope .. '|' .. period .. '|' .. name, text(amount))
        end
    end
end

local function refusal(entry, opened, amount)
    local scopes, periods = scopes_of(entry), periods_at(opened)
    for _, limit in ipairs(all_limits()) do
        if limit.hard and takes(limit, scopes) then
            local period = periods[limit.period]
            local left = tonumber(limit.nanousd) - account(limit.scope, period, 'spent')
                - account(limit.scope, period, 'held')
            if not amount or amount > left then
                return {'refused', limit.written, limit.name, period, text(math.max(0, left))}
            end
        end
    end
    return nil
end

local function more(id, name, amount)
    if amount ~= 0 then redis.call('HINCRBY', prefix .. id, name, text(amount)) end
end

local function finish(id, state, route)
    local entry = read(id)
    if entry.state ~= 'open' then
        if entry.state and (entry.route or '') == '' then redis.call('HSET', prefix .. id, 'route', route) end
        return
    end
    add(entry, entry.opened, 'held', -entry.reserved - entry.sent)
    add(entry, entry.opened, 'spent', entry.sent)
    more(id, 'spent', entry.sent)
    more(id, 'unsure', entry.sent)
    redis.call('HSET', prefix .. id, 'state', state, 'closed', stamp(now), 'reserved', '0', 'sent', '0', 'route', route)
    redis.call('ZREM', open, id)
end

local function expire()
    local dead = redis.call('ZRANGEBYSCORE', open, '-inf', '(' .. stamp(now))
    for _, id in ipairs(dead) do finish(id, 'expired', '') end
    return #dead
end

if op == 'reserve' then
    expire()
    local amount = tonumber(call.amount)
    local refused = refusal(call, now, amount)
    if refused then return refused end
    redis.call('HSET', prefix .. call.id, 'id', call.id, 'opened', stamp(now), 'state', 'open', 'model', call.model,
        'collection', call.collection, 'api_key', call.api_key, 'texts', call.texts, 'reserved', text(amount or 0),
        'unpriced', amount and '0' or '1')
    redis.call('ZADD', all, stamp(now), call.id)
    redis.call('ZADD', open, stamp(now + tonumber(call.lease_s)), call.id)
    add(call, now, 'held', amount or 0)
    return {'entry', call.id}
end

if op == 'send' then
    local entry = read(call.id)
    if entry.state ~= 'open' then return {'gone'} end
    local amount = tonumber(call.amount)
    local beyond = amount - entry.reserved
    if beyond > 0 then
        local refused = refusal(entry, entry.opened, beyond)
        if refused then return refused end
        add(entry, entry.opened, 'held', beyond)
    end
    redis.call('HSET', prefix .. call.id, 'reserved', text(math.max(0, -beyond)))
    more(call.id, 'sent', amount)
    return {'sent'}
end

if op == 'unsend' then
    local entry = read(call.id)
    local back = entry.sent - tonumber(call.still_sent)
    if entry.state == 'open' and back > 0 then
        more(call.id, 'sent', -back)
        more(call.id, 'reserved', back)
    end
    return {'unsent'}
end

if op == 'settle' then
    local entry = read(call.id)
    if not entry.state then return {'gone'} end
    local sent, cost, kind = tonumber(call.sent), tonumber(call.cost), call.kind
    -- What was under way when the entry ended is booked already, as unsure; now it is known what it cost.
    local booked = entry.state == 'open' and 0 or sent
    local over = sent - booked
    -- What is not billed can be spent by the next attempt of the same call; what cost more takes of its reservation.
    local back = kind == 'unbilled' and over or -math.min(entry.reserved, math.max(0, cost - over))
    more(call.id, 'sent', -over)
    more(call.id, 'reserved', back)
    more(call.id, 'spent', cost - booked)
    if kind == 'reported' or kind == 'estimated' then more(call.id, 'tokens', tonumber(call.tokens)) end
    if kind == 'estimated' then more(call.id, 'estimated', cost) end
    more(call.id, 'unsure', (kind == 'unsure' and cost or 0) - booked)
    add(entry, entry.opened, 'held', back - over)
    add(entry, entry.opened, 'spent', cost - booked)
    local found = {'settled'}
    if cost == 0 then return found end
    local scopes, periods = scopes_of(entry), periods_at(entry.opened)
    for _, limit in ipairs(all_limits()) do
        if takes(limit, scopes) then
            local period = periods[limit.period]
            local spent = account(limit.scope, period, 'spent')
            -- Of an amount: a limit that was raised warns anew.
            local key = limit.name .. '|' .. period .. '|' .. limit.nanousd
            local before = tonumber(redis.call('HGET', warned, key) or '0')
            local reached = nil
            for _, level in ipairs(limit.warn_at) do
                if level > before and spent > 0 and spent * 100 >= level * tonumber(limit.nanousd) then
                    reached = math.max(reached or 0, level)
                end
            end
            if reached then
                redis.call('HSET', warned, key, text(reached))
                table.insert(found, limit.written)
                table.insert(found, limit.name)
                table.insert(found, period)
                table.insert(found, text(reached))
                table.insert(found, text(spent))
            end
        end
    end
    return found
end

if op == 'close' then
    finish(call.id, 'done', call.route)
    return {'closed'}
end

if op == 'saved' then
    redis.call('HSET', prefix .. call.id, 'id', call.id, 'opened', stamp(now), 'closed', stamp(now), 'state', 'done',
        'model', call.model, 'route', 'cache', 'collection', call.collection, 'api_key', call.api_key,
        'texts', call.texts, 'hits', call.texts, 'tokens', call.tokens, 'saved', call.amount)
    redis.call('ZADD', all, stamp(now), call.id)
    add(call, now, 'saved', tonumber(call.amount))
    return {'saved'}
end

if op == 'renew' then
    for _, id in ipairs(call.ids) do
        redis.call('ZADD', open, 'XX', stamp(now + tonumber(call.lease_s)), id)
    end
    return {'renewed'}
end

if op == 'expire' then return {'expired', expire()} end

if op == 'set_limit' then
    local name = cjson.decode(call.limit).name
    redis.call('HSET', limits, name, call.limit)
    for _, field in ipairs(redis.call('HKEYS', warned)) do
        if string.sub(field, 1, #name + 1) == name .. '|' then redis.call('HDEL', warned, field) end
    end
    return {'set'}
end

if op == 'remove_limit' then return {'removed', redis.call('HDEL', limits, call.name)} end

if op == 'standings' then
    expire()
    local periods, found = periods_at(now), {'standings'}
    for _, limit in ipairs(all_limits()) do
        local period = periods[limit.period]
        for _, value in ipairs({limit.written, limit.name, period, text(account(limit.scope, period, 'spent')),
                text(account(limit.scope, period, 'held'))}) do
            table.insert(found, value)
        end
    end
    return found
end

if op == 'totals' then
    expire()
    local periods, found = periods_at(now), {'totals'}
    for _, kind in ipairs({'total', 'day', 'month'}) do
        table.insert(found, periods[kind])
        for _, name in ipairs({'spent', 'held', 'saved'}) do
            table.insert(found, text(account('*', periods[kind], name)))
        end
    end
    return found
end

if op == 'entries' then
    expire()
    local ids = redis.call('ZREVRANGEBYSCORE', all, '+inf', call.since, 'LIMIT', 0, tonumber(call.newest))
    local found = {'entries'}
    for _, id in ipairs(ids) do table.insert(found, redis.call('HGETALL', prefix .. id)) end
    return found
end

return redis.error_reply('unknown operation')
"""


class RedisLedger:
    """A server, or a cluster. `clock` gives seconds since 1970; without it the server's own time counts."""

    def __init__(self, url: str, *, cluster: bool = False, clock: Callable[[], float] | None = None) -> None:
        """Connects at its first use. Raises MissingExtraError without the library."""
        self._clock = clock
        self._client = redis_client(url, cluster=cluster, what="ledger.backend = 'redis'")

    async def reserve(
        self, purpose: Purpose, nanousd: int | None, limits: Sequence[Limit], *, lease_s: float, texts: int
    ) -> str | Refused:
        """See `Ledger.reserve`."""
        answer = await self._call(
            "reserve",
            id=uuid.uuid4().hex,
            amount=None if nanousd is None else str(nanousd),
            limits=_written(limits),
            lease_s=lease_s,
            texts=str(texts),
            **_purpose(purpose),
        )
        return _refused(answer) or str(answer[1])

    async def send(self, entry: str, nanousd: int, limits: Sequence[Limit]) -> Refused | None:
        """See `Ledger.send`."""
        answer = await self._call("send", id=entry, amount=str(nanousd), limits=_written(limits))
        if answer[0] == "gone":
            raise LedgerError(RAN_OUT)
        return _refused(answer)

    async def unsend(self, entry: str, still_sent: int) -> None:
        """See `Ledger.unsend`."""
        await self._call("unsend", id=entry, still_sent=str(still_sent))

    async def settle(self, entry: str, settlement: Settlement, limits: Sequence[Limit]) -> list[Crossing]:
        """See `Ledger.settle`."""
        answer = await self._call(
            "settle",
            id=entry,
            sent=str(settlement.sent),
            cost=str(settlement.cost),
            tokens=str(settlement.tokens),
            kind=settlement.kind,
            limits=_written(limits),
        )
        if answer[0] == "gone":
            raise LedgerError(f"the ledger has no entry {entry}: was the server emptied?")
        return [
            Crossing(_limit(written, name), period, int(level), int(spent))
            for written, name, period, level, spent in _groups(answer[1:], 5)
        ]

    async def close(self, entry: str, *, route: str = "") -> None:
        """See `Ledger.close`."""
        await self._call("close", id=entry, route=route)

    async def book_saved(self, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        """See `Ledger.book_saved`."""
        await self._call(
            "saved",
            id=uuid.uuid4().hex,
            amount=str(nanousd),
            texts=str(texts),
            tokens=str(tokens),
            **_purpose(purpose),
        )

    async def renew(self, entries: Sequence[str], lease_s: float) -> None:
        """See `Ledger.renew`."""
        await self._call("renew", ids=list(entries), lease_s=lease_s)

    async def expire(self) -> int:
        """See `Ledger.expire`."""
        return int((await self._call("expire"))[1])

    async def set_limit(self, limit: Limit) -> None:
        """See `Ledger.set_limit`."""
        await self._call("set_limit", limit=_written([limit])[0])

    async def remove_limit(self, name: str) -> bool:
        """See `Ledger.remove_limit`."""
        return bool((await self._call("remove_limit", name=name))[1])

    async def limits(self) -> list[Limit]:
        """See `Ledger.limits`."""
        return [standing.limit for standing in await self.standings()]

    async def standings(self, limits: Sequence[Limit] = ()) -> list[Standing]:
        """See `Ledger.standings`."""
        answer = await self._call("standings", limits=_written(limits))
        return [
            Standing(_limit(written, name), period, int(spent), int(held))
            for written, name, period, spent, held in _groups(answer[1:], 5)
        ]

    async def totals(self) -> list[Totals]:
        """See `Ledger.totals`."""
        answer = await self._call("totals")
        return [Totals(period, *map(int, numbers)) for period, *numbers in _groups(answer[1:], 4)]

    async def entries(self, *, newest: int | None = None, since: float | None = None) -> list[Entry]:
        """See `Ledger.entries`."""
        answer = await self._call("entries", since=str(since or 0.0), newest=-1 if newest is None else newest)
        return [_entry(dict(zip(fields[::2], fields[1::2], strict=True))) for fields in answer[1:]]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _call(self, operation: str, **call: Any) -> list[Any]:
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        call["now"] = None if self._clock is None else repr(self._clock())
        try:
            answer: list[Any] = await self._client.eval(_SCRIPT, len(_KEYS), *_KEYS, operation, json.dumps(call))
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            raise LedgerError(
                f"the ledger in Redis cannot be used: {type(error).__name__}; nothing is spent without it"
            ) from error
        return answer


def _written(limits: Sequence[Limit]) -> list[str]:
    return [
        json.dumps(
            {
                "name": limit.name,
                "nanousd": str(limit.nanousd),
                "scope": limit.scope,
                "period": limit.period,
                "hard": limit.hard,
                "warn_at": list(limit.warn_at),
            }
        )
        for limit in limits
    ]


def _limit(written: str, name: str) -> Limit:
    fields = json.loads(written)
    return Limit(
        name,
        int(fields["nanousd"]),
        fields["scope"],
        fields["period"],
        hard=fields["hard"],
        warn_at=tuple(fields["warn_at"]),
    )


def _refused(answer: Sequence[Any]) -> Refused | None:
    if answer[0] != "refused":
        return None
    _, written, name, period, left = answer
    return Refused(_limit(written, name), period, int(left))


def _purpose(purpose: Purpose) -> dict[str, str]:
    return {"model": purpose.model, "collection": purpose.collection, "api_key": purpose.api_key}


def _entry(fields: dict[str, str]) -> Entry:
    numbers = {name: int(fields.get(name, 0)) for name in _NUMBERS}
    return Entry(
        id=fields["id"],
        opened=float(fields["opened"]),
        closed=float(fields["closed"]) if "closed" in fields else None,
        state=fields["state"],  # type: ignore[arg-type]  # our own script wrote it
        model=fields["model"],
        route=fields.get("route", ""),
        collection=fields["collection"],
        api_key=fields["api_key"],
        unpriced=fields.get("unpriced") == "1",
        **numbers,
    )


_NUMBERS = ("texts", "hits", "tokens", "reserved", "sent", "spent", "estimated", "unsure", "saved")


def _groups(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[at : at + size] for at in range(0, len(values), size)]


def redis_client(url: str, *, cluster: bool, what: str) -> Any:
    """A client that tries nothing twice. Raises MissingExtraError, which says that `what` needs the library."""
    try:
        import redis.asyncio as redis  # noqa: PLC0415  an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError(what, extra="redis", package="redis") from None
    # No retries: a script may have run although its answer was lost, and a second run would book twice.
    options: dict[str, Any] = {
        "socket_connect_timeout": _CONNECT_S,
        "socket_timeout": _ANSWER_S,
        "decode_responses": True,
    }
    if cluster:
        return redis.RedisCluster.from_url(url, **options)
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
