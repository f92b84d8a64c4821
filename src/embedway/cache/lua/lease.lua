-- Take leases. KEYS: the leases. ARGV: their holder, how long they last, and the longest lease, in milliseconds.
-- A lease that the caller holds already begins anew. No version sets one that runs out later than ARGV[3] or never.
local granted = {}
for number, name in ipairs(KEYS) do
    local holder = redis.call('get', name)
    local left = holder and redis.call('pttl', name)
    if holder and holder ~= ARGV[1] and left >= 0 and left <= tonumber(ARGV[3]) then
        granted[number] = 0
    else
        redis.call('set', name, ARGV[1], 'PX', ARGV[2])
        granted[number] = 1
    end
end
return granted
