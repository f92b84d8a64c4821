"""Lua scripts that read and replace all keys of a part on a server, each in one step for everyone.

KEYS are the keys that there always are. ARGV: the most bytes, the most keys, the prefix of the ledger's keys or
nothing; for `PUT` also the digest of the content that is replaced, and the new content as JSON.
"""

_READ = """
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

-- A hash has its fields in any order.
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
"""
TAKE = f"""{_READ}
table.insert(found, 1, digest)
return found
"""
#: A script that fails midway keeps what it has done. So everything is decoded and checked before the first write, the
#: new values go to keys of their own, and only the complete set replaces the old keys.
PUT = f"""{_READ}
if digest ~= ARGV[4] then return redis.error_reply('EMBEDWAYCHANGED') end

local wanted, is_wanted = cjson.decode(ARGV[5]), {{}}
local holds_json = {{['{{embedway:ledger}}:limits'] = true, ['{{embedway:pins}}'] = true}}
for _, one in ipairs(wanted) do
    local key, kind, values = one[1], one[2], one[3]
    if (kind ~= 'hash' and kind ~= 'zset') or #values % 2 ~= 0 then return redis.error_reply('EMBEDWAYBAD') end
    for at = 1, #values, 2 do
        local value = values[at + 1]
        if kind == 'zset' and not (string.find(value, '^%d[%d.eE+-]*$') and tonumber(value)) then
            return redis.error_reply('EMBEDWAYBAD')
        end
        if key == '{{embedway:ledger}}:accounts' and not string.find(value, '^%d+$') then
            return redis.error_reply('EMBEDWAYBAD')
        end
        if holds_json[key] then cjson.decode(value) end
    end
    is_wanted[key] = #values > 0
end

local function beside(key) return key .. ':restoring' end

local function written(one)
    local key, kind, values = beside(one[1]), one[2], one[3]
    redis.call('DEL', key)
    for at = 1, #values, 2 do
        local answer
        if kind == 'hash' then answer = redis.pcall('HSET', key, values[at], values[at + 1]) end
        if kind == 'zset' then answer = redis.pcall('ZADD', key, values[at + 1], values[at]) end
        if type(answer) == 'table' and answer['err'] then return answer end
    end
end

local function without_rest(answer)
    for _, one in ipairs(wanted) do redis.call('DEL', beside(one[1])) end
    return answer
end

for _, one in ipairs(wanted) do
    local failed = written(one)
    if failed then return without_rest(failed) end
end
for key, is_there in pairs(is_wanted) do
    local answer = is_there and redis.pcall('RENAME', beside(key), key) or {{}}
    if answer['err'] then return without_rest(answer) end
end
for _, key in ipairs(keys) do
    if not is_wanted[key] and key ~= KEYS[1] then redis.call('DEL', key) end
end
return 'put'
"""
