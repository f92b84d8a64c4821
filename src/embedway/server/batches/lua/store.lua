-- One operation of the files and batches. KEYS[1] is the stamp. ARGV: operation, prefix of all keys, time or nothing,
-- then its own arguments. `check.lua` precedes it.
local op, prefix, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function key(...) return prefix .. table.concat({...}, ':') end
local function number(value) return string.format('%.6f', value) end
local a, b, c, d, e, f = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local due, sizes, owners, usage = key('due'), key('sizes'), key('owners'), key('usage')
local open, reading = key('open'), key('reading')

-- A content counts for its tenant until it is deleted.
local function drop(id)
    local size, owner = tonumber(redis.call('HGET', sizes, id) or ''), redis.call('HGET', owners, id)
    if size and owner then redis.call('HINCRBY', usage, owner, -size) end
    redis.call('HDEL', sizes, id)
    redis.call('HDEL', owners, id)
    redis.call('UNLINK', key('content', id), key('segments', id))
    redis.call('ZREM', due, id)
end
local function remove(id)
    local item = redis.call('HMGET', key('item', id), 'kind', 'tenant')
    if item[1] and item[2] then redis.call('ZREM', key('list', item[1], item[2]), id) end
    redis.call('UNLINK', key('item', id))
    drop(id)
end
local function add(kind, tenant, id, document, created, ends)
    redis.call('HSET', key('item', id), 'kind', kind, 'tenant', tenant, 'document', document, 'version', 1)
    redis.call('ZADD', key('list', kind, tenant), created, id)
    if ends ~= '' then redis.call('ZADD', due, ends, id) end
end
local function in_use(id) return (tonumber(redis.call('HGET', reading, id) or '0') or 0) > 0 end
local function get(kind, tenant, id)
    local item = redis.call('HMGET', key('item', id), 'kind', 'tenant', 'document', 'version')
    if item[1] ~= kind or item[2] ~= tenant then return nil end
    local ends = tonumber(redis.call('ZSCORE', due, id) or '')
    if kind == 'file' and ends and ends <= now then return nil end
    return item
end

if op == 'now' then return number(now) end
if op == 'put' then
    -- a: file, b: tenant, c: end, d: most bytes or nothing; then segment:number and data by turns
    local bytes = 0
    for i = 9, #ARGV, 2 do bytes = bytes + #ARGV[i] end
    if d ~= '' and (tonumber(redis.call('HGET', usage, b) or '0') or 0) + bytes > tonumber(d) then return 0 end
    for i = 8, #ARGV, 2 do
        local before = redis.call('HSTRLEN', key('content', a), ARGV[i])
        redis.call('HSET', key('content', a), ARGV[i], ARGV[i + 1])
        bytes = bytes - before
    end
    redis.call('HINCRBY', sizes, a, bytes)
    redis.call('HSET', owners, a, b)
    redis.call('HINCRBY', usage, b, bytes)
    redis.call('ZADD', due, c, a)
    return 1
end
if op == 'chunk' then return redis.call('HGET', key('content', a), b) end
if op == 'segments' then return redis.call('HGETALL', key('segments', a)) end
if op == 'drop' then
    drop(a)
    return 1
end
if op == 'used' then return redis.call('HGET', usage, a) or '0' end
if op == 'add_file' then
    -- a: ID, b: tenant, c: document, d: created, e: end, f: most; then its size, and positions and segments by turns
    if redis.call('ZCARD', key('list', 'file', b)) >= tonumber(f) then return 0 end
    if tonumber(redis.call('HGET', sizes, a) or '0') ~= tonumber(ARGV[10]) then return -1 end
    for i = 11, #ARGV, 2 do redis.call('HSET', key('segments', a), ARGV[i], ARGV[i + 1]) end
    add('file', b, a, c, d, e)
    return 1
end
if op == 'get' then
    local item = get(a, b, c)
    return item and {item[3], item[4], number(now)} or {}
end
if op == 'list' then
    -- a: kind, b: tenant, c: after or nothing, d: limit, e: 1 for ascending
    local list, ascending = key('list', a, b), e == '1'
    local from = 0
    if c ~= '' then
        local rank = redis.call(ascending and 'ZRANK' or 'ZREVRANK', list, c)
        if not rank then return redis.status_reply('NOAFTER') end
        from = rank + 1
    end
    local found = {}
    for _, id in ipairs(redis.call(ascending and 'ZRANGE' or 'ZREVRANGE', list, from, from + tonumber(d) - 1)) do
        local item = get(a, b, id)
        table.insert(found, id)
        table.insert(found, item and item[3] or '')
    end
    return found
end
if op == 'delete_file' then
    if not get('file', a, b) then return 'missing' end
    if in_use(b) then return 'in use' end
    remove(b)
    return 'deleted'
end
if op == 'add_batch' then
    -- a: ID, b: tenant, c: document, d: created, e: input file, f: most
    if not get('file', b, e) then return 'no file' end
    if redis.call('ZCARD', key('list', 'batch', b)) >= tonumber(f) then return 'too many' end
    add('batch', b, a, c, d, '')
    redis.call('HSET', open, a, b)
    redis.call('HINCRBY', reading, e, 1)
    return 'added'
end
if op == 'change' then
    -- a: ID, b: version, c: document, d: end or nothing while it is open, e: input file, f: number of segments; then
    -- file, position and segment of each, and ID, tenant, document, created and end of each file
    if redis.call('HGET', key('item', a), 'version') ~= b then return 0 end
    local last = 9 + 3 * tonumber(f)
    for i = 10, last, 3 do redis.call('HSET', key('segments', ARGV[i]), ARGV[i + 1], ARGV[i + 2]) end
    for i = last + 1, #ARGV, 5 do add('file', ARGV[i + 1], ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) end
    redis.call('HSET', key('item', a), 'document', c, 'version', string.format('%d', tonumber(b) + 1))
    if d ~= '' then
        redis.call('ZADD', due, d, a)
        if redis.call('HDEL', open, a) == 1 and redis.call('HINCRBY', reading, e, -1) <= 0 then
            redis.call('HDEL', reading, e)
        end
    end
    return 1
end
if op == 'open' then return redis.call('HGETALL', open) end
if op == 'sweep' then
    local count = 0
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', number(now), 'LIMIT', 0, a)) do
        if in_use(id) then
            redis.call('ZADD', due, number(now + 3600), id)
        else
            remove(id)
        end
        count = count + 1
    end
    return count
end
return redis.error_reply('unknown operation')
