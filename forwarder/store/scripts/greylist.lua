#!lua
-- Has this client come back? Answer: microseconds until it may (0: now).
-- KEYS: the mark of a network that has come back once, then one a recipient. ARGV: microseconds to wait; seconds in which it must
-- come back; seconds for which a network is known then.
-- Idempotent but for the clock: the first time counts, whoever asks again. What is unreadable is as if it had not been there.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('SET', KEYS[1], '\1', 'EX', ARGV[3])
  return 0
end
local clock = redis.call('TIME')
local now, delay, longest = tonumber(clock[1]) * 1000000 + tonumber(clock[2]), tonumber(ARGV[1]), 0
for i = 2, #KEYS do
  local had = redis.pcall('GET', KEYS[i])
  local digits = type(had) == 'string' and #had < 18 and string.match(had, '^\1(%d+)$')
  local first = digits and tonumber(digits)
  -- A clock that was put back keeps nobody waiting for longer than a new client waits.
  if not first or first > now then
    first = now
    redis.call('SET', KEYS[i], '\1' .. string.format('%.0f', now), 'EX', ARGV[2])
  end
  longest = math.max(longest, first + delay - now)
end
if longest == 0 then
  redis.call('SET', KEYS[1], '\1', 'EX', ARGV[3])
end
return longest
