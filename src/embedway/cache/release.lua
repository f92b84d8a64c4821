-- Release the leases that ARGV[1] holds. One that ran out may be another holder's by now.
for _, name in ipairs(KEYS) do
    if redis.call('get', name) == ARGV[1] then redis.call('del', name) end
end
return 1
