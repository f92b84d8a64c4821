-- Lease keys to ARGV[1] for ARGV[2] milliseconds. Returns 1 for each granted key, 0 for a key of another holder.
-- A lease that the caller already holds restarts. A lease that never expires, or expires later than ARGV[3]
-- milliseconds from now, is not ours: no version writes one.
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
