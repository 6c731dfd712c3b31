-- Count kinds of TLS sessions with the mail hosts of one domain on one day.
-- KEYS: the day's set of domains, the domain's hash. ARGV: the most domains, the most kinds, seconds to keep both, the domain,
-- then a kind and a number for each. Answer: how many kinds were left out.
local most_domains, most_kinds, seconds, domain = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
if redis.call('SISMEMBER', KEYS[1], domain) == 0 then
  if redis.call('SCARD', KEYS[1]) >= most_domains then
    return (#ARGV - 4) / 2
  end
  redis.call('SADD', KEYS[1], domain)
  redis.call('EXPIRE', KEYS[1], seconds)
end
local left_out = 0
for i = 5, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 or redis.call('HLEN', KEYS[2]) < most_kinds then
    if type(redis.pcall('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1])) ~= 'number' then
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) -- what stood there was damaged
    end
  else
    left_out = left_out + 1
  end
end
redis.call('EXPIRE', KEYS[2], seconds)
return left_out
