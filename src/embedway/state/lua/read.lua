-- Read all keys of a part, and compute their digest. ARGV: the maximum bytes, the maximum keys, and the prefix of the
-- ledger's keys, empty for pins.
local function read(keys)
    local found, bytes = {}, 0
    for _, key in ipairs(keys) do
        local kind, values = redis.call('TYPE', key)['ok'], nil
        if kind == 'string' then values = {redis.call('GET', key)} end
        if kind == 'hash' then values = redis.call('HGETALL', key) end
        if kind == 'zset' then values = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
        if values then
            table.insert(found, {key, kind, values})
            bytes = bytes + #key
            for _, value in ipairs(values) do bytes = bytes + #value end
        end
        if bytes > tonumber(ARGV[1]) then return nil end
    end
    return found
end

local function keys_of_all()
    local keys = {}
    for _, key in ipairs(KEYS) do table.insert(keys, key) end
    if ARGV[3] ~= '' then
        for _, id in ipairs(redis.call('ZRANGE', ARGV[3] .. 'all', 0, -1)) do
            table.insert(keys, ARGV[3] .. 'entry:' .. id)
        end
    end
    return keys
end

local keys = keys_of_all()
if #keys > tonumber(ARGV[2]) then return redis.error_reply('EMBEDWAYTOOMUCH') end
local found = read(keys)
if not found then return redis.error_reply('EMBEDWAYTOOMUCH') end

-- The order of fields in a hash is undefined.
local parts = {}
for _, one in ipairs(found) do
    local pairs_of = {}
    for at = 1, #one[3], 2 do
        local other = one[3][at + 1] or ''
        table.insert(pairs_of, #one[3][at] .. ':' .. one[3][at] .. #other .. ':' .. other)
    end
    table.sort(pairs_of)
    table.insert(parts, #one[1] .. ':' .. one[1] .. one[2] .. redis.sha1hex(table.concat(pairs_of)))
end
local digest = redis.sha1hex(table.concat(parts))
