-- The start of every script. `known` is the newest version that the caller knows, and KEYS[1] holds the stamp: a newer
-- version is refused, and keys without a stamp, which version 1 wrote, are stamped.
local stamped = redis.call('GET', KEYS[1])
if stamped and not (tonumber(stamped) and tonumber(stamped) <= known) then
    return redis.error_reply('EMBEDWAYFORMAT ' .. string.sub(string.gsub(stamped, '%W', '_'), 1, 20))
end
if stamped ~= tostring(known) then redis.call('SET', KEYS[1], known) end
