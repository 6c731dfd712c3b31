-- Put one standing in the place of another, if that is still the one that it was made of.
-- KEYS: the hash of all, the stamp of its last change. ARGV: field, the value before ('' for none), the value after ('' for none),
-- the most fields, seconds to keep all, a stamp that was never used.
-- Answer: 1, 0 (it has changed meanwhile), 2 (there are too many).
local had = redis.pcall('HGET', KEYS[1], ARGV[1])
if type(had) == 'table' then
  redis.call('DEL', KEYS[1]) -- some other kind of value: damaged
  had = false
end
if (had or '') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  if not had and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
    return 2
  end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[5])
end
redis.call('SET', KEYS[2], ARGV[6], 'EX', ARGV[5])
return 1
