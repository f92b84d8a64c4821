-- Start of every script. `known` is the newest version that the caller supports, and KEYS[1] is the stamp. A newer
-- version is an error. Keys without a stamp, written by version 1, are stamped.
local stamped = redis.call('GET', KEYS[1])
if stamped and not (tonumber(stamped) and tonumber(stamped) <= known) then
    return redis.error_reply('EMBEDWAYFORMAT ' .. string.sub(string.gsub(stamped, '%W', '_'), 1, 20))
end
if stamped ~= tostring(known) then redis.call('SET', KEYS[1], known) end
