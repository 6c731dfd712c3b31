#!lua flags=no-writes
-- Milliseconds until something can be claimed; -1: nothing waits.
local first = redis.call('ZRANGE', DESTINATIONS, 0, 0, 'WITHSCORES')
local lease = redis.call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
local at = math.min(first[2] and tonumber(first[2]) or math.huge, lease[2] and tonumber(lease[2]) or math.huge)
if at == math.huge then
  return -1
end
return math.max(0, at - now)
