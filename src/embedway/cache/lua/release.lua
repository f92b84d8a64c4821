-- Give leases back. KEYS: the leases. ARGV: their holder.
-- Only who holds a lease gives it back: it may have run out and be another's.
for _, name in ipairs(KEYS) do
    if redis.call('get', name) == ARGV[1] then redis.call('del', name) end
end
return 1
