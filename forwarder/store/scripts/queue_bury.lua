-- A dead letter: kept, and nobody's turn. ARGV: item, lease, reason. Answer: 1, or 0 when the lease is not ours.
local item, lease = ARGV[1], ARGV[2]
local facts = redis.call('HMGET', item, 'l', 'd')
if facts[1] ~= lease or lease == '' then
  return 0
end
lease_in(item, facts[2])
redis.call('HSET', item, 'r', ARGV[3])
redis.call('ZADD', DEAD, string.format('%.0f', now), item)
schedule(facts[2])
return 1
