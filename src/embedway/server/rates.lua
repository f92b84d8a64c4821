-- One operation of the limits per minute of a key. KEYS[1] has the times at which its buckets are full. ARGV: operation,
-- requests, tokens, the seconds in which a bucket fills by one of each, the seconds of a minute, and a time for tests.
local op, requests, tokens = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local per_request, per_token, minute = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(ARGV[7])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local stored = redis.call('HMGET', KEYS[1], 'requests', 'tokens')
local function after(place, amount, interval)
    return math.max(tonumber(stored[place] or '') or 0, now) + amount * interval
end
local requests_full, tokens_full = after(1, requests, per_request), after(2, tokens, per_token)

if op == 'take' then
    if math.max(requests * per_request, tokens * per_token) > minute * (1 + 1e-9) then return 'inf' end
    local wait = math.max(requests_full, tokens_full) - minute - now
    -- Less than a microsecond is a rounding error.
    if wait > 1e-6 then return string.format('%.6f', wait) end
end
redis.call('HSET', KEYS[1], 'requests', string.format('%.6f', requests_full), 'tokens', string.format('%.6f', tokens_full))
redis.call('PEXPIRE', KEYS[1], math.ceil(math.max(requests_full, tokens_full, now) * 1000 - now * 1000) + 1000)
return '0'
