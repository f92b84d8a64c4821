-- Replace all keys of a part. ARGV[4] is the digest of the replaced keys, ARGV[5] the new keys as JSON.
-- A script that fails midway is not rolled back. So everything is decoded and checked before the first write, the
-- new values go to separate keys, and only the complete set replaces the old keys.
if digest ~= ARGV[4] then return redis.error_reply('EMBEDWAYCHANGED') end

local wanted, is_wanted = cjson.decode(ARGV[5]), {}
local holds_json = {['{embedway:ledger}:limits'] = true, ['{embedway:pins}'] = true}
for _, one in ipairs(wanted) do
    local key, kind, values = one[1], one[2], one[3]
    if (kind ~= 'hash' and kind ~= 'zset') or #values % 2 ~= 0 then return redis.error_reply('EMBEDWAYBAD') end
    for at = 1, #values, 2 do
        local value = values[at + 1]
        if kind == 'zset' and not (string.find(value, '^%d[%d.eE+-]*$') and tonumber(value)) then
            return redis.error_reply('EMBEDWAYBAD')
        end
        if key == '{embedway:ledger}:accounts' and not string.find(value, '^%d+$') then
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
    local answer = is_there and redis.pcall('RENAME', beside(key), key) or {}
    if answer['err'] then return without_rest(answer) end
end
for _, key in ipairs(keys) do
    if not is_wanted[key] and key ~= KEYS[1] then redis.call('DEL', key) end
end
return 'put'
