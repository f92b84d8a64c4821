-- Release the leases of holder ARGV[1]. An expired lease may belong to another holder by now.
for _, name in ipairs(KEYS) do
    if redis.call('get', name) == ARGV[1] then redis.call('del', name) end
end
return 1
