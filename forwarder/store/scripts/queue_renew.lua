#!lua flags=allow-oom
-- Attempts go on. KEYS: the tag, then what is told to be under way. ARGV: lease, seconds of it from now, seconds to tell it, items.
-- Idempotent.
local lease, seconds = ARGV[1], tonumber(ARGV[2])
local is_ours = false
for i = 4, #ARGV do
  if redis.call('HGET', ARGV[i], 'l') == lease then
    is_ours = true
    redis.call('ZADD', LEASES, 'XX', string.format('%.0f', now + seconds * 1000), ARGV[i])
  end
end
if is_ours then
  tell(ARGV[3])
end
return 1
