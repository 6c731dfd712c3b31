#!lua flags=allow-oom
-- What an operator does to an item. ARGV: item, "drop" or "retry". Answer: 1, 0 when it is not there, -1 when it is under lease.
local item, what = ARGV[1], ARGV[2]
local facts = redis.call('HMGET', item, 'l', 'd')
-- A damaged item may have lost its next hop: it can be dropped still.
if not facts[1] or (what == 'retry' and not facts[2]) then
  return 0
end
if facts[1] ~= '' then
  return -1
end
if what == 'drop' then
  remove(item)
else
  redis.call('ZREM', DEAD, item)
  redis.call('HDEL', item, 'r')
  redis.call('HSET', item, 'x', '0')
  redis.call('HDEL', QUIET, facts[2])
  due_at(item, facts[2], now)
  schedule(facts[2])
end
return 1
