#!lua
-- Put in an item that was carried here, as it was. Idempotent: what is there, or was within the last minutes, stays as it is.
-- ARGV: seconds until due, seconds to keep the ledger's marks, most octets held, under how many leases a dot was marked, why it is
-- dead ("": it is not), seconds since then, "1" on hold, "1" given up, the item.
-- Answer: "done", "known", or "full" when it does not fit.
local delay, keep, most, dots = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local reason, died, on_hold, given_up = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local _, items = read_items(9)
local one = items[1]
if is_known(one.name) then
  return 'known'
end
local more = #one.head + (redis.call('EXISTS', one.body.name) == 0 and #one.body.octets or 0)
if number(redis.call('HGET', SIZES, 'octets')) + more > most then
  return 'full'
end
if given_up == '1' then
  one.destination = GIVEN_UP
end
add(one, keep)
redis.call('DEL', carried_away(one.name))
redis.call('HSET', one.name, 'x', dots)
if given_up == '1' then
  redis.call('HSET', one.name, 'g', '1')
end
if on_hold == '1' then
  redis.call('HSET', one.name, 'p', '1')
end
if reason ~= '' then
  bury(one.name, reason, '')
  redis.call('ZADD', DEAD, string.format('%.0f', now - died * 1000), one.name)
end
due_at(one.name, one.destination, now + delay * 1000)
schedule(one.destination)
return 'done'
