#!lua flags=allow-oom
-- Attempts go on. ARGV: lease, seconds of it from now, items. Idempotent.
local lease, seconds = ARGV[1], tonumber(ARGV[2])
for i = 3, #ARGV do
  if redis.call('HGET', ARGV[i], 'l') == lease then
    redis.call('ZADD', LEASES, 'XX', string.format('%.0f', now + seconds * 1000), ARGV[i])
  end
end
return 1
