#!lua flags=allow-oom
-- Give what is due to a lease: next hops in turn, one item of each a round.
-- ARGV: lease, seconds of it, most items, most of one next hop under lease, most octets, seconds that the dead are kept.
-- Answer: for each item its name, record, head, body, and under how many leases
-- since it was settled last a final dot was marked.
-- A lease that is given twice (a lost answer) leaves the items with it; they come back when it ends.
local lease, seconds, limit, each = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local most, buried = tonumber(ARGV[5]), tonumber(ARGV[6]) * 1000

for _, item in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 200)) do
  local destination = lease_in(item)
  if destination then
    due_at(item, destination, now)
    schedule(destination)
  end
end
for _, item in ipairs(redis.call('ZRANGEBYSCORE', DEAD, '-inf', now - buried, 'LIMIT', 0, 10)) do
  remove(item)
end

local answer, octets = {}, 0
local looked = true
while looked and #answer < limit and octets < most do
  looked = false
  for _, destination in ipairs(redis.call('ZRANGEBYSCORE', DESTINATIONS, '-inf', now, 'LIMIT', 0, limit)) do
    if #answer >= limit or octets >= most then
      break
    end
    -- Whichever way it goes, this next hop is behind the others now, so that a round ends.
    looked = true
    local item = redis.call('ZRANGEBYSCORE', destination, '-inf', now, 'LIMIT', 0, 1)[1]
    if tonumber(redis.call('HGET', COUNTS, destination) or '0') >= each then
      -- Looked at again when one of its leases ends, or in a second.
      schedule(destination, now + 1000)
    elseif item then
      local facts = redis.call('HMGET', item, 'v', 'h', 'b', 'x')
      local body = facts[3] and redis.call('HGET', facts[3], 'o')
      lease_out(item, destination, lease, seconds)
      -- Behind those that wait longer.
      schedule(destination, now)
      answer[#answer + 1] = { item, facts[1] or '', facts[2] or '', body or '', facts[4] or '0' }
      octets = octets + #(body or '')
    else
      schedule(destination)
    end
  end
end
return answer
