#!lua flags=allow-oom
-- The final dot is about to leave. ARGV: item, lease. Answer: 1, or 0 when the lease is not ours.
if redis.call('HGET', ARGV[1], 'l') ~= ARGV[2] then
  return 0
end
redis.call('HSET', ARGV[1], 'x', '1')
return 1
