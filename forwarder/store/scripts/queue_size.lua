#!lua flags=no-writes
-- How much there is. Answer: items that wait, items under lease, octets held, milliseconds since the oldest was put, dead letters.
local all, leased = redis.call('ZCARD', ALL), redis.call('ZCARD', LEASES)
local oldest = redis.call('ZRANGE', ALL, 0, 0, 'WITHSCORES')
local age = oldest[2] and math.max(0, now - tonumber(oldest[2])) or 0
local octets = string.format('%.0f', number(redis.call('HGET', SIZES, 'octets')))
return { all - leased, leased, octets, string.format('%.0f', age), redis.call('ZCARD', DEAD) }
