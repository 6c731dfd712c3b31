#!lua
-- Put items in, all or none. Idempotent: what is there, or was within the last minutes, stays as it is.
-- ARGV: lease ("" none), seconds of it, seconds until due, seconds to keep the ledger's marks, most octets held, reason (dead letters,
-- "" none), items.
-- Answer: 1, or 0 when they do not fit.
local lease, seconds, delay, keep, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local dead = ARGV[6]
local bodies, items = read_items(7)
local more, fresh = 0, {}
for _, one in ipairs(items) do
  if not is_known(one.name) then
    fresh[#fresh + 1] = one
    more = more + #one.head
    one.body.wanted = true
  end
end
for _, body in ipairs(bodies) do
  if body.wanted and redis.call('EXISTS', body.name) == 0 then
    more = more + #body.octets
  end
end
if more > 0 and number(redis.call('HGET', SIZES, 'octets')) + more > most then
  return 0
end
for _, one in ipairs(fresh) do
  add(one, keep)
  if dead ~= '' then
    bury(one.name, dead, '')
  elseif lease ~= '' then
    lease_out(one.name, one.destination, lease, seconds)
  else
    wait_until(one.name, one.destination, now + delay * 1000)
    schedule(one.destination)
  end
end
return 1
