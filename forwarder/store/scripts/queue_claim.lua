#!lua flags=allow-oom
-- Give what is due to a lease: next hops in turn, one item of each a round.
-- ARGV: lease, seconds of it, most items, most of one next hop under lease, most of one next hop a minute (0: any number), most
-- octets, seconds that the dead are kept, and for each next hop that differs its name and its two numbers.
-- Answer: for each item its name, record, head, body, under how many leases since it was settled last a final dot was marked,
-- and "1" where it is given up.
-- Idempotent: the lease that is given again (a lost answer) is told the same, as far as it still has it.
local lease, seconds, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local each, rate = tonumber(ARGV[4]), tonumber(ARGV[5])
local most, buried = tonumber(ARGV[6]), tonumber(ARGV[7]) * 1000
local given = tag .. ':qo:' .. lease
local answer, names, octets = {}, {}, 0

local function give(item)
  local facts = redis.call('HMGET', item, 'v', 'h', 'b', 'x', 'g')
  local body = ours(facts[3]) and redis.call('HGET', facts[3], 'o')
  answer[#answer + 1] = { item, facts[1] or '', facts[2] or '', body or '', facts[4] or '0', facts[5] or '' }
  names[#answer] = item
  octets = octets + #(body or '')
end

for item in string.gmatch(redis.call('GET', given) or '', '%S+') do
  if ours(item) and redis.call('HGET', item, 'l') == lease then
    give(item)
  end
end
if #answer > 0 then
  return answer
end

-- Its lease is over, and nobody has settled it.
local function free(item)
  local destination = lease_in(item)
  if destination then
    due_at(item, destination, now)
    schedule(destination)
  elseif redis.call('HEXISTS', item, 'v') == 1 then
    bury(item, 'the name of its next hop was damaged in the store', lease)
  end
end

for _, item in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 200)) do
  if not ours(item) then
    redis.call('ZREM', LEASES, item)
  else
    free(item)
  end
end
if redis.call('ZCARD', LEASES) == 0 then
  -- Whoever is still said to have one: its name was damaged where leases end, so nobody but us would free it.
  local stranded = redis.call('HGETALL', HOLDERS)
  for i = 1, #stranded, 2 do
    if ours(stranded[i]) then
      free(stranded[i])
    end
  end
  redis.call('DEL', COUNTS, HOLDERS)
end
for _, item in ipairs(redis.call('ZRANGEBYSCORE', DEAD, '-inf', now - buried, 'LIMIT', 0, 10)) do
  if ours(item) then
    remove(item, 'old')
  else
    redis.call('ZREM', DEAD, item)
  end
end

local differs = {}
for i = 8, #ARGV, 3 do
  differs[ARGV[i]] = { tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]) }
end

local function paced(destination)
  return tag .. ':qr:' .. string.sub(destination, #tag + 5)
end

-- When may it have the next one? No pace is slower than one a day, whatever stands there.
local function next_of(destination)
  return math.min(number(redis.call('GET', paced(destination))), now + 86400000)
end

-- From when on may a next hop with so many messages a minute have one more? They are spread evenly; what a second holds may
-- go at once, so that a high rate does not mean a look at the queue for each message.
local function free_at(destination, per_minute)
  local between = 60000 / per_minute
  local free = next_of(destination) - math.max(0, 1000 - between)
  if free <= now then
    return now
  end
  return between < 200 and math.max(free, now + 200) or free
end

local function count_one(destination, per_minute)
  local at = math.max(next_of(destination), now) + 60000 / per_minute
  redis.call('SET', paced(destination), string.format('%.3f', at), 'PX', string.format('%.0f', math.ceil(at - now)))
end

local function serve(destination)
  local at_once, per_minute = each, rate
  if destination == GIVEN_UP then
    per_minute = 0
  elseif differs[destination] then
    at_once, per_minute = differs[destination][1], differs[destination][2]
  end
  local free = per_minute > 0 and free_at(destination, per_minute) or now
  local item = redis.call('ZRANGEBYSCORE', destination, '-inf', now, 'LIMIT', 0, 1)[1]
  if number(redis.call('HGET', COUNTS, destination)) >= at_once then
    -- Looked at again when one of its leases ends, or in a second.
    schedule(destination, now + 1000)
  elseif free > now then
    schedule(destination, free)
  elseif item and not ours(item) then
    -- Told, and nobody's turn.
    redis.call('ZREM', destination, item)
    schedule(destination)
    answer[#answer + 1] = { item, '', '', '', '0', '' }
    names[#answer] = ''
  elseif item then
    lease_out(item, destination, lease, seconds)
    if per_minute > 0 then
      count_one(destination, per_minute)
      free = free_at(destination, per_minute)
    end
    -- Behind those that wait longer.
    schedule(destination, free)
    give(item)
  else
    schedule(destination)
  end
end

local looked = true
while looked and #answer < limit and octets < most do
  looked = false
  for _, destination in ipairs(redis.call('ZRANGEBYSCORE', DESTINATIONS, '-inf', now, 'LIMIT', 0, limit)) do
    if #answer >= limit or octets >= most then
      break
    end
    -- Whichever way it goes, this next hop is behind the others now, so that a round ends.
    looked = true
    if ours(destination) then
      serve(destination)
    else
      redis.call('ZREM', DESTINATIONS, destination)
    end
  end
end
if #answer > 0 then
  redis.call('SET', given, table.concat(names, ' '), 'EX', math.ceil(seconds))
end
return answer
