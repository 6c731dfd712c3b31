#!lua flags=allow-oom
-- Leave a next hop alone for a while. ARGV: next hop, seconds (0: no longer).
local destination, seconds = ARGV[1], tonumber(ARGV[2])
if seconds > 0 and redis.call('EXISTS', destination) == 1 then
  redis.call('HSET', QUIET, destination, string.format('%.0f', now + seconds * 1000))
else
  redis.call('HDEL', QUIET, destination)
end
schedule(destination)
return 1
