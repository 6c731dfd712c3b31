#!lua flags=allow-oom
-- What an operator does to an item. ARGV: item, "drop", "retry", "hold", "release" or "return" (give it up: it goes back to its
-- sender), and a name for this doing. Idempotent by that.
-- Answer: "done", "missing", "busy" (under lease), "later" (it will be on hold when its lease ends), "dead", "held" (it is on hold)
-- or "free" (it is not).
local item, what, operation = ARGV[1], ARGV[2], ARGV[3]
local facts = redis.call('HMGET', item, 'l', 'd', 'r', 'p')
local leased = facts[1] and facts[1] ~= ''
if was_done_by(item, operation) then
  return what == 'hold' and leased and 'later' or 'done'
end
-- A damaged item may have lost its next hop: it can be dropped still.
local destination = ours(facts[2])
if not facts[1] or (what ~= 'drop' and not destination) then
  return 'missing'
end
if what == 'hold' or what == 'release' then
  if facts[3] then
    return 'dead'
  end
  if (what == 'release') ~= (facts[4] ~= false) then
    return facts[4] and 'held' or 'free'
  end
elseif leased then
  return 'busy'
elseif what == 'retry' and facts[4] then
  return 'held'
end

if what == 'drop' then
  remove(item, operation)
  return 'done'
end
redis.call('HSET', item, 's', operation)
if what == 'hold' then
  redis.call('HSET', item, 'p', '1')
  redis.call('ZREM', destination, item)
  schedule(destination)
  return leased and 'later' or 'done'
end
redis.call('HDEL', item, 'p')
if what == 'release' then
  if not leased then
    due_at(item, destination, now)
    schedule(destination)
  end
  return 'done'
end
redis.call('ZREM', DEAD, item)
redis.call('HDEL', item, 'r')
redis.call('HSET', item, 'x', '0')
if what == 'return' then
  redis.call('ZREM', destination, item)
  schedule(destination)
  destination = GIVEN_UP
  redis.call('HSET', item, 'g', '1', 'd', destination)
end
redis.call('HDEL', QUIET, destination)
due_at(item, destination, now)
schedule(destination)
return 'done'
