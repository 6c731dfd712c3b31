-- What the scripts of the queue share; each of them is this text and its own (forwarder/store/queue.py).
--
-- Names, all with the shard's hash tag ({fwd0} stands for it):
--   qi:ID    hash, an item: v record, h head, b name of its body, d name of its next hop, l lease ("" none), x "1" after mark_dot,
--            r why it is dead
--   qb:ID    hash, a body: o octets, n items that have it
--   qw:ID    sorted set, a next hop: items by the time they are due
--   qd       sorted set: next hops by the time something of theirs can be claimed
--   ql       sorted set: items under lease by its end         qc  hash: how many of each next hop
--   qk       hash: next hops that are left alone until        qa  sorted set: every item by when it was put
--   qx       sorted set: dead letters by when they died       qn  hash: octets held
--   qt:ID    an item that was here within the last minutes, so that putting it again changes nothing
-- Items know their other names, so those are not among KEYS; they are all of one shard.
-- Times are the store's own, in milliseconds.
local tag = KEYS[1]
local DESTINATIONS, LEASES, COUNTS = tag .. ':qd', tag .. ':ql', tag .. ':qc'
local QUIET, ALL, DEAD, SIZES = tag .. ':qk', tag .. ':qa', tag .. ':qx', tag .. ':qn'
local REMEMBERED = 900
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function tombstone(item)
  return tag .. ':qt:' .. string.sub(item, #tag + 5)
end

-- When can something of this next hop be claimed? Never before `earliest`.
local function schedule(destination, earliest)
  local first = redis.call('ZRANGE', destination, 0, 0, 'WITHSCORES')
  if not first[2] then
    redis.call('ZREM', DESTINATIONS, destination)
    redis.call('HDEL', QUIET, destination)
    return
  end
  local quiet = tonumber(redis.call('HGET', QUIET, destination) or '0')
  local at = math.max(tonumber(first[2]), quiet, earliest or 0)
  redis.call('ZADD', DESTINATIONS, string.format('%.0f', at), destination)
end

local function lease_out(item, destination, lease, seconds)
  redis.call('ZREM', destination, item)
  redis.call('HSET', item, 'l', lease, 'x', '')
  redis.call('ZADD', LEASES, string.format('%.0f', now + seconds * 1000), item)
  redis.call('HINCRBY', COUNTS, destination, 1)
end

-- The lease is over; the item is nowhere until the caller puts it somewhere.
local function lease_in(item, destination)
  redis.call('HSET', item, 'l', '')
  if redis.call('ZREM', LEASES, item) == 1 and redis.call('HINCRBY', COUNTS, destination, -1) <= 0 then
    redis.call('HDEL', COUNTS, destination)
  end
end

local function due_at(item, destination, at)
  redis.call('ZADD', destination, string.format('%.0f', at), item)
end

local function remove(item)
  local facts = redis.call('HMGET', item, 'b', 'd')
  local freed = redis.call('HSTRLEN', item, 'h')
  if facts[1] and redis.call('HINCRBY', facts[1], 'n', -1) <= 0 then
    freed = freed + redis.call('HSTRLEN', facts[1], 'o')
    redis.call('DEL', facts[1])
  end
  if facts[2] then
    lease_in(item, facts[2])
    redis.call('ZREM', facts[2], item)
    schedule(facts[2])
  end
  redis.call('DEL', item)
  redis.call('ZREM', ALL, item)
  redis.call('ZREM', DEAD, item)
  redis.call('HINCRBY', SIZES, 'octets', -freed)
  redis.call('SET', tombstone(item), '1', 'EX', REMEMBERED)
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

local function add(one, keep)
  redis.call('HSET', one.name, 'v', one.record, 'h', one.head, 'b', one.body.name, 'd', one.destination, 'l', '', 'x', '')
  local added = #one.head
  if redis.call('HINCRBY', one.body.name, 'n', 1) == 1 then
    redis.call('HSET', one.body.name, 'o', one.body.octets)
    added = added + #one.body.octets
  end
  redis.call('HINCRBY', SIZES, 'octets', added)
  redis.call('ZADD', ALL, string.format('%.0f', now), one.name)
  for _, mark in ipairs(one.marks) do
    redis.call('SET', mark, '\1D', 'EX', keep)
  end
end
