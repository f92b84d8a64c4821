-- One operation of the ledger. ARGV: its name, and its arguments as JSON. `check.lua` precedes it.
local open, all, accounts, limits, warned, meta = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local op, call = ARGV[1], cjson.decode(ARGV[2])
local prefix = '{embedway:ledger}:entry:'

local now = tonumber(call.now)
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- The ledger's ID and its number of changes: the caller has seen them before, unless it was replaced. A restored ledger
-- names those that it replaced.
local id, changes = redis.call('HGET', meta, 'id'), tonumber(redis.call('HGET', meta, 'changes') or '0')
if not changes then return redis.error_reply('EMBEDWAYINVALID changes') end
local before = ' ' .. (redis.call('HGET', meta, 'before') or '') .. ' '
if call.seen ~= '' then
    if id == call.seen then
        if changes < tonumber(call.changes) then return redis.error_reply('EMBEDWAYREPLACED older') end
    elseif not id or not string.find(before, ' ' .. call.seen .. ' ', 1, true) then
        return redis.error_reply('EMBEDWAYREPLACED other')
    end
end

-- A server whose maxmemory-policy deletes any key may delete spending or limits. What exists is recorded after each
-- change, so a missing key is detected, and nothing is reserved or sent until that is confirmed.
local function existing()
    return redis.call('EXISTS', accounts) .. redis.call('EXISTS', limits)
end
local recorded = redis.call('HGET', meta, 'existing') or '00'
local current = existing()
local is_lost = (string.sub(recorded, 1, 1) == '1' and string.sub(current, 1, 1) == '0')
    or (string.sub(recorded, 2, 2) == '1' and string.sub(current, 2, 2) == '0')
    or (not id and string.find(current, '1', 1, true) and (tonumber(stamped or '1') or 1) >= 2)
if is_lost then redis.call('HSET', meta, 'lost', '1') end
if (op == 'reserve' or op == 'send') and redis.call('HEXISTS', meta, 'lost') == 1 then
    return redis.error_reply('EMBEDWAYLOST')
end

local function text(number) return string.format('%.0f', number) end
local function stamp(number) return string.format('%.6f', number) end

local function day_of(seconds)
    -- Convert days since 1970 to the civil calendar, in eras of 400 years that start in March.
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

-- Amounts have digits only: `tonumber` also accepts signs and 'nan', with which no limit would refuse anything.
local function amount_of(value)
    if type(value) ~= 'string' or #value > 18 or not string.find(value, '^%d+$') then
        error('EMBEDWAYINVALID amount')
    end
    return tonumber(value)
end

local function account(scope, period, name)
    return amount_of(redis.call('HGET', accounts, scope .. '|' .. period .. '|' .. name) or '0')
end

local function checked(limit)
    amount_of(limit.nanousd)
    local known = limit.period == 'total' or limit.period == 'day' or limit.period == 'month'
    if not known or type(limit.name) ~= 'string' or type(limit.scope) ~= 'string' or type(limit.hard) ~= 'boolean'
        or type(limit.warn_at) ~= 'table' then
        error('EMBEDWAYINVALID limit')
    end
    return limit
end

local function all_limits()
    local found, names = {}, {}
    for _, written in ipairs(redis.call('HVALS', limits)) do
        local limit = checked(cjson.decode(written))
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
    if not entry.state then return entry end
    for _, name in ipairs({'reserved', 'sent', 'unsure'}) do entry[name] = amount_of(entry[name] or '0') end
    if not string.find(entry.opened or '', '^%d+%.?%d*$') then error('EMBEDWAYINVALID time') end
    entry.opened = tonumber(entry.opened)
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
    local periods = periods_at(opened)
    for _, scope in ipairs(scopes_of(entry)) do
        for _, period in pairs(periods) do
            redis.call('HINCRBY', accounts, scope .. '|' .. period .. '|' .. name, text(amount))
        end
    end
end

local function refusal(entry, opened, amount)
    local scopes, periods = scopes_of(entry), periods_at(opened)
    local restored = redis.call('HGET', meta, 'restored') or ''
    for _, limit in ipairs(all_limits()) do
        if limit.hard and takes(limit, scopes) then
            local period = periods[limit.period]
            local left = tonumber(limit.nanousd) - account(limit.scope, period, 'spent')
                - account(limit.scope, period, 'held')
            if restored ~= '' or not amount or amount > left then
                return {'refused', limit.written, limit.name, period, text(math.max(0, left)), restored}
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

