-- What the scripts of the queue share; each of them is this text and its own (forwarder/store/queue.py).
--
-- Names, all with the shard's hash tag ({fwd0} stands for it):
--   qi:ID    hash, an item: v record, h head, b name of its body, d name of its next hop, l lease ("" none), x under how many
--            leases a final dot was marked since it was settled last, y the latest of them, r why it is dead, p it is on hold,
--            g it is given up and goes back to its sender, s the lease or operation that changed it last
--   qb:ID    hash, a body: o octets, n items that have it
--   qw:ID    sorted set, a next hop: items by the time they are due
--   qd       sorted set: next hops by the time something of theirs can be claimed
--   ql       sorted set: items under lease by its end         qc  hash: how many of each next hop
--   qh       hash: the next hop of each item under lease
--   qk       hash: next hops that are left alone until        qa  sorted set: every item by when it was put
--   qx       sorted set: dead letters by when they died       qn  hash: octets held
--   qt:ID    an item that was here within the last minutes, so that putting it again changes nothing; says by what it went
--   qe:ID    an item that was carried away by an operator, for as long as its marks are in the ledger
--   qo:LEASE the names of what a claim gave, so that one whose answer was lost gives the same
--   qr:NEXT  when a next hop that gets only so many messages a minute may have the next one
-- Items know their other names, so those are not among KEYS; they are all of one shard.
-- Times are the store's own, in milliseconds.
--
-- The first line of each script makes the store check before it begins whether it may write, so that none stops half-way; and
-- only queue_put needs memory to spare: a full store can still be emptied.
local tag = KEYS[1]
local DESTINATIONS, LEASES, COUNTS, HOLDERS = tag .. ':qd', tag .. ':ql', tag .. ':qc', tag .. ':qh'
local QUIET, ALL, DEAD, SIZES = tag .. ':qk', tag .. ':qa', tag .. ':qx', tag .. ':qn'
-- The next hop of what is given up, whatever its own is: what waits for a dead one need not wait to be returned.
local GIVEN_UP = tag .. ':qw:given-up'
local REMEMBERED = 900
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- One octet of whatever lies here may be another (a bad disk, a bad memory). The scripts read on: what is no number is 0, and what
-- is no name of ours is none. A script that stopped there would stop every message that waits.
local function number(value)
  return tonumber(value or '0') or 0
end

