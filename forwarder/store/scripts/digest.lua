-- Put a finding into an owner's digest of one day.
-- KEYS: the day's set of owners, the digest. ARGV: the most owners, the most findings, seconds to keep both, the owner, the id of
-- the finding, the finding. The digest is a hash: id -> finding, and how many there were under the empty name.
-- Answer: 1, or 0 where there are too many owners.
if redis.call('SISMEMBER', KEYS[1], ARGV[4]) == 0 then
  if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[1]) then
    return 0
  end
  redis.call('SADD', KEYS[1], ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
if redis.call('HEXISTS', KEYS[2], ARGV[5]) == 1 then
  return 1
end
if type(redis.pcall('HINCRBY', KEYS[2], '', 1)) ~= 'number' then
  redis.call('HSET', KEYS[2], '', redis.call('HLEN', KEYS[2])) -- it was damaged: as many as there are, and this one
end
if redis.call('HLEN', KEYS[2]) <= tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[2], ARGV[5], ARGV[6])
end
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