local function operate()
    if op == 'reserve' then
        expire()
        local amount, sent = tonumber(call.amount), tonumber(call.sent)
        local held = math.max(amount or 0, sent)
        local refused = refusal(call, now, amount and held)
        if refused then return refused end
        redis.call('HSET', prefix .. call.id, 'id', call.id, 'opened', stamp(now), 'state', 'open', 'model', call.model,
            'collection', call.collection, 'api_key', call.api_key, 'texts', call.texts, 'reserved', text(held - sent),
            'sent', text(sent), 'unpriced', amount and '0' or '1')
        redis.call('ZADD', all, stamp(now), call.id)
        redis.call('ZADD', open, stamp(now + tonumber(call.lease_s)), call.id)
        add(call, now, 'held', held)
        return {'entry', call.id}
    end

    if op == 'send' then
        local entry = read(call.id)
        if entry.state ~= 'open' then return {'gone'} end
        local amount = tonumber(call.amount)
        local beyond = math.max(0, amount - entry.reserved)
        -- A restored ledger lacks later spending, so even reserved amounts may already be spent.
        if beyond > 0 or redis.call('HEXISTS', meta, 'restored') == 1 then
            local refused = refusal(entry, entry.opened, beyond)
            if refused then return refused end
            add(entry, entry.opened, 'held', beyond)
        end
        redis.call('HSET', prefix .. call.id, 'reserved', text(math.max(0, entry.reserved - amount)))
        more(call.id, 'sent', amount)
        return {'sent'}
    end

    if op == 'revert_send' then
        local entry = read(call.id)
        local back = (entry.sent or 0) - tonumber(call.still_sent)
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
        -- Amounts under way when the entry ended are already booked as unsure; now the actual cost is known.
        -- A restored ledger may contain less than was sent: at most what it contains is reverted.
        local booked = entry.state == 'open' and 0 or math.min(sent, entry.unsure)
        local over = entry.state == 'open' and math.min(sent, entry.sent) or 0
        -- An unbilled amount is available to the next attempt of the call; a higher cost is taken from its reservation.
        local back = kind == 'unbilled' and over or -math.min(entry.reserved, math.max(0, cost - over))
        more(call.id, 'sent', -over)
        more(call.id, 'reserved', back)
        more(call.id, 'spent', cost - booked)
        if kind == 'reported' or kind == 'estimated' then more(call.id, 'tokens', tonumber(call.tokens)) end
        if kind == 'estimated' then more(call.id, 'estimated', cost) end
        more(call.id, 'unsure', (kind == 'unsure' and cost or 0) - booked)
        add(entry, entry.opened, 'held', back - over)
        add(entry, entry.opened, 'spent', cost - booked)
        if call.last_route then finish(call.id, 'done', call.last_route) end
        local found = {'settled'}
        if cost == 0 then return found end
        local scopes, periods = scopes_of(entry), periods_at(entry.opened)
        for _, limit in ipairs(all_limits()) do
            if takes(limit, scopes) then
                local period = periods[limit.period]
                local spent = account(limit.scope, period, 'spent')
                -- The amount is part of the key: a raised limit warns again.
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

    if op == 'restored' then return {'restored', redis.call('HGET', meta, 'restored') or ''} end

    if op == 'confirm' then
        local restored = redis.call('HGET', meta, 'restored') or ''
        redis.call('HDEL', meta, 'restored', 'lost')
        return {'confirmed', restored}
    end

    return redis.error_reply('unknown operation')
end

if not id then
    id = call.new
    redis.call('HSET', meta, 'id', id)
end
local longest = tonumber(redis.call('HGET', meta, 'lease_s') or '0') or 0
local lease_s = tonumber(call.lease_s)
if lease_s and lease_s > longest then
    longest = lease_s
    redis.call('HSET', meta, 'lease_s', stamp(longest))
end

-- A server's clock may jump. All open leases then restart: living processes renew theirs, and the others expire once
-- more. `expected` is the time of the caller's last answer, and the time since then by its monotonic clock.
local expected = tonumber(call.expected)
local restarted = tonumber(redis.call('HGET', meta, 'restarted') or '0') or 0
-- Once for each jump: not if another caller saw it since the last answer to this one.
local jumped = expected and math.abs(now - expected) > 5 and restarted <= tonumber(call.changes)
local wrong = jumped and '-inf' or '(' .. stamp(now + longest + 5)
-- A lease that still ends where it restarted was not renewed, and does not restart again.
local last = redis.call('HGET', meta, 'until') or ''
local ends = redis.call('ZRANGEBYSCORE', open, wrong, '+inf', 'WITHSCORES')
for at = 1, #ends, 2 do
    local until_ = tonumber(ends[at + 1])
    if stamp(until_) ~= last or until_ > now + longest + 5 then
        redis.call('ZADD', open, stamp(now + longest), ends[at])
    end
end
if jumped then redis.call('HSET', meta, 'restarted', text(changes + 1), 'until', stamp(now + longest)) end

local answer = operate()
if answer.err then return answer end
local reads = {standings = true, totals = true, entries = true, restored = true}
if not reads[op] then
    changes = redis.call('HINCRBY', meta, 'changes', 1)
    local now_existing = existing()
    if now_existing ~= recorded then redis.call('HSET', meta, 'existing', now_existing) end
end
return {id, changes, stamp(now), answer}
