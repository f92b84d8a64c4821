-- One operation of the records. ARGV: operation, kind, name, packed document, lease in seconds, time, clock slack in
-- seconds, an unused ID, and the maximum size of a document. `check.lua` precedes it.
local meta, records, changed, leases = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local op, kind, field = ARGV[1], ARGV[2], ARGV[2] .. '|' .. ARGV[3]
local lease_s, now, slack = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function stamp(number) return string.format('%.6f', number) end
-- A larger value is not sent: empty, it counts as damaged.
local function read(hash, one, most)
    return redis.call('HSTRLEN', hash, one) <= most and redis.call('HGET', hash, one) or ''
end
local function hex(text)
    return (string.gsub(text, '.', function(one) return string.format('%02x', string.byte(one)) end))
end

-- A ledger of version 1 has no ID. It is stamped now, and a stamped ledger without an ID would count as lost.
if (tonumber(stamped or '1') or 1) < 2 then redis.call('HSETNX', meta, 'id', ARGV[8]) end

if op == 'get' then
    if redis.call('HEXISTS', records, field) == 0 then return {} end
    return {read(records, field, tonumber(ARGV[9])), read(changed, field, 64)}
end
if op == 'put' then
    redis.call('HSET', records, field, ARGV[4])
    redis.call('HSET', changed, field, stamp(now))
    return stamp(now)
end
if op == 'remove' then
    redis.call('HDEL', changed, field)
    return redis.call('HDEL', records, field)
end
if op == 'names' then
    local found = {}
    for _, one in ipairs(redis.call('HKEYS', records)) do
        if string.sub(one, 1, #kind + 1) == kind .. '|' then
            table.insert(found, hex(string.sub(one, #kind + 2)))
            table.insert(found, hex(read(changed, one, 64)))
        end
    end
    return found
end
if op == 'end_lease' then return redis.call('HDEL', leases, field) end
if op == 'lease' then
    local taken, length = string.match(redis.call('HGET', leases, field) or '', '^([%d.]+) ([%d.]+)$')
    taken, length = tonumber(taken or ''), tonumber(length or '')
    -- A lease that begins in the future was taken while the clock was ahead.
    if taken and length and taken <= now + slack and now < taken + length then return 0 end
    redis.call('HSET', leases, field, stamp(now) .. ' ' .. stamp(lease_s))
    return 1
end
return redis.error_reply('unknown operation')
