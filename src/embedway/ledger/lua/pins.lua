-- One operation of the pins. ARGV: operation, collection, pin, claim, lease in seconds, and time. `check.lua` precedes
-- it.
local op, collection, given, claim = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lease_s, now = tonumber(ARGV[5]), tonumber(ARGV[6])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function held(name)
    local written = redis.call('HGET', KEYS[2], name)
    if not written then return nil, nil end
    local own = cjson.decode(written).claim
    if type(own) ~= 'string' then error('EMBEDWAYINVALID pin') end
    local ends = tonumber(redis.call('ZSCORE', KEYS[3], name) or '0')
    -- A claim that ends much later was written while the clock was ahead.
    if own ~= '' and (ends < now or ends > now + 86400) then return nil, nil end
    return written, own
end

local function keep(written)
    redis.call('HSET', KEYS[2], collection, written)
    redis.call('ZREM', KEYS[3], collection)
    return written
end

local written, own = held(collection)
if op == 'get' then return written end
if op == 'claim' then
    if written then return written end
    keep(given)
    redis.call('ZADD', KEYS[3], string.format('%.6f', now + lease_s), collection)
    return given
end
if op == 'confirm' then
    if own == '' then return written end
    return keep(given)
end
if op == 'learn' then
    if written ~= claim then return 0 end
    keep(given)
    return 1
end
if op == 'renew' then
    if own == claim then redis.call('ZADD', KEYS[3], string.format('%.6f', now + lease_s), collection) end
    return nil
end
if op == 'withdraw' or op == 'remove' then
    if op == 'withdraw' and own ~= claim then return 0 end
    redis.call('ZREM', KEYS[3], collection)
    local gone = redis.call('HDEL', KEYS[2], collection)
    return written and gone or 0
end
if op == 'all' then
    local found = {}
    for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
        local one = held(name)
        if one then
            table.insert(found, name)
            table.insert(found, one)
        end
    end
    return found
end
return redis.error_reply('unknown operation')
