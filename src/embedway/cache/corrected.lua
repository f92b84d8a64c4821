-- Correct a count by what was measured: ARGV[1] is its value before, ARGV[2] the bytes that are left. What others added
-- meanwhile stays counted. Returns the count; 0 if it was reset meanwhile, and so is measured again.
local count = tonumber(redis.call('get', KEYS[1]) or 0)
-- Deleted first: a full server refuses a script whose first change needs memory.
redis.call('del', KEYS[1])
if not count or count < tonumber(ARGV[1]) then return 0 end
count = count - tonumber(ARGV[1]) + tonumber(ARGV[2])
redis.call('set', KEYS[1], string.format('%.0f', count))
return count
