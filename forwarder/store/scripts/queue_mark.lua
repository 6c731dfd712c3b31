#!lua flags=allow-oom
-- The final dot is about to leave. KEYS: the tag, then what is told to be under way (see claim.lua). ARGV: item, lease, seconds to
-- tell it. Answer: 1, or 0 when the lease is not ours.
if redis.call('HGET', ARGV[1], 'l') ~= ARGV[2] then
  return 0
end
if redis.call('HGET', ARGV[1], 'y') ~= ARGV[2] then
  -- Once a lease: an attempt may be at the dot with one host after the other.
  add_to(ARGV[1], 'x', 1)
  redis.call('HSET', ARGV[1], 'y', ARGV[2])
end
tell(ARGV[3])
return 1