local function ours(name)
  return name and string.sub(name, 1, #tag + 1) == tag .. ':' and name
end

-- Returns the sum.
local function add_to(hash, field, more)
  local sum = redis.pcall('HINCRBY', hash, field, more)
  if type(sum) ~= 'number' then
    sum = more
    redis.call('HSET', hash, field, sum)
  end
  return sum
end

local function tombstone(item)
  return tag .. ':qt:' .. string.sub(item, #tag + 5)
end

local function carried_away(item)
  return tag .. ':qe:' .. string.sub(item, #tag + 5)
end

-- Was it this that changed the item last? Then its answer was lost, and it is asked again.
local function was_done_by(item, by)
  return by ~= '' and ours(item) and (redis.call('HGET', item, 's') == by or redis.call('GET', tombstone(item)) == by)
end

-- When can something of this next hop be claimed? Never before `earliest`.
local function schedule(destination, earliest)
  local first = redis.call('ZRANGE', destination, 0, 0, 'WITHSCORES')
  if not first[2] then
    redis.call('ZREM', DESTINATIONS, destination)
    redis.call('HDEL', QUIET, destination)
    return
  end
  -- No pause is longer than a day, whatever stands there.
  local quiet = math.min(number(redis.call('HGET', QUIET, destination)), now + 86400000)
  local at = math.max(tonumber(first[2]), quiet, earliest or 0)
  redis.call('ZADD', DESTINATIONS, string.format('%.0f', at), destination)
end

local function lease_out(item, destination, lease, seconds)
  redis.call('ZREM', destination, item)
  redis.call('HSET', item, 'l', lease)
  redis.call('ZADD', LEASES, string.format('%.0f', now + seconds * 1000), item)
  if redis.call('HSET', HOLDERS, item, destination) == 1 then
    add_to(COUNTS, destination, 1)
  end
end

-- The lease is over; the item is nowhere until the caller puts it somewhere. Returns its next hop, false where nobody knows it.
-- The lease is asked before the item: the counts stay right whatever became of that.
local function lease_in(item)
  local destination = ours(redis.call('HGET', HOLDERS, item))
  redis.call('ZREM', LEASES, item)
  redis.call('HDEL', HOLDERS, item)
  if redis.call('HEXISTS', item, 'l') == 1 then
    redis.call('HSET', item, 'l', '')
  end
  if not destination then
    return ours(redis.call('HGET', item, 'd'))
  end
  if add_to(COUNTS, destination, -1) <= 0 then
    redis.call('HDEL', COUNTS, destination)
  end
  return destination
end

local function wait_until(item, destination, at)
  redis.call('ZADD', destination, string.format('%.0f', at), item)
end

-- The same, unless it is on hold or dead.
local function due_at(item, destination, at)
  local facts = redis.call('HMGET', item, 'p', 'r')
  if not (facts[1] or facts[2]) then
    wait_until(item, destination, at)
  end
end

-- Gone, by this lease or operation.
local function remove(item, by)
  local body = ours(redis.call('HGET', item, 'b'))
  local freed = redis.call('HSTRLEN', item, 'h')
  -- A count that cannot be read keeps its body: others may have it.
  local users = body and redis.pcall('HINCRBY', body, 'n', -1)
  if type(users) == 'number' and users <= 0 then
    freed = freed + redis.call('HSTRLEN', body, 'o')
    redis.call('DEL', body)
  end
  local destination = lease_in(item)
  if destination then
    redis.call('ZREM', destination, item)
    schedule(destination)
  end
  redis.call('DEL', item)
  redis.call('ZREM', ALL, item)
  redis.call('ZREM', DEAD, item)
  add_to(SIZES, 'octets', 0 - freed)
  if redis.call('ZCARD', ALL) == 0 then
    redis.call('DEL', SIZES)
  end
  redis.call('SET', tombstone(item), by, 'EX', REMEMBERED)
end

local function is_known(item)
  return redis.call('EXISTS', item, tombstone(item)) > 0
end

-- Reads items from ARGV at `at`: bodies (count, then name and octets), items (count, then name, next hop, record, head, number of
-- its body, count of ledger marks and their names). Returns both and what comes behind.
local function read_items(at)
  local bodies, items = {}, {}
  local count = tonumber(ARGV[at])
  at = at + 1
  for i = 1, count do
    bodies[i] = { name = ARGV[at], octets = ARGV[at + 1] }
    at = at + 2
  end
  count = tonumber(ARGV[at])
  at = at + 1
  for i = 1, count do
    local one = { name = ARGV[at], destination = ARGV[at + 1], record = ARGV[at + 2], head = ARGV[at + 3] }
    one.body = bodies[tonumber(ARGV[at + 4])]
    one.marks = {}
    local marks = tonumber(ARGV[at + 5])
    at = at + 6
    for j = 1, marks do
      one.marks[j] = ARGV[at]
      at = at + 1
    end
    items[i] = one
  end
  return bodies, items, at
end

-- Counts one more item of this body. Returns the octets that came to those held.
local function add_body(body)
  redis.pcall('HINCRBY', body.name, 'n', 1)
  if body.is_there then
    return 0
  end
  body.is_there = true
  -- What lies there is compared: a damaged body heals when a whole one comes, and is never passed on for it.
  if redis.call('HGET', body.name, 'o') == body.octets then
    return 0
  end
  local had = redis.call('HSTRLEN', body.name, 'o')
  redis.call('HSET', body.name, 'o', body.octets)
  return #body.octets - had
end

local function add(one, keep)
  redis.call('HSET', one.name, 'v', one.record, 'h', one.head, 'b', one.body.name, 'd', one.destination, 'l', '', 'x', '0')
  add_to(SIZES, 'octets', #one.head + add_body(one.body))
  redis.call('ZADD', ALL, string.format('%.0f', now), one.name)
  for _, mark in ipairs(one.marks) do
    redis.call('SET', mark, '\1D', 'EX', keep)
  end
end

-- Other hosts can see that these are under way.
local function tell(seconds)
  for i = 2, #KEYS do
    redis.call('SET', KEYS[i], '\1', 'EX', seconds)
  end
end

-- It is nobody's turn any more.
local function bury(item, reason, by)
  redis.call('HSET', item, 'r', reason, 's', by)
  redis.call('ZADD', DEAD, string.format('%.0f', now), item)
end
